"""The table of lesions: one numbering, and what is measured of each lesion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.distance import pdist

from focalis.lesions.components import label_components


@dataclass(frozen=True)
class LesionMeasures:
    """One lesion.

    Attributes:
        number: from 1, through all labels in their order; within a label as `label_components` numbers.
        label: the name of its label.
        voxels: how many it has.
        volume_mm3: their volume.
        longest_mm: the longest distance between the outer corners of its voxels within one slice (constant z), as
            a reader measures a diameter on a plane; the diagonal of the voxel for a single one.
        centroid_zyx: its centre of gravity in voxels, 0 in the middle of the first one.
        centre_zyx: its own voxel nearest to its centre of gravity.
        slices: the first and the last z that it touches.
        mean: the mean of the image's values in it.
        maximum: their maximum.
    """

    number: int
    label: str
    voxels: int
    volume_mm3: float
    longest_mm: float
    centroid_zyx: tuple[float, float, float]
    centre_zyx: tuple[int, int, int]
    slices: tuple[int, int]
    mean: float
    maximum: float


def measure_lesions(
    masks: Mapping[str, NDArray[np.bool_]],
    image: NDArray[Any],
    spacing_zyx_mm: tuple[float, float, float],
) -> tuple[tuple[LesionMeasures, ...], NDArray[np.uint16]]:
    """Find, number and measure the lesions of a segmented image.

    Args:
        masks: label name to mask, shape (z, y, x), in the order in which lesions are to be numbered.
        image: values of the same shape, in any unit.
        spacing_zyx_mm: of the voxels.

    Returns:
        The lesions by number, and a map (z, y, x) of their numbers, 0 outside. Where labels overlap, the map holds
        the later lesion; the measures are of the whole lesions.
    """
    numbered = np.zeros(image.shape, dtype=np.uint16)
    found: list[LesionMeasures] = []
    for label, mask in masks.items():
        components, _ = label_components(mask)
        for index, box in enumerate(ndimage.find_objects(components), start=1):
            part = components[box] == index
            number = len(found) + 1
            numbered[box][part] = number
            found.append(_measure(number, label, part, image[box], box, spacing_zyx_mm))
    return tuple(found), numbered


def _measure(
    number: int,
    label: str,
    part: NDArray[np.bool_],
    values: NDArray[Any],
    box: tuple[slice, slice, slice],
    spacing_zyx_mm: tuple[float, float, float],
) -> LesionMeasures:
    start = np.array([edge.start for edge in box])
    spacing = np.asarray(spacing_zyx_mm)
    voxels = np.argwhere(part)
    centroid = voxels.mean(axis=0)
    away = (((voxels - centroid) * spacing) ** 2).sum(axis=1)
    middle = [float(value) for value in centroid + start]
    z, y, x = (int(i) for i in voxels[int(np.argmin(away))] + start)
    inside = values[part].astype(np.float64)
    return LesionMeasures(
        number=number,
        label=label,
        voxels=len(voxels),
        volume_mm3=len(voxels) * float(np.prod(spacing)),
        longest_mm=max(_longest_mm(plane, spacing_zyx_mm[1:]) for plane in part),
        centroid_zyx=(middle[0], middle[1], middle[2]),
        centre_zyx=(z, y, x),
        slices=(int(box[0].start), int(box[0].stop) - 1),
        mean=float(inside.mean()),
        maximum=float(inside.max()),
    )


def _longest_mm(plane: NDArray[np.bool_], spacing_mm: tuple[float, ...]) -> float:
    """The greatest distance between corners of the pixels of a mask; only the ends of its rows can be that far."""
    rows = np.nonzero(plane.any(axis=1))[0]
    if not rows.size:
        return 0.0
    first = plane[rows].argmax(axis=1)
    last = plane.shape[1] - plane[rows, ::-1].argmax(axis=1)
    corners = [
        (row + edge, column)
        for row, *ends in zip(rows, first, last, strict=True)
        for column in ends
        for edge in (0, 1)
    ]
    return float(pdist(np.array(corners) * spacing_mm).max())
