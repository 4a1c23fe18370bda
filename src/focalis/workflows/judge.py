"""Predict the cases that a run is judged on, score them, and write the run's report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from focalis.dataset import Case, Dataset
from focalis.display import counted
from focalis.errors import DataError
from focalis.evaluation import (
    CaseLesions,
    Collapse,
    Evaluation,
    Score,
    Summary,
    by_channels,
    channels_line,
    cut,
    evaluate_case,
    find_collapse,
    judge_lesions,
    limit_line,
    nothing_to_find,
    partly_judged,
    views,
)
from focalis.files import KnownFiles
from focalis.lesions import Candidates, Lesion, OperatingPoint, find_candidates, measure_lesions, temper
from focalis.model import Model, save_model
from focalis.planning import SCRATCH, SHAPES
from focalis.prediction import PROGRAM_BYTES, Segmentation, Settings, engines_for, require_memory, segment
from focalis.report import write_fit_report
from focalis.training import KNOWN, LEAST_GAIN, read_metrics, stood_still
from focalis.volume import Absent, Volume, read_volume, write_volume
from focalis.workflows.evaluate import write_evaluation
from focalis.workflows.lesion_tables import boundary_counts, write_lesions
from focalis.workflows.pictures import draw_cases
from focalis.workflows.record import data_hash, peak_memory_gb, read_json, write_json
from focalis.workflows.run import MODEL, Run, Task
from focalis.workflows.training_cases import TRAINED, Seen, SeenCases, seen_line

FEW_JUDGED = 3
FEW_LESIONS, LOSS_FELL_TO = 5, 2 / 3
"""With fewer lesions in the inner split, a training whose loss fell to this share of the first may find one less than
its start there by accident."""
JUDGING = "judging.lock"
ADVICE = (
    "train longer (--minutes), with another --seed or --loss, or with a lower training.learning_rate in the plan, and "
    "look at the labels with `focalis check`"
)


@dataclass(frozen=True)
class Judgement:
    """What a run's judged cases say.

    Attributes:
        scores: one per case and label.
        collapse: whether the predictions found nothing, or mark everything; None if neither.
        learned: whether anything was learned: if not, no lesion of the inner split was found either.
        caveats: what else has to be known before any figure, a line each.
        squeezed: the cases that were predicted in less memory than `predict` takes by default.
        cuts: of a fold whose cases choose an ensemble's operating point, each case's lesions at every threshold, see
            `focalis.evaluation.cut`.
    """

    scores: tuple[Score, ...]
    lesions: tuple[CaseLesions, ...]
    summary: Summary
    collapse: Collapse | None = None
    learned: bool = True
    caveats: tuple[str, ...] = ()
    squeezed: tuple[str, ...] = ()
    cuts: tuple[tuple[Candidates, ...], ...] = ()

    @property
    def alert(self) -> str:
        """What has to be said first, see `alert_of`."""
        return alert_of(self.collapse, self.learned)


def alert_of(collapse: Collapse | None, learned: bool) -> str:
    """What has to be said before any figure, with what to do; empty if nothing has."""
    if collapse is None:
        return ""
    what = "the network did not learn what it should" if learned else "nothing was learned"
    return f"{what}: {collapse.line}; {ADVICE}"


def judge(run: Run, model: Model, judged_on: str) -> Judgement:
    """Predict the run's judged cases from their files, score them on their own grids, write tables and report.

    Every lesion at the threshold is a candidate of the FROC curve, those too that the operating point drops.
    """
    folder = run.task.home / "predictions"
    folder.mkdir(exist_ok=True)
    scores: list[Score] = []
    lesions: list[CaseLesions] = []
    cuts = []
    seconds = []
    document = {
        **run.segmenting.point_of(model).numbers(),
        "model_sha256": model.identity.weights_sha256,
        "mirrored": run.segmenting.mirror,
        "settings": run.segmenting.record(),
    }
    engines_for(model, run.segmenting)  # the first case's time is not that of converting the network
    seen_cases, seen = SeenCases.of(model), dict[str, Seen]()
    untrained = run.untrained
    trained = {value: name for value, name in run.task.plan.labels.items() if value not in untrained}
    ways: list[dict[str, Any]] = []
    squeezed: list[str] = []
    for case in run.judged:
        volumes = case.read_images()
        if case.label is None:
            raise DataError.at(
                case.name, "has no label file, so it cannot be judged", "add one or leave it out of the split"
            )
        with _room(run, model, volumes) as settings:
            started = time.monotonic()
            found = segment(model, volumes, settings)
            seconds.append(time.monotonic() - started)
        if settings != run.segmenting:
            squeezed.append(case.name)
        ways.append(found.way())
        truth, label = case.read_label(), Volume(found.mask, found.grid)
        write_volume(label, folder / f"{case.name}.nii.gz")
        measured = measure_lesions(found.mask, found.grid, trained, found.probability)
        known = seen_cases.find(case.name, volumes)
        if known and (known.role == TRAINED or run.task.split.val):
            seen[case.name] = known  # a copy of a case that the model has seen lies among the judged ones
        said = document | {"settings": settings.record()} | ways[-1] | seen_cases.document(known)
        write_lesions(folder, case.name, measured, said)
        names = case.drawn_of(trained)
        parts = []
        maps = truth, label, Volume(found.candidates, found.grid)
        for wanted, (true, mask, raw_mask) in views(
            names, run.task.plan.regions, run.task.plan.ignore, *maps
        ):
            scores += evaluate_case(true, mask, wanted, case=case.name, ignore=run.task.plan.ignore)
            view = replace(found, mask=mask.array, candidates=raw_mask.array)
            if run.task.plan.regions:
                measured = measure_lesions(mask.array, found.grid, wanted, found.probability)
            parts.append(_lesions(model, wanted, case, true, measured, view))
        lesions.append(_joined(parts))
        if run.task.pooled or run.task.promise:  # older tasks on Slurm say the latter alone
            there, spacing = _judged(truth, run.task.plan.ignore), truth.grid.spacing_zyx_mm
            raw = temper(found.probability, 1 / found.point.temperature) * there
            volume = truth.grid.voxel_volume_mm3
            cuts.append(cut(case.name, (truth.array > 0) & there, raw, volume, spacing_zyx_mm=spacing))
    record = read_json(run.task.home / "record.json")
    record["seconds_per_predicted_case"] = round(sum(seconds) / len(seconds), 3)
    record["peak_memory_gb"] = max(record["peak_memory_gb"] or 0, peak_memory_gb() or 0) or None
    record["judged_on"] = judged_on
    record["model_sha256"] = document["model_sha256"]
    record["judged_with"] = {
        **{name: value for name, value in document.items() if name != "model_sha256"},
        "runtime": ways[-1]["runtime"],
        "tiles": max(way["tiles"] for way in ways),
        "blended": sum(way["blended"] for way in ways),
        "float32_because": next(filter(None, (way["float32_because"] for way in ways)), ""),
        "within_less": {"memory_gb": run.task.memory_gb, "cases": squeezed} if squeezed else None,
    }
    metrics = read_metrics(run.task.home)
    collapse, learned, still = verdict(scores, record, metrics, model.operating_point, run.task.plan.start)
    record["by_channels"] = _by_channels(run, model, trained, scores)
    record["collapse"] = None if collapse is None else collapse.line
    record["learned"] = learned
    write_json(run.task.home / "record.json", record)
    if model.provenance.get("collapse") != record["collapse"]:
        noted = {**model.provenance, "collapse": record["collapse"], "judged_on": judged_on}
        save_model(replace(model, provenance=noted), run.task.home / MODEL)
    predictions = {case.name: folder for case in run.judged}
    again = (f"the training was restarted: {record['restarted']}",) if record.get("restarted") else ()
    told = (
        limit_line(model.operating_point.temperature),
        channels_line(record["by_channels"]),
        seen_line(seen, len(run.judged), "the figures on them"),
        still if run.task.plan.start != SCRATCH and (collapse is None or collapse.line != still) else "",
        _changed_line(run),
    )
    caveats = (
        *again,
        *run.task.caveats,
        *caveats_of_cases(run.task, scores, len(squeezed), len(run.judged)),
        *_caveats(run),
        *filter(None, told),
    )
    alerts = [alert_of(collapse, learned), *caveats]
    summary = write_judgement(
        run.task.home,
        run.data,
        scores,
        lesions,
        predictions,
        judged_on,
        metrics,
        record,
        model,
        [line for line in alerts if line],
    )
    return Judgement(
        tuple(scores), tuple(lesions), summary, collapse, learned, caveats, tuple(squeezed), tuple(cuts)
    )


@contextmanager
def _room(run: Run, model: Model, volumes: Sequence[Volume]) -> Iterator[Settings]:
    """How a case is predicted: as `predict` does by default; in the memory of the whole run if it does not hold that.

    What is more than this training's share of the memory waits until no other training of the run predicts so.
    """
    settings, share = run.segmenting, run.task.plan.memory_budget_gb
    need = (require_memory(model, volumes, settings) + PROGRAM_BYTES) / 1e9
    if need > run.task.memory_gb:
        settings = replace(settings, memory_gb=run.task.memory_gb)
    alone = run.task.sharing > 1 and need > share
    with FileLock(run.task.prepared / JUDGING) if alone else nullcontext():
        yield settings


def caveats_of_cases(task: Task, scores: Sequence[Score], squeezed: int, judged: int) -> list[str]:
    """What judged cases cannot tell, a line each; of folds, their cases are judged together.

    Args:
        scores: of the cases.
        squeezed: how many of them were predicted in other tiles than `predict` makes.
        judged: how many there are.
    """
    few = smaller = ""
    if judged < FEW_JUDGED and not task.caveats:
        few = f"the figures are those of {counted(judged)}: too few to judge a model by"
    if squeezed:
        smaller = (
            f"the run's memory does not hold what `focalis predict` takes by default for {squeezed} of "
            f"{counted(judged)}: the figures come from smaller tiles; `--memory-gb {task.memory_gb:g}` gives the same "
            "masks"
        )
    return [line for line in (few, nothing_to_find(scores), partly_judged(scores), smaller) if line]


def _changed_line(run: Run) -> str:
    """That the data set is no longer the one that was checked and trained on; empty if it is."""
    known = KnownFiles(run.task.prepared / KNOWN)
    if data_hash(run.data.cases, known.sha256_of) == run.task.record["data_sha256"]:
        return ""
    return "files of the data set changed after the training began: the figures are of what they hold now"


def verdict(
    scores: Sequence[Score],
    record: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    point: OperatingPoint,
    start: str,
) -> tuple[Collapse | None, bool, str]:
    """What went wrong with the predictions, whether anything was learned, and what `_still_line` says.

    Args:
        record: of the run, with what its start marks.
        metrics: the rows of the training.
        start: the plan's.
    """
    collapse, still = find_collapse(scores), _still_line(record, metrics[-1], point)
    no_better = bool(still) and _no_better(record, point) and not _too_few_to_tell(record, metrics, point)
    if no_better and collapse is None and start == SHAPES:
        collapse = Collapse("as before", still)
    learned = collapse is None or not (
        collapse.kind == "everything"
        or (collapse.total and not point.found)
        or (collapse.kind != "a label" and no_better)
    )
    return collapse, learned, still


def _still_line(record: Mapping[str, Any], after: Mapping[str, Any], point: OperatingPoint) -> str:
    """That at one half it marks the watched lesions no better than its start; empty if it does, or that is unknown."""
    before = record.get("before_training") or {}
    if not stood_still(before, after):
        return ""
    cases = counted(before["cases"]) if "cases" in before else "cases"
    line = (
        f"the Dice at one half is {after['val_dice_with_lesion']:.3f}, and was {before['val_dice_with_lesion']:.3f} "
        f"before the training (mean over those with a lesion of {cases} of the inner split)"
    )
    at_start = record.get("start_at_its_point")
    if not at_start or point.found is None:
        return line
    return (
        f"{line}; at its operating point the model finds {point.found} of the {point.lesions} lesions there, "
        f"the start {at_start['found']} at its own"
    )


def _no_better(record: Mapping[str, Any], point: OperatingPoint) -> bool:
    """Whether a training finds nothing at its operating point, or is no better there than its start at its own; False
    if that is not known."""
    at_start = record.get("start_at_its_point")
    if not point.found or not at_start:
        return point.found == 0
    return bool(point.found <= at_start["found"] and point.best_dice <= at_start["dice"] + LEAST_GAIN)


def _too_few_to_tell(
    record: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], point: OperatingPoint
) -> bool:
    """Whether the loss fell, and to be no better than the start is a matter of one lesion of a few."""
    first, last = (row.get("loss") or 0.0 for row in (metrics[0], metrics[-1]))
    at_start = (record.get("start_at_its_point") or {}).get("found", 0)
    alike = point.found and point.lesions and point.lesions < FEW_LESIONS and point.found >= at_start - 1
    return bool(alike) and first > 0 and last < LOSS_FELL_TO * first


def _by_channels(
    run: Run, model: Model, names: Mapping[int, str], scores: Sequence[Score]
) -> dict[str, dict[str, Any]]:
    """The judged cases with the channels that they have, and the complete ones without each channel that may miss."""
    plan = run.task.plan
    lacking = {case.name: [plan.channels[place] for place in sorted(case.lacks)] for case in run.judged}
    rows: list[tuple[Sequence[str], Score]] = [(lacking[score.case], score) for score in scores]
    for case in run.judged if plan.channels_may_miss else ():
        volumes, truth = case.read_images(), case.read_label()
        for name in () if case.lacks else plan.channels_may_miss:
            place = plan.channels.index(name)
            without = [*volumes[:place], Absent.on(volumes[0].grid), *volumes[place + 1 :]]
            with _room(run, model, without) as settings:
                found = segment(model, without, settings)
            drawn = case.drawn_of(names)
            mask = Volume(found.mask, found.grid)
            for wanted, (true, said) in views(drawn, plan.regions, plan.ignore, truth, mask):
                found_scores = evaluate_case(true, said, wanted, case=case.name, ignore=plan.ignore)
                rows += [((name,), score) for score in found_scores]
    return by_channels(rows)


def _caveats(run: Run) -> list[str]:
    """What the cases that a run learned from cannot tell, a line each."""
    said = []
    choosing = run.data.select(run.inner.val)
    if all(case.holds is not None and not case.holds for case in choosing):
        said.append(
            f"none of the {len(choosing)} cases of the inner split holds a lesion: the operating point was not chosen "
            "on any"
        )
    said += [
        f"no training case holds label {value} ({name}): what the model marks so means nothing, and its figures are "
        "left out"
        for value, name in run.untrained.items()
    ]
    return said


def _judged(truth: Volume, ignore: int | None) -> NDArray[np.bool_]:
    return np.ones(truth.array.shape, bool) if ignore is None else truth.array != ignore


def _lesions(
    model: Model,
    names: Mapping[int, str],
    case: Case,
    truth: Volume,
    measured: Sequence[Lesion],
    found: Segmentation,
) -> CaseLesions:
    """The reported lesions of a case and what became of them; as candidates, all those at the threshold.

    The probability of the foreground is that of all labels: it says nothing where some were not drawn.
    """
    ignore = model.plan.ignore
    mask = Volume(found.mask, found.grid)
    judged, _ = judge_lesions(case.name, truth, mask, names, known=measured, ignore=ignore)
    there = _judged(truth, ignore)
    candidates = tuple(
        find_candidates(
            (truth.array == value) & there,
            (found.candidates == value) & there,
            found.probability,
            case=case.name,
            voxel_mm3=truth.grid.voxel_volume_mm3,
        )
        for value in sorted(names)
    )
    raw = temper(found.probability, 1 / found.point.temperature)
    counts = boundary_counts(truth, raw, names, ignore) if case.drawn is None else None
    return CaseLesions(judged, candidates, counts, found.point.temperature)


def _joined(parts: Sequence[CaseLesions]) -> CaseLesions:
    """The lesions of all regions of a case; the voxels' probability is that of the outermost."""
    first = parts[0]
    return CaseLesions(
        tuple(each for part in parts for each in part.judged),
        None if first.candidates is None else tuple(each for part in parts for each in part.candidates or ()),
        first.counts,
        first.temperature,
    )


def write_judgement(
    home: Path,
    data: Dataset,
    scores: Sequence[Score],
    lesions: Sequence[CaseLesions],
    predictions: Mapping[str, Path],
    judged_on: str,
    metrics: list[dict[str, Any]],
    record: Mapping[str, Any],
    model: Model | None = None,
    alerts: Sequence[str] = (),
) -> Summary:
    """Write evaluation.json, the tables and report.html; `predictions` maps a case to the folder of its prediction."""
    evaluation = Evaluation.of(scores, patients=data.patients, lesions=lesions, ignore=data.ignore)
    write_evaluation(evaluation, home)
    cases = {case.name: case for case in data.cases}

    def read(name: str) -> tuple[Volume, Volume, Volume]:
        case = cases[name]
        predicted = read_volume(predictions[name] / f"{name}.nii.gz")
        return case.read_first_image(), case.read_label(), predicted

    overlays, pictures = draw_cases(scores, evaluation.lesions, read)
    plan_text = (
        home / "plan.yaml" if (home / "plan.yaml").exists() else home.parent / "plan.yaml"
    ).read_text(encoding="utf-8")
    write_fit_report(
        home / "report.html",
        evaluation,
        plan_text=plan_text,
        metrics=metrics,
        overlays=overlays,
        pictures=pictures,
        record=record,
        split_note=judged_on,
        point=None if model is None else model.operating_point,
        alerts=alerts,
    )
    return evaluation.summary


def held_out_note(fold: int | None, cases: int) -> str:
    """One line that says on which cases figures are taken: those of a fold, or the inner split's if it is None."""
    if fold is not None:
        return f"{cases} held-out cases of fold {fold}, predicted once after every choice was made"
    return (
        f"{counted(cases)} of the inner split, which chose the operating point, so the figures flatter; they did not "
        "train (--then-all adds a model of all cases)"
    )
