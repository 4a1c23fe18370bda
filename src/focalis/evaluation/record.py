"""An evaluation as a whole, and as the plain structure that goes into `evaluation.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from focalis.evaluation.cases import EMPTY_RULE, Score
from focalis.evaluation.intervals import DRAWS, LEVEL
from focalis.evaluation.summary import Summary, summarise
from focalis.lesions import MATCHING_RULE


@dataclass(frozen=True)
class Evaluation:
    """Scores, their summary, and what they depend on.

    Attributes:
        scores: one per case and label.
        summary: per label and over labels.
        tolerance_mm: tolerance of the surface Dice.
        seed: seed of the bootstrap.
    """

    scores: tuple[Score, ...]
    summary: Summary
    tolerance_mm: float
    seed: int

    @classmethod
    def of(
        cls,
        scores: Sequence[Score],
        tolerance_mm: float = 1.0,
        seed: int = 0,
        patients: Mapping[str, str] | None = None,
    ) -> Evaluation:
        """Summarise scores that were computed with this tolerance; see `summarise` for the rest."""
        return cls(tuple(scores), summarise(scores, patients=patients, seed=seed), tolerance_mm, seed)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain dictionaries, lists and values, with the rules that the figures follow."""
        return {
            "version": 1,
            "focalis": version("focalis"),
            "rules": {
                "lesion_matching": MATCHING_RULE,
                "empty_masks": EMPTY_RULE,
                "surface_dice_tolerance_mm": self.tolerance_mm,
                "interval": f"percentile bootstrap over patients: {LEVEL}, {DRAWS} draws, seed {self.seed}",
            },
            "summary": asdict(self.summary),
            "cases": [asdict(score) for score in self.scores],
        }
