"""Accuracy against time: each system a point with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from focalis.report.figure import LIGHT, Theme, png, style


@dataclass(frozen=True)
class Point:
    """A system in the plane.

    Attributes:
        name: what is written beside the point.
        time: on the horizontal axis, above 0.
        value: on the vertical axis.
        low, high: its interval; None if there is none.
        first: whether it is the system that the others are compared with.
    """

    name: str
    time: float
    value: float
    low: float | None
    high: float | None
    first: bool = False


def plane_figure(points: Sequence[Point], time: str, value: str, theme: Theme = LIGHT) -> bytes:
    """Draw systems by time (logarithmic) and accuracy: better lies higher, faster lies further left.

    A line joins the systems that no other one beats in both.

    Args:
        time, value: titles of the axes.

    Returns:
        A PNG file.
    """
    figure = Figure(figsize=(9, 4.6), layout="constrained", facecolor=theme.background)
    axes = figure.subplots()
    front = undominated(points)
    axes.step(
        [point.time for point in front],
        [point.value for point in front],
        where="post",
        color=theme.faint,
        linewidth=1.2,
        zorder=1,
    )
    for point in points:
        colour = theme.accent if point.first else theme.line
        if point.low is not None and point.high is not None:
            axes.plot(
                [point.time] * 2, [point.low, point.high], color=colour, linewidth=1.1, alpha=0.55, zorder=2
            )
        axes.plot(point.time, point.value, "o", color=colour, markersize=7.5, markeredgewidth=0, zorder=3)
    axes.set_xscale("log")
    times = [point.time for point in points]
    axes.set_xlim(min(times) / 1.35, max(times) * 1.9)
    axes.set_xticks(_ticks(min(times) / 1.35, max(times) * 1.9))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    style(axes, theme, value)
    axes.grid(axis="x", color=theme.grid, linewidth=0.8)
    axes.set_xlabel(time, color=theme.text)
    figure.draw_without_rendering()  # the layout decides where the points lie, and so where there is room for names
    _name(axes, points, theme, 72 / figure.dpi)
    return png(figure)


def undominated(points: Sequence[Point]) -> list[Point]:
    """The points that none other beats or equals in both time and value, by time."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.time, -point.value)):
        if not front or point.value > front[-1].value:
            front.append(point)
    return front


_PLACES = (
    (7, 5, "left"),
    (7, -14, "left"),
    (-7, 5, "right"),
    (-7, -14, "right"),
    (7, 18, "left"),
    (7, -27, "left"),
)
"""Where a name may stand: points to the right of its dot and above it, and which end of it is there."""
_LETTER, _LINE = 5.3, 11.0
"""About the size of a letter at font size 9, in points."""


def _name(axes: Axes, points: Sequence[Point], theme: Theme, scale: float) -> None:
    """Write each name where it covers no other name and no dot, beside its own; `scale` is points per pixel."""
    dots = [axes.transData.transform((point.time, point.value)) * scale for point in points]
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in dots]
    for point, (x, y) in zip(points, dots, strict=True):
        boxes = []
        for right, up, end in _PLACES:
            width = _LETTER * len(point.name)
            left = x + right if end == "left" else x + right - width
            boxes.append((left, y + up - 2, left + width, y + up + _LINE))
        free = [n for n, box in enumerate(boxes) if not any(_overlap(box, other) for other in taken)]
        place = free[0] if free else 0
        taken.append(boxes[place])
        right, up, end = _PLACES[place]
        axes.annotate(
            point.name,
            (point.time, point.value),
            xytext=(right, up),
            textcoords="offset points",
            ha=end,
            fontsize=9,
            color=theme.accent if point.first else theme.text,
            parse_math=False,
            zorder=4,
        )


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten, between the ends of the axis."""
    found = [base * 10.0**power for power in range(-6, 9) for base in (1, 2, 5)]
    return [tick for tick in found if low <= tick <= high]
