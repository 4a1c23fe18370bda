"""A second channel for one-channel data, so that what a missing or shifted channel costs can be measured.

    python benchmarks/two_channels.py /data/msd_hippocampus -o two_channels --cases 60

`A` is the image, `B` the image with its contrast turned round, each under noise of its own: both together say more than
either. Anatomy and labels stay, and of the splits the first, with so many training cases. It is not a second scan: `B`
shows no tissue that `A` does not show.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from arms import published_split

from focalis.dataset import Split, open_dataset, write_splits
from focalis.volume import Volume, write_volume

NOISE = 0.7  # of the image's standard deviation


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the data set; the same input gives the same output."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", "-o", type=Path, required=True)
    parser.add_argument("--cases", type=int, help="training cases; default: all")
    options = parser.parse_args(arguments)
    data = open_dataset(options.dataset)
    split = published_split(data, 0)
    split = Split(split.train[: options.cases], split.val)
    for number, case in enumerate(data.cases):
        if case.name not in (*split.train, *split.val):
            continue
        (image,) = case.read_images()
        values = image.array.astype(np.float32)
        rng = np.random.default_rng(number)
        for name, channel in (("A", values), ("B", values.max() - values)):
            noisy = channel + rng.normal(0, NOISE * values.std(), values.shape).astype(np.float32)
            write_volume(Volume(noisy, image.grid), options.out / "images" / f"{case.name}_{name}.nii.gz")
        write_volume(case.read_label(), options.out / "labels" / f"{case.name}.nii.gz")
    write_splits([split], options.out / "splits.json")


if __name__ == "__main__":
    main()
