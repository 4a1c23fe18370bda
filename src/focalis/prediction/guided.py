"""Segment the lesions that a person points at: the surroundings of each place go the way of every image.

Of what the model marks in them the lesion at the place is kept. Only the surroundings are prepared and passed through
the networks, as the crops were that the model was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from focalis.errors import ModelError
from focalis.lesions import label_components
from focalis.model import Model
from focalis.prediction.places import Box, Place, Pointed, cut, surroundings, why_outside
from focalis.prediction.segmentation import Segmentation, check_volumes, segment
from focalis.prediction.settings import Settings
from focalis.volume import Absent, Grid, Volume

NEAR_MM = 3.0
"""A lesion that begins so near to a place is meant by it, if none lies at the place itself."""


def segment_at(
    model: Model, volumes: Sequence[Volume], places: Sequence[Place], settings: Settings | None = None
) -> Segmentation:
    """One mask of a whole image, with the lesion at each place; what became of each is in `Segmentation.pointed`.

    Nothing is dropped for being small or unsure, unless the settings say so: a person vouches for the lesion.

    Args:
        volumes: one per channel, in the order of the plan's channels, on one grid.
        settings: how; the defaults are those of `focalis predict`.

    Raises:
        ModelError: the model is a detector; or every place lies outside of the image or cannot be segmented.
    """
    if not model.guided:
        raise ModelError(
            "the model is a detector: it takes whole scans and no points; leave at and at_voxel out"
        )
    asked, grid = (settings or Settings()).for_model(model), volumes[0].grid
    settings = asked.for_places()
    told: list[Pointed] = []
    whole: Segmentation | None = None
    for place in places:
        box = surroundings(model, grid, place)
        if box is None:
            told.append(Pointed(place, "outside", why_outside(place, grid)))
            continue
        crop = cut(volumes, box)
        try:
            check_volumes(crop, model.plan)
        except ModelError as error:
            told.append(Pointed(place, "nothing", f"shows nothing that can be segmented: {error}"))
            continue
        found = segment(model, crop, settings)
        whole = _blank(found, grid) if whole is None else _joined(whole, found)
        told.append(_keep(whole, found, box, place, crop, model))
    if whole is None:
        said = "; ".join(f"point {each.place} {each.said}" for each in told)
        raise ModelError(said or "no point is given; give one per lesion")
    return replace(whole, point=asked.point_of(model, pointed=True), pointed=tuple(told))


def _keep(
    whole: Segmentation, found: Segmentation, box: Box, place: Place, crop: Sequence[Volume], model: Model
) -> Pointed:
    """Add the lesion at a place to the whole, in place, and say what it is."""
    spacing = np.asarray(found.grid.spacing_xyz_mm)
    ends_mm = (place.indices_xyz(whole.grid) - [side.start for side in reversed(box)]) * spacing
    components, _ = label_components(found.mask > 0)
    at = np.nonzero(components)
    numbers, away_mm = components[at], _distances(np.stack(at[::-1], axis=1) * spacing, ends_mm)
    reached = _marked(components, ends_mm / spacing)
    nearest = float(away_mm.min(initial=np.inf))
    within_a_voxel = float(np.linalg.norm(spacing) / 2)
    if not reached.size and nearest <= max(NEAR_MM, within_a_voxel):
        reached = numbers[[away_mm.argmin()]]
    if not reached.size:
        how = "" if np.isinf(nearest) else f"; what it marks begins {nearest:.0f} mm away"
        return Pointed(
            place, "nothing", f"shows no lesion to the model{how}{_air(crop, ends_mm / spacing, model)}"
        )
    inside = np.isin(components, reached)
    earlier = whole.mask[box] > 0
    fresh = inside & ~earlier
    for mine, theirs in (
        (whole.mask, found.mask),
        (whole.probability, found.probability),
        (whole.uncertainty, found.uncertainty),
    ):
        if mine is not None and theirs is not None:
            mine[box][fresh] = theirs[fresh]
    size_mm3 = np.count_nonzero(inside) * found.grid.voxel_volume_mm3
    said = f"shows a lesion of {size_mm3:.0f} mm3"
    if nearest > within_a_voxel:
        said += f", which begins {nearest:.1f} mm away"
    if (inside & earlier).any():
        said += ", which touches that of an earlier point"
    is_cut = _is_cut_off(inside, box, whole.grid)
    if is_cut:
        said += ", which is cut off: it is larger than what the model looks at"
    own = model.operating_point
    drops = not own.second_look  # which goes neither by size nor by confidence alone
    if drops and (size_mm3 < own.minimum_mm3 or found.probability[inside].max() < own.minimum_confidence):
        said += ", smaller or less sure than what the model reports unasked"
    return Pointed(place, "lesion", said, is_cut)


def _marked(components: NDArray[np.integer], ends: NDArray[np.float64]) -> NDArray[np.integer]:
    """The numbers of the components that a point or a line goes through; `ends` are its indices x, y, z (1 or 2, 3)."""
    steps = int(2 * np.abs(ends[-1] - ends[0]).max()) + 1
    along = np.rint(np.linspace(ends[0], ends[-1], steps + 1)).astype(np.int64)[:, ::-1]
    inside = ((along >= 0) & (along < components.shape)).all(axis=1)
    met = components[tuple(along[inside].T)]
    return np.unique(met[met > 0])


def _blank(found: Segmentation, grid: Grid) -> Segmentation:
    """As a segmentation, of the whole image with nothing marked; untouched pages take no memory."""
    mask = np.zeros(grid.shape_zyx, found.mask.dtype)
    return replace(
        found,
        mask=mask,
        candidates=mask,
        probability=np.zeros(grid.shape_zyx, np.float32),
        uncertainty=None if found.uncertainty is None else np.zeros(grid.shape_zyx, np.float32),
        grid=grid,
    )


def _joined(whole: Segmentation, found: Segmentation) -> Segmentation:
    return replace(whole, tiles=whole.tiles + found.tiles, blended=whole.blended or found.blended)


def _distances(points_mm: NDArray[np.float64], ends_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """From each point (n, 3) to the line between the ends, or to the one end."""
    start, along = ends_mm[0], ends_mm[-1] - ends_mm[0]
    share = np.clip((points_mm - start) @ along / max(float(along @ along), 1e-12), 0, 1)
    return np.asarray(np.linalg.norm(points_mm - start - share[:, None] * along, axis=1))


def _is_cut_off(inside: NDArray[np.bool_], box: Box, grid: Grid) -> bool:
    """Whether a lesion reaches a side of the box at which the image goes on."""
    sides = zip(box, grid.shape_zyx, (np.moveaxis(inside, axis, 0) for axis in range(3)), strict=True)
    return any(
        (side.start > 0 and along[0].any()) or (side.stop < size and along[-1].any())
        for side, size, along in sides
    )


def _air(volumes: Sequence[Volume], indices_xyz: NDArray[np.float64], model: Model) -> str:
    """That the image, its first channel that is there, is air or empty at a place; nothing if it is not."""
    channels = zip(volumes, model.plan.normalisation, strict=True)
    image, how = next((image, how) for image, how in channels if not isinstance(image, Absent))
    middle = np.clip(np.round(indices_xyz.mean(axis=0)).astype(int), 0, np.subtract(image.grid.size_xyz, 1))
    value = image.array[tuple(middle[::-1])]
    if value <= (how.low if how.kind == "window" else image.array.min()):
        return f"; the image is air or empty there ({value:g})"
    return ""
