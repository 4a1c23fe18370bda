"""The README's picture: a whole chest CT that `lidc-nodule` has not seen, with the nodule that it outlines.

    python benchmarks/scan_picture.py

`lidc-nodule` is made for a crop of about 51 mm around a nodule. It gets that crop, and its mask is put back into the
scan. The truth is what at least two of four readers marked. Nothing is trained. FOCALIS_DATA names the folder of the
data sets (lidc_whole, CC BY 3.0).
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from evidence_data import data_folder
from PIL import Image

import focalis
from focalis.files import write_bytes
from focalis.report import overlay_figure
from focalis.volume import Volume, read_volume, to_sitk

CASE, SIDE_MM = "LIDC0314", 51.0
PICTURE = Path(__file__).parents[1] / "docs" / "images" / "whole-scan.jpg"


def main(arguments: Sequence[str] | None = None) -> None:
    """Segment the crop and draw it in the scan."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=PICTURE, help="the picture")
    options = parser.parse_args(arguments)
    folder = data_folder() / "lidc_whole"
    scan, truth = (read_volume(folder / part / f"{CASE}.nii.gz") for part in ("images", "labels"))
    box = around(truth)
    crop = Volume(scan.array[box], scan.grid.part([each.start for each in box][::-1], sizes(box)[::-1]))
    mask = np.zeros_like(truth.array)
    mask[box] = focalis.load("lidc-nodule").segment(to_sitk(crop)).mask
    both, total = int(np.sum((mask > 0) & (truth.array > 0))), int(np.sum(mask > 0) + np.sum(truth.array > 0))
    title = f"{CASE}, 275 slices: a nodule of 2 ml, 0.005 % of the scan; Dice {2 * both / total:.2f}"
    write_bytes(options.out, jpeg(overlay_figure(scan, truth, Volume(mask, truth.grid), title)))
    print(f"{options.out}: {title}")


def around(truth: Volume) -> tuple[slice, ...]:
    """The box of 51 mm around the middle of the truth, moved inwards at the scan's border."""
    box = []
    middle = np.argwhere(truth.array).mean(axis=0)
    for centre, step_mm, count in zip(middle, truth.grid.spacing_zyx_mm, truth.array.shape, strict=True):
        side = min(round(SIDE_MM / step_mm), count)
        start = min(max(round(centre) - side // 2, 0), count - side)
        box.append(slice(start, start + side))
    return tuple(box)


def sizes(box: Sequence[slice]) -> list[int]:
    """The sides of a box in voxels."""
    return [each.stop - each.start for each in box]


def jpeg(png: bytes) -> bytes:
    """The same picture, three times smaller."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
