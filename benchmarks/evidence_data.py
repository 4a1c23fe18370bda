"""The data of the evidence: which cases train, which are held out, and how a held-out case is judged."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import cut, dice, windows_of
from evidence_plan import FOLDS, RESULTS, SHAPES, FitRow, Row
from filelock import FileLock

from focalis.dataset import (
    Case,
    Dataset,
    PhantomSettings,
    Split,
    inner_split,
    open_dataset,
    write_phantoms,
)
from focalis.model import Model, load_model
from focalis.settings import Folds
from focalis.volume import Volume, read_volume
from focalis.workflows.record import data_hash, provenance, read_json, write_json
from focalis.workflows.run import INNER_SHARE, inner_minimum
from focalis.workflows.setup import divide

PHANTOMS = PhantomSettings(shape_zyx=(128, 128, 128), foreground_share=1e-4, lesions=3, empty_share=0.5)
PHANTOM_CASES = 60
NODULES = "lidc_nodules"
LABELS = {"msd_hippocampus": {1: "anterior", 2: "posterior"}}
"""The labels of the data sets that have several."""


@dataclass(frozen=True)
class Task:
    """What a row is trained and judged on.

    Attributes:
        data: the data set.
        split: the cases that may train, and those held out.
        windows: the origins of each case's windows; None where whole cases are judged.
        inner_share: the share of the training cases that choices are made on.
        empty: the training cases without a lesion.
        patch_zyx: the patch, where it is not the plan's own.
    """

    data: Dataset
    split: Split
    windows: dict[str, list[tuple[int, int, int]]] | None
    inner_share: float
    patch_zyx: tuple[int, int, int] | None
    empty: frozenset[str] = frozenset()

    def parts(self, case: str) -> Iterator[tuple[Volume, Volume]]:
        """Image and label of each part of a case that is judged on its own: its windows, or the whole."""
        (one,) = self.data.select((case,))
        image, label = one.read_images()[0], one.read_label()
        if self.windows is None:
            yield image, label
        else:
            for origin in self.windows[case]:
                yield cut(image, origin), cut(label, origin)


def data_folder() -> Path:
    """The folder of the data sets."""
    if "FOCALIS_DATA" not in os.environ:
        sys.exit("FOCALIS_DATA is not set: name the folder that holds the data sets")
    return Path(os.environ["FOCALIS_DATA"])


def task_of(row: Row, runs: Path) -> Task:
    """The task of a row; phantoms are generated where they are not there."""
    if row.data == "phantoms":
        data = phantoms(runs / "phantoms_128")
        full = {case.name: bool(case.read_label().array.any()) for case in data.cases}
        names = sorted(full, key=lambda name: (not full[name], name))
        # Every other scan is held out, of those with lesions and of those without.
        split = Split(tuple(names[::2]), tuple(names[1::2]))
        return Task(data, split, None, 0.25, (48, 48, 48), frozenset(n for n in split.train if not full[n]))
    nodules = row.data in (NODULES, "lidc_small")
    data = open_dataset(data_folder() / (NODULES if nodules else row.data))
    data = replace(data, labels=LABELS.get(row.data, data.labels))
    ((_, split),) = divide(data, Folds(row.fold), 0)
    if row.data == "lidc_small":
        small = smallest_third(data)
        split = Split(*(tuple(name for name in side if name in small) for side in (split.train, split.val)))
    if row.cases is not None:
        # The same cases for every network and seed, and 10 of them are among the 20.
        order = np.random.default_rng(row.fold).permutation(len(split.train))
        split = Split(tuple(sorted(split.train[i] for i in order[: row.cases])), split.val)
    return Task(
        data,
        split,
        windows_of(data.root) if nodules else None,
        INNER_SHARE,
        None if nodules else (48, 48, 48),
    )


def held_out_nodules(runs: Path) -> Iterator[tuple[Model, Case]]:
    """Each case of the nodules with the model of `evidence.py accuracy-start` that held it out; `runs` holds them."""
    data = open_dataset(data_folder() / NODULES)
    for fold in FOLDS:
        run = runs / FitRow(NODULES, fold, start=SHAPES).name
        model = load_model(run / "model.safetensors")
        for case in data.select(read_json(run / "record.json")["cases"]["held_out"]):
            yield model, case


def inner_of(task: Task, seed: int) -> Split:
    """The training cases, divided once more: what trains, and what choices are made on.

    Scans with and without a lesion are divided apart: how many of the latter the inner split holds would decide how
    much an operating point gains by silence.
    """
    sides: list[tuple[str, ...]] = [(), ()]
    for empty in (False, True):
        cases = task.data.select([name for name in task.split.train if (name in task.empty) == empty])
        if cases:
            minimum = 1 if task.empty else inner_minimum(len(cases))
            inner = inner_split(cases, task.inner_share, minimum, seed)
            sides = [sides[0] + tuple(inner.train), sides[1] + tuple(inner.val)]
    return Split(*sides)


def phantoms(root: Path) -> Dataset:
    """Scans of 128^3 voxels, half of them without any lesion, the others with three in 0.01 % of the voxels."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{root}.lock"):
        if not (root / "dataset.json").exists():  # the last file that is written
            write_phantoms(root, PHANTOM_CASES, PHANTOMS, seed=0)
    return open_dataset(root)


def smallest_third(data: Dataset) -> frozenset[str]:
    """The third of the cases whose lesions are smallest."""
    sizes = {case.name: int(np.count_nonzero(case.read_label().array)) for case in data.cases}
    return frozenset(sorted(sizes, key=lambda name: (sizes[name], name))[: len(sizes) // 3])


def write_nodules(results: Path = RESULTS) -> Path:
    """The facts of every nodule that tables need: its volume, how well its readers agree, its texture. No training."""
    path = results / "evidence" / "nodules.json"
    if path.exists():
        return path
    data = open_dataset(data_folder() / NODULES)
    with (data.root / "cases.csv").open(encoding="utf-8") as file:
        listed = {row["case"]: row for row in csv.DictReader(file)}
    facts: dict[str, dict[str, Any]] = {}
    for case in data.cases:
        label = case.read_label()
        masks = [
            read_volume(path).array > 0 for path in sorted((data.root / "raters").glob(f"{case.name}_r*"))
        ]
        pairs = [dice(one, other) for one, other in combinations(masks, 2)]
        facts[case.name] = {
            "volume_mm3": round(float(np.count_nonzero(label.array)) * label.grid.voxel_volume_mm3, 1),
            "readers": len(masks),
            "readers_dice": round(float(np.mean(pairs)), 4) if pairs else None,
            "texture": int(listed[case.name]["texture"]),
        }
    write_json(
        path,
        {**provenance(), "data_sha256": data_hash(data.cases), "nodules": facts},
    )
    return path


def read_nodules(results: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """The facts that `write_nodules` wrote; empty if it has not."""
    path = results / "evidence" / "nodules.json"
    found: dict[str, dict[str, Any]] = (
        json.loads(path.read_text(encoding="utf-8"))["nodules"] if path.exists() else {}
    )
    return found
