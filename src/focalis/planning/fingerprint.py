"""What a data set looks like: the few numbers from which a plan is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from focalis.dataset import Case
from focalis.errors import DataError
from focalis.lesions import label_components, lesions_by_label
from focalis.planning.pose import Pose, pose, sketch
from focalis.volume import Absent, to_canonical

SAMPLES_PER_CASE = 10_000
LEAST_CENTRED, CENTRED_SHARE, OFF_CENTRE = 5, 0.9, 0.1
"""So many cases at least, this share of them, and so far from the middle as a share of the image's side."""


@dataclass(frozen=True)
class Fingerprint:
    """Figures over the training cases; one row per case unless said otherwise.

    Attributes:
        shapes_zyx: shapes in canonical orientation, in voxels.
        spacings_zyx_mm: spacings in canonical orientation.
        foreground_share: share of the voxels that are foreground, 0 to 1.
        lesion_volumes_mm3: volume of every lesion of every case: 26-connected, of one label, as the check counts
            them.
        first_percentile: per channel, the median over cases of each image's 1st percentile.
        foreground_low, foreground_high, foreground_mean, foreground_std: per channel, the 0.5th and 99.5th
            percentile, mean and standard deviation of the intensities inside lesions, over all cases.
        centred: whether nearly every image has one lesion, in its middle, as crops around a lesion have.
        pose: whether the foreground lies the same way in all cases; None if they are too few to say.
    """

    shapes_zyx: tuple[tuple[int, int, int], ...]
    spacings_zyx_mm: tuple[tuple[float, float, float], ...]
    foreground_share: tuple[float, ...]
    lesion_volumes_mm3: tuple[float, ...]
    first_percentile: tuple[float, ...]
    foreground_low: tuple[float, ...]
    foreground_high: tuple[float, ...]
    foreground_mean: tuple[float, ...]
    foreground_std: tuple[float, ...]
    pose: Pose | None = None
    centred: bool = False


def fingerprint(
    cases: Sequence[Case],
    ignore: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Fingerprint:
    """Read every case once, one at a time, and take its figures; DataError if no case holds any foreground.

    Voxels of the label value `ignore`, which nobody has judged, are no foreground. The pose comes from cases in which
    the same labels were drawn.
    """
    rng = np.random.default_rng(seed)
    shapes, spacings, shares, lesions, sketches = [], [], [], [], []
    middles: list[bool] = []
    channels = len(cases[0].images) + len(cases[0].lacks)
    usual = Counter(case.drawn for case in cases).most_common(1)[0][0]
    lows: list[list[float]] = [[] for _ in range(channels)]
    samples: list[list[np.ndarray]] = [[] for _ in range(channels)]
    for done, case in enumerate(cases):
        if case.label is None:
            raise DataError(
                f"{case.name}: has no label file; remove the image or add labels/{case.name}.nii.gz"
            )
        label = to_canonical(case.read_label())
        inside = (label.array > 0) & (label.array != (ignore or 0))
        shapes.append(label.grid.shape_zyx)
        spacings.append(label.grid.spacing_zyx_mm)
        shares.append(float(inside.mean()))
        if case.drawn == usual:
            sketches.append(sketch(np.where(inside, label.array, 0), label.grid.spacing_zyx_mm, rng))
        middles.append(_is_centred(inside))
        for found in lesions_by_label(label.array, ignore):
            lesions += (found.sizes() * label.grid.voxel_volume_mm3).tolist()
        for channel, volume in enumerate(case.read_images()):
            if isinstance(volume, Absent):
                continue
            image = to_canonical(volume).array
            lows[channel].append(float(np.percentile(image, 1)))
            values = image[inside].astype(np.float32)
            samples[channel].append(rng.choice(values, min(SAMPLES_PER_CASE, values.size), replace=False))
        if progress:
            progress(done + 1, len(cases))
    if not lesions:
        raise DataError("no case holds any foreground; there is nothing to learn")
    if not all(lows):
        raise DataError(f"no case has channel {lows.index([]) + 1}; there is nothing to learn from it")
    pooled = [np.concatenate(values) for values in samples]
    return Fingerprint(
        tuple(shapes),
        tuple(spacings),
        tuple(shares),
        tuple(lesions),
        tuple(float(np.median(values)) for values in lows),
        tuple(float(np.percentile(values, 0.5)) for values in pooled),
        tuple(float(np.percentile(values, 99.5)) for values in pooled),
        tuple(float(values.mean()) for values in pooled),
        tuple(float(values.std()) for values in pooled),
        pose(sketches),
        len(middles) >= LEAST_CENTRED and sum(middles) >= CENTRED_SHARE * len(middles),
    )


def _is_centred(inside: NDArray[np.bool_]) -> bool:
    """Whether there is one lesion, and its box has the image's middle, along each axis."""
    if not inside.any():
        return False
    ends = [np.flatnonzero(inside.any(axis=axes))[[0, -1]] for axes in ((1, 2), (0, 2), (0, 1))]
    off = [abs(pair.mean() - (size - 1) / 2) / size for pair, size in zip(ends, inside.shape, strict=True)]
    box = tuple(slice(first, last + 1) for first, last in ends)
    return bool(max(off) <= OFF_CENTRE) and label_components(inside[box])[1] == 1
