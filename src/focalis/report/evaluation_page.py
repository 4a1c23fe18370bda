"""The report of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from focalis.evaluation import EMPTY_RULE, Evaluation
from focalis.evaluation.beside_readers import SPREAD_RULE
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
    evaluation: Evaluation,
    overlays: Sequence[tuple[str, bytes]] = (),
    pictures: Sequence[CasePicture] = (),
) -> None:
    """Write an evaluation as one self-contained HTML page, whole or not at all; DataError if it cannot be written.

    Args:
        overlays: captions with PNG files, see `overlay_figure`.
        pictures: of the cases, see `case_picture`.
    """
    page = render(
        "evaluation.html.j2",
        title="Evaluation",
        alerts=evaluation.alerts,
        seen_notes=evaluation.notes,
        readers=evaluation.readers,
        spread_rule=SPREAD_RULE,
        **score_context(evaluation, overlays, pictures),
    )
    write_text(path, page)


def score_context(
    evaluation: Evaluation, overlays: Sequence[tuple[str, bytes]], pictures: Sequence[CasePicture]
) -> dict[str, Any]:
    """What the templates need to show scores and lesions."""
    scores, summary, lesions = evaluation.scores, evaluation.summary, evaluation.lesions
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
        "empty_rule": EMPTY_RULE
        + ("" if evaluation.ignore is None else f" Voxels of the value {evaluation.ignore} were not judged."),
        "tolerance_mm": evaluation.tolerance_mm,
        **lesion_context(evaluation.detection, lesions),
    }
