"""A second look at what could be a lesion: a logistic regression on probability, size and shape.

Its weights are plain numbers, the constant first: a component is a lesion where the weighted sum of 1 and its features
reaches 0. Nothing in it depends on the place: in crops around lesions that would give the answer away.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy
from numpy.typing import NDArray

from focalis.lesions.candidates import highest

FEATURES = 4
PENALTY = 1.0
"""On the squares of the weights of standardised features."""
ROUNDS = 30
LEAST = 1e-6
"""Probabilities nearer to 0 or 1 count as this."""


def features(
    components: NDArray[np.int32],
    count: int,
    probability: NDArray[np.floating],
    spacing_zyx_mm: Sequence[float],
) -> NDArray[np.float64]:
    """Log odds of the highest and of the mean probability, log volume in mm3 and log elongation, shape (count, 4).

    Args:
        components: 1 to `count` in the components, 0 outside, shape (z, y, x).
        probability: of the foreground, as the network gives it, same shape.
        spacing_zyx_mm: the voxel size.
    """
    at, step = np.nonzero(components), np.asarray(spacing_zyx_mm, dtype=np.float64)
    of = components[at] - 1
    voxels = np.bincount(of, minlength=count)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(of, values, minlength=count) / voxels)

    places = [index * size for index, size in zip(at, step, strict=True)]
    centres = [mean(place) for place in places]
    spread = np.empty((count, 3, 3))
    for i, j in np.ndindex(3, 3):
        spread[:, i, j] = mean(places[i] * places[j]) - centres[i] * centres[j]
    axes = np.linalg.eigvalsh(spread + np.diag(step**2 / 12))  # a single voxel has an extent too
    levels = highest(probability, components, count), mean(probability[at].astype(np.float64))
    odds = [scipy.special.logit(np.clip(level, LEAST, 1 - LEAST)) for level in levels]
    return np.column_stack([*odds, np.log(voxels * step.prod()), 0.5 * np.log(axes[:, -1] / axes[:, 0])])


def lesion_chance(weights: Sequence[float], given: NDArray[np.float64]) -> NDArray[np.float64]:
    """The chance that each component is a lesion, shape (m,), from its features, shape (m, 4)."""
    return np.asarray(scipy.special.expit(weights[0] + given @ np.asarray(weights[1:])))


def fit_second_look(given: NDArray[np.float64], is_lesion: NDArray[np.bool_]) -> tuple[float, ...]:
    """Weights from features (m, k) and the truth (m,), by Newton's method; empty unless there are both kinds."""
    if not 0 < np.count_nonzero(is_lesion) < is_lesion.size:
        return ()
    mean, std = given.mean(axis=0), np.maximum(given.std(axis=0), 1e-6)
    x = np.column_stack([np.ones(len(given)), (given - mean) / std])
    weights, penalty = np.zeros(x.shape[1]), PENALTY * np.eye(x.shape[1])
    penalty[0, 0] = 1e-6
    for _ in range(ROUNDS):
        p = scipy.special.expit(x @ weights)
        curvature = (x * (p * (1 - p))[:, None]).T @ x + penalty
        weights += np.linalg.solve(curvature, x.T @ (is_lesion - p) - penalty @ weights)
    slopes = weights[1:] / std
    return float(weights[0] - mean @ slopes), *(float(slope) for slope in slopes)
