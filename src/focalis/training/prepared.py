"""Training cases made ready once and kept on disk, mapped into memory: the working set stays flat."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from focalis.dataset import Case
from focalis.errors import DataError
from focalis.lesions import label_components
from focalis.losses import distance_to_foreground
from focalis.planning import Plan, prepare_image, prepare_label
from focalis.volume import read_volume

VOXELS_PER_LESION = 500


@dataclass(frozen=True)
class TrainingCase:
    """A case as training reads it; arrays are memory-mapped, on the plan's grid.

    Attributes:
        name: the case's name.
        image: float32 (channel, z, y, x), normalised.
        label: uint8 (z, y, x), class indices.
        distance_mm: float16 (z, y, x), distance to the foreground.
        lesions: per lesion (26-connected), int32 (n, 3) voxel indices z, y, x, at most `VOXELS_PER_LESION`.
    """

    name: str
    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    distance_mm: NDArray[np.float16]
    lesions: tuple[NDArray[np.int32], ...]


def prepare_case(case: Case, plan: Plan, folder: Path) -> TrainingCase:
    """Prepare a case into `folder`/NAME, or take what lies there; a crash leaves no half-written case."""
    home = folder / case.name
    if not home.is_dir():
        if case.label is None:
            raise DataError(f"{case.name}: has no label file; training needs one per image")
        unfinished = folder / f".{case.name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        prepared = prepare_image([read_volume(path) for path in case.images], plan)
        label = prepare_label(read_volume(case.label), plan)
        distance = distance_to_foreground(label, plan.spacing_zyx_mm)
        np.save(unfinished / "image.npy", prepared.array)
        np.save(unfinished / "label.npy", label)
        np.save(unfinished / "distance.npy", distance.astype(np.float16))
        unfinished.replace(home)
    label = np.load(home / "label.npy", mmap_mode="r")
    return TrainingCase(
        case.name,
        np.load(home / "image.npy", mmap_mode="r"),
        label,
        np.load(home / "distance.npy", mmap_mode="r"),
        _lesion_voxels(label),
    )


def prepare_cases(cases: Sequence[Case], plan: Plan, folder: Path) -> list[TrainingCase]:
    """Prepare several cases, one at a time."""
    return [prepare_case(case, plan, folder) for case in cases]


def _lesion_voxels(label: NDArray[np.uint8]) -> tuple[NDArray[np.int32], ...]:
    components, count = label_components(label > 0)
    voxels = np.argwhere(components > 0).astype(np.int32)
    of = components[tuple(voxels.T)]
    order = np.argsort(of, kind="stable")
    parts = np.split(voxels[order], np.cumsum(np.bincount(of, minlength=count + 1)[1:])[:-1]) if count else []
    return tuple(part[:: max(1, len(part) // VOXELS_PER_LESION)] for part in parts)
