"""The README's picture: the held-out nodule of a run whose Dice in the whole crop is the median.

    python benchmarks/result_picture.py runs/lidc_nodules-12min-fold0-seed0

The run is that of a row of accuracy.py; its masks of the held-out cases and their scores lie there. Nothing is trained
or predicted. FOCALIS_DATA names the folder of the data sets.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from evidence_data import NODULES, data_folder

from focalis.files import write_bytes
from focalis.report import overlay_figure
from focalis.volume import read_volume

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "result.png"


def main(arguments: Sequence[str] | None = None) -> None:
    """Find the case and draw it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--out", type=Path, default=PICTURE, help="the picture")
    options = parser.parse_args(arguments)
    case, dice, count = median_case(options.run / "cases.csv")
    data = data_folder() / NODULES
    image, truth, prediction = (
        read_volume(folder / f"{case}.nii.gz")
        for folder in (data / "images", data / "labels", options.run / "predictions")
    )
    title = f"{case}: Dice {dice:.2f} in the whole crop, the median of {count} held-out cases"
    write_bytes(options.out, overlay_figure(image, truth, prediction, title))
    print(f"{options.out}: {title}")


def median_case(table: Path) -> tuple[str, float, int]:
    """The case in the middle by Dice, its Dice, and how many cases there are; of an even number the lower middle."""
    with table.open(encoding="utf-8") as file:
        scores = {row["case"]: float(row["dice"]) for row in csv.DictReader(file)}
    by_dice = sorted(scores.items(), key=lambda entry: entry[1])
    case, dice = by_dice[(len(by_dice) - 1) // 2]
    return case, dice, len(by_dice)


if __name__ == "__main__":
    main()
