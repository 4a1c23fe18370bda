"""The pictures of docs/method.md and docs/evidence-tables.md.

python benchmarks/evidence_pictures.py      docs/images/weights.png alone; `make evidence` makes all
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from evidence_coding import unpacked
from evidence_plan import RowLoss
from evidence_tables import leaves_out_zero
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure as Drawing

from focalis.dataset import PhantomSettings, make_phantom
from focalis.evaluation import Figure
from focalis.files import write_bytes
from focalis.lesions import label_components
from focalis.losses import BackgroundWeight, background_weight, distance_to_foreground
from focalis.report.figure import LIGHT, TRUTH_COLOUR, png, style

SMALL = PhantomSettings(shape_zyx=(24, 72, 72), foreground_share=0.004, lesions=2)
SEED = 13
"""A phantom with a slice that cuts both of its lesions."""
WEIGHT_TICKS = (0.1, 0.2, 0.5, 1, 2, 5)
COLUMNS = 5
"""Scans beside each other in a picture of predictions: as many as can be seen on a page."""
WEIGHTS = Path(__file__).parents[1] / "docs" / "images" / "weights.png"


def weights_picture() -> bytes:
    """Each background weight on a slice of a phantom, and as a curve, by the code and the defaults of the loss."""
    phantom, loss = make_phantom(SMALL, SEED), RowLoss()
    truth = phantom.truth.array
    lesions, count = label_components(truth > 0)
    areas = [(lesions == number).sum(axis=(1, 2)) for number in range(1, count + 1)]
    depth = int(np.min(areas, axis=0).argmax())
    distance = distance_to_foreground(truth, phantom.truth.grid.spacing_zyx_mm)[depth]
    inside = truth[depth] > 0

    def weight(form: BackgroundWeight, of: np.ndarray) -> np.ndarray:
        mm = torch.from_numpy(np.asarray(of, np.float32))
        found: np.ndarray = background_weight(mm, form, loss.k_per_mm, loss.floor, loss.cap_mm).numpy()
        return found

    drawing = Drawing(figsize=(10.5, 5.6), layout="constrained", facecolor=LIGHT.background)
    forms = get_args(BackgroundWeight)
    panels = drawing.subplots(2, len(forms) + 1, height_ratios=(1, 1.5))
    panels[0, 0].imshow(phantom.image.array[depth], cmap="gray")
    panels[0, 0].set_title("the scan, its lesions", fontsize=9, color=LIGHT.text)
    scale = LogNorm(loss.floor, 6)  # one for all forms, the curves' own
    for axes, form in zip(panels[0, 1:], forms, strict=True):
        drawn = axes.imshow(np.where(inside, 1.0, weight(form, distance)), cmap="viridis", norm=scale)
        axes.set_title(form, fontsize=9, color=LIGHT.text)
    bar = drawing.colorbar(drawn, ax=list(panels[0, 1:]), pad=0.01, aspect=12)
    bar.set_ticks(WEIGHT_TICKS, labels=[f"{tick:g}" for tick in WEIGHT_TICKS])
    bar.ax.tick_params(which="both", labelsize=8, colors=LIGHT.text, length=0)
    bar.ax.minorticks_off()
    for axes in panels[0]:
        axes.contour(inside, [0.5], colors=TRUTH_COLOUR, linewidths=1.2)
    for axes in panels[0]:
        axes.set_xticks([])
        axes.set_yticks([])
    grid = panels[1, 0].get_gridspec()
    for axes in panels[1]:
        axes.remove()
    curves = drawing.add_subplot(grid[1, :])
    mm = np.linspace(0, 60, 241)
    for number, form in enumerate(forms):
        curves.plot(mm, weight(form, mm), label=form, linewidth=1.8, color=f"C{number}")
    style(curves, LIGHT, "weight of a background voxel")
    curves.set_yscale("log")
    curves.set_yticks(WEIGHT_TICKS, [f"{tick:g}" for tick in WEIGHT_TICKS])
    curves.minorticks_off()
    curves.set_xlabel(
        f"mm to the nearest lesion (k {loss.k_per_mm:g}/mm, floor {loss.floor:g}, cap {loss.cap_mm:g} mm)",
        color=LIGHT.text,
    )
    curves.legend(frameon=False, ncols=len(forms), loc="upper center", bbox_to_anchor=(0.5, 1.14), fontsize=9)
    return png(drawing)


def predictions_picture(drawn: Mapping[int, Sequence[tuple[str, Mapping[str, Any]]]]) -> bytes:
    """What each loss made of one held-out scan: the foreground probability, its maximum along z, seed after seed."""
    rows = -(-(1 + max(map(len, drawn.values()))) // COLUMNS)
    drawing = Drawing(
        figsize=(1.9 * COLUMNS, 2.1 * rows * len(drawn)), layout="constrained", facecolor=LIGHT.background
    )
    grid = drawing.subplots(rows * len(drawn), COLUMNS, squeeze=False)
    for axes in grid.ravel():
        axes.set_axis_off()
    for panels, (seed, pictures) in zip(grid.reshape(len(drawn), -1), drawn.items(), strict=True):
        truth = unpacked(pictures[0][1]["truth"])
        shown = [
            (f"the truth, seed {seed}", truth),
            *((title, unpacked(each["probability"])) for title, each in pictures),
        ]
        for axes, (title, values) in zip(panels, shown, strict=False):
            shade = axes.imshow(values, cmap="magma", vmin=0, vmax=1)
            axes.contour(truth > 0.5, [0.5], colors=TRUTH_COLOUR, linewidths=0.8)
            axes.set_title(
                title.strip("`").replace("distance_focal_", "").replace("_", " "),
                fontsize=8,
                color=LIGHT.text,
            )
    bar = drawing.colorbar(shade, ax=grid, location="bottom", fraction=0.02, aspect=60)
    bar.set_label("foreground probability, maximum along z", fontsize=8, color=LIGHT.text)
    bar.ax.tick_params(labelsize=8, colors=LIGHT.text)
    return png(drawing)


def forest_picture(titles: Sequence[str], differences: Sequence[Figure | None], what: str) -> bytes:
    """Differences with their intervals, one under another; what has none is left out."""
    lines = [(title, each) for title, each in zip(titles, differences, strict=True) if each is not None]
    height = 0.9 + 0.34 * max(len(lines), 1)
    drawing = Drawing(figsize=(8, height), layout="constrained", facecolor=LIGHT.background)
    axes = drawing.subplots()
    for number, (_, figure) in enumerate(lines):
        if figure.low is not None and figure.high is not None:
            colour = LIGHT.accent if leaves_out_zero(figure) else LIGHT.line
            axes.plot([figure.low, figure.high], [number] * 2, color=colour, linewidth=1.6)
            axes.plot(figure.value, number, "o", color=colour, markersize=6, markeredgewidth=0)
    style(axes, LIGHT, "")
    axes.axvline(0, color=LIGHT.text, linewidth=0.9)
    axes.set_yticks(range(len(lines)), [title.strip("`") for title, _ in lines])
    axes.invert_yaxis()
    axes.set_xlabel(f"{what.replace('`', '')} (orange: leaves out zero)", color=LIGHT.text)
    return png(drawing)


def curve_picture(curves: Mapping[str, Sequence[tuple[str, Figure, Figure]]]) -> bytes:
    """Dice by the number of training cases, held out and on training cases, a colour per network."""
    drawing = Drawing(figsize=(8, 4.2), layout="constrained", facecolor=LIGHT.background)
    axes = drawing.subplots()
    for number, (name, points) in enumerate(curves.items()):
        colour = (LIGHT.line, "C2", LIGHT.accent)[number]
        for what, side, dashes in (("held out", 1, "-"), ("training cases", 2, ":")):
            there = [
                (place + 0.03 * (number - 1), point[side])  # beside each other, for their intervals
                for place, point in enumerate(points)
                if point[side].value is not None
            ]
            places = [place for place, _ in there]
            values = [figure.value for _, figure in there]
            axes.plot(
                places, values, dashes, marker="o", color=colour, label=f"{name}, {what}", linewidth=1.6
            )
            for place, figure in there:
                if side == 1 and figure.low is not None:
                    axes.plot([place] * 2, [figure.low, figure.high], color=colour, linewidth=1, alpha=0.5)
    style(axes, LIGHT, "Dice on windows")
    axes.set_xticks(range(4), [point[0] for point in next(iter(curves.values()))])
    axes.set_xlabel("training cases", color=LIGHT.text)
    axes.legend(frameon=False, fontsize=9)
    return png(drawing)


if __name__ == "__main__":
    write_bytes(WEIGHTS, weights_picture())
    print(WEIGHTS)
