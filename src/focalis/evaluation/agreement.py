"""How well readers of the same cases agree: every pair of readers, structure by structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from focalis.display import Shown
from focalis.errors import DataError
from focalis.evaluation.cases import Score, evaluate_case, head_of_json
from focalis.evaluation.intervals import Pooled, pooled
from focalis.evaluation.summary import Statistic, statistic
from focalis.volume import Volume

KAPPA_RULE = (
    "Detection kappa: 2 s / (2 s + a + b), where s lesions are matched between two readers by the rule "
    "above, and a and b are those that only the one or the other has marked. It is what Cohen's kappa "
    "tends to when the places where neither has marked anything, which nobody can count, grow without "
    "bound. Lesions are summed over cases first. Undefined where neither reader has marked a lesion."
)

AGREEMENT_METRICS = {
    "dice": ("Dice", 3),
    "surface_dice": ("Surface Dice", 3),
    "hd95_mm": ("HD95, mm", 2),
    "absolute_volume_difference_mm3": ("Volume diff., mm³", 1),
    "absolute_relative_volume_difference": ("Volume diff., relative", 3),
}
"""Each metric with its title in tables and the digits after the point."""


@dataclass(frozen=True)
class PairScore:
    """Two readers on one structure of one case: a row of `pairs.csv`. None means undefined, by `EMPTY_RULE`.

    Attributes:
        first, second: the readers, in alphabetical order.
        dice, surface_dice, hd95_mm: see `VoxelScores` and `SurfaceScores`; the same whoever is taken for the truth.
        volume_difference_mm3: second minus first.
        relative_volume_difference: the same divided by the mean of both; None if both are empty.
        first_lesions, second_lesions, shared_lesions: lesions of each, and matched ones.
    """

    case: str
    label: int
    structure: str
    first: str
    second: str
    first_volume_mm3: float
    second_volume_mm3: float
    dice: float
    surface_dice: float
    hd95_mm: float | None
    volume_difference_mm3: float
    relative_volume_difference: float | None
    first_lesions: int
    second_lesions: int
    shared_lesions: int
    detection_kappa: float | None

    @property
    def absolute_volume_difference_mm3(self) -> float:
        """The volume difference without its sign."""
        return abs(self.volume_difference_mm3)

    @property
    def absolute_relative_volume_difference(self) -> float | None:
        """The relative volume difference without its sign."""
        relative = self.relative_volume_difference
        return None if relative is None else abs(relative)


@dataclass(frozen=True)
class ReaderPair:
    """Two readers over all cases that both have contoured.

    Attributes:
        dice, hd95_mm, relative_volume_difference: means over these cases, the last one with its sign: who draws larger.
        detection_kappa: of the lesions of all these cases.
    """

    first: str
    second: str
    cases: int
    dice: float
    hd95_mm: float | None
    relative_volume_difference: float | None
    detection_kappa: float | None


@dataclass(frozen=True, repr=False)
class StructureAgreement(Shown):
    """One structure over all cases with two readers or more.

    Attributes:
        statistics: one per metric of `AGREEMENT_METRICS`, of each case's mean over its pairs of readers.
        detection_kappa: pooled over cases and pairs, with its interval.
    """

    label: int
    structure: str
    cases: int
    statistics: tuple[Statistic, ...]
    detection_kappa: Pooled
    pairs: tuple[ReaderPair, ...]

    def __getitem__(self, metric: str) -> Statistic:
        return next(each for each in self.statistics if each.metric == metric)


@dataclass(frozen=True, repr=False)
class Agreement(Shown):
    """All pairs of readers, and their summary.

    Attributes:
        pairs: one per case, structure and pair of readers.
        readers: reader to the number of cases that he or she contoured.
        single: cases with fewer than two readers, which say nothing about agreement.
    """

    shows = ("readers", "cases", "dice")

    pairs: tuple[PairScore, ...]
    structures: tuple[StructureAgreement, ...]
    readers: Mapping[str, int]
    single: tuple[str, ...]
    tolerance_mm: float
    seed: int

    @property
    def cases(self) -> int:
        """How many cases two readers or more contoured."""
        return len({pair.case for pair in self.pairs})

    @property
    def dice(self) -> tuple[str, ...]:
        """The mean pairwise Dice of each structure."""
        found = [(each.structure, each["dice"].mean) for each in self.structures]
        return tuple(f"{name} {mean:.4g}" for name, mean in found if mean is not None)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain dictionaries, lists and values, with the rules that the figures follow."""
        return {
            **head_of_json(self.tolerance_mm, self.seed, detection_kappa=KAPPA_RULE),
            "readers": dict(self.readers),
            "cases_with_fewer_than_two_readers": list(self.single),
            "structures": [asdict(structure) for structure in self.structures],
            "pairs": [asdict(pair) for pair in self.pairs],
        }


def compare_readers(
    readers: Mapping[str, Volume],
    labels: Mapping[int, str],
    tolerance_mm: float = 1.0,
    case: str = "case",
    ignore: int | None = None,
) -> tuple[PairScore, ...]:
    """Compare every pair of readers of one case, in alphabetical order of their names.

    Args:
        readers: label maps by reader, all on one grid.
        labels: label value to name, without the background 0.
        tolerance_mm: tolerance of the surface Dice.
        ignore: value where a reader has not judged; there both of a pair count as background.

    Raises:
        DataError: two grids differ; the line names case and readers, what differs, and by how much.
    """
    rows: list[PairScore] = []
    for first, second in combinations(sorted(readers), 2):
        one, other = readers[first], readers[second]
        if different := one.grid.differences(other.grid):
            raise DataError.at(
                case,
                f"readers {first} and {second} lie on different grids: {'; '.join(different)}",
                "export one of them again",
            )
        if ignore is not None:
            unjudged = (one.array == ignore) | (other.array == ignore)
            one, other = (Volume(np.where(unjudged, 0, each.array), each.grid) for each in (one, other))
        rows += [
            _pair(score, first, second) for score in evaluate_case(one, other, labels, tolerance_mm, case)
        ]
    return tuple(rows)


def summarise_agreement(
    pairs: Sequence[PairScore], patients: Mapping[str, str] | None = None, seed: int = 0
) -> tuple[StructureAgreement, ...]:
    """Per structure: each case's mean over its pairs, then mean, median and interval over cases.

    So a case with four readers counts as much as one with two. The bootstrap draws patients; without `patients` each
    case is a patient of its own.
    """
    return tuple(
        _structure([pair for pair in pairs if pair.label == label], patients or {}, seed)
        for label in sorted({pair.label for pair in pairs})
    )


def representative_pairs(pairs: Sequence[PairScore]) -> tuple[tuple[str, PairScore], ...]:
    """The ("median", pair) and the ("worst", pair) to show, one if there is only one case and structure.

    Cases are ranked, structure by structure, by the mean Dice of their pairs; ties go by name. For the median case, the
    pair whose Dice is nearest to that mean is shown, of the worst case the pair with the lowest Dice.
    """
    groups: dict[tuple[str, int], list[PairScore]] = {}
    for pair in pairs:
        groups.setdefault((pair.case, pair.label), []).append(pair)
    means = {key: float(np.mean([pair.dice for pair in rows])) for key, rows in groups.items()}
    ranked = sorted(means, key=lambda key: (means[key], key))
    if not ranked:
        return ()
    middle = ranked[len(ranked) // 2]
    usual = min(groups[middle], key=lambda pair: abs(pair.dice - means[middle]))
    worst = min(groups[ranked[0]], key=lambda pair: pair.dice)
    return (("median", usual), ("worst", worst))[: len(ranked)]


def _pair(score: Score, first: str, second: str) -> PairScore:
    mean = (score.truth_volume_mm3 + score.predicted_volume_mm3) / 2
    return PairScore(
        case=score.case,
        label=score.label,
        structure=score.name,
        first=first,
        second=second,
        first_volume_mm3=score.truth_volume_mm3,
        second_volume_mm3=score.predicted_volume_mm3,
        dice=score.dice,
        surface_dice=score.surface_dice,
        hd95_mm=score.hd95_mm,
        volume_difference_mm3=score.volume_error_mm3,
        relative_volume_difference=score.volume_error_mm3 / mean if mean else None,
        first_lesions=score.truth_lesions,
        second_lesions=score.predicted_lesions,
        shared_lesions=score.detected_lesions,
        detection_kappa=score.lesion_f1 if score.truth_lesions + score.predicted_lesions else None,
    )


def _structure(pairs: list[PairScore], patients: Mapping[str, str], seed: int) -> StructureAgreement:
    by_case: dict[str, list[PairScore]] = {}
    by_readers: dict[tuple[str, str], list[PairScore]] = {}
    for pair in pairs:
        by_case.setdefault(pair.case, []).append(pair)
        by_readers.setdefault((pair.first, pair.second), []).append(pair)
    tops = [float(sum(2 * row.shared_lesions for row in rows)) for rows in by_case.values()]
    bottoms = [
        float(sum(row.first_lesions + row.second_lesions for row in rows)) for rows in by_case.values()
    ]
    return StructureAgreement(
        label=pairs[0].label,
        structure=pairs[0].structure,
        cases=len(by_case),
        statistics=tuple(_statistic(metric, by_case, patients, seed) for metric in AGREEMENT_METRICS),
        detection_kappa=pooled(list(by_case), tops, bottoms, patients, seed),
        pairs=tuple(_reader_pair(rows) for _, rows in sorted(by_readers.items())),
    )


def _statistic(
    metric: str, by_case: Mapping[str, list[PairScore]], patients: Mapping[str, str], seed: int
) -> Statistic:
    values = {
        case: mean
        for case, rows in by_case.items()
        if (mean := _mean([getattr(row, metric) for row in rows])) is not None
    }
    found = pooled(list(values), list(values.values()), None, patients, seed)
    return statistic(metric, values, len(by_case), found)


def _reader_pair(rows: Sequence[PairScore]) -> ReaderPair:
    lesions = sum(row.first_lesions + row.second_lesions for row in rows)
    return ReaderPair(
        first=rows[0].first,
        second=rows[0].second,
        cases=len(rows),
        dice=float(np.mean([row.dice for row in rows])),
        hd95_mm=_mean([row.hd95_mm for row in rows]),
        relative_volume_difference=_mean([row.relative_volume_difference for row in rows]),
        detection_kappa=2 * sum(row.shared_lesions for row in rows) / lesions if lesions else None,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
