"""Real sets made harder: thick slices, cases without a lesion, a distractor as bright as the lesion, several scanners.

    python benchmarks/thickened.py msd_hippocampus data/thick_hippocampi

FOCALIS_DATA names the folder of the real sets. In part of the cases the lesion is painted over with what lies around
it, in every case a tube as bright as the lesion wanders through the scan, and each scan's values are multiplied by a
factor of its own. So it is no set to judge a model for patients by, but it is patient data as before. It stands in for
sets that nobody tuned for (`thick_slices.py` trains on it).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accuracy import cut
from evidence_data import data_folder
from numpy.typing import NDArray
from scipy import ndimage

from focalis.dataset import Case, open_dataset
from focalis.files import write_text
from focalis.volume import (
    Grid,
    Volume,
    grid_with_spacing,
    resample_image,
    resample_label,
    write_volume,
)

EMPTY = 0.4
TUBE_RADIUS_MM = (2.0, 4.0)
RING_MM = 8.0
SCANNERS = 0.6
"""Standard deviation of the logarithm of a scan's factor."""


@dataclass(frozen=True)
class Thick:
    """How thick slices become, how many cases are taken, and whether a scan is cut into its left and right half."""

    slice_mm: float
    cases: int
    halves: bool = False


SETS = {
    "msd_hippocampus": Thick(5.0, 60),
    "sts_pet": Thick(9.81, 51),
    "oasis_inferior_ventricle": Thick(5.0, 15, halves=True),
}


def main() -> None:
    """Write the harder set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", choices=SETS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    thick = SETS[options.set]
    cases = open_dataset(data_folder() / options.set).cases[: thick.cases]
    patients = ["case,patient"]
    for number, case in enumerate(cases):
        for name, image, label in parts(case, thick):
            rng = np.random.default_rng((options.seed, number, name.endswith("_right")))
            image, label = harder(image, label, thick.slice_mm, rng)
            write_volume(image, options.folder / "images" / f"{name}.nii.gz")
            write_volume(label, options.folder / "labels" / f"{name}.nii.gz")
            patients.append(f"{name},{case.name}")
    write_text(options.folder / "patients.csv", "\n".join(patients) + "\n")


def parts(case: Case, thick: Thick) -> list[tuple[str, Volume, Volume]]:
    """Name, image and label (1 is the lesion) of a case, or of its two halves."""
    image, label = case.read_images()[0], case.read_label()
    label = Volume((label.array > 0).astype(np.uint8), label.grid)
    if not thick.halves:
        return [(case.name, image, label)]
    z, y, x = image.array.shape
    sides = {"left": (0, x // 2), "right": (x // 2, x - x // 2)}
    return [
        (f"{case.name}_{side}", *(cut(volume, (0, 0, start), (z, y, size)) for volume in (image, label)))
        for side, (start, size) in sides.items()
    ]


def harder(image: Volume, label: Volume, slice_mm: float, rng: np.random.Generator) -> tuple[Volume, Volume]:
    """A case with thick slices, a tube as bright as its lesion, and, in `EMPTY` of the draws, the lesion painted over.

    Args:
        image: values of any dtype, (z, y, x).
        label: 1 in the lesion, on the image's grid.
        slice_mm: the new distance of slices.
        rng: decides all that is random.

    Returns:
        Image (float32) and label (uint8) on the coarser grid.
    """
    values, lesion = image.array.astype(np.float32), label.array > 0
    around = ndimage.distance_transform_edt(~lesion, image.grid.spacing_zyx_mm) < RING_MM
    near = values[around & ~lesion]
    bright, spread = float(values[lesion].mean()), 1.5 * float(np.median(np.abs(near - np.median(near))))
    tube = _tube(image.grid, rng) & ~around
    values[tube] = bright + rng.normal(0, 0.2 * spread, int(tube.sum()))
    if rng.random() < EMPTY:
        values, lesion = _painted_over(values, lesion, spread, rng), np.zeros_like(lesion)
    values *= np.exp(rng.normal(0, SCANNERS))
    _, y_mm, x_mm = image.grid.spacing_zyx_mm
    coarse = grid_with_spacing(image.grid, (slice_mm, y_mm, x_mm))
    return (
        resample_image(Volume(values, image.grid), coarse),
        resample_label(Volume(lesion.astype(np.uint8), image.grid), coarse),
    )


def _tube(grid: Grid, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A bent tube between two sides of the scan."""
    far = np.asarray(grid.shape_zyx, dtype=float) - 1
    ends = rng.uniform(0, far, (3, 3))
    axis = int(rng.integers(1, 3))
    ends[0, axis], ends[2, axis] = 0, far[axis]
    share = np.linspace(0, 1, 400)[:, None]
    line = (1 - share) ** 2 * ends[0] + 2 * share * (1 - share) * ends[1] + share**2 * ends[2]
    drawn = np.ones(grid.shape_zyx, dtype=bool)
    drawn[tuple(np.round(line).astype(int).T)] = False
    return ndimage.distance_transform_edt(drawn, grid.spacing_zyx_mm) < rng.uniform(*TUBE_RADIUS_MM)


def _painted_over(
    values: NDArray[np.float32], lesion: NDArray[np.bool_], spread: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """The values with the lesion replaced by a smooth continuation of what lies around it, as noisy as that is."""
    hidden = ndimage.binary_dilation(lesion, iterations=2)
    filled, known = np.where(hidden, 0, values), (~hidden).astype(np.float32)
    sigma = 3.0
    while True:
        weight = ndimage.gaussian_filter(known, sigma)
        if weight[hidden].min() > 1e-3:
            break
        sigma *= 1.5
    smooth = ndimage.gaussian_filter(filled, sigma) / np.maximum(weight, 1e-6)
    noise = ndimage.gaussian_filter(rng.normal(0, 1, values.shape), 0.7)
    smooth += 0.5 * spread * noise / noise.std()
    return np.where(hidden, smooth, values).astype(np.float32)


if __name__ == "__main__":
    main()
