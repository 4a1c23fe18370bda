"""Everything about lesions as a whole: FROC, calibration, ranking of errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from focalis.evaluation.calibration import (
    CALIBRATION_RULE,
    Calibration,
    VoxelCounts,
    lesion_reliability,
    voxel_reliability,
)
from focalis.evaluation.froc import FROC_RULE, Froc, froc
from focalis.evaluation.judged import JudgedLesion
from focalis.evaluation.risk import RISK_RULE, RiskCoverage, risk_coverage
from focalis.lesions import Candidates


@dataclass(frozen=True, eq=False)
class CaseLesions:
    """What one case contributes about its lesions; small.

    Attributes:
        judged: its lesions, true and reported, and what became of them.
        candidates: predicted lesions with their confidence, of every label; None where no confidence is known.
            They may be more than those reported: all at the threshold, before the unsure are dropped.
        counts: voxels near the boundary by their probability as the network gives it; None without a map.
        temperature: what the probabilities were then tempered with.
    """

    judged: tuple[JudgedLesion, ...]
    candidates: tuple[Candidates, ...] | None = None
    counts: VoxelCounts | None = None
    temperature: float = 1.0


@dataclass(frozen=True)
class Detection:
    """How reliable the lesions' confidence is.

    Attributes:
        froc: None without a true lesion.
        calibration: before and after the temperature.
        risk: one curve per number that ranks lesions; empty without a predicted lesion.
    """

    froc: Froc | None
    calibration: Calibration
    risk: tuple[RiskCoverage, ...]

    @classmethod
    def of(
        cls, cases: Sequence[CaseLesions], patients: Mapping[str, str] | None = None, seed: int = 0
    ) -> Detection | None:
        """From all cases; None unless the confidence is known in every one. See `froc` for the rest."""
        rows = [(each, case.temperature) for case in cases for each in case.candidates or ()]
        if not cases or any(case.candidates is None for case in cases):
            return None
        candidates = [each for each, _ in rows]
        return cls(froc(candidates, patients, seed), _calibration(cases, rows), risk_coverage(candidates))

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON types, with the rules."""
        rules = {"froc": FROC_RULE, "calibration": CALIBRATION_RULE, "risk_coverage": RISK_RULE}
        return {"rules": rules, **asdict(self)}


def _calibration(cases: Sequence[CaseLesions], rows: Sequence[tuple[Candidates, float]]) -> Calibration:
    before, after = VoxelCounts.none(), VoxelCounts.none()
    for case in cases:
        if case.counts is not None:
            before += case.counts
            after += case.counts.tempered(case.temperature)
    mapped = all(case.counts is not None for case in cases)
    return Calibration(
        temperatures=tuple(dict.fromkeys(case.temperature for case in cases)),
        voxels_before=voxel_reliability(before) if mapped else None,
        voxels_after=voxel_reliability(after) if mapped else None,
        lesions_before=lesion_reliability([each.tempered(1 / temperature) for each, temperature in rows]),
        lesions_after=lesion_reliability([each for each, _ in rows]),
    )
