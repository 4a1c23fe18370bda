"""FROC, reliability, risk and coverage, and the operating point's curves as figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from focalis.evaluation import Calibration, Froc, FrocRate, Reliability, RiskCoverage
from focalis.lesions import OperatingPoint
from focalis.report.figure import LIGHT, Theme, png, style

_TICKS = (0.125, 0.25, 0.5, 1, 2, 4, 8, 16)


def froc_figure(froc: Froc, theme: Theme = LIGHT) -> bytes:
    """Draw sensitivity over false positives per scan: overall with its band, by size class, empty scans apart.

    Returns:
        A PNG file.
    """
    several = len(froc.classes) > 1
    panels = 1 + several + bool(froc.empty_scans)
    figure = Figure(figsize=(9, 3.6), layout="constrained", facecolor=theme.background)
    every = list(np.ravel(figure.subplots(1, panels)))
    axes = every.pop(0)
    _band(axes, froc.rates, theme.faint)
    rates = [rate.fp_per_scan for rate in froc.rates]
    axes.plot(rates, [rate.sensitivity for rate in froc.rates], color=theme.line, linewidth=1.8)
    axes.plot(rates[-1:], [froc.rates[-1].sensitivity], "o", color=theme.accent, markersize=5)
    _rates(axes, theme, "sensitivity, all lesions")
    if several:
        axes = every.pop(0)
        for number, (name, style_) in enumerate(zip(class_names(froc), ("-", "--", ":"), strict=False)):
            own = froc.class_rates[number]
            _band(axes, own, theme.faint)
            axes.plot(
                [rate.fp_per_scan for rate in own],
                [np.nan if rate.sensitivity is None else rate.sensitivity for rate in own],
                style_,
                color=theme.line,
                linewidth=1.6,
                label=f"{name} ({froc.classes[number][1]})",
            )
        _rates(axes, theme, "sensitivity, by volume")
        _legend(axes, theme, "lower right")
    if froc.empty_scans:
        axes = every.pop(0)
        axes.plot(
            [p.confidence for p in froc.points],
            [p.empty_scans_alarmed for p in froc.points],
            color=theme.line,
            linewidth=1.8,
        )
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlim(0, 1.02)
        style(axes, theme, f"share of {froc.empty_scans} empty scans alarmed")
        axes.set_xlabel("minimum confidence", color=theme.text)
    return png(figure)


def _band(axes: Axes, rates: Sequence[FrocRate], color: str) -> None:
    """The 95 % band of a curve, as far as there is one."""
    known = [
        (rate.fp_per_scan, rate.low, rate.high)
        for rate in rates
        if rate.low is not None and rate.high is not None
    ]
    if known:
        x, low, high = np.transpose(known)
        axes.fill_between(x, low, high, color=color, alpha=0.3, linewidth=0)


def class_names(froc: Froc) -> list[str]:
    """The size classes in words."""
    names = []
    below: float | None = None
    for upper, _ in froc.classes:
        if upper is None:
            names.append("all" if below is None else f"{below:,g} mm³ or more")
        else:
            names.append(f"below {upper:,g} mm³" if below is None else f"{below:,g} to {upper:,g} mm³")
        below = upper
    return names


def reliability_figure(calibration: Calibration, theme: Theme = LIGHT) -> bytes:
    """Draw observed share over mean probability, before and after the temperature: voxels, and lesions; a PNG file."""
    pairs = [("voxels near the boundary", calibration.voxels_before, calibration.voxels_after)]
    pairs.append(("lesions", calibration.lesions_before, calibration.lesions_after))
    drawn = [
        (name, before, after) for name, before, after in pairs if before is not None and after is not None
    ]
    figure = Figure(figsize=(9, 3.9), layout="constrained", facecolor=theme.background)
    changed = calibration.temperatures != (1.0,)
    for axes, (name, before, after) in zip(figure.subplots(1, 2), drawn, strict=False):
        axes.plot([0, 1], [0, 1], color=theme.grid, linewidth=1.4)
        if changed:
            _reliability(axes, before, theme.faint, "before", theme)
        _reliability(axes, after, theme.line, "after" if changed else "as predicted", theme)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
        style(axes, theme, f"observed share, {name}")
        axes.set_xlabel("mean probability" if "voxels" in name else "mean confidence", color=theme.text)
        _legend(axes, theme)
    for axes in figure.axes[len(drawn) :]:
        axes.set_axis_off()
    return png(figure)


def _reliability(axes: Axes, found: Reliability, colour: str, name: str, theme: Theme) -> None:
    sizes = [4 + 60 * (each.count / found.count) ** 0.5 for each in found.bins]
    x, y = [each.probability for each in found.bins], [each.observed for each in found.bins]
    ece = "" if found.ece is None else f", ECE {found.ece:.3f}"
    axes.plot(x, y, color=colour, linewidth=1.6, label=f"{name}{ece}")
    axes.scatter(x, y, s=sizes, color=colour, edgecolor=theme.background, linewidth=0.6, zorder=3)


def risk_figure(curves: Sequence[RiskCoverage], theme: Theme = LIGHT) -> bytes:
    """Draw the share of false positives among the most trusted lesions over how many are taken; a PNG file."""
    figure = Figure(figsize=(9, 3.2), layout="constrained", facecolor=theme.background)
    axes = figure.subplots()
    for curve, colour in zip(curves, (theme.line, theme.accent), strict=False):
        x, y = zip(*curve.curve, strict=True)
        axes.plot(x, y, color=colour, linewidth=1.8, label=f"by {curve.by}, area {curve.aurc:.3f}")
    chance = curves[0].chance
    axes.axhline(chance, color=theme.faint, linewidth=1.4, label=f"by chance, area {chance:.3f}")
    axes.plot([], [], " ", label=f"a perfect ranking has {curves[0].perfect:.3f}")
    axes.set_xlim(0, 1.01)
    axes.set_ylim(-0.02, max(0.1, 1.15 * max(max(risk for _, risk in curve.curve) for curve in curves)))
    style(axes, theme, "share of false positives")
    axes.set_xlabel("share of the predicted lesions taken, the most trusted first", color=theme.text)
    _legend(axes, theme)
    return png(figure)


def operating_figure(point: OperatingPoint, theme: Theme = LIGHT) -> bytes:
    """Draw the curves that an operating point was chosen from: Dice over threshold, and FROC; a PNG file."""
    figure = Figure(figsize=(9, 3.2), layout="constrained", facecolor=theme.background)
    left, right = figure.subplots(1, 2)
    x, y = zip(*point.curve, strict=True)
    left.plot(x, y, color=theme.line, linewidth=1.6, marker="o", markersize=3)
    left.axvline(point.threshold, color=theme.accent, linewidth=1.2, linestyle="--")
    left.set_xlim(0, 1)
    left.set_ylim(-0.02, 1.02)
    style(left, theme, "mean Dice, nothing dropped")
    left.set_xlabel("threshold on the probability", color=theme.text)
    if point.froc:
        right.plot([p[1] for p in point.froc], [p[2] for p in point.froc], color=theme.line, linewidth=1.6)
        near = min(point.froc, key=lambda p: abs(p[0] - point.minimum_confidence))
        right.plot(near[1], near[2], "o", color=theme.accent, markersize=6)
        right.set_xlim(left=0)
    right.set_ylim(-0.02, 1.02)
    style(right, theme, "lesion sensitivity")
    right.set_xlabel("false positives per scan, as the minimum confidence falls", color=theme.text)
    return png(figure)


def _rates(axes: Axes, theme: Theme, name: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xlim(_TICKS[0], _TICKS[-1])
    axes.xaxis.set_major_locator(FixedLocator(_TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:g}" if value >= 1 else f"1/{1 / value:g}")
    )
    axes.set_ylim(-0.02, 1.02)
    style(axes, theme, name)
    axes.set_xlabel("false positives per scan", color=theme.text)


def _legend(axes: Axes, theme: Theme, place: Literal["best", "lower right"] = "best") -> None:
    legend = axes.legend(frameon=False, fontsize=9, loc=place)
    for text in legend.get_texts():
        text.set_color(theme.text)
