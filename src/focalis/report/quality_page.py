"""The report of the check of a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from focalis.colours import label_colour
from focalis.display import counted
from focalis.files import write_text
from focalis.quality import (
    FEW_VOXELS,
    GREATEST_SHARE,
    KINDS,
    LEAST_SHARE,
    CaseFacts,
    Survey,
    share_in_words,
    voxels_at,
)
from focalis.report.figure import DARK, LIGHT, Theme, png, style
from focalis.report.page import DASH, number, render

ROWS_OPEN = 12
"""Findings of a kind that are shown at once; the rest is folded away."""
_STEPS_PER_DECADE = 5
_WIDE = 20.0
"""From this ratio between the widest and the usual range of intensities on, a linear axis would show nothing."""


@dataclass(frozen=True)
class _LabelRow:
    """A label over all cases; least, median and greatest volume of a lesion."""

    name: str
    cases: int
    lesions: int
    per_case: float
    volumes_mm3: tuple[float, float, float]
    voxels: tuple[float, float, float]
    few: int


def write_quality_report(path: Path, found: Survey, pictures: Sequence[tuple[str, bytes]] = ()) -> None:
    """Write what the check of a data set found as one self-contained HTML page.

    Args:
        path: the page; written whole or not at all.
        pictures: case names with pictures, see `strip`.

    Raises:
        DataError: if the page cannot be written.
    """
    groups = [(KINDS[kind], list(group)) for kind, group in groupby(found.findings, key=lambda f: f.kind)]
    labels = [row for value in found.labels if (row := _label_row(found, value))]
    sizes = [sizes_figure(found, theme) for theme in (LIGHT, DARK)] if labels else None
    measured = any(case.images for case in found.facts)
    ranges = [intensity_figure(found, theme) for theme in (LIGHT, DARK)] if measured else None
    page = render(
        "quality.html.j2",
        title=f"Check of {found.dataset.root.resolve().name}",
        root=str(found.dataset.root),
        headline=_headline(found, labels),
        problems=found.result.problems,
        groups=groups,
        rows_open=ROWS_OPEN,
        planned=found.planned,
        spacing=None if found.planned is None else _times(found.planned.spacing_zyx_mm[::-1]),
        splits=found.splits,
        sizes=sizes,
        ranges=ranges,
        labels=labels,
        cases=[_case_row(case) for case in found.facts],
        gallery=[{"anchor": f"case-{case}", "picture": jpeg, "caption": case} for case, jpeg in pictures],
        anchors={f"case-{case}" for case, _ in pictures},
        colours=_colours(found),
        several_labels=len(found.labels) > 1,
        patients=any(case.patient != case.case for case in found.facts),
        readers=_readers(found.facts),
        few=FEW_VOXELS,
        rules=[(kind.title, kind.rule) for kind in KINDS.values()],
    )
    write_text(path, page)


def _colours(found: Survey) -> list[tuple[str, str]]:
    """Each label's name and colour, as HTML has it."""
    values = sorted(found.labels)
    return [
        (found.labels[value], "#{:02x}{:02x}{:02x}".format(*label_colour(place)))
        for place, value in enumerate(values)
    ]


def sizes_figure(found: Survey, theme: Theme) -> bytes:
    """Draw how large the lesions are, and how large a share of the image the foreground is; a PNG file."""
    figure = Figure(figsize=(9, 3), layout="constrained", facecolor=theme.background)
    left, right = figure.subplots(1, 2)
    volumes = [lesion.volume_mm3 for case in found.facts for label in case.labels for lesion in label.lesions]
    _histogram(left, volumes, theme)
    style(left, theme, "lesions")
    left.set_xlabel("volume of a lesion in mm³", color=theme.text)
    if found.planned is not None:
        limit = FEW_VOXELS * float(np.prod(found.planned.spacing_zyx_mm))
        _mark(left, limit, f"{FEW_VOXELS} planned voxels", theme)
    shares = [100 * case.label.foreground_share for case in found.facts if case.label is not None]
    _histogram(right, [share for share in shares if share > 0], theme)
    style(right, theme, "cases")
    right.set_xlabel("foreground in % of the image", color=theme.text)
    for limit in (100 * LEAST_SHARE, 100 * GREATEST_SHARE):
        low, high = right.get_xlim()
        if low / 3 < limit < high * 3:
            _mark(right, limit, f"{limit:g} %", theme)
    return png(figure)


def intensity_figure(found: Survey, theme: Theme) -> bytes:
    """Draw each image's intensities, 1st to 99th percentile and median, a row per channel; a PNG file."""
    channels = found.dataset.channels
    odd = {name for finding in found.findings if finding.kind == "intensity" for name in finding.cases}
    figure = Figure(figsize=(9, 2.5 * len(channels)), layout="constrained", facecolor=theme.background)
    for axes, channel in zip(np.ravel(figure.subplots(len(channels), 1)), channels, strict=True):
        rows = [
            (place, image.low, image.middle, image.high, case.case in odd)
            for place, case in enumerate(found.facts)
            for image in case.images
            if image.channel == channel
        ]
        for place, low, middle, high, stands_out in rows:
            colour = theme.accent if stands_out else theme.line
            axes.plot([place, place], [low, high], color=colour, linewidth=1.4, alpha=0.8)
            axes.plot(place, middle, "o", color=colour, markersize=2.6)
        extents = [high - low for _, low, _, high, _ in rows]
        if extents and max(extents) > _WIDE * median(extents):
            axes.set_yscale("symlog", linthresh=max(median(extents), 1e-9))
        style(axes, theme, "intensity" if len(channels) == 1 else channel)
        axes.set_xticks([])
    axes.set_xlabel("cases, in their order", color=theme.text)
    return png(figure)


def _histogram(axes: Axes, values: Sequence[float], theme: Theme) -> None:
    """A histogram on a logarithmic axis."""
    if values:
        low, high = np.floor(np.log10(min(values))), np.ceil(np.log10(max(values)) + 1e-9)
        edges = np.logspace(low, high, int(max(1, high - low) * _STEPS_PER_DECADE) + 1)
        axes.hist(values, bins=list(edges), color=theme.line, alpha=0.85, rwidth=0.92)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    )
    axes.yaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _mark(axes: Axes, place: float, text: str, theme: Theme) -> None:
    """A labelled vertical line."""
    axes.axvline(place, color=theme.accent, linewidth=1.2, linestyle="--")
    axes.annotate(
        text,
        (place, 1),
        xycoords=("data", "axes fraction"),
        xytext=(4, -4),
        textcoords="offset points",
        va="top",
        fontsize=9,
        color=theme.accent,
    )


def _headline(found: Survey, labels: Sequence[_LabelRow]) -> list[tuple[str, str, str]]:
    patients = len({case.patient for case in found.dataset.cases})
    return [
        ("Cases", str(len(found.dataset.cases)), f"{patients} patients"),
        ("Errors", str(len(found.result.problems)), "stop training"),
        ("Warnings", str(len(found.findings)), "to look at"),
        ("Lesions", f"{sum(row.lesions for row in labels):,}", "components of a label"),
        (
            f"Below {FEW_VOXELS} voxels",
            f"{sum(row.few for row in labels):,}",
            "lesions, at the planned spacing",
        ),
    ]


def _label_row(found: Survey, value: int) -> _LabelRow | None:
    """A label over all cases; None if none has it."""
    have = [label for case in found.facts for label in case.labels if label.value == value]
    if not have or found.planned is None:
        return None
    lesions = [lesion for label in have for lesion in label.lesions]
    volumes = [lesion.volume_mm3 for lesion in lesions]
    voxels = [lesion.voxels for lesion in lesions]
    return _LabelRow(
        f"{value}: {found.labels[value]}",
        len(have),
        len(lesions),
        median(len(label.lesions) for label in have),
        (min(volumes), median(volumes), max(volumes)),
        (min(voxels), median(voxels), max(voxels)),
        sum(voxels_at(lesion, found.planned.spacing_zyx_mm) < FEW_VOXELS for lesion in lesions),
    )


def _case_row(case: CaseFacts) -> dict[str, object]:
    label = case.label
    return {
        "case": case.case,
        "patient": case.patient,
        "size": _times(label.shape_zyx[::-1]) if label is not None else DASH,
        "spacing": _times(label.spacing_zyx_mm[::-1]) if label is not None else DASH,
        "share": f"{100 * label.foreground_share:.3g}" if label is not None else DASH,
        "word": share_in_words(label.foreground_share) if label is not None else "",
        "labels": [
            {
                "value": part.value,
                "lesions": len(part.lesions),
                "voxels": part.voxels,
                "mm3": part.volume_mm3,
                "smallest_voxels": min(lesion.voxels for lesion in part.lesions),
                "sides": ", ".join(part.sides),
                "left_mm": part.left_mm,
            }
            for part in case.labels
        ],
        "intensities": "; ".join(
            ", ".join(_short(value) for value in (image.low, image.middle, image.high))
            for image in case.images
        )
        or DASH,
        "readers": ", ".join(case.readers) or "none",
    }


def _readers(facts: Sequence[CaseFacts]) -> str:
    """How many cases have how many readers; empty if nobody has any."""
    counts = Counter(len(case.readers) for case in facts)
    if not max(counts, default=0):
        return ""
    return ", ".join(
        f"{counted(counts[readers])} with {counted(readers, 'reader') if readers else 'no readers'}"
        for readers in sorted(counts, reverse=True)
    )


def _short(value: float) -> str:
    """Three significant digits, or all digits before the decimal point."""
    return number(value, 0) if abs(value) >= 100 else f"{value:.3g}"


def _times(values: Sequence[float]) -> str:
    return " \N{MULTIPLICATION SIGN} ".join(f"{value:.4g}" for value in values)
