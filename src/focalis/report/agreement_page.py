"""The report on the agreement of readers, and its figure: two readers' contours on one slice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from focalis.display import counted
from focalis.evaluation import EMPTY_RULE
from focalis.evaluation.agreement import (
    AGREEMENT_METRICS,
    KAPPA_RULE,
    Agreement,
    PairScore,
    StructureAgreement,
    representative_pairs,
)
from focalis.files import write_text
from focalis.lesions import MATCHING_RULE
from focalis.report.figure import PREDICTION_COLOUR, TRUTH_COLOUR, png
from focalis.report.page import figures, number, render
from focalis.report.slice_drawing import BACKGROUND, TEXT, draw_slice, grey_window, scale_bar, zoom
from focalis.report.summary_tables import SummaryRow, interval
from focalis.volume import Volume, to_canonical

Panel = tuple[PairScore, Volume | None, Volume, Volume]
"""Two readers on one structure of a case: their score, the image if there is one, and their masks, on one grid."""

FIGURE_RULE = (
    "The figure shows the cases with the median and the worst agreement: cases are ranked, structure by "
    "structure, by the mean Dice of their pairs of readers. For the median case, the pair nearest to that mean "
    "is drawn, of the worst case the pair with the lowest Dice, each on the axial slice, among those that "
    "both have drawn on, on which they differ by the most voxels."
)
EQUAL_SHARE = 0.001
"""Volumes that differ by less on average are called equal."""
_COLOURS = (TRUTH_COLOUR, PREDICTION_COLOUR)


def agreement_figure(panels: Sequence[Panel]) -> bytes:
    """Draw a panel per pair of readers: both contours, exact to the voxel, on one axial slice, enlarged.

    Patient's right is on the left. Without an image the regions are tinted instead.

    Returns:
        A PNG file.
    """
    figure = Figure(figsize=(5 * len(panels), 5.5), facecolor=BACKGROUND)
    for place, (pair, image, first, second) in enumerate(panels):
        axes = figure.add_axes(((place + 0.01) / len(panels), 0.01, 0.98 / len(panels), 0.89))
        _draw(axes, image, first, second)
        _caption(figure, axes, pair, (place + 0.02) / len(panels))
    return png(figure)


def write_agreement_report(path: Path, agreement: Agreement, figure: tuple[str, bytes]) -> None:
    """Write the agreement of readers as one self-contained HTML page.

    Args:
        path: the page; written whole or not at all.
        figure: caption and PNG file, see `agreement_figure`.

    Raises:
        DataError: if the page cannot be written.
    """
    structures = agreement.structures
    several = len(structures) > 1
    cases = {pair.case for pair in agreement.pairs}
    page = render(
        "agreement.html.j2",
        title="Agreement of readers",
        cases=len(cases),
        readers=", ".join(f"{name} ({count})" for name, count in agreement.readers.items()),
        single=len(agreement.single),
        several_structures=several,
        verdict=verdict(structures, len(cases)),
        pictured={pair.case for _, pair in representative_pairs(agreement.pairs)},
        headline=[_tile(structure, several) for structure in structures],
        structures=[
            (structure, _rows(structure), *_matrix(structure), who_draws_larger(structure))
            for structure in structures
        ],
        overlays=figures([figure]),
        pairs=sorted(agreement.pairs, key=lambda pair: (pair.dice, pair.case, pair.label)),
        rules=(FIGURE_RULE, MATCHING_RULE, KAPPA_RULE, EMPTY_RULE),
        tolerance_mm=agreement.tolerance_mm,
    )
    write_text(path, page)


def verdict(structures: Sequence[StructureAgreement], cases: int) -> str:
    """How well two readers of one case agree, with the 95 % interval; of several structures the best and the worst."""
    known = sorted(
        ((s["dice"].mean, s) for s in structures if s["dice"].mean is not None), key=lambda each: -each[0]
    )
    if not known:
        return "No case has a figure."

    def said(structure: StructureAgreement) -> str:
        dice = structure["dice"]
        return f"{number(dice.mean, 2)} ({interval(dice.low, dice.high, 2)})"

    (_, best), (_, worst) = known[0], known[-1]
    over = f"over {counted(cases)}. In parentheses: the 95 % interval."
    if best is worst:
        return f"Two readers of one case agree with a mean Dice of {said(best)}, {over}"
    return (
        f"Two readers of one case agree best on {best.structure}, by a mean Dice of {said(best)}, and least on "
        f"{worst.structure}, by {said(worst)}, {over}"
    )


def _tile(structure: StructureAgreement, several: bool) -> tuple[str, str, str]:
    dice = structure["dice"]
    title = f"Dice, {structure.structure}" if several else "Dice, mean over cases"
    return title, number(dice.mean), interval(dice.low, dice.high)


def _matrix(structure: StructureAgreement) -> tuple[list[str], list[tuple[str, list[float | None]]]]:
    """The readers, and the mean Dice of each with each."""
    dice = {frozenset((pair.first, pair.second)): pair.dice for pair in structure.pairs}
    readers = sorted({reader for pair in structure.pairs for reader in (pair.first, pair.second)})
    return readers, [
        (one, [dice.get(frozenset((one, other))) if one != other else None for other in readers])
        for one in readers
    ]


def who_draws_larger(structure: StructureAgreement) -> str:
    """Which reader's volumes are the largest and which the smallest, beside the others' on the same cases."""
    sums: dict[str, list[float]] = {}
    for pair in structure.pairs:
        if pair.relative_volume_difference is None:
            continue
        for reader, sign in ((pair.first, -1), (pair.second, 1)):
            total = sums.setdefault(reader, [0.0, 0.0])
            total[0] += sign * pair.relative_volume_difference * pair.cases
            total[1] += pair.cases
    ranked = sorted((total / cases, reader) for reader, (total, cases) in sums.items())
    if not ranked:
        return ""
    (low, smallest), (high, largest) = ranked[0], ranked[-1]
    if high - low < EQUAL_SHARE:
        return "No reader contours larger than the others."
    if len(ranked) == 2:
        return f"{largest} contours larger than {smallest}: by {100 * high:.1f} % of the mean volume, on average."
    return (
        f"{largest} contours the largest, {100 * high:.1f} % more than the others on average; {smallest} the smallest, "
        f"{abs(100 * low):.1f} % {'less' if low <= 0 else 'more'}."
    )


def _rows(structure: StructureAgreement) -> list[SummaryRow]:
    rows = []
    for s in structure.statistics:
        title, digits = AGREEMENT_METRICS[s.metric]
        counted = f"{s.n} of {s.n + s.undefined}" if s.undefined else str(s.n)
        value, median = number(s.mean, digits), number(s.median, digits)
        rows.append(SummaryRow(title, value, interval(s.low, s.high, digits), median, counted))
    kappa = structure.detection_kappa
    rows.append(
        SummaryRow("Detection kappa", number(kappa.value), interval(kappa.low, kappa.high), "", "pooled")
    )
    return rows


def _draw(axes: Axes, image: Volume | None, first: Volume, second: Volume) -> None:
    one, other = (to_canonical(volume).array != 0 for volume in (first, second))
    pair = to_canonical(first).grid.spacing_zyx_mm[1:]
    union = one | other
    plane = _slice(one, other)
    grey = None if image is None else to_canonical(image).array[plane]
    window = None if grey is None else grey_window([grey[_window(union[plane])]])
    outlines = [
        (mask[plane].astype(np.uint8), colour, thickness)
        for mask, colour, thickness in zip((one, other), _COLOURS, (4.0, 2.0), strict=True)
    ]
    draw_slice(axes, grey, outlines, pair, window)
    if grey is None:
        axes.set_facecolor("#1b2026")
        height, width = union.shape[1] * pair[0], union.shape[2] * pair[1]
        for mask, colour, _ in outlines:
            tint = np.zeros((*mask.shape, 4))
            tint[mask > 0] = [*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), 0.35]
            axes.imshow(tint, extent=(0, width, height, 0), interpolation="nearest")
    rows, columns = (np.flatnonzero(union[plane].any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        rows, columns = (np.arange(size) for size in union.shape[1:])
    side = max(1.7 * max(np.ptp(rows) * pair[0], np.ptp(columns) * pair[1]), 14 * min(pair))
    zoom(axes, ((rows.mean() + 0.5) * pair[0], (columns.mean() + 0.5) * pair[1]), side)
    axes.set_aspect("equal")
    scale_bar(axes)


def _slice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> int:
    """By `FIGURE_RULE`; the middle if nothing was drawn."""
    both = one.any(axis=(1, 2)) & other.any(axis=(1, 2))
    for wanted in (both * (1 + (one ^ other).sum(axis=(1, 2))), (one | other).sum(axis=(1, 2))):
        if wanted.any():
            return int(np.argmax(wanted))
    return len(one) // 2


def _window(plane: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The part of a slice around what was drawn, by half as much on every side, for its grey values."""
    box = []
    for axis in (1, 0):
        hits = np.flatnonzero(plane.any(axis=axis))
        if not hits.size:
            box.append(slice(None))
            continue
        reach = (hits[-1] - hits[0]) // 2 + 4
        box.append(slice(max(int(hits[0] - reach), 0), int(hits[-1] + reach + 1)))
    return box[0], box[1]


def _caption(figure: Figure, axes: Axes, pair: PairScore, left: float) -> None:
    title = f"{pair.case}, {pair.structure}: Dice {pair.dice:.3f}"
    figure.text(left, 0.965, title, color=TEXT, fontsize=11, va="center", parse_math=False)
    handles = [Line2D([], [], color=colour, linewidth=2.2) for colour in _COLOURS]
    axes.legend(
        handles,
        [pair.first, pair.second],
        loc="lower left",
        bbox_to_anchor=(-0.01, 0.99),
        ncols=2,
        frameon=False,
        labelcolor=TEXT,
        fontsize=10,
    )
