"""The report at the end of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from focalis.evaluation import Score, Summary
from focalis.files import write_text
from focalis.report.curves import curves_figure
from focalis.report.evaluation import score_context
from focalis.report.figure import DARK, LIGHT
from focalis.report.page import render
from focalis.report.tables import flat


def write_fit_report(
    path: Path,
    *,
    plan_text: str,
    metrics: Sequence[Mapping[str, Any]],
    scores: Sequence[Score],
    summary: Summary,
    overlays: Sequence[tuple[str, bytes]],
    record: Mapping[str, object],
    split_note: str,
    tolerance_mm: float = 1.0,
    title: str = "Training report",
) -> None:
    """Write plan, curves, scores, pictures and the run's record as one self-contained HTML page.

    Args:
        path: the page; written whole or not at all.
        plan_text: the plan file as it stands.
        metrics: the rows of `metrics.jsonl`, see `curves_figure`; may be empty.
        scores: one per case and label.
        summary: of these scores.
        overlays: captions with PNG files: best, median and worst case.
        record: how the run was made; nested mappings are shown with dotted names.
        split_note: on which cases the scores are, and what these cases were used for.
        tolerance_mm: the tolerance that the surface Dice was computed with.
        title: the page's heading.

    Raises:
        DataError: if the page cannot be written.
    """
    curves = [curves_figure(metrics, theme) for theme in (LIGHT, DARK)] if metrics else None
    packages = record.get("packages")
    rest = {key: value for key, value in record.items() if key != "packages"}
    page = render(
        "fit.html.j2",
        title=title,
        split_note=split_note,
        plan_text=plan_text,
        curves=curves,
        record=flat(rest),
        packages=flat(packages) if isinstance(packages, Mapping) else flat({"packages": packages or None}),
        **score_context(scores, summary, overlays, tolerance_mm),
    )
    write_text(path, page)
