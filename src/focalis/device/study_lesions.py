"""The lesions of a study, numbered across all labels as on the page and in the report, and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from focalis.lesions import Lesion, label_components, measure_components
from focalis.volume import Volume


@dataclass(frozen=True)
class StudyLesion:
    """One lesion.

    Attributes:
        measured: its sizes and places; its number counts from 1 through all labels in their order, within a label as
            `label_components` numbers.
        centre_zyx: its own voxel nearest to its centre of gravity.
        box_zyx: its first voxel of each axis, and the one after its last.
        parts: its 26-connected components, the largest first; edits and other lesions may divide it.
    """

    measured: Lesion
    centre_zyx: tuple[int, int, int]
    box_zyx: tuple[tuple[int, ...], tuple[int, ...]]
    parts: tuple[Lesion, ...]
    mean: float
    maximum: float


def list_lesions(
    masks: Mapping[str, NDArray[np.bool_]], image: Volume
) -> tuple[tuple[StudyLesion, ...], NDArray[np.uint16]]:
    """Find, number and measure the lesions of a segmented image.

    Args:
        masks: label name to mask, shape (z, y, x), in the order in which lesions are to be numbered.
        image: the image on the same voxels, in any unit.

    Returns:
        The lesions by number, and a map (z, y, x) of their numbers, 0 outside. Where labels overlap, the map holds
        the later lesion; the measures are of the whole lesions.
    """
    grid = image.grid
    numbered = np.zeros(grid.shape_zyx, dtype=np.uint16)
    found: list[StudyLesion] = []
    for value, (label, mask) in enumerate(masks.items(), start=1):
        components, _ = label_components(mask)
        boxes = ndimage.find_objects(components)
        for lesion, box in zip(measure_components(components, grid, value, label), boxes, strict=True):
            part = components[box] == lesion.number
            numbered[box][part] = len(found) + 1
            found.append(_study_lesion(lesion, (lesion,), len(found) + 1, part, box, image))
    return tuple(found), numbered


def lesion_at(voxels_zyx: NDArray[np.int_], label: str, image: Volume, number: int) -> StudyLesion:
    """The lesion that has these voxels (n, 3) of an image, whether they touch or not; measured as one."""
    low, high = voxels_zyx.min(axis=0), voxels_zyx.max(axis=0) + 1
    box = tuple(slice(int(first), int(last)) for first, last in zip(low, high, strict=True))
    part = np.zeros(high - low, dtype=np.int32)
    part[tuple((voxels_zyx - low).T)] = 1
    grid = image.grid.part(low[::-1].tolist(), part.shape[::-1])
    (measured,) = measure_components(part, grid, 1, label)
    components, count = label_components(part > 0)
    found = measure_components(components, grid, 1, label) if count > 1 else [measured]
    parts = tuple(sorted(found, key=lambda each: -each.voxels))
    return _study_lesion(measured, parts, number, part > 0, box, image)


def voxels_of(marks: NDArray[np.integer], lesion: int, box_zyx: Sequence[Sequence[int]]) -> NDArray[np.int_]:
    """The voxels (n, 3) that a lesion has in a map of numbers, looked for in its box alone."""
    low, high = box_zyx
    found: NDArray[np.int_] = np.argwhere(marks[tuple(map(slice, low, high))] == lesion) + np.array(low)
    return found


def _study_lesion(
    measured: Lesion,
    parts: tuple[Lesion, ...],
    number: int,
    part: NDArray[np.bool_],
    box: tuple[slice, ...],
    image: Volume,
) -> StudyLesion:
    """A lesion that fills `part` of a box of the image."""
    values = image.array[box][part].astype(np.float64)
    return StudyLesion(
        measured=replace(measured, number=number),
        centre_zyx=_nearest_to_its_middle(part, box, image.grid.spacing_zyx_mm),
        box_zyx=(tuple(int(edge.start) for edge in box), tuple(int(edge.stop) for edge in box)),
        parts=parts,
        mean=float(values.mean()),
        maximum=float(values.max()),
    )


def _nearest_to_its_middle(
    part: NDArray[np.bool_], box: tuple[slice, ...], spacing_zyx_mm: tuple[float, float, float]
) -> tuple[int, int, int]:
    voxels = np.argwhere(part)
    away = np.square((voxels - voxels.mean(axis=0)) * spacing_zyx_mm).sum(axis=1)
    z, y, x = (int(i) + edge.start for i, edge in zip(voxels[int(away.argmin())], box, strict=True))
    return z, y, x
