"""Calibration: is 80 % of what gets probability 0.8 foreground? Temperature, reliability diagram, error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from focalis.lesions import Candidates

MARGIN_MM = 5.0
BINS = 10
CALIBRATION_RULE = (
    f"Voxels near the boundary lie within {MARGIN_MM:g} mm, along each axis, of the edge of the true or of "
    "the predicted foreground (probability 0.5); far voxels are easy and would hide any error. A lesion "
    "is right if it is matched; its probability is its confidence. The expected calibration error (ECE) "
    f"is the mean gap, over {BINS} equal bins, between mean probability and observed share, weighted by "
    "their number."
)

_LIMIT, _CELLS = 16.0, 1600
_COLDEST, _HOTTEST = 0.2, 10.0
_FEWEST = 100
"""With fewer voxels of either kind a temperature would be an accident."""


@dataclass(frozen=True, eq=False)
class VoxelCounts:
    """Foreground and background voxels by the log odds of their predicted probability: small, and additive over cases.

    Attributes:
        foreground, background: counts per cell; the cells divide log odds from -16 to 16 evenly, and what lies
            beyond is in the outermost.
    """

    foreground: NDArray[np.int64]
    background: NDArray[np.int64]

    def __add__(self, other: VoxelCounts) -> VoxelCounts:
        return VoxelCounts(self.foreground + other.foreground, self.background + other.background)

    def tempered(self, temperature: float) -> VoxelCounts:
        """The same voxels by their tempered probability, to the width of a cell."""
        cells = _cells(_centres() / temperature)
        return VoxelCounts(
            *(
                np.bincount(cells, weights=counts, minlength=_CELLS).astype(np.int64)
                for counts in (self.foreground, self.background)
            )
        )

    @classmethod
    def none(cls) -> VoxelCounts:
        """No voxel."""
        return cls(np.zeros(_CELLS, dtype=np.int64), np.zeros(_CELLS, dtype=np.int64))


@dataclass(frozen=True)
class ReliabilityBin:
    """One bar of a reliability diagram: mean predicted probability, observed share, and how many there are."""

    probability: float
    observed: float
    count: int


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram.

    Attributes:
        bins: those that hold anything, by probability.
        ece: expected calibration error (Naeini et al., AAAI 2015); None if there is nothing.
        count: voxels or lesions.
    """

    bins: tuple[ReliabilityBin, ...]
    ece: float | None
    count: int


@dataclass(frozen=True)
class Calibration:
    """Reliability with the temperature, and without it (as the network gives the probabilities).

    Attributes:
        temperatures: those applied, each once; 1 changes nothing.
        voxels_before, voxels_after: near the boundary; None without probability maps.
    """

    temperatures: tuple[float, ...]
    voxels_before: Reliability | None
    voxels_after: Reliability | None
    lesions_before: Reliability
    lesions_after: Reliability


def count_voxels(
    truth: NDArray[np.bool_],
    probability: NDArray[np.floating],
    spacing_zyx_mm: Sequence[float],
    judged: NDArray[np.bool_] | None = None,
) -> VoxelCounts:
    """Count the voxels near the boundary, by `CALIBRATION_RULE`.

    Args:
        truth: true foreground, shape (z, y, x).
        probability: foreground probability, same shape.
        judged: where somebody has judged; everywhere by default.
    """
    size = [2 * max(1, round(MARGIN_MM / step)) + 1 for step in spacing_zyx_mm]
    near = _edge(truth, size) | _edge(probability >= 0.5, size)
    if judged is not None:
        near &= judged
    odds = scipy.special.logit(probability[near].astype(np.float64))
    cells = _cells(odds)
    yes = truth[near]
    return VoxelCounts(np.bincount(cells[yes], minlength=_CELLS), np.bincount(cells[~yes], minlength=_CELLS))


def fit_temperature(counts: VoxelCounts) -> float:
    """The temperature with the least cross entropy, between 0.2 and 10; 1 with fewer than 100 voxels of either kind."""
    if min(counts.foreground.sum(), counts.background.sum()) < _FEWEST:
        return 1.0
    odds = _centres()

    def cross_entropy(log_temperature: float) -> float:
        scaled = odds / np.exp(log_temperature)
        loss = counts.foreground @ np.logaddexp(0, -scaled) + counts.background @ np.logaddexp(0, scaled)
        return float(loss)

    bounds = (np.log(_COLDEST), np.log(_HOTTEST))
    found = scipy.optimize.minimize_scalar(
        cross_entropy, bounds=bounds, method="bounded", options={"xatol": 1e-4}
    )
    return float(np.exp(found.x))


def limit_line(temperature: float) -> str:
    """What a temperature at its upper limit says, in a line; empty for any other."""
    if temperature < 0.99 * _HOTTEST:
        return ""
    return (
        f"the temperature is at its limit of {_HOTTEST:g}: near the lesions of the inner split the probabilities say "
        "next to nothing, and tempered ones lie near one half everywhere; go by the mask, not by the probability map"
    )


def voxel_reliability(counts: VoxelCounts) -> Reliability:
    """The reliability diagram of counted voxels."""
    return _reliability(
        scipy.special.expit(_centres()), counts.foreground, counts.foreground + counts.background
    )


def lesion_reliability(candidates: Sequence[Candidates]) -> Reliability:
    """The reliability diagram of predicted lesions: confidence against the share that is matched."""
    if not candidates:
        return Reliability((), None, 0)
    confidence = np.concatenate([each.confidence for each in candidates])
    right = np.concatenate([each.matched() for each in candidates]).astype(np.int64)
    return _reliability(confidence, right, np.ones_like(right))


def _edge(mask: NDArray[np.bool_], size: Sequence[int]) -> NDArray[np.bool_]:
    """Where a box of this size holds both foreground and background; the volume is continued by its border values."""
    values = mask.view(np.uint8)
    wide, narrow = scipy.ndimage.maximum_filter(values, size), scipy.ndimage.minimum_filter(values, size)
    result: NDArray[np.bool_] = wide != narrow
    return result


def _cells(odds: NDArray[np.float64]) -> NDArray[np.int64]:
    """The cell of each log odds."""
    return np.clip((odds + _LIMIT) * (_CELLS / (2 * _LIMIT)), 0, _CELLS - 1).astype(np.int64)


def _centres() -> NDArray[np.float64]:
    """The log odds in the middle of each cell."""
    return np.asarray((np.arange(_CELLS) + 0.5) * (2 * _LIMIT / _CELLS) - _LIMIT, dtype=np.float64)


def _reliability(
    probability: NDArray[np.float64], positive: NDArray[np.int64], count: NDArray[np.int64]
) -> Reliability:
    """Bins of equal width; `positive` of `count` are foreground at each probability."""
    which = np.minimum((probability * BINS).astype(int), BINS - 1)
    total = np.bincount(which, weights=count, minlength=BINS)
    held = np.flatnonzero(total)
    mean = np.bincount(which, weights=probability * count, minlength=BINS)[held] / total[held]
    share = np.bincount(which, weights=positive, minlength=BINS)[held] / total[held]
    bins = tuple(
        ReliabilityBin(float(p), float(s), int(n)) for p, s, n in zip(mean, share, total[held], strict=True)
    )
    whole = float(total.sum())
    ece = float((np.abs(mean - share) * total[held]).sum() / whole) if whole else None
    return Reliability(bins, ece, int(whole))
