"""The README's picture: a whole chest CT that `lidc-nodule` has not seen, with the nodule that it outlines.

    python benchmarks/scan_picture.py

`lidc-nodule` outlines the nodule that a point names, here the middle of the truth: what at least two of four readers
marked. Nothing is trained. FOCALIS_DATA names the folder of the
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

CASE = "LIDC0314"
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
    z, y, x = np.round(np.argwhere(truth.array).mean(axis=0)).astype(int)
    mask = focalis.load("lidc-nodule").segment(to_sitk(scan), at_voxel=[(z, y, x)]).mask
    both, total = int(np.sum((mask > 0) & (truth.array > 0))), int(np.sum(mask > 0) + np.sum(truth.array > 0))
    title = f"{CASE}, 275 slices: a nodule of 2 ml, 0.005 % of the scan; Dice {2 * both / total:.2f}"
    write_bytes(options.out, jpeg(overlay_figure(scan, truth, Volume(mask, truth.grid), title)))
    print(f"{options.out}: {title}")


def jpeg(png: bytes) -> bytes:
    """The same picture, three times smaller."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
