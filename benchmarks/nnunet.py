"""The real nnU-Net within a wall-clock budget: trained from its package on a fold, scored as in accuracy.py.

    python benchmarks/nnunet.py lidc_nodules --fold 0 --minutes 12
    python benchmarks/nnunet.py msd_hippocampus --fold 0 --minutes 12
    python benchmarks/nnunet.py table                 what is there beside the rows of accuracy.py, as Markdown

nnU-Net lives in a virtual environment of its own, which the script makes with pip (several GB). The environment
variable FOCALIS_DATA names the folder of the data sets. A result that is there already is not made again, and a stage
that is finished (conversion, planning, training, prediction) is not repeated.

What is nnU-Net's: planning and preprocessing, network, loss, augmentation, sampling, optimiser, sliding window. What
the budget forces: its 250,000 iterations are replaced by as many as fit into the time, with its polynomial decay of the
learning rate over the time instead of over the epochs, and without its validation iterations, on which nothing depends.
Planning and preprocessing are not counted, and neither is preparation for our own networks. Only the fold's training
cases are in its data set, so nothing is planned from a held-out one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

from accuracy import HERE, cut, score_windows, summary, values_of, windows_of
from evidence_figures import difference_of, mean_of
from evidence_tables import table, text
from tables import put

from focalis.dataset import open_dataset, read_splits
from focalis.evaluation import evaluate_case
from focalis.volume import Volume, read_volume, write_volume
from focalis.workflows.record import provenance, read_json, write_json

PACKAGES = ("torch==2.14.1", "torchvision==0.29.1", "nnunetv2==2.8.1")
INSIDE = HERE / "nnunet_inside.py"
NUMBER, NAME = 501, "Dataset501_Focalis"
LABELS = {"lidc_nodules": {1: "nodule"}, "msd_hippocampus": {1: "anterior", 2: "posterior"}}
CHANNEL = {"lidc_nodules": "CT", "msd_hippocampus": "MRI"}
"""By the channel's name nnU-Net decides how to normalise."""
WATCHED = 5
"""Training cases that its splits file names as validation, because it must name some."""
BEGIN, END = "<!-- nnU-Net: made by benchmarks/nnunet.py -->", "<!-- /nnU-Net -->"
HEAD = "training | minutes | steps | Dice | nnU-Net less it"


def main() -> None:
    """Parse, convert, train, predict, score, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", choices=[*sorted(LABELS), "table"])
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=90.0, help="wall-clock time of the training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the work folder goes")
    parser.add_argument("--environment", type=Path, help="nnU-Net's environment; RUNS/nnunet-environment")
    options = parser.parse_args()
    if options.dataset == "table":
        put(BEGIN, END, beside())
        return
    if "FOCALIS_DATA" not in os.environ:
        sys.exit("FOCALIS_DATA is not set: name the folder that holds the data sets")
    data = Path(os.environ["FOCALIS_DATA"]) / options.dataset
    name = f"{options.dataset}-{options.minutes:g}min-fold{options.fold}-seed{options.seed}"
    target = HERE / "results" / "nnunet" / f"{name}.json"
    if target.exists():
        print(f"{target}: is there, nothing to do")
        return
    began = provenance()
    python = environment(options.environment or options.runs / "nnunet-environment")
    work = (options.runs / f"nnunet-{name}").absolute()
    split = read_splits(data / "splits_5fold.json")[options.fold]
    convert(data, options.dataset, split.train, work)
    jobs = write_inputs(data, options.dataset, split.val, work)
    plan(python, work, split.train)
    threads = str(options.threads)
    task = {
        "work": str(work),
        "number": NUMBER,
        "minutes": options.minutes,
        "seed": options.seed,
        "threads": options.threads,
        "jobs": jobs,
    }
    write_json(work / "task.json", task)
    for stage in ("train", "predict"):  # prediction takes as many threads as nnU-Net may have processes
        call([str(python), str(INSIDE), stage, str(work / "task.json")], work, nnUNet_def_n_proc=threads)
    row = {
        **began,
        "dataset": options.dataset,
        "minutes": options.minutes,
        "fold": options.fold,
        "seed": options.seed,
        "threads": options.threads,
        "nnunet": list(PACKAGES),
        **read_json(work / "trained.json"),
        **read_json(work / "predicted.json"),
        **scored(data, options.dataset, split.val, work),
    }
    write_json(target, row)
    print(f"{target}: {summary(row['scores'])}")


def beside() -> list[str]:
    """A table for each row that is there: it, and what accuracy.py trained on the same fold."""
    lines = []
    for path in sorted((HERE / "results" / "nnunet").glob("*.json")):
        row = read_json(path)
        data, fold, seed = (row[name] for name in ("dataset", "fold", "seed"))
        for figure in (
            name for name in row["scores"] if name.startswith("dice label") and "mirrored" not in name
        ):
            rows = [_cells("**nnU-Net 2.8.1, its package**", row, row["iterations"], figure, None)]
            for other in sorted((HERE / "results" / "accuracy").glob(f"{data}-*-fold{fold}-seed{seed}.json")):
                ours = read_json(other)
                title = other.stem.removeprefix(f"{data}-").removesuffix(f"-fold{fold}-seed{seed}")
                rows.append(_cells(title, ours, ours["steps"], figure, row["scores"][figure]))
            said = f"{data}, fold {fold}, nnU-Net in {row['minutes']:g} minutes"
            lines += [f"{said}, {figure}, {len(row['scores'][figure])} held-out cases:", ""]
            lines += [*table(HEAD, rows), ""]
    return ["", *lines]


def _cells(
    title: str, row: dict[str, Any], steps: int, figure: str, nnunet: dict[str, float] | None
) -> list[str]:
    found = row["scores"][figure]
    apart = "" if nnunet is None else text(difference_of(nnunet, found), sign=True)
    return [title, f"{row['training_seconds'] / 60:.0f}", str(steps), text(mean_of(found)), apart]


def environment(folder: Path) -> Path:
    """The interpreter of nnU-Net's environment, which is made if it is not there."""
    python = folder.absolute() / ("Scripts" if os.name == "nt" else "bin") / "python"
    ready = folder / "ready"
    if not ready.exists() or ready.read_text(encoding="utf-8") != "\n".join(PACKAGES):
        venv.create(folder, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        ready.write_text("\n".join(PACKAGES), encoding="utf-8")
    return python


def convert(data: Path, dataset: str, train: tuple[str, ...], work: Path) -> None:
    """The fold's training cases as nnU-Net's raw data set."""
    raw = work / "raw" / NAME
    if (raw / "dataset.json").exists():
        return
    cases = {case.name: case for case in open_dataset(data).cases}
    for name in train:
        write_volume(cases[name].read_images()[0], raw / "imagesTr" / f"{name}_0000.nii.gz")
        write_volume(cases[name].read_label(), raw / "labelsTr" / f"{name}.nii.gz")
    labels = {"background": 0} | {title: value for value, title in LABELS[dataset].items()}
    content = {
        "channel_names": {"0": CHANNEL[dataset]},
        "labels": labels,
        "numTraining": len(train),
        "file_ending": ".nii.gz",
    }
    write_json(raw / "dataset.json", content)


def plan(python: Path, work: Path, train: tuple[str, ...]) -> None:
    """nnU-Net's own planning and preprocessing; then the splits file that makes all cases train."""
    splits = work / "preprocessed" / NAME / "splits_final.json"
    if splits.exists():
        return
    entry = "from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry as run"
    options = ["-d", str(NUMBER), "-c", "3d_fullres", "-np", "1", "-npfp", "1", "--verify_dataset_integrity"]
    call([str(python), "-c", f"{entry}; run()", *options], work)
    write_json(splits, [{"train": list(train), "val": list(train[:WATCHED])}])


def write_inputs(data: Path, dataset: str, val: tuple[str, ...], work: Path) -> list[dict[str, str]]:
    """The held-out images, or their windows as images of their own; what to read and where the answers go."""
    jobs = []
    windows = windows_of(data) if dataset == "lidc_nodules" else {}
    for case in val:
        image = read_volume(data / "images" / f"{case}.nii.gz")
        parts = [cut(image, origin) for origin in windows[case]] if windows else [image]
        for number, part in enumerate(parts):
            path = work / "inputs" / f"{case}_{number}.nii.gz"
            if not path.exists():
                write_volume(part, path)
            jobs.append({"image": str(path), "plain": str(answer(work, case, number, False))})
            jobs[-1]["mirrored"] = str(answer(work, case, number, True))
    return jobs


def answer(work: Path, case: str, number: int, mirror: bool) -> Path:
    """Where the prediction of a case's window (or of the whole case, number 0) lies."""
    return work / "predictions" / ("mirrored" if mirror else "plain") / f"{case}_{number}.nii.gz"


def scored(data: Path, dataset: str, val: tuple[str, ...], work: Path) -> dict[str, Any]:
    """The Dice by the protocol of benchmarks/accuracy.py, and every figure per window (or case) without mirroring."""
    windows = windows_of(data) if dataset == "lidc_nodules" else {}
    truths = {case: read_volume(data / "labels" / f"{case}.nii.gz") for case in val}
    repeats: list[list[list[Any]]] = []
    dice: dict[str, dict[str, float]] = {}
    for number in range(2 if windows else 1):
        rows = []
        for case, truth in truths.items():
            for mirror in (False, True):
                true = cut(truth, windows[case][number]) if windows else truth
                found = read_volume(answer(work, case, number, mirror))
                scores = evaluate_case(true, Volume(found.array, true.grid), LABELS[dataset], case=case)
                if not mirror:
                    rows += [values_of(score) for score in scores]
                if not windows:
                    for score in scores:
                        key = f"dice label {score.label}{' mirrored' if mirror else ''}"
                        dice.setdefault(key, {})[case] = score.dice
        repeats.append(rows)
    if windows:
        dice = score_windows(
            data,
            list(val),
            lambda case, number, mirror: read_volume(answer(work, case, number, mirror)).array,
        )
    return {"scores": dice, "repeats": repeats}


def call(command: list[str], work: Path, **more: str) -> None:
    """Run a command with nnU-Net's folders and more variables set; stop here if it fails."""
    folders = {f"nnUNet_{kind}": str(work / kind) for kind in ("raw", "preprocessed", "results")}
    # One worker prepares the patches: more would take the cores from the training itself.
    settings = {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f"}
    if subprocess.run(command, env={**os.environ, **folders, **settings, **more}, check=False).returncode:
        sys.exit(f"nnU-Net failed: {json.dumps(command[:3])}")


if __name__ == "__main__":
    main()
