"""Compare a model with the readers: how well it agrees with each, and whether as well as they agree with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from focalis.evaluation.agreement import compare_readers
from focalis.evaluation.cases import Score, evaluate_case
from focalis.evaluation.intervals import Pooled, pooled
from focalis.volume import Volume

SPREAD_RULE = (
    "Of every case with two readers or more: m is the mean Dice of the model with each reader, r the mean "
    "Dice of the readers' pairs. The agreement index is the sum of m over all cases divided by the sum of r "
    "(Williams' index, as in Chalana and Kim, IEEE Trans Med Imaging 1997): 1 means that the model agrees "
    "with the readers as well as they agree with one another. The model lies outside their spread if the "
    "whole 95 % interval lies below 1, above it if the whole interval lies above 1, and inside otherwise. A "
    "wide interval includes 1 easily: with few cases, inside says little. Not the odd one out: the share of "
    "these cases in which m is no less than the mean Dice with the others of the reader who agrees with them "
    "least."
)


@dataclass(frozen=True)
class CaseBesideReaders:
    """The model and the readers on one structure of one case.

    Attributes:
        scores: reader to the model's score with that reader for the truth.
        readers_dice: reader to his or her mean Dice with the other readers; empty with a single reader.
    """

    case: str
    label: int
    structure: str
    scores: Mapping[str, Score]
    readers_dice: Mapping[str, float]

    @property
    def model_dice(self) -> float:
        """The model's mean Dice with the readers, m."""
        return float(np.mean([score.dice for score in self.scores.values()]))

    @property
    def mean_readers_dice(self) -> float | None:
        """The mean Dice of the readers' pairs, r; None with a single reader."""
        return float(np.mean(list(self.readers_dice.values()))) if self.readers_dice else None

    @property
    def not_odd_one_out(self) -> bool | None:
        """Whether the model agrees with the readers no worse than the reader who agrees least; None with one reader."""
        return self.model_dice >= min(self.readers_dice.values()) if self.readers_dice else None


@dataclass(frozen=True)
class AgainstReader:
    """The model against one reader, over the cases that the reader has contoured: means."""

    reader: str
    cases: int
    dice: Pooled
    surface_dice: float
    hd95_mm: float | None


@dataclass(frozen=True)
class StructureBesideReaders:
    """One structure over all cases.

    Attributes:
        cases: cases with two readers or more, on which all that follows is taken.
        model_dice: mean over these cases of m, see `SPREAD_RULE`.
        readers_dice: mean of r.
        not_odd_one_out: the share of cases.
        verdict: "inside", "outside" or "above" by `SPREAD_RULE`; None with fewer than two patients.
    """

    label: int
    structure: str
    against: tuple[AgainstReader, ...]
    cases: int
    model_dice: Pooled
    readers_dice: Pooled
    index: Pooled
    not_odd_one_out: Pooled
    verdict: str | None


def set_beside(
    prediction: Volume,
    readers: Mapping[str, Volume],
    labels: Mapping[int, str],
    tolerance_mm: float = 1.0,
    case: str = "case",
    ignore: int | None = None,
) -> tuple[CaseBesideReaders, ...]:
    """Set a prediction beside the label maps of the case's readers, one or more, label by label.

    Raises:
        DataError: two of the grids differ; the line names case and reader.
    """
    scores: dict[int, dict[str, Score]] = {label: {} for label in labels}
    for reader, drawn in readers.items():
        for score in evaluate_case(
            drawn, prediction, labels, tolerance_mm, f"{case} of reader {reader}", ignore
        ):
            scores[score.label][reader] = replace(score, case=case)
    pairs = compare_readers(readers, labels, tolerance_mm, case, ignore)
    return tuple(
        CaseBesideReaders(
            case,
            label,
            labels[label],
            scores[label],
            {
                reader: float(np.mean(mine))
                for reader in readers
                if (mine := [p.dice for p in pairs if p.label == label and reader in (p.first, p.second)])
            },
        )
        for label in sorted(labels)
    )


def summarise_beside(
    rows: Sequence[CaseBesideReaders], patients: Mapping[str, str] | None = None, seed: int = 0
) -> tuple[StructureBesideReaders, ...]:
    """Per structure, over cases; intervals are bootstrapped over patients (each case its own without `patients`)."""
    return tuple(
        _structure([row for row in rows if row.label == label], patients or {}, seed)
        for label in sorted({row.label for row in rows})
    )


def _structure(
    rows: Sequence[CaseBesideReaders], patients: Mapping[str, str], seed: int
) -> StructureBesideReaders:
    several = [row for row in rows if row.readers_dice]
    cases = [row.case for row in several]
    ours = [row.model_dice for row in several]
    theirs = [row.mean_readers_dice or 0.0 for row in several]
    index = pooled(cases, ours, theirs, patients, seed)
    return StructureBesideReaders(
        label=rows[0].label,
        structure=rows[0].structure,
        against=tuple(
            _against(reader, rows, patients, seed)
            for reader in sorted({reader for row in rows for reader in row.scores})
        ),
        cases=len(several),
        model_dice=pooled(cases, ours, None, patients, seed),
        readers_dice=pooled(cases, theirs, None, patients, seed),
        index=index,
        not_odd_one_out=pooled(
            cases, [float(bool(row.not_odd_one_out)) for row in several], None, patients, seed
        ),
        verdict=_verdict(index),
    )


def _verdict(index: Pooled) -> str | None:
    if index.low is None or index.high is None:
        return None
    return "outside" if index.high < 1 else "above" if index.low > 1 else "inside"


def _against(
    reader: str, rows: Sequence[CaseBesideReaders], patients: Mapping[str, str], seed: int
) -> AgainstReader:
    mine = [row for row in rows if reader in row.scores]
    scores = [row.scores[reader] for row in mine]
    hd95 = [score.hd95_mm for score in scores if score.hd95_mm is not None]
    return AgainstReader(
        reader,
        len(mine),
        pooled([row.case for row in mine], [score.dice for score in scores], None, patients, seed),
        float(np.mean([score.surface_dice for score in scores])),
        float(np.mean(hd95)) if hd95 else None,
    )
