"""What a data set looks like: the few numbers from which a plan is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from focalis.dataset import Case
from focalis.errors import DataError
from focalis.lesions import label_components, lesions_by_label
from focalis.planning.pose import Pose, Sketch, pose, sketch
from focalis.volume import Absent, Volume, to_canonical

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


@dataclass(frozen=True)
class CaseFigures:
    """What a case contributes to a `Fingerprint`.

    Attributes:
        shape_zyx: its shape in canonical orientation.
        spacing_zyx_mm: its spacing in canonical orientation.
        centred: whether it has one lesion, in its middle.
        sketch: how its foreground lies.
        low: 1st percentile of each channel that it has, by the channel's place.
        inside: float32, up to `SAMPLES_PER_CASE` intensities inside lesions, likewise.
    """

    shape_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float]
    foreground_share: float
    lesion_volumes_mm3: tuple[float, ...]
    centred: bool
    sketch: Sketch
    low: Mapping[int, float]
    inside: Mapping[int, NDArray[np.float32]]


def take_figures(
    case: Case, label: Volume, images: Mapping[int, Volume], ignore: int | None = None
) -> CaseFigures:
    """The figures of one case; they do not depend on what other cases there are.

    Args:
        label: its label map, in canonical orientation.
        images: its channels by their place, in canonical orientation, on the label's grid.
        ignore: label value of voxels that nobody has judged: no foreground.
    """
    rng = np.random.default_rng([0, *case.name.encode()])
    inside = (label.array > 0) & (label.array != (ignore or 0))
    sizes = [found.sizes() for found in lesions_by_label(label.array, ignore)]
    drawn = sketch(np.where(inside, label.array, 0), label.grid.spacing_zyx_mm, rng)
    low, samples = {}, {}
    for place, image in images.items():
        low[place] = float(np.percentile(image.array, 1))
        values = image.array[inside].astype(np.float32)
        samples[place] = rng.choice(values, min(SAMPLES_PER_CASE, values.size), replace=False)
    return CaseFigures(
        label.grid.shape_zyx,
        label.grid.spacing_zyx_mm,
        float(inside.mean()),
        tuple(float(size * label.grid.voxel_volume_mm3) for each in sizes for size in each),
        _is_centred(inside),
        drawn,
        low,
        samples,
    )


def fingerprint(
    cases: Sequence[Case], ignore: int | None = None, taken: Mapping[str, CaseFigures] = MappingProxyType({})
) -> Fingerprint:
    """The figures of all cases together; DataError if no case holds any foreground.

    The pose comes from cases in which the same labels were drawn.

    Args:
        ignore: label value of voxels that nobody has judged: no foreground.
        taken: figures that are known, by case; the other cases are read, one at a time.
    """
    figures = [taken.get(case.name) or _read_figures(case, ignore) for case in cases]
    usual = Counter(case.drawn for case in cases).most_common(1)[0][0]
    sketches = [each.sketch for case, each in zip(cases, figures, strict=True) if case.drawn == usual]
    middles = [each.centred for each in figures]
    if not any(each.lesion_volumes_mm3 for each in figures):
        raise DataError("no case holds any foreground; there is nothing to learn")
    channels = range(len(cases[0].images) + len(cases[0].lacks))
    lows = [[each.low[place] for each in figures if place in each.low] for place in channels]
    if not all(lows):
        raise DataError(f"no case has channel {lows.index([]) + 1}; there is nothing to learn from it")
    pooled = [
        np.concatenate([each.inside[place] for each in figures if place in each.inside]) for place in channels
    ]
    return Fingerprint(
        tuple(each.shape_zyx for each in figures),
        tuple(each.spacing_zyx_mm for each in figures),
        tuple(each.foreground_share for each in figures),
        tuple(volume for each in figures for volume in each.lesion_volumes_mm3),
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


def _read_figures(case: Case, ignore: int | None) -> CaseFigures:
    if case.label is None:
        raise DataError.at(
            case.name, "has no label file", f"remove the image or add labels/{case.name}.nii.gz"
        )
    images = {
        place: to_canonical(volume)
        for place, volume in enumerate(case.read_images())
        if not isinstance(volume, Absent)
    }
    return take_figures(case, to_canonical(case.read_label()), images, ignore)
