"""The course of a training as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from focalis.report.figure import LIGHT, Theme, png, style

LEAST_LOOKS = 4
"""With fewer looks at the inner split, their course is not described."""
FLAT_DICE, FLAT_SHARE = 0.01, 0.75
"""A validation Dice is flat if the last quarter or more of the steps gained no more than this."""


def curves_figure(metrics: Sequence[Mapping[str, Any]], theme: Theme = LIGHT) -> bytes:
    """Draw loss, validation Dice and learning rate over the training steps.

    Args:
        metrics: the rows of `metrics.jsonl`: `step` with `loss` and `learning_rate`, or with `val_dice`, or
            with all of them. Rows without a value are left out of its curve.

    Returns:
        A PNG file.
    """
    figure = Figure(figsize=(9, 5.6), layout="constrained", facecolor=theme.background)
    loss_axes, dice_axes, rate_axes = figure.subplots(3, 1, sharex=True, height_ratios=[3, 3, 1.3])

    steps, loss = _curve(metrics, "loss")
    loss_axes.plot(steps, loss, color=theme.faint, linewidth=0.8)
    loss_axes.plot(steps, _smooth(loss), color=theme.line, linewidth=1.8)
    _limit_to_most(loss_axes.set_ylim, loss)
    style(loss_axes, theme, "loss")

    steps, dice = _curve(metrics, "val_dice")
    dice_axes.plot(steps, dice, color=theme.line, linewidth=1.6, marker="o", markersize=3.5)
    if np.isfinite(dice).any():
        best = int(np.nanargmax(dice))
        dice_axes.plot(steps[best], dice[best], "o", color=theme.accent, markersize=7)
        dice_axes.annotate(
            f"best {dice[best]:.3f} at step {steps[best]:.0f}",
            (steps[best], dice[best]),
            xytext=(0, -14),
            textcoords="offset points",
            ha="right" if steps[best] > steps.mean() else "left",
            va="top",
            fontsize=9,
            color=theme.accent,
        )
    filled_steps, filled = _curve(metrics, "val_dice_with_lesion")
    dice_axes.plot(filled_steps, filled, color=theme.line, linewidth=1.2, linestyle="--")
    dice_axes.set_ylim(-0.02, 1.02)
    style(dice_axes, theme, "validation Dice\n(dashed: with a lesion)")

    rate_axes.plot(*_curve(metrics, "learning_rate"), color=theme.line, linewidth=1.6)
    rate_axes.set_ylim(bottom=0)
    rate_axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    rate_axes.yaxis.get_offset_text().set_color(theme.text)
    style(rate_axes, theme, "learning rate")
    rate_axes.set_xlabel("step", color=theme.text)
    rate_axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    figure.align_ylabels()
    return png(figure)


def course(metrics: Sequence[Mapping[str, Any]]) -> str:
    """What the curves of `curves_figure` show, and whether the Dice of the cases with a lesion is flat or still rises.

    While it is about zero, that is left out: the training has not begun to find anything.
    """
    shown = (
        "Top, the loss on the patches of training (thin: each step; thick: smoothed). Middle, the mean Dice on the "
        "inner split, from which the network does not learn."
    )
    steps, dice = _curve(metrics, "val_dice_with_lesion")
    steps, dice = steps[np.isfinite(dice)], dice[np.isfinite(dice)]
    if dice.size < LEAST_LOOKS or dice[-1] <= FLAT_DICE or not _finds(metrics):
        return shown
    later = np.maximum.accumulate(dice[::-1])[::-1]
    since = float(steps[np.argmax(later - dice <= FLAT_DICE)])
    if since <= FLAT_SHARE * steps[-1]:
        return (
            f"{shown} Over the cases with a lesion it is flat since step {since:.0f}: nothing later exceeds it by more "
            f"than {FLAT_DICE}, so more time with these cases will likely bring little."
        )
    return f"{shown} Over the cases with a lesion it still rose at the end: more --minutes will likely bring more."


def _finds(metrics: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last look at the inner split found a lesion; True if it does not say."""
    found = _curve(metrics, "val_found")[1]
    return not found.size or found[-1] > 0


def compared_curves_figure(
    curves: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], theme: Theme = LIGHT
) -> bytes:
    """Draw the validation Dice of many trainings over their steps; those of one name share a colour.

    Args:
        curves: a name and the rows of `metrics.jsonl` of each training.

    Returns:
        A PNG file.
    """
    names = list(dict.fromkeys(name for name, _ in curves))
    figure = Figure(
        figsize=(9, 3.4 + 0.2 * -(-len(names) // 2)), layout="constrained", facecolor=theme.background
    )
    axes = figure.subplots()
    looks: list[dict[str, Any]] = [
        {
            "color": colormaps["tab20"]((2 * place + place // 10) % 20),
            "linestyle": "-" if place < 20 else "--",
        }
        for place in range(len(names))
    ]
    for name, metrics in curves:
        axes.plot(
            *_curve(metrics, "val_dice"),
            **looks[names.index(name)],
            linewidth=1.5,
            marker="o",
            markersize=2.5,
        )
    style(axes, theme, "validation Dice")
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("step", color=theme.text)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    handles = [Line2D([], [], **look) for look in looks]
    legend = figure.legend(handles, names, loc="outside lower left", ncols=2, frameon=False, fontsize=9)
    for text in legend.get_texts():
        text.set_color(theme.text)
        text.set_parse_math(False)
    return png(figure)


def _curve(metrics: Sequence[Mapping[str, Any]], key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows = [(row["step"], row[key]) for row in metrics if row.get(key) is not None and "step" in row]
    pairs = np.array(sorted(rows, key=lambda row: row[0]), dtype=np.float64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A centred moving average over about a thirtieth of the curve, shorter at its ends."""
    reach = max(1, values.size // 60)
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    low = np.maximum(np.arange(values.size) - reach, 0)
    high = np.minimum(np.arange(values.size) + reach + 1, values.size)
    total = counts[high] - counts[low]
    return np.where(total > 0, (sums[high] - sums[low]) / np.maximum(total, 1), np.nan)


def _limit_to_most(set_ylim: Any, values: NDArray[np.float64]) -> None:
    """Keep a few spikes from flattening the rest of the curve."""
    finite = values[np.isfinite(values)]
    if finite.size and finite.max() > 0:
        top = min(finite.max(), 2 * np.percentile(finite, 98))
        set_ylim(min(0.0, finite.min()), 1.05 * top if top > 0 else 1.0)
