"""What a start from generated shapes is worth with few cases: short trainings, judged on an inner split.

    python benchmarks/shapes_trial.py lidc_nodules                          from random weights
    python benchmarks/shapes_trial.py lidc_nodules --start runs/shapes/classes
    python benchmarks/shapes_trial.py lidc_nodules --start shapes --channels faint,own
    python benchmarks/shapes_trial.py --table                               the results that are there

What the tasks of `pretrain_shapes.py --task` are worth lies apart, and its table goes to docs/evidence-tables.md:

    python benchmarks/shapes_trial.py lidc_nodules --start runs/masked --results benchmarks/results/objectives
    python benchmarks/shapes_trial.py --table --results benchmarks/results/objectives

`--start` is `shapes`, or a folder that `pretrain_shapes.py` wrote. `--channels` trains on several channels made of the
one there is: `own` (as it is), `opposite` (dark for bright, blurred, noisy) and `faint` (the lesion hardly shows). The
start's first layer is shared out evenly among them.

A quarter of fold 0's training cases are judged, and the cases that train are drawn from the others; the fold's held-out
cases are not touched, so these figures may choose among starts. Nodules are judged by the windows protocol, other data
as whole cases or pieces (ms_brain), by the mean Dice over the labels.
FOCALIS_DATA names the folder of the data sets. A result that is there already is not made again.
"""

from __future__ import annotations

import argparse
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch
from accuracy import cut, dice, windows_of
from evidence_data import NODULES, data_folder
from tables import put

from focalis.dataset import Case, Dataset, Split, inner_split, make_splits, open_dataset, read_splits
from focalis.evaluation import bootstrap_interval
from focalis.lesions import OperatingPoint
from focalis.model import Model
from focalis.planning import fingerprint, make_plan
from focalis.prediction import Settings, choose_runtime, segment
from focalis.training import prepare_cases, read_metrics, train
from focalis.training.start import first_network, read_start
from focalis.volume import Volume, write_volume
from focalis.workflows.record import data_hash, provenance, read_json, write_json

RESULTS = Path(__file__).resolve().parent / "results" / "shapes"
OBJECTIVES = RESULTS.with_name("objectives")
BEGIN, END = "<!-- objectives: made by benchmarks/shapes_trial.py -->", "<!-- /objectives -->"
BRAINS, TRAINED_BRAIN, SIDE, LEAST = "ms_brain", "openms19", 56, 30
"""Two brains of two channels: pieces of one train, others of it and those of the other brain are judged. Pieces have
so many voxels a side, and at least so many of them are lesion."""
DATA = {
    NODULES: {1: "nodule"},
    "msd_hippocampus": {1: "anterior", 2: "posterior"},
    "sts_pet": {1: "sarcoma"},
    "oasis_inferior_ventricle": {1: "ventricle"},
    BRAINS: {1: "lesion"},
}
"""The data sets and their labels."""
CHANNELS = {"own": (1.0, 0.0, 0.0), "opposite": (-1.0, 1.0, 0.25), "faint": (1.0, 4.0, 0.5)}
"""By channel what it is made with: a factor, a blur in voxels, and noise in standard deviations of the image."""
OF_THE_START = ("command", "revision", "task", "steps", "seed", "sha256")
SHARE, MINIMUM = 0.25, 3
JUDGED = 20
RANDOM = "random"
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and judge one row, or print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", nargs="?", choices=list(DATA))
    parser.add_argument("--start", type=Path, help="shapes, or a start's folder; random weights without it")
    parser.add_argument("--channels", type=lambda text: text.split(","), default=[], metavar="KIND,KIND")
    parser.add_argument("--network", default="dense")
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--steps", type=int, default=350)
    parser.add_argument(
        "--draw", type=int, default=0, help="which cases are drawn; the seed of the training too"
    )
    parser.add_argument("--rate", type=float, help="the learning rate's peak; else the plan's")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument(
        "--table", action="store_true", help="train nothing, print the results that are there"
    )
    options = parser.parse_args(arguments)
    if options.table:
        found = table(options.results)
        print(found)
        if options.results.resolve() == OBJECTIVES:
            put(BEGIN, END, found.splitlines())
        return
    if options.dataset is None:
        parser.error(f"name a data set ({', '.join(DATA)}), or --table")
    start = title(options)
    others = [] if options.network == "dense" else [options.network]
    data = "-".join([options.dataset, *others, *options.channels])
    name = f"{data}-{options.cases}cases-{options.steps}steps-{start}-draw{options.draw}"
    target = options.results / f"{name}.json"
    if target.exists():
        print(f"{target}: is there, nothing to do")
        return
    torch.set_num_threads(options.threads)
    row = made(options)
    write_json(target, row)
    print(f"{name}: {row['dice']}")


def made(options: argparse.Namespace) -> dict[str, Any]:
    """Train and judge one row; what is to be known about it."""
    with tempfile.TemporaryDirectory() as folder:
        return _made(options, Path(folder))


def _made(options: argparse.Namespace, home: Path) -> dict[str, Any]:
    began = provenance()
    data = open_dataset(data_folder() / options.dataset)
    if options.dataset == BRAINS:
        data = pieces(data.cases, home / BRAINS)
    drawn = draw(data, options.cases, options.draw)
    digest = data_hash(data.select([*drawn.train, *drawn.val]))
    if options.channels:
        data = with_channels(data.select([*drawn.train, *drawn.val]), options.channels, home / data.root.name)
    training = data.select(drawn.train)
    plan = make_plan(fingerprint(training), data.channels, DATA[options.dataset], options.network)
    if options.rate:
        training_settings = plan.training.model_copy(update={"learning_rate": options.rate})
        plan = plan.model_copy(update={"training": training_settings})
    start, taken, record = None, None, dict[str, Any]()
    if options.start is not None:
        own = options.start / "record.json"
        record = read_json(own) if own.exists() else {}
        start = read_start(
            options.start / "start.safetensors" if record else str(options.start), options.network
        )
        taken = str(first_network(plan, start)[1])
    network = train(
        plan,
        prepare_cases(training, plan, home / "prepared"),
        [],
        home,
        steps=options.steps,
        seed=options.draw,
        runtime=choose_runtime(),
        start=start,
    )
    model = Model(plan, (network,), OperatingPoint(threshold=min(THRESHOLDS)))
    found = scores(
        model, data, windows_of(data_folder() / NODULES) if options.dataset == NODULES else None, drawn.val
    )
    return {
        **began,
        "dataset": options.dataset,
        "network": options.network,
        "channels": options.channels,
        "data_sha256": digest,
        "start": None if title(options) == RANDOM else title(options),
        "start_record": {name: record[name] for name in OF_THE_START if name in record},
        "start_sha256": None if start is None else start.sha256,
        "taken": taken,
        "steps": options.steps,
        "seed": options.draw,
        "threads": options.threads,
        "training_seconds": read_metrics(home)[-1]["seconds"],
        "train": list(drawn.train),
        "dice": {f"{t:g}": round(float(np.mean(list(by.values()))), 4) for t, by in found.items()},
        "cases": {case: round(value, 4) for case, value in found[0.5].items()},
    }


def title(options: argparse.Namespace) -> str:
    """What a row starts from, and a learning rate other than the plan's."""
    start = RANDOM if options.start is None else options.start.name
    return f"{start}@{options.rate:g}" if options.rate else start


def with_channels(cases: Sequence[Case], kinds: Sequence[str], root: Path) -> Dataset:
    """A data set of these cases with several channels, each made of the one that there is; see `CHANNELS`."""
    for case in cases:
        (image,) = case.read_images()
        write_volume(case.read_label(), root / "labels" / f"{case.name}.nii.gz")
        values = image.array.astype(np.float32)
        for number, kind in enumerate(kinds):
            factor, blur, noise = CHANNELS[kind]
            random = np.random.default_rng((zlib.crc32(case.name.encode()), number))
            made = factor * scipy.ndimage.gaussian_filter(values, blur)
            made += (noise * values.std() * random.standard_normal(values.shape)).astype(np.float32)
            write_volume(Volume(made, image.grid), root / "images" / f"{case.name}_{number}{kind}.nii.gz")
    return open_dataset(root)


def pieces(cases: Sequence[Case], root: Path) -> Dataset:
    """A data set of the pieces of these cases that hold enough of a lesion."""
    size = (SIDE,) * 3
    for case in cases:
        label = case.read_label()
        for origin in product(*(range(0, length - SIDE // 2, SIDE) for length in label.array.shape)):
            part = cut(label, origin, size)
            if np.count_nonzero(part.array) >= LEAST:
                name = "-".join([case.name, *map(str, origin)])
                write_volume(part, root / "labels" / f"{name}.nii.gz")
                for number, image in enumerate(case.read_images()):
                    write_volume(cut(image, origin, size), root / "images" / f"{name}_{number}.nii.gz")
    return open_dataset(root)


def draw(data: Dataset, count: int, number: int) -> Split:
    """So many cases to train on, and those of the inner split that are judged, the same for every draw."""
    if data.root.name == BRAINS:
        names = [case.name for case in data.cases if case.name.startswith(TRAINED_BRAIN)]
        chosen = np.random.default_rng((number, count)).permutation(names)[:count]
        return Split(
            tuple(sorted(map(str, chosen))),
            tuple(case.name for case in data.cases if case.name not in chosen),
        )
    published = data.root / "splits_5fold.json"
    fold = (read_splits(published) if published.exists() else make_splits(data.cases, 5, 0))[0]
    inner = inner_split(data.select(fold.train), SHARE, MINIMUM, 0)
    order = np.random.default_rng((number, count)).permutation(len(inner.train))
    chosen = tuple(sorted(inner.train[i] for i in order[:count]))
    return Split(chosen, inner.val[:JUDGED])


def scores(
    model: Model, data: Dataset, windows: Mapping[str, Sequence[Sequence[int]]] | None, names: tuple[str, ...]
) -> dict[float, dict[str, float]]:
    """By threshold and case the mean Dice over labels and, of nodules, windows."""
    values = model.plan.label_values
    found: dict[float, dict[str, float]] = defaultdict(dict)
    for case in data.select(names):
        images, label = case.read_images(), case.read_label()
        parts = [(images, label)]
        if windows is not None:
            parts = [
                ([cut(image, origin) for image in images], cut(label, origin))
                for origin in windows[case.name]
            ]
        by_part = [_scores(model, *part, values) for part in parts]
        for threshold in THRESHOLDS:
            found[threshold][case.name] = float(np.mean([each[threshold] for each in by_part]))
    return found


def _scores(
    model: Model, images: Sequence[Volume], label: Volume, values: Sequence[int]
) -> dict[float, float]:
    prediction = segment(model, images, Settings(runtime="torch", precision="float32"))
    # The label map is that of the lowest threshold: it says which label a voxel has if it is foreground.
    found = {}
    for threshold in THRESHOLDS:
        inside = prediction.probability >= threshold
        masks = [inside] if len(values) == 1 else [inside & (prediction.mask == v) for v in values]
        found[threshold] = float(
            np.mean([dice(label.array == v, mask) for v, mask in zip(values, masks, strict=True)])
        )
    return found


def table(results: Path, network: str | None = None) -> str:
    """The results, or those of one network, as Markdown: a line per data set, budget and start, its draws pooled.

    The difference to random weights is paired by draw and case, with a 95 % bootstrap interval over cases; a start with
    fewer draws is held against random weights in those draws alone.
    """
    groups: dict[tuple[str, int, int], dict[str, dict[int, dict[str, Any]]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for path in sorted(results.glob("*-draw*.json")):
        row = read_json(path)
        name = row.get("network", "dense")
        if network not in (None, name):
            continue
        data = ", ".join([row["dataset"], *([] if name == "dense" else [name]), *row.get("channels", [])])
        key = data, len(row["train"]), row["steps"]
        groups[key][row["start"] or RANDOM][row["seed"]] = row
    lines = [
        "| data | training cases | steps | start | draws | Dice | less random |",
        "|---" * 7 + "|",
    ]
    for key, starts in groups.items():
        for start, rows in sorted(starts.items(), key=lambda item: (item[0] != RANDOM, item[0])):
            mean = np.mean([list(row["cases"].values()) for row in rows.values()])
            less = "" if start == RANDOM else difference(rows, starts.get(RANDOM, {}))
            draws = ", ".join(str(draw) for draw in sorted(rows))
            lines.append(f"| {' | '.join(map(str, key))} | {start} | {draws} | {mean:.3f} | {less} |")
    return "\n".join(lines)


def difference(rows: Mapping[int, Mapping[str, Any]], others: Mapping[int, Mapping[str, Any]]) -> str:
    """Mean paired difference over the draws that both have, and its interval; empty without one."""
    both = sorted(set(rows) & set(others))
    if not both:
        return ""
    cases = rows[both[0]]["cases"]
    found = np.array(
        [
            np.mean([rows[draw]["cases"][case] - others[draw]["cases"][case] for draw in both])
            for case in cases
        ]
    )
    low, high = bootstrap_interval(found)
    return f"{found.mean():+.3f} ({low:+.3f} to {high:+.3f})"


if __name__ == "__main__":
    main()
