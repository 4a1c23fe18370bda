"""Lesions on the pages: figures with captions, and tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from focalis.evaluation import (
    CALIBRATION_RULE,
    FROC_RULE,
    RISK_RULE,
    Detection,
    Froc,
    JudgedLesion,
    Reliability,
)
from focalis.lesions import MEASURING_RULE
from focalis.report.figure import DARK, LIGHT
from focalis.report.lesion_figures import froc_figure, reliability_figure, risk_figure
from focalis.report.page import number

SHOWN = 150
"""Lesions of a table on the page; the rest is in lesions.csv."""


def lesion_context(detection: Detection | None, lesions: Sequence[JudgedLesion]) -> dict[str, Any]:
    """What the templates need to show lesions."""
    rules = [MEASURING_RULE] if lesions else []
    shown = None
    if detection is not None:
        rules += [FROC_RULE, CALIBRATION_RULE, RISK_RULE]
        shown = {
            "froc": _pair(froc_figure, detection.froc) if detection.froc else None,
            "one_each": detection.froc is not None and detection.froc.lesions <= detection.froc.scans,
            "froc_note": _froc_note(detection.froc) if detection.froc else "",
            "reliability": _pair(reliability_figure, detection.calibration)
            if detection.calibration.lesions_after.count or detection.calibration.voxels_after
            else None,
            "calibration_note": _calibration_note(detection),
            "risk": _pair(risk_figure, detection.risk) if detection.risk else None,
        }
    return {"detection": shown, "lesions": _tables(lesions), "lesion_rules": rules}


def _pair(draw: Any, what: Any) -> list[bytes]:
    return [draw(what, theme) for theme in (LIGHT, DARK)]


def _froc_note(froc: Froc) -> str:
    reach = froc.points[-1] if froc.points else None
    text = f"{froc.lesions} true lesions in {froc.scans} scans, {froc.empty_scans} of them without any."
    if reach is not None:
        text += (
            f" With all predicted lesions: {number(reach.sensitivity)} found at {number(reach.fp_per_scan, 2)} "
            "false positives per scan"
        )
        if reach.fp_per_empty_scan is not None:
            text += (
                f" ({number(reach.fp_per_lesion_scan, 2)} where there are lesions, "
                f"{number(reach.fp_per_empty_scan, 2)} where there are none)"
            )
        text += "."
    return text


def _calibration_note(detection: Detection) -> str:
    found = detection.calibration
    temperatures = ", ".join(f"{value:.3g}" for value in found.temperatures)

    def ece(before: Reliability | None, after: Reliability | None) -> str:
        if before is None or after is None or before.ece is None:
            return "not known"
        return f"{number(before.ece)} before, {number(after.ece)} after"

    return (
        f"Temperature {temperatures}. Expected calibration error of voxels near the boundary: "
        f"{ece(found.voxels_before, found.voxels_after)}; of lesions: "
        f"{ece(found.lesions_before, found.lesions_after)}."
    )


def _tables(lesions: Sequence[JudgedLesion]) -> list[tuple[str, list[JudgedLesion], int]]:
    """The errors, then the rest, the largest first."""
    ranked = sorted(lesions, key=lambda each: -each.lesion.volume_mm3)
    parts = [
        ("Missed lesions", [each for each in ranked if each.status == "missed"]),
        ("False positives", [each for each in ranked if each.status == "false positive"]),
        ("Predicted lesions that are right", [each for each in ranked if each.status == "right"]),
        ("True lesions that were found", [each for each in ranked if each.status == "found"]),
    ]
    return [(f"{title}: {len(part)}", part[:SHOWN], max(0, len(part) - SHOWN)) for title, part in parts]
