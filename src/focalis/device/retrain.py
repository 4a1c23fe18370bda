"""The child process that trains a model on with accepted corrections: `python -m focalis.device.retrain`.

It yields the processor to all else. Whatever is written lies in the job's folder, and a later child goes on with it.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focalis.children import requests, silence_parsers, take_over_output
from focalis.device.exporting import UNNAMED, export
from focalis.errors import DataError, FocalisError
from focalis.files import write_text

if TYPE_CHECKING:
    from focalis.model import Model
    from focalis.planning import Plan

HELD_OUT = 1 / 3
FIGURES = ("dice_with_lesion", "lesion_f1", "false_positives_per_scan")
DATA, RUN, MODEL = "data", "run", "model.safetensors"


@dataclass(frozen=True)
class RetrainJob:
    """What to do.

    Attributes:
        folder: where to work.
        studies: see `focalis.device.exporting.export`.
        model: the file of the model to start from.
        minutes: of training.
        memory_gb, threads: what the training may take.
    """

    folder: str
    studies: Sequence[dict[str, Any]]
    model: str
    minutes: float
    memory_gb: float
    threads: int


def is_held_out(patient: str) -> bool:
    """Whether a patient's corrections are never trained on, in this retraining or any later one."""
    return int(hashlib.sha256(f"held out {patient}".encode()).hexdigest(), 16) % 2**32 < HELD_OUT * 2**32


def plan_of_successor(plan: Plan) -> Plan:
    """The plan of the model that is trained on from one of this plan, with corrections.

    Its channel and labels, regions and ignored value are those of the data set that `export` writes for the plan. That
    has one mask per case, whoever drew those that the model learned from.
    """
    if plan.readers == "labels":
        return plan
    reasons = plan.reasons | {"readers": "a correction is one mask"}
    return plan.model_copy(update={"readers": "labels", "reasons": reasons})


def retrain(job: RetrainJob, tell: Callable[[str], None]) -> dict[str, Any]:
    """Export the corrections, train on those of some patients, and judge both models on those of the others.

    Args:
        job: what to do.
        tell: called with the name of each state that begins.

    Returns:
        "train" and "held_out": how many cases and patients; "figures": of `FIGURES` the "old" and the "new" model's and
        their "difference", new minus old, each with value, low, high and cases; "notes": what else has to be known.

    Raises:
        FocalisError: a file cannot be read or written, there is nothing to train or to judge on, or nothing was
            learned.
    """
    from focalis.dataset import open_dataset
    from focalis.evaluation import Evaluation
    from focalis.evaluation.paired import figures_of, paired_differences
    from focalis.model import load_model, open_model, save_model
    from focalis.planning import write_plan
    from focalis.workflows.ensemble import ensemble
    from focalis.workflows.evaluate import evaluate
    from focalis.workflows.fit import fit
    from focalis.workflows.model_record import aim_of
    from focalis.workflows.predict import predict

    folder, old = Path(job.folder), Path(job.model)
    data, run = folder / DATA, folder / RUN
    model = open_model(old)
    plan, aim = plan_of_successor(model.plan), aim_of(model)
    tell("exporting")
    if not data.is_dir():
        export(job.studies, str(data), plan)
    patients = _patients(data)
    held_out = sorted(case for case, patient in patients.items() if is_held_out(patient))
    train = sorted(set(patients) - set(held_out))
    if not train or not held_out:
        raise DataError(
            f"of {len(set(patients.values()))} patients with corrections {len(held_out)} cases are held out and "
            f"{len(train)} are left to train; review studies of more patients"
        )
    write_text(folder / "splits.json", json.dumps([{"train": train, "val": held_out}]) + "\n")
    write_plan(plan, folder / "plan.yaml")
    tell("training")
    count = len(model.members)
    runs = [run] if count == 1 else [run / f"member_{number}" for number in range(count)]
    for number, each in enumerate(runs):
        start = old if count == 1 else folder / f"start_{number}.safetensors"
        if count > 1:
            save_model(_member(load_model(old), number), start)
        made = fit(
            data,
            each,
            minutes=job.minutes / count,
            fold=0,
            splits=folder / "splits.json",
            plan=folder / "plan.yaml",
            aim=aim,
            start=str(start),
            seed=number,
            resume=each.is_dir(),
            memory_gb=job.memory_gb,
            threads=job.threads,
        )
        if made.alert or not made.learned:
            raise DataError(made.alert or "nothing was learned; review more studies")
    if count > 1:
        save_model(ensemble([load_model(each / MODEL) for each in runs]), run / MODEL)
    tell("judging")
    truth = folder / "held_out"
    for part in ("images", "labels"):
        shutil.rmtree(truth / part, ignore_errors=True)
        (truth / part).mkdir(parents=True)
    for case in open_dataset(data).select(held_out):
        assert isinstance(case.label, Path)
        os.link(case.images[0], truth / "images" / f"{case.name}_0000.nii.gz")
        os.link(case.label, truth / "labels" / f"{case.name}.nii.gz")
    shutil.copyfile(data / "dataset.json", truth / "dataset.json")
    names = {case: patients[case] for case in held_out}

    def judged(name: str, model: Path) -> Evaluation:
        shutil.rmtree(folder / name, ignore_errors=True)
        predict(model, [truth / "images"], folder / name, memory_gb=job.memory_gb, threads=job.threads)
        return evaluate(folder / name, truth / "labels", label_names=plan.labels, patients=names)

    before, after = judged("old", old), judged("new", run / MODEL)
    figures = {
        "old": figures_of([before.scores], names),
        "new": figures_of([after.scores], names),
        "difference": paired_differences([after.scores], [before.scores], names),
    }
    return {
        "train": {"cases": len(train), "patients": len({patients[case] for case in train})},
        "held_out": {"cases": len(held_out), "patients": len(set(names.values()))},
        "figures": {
            figure: {which: asdict(found[figure]) for which, found in figures.items()} for figure in FIGURES
        },
        "notes": [
            *(_seen(which, each.seen) for which, each in (("old", before), ("new", after)) if each.seen),
            *_unnamed(patients.values()),
            *_unpromised(model.operating_point.promise, aim),
            *_smaller_batch(plan, made.plan),
        ],
    }


def _member(model: Model, number: int) -> Model:
    """One network of an ensemble, as a model."""
    said: Any = model.provenance.get("members", ())
    provenance = said[number] if number < len(said) else model.provenance
    return replace(model, members=(model.members[number],), provenance=provenance, eight_bit=None)


def _patients(data: Path) -> dict[str, str]:
    with (data / "cases.csv").open(encoding="utf-8", newline="") as table:
        return {row["case"]: row["patient"] for row in csv.DictReader(table)}


def _seen(which: str, seen: Mapping[str, Any]) -> str:
    return f"the {which} model was made with {len(seen)} of the held-out cases, which flatters its figures"


def _unnamed(patients: Iterable[str]) -> list[str]:
    count = len({each for each in patients if each.startswith(UNNAMED)})
    said = "a study without a Patient ID counts as a patient; if one person has several, the new figures are flattered"
    return [f"{said} ({count} such)"] if count else []


def _unpromised(promise: str, aim: str) -> list[str]:
    """That a promise is not made anew: the cases that choose the new operating point may have trained the old model."""
    if not promise or promise.startswith("none"):
        return []
    return [
        f"the old model promises {promise}. The new one promises nothing: few cases choose its operating point, and "
        f"the old model may have learned from them. It was chosen by the aim {aim!r}. For a promise export the "
        "corrections, and run focalis fit --promise"
    ]


def _smaller_batch(plan: Plan, path: Path) -> list[str]:
    """That the retraining's memory held fewer patches than the model was trained with."""
    from focalis.planning import read_plan

    batch = read_plan(path).batch
    return [
        f"trained with {batch} patches per step instead of {plan.batch}: retrain.memory_gb holds no more"
    ] * (batch < plan.batch)


def main() -> None:
    """Do the job that standard input describes."""
    answer = take_over_output()
    silence_parsers()
    job = RetrainJob(**next(requests()))
    os.nice(19)
    try:
        answer({"judged": retrain(job, lambda state: answer({"state": state}))})
    except FocalisError as error:
        answer({"error": str(error)})
    except OSError as error:
        answer(
            {"error": f"{error.filename or job.folder}: {error.strerror}; check the disk and its free space"}
        )


if __name__ == "__main__":
    main()
