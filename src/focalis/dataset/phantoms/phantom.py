"""Phantoms: one scan, and a whole data set of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from focalis.dataset.case import Dataset
from focalis.dataset.layout import open_dataset
from focalis.dataset.phantoms.anatomy import make_anatomy
from focalis.dataset.phantoms.fields import smooth_field
from focalis.dataset.phantoms.lesions import add_lesion, place_lesions, read_lesions
from focalis.errors import UsageError
from focalis.files import write_text
from focalis.volume import Grid, Volume, write_volume


@dataclass(frozen=True)
class PhantomSettings:
    """What a phantom is like. Soft tissue has intensity 100, air 0.

    Attributes:
        shape_zyx: voxels along z, y, x, at least 8 each.
        spacing_zyx_mm: their spacing; it may differ between axes.
        foreground_share: lesion voxels divided by all voxels, above 0 and up to 0.3; exact to half a voxel,
            and at least one voxel.
        lesions: lesions per scan; 0 makes scans without any.
        empty_share: the share of scans without any lesion in a data set.
        readers: how many readers contour each scan; 1 writes no readers' contours.
        contrast: how much brighter than its surroundings an average lesion is.
        noise: standard deviation of the noise in each of the two channels of a magnitude image.
        bias: strength of the slow change of brightness across the image; 0.2 changes it by about 20 %.
    """

    shape_zyx: tuple[int, int, int] = (48, 64, 64)
    spacing_zyx_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    foreground_share: float = 0.004
    lesions: int = 3
    empty_share: float = 0.0
    readers: int = 1
    contrast: float = 70.0
    noise: float = 8.0
    bias: float = 0.15

    def __post_init__(self) -> None:
        for wrong, message in (
            (min(self.shape_zyx) < 8, f"shape_zyx must be 8 or more along each axis, not {self.shape_zyx}"),
            (min(self.spacing_zyx_mm) <= 0, f"spacing_zyx_mm must be positive, not {self.spacing_zyx_mm}"),
            (
                not 0 < self.foreground_share <= 0.3,
                f"foreground_share must be above 0 and at most 0.3, not {self.foreground_share}",
            ),
            (self.lesions < 0, f"lesions must not be negative ({self.lesions})"),
            (not 0 <= self.empty_share <= 1, f"empty_share must be between 0 and 1, not {self.empty_share}"),
            (self.readers < 1, f"readers must be 1 or more, not {self.readers}"),
            (min(self.contrast, self.noise, self.bias) < 0, "contrast, noise and bias must not be negative"),
        ):
            if wrong:
                raise UsageError(f"phantom: {message}")


@dataclass(frozen=True)
class Phantom:
    """A generated scan.

    Attributes:
        image: int16 intensities.
        truth: where the lesions are, uint8, 1 in a lesion.
        readers: each reader's contours, uint8, on the same grid.
    """

    image: Volume
    truth: Volume
    readers: tuple[Volume, ...]


def make_phantom(settings: PhantomSettings, seed: int | np.random.SeedSequence) -> Phantom:
    """Generate one scan; the same settings and seed give the same voxels.

    Besides lesions it holds vessels, bright spots and a tissue as bright as a lesion, so that no threshold
    finds the lesions.

    Raises:
        UsageError: the lesions do not fit.
    """
    rng = np.random.default_rng(seed)
    z, y, x = settings.shape_zyx
    dz, dy, dx = settings.spacing_zyx_mm
    grid = Grid((x, y, z), (dx, dy, dz))
    anatomy = make_anatomy(grid, rng)
    image = anatomy.image

    voxels = max(1, round(settings.foreground_share * image.size))
    lesions = place_lesions(anatomy.body, grid, voxels, settings.lesions, rng) if settings.lesions else ()
    truth = np.zeros(settings.shape_zyx, dtype=np.uint8)
    for lesion in lesions:
        truth[lesion.box] |= lesion.mask
        add_lesion(image, lesion, anatomy.texture, settings.contrast, blur_mm=0.2 * min(dz, dy, dx))
    readers = tuple(
        Volume(read_lesions(lesions, anatomy.body, grid, rng), grid) for _ in range(settings.readers)
    )

    slow = smooth_field(settings.shape_zyx, settings.spacing_zyx_mm, 0.5 * max(z * dz, y * dy, x * dx), rng)
    image *= np.exp(np.float32(settings.bias) * slow)
    image += np.float32(settings.noise) * rng.standard_normal(image.shape, dtype=np.float32)
    image = np.hypot(image, np.float32(settings.noise) * rng.standard_normal(image.shape, dtype=np.float32))
    return Phantom(Volume(np.rint(image).astype(np.int16), grid), Volume(truth, grid), readers)


def write_phantoms(root: Path | str, cases: int, settings: PhantomSettings, seed: int) -> Dataset:
    """Write a data set of phantoms: images/, labels/, dataset.json, and with several readers raters/CASE_rN.

    The labels are the truth, which no reader hits exactly. The share of scans without lesions is kept (to the
    nearest whole scan); which ones is random. Files of the same names are replaced.

    Args:
        root: the data set's folder, made if need be.
        cases: number of scans, phantom_000 and on.
        seed: the same seed gives the same files.

    Returns:
        The data set as `open_dataset` lists it.
    """
    root = Path(root)
    order, *seeds = np.random.SeedSequence(seed).spawn(cases + 1)
    shuffled = np.random.default_rng(order).permutation(cases)
    empty = {int(i) for i in shuffled[: round(settings.empty_share * cases)]}
    for i, case_seed in enumerate(seeds):
        name = f"phantom_{i:03d}"
        phantom = make_phantom(replace(settings, lesions=0) if i in empty else settings, case_seed)
        write_volume(phantom.image, root / "images" / f"{name}.nii.gz")
        write_volume(phantom.truth, root / "labels" / f"{name}.nii.gz")
        if settings.readers > 1:
            for number, contour in enumerate(phantom.readers, start=1):
                write_volume(contour, root / "raters" / f"{name}_r{number}.nii.gz")
    names = {"labels": {"background": 0, "lesion": 1}}
    write_text(root / "dataset.json", json.dumps(names) + "\n")
    return open_dataset(root)
