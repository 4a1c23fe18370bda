"""Generated whole chest CTs: real nodules pasted into the lungs of a real CT.

    python benchmarks/pasted_nodules.py DATA OUT --cases 20

DATA holds `lidc_whole`, whose lungs are taken, and `lidc_nodules`, whose nodules are. What OUT holds is GENERATED and
says so in its names and in dataset.json: a nodule lies where no lung ever grew one, and no figure on such scans stands
for one on real ones. It serves to train on, and to test, whole scans with a foreground of 0.0001 to 0.01 %; the real CT
as it is shows the false positives. The real nodule of the CT is erased from the places to paste at, not from the image:
it is marked as a lesion in every case.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from focalis.files import write_text
from focalis.lesions import label_components
from focalis.volume import (
    Volume,
    grid_with_spacing,
    read_volume,
    resample_image,
    resample_label,
    write_volume,
)

CASE = "LIDC0314"
AIR_HU, FROM_THE_WALL_MM, BLEND_MM = -600.0, 8.0, 2.0
MOST_NODULES = 4


def main() -> None:
    """Write the data set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--coarser", type=float, default=1.0, help="factor of the spacing, to train in less time"
    )
    options = parser.parse_args()
    whole = options.data / "lidc_whole"
    ct, label = (read_volume(whole / part / f"{CASE}.nii.gz") for part in ("images", "labels"))
    nodules = sorted((options.data / "lidc_nodules" / "labels").glob("*.nii.gz"))
    places = np.argwhere(_lungs(ct) & (label.array == 0))
    for number in range(options.cases):
        rng = np.random.default_rng((options.seed, number))
        image, mask = ct.array.astype(np.float32), (label.array > 0).astype(np.uint8)
        for path in rng.choice(np.asarray(nodules), rng.integers(1, MOST_NODULES + 1), replace=False):
            near, drawn = read_volume(path.parent.parent / "images" / path.name), read_volume(path)
            grid = grid_with_spacing(near.grid, ct.grid.spacing_zyx_mm)
            crop, drawn = resample_image(near, grid), resample_label(drawn, grid)
            _paste(image, mask, crop.array, drawn.array > 0, places[rng.integers(len(places))], ct, rng)
        name = f"generated_{number:03d}"
        scan = Volume(np.round(image).astype(np.int16), ct.grid)
        z, y, x = (options.coarser * step for step in ct.grid.spacing_zyx_mm)
        coarse = grid_with_spacing(ct.grid, (z, y, x))
        write_volume(resample_image(scan, coarse), options.out / "images" / f"{name}.nii.gz")
        write_volume(resample_label(Volume(mask, ct.grid), coarse), options.out / "labels" / f"{name}.nii.gz")
        print(
            f"{name}: {label_components(mask > 0)[1]} lesions, {100 * float(mask.mean()):.4f} % of the volume"
        )
    said = "GENERATED: nodules of LIDC-IDRI pasted into the lungs of one CT of LIDC-IDRI (CC BY 3.0). Not real scans."
    content = {"description": said, "labels": {"background": 0, "nodule": 1}}
    write_text(options.out / "dataset.json", json.dumps(content, indent=1) + "\n")


def _lungs(ct: Volume) -> NDArray[np.bool_]:
    """Voxels of the lungs that lie well away from their wall: the largest airy piece that does not reach the border."""
    airy = ct.array[::2, ::2, ::2] < AIR_HU
    pieces, count = label_components(airy, connectivity=6)
    at_the_border = np.unique(np.concatenate([pieces[:, side].ravel() for side in (0, -1)]))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    sizes[at_the_border] = 0
    lungs = pieces == int(sizes.argmax())
    deep = ndimage.distance_transform_edt(lungs, 2 * np.asarray(ct.grid.spacing_zyx_mm)) > FROM_THE_WALL_MM
    places = np.zeros(ct.array.shape, bool)
    places[::2, ::2, ::2] = deep
    return places


def _paste(
    image: NDArray[np.float32],
    mask: NDArray[np.uint8],
    crop: NDArray[np.float32],
    drawn: NDArray[np.bool_],
    place: NDArray[np.int_],
    ct: Volume,
    rng: np.random.Generator,
) -> None:
    """Put a nodule at a place, flipped at random; around it, it fades into the lung. Nothing if it does not fit."""
    flips = tuple(axis for axis in range(3) if rng.random() < 0.5)
    crop, drawn = np.flip(crop, flips), np.flip(drawn, flips)
    away = ndimage.distance_transform_edt(~drawn, ct.grid.spacing_zyx_mm)
    share = np.clip(1 - away / BLEND_MM, 0, 1).astype(np.float32)
    start = place - np.asarray(crop.shape) // 2
    if (start < 0).any() or (start + crop.shape > image.shape).any():
        return
    box = tuple(slice(int(first), int(first + size)) for first, size in zip(start, crop.shape, strict=True))
    if mask[box][share > 0].any():  # two nodules that touch are one
        return
    image[box] = np.where(share > 0, share * crop + (1 - share) * image[box], image[box])
    mask[box][drawn] = 1


if __name__ == "__main__":
    main()
