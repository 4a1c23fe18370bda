"""The operating point: the probability from which on a voxel counts as foreground."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focalis.errors import UsageError

CANDIDATES = tuple(round(0.05 * i, 2) for i in range(1, 20))
PLATEAU = 0.002


def choose_threshold(
    foreground_probabilities: Sequence[NDArray[Any]],
    truths: Sequence[NDArray[np.bool_]],
    candidates: Sequence[float] = CANDIDATES,
) -> tuple[float, tuple[tuple[float, float], ...]]:
    """Choose the threshold with the best mean Dice over cases.

    Where the curve is flat, the first of several equals would be an accident: among the candidates whose mean
    Dice lies within 0.002 of the best, the middle one is taken. Choose on cases that the network did not
    learn from and that no figure is reported on.

    Args:
        foreground_probabilities: per case, the probability of "not background", any float dtype and shape.
        truths: per case, the true foreground, same shape.
        candidates: thresholds in ascending order; foreground is probability >= threshold.

    Returns:
        The threshold, and the curve as (threshold, mean Dice) per candidate. A case without truth has Dice 1
        where nothing is predicted and 0 elsewhere.

    Raises:
        UsageError: without cases or candidates, with unsorted candidates, or if lengths or shapes differ.
    """
    if not truths or len(truths) != len(foreground_probabilities):
        raise UsageError(
            f"choosing a threshold needs one truth per probability map and at least one, "
            f"not {len(truths)} and {len(foreground_probabilities)}"
        )
    if not candidates or list(candidates) != sorted(set(candidates)):
        raise UsageError("threshold candidates must be a list in ascending order without repeats")
    per_case = [_dice_curve(p, t, candidates) for p, t in zip(foreground_probabilities, truths, strict=True)]
    mean = np.mean(per_case, axis=0)
    plateau = np.flatnonzero(mean >= mean.max() - PLATEAU)
    chosen = plateau[(plateau.size - 1) // 2]
    curve = tuple((float(t), float(d)) for t, d in zip(candidates, mean, strict=True))
    return float(candidates[chosen]), curve


def _dice_curve(
    probabilities: NDArray[Any], truth: NDArray[np.bool_], candidates: Sequence[float]
) -> NDArray[np.float64]:
    """Dice at every candidate from one pass: count the voxels between candidates, then sum from the top."""
    if probabilities.shape != truth.shape:
        raise UsageError(
            f"a probability map of shape {probabilities.shape} does not fit a truth of {truth.shape}"
        )
    # In the map's own precision, as prediction compares: float32 0.7 reaches the threshold 0.7.
    edges = np.asarray(candidates, dtype=probabilities.dtype)
    likely = probabilities >= edges[0]
    passed = np.searchsorted(edges, probabilities[likely], side="right")
    bins = edges.size + 1
    predicted = np.bincount(passed, minlength=bins)[:0:-1].cumsum()[::-1]
    shared = np.bincount(passed[truth[likely]], minlength=bins)[:0:-1].cumsum()[::-1]
    total = predicted + np.count_nonzero(truth)
    return np.where(total > 0, 2 * shared / np.maximum(total, 1), 1.0)
