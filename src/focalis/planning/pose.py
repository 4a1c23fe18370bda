"""Whether a structure always lies the same way: how much is left of the cases' agreement when one is flipped or turned.

A nodule looks alike from every side, a hippocampus never stands on its head. What the labels never do, the
augmentation should not show, and what they do at random it may show as often as it likes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

LEAST_CASES = 8
"""With fewer cases chance decides."""
CELLS = 16
VOXELS_PER_CASE = 5_000


@dataclass(frozen=True)
class Sketch:
    """A case's foreground around its own centre.

    Attributes:
        offsets_zyx_mm: float32 (n, 3), places of (at most 5,000) foreground voxels from their mean.
        labels: int (n,), their label values.
    """

    offsets_zyx_mm: NDArray[np.float32]
    labels: NDArray[np.integer]


@dataclass(frozen=True)
class Pose:
    """What is left of the cases' agreement, as a share of it, after a case was moved; 1 if the move changes nothing.

    Attributes:
        flipped_zyx: after a flip along z, y, x.
        turned_zyx: after a quarter turn about z, y, x.
    """

    flipped_zyx: tuple[float, float, float] = (1.0, 1.0, 1.0)
    turned_zyx: tuple[float, float, float] = (1.0, 1.0, 1.0)


def sketch(label: NDArray[np.integer], spacing_zyx_mm: Sequence[float], rng: np.random.Generator) -> Sketch:
    """The sketch of a label map (z, y, x) in canonical orientation; every value above 0 is foreground."""
    voxels = np.argwhere(label > 0)
    if len(voxels) > VOXELS_PER_CASE:
        voxels = voxels[rng.choice(len(voxels), VOXELS_PER_CASE, replace=False)]
    places = voxels * np.asarray(spacing_zyx_mm)
    offsets = places - places.mean(axis=0) if len(places) else places
    return Sketch(offsets.astype(np.float32), label[tuple(voxels.T)])


def pose(sketches: Sequence[Sketch]) -> Pose | None:
    """How the cases' agreement suffers from flips and turns; None for fewer than `LEAST_CASES` cases with foreground.

    Every case becomes a coarse density of each label around the centre of its foreground. Agreement is the cosine
    between a case's density and the sum of all other cases', mean over cases.
    """
    found = [each for each in sketches if len(each.labels)]
    if len(found) < LEAST_CASES:
        return None
    reach_mm = float(np.median([np.abs(each.offsets_zyx_mm).max() for each in found]))
    values = np.unique(np.concatenate([each.labels for each in found]))
    densities = [_density(each, values, 2 * max(reach_mm, 1e-3) / CELLS) for each in found]
    everything = np.sum(densities, axis=0)

    def agreement(move: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> float:
        return float(np.mean([_cosine(move(density), everything - density) for density in densities]))

    still = max(agreement(lambda density: density), 1e-9)
    axes = (1, 2, 3)
    planes = ((2, 3), (1, 3), (1, 2))
    z, y, x = (agreement(lambda density, axis=axis: np.flip(density, axis)) / still for axis in axes)  # type: ignore[misc]
    tz, ty, tx = (
        agreement(lambda density, plane=plane: np.rot90(density, axes=plane)) / still  # type: ignore[misc]
        for plane in planes
    )
    return Pose((z, y, x), (tz, ty, tx))


def _density(each: Sketch, values: NDArray[np.integer], cell_mm: float) -> NDArray[np.float64]:
    """Unit-norm density (label, z, y, x) in cubic cells around the centre; what lies beyond them is left out."""
    cells = np.floor(each.offsets_zyx_mm / cell_mm + CELLS / 2).astype(int)
    inside = ((cells >= 0) & (cells < CELLS)).all(axis=1)
    density = np.zeros((len(values), CELLS, CELLS, CELLS))
    np.add.at(density, (np.searchsorted(values, each.labels[inside]), *cells[inside].T), 1.0)
    # Blurred, so that thick slices do not show as a comb.
    density = scipy.ndimage.gaussian_filter(density, 1.0, axes=(1, 2, 3), mode="constant")
    unit: NDArray[np.float64] = density / max(float(np.linalg.norm(density)), 1e-9)
    return unit


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float((a * b).sum() / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-9))
