"""The report at the end of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from focalis.evaluation import Evaluation
from focalis.files import write_text
from focalis.lesions import OperatingPoint
from focalis.report.curves import course, curves_figure
from focalis.report.evaluation_page import score_context
from focalis.report.figure import DARK, LIGHT
from focalis.report.lesion_figures import operating_figure
from focalis.report.page import render
from focalis.report.strip import CasePicture
from focalis.report.summary_tables import flat


def write_fit_report(
    path: Path,
    evaluation: Evaluation,
    *,
    plan_text: str,
    metrics: Sequence[Mapping[str, Any]],
    overlays: Sequence[tuple[str, bytes]],
    pictures: Sequence[CasePicture] = (),
    record: Mapping[str, object],
    split_note: str,
    point: OperatingPoint | None = None,
    alerts: Sequence[str] = (),
) -> None:
    """Write plan, curves, scores, pictures and the run's record as one self-contained HTML page.

    Args:
        path: the page; written whole or not at all.
        plan_text: the plan file as it stands.
        metrics: the rows of `metrics.jsonl`, see `curves_figure`; may be empty.
        overlays, pictures: see `write_evaluation_report`.
        record: how the run was made; nested mappings are shown with dotted names.
        split_note: on which cases the scores are, and what these cases were used for.
        point: the operating point; None where every fold has its own.
        alerts: what stands first, above all figures: a reason not to believe them, a line each.

    Raises:
        DataError: if the page cannot be written.
    """
    curves = [curves_figure(metrics, theme) for theme in (LIGHT, DARK)] if metrics else None
    packages = record.get("packages")
    rest = {key: value for key, value in record.items() if key != "packages"}
    page = render(
        "fit.html.j2",
        title="Training report",
        alerts=alerts,
        split_note=split_note,
        plan_text=plan_text,
        curves=curves,
        course=course(metrics),
        **_point(point),
        record=flat(rest),
        packages=flat(packages) if isinstance(packages, Mapping) else flat({"packages": packages or None}),
        **score_context(evaluation, overlays, pictures),
    )
    write_text(path, page)


def _point(point: OperatingPoint | None) -> dict[str, Any]:
    """The operating point in words, and the curves that it was chosen from."""
    if point is None:
        return {"point_note": "Every fold has its own; see the folds' reports.", "point_curves": None}
    words = str(point)
    note = f"{words[0].upper()}{words[1:]}."
    curves = [operating_figure(point, theme) for theme in (LIGHT, DARK)] if point.curve else None
    return {"point_note": note, "point_curves": curves}
