"""The report of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from focalis.evaluation import EMPTY_RULE, Detection, JudgedLesion, Score, Summary
from focalis.evaluation.beside import SPREAD_RULE, StructureBesideReaders
from focalis.files import write_text
from focalis.lesions import MATCHING_RULE
from focalis.report.figure import DARK, LIGHT
from focalis.report.lesion_context import lesion_context
from focalis.report.page import figures, render
from focalis.report.spread import spread_figure
from focalis.report.strip import CasePicture
from focalis.report.summary_tables import galleries, headline, lesion_rows, summary_rows, worst_first
from focalis.report.verdict import next_steps, verdict


def write_evaluation_report(
    path: Path,
    scores: Sequence[Score],
    summary: Summary,
    overlays: Sequence[tuple[str, bytes]] = (),
    readers: Sequence[StructureBesideReaders] = (),
    *,
    pictures: Sequence[CasePicture] = (),
    detection: Detection | None = None,
    lesions: Sequence[JudgedLesion] = (),
    tolerance_mm: float = 1.0,
    alerts: Sequence[str] = (),
    seen_notes: Sequence[str] = (),
) -> None:
    """Write the scores of many cases as one self-contained HTML page.

    Args:
        path: the page; written whole or not at all.
        scores: one per case and label.
        summary: of these scores.
        overlays: captions with PNG files, see `overlay_figure`.
        readers: the predictions beside the readers, where there are any.
        detection: FROC, calibration and ranking of errors, where the lesions' confidence is known.
        lesions: every true and predicted lesion.
        tolerance_mm: the tolerance that the surface Dice was computed with.
        seen_notes: those of the alerts that are repeated beside the readers.
        alerts: what stands first, above all figures: a reason not to believe them, a line each.

    Raises:
        DataError: if the page cannot be written.
    """
    context = score_context(scores, summary, overlays, pictures, tolerance_mm, lesions)
    context |= lesion_context(detection, lesions)
    write_text(
        path,
        render(
            "evaluation.html.j2",
            title="Evaluation",
            alerts=alerts,
            seen_notes=seen_notes,
            readers=readers,
            spread_rule=SPREAD_RULE,
            **context,
        ),
    )


def score_context(
    scores: Sequence[Score],
    summary: Summary,
    overlays: Sequence[tuple[str, bytes]],
    pictures: Sequence[CasePicture],
    tolerance_mm: float,
    lesions: Sequence[JudgedLesion],
) -> dict[str, Any]:
    """What the templates need to show scores."""
    several = len(summary.labels) > 1
    parts = [summary.overall, *summary.labels] if several else [summary.labels[0]]
    cases, missed = galleries(pictures, scores)
    spread = [spread_figure(scores, theme) for theme in (LIGHT, DARK)] if len(scores) > 1 else None
    return {
        "cases": summary.overall.cases,
        "several_labels": several,
        "verdict": verdict(summary),
        "next_steps": next_steps(scores, summary, lesions),
        "headline": headline(summary),
        "parts": [(part.name, summary_rows(part), lesion_rows(part)) for part in parts],
        "scores": worst_first(scores),
        "spread": spread,
        "overlays": figures(overlays),
        "gallery": cases,
        "missed": missed,
        "missed_left_out": sum(each.status == "missed" for each in lesions) - len(missed) if missed else 0,
        "anchors": {item["anchor"] for item in (*cases, *missed)},
        "matching_rule": MATCHING_RULE,
        "empty_rule": EMPTY_RULE,
        "tolerance_mm": tolerance_mm,
    }
