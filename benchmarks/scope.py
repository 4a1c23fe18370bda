"""How often held-out images lie outside of a model's scope, and how often images of other kinds do.

    python benchmarks/scope.py DATA -o benchmarks/results/choices/scope.json

For each of lidc_nodules (CT) and msd_hippocampus (MR) below DATA, and each of their five folds: the scope is learned
from the fold's training cases, and held against its validation cases, as they are and altered, and against other sets'
images. No network is trained: the scope depends on images alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from focalis.dataset import Dataset, open_dataset, read_splits
from focalis.files import write_text
from focalis.planning import Description, Normalisation, describe, learn_scope, outside
from focalis.volume import Volume, read_volume
from focalis.workflows.record import provenance

SETS = {"lidc_nodules": "window", "msd_hippocampus": "zscore"}
OTHERS = (
    "lidc_nodules",
    "msd_hippocampus",
    "sts_pet",
    "oasis_inferior_ventricle",
    "dicom_sts001/nifti/CT_image.nii.gz",
)
FEW = 20


def noise(array: np.ndarray) -> np.ndarray:
    """White noise of the image's mean and standard deviation."""
    return np.random.default_rng(0).normal(array.mean(), array.std(), array.shape)


ALTERED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "held-out": lambda array: array,
    "held-out, inverted": lambda array: array.max() + array.min() - array,
    "held-out, as noise": noise,
    "held-out, head to foot": lambda array: array[::-1],
}


def images_of(path: Path, every: int) -> list[Volume]:
    """Every n-th image of a set, or the one image of a file."""
    if path.is_file():
        return [read_volume(path)]
    return [case.read_images()[0] for case in open_dataset(path).cases[::every]]


def judge(root: Path, name: str) -> dict[str, Any]:
    """Counts (outside, all) per kind of image, over the folds."""
    data = open_dataset(root / name)
    how = [Normalisation.model_validate({"kind": SETS[name]})]
    described = {case.name: _described(data, case.name, how) for case in data.cases}
    strangers = {
        other: [describe([image], how) for image in images_of(root / other, 10)]
        for other in OTHERS
        if other != name
    }
    counts: dict[str, list[int]] = {}
    said: dict[str, list[str]] = {}
    for split in read_splits(root / name / "splits_5fold.json"):
        for few in (False, True):
            train = split.train[:: len(split.train) // FEW][:FEW] if few else split.train
            scope = learn_scope([described[case]["held-out"] for case in train])
            assert scope is not None
            kinds = {kind: [described[case][kind] for case in split.val] for kind in ALTERED} | strangers
            for kind, images in kinds.items():
                key = f"{kind}{f', {FEW} training cases' if few else ''}"
                found = [outside(scope, image, ["image"]) for image in images]
                before = counts.setdefault(key, [0, 0])
                before[0] += sum(bool(each) for each in found)
                before[1] += len(found)
                if key == "held-out":
                    said |= {case: list(each) for case, each in zip(split.val, found, strict=True) if each}
    return {"outside_of_all": counts, "held_out_cases_outside": said}


def _described(data: Dataset, name: str, how: list[Normalisation]) -> dict[str, Description]:
    (case,) = data.select((name,))
    volume = case.read_images()[0]
    array = volume.array.astype(np.float32)
    return {
        kind: describe([Volume(change(array).astype(np.float32), volume.grid)], how)
        for kind, change in ALTERED.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    result = {**provenance(), "sets": {name: judge(arguments.data, name) for name in SETS}}
    write_text(arguments.out, json.dumps(result, indent=1) + "\n")
    for name, found in result["sets"].items():
        for kind, (count, total) in found["outside_of_all"].items():
            print(f"{name}: {kind}: {count} of {total}")


if __name__ == "__main__":
    main()
