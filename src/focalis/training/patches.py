"""One training patch: where it lies, and its rotation, scale and flip, in a single interpolation or, where it falls
onto voxels, in none.

Every draw comes from the generator that is passed in, which the caller seeds with (seed, step, sample).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from focalis.dataset import IGNORED
from focalis.planning import Plan
from focalis.planning.plan import Triple
from focalis.training.prepared import TrainingCase

SCALE_SHARE = 0.3
SCALE_LIMITS = (0.8, 1.25)
FLIP_SHARE = 0.5
OVERSHOOT = 4
"""A patch reaches up to a quarter of its size past the border of the image, where the image is reflected: a lesion
in the middle of a small image is met all over the patch, and its place teaches nothing."""


@dataclass(frozen=True)
class Patch:
    """A training patch.

    Attributes:
        image: float32 (channel, z, y, x).
        label: int64 (z, y, x), class indices; or, of several readers' mean, float32 (class, z, y, x), the share of them
            who chose each class, all 0 where none has judged.
        distance_mm: float32 (z, y, x).
        nearest: int64 (z, y, x), the number of the nearest lesion; None unless the case has it.
        undrawn: bool (class,), the classes that nobody looked for; None for none.
    """

    image: Tensor
    label: Tensor
    distance_mm: Tensor
    nearest: Tensor | None = None
    undrawn: Tensor | None = None

    @classmethod
    def stack(cls, patches: Sequence[Patch]) -> Patch:
        """Patches as one, every field with a leading axis for the batch; 0 in those that lack what others have."""
        columns: dict[str, Any] = {}
        for name in vars(patches[0]):
            values = [vars(patch)[name] for patch in patches]
            like = next((value for value in values if value is not None), None)
            columns[name] = (
                None
                if like is None
                else torch.stack([torch.zeros_like(like) if value is None else value for value in values])
            )
        return cls(**columns)

    def map(self, change: Callable[[Tensor], Tensor]) -> Patch:
        """The patch with each of its tensors changed."""
        changed: dict[str, Any] = {
            name: None if tensor is None else change(tensor) for name, tensor in vars(self).items()
        }
        return Patch(**changed)


def draw_patch(
    case: TrainingCase, plan: Plan, rng: np.random.Generator, mistakes: Sequence[Triple] = ()
) -> Patch:
    """A random patch of a case.

    A share `plan.training.foreground_share` of the patches holds a lesion voxel: one of the labels that the case holds
    is drawn first, then a lesion, then one of its voxels, so that rare labels and small lesions are met as often as
    common and large ones, and the voxel lies anywhere in the patch, so that a lesion's place there says nothing. Of
    the others a share `plan.training.hard_negative_share` holds one of `mistakes`, the voxels where an earlier state of
    the training found false lesions; the rest lie anywhere.

    With `plan.readers` `random` the label is that of a reader drawn with `rng`; with `mean` it is soft.
    """
    shape, patch = np.asarray(case.label.shape), np.asarray(plan.patch_zyx)
    matrix, scale = _draw_matrix(plan, rng)
    half = (patch - 1) / 2
    middle = (shape - 1) / 2
    extent = np.abs(matrix) @ patch
    reach = np.maximum(shape - extent, 0) / 2 + extent / OVERSHOOT
    held: NDArray[np.integer] | None = None  # voxels of which the patch holds one
    if case.lesions and rng.random() < plan.training.foreground_share:
        held = _draw_lesion(case, rng)
    elif mistakes and rng.random() < plan.training.hard_negative_share:
        held = np.asarray(mistakes)
    if held is not None:
        place = rng.uniform(-0.85 * half, 0.85 * half)
        centre = held[rng.integers(len(held))] - matrix @ place
        centre = np.clip(centre, middle - reach, middle + reach)
    else:
        centre = middle + rng.uniform(-reach, reach)
    centre = _onto_voxels(centre, matrix, half)
    drawn = [case.label] if case.readers is None else [*case.readers]
    if plan.readers == "random":
        drawn = [drawn[rng.integers(len(drawn))]]
    patch_of_all = _resample(case, centre, matrix, scale, plan.patch_zyx, drawn)
    soft = plan.readers == "mean"
    label = reader_shares(patch_of_all.label, plan.outputs) if soft else patch_of_all.label[0]
    undrawn = torch.zeros(plan.outputs, dtype=torch.bool)
    undrawn[[*case.undrawn]] = True
    return replace(patch_of_all, label=label, undrawn=undrawn if case.undrawn else None)


def _draw_lesion(case: TrainingCase, rng: np.random.Generator) -> NDArray[np.integer]:
    """The voxels of a lesion of a label: each label that the case holds is drawn alike, and each lesion of it."""
    labels = sorted(set(case.lesion_labels))
    if len(labels) < 2:
        return case.lesions[rng.integers(len(case.lesions))]
    label = labels[rng.integers(len(labels))]
    numbers = [number for number, of in enumerate(case.lesion_labels) if of == label]
    return case.lesions[numbers[rng.integers(len(numbers))]]


def reader_shares(drawn: Tensor, classes: int) -> Tensor:
    """The share of the readers who chose each class, of those who judged the voxel; 0 where none did.

    Args:
        drawn: int64 (reader, z, y, x), class indices or IGNORED.
        classes: number of classes, the background included.

    Returns:
        float32 (class, z, y, x).
    """
    judged = drawn != IGNORED
    votes = functional.one_hot(drawn * judged, classes) * judged[..., None]
    return (votes.sum(0) / judged.sum(0).clamp(min=1)[..., None]).movedim(-1, 0)


def _draw_matrix(plan: Plan, rng: np.random.Generator) -> tuple[NDArray[np.float64], float]:
    """The map from patch offsets to image offsets, both in voxels (z, y, x), and its scale.

    The axes in any order, each flipped or not, are the quarter turns and their mirror images.
    """
    spacing = np.asarray(plan.spacing_zyx_mm)
    turn = np.eye(3)
    limit = np.deg2rad(plan.training.turn_limit_deg)
    order = np.eye(3)[rng.permutation(3)] if plan.training.quarter_turns else np.eye(3)
    if rng.random() < plan.training.turn_share:
        coarse = int(np.argmax(spacing)) if spacing.max() > 2 * spacing.min() else None
        for axis in range(3):
            angle = rng.uniform(-limit, limit)
            if coarse is None or axis == coarse:
                turn = turn @ _rotation(axis, angle)
    scale = float(np.exp(rng.uniform(*np.log(SCALE_LIMITS)))) if rng.random() < SCALE_SHARE else 1.0
    flips = np.where((rng.random(3) < FLIP_SHARE) & np.asarray(plan.training.flip_axes_zyx), -1.0, 1.0)
    return np.diag(1 / spacing) @ (turn * scale) @ np.diag(spacing) @ order @ np.diag(flips), scale


def _onto_voxels(
    centre: NDArray[np.float64], matrix: NDArray[np.float64], half: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The centre moved by up to half a voxel so that a patch which is only flipped or turned by quarters falls onto
    voxels: anywhere else interpolation would blur it, and the network would never see an image as sharp and as noisy as
    those it predicts (decision 0015)."""
    steps = np.abs(matrix)
    if not np.allclose(steps, steps.round()):
        return centre
    corner = steps @ half
    return np.asarray((centre - corner).round() + corner)


def _rotation(axis: int, angle_rad: float) -> NDArray[np.float64]:
    matrix = np.eye(3)
    i, j = [other for other in range(3) if other != axis]
    matrix[i, i] = matrix[j, j] = np.cos(angle_rad)
    matrix[i, j], matrix[j, i] = -np.sin(angle_rad), np.sin(angle_rad)
    return matrix


def _resample(
    case: TrainingCase,
    centre: NDArray[np.float64],
    matrix: NDArray[np.float64],
    scale: float,
    patch: tuple[int, int, int],
    drawn: Sequence[NDArray[np.uint8]],
) -> Patch:
    """A patch whose label has a channel for each of the label maps `drawn`, (z, y, x)."""
    half = (np.asarray(patch) - 1) / 2
    corner = centre - matrix @ half
    maps = [*drawn] if case.nearest is None else [*drawn, case.nearest]
    onto_voxels = all(np.allclose(each, each.round()) for each in (matrix, corner))
    make = _cut if onto_voxels else _interpolate
    smooth, sharp = make(case, centre, matrix, patch, maps)
    sharp = sharp.long()
    nearest = None if case.nearest is None else sharp[-1]
    # Scaling magnifies distances too.
    return Patch(smooth[:-1], sharp[: len(drawn)], smooth[-1] / scale, nearest)


def _cut(
    case: TrainingCase,
    centre: NDArray[np.float64],
    matrix: NDArray[np.float64],
    patch: tuple[int, int, int],
    maps: Sequence[NDArray[np.unsignedinteger]],
) -> tuple[Tensor, Tensor]:
    """Image and distance, and the maps of numbers, of a patch that falls onto voxels: nothing is interpolated.

    Each axis of the image is one of the patch, which runs along it or against it.
    """
    corner = centre - matrix @ ((np.asarray(patch) - 1) / 2)
    axes = np.abs(matrix).argmax(axis=1)
    box = [
        _reflected((start + row[axis] * np.arange(patch[axis])).round().astype(int), size)
        for start, row, axis, size in zip(corner, matrix, axes, case.label.shape, strict=True)
    ]
    order = np.argsort(axes)
    smooth = [_box(array, box).transpose(order) for array in (*case.image, case.distance_mm)]
    sharp = [_box(each, box).transpose(order).astype(np.int64) for each in maps]
    return torch.from_numpy(np.stack(smooth).astype(np.float32)), torch.from_numpy(np.stack(sharp))


def _interpolate(
    case: TrainingCase,
    centre: NDArray[np.float64],
    matrix: NDArray[np.float64],
    patch: tuple[int, int, int],
    maps: Sequence[NDArray[np.unsignedinteger]],
) -> tuple[Tensor, Tensor]:
    """Image and distance, linearly, and the maps of numbers, each voxel the nearest one's, of any patch."""
    half = (np.asarray(patch) - 1) / 2
    reach = np.abs(matrix) @ half + 1
    low, high = np.floor(centre - reach).astype(int), np.ceil(centre + reach).astype(int) + 1
    box = [_reflected(np.arange(a, b), size) for a, b, size in zip(low, high, case.label.shape, strict=True)]
    extent = (high - low - 1) / 2
    z, y, x = torch.meshgrid(
        *(torch.arange(n) - middle for n, middle in zip(patch, half, strict=True)), indexing="ij"
    )
    # From voxels of the patch to places in the box, from -1 at its first voxel to 1 at its last one.
    rows = np.column_stack([matrix, centre - low]) / extent[:, None]
    places = [a * z + b * y + c * x + (d - 1) for a, b, c, d in rows.tolist()]
    grid = torch.stack(places[::-1], dim=-1)
    values = np.empty((len(case.image) + 1, *(len(indices) for indices in box)), dtype=np.float32)
    for target, array in zip(values, (*case.image, case.distance_mm), strict=True):
        target[...] = _box(array, box)
    labels = np.stack([_box(each, box) for each in maps]).astype(np.float32)
    smooth = _sample(torch.from_numpy(values), grid, "bilinear")
    return smooth, _sample(torch.from_numpy(labels), grid, "nearest")


def _box(array: NDArray[np.generic], box: Sequence[NDArray[np.intp]]) -> NDArray[np.generic]:
    """The voxels at every triple of the box's indices; axis by axis is much faster than all three at once.

    From a mapped array, only the smallest box that holds them is read, however large the volume.
    """
    array = array[tuple(slice(int(indices.min()), int(indices.max()) + 1) for indices in box)]
    for axis, indices in enumerate(box):
        if not (np.diff(indices) == 1).all():
            array = array.take(indices - indices.min(), axis=axis)
    return array


def _reflected(index: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Indices along an axis of `size`; those that lie outside are mirrored at the outermost voxels."""
    period = max(2 * (size - 1), 1)
    index = np.abs(index) % period
    return np.where(index < size, index, period - index)


def _sample(array: Tensor, grid: Tensor, mode: str) -> Tensor:
    """The array at the places of the grid. Threads share what is a batch: here every slice of the patch is one."""
    slices = functional.grid_sample(
        array.expand(len(grid), *array.shape), grid[:, None], mode, padding_mode="border", align_corners=True
    )
    return slices[:, :, 0].movedim(0, 1).contiguous()
