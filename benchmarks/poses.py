"""How the labels of each data set lie, as planning sees it: the table of decision 0014.

    python benchmarks/poses.py

The environment variable FOCALIS_DATA names the folder of the data sets.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from focalis.dataset import open_dataset
from focalis.planning import fingerprint

SETS = ("lidc_nodules", "sts_pet", "msd_hippocampus", "oasis_inferior_ventricle")
CASES = 60

if __name__ == "__main__":
    if "FOCALIS_DATA" not in os.environ:
        sys.exit("FOCALIS_DATA is not set: name the folder that holds the data sets")
    print("| | flipped z, y, x | turned about z, y, x |\n|---|---|---|")
    for name in SETS:
        data = open_dataset(Path(os.environ["FOCALIS_DATA"]) / name)
        found = fingerprint(data.cases[:CASES], data.ignore).pose
        if found is None:
            continue
        flipped, turned = (
            ", ".join(f"{share:.2f}" for share in row) for row in (found.flipped_zyx, found.turned_zyx)
        )
        print(f"| {name} | {flipped} | {turned} |")
