"""What a Structured Report says of lesions over time: change, and response by RECIST 1.1 (PS3.16 CID 6134, 6144)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydicom.sr.coding import Code

if TYPE_CHECKING:
    from highdicom.sr import Measurement, QualitativeEvaluation

Verdict = Literal["new", "increase", "decrease", "no change", "unknown"]

# no coding scheme has these (PS3.16 8.2: a scheme of one's own begins with 99)
VOLUME_CHANGE = Code("volume-change", "99FOCALIS", "Change of volume since last seen")
DIAMETER_CHANGE = Code("long-axis-change", "99FOCALIS", "Change of long axis since last seen")
OVERALL_RESPONSE = Code("overall-response", "99FOCALIS", "Overall response")

CHANGE = Code("111021", "DCM", "Description of Change")
CURRENT_RESPONSE = Code("112048", "DCM", "Current Response")
SUM_OF_DIAMETERS = Code("112051", "DCM", "Measurement of Response")
_RECIST = Code("126081", "DCM", "RECIST 1.1")
_INDETERMINATE = Code("82334004", "SCT", "Indeterminate")
_PERCENT, _MM = Code("%", "UCUM", "Percent"), Code("mm", "UCUM", "millimeter")
_VERDICTS = {
    "new": Code("new-lesion", "99FOCALIS", "New lesion"),
    "increase": Code("15454001", "SCT", "Increase in size"),
    "decrease": Code("19776001", "SCT", "Decrease in size"),
    "no change": Code("129723006", "SCT", "No significant changes in the finding"),
}
_TARGETS = {
    "CR": Code("112041", "DCM", "Target Lesion Complete Response"),
    "PR": Code("112042", "DCM", "Target Lesion Partial Response"),
    "PD": Code("112043", "DCM", "Target Lesion Progressive Disease"),
    "SD": Code("112044", "DCM", "Target Lesion Stable Disease"),
}
_NON_TARGETS = {
    "CR": Code("112045", "DCM", "Non-Target Lesion Complete Response"),
    "non-CR/non-PD": Code("112046", "DCM", "Non-Target Lesion Incomplete Response or Stable Disease"),
    "PD": Code("112047", "DCM", "Non-Target Lesion Progressive Disease"),
}
_OVERALL = {
    "CR": "Complete response",
    "PR": "Partial response",
    "SD": "Stable disease",
    "PD": "Progressive disease",
    "NE": "Not evaluable",
}


@dataclass(frozen=True)
class ReportedChange:
    """How a lesion changed since the last scan on which it was there.

    Attributes:
        verdict: of its volume; "no change" within measurement error, "unknown" where that or the change is not known.
        volume_percent, diameter_mm: the change; None for a new lesion.
    """

    verdict: Verdict
    volume_percent: float | None = None
    diameter_mm: float | None = None

    def measurements(self) -> list[Measurement]:
        """As measurements of the lesion's group, rounded to thousandths."""
        from highdicom.sr import Measurement

        values = [(VOLUME_CHANGE, self.volume_percent, _PERCENT), (DIAMETER_CHANGE, self.diameter_mm, _MM)]
        return [
            Measurement(name=name, value=round(value, 3), unit=unit)
            for name, value, unit in values
            if value is not None
        ]

    def evaluations(self) -> list[QualitativeEvaluation]:
        """The verdict, as an evaluation of the lesion's group."""
        from highdicom.sr import QualitativeEvaluation

        return [QualitativeEvaluation(name=CHANGE, value=_VERDICTS.get(self.verdict, _INDETERMINATE))]


@dataclass(frozen=True)
class ReportedResponse:
    """The sum of the target lesions, and the response by RECIST 1.1.

    Attributes:
        sum_mm: the sum of their diameters; None if it misses a target.
        target, non_target, overall: CR, PR, SD, PD, NE, non-CR/non-PD; others, such as baseline, are not a response.
    """

    sum_mm: float | None
    target: str
    non_target: str
    overall: str

    def measurements(self) -> list[Measurement]:
        """The sum, as a measurement of the report's first group."""
        from highdicom.sr import Measurement

        if self.sum_mm is None:
            return []
        value = round(self.sum_mm, 3)
        return [Measurement(name=SUM_OF_DIAMETERS, value=value, unit=_MM, method=_RECIST)]

    def evaluations(self) -> list[QualitativeEvaluation]:
        """The response of targets, of non-targets and of all, as evaluations of the report's first group."""
        from highdicom.sr import QualitativeEvaluation

        if self.overall not in _OVERALL:
            return []
        found = [(CURRENT_RESPONSE, _TARGETS.get(self.target, _INDETERMINATE))]
        if self.non_target in _NON_TARGETS:
            found.append((CURRENT_RESPONSE, _NON_TARGETS[self.non_target]))
        found.append((OVERALL_RESPONSE, Code(self.overall, "99FOCALIS", _OVERALL[self.overall])))
        return [QualitativeEvaluation(name=name, value=value) for name, value in found]
