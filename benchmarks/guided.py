"""Dice of a lesion that is pointed at in a whole CT, and how it falls with the point's distance from the centre.

    python benchmarks/guided.py DATA -o benchmarks/results/guided/lidc_whole.json

DATA holds `lidc_whole`. The model, `lidc-nodule`, has not seen its patient. Points are drawn off the consensus' centre
by shares of the radius (of a sphere of its volume), in 14 directions: along the axes and the diagonals.
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from pathlib import Path

import numpy as np
from accuracy import dice
from scipy import ndimage

import focalis
from focalis.prediction import Place, Settings, cut, segment, segment_at, surroundings
from focalis.volume import Grid, read_volume
from focalis.workflows.record import write_json

CASE, MODEL = "LIDC0314", "lidc-nodule"
SHARES = (0.0, 0.25, 0.5)
DIRECTIONS = [np.asarray(each) for each in product((-1, 0, 1), repeat=3) if np.abs(each).sum() in (1, 3)]


def main() -> None:
    """Measure, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    folder = options.data / "lidc_whole"
    image, consensus = (read_volume(folder / part / f"{CASE}.nii.gz") for part in ("images", "labels"))
    truths = {"consensus": consensus.array > 0}
    for path in sorted((folder / "raters").glob(f"{CASE}_*.nii.gz")):
        truths[path.name.removesuffix(".nii.gz").removeprefix(f"{CASE}_")] = read_volume(path).array > 0
    model, settings = focalis.load(MODEL), Settings(runtime="torch", precision="float32")
    spacing = np.asarray(image.grid.spacing_xyz_mm)
    centre = np.asarray(ndimage.center_of_mass(truths["consensus"]))[::-1]
    radius_mm = radius_of(truths["consensus"], image.grid)

    middle = Place((tuple(centre),), voxel=True)
    box = surroundings(model, image.grid, middle)
    assert box is not None
    by_hand = segment(model, cut([image], box), settings)
    crop = np.zeros(image.array.shape, bool)
    crop[box] = by_hand.mask > 0
    rows = []
    for share in SHARES:
        for direction in DIRECTIONS if share else [np.zeros(3)]:
            step = share * radius_mm * direction / max(float(np.linalg.norm(direction)), 1.0) / spacing
            started = time.perf_counter()
            found = segment_at(model, [image], [Place((tuple(centre + step),), voxel=True)], settings)
            seconds = time.perf_counter() - started
            scores = {name: dice(found.mask > 0, truth) for name, truth in truths.items()}
            rows.append(
                {"share": share, "direction_xyz": direction.tolist(), "dice": scores, "seconds": seconds}
            )
            print(
                share,
                direction,
                {name: round(value, 3) for name, value in scores.items()},
                f"{seconds:.2f} s",
            )
    write_json(
        options.out,
        {
            "case": CASE,
            "model": MODEL,
            "radius_mm": radius_mm,
            "centred_crop": {name: dice(crop, truth) for name, truth in truths.items()},
            "readers_among_themselves": {
                f"{one} {other}": dice(truths[one], truths[other])
                for one in truths
                for other in truths
                if "reader" in one and one < other
            },
            "points": [
                {
                    "share_of_radius": share,
                    "points": len(mine := [row for row in rows if row["share"] == share]),
                    "dice": {
                        name: {
                            "mean": float(np.mean([row["dice"][name] for row in mine])),
                            "least": float(min(row["dice"][name] for row in mine)),
                        }
                        for name in truths
                    },
                    "median_seconds": float(np.median([row["seconds"] for row in mine])),
                }
                for share in SHARES
            ],
            "rows": rows,
        },
    )


def radius_of(lesion: np.ndarray, grid: Grid) -> float:
    """Of a sphere of its volume, in mm."""
    volume_mm3 = np.count_nonzero(lesion) * grid.voxel_volume_mm3
    return float((3 * volume_mm3 / (4 * np.pi)) ** (1 / 3))


if __name__ == "__main__":
    main()
