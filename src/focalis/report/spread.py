"""Dice of every case against the true lesion volume."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatter

from focalis.evaluation import Score
from focalis.report.figure import LIGHT, Theme, png, style

_MARKERS = "osD^vP"


class _SparseFormatter(LogFormatter):
    """Between the powers of ten, numbers instead of powers, and only where there is room for them."""

    def __init__(self) -> None:
        super().__init__(minor_thresholds=(2, 0.6))

    def _num_to_string(self, x: float, vmin: float, vmax: float) -> str:  # noqa: ARG002
        return f"{x:g}"


def spread_figure(scores: Sequence[Score], theme: Theme = LIGHT) -> bytes:
    """Draw Dice over the true volume, a point per case and label; cases without truth are left out.

    Returns:
        A PNG file.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained", facecolor=theme.background)
    axes = figure.subplots()
    names = {score.label: score.name for score in scores}
    for number, (label, name) in enumerate(sorted(names.items())):
        rows = [score for score in scores if score.label == label and score.truth_voxels]
        colour = (theme.line, theme.accent)[number % 2]
        axes.plot(
            [row.truth_volume_mm3 / 1000 for row in rows],
            [row.dice for row in rows],
            _MARKERS[number % len(_MARKERS)],
            color=colour,
            markersize=5.5,
            alpha=0.75,
            markeredgewidth=0,
            label=name,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(_SparseFormatter())
    axes.set_ylim(-0.03, 1.03)
    style(axes, theme, "Dice")
    axes.grid(axis="x", color=theme.grid, linewidth=0.8)
    axes.set_xlabel("true volume in ml", color=theme.text)
    if len(names) > 1:
        axes.legend(frameon=False, labelcolor=theme.text, fontsize=9, loc="lower right")
    return png(figure)
