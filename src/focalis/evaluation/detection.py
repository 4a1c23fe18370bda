"""Everything about lesions as a whole: FROC, calibration, ranking of errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from focalis.evaluation.calibration import CALIBRATION_RULE, Calibration, VoxelCounts, calibration
from focalis.evaluation.froc import FROC_RULE, Froc, froc
from focalis.evaluation.risk import RISK_RULE, RiskCoverage, risk_coverage
from focalis.lesions import Candidates


@dataclass(frozen=True)
class Detection:
    """What the lesions' confidence is worth.

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
        cls,
        candidates: Sequence[Candidates],
        counts: VoxelCounts | None,
        temperature: float,
        patients: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> Detection:
        """From the predicted lesions of all cases; see `froc` and `calibration` for the arguments."""
        return cls(
            froc(candidates, patients, seed),
            calibration(candidates, counts, temperature),
            risk_coverage(candidates),
        )

    def to_json(self) -> dict[str, Any]:
        """Everything as plain structure, with the rules."""
        rules = {"froc": FROC_RULE, "calibration": CALIBRATION_RULE, "risk_coverage": RISK_RULE}
        return {"rules": rules, **asdict(self)}
