"""The demonstration: the main job from data to figures, in a few minutes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from focalis.dataset import (
    Dataset,
    PhantomSettings,
    Split,
    make_splits,
    open_dataset,
    read_splits,
    write_phantoms,
    write_splits,
)
from focalis.errors import UsageError
from focalis.evaluation import Summary
from focalis.files import is_free
from focalis.volume import write_volume
from focalis.workflows.evaluate import evaluate
from focalis.workflows.fit import fit
from focalis.workflows.predict import predict
from focalis.workflows.run import Tell
from focalis.workflows.setup import checked

PHANTOMS = 24
PHANTOM_SETTINGS = PhantomSettings(shape_zyx=(40, 48, 48), foreground_share=0.004, lesions=2)
FOLDS = 4
MARK = ".focalis-demo"
PARTS = ("data", "splits.json", "run", "masks", "truth", "scores")


@dataclass(frozen=True)
class DemoResult:
    """What the demonstration made.

    Attributes:
        data: the data set that it used.
        generated: whether these are phantoms.
        masks: folder of the predicted held-out cases.
        training_report: the HTML report of the training run.
        summary: the figures on the held-out cases.
        alerts: what has to be known before any figure, a line each.
    """

    data: Path
    generated: bool
    model: Path
    masks: Path
    training_report: Path
    report: Path
    summary: Summary
    alerts: tuple[str, ...] = ()


def demo(
    out: Path,
    data: Path | None = None,
    minutes: float = 3.0,
    seed: int = 0,
    progress: Tell | None = None,
) -> DemoResult:
    """Train on a data set with one fold held out, predict that fold, and evaluate the prediction.

    Args:
        out: a folder that is new, empty, or holds an earlier demonstration, which is replaced.
        data: a data set; phantoms are generated if it is None.
        minutes: training time.
        seed: seed of the phantoms and of the training.

    Raises:
        UsageError: `out` holds something else.
    """
    tell = progress or (lambda _stage, _progress: None)
    _claim(out)
    tell("data", None)
    dataset = open_dataset(data) if data else write_phantoms(out / "data", PHANTOMS, PHANTOM_SETTINGS, seed)
    split = _held_out(dataset, seed)
    write_splits([split], out / "splits.json")
    trained = fit(
        dataset.root,
        out / "run",
        minutes=minutes,
        fold=0,
        splits=out / "splits.json",
        seed=seed,
        progress=progress,
    )
    if trained.model is None or trained.report is None:
        raise AssertionError("fit without plan_only makes a model and a report")
    tell("predict", None)
    held_out = dataset.select(split.val)
    predict(trained.model, [path for case in held_out for path in case.images], out / "masks")
    tell("evaluate", None)
    (out / "truth").mkdir()
    for case in held_out:
        if case.label is not None:
            write_volume(case.read_label(), out / "truth" / f"{case.name}.nii.gz")
    evaluation = evaluate(
        out / "masks",
        out / "truth",
        out / "scores",
        images=held_out[0].images[0].parent,
        label_names=dataset.labels or None,
        ignore=dataset.ignore,
    )
    return DemoResult(
        data=dataset.root,
        generated=data is None,
        model=trained.model,
        masks=out / "masks",
        training_report=trained.report,
        report=out / "scores" / "report.html",
        summary=evaluation.summary,
        alerts=tuple(dict.fromkeys([*([trained.alert] if trained.alert else []), *evaluation.alerts])),
    )


def _claim(out: Path) -> None:
    """Make the folder ready, or refuse it; an earlier demonstration in it is removed."""
    if out.exists() and not out.is_dir():
        raise UsageError.at(out, "is a file", "give a folder for the demonstration")
    if not is_free(out) and not (out / MARK).is_file():
        raise UsageError.at(out, "holds other files", "give a new folder for the demonstration")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).write_text(
        "A later `focalis demo` into this folder replaces what is here.\n", encoding="utf-8"
    )
    for name in PARTS:
        part = out / name
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)


def _held_out(dataset: Dataset, seed: int) -> Split:
    """The data set's own first split if it brings one, else one made by patient."""
    brought = sorted(dataset.root.glob("splits*.json"))
    if brought:
        return read_splits(brought[0], [case.name for case in dataset.cases])[0]
    data, _ = checked(dataset)
    return make_splits(data.cases, FOLDS, seed)[0]
