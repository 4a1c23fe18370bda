"""An evaluation as a whole, and as the plain structure that goes into `evaluation.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from focalis.display import Shown
from focalis.evaluation.beside_readers import (
    SPREAD_RULE,
    CaseBesideReaders,
    StructureBesideReaders,
    summarise_beside,
)
from focalis.evaluation.cases import Score, head_of_json
from focalis.evaluation.collapse import Collapse, find_collapse, nothing_to_find, partly_judged
from focalis.evaluation.detection import CaseLesions, Detection
from focalis.evaluation.judged import JudgedLesion
from focalis.evaluation.missing import channels_line
from focalis.evaluation.summary import Summary, summarise
from focalis.lesions import CONNECTIVITY, MINIMUM_IOU


@dataclass(frozen=True, repr=False)
class Evaluation(Shown):
    """Scores, their summary, and what they depend on.

    Attributes:
        scores: one per case and label.
        summary: per label and over labels.
        tolerance_mm: tolerance of the surface Dice.
        beside: the predictions beside the readers, where there are any: one per case and label.
        readers: the same summarised, one per label.
        lesions: every true and predicted lesion, and what became of it.
        detection: FROC, calibration and ranking of errors; None where no confidence is known.
        minimum_mm3: smaller components were no lesions.
        notes: what else has to be known before any figure is believed, a line each.
        seen: case name to what it was used for when the model was made, as the tables of lesions say.
        channels: where cases were predicted without some channels, figures with and without, see `by_channels`.
        ignore: the value of the truths where nobody has judged, and nothing counts; None without one.
    """

    shows = ("summary", "lesions", "alerts")

    scores: tuple[Score, ...]
    summary: Summary
    tolerance_mm: float
    seed: int
    beside: tuple[CaseBesideReaders, ...] = ()
    readers: tuple[StructureBesideReaders, ...] = ()
    lesions: tuple[JudgedLesion, ...] = ()
    detection: Detection | None = None
    minimum_mm3: float = 0.0
    notes: tuple[str, ...] = ()
    seen: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    channels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ignore: int | None = None

    @property
    def collapse(self) -> Collapse | None:
        """How the predictions collapsed, to nothing or to everything; None if they did not."""
        return find_collapse(self.scores)

    @property
    def alerts(self) -> tuple[str, ...]:
        """Warnings that qualify every figure, a line each."""
        collapse = "" if self.collapse is None else self.collapse.line
        lines = (
            collapse,
            nothing_to_find(self.scores),
            partly_judged(self.scores),
            channels_line(self.channels),
        )
        return (*self.notes, *(line for line in lines if line))

    @classmethod
    def of(
        cls,
        scores: Sequence[Score],
        tolerance_mm: float = 1.0,
        seed: int = 0,
        patients: Mapping[str, str] | None = None,
        beside: Sequence[CaseBesideReaders] = (),
        lesions: Sequence[CaseLesions] = (),
        minimum_mm3: float = 0.0,
        notes: Sequence[str] = (),
        seen: Mapping[str, Mapping[str, Any]] | None = None,
        channels: Mapping[str, Mapping[str, Any]] | None = None,
        ignore: int | None = None,
    ) -> Evaluation:
        """Summarise scores; see `summarise`, `summarise_beside` and `Detection.of`."""
        summary = summarise(scores, patients=patients, seed=seed)
        readers = summarise_beside(beside, patients, seed)
        judged = tuple(lesion for case in lesions for lesion in case.judged)
        detection = Detection.of(lesions, patients, seed)
        return cls(
            tuple(scores),
            summary,
            tolerance_mm,
            seed,
            tuple(beside),
            readers,
            judged,
            detection,
            minimum_mm3,
            tuple(notes),
            dict(seen or {}),
            dict(channels or {}),
            ignore,
        )

    def to_json(self) -> dict[str, Any]:
        """Everything as plain dictionaries, lists and values, with the rules that the figures follow."""
        return {
            **head_of_json(
                self.tolerance_mm,
                self.seed,
                lesion_connectivity=CONNECTIVITY,
                lesion_minimum_mm3=self.minimum_mm3,
                lesion_minimum_iou=MINIMUM_IOU,
                **({} if self.ignore is None else {"ignored_value": self.ignore}),
            ),
            "alerts": list(self.alerts),
            **({"seen_in_training": dict(self.seen)} if self.seen else {}),
            **({"by_channels": dict(self.channels)} if self.channels else {}),
            "summary": asdict(self.summary),
            "cases": [asdict(score) for score in self.scores],
            **({"detection": self.detection.to_json()} if self.detection else {}),
        } | ({"readers": self._readers()} if self.beside else {})

    def _readers(self) -> dict[str, Any]:
        return {
            "rule": SPREAD_RULE,
            "structures": [asdict(structure) for structure in self.readers],
            "cases": [
                {
                    "case": row.case,
                    "label": row.label,
                    "structure": row.structure,
                    "model_dice": {reader: score.dice for reader, score in row.scores.items()},
                    "readers_dice": dict(row.readers_dice),
                    "not_odd_one_out": row.not_odd_one_out,
                }
                for row in self.beside
            ],
        }
