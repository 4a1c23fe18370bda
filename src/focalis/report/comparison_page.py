"""The page of a comparison: networks and losses side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from focalis.files import write_text
from focalis.report.curves import compared_curves_figure
from focalis.report.figure import DARK, LIGHT, Theme
from focalis.report.page import DASH, figures, number, render
from focalis.report.plane import Point, plane_figure
from focalis.report.summary_tables import flat, interval

COLUMNS = (
    ("dice", "Dice", 3),
    ("dice_with_lesion", "Dice, cases with a lesion", 3),
    ("hd95_mm", "HD95, mm", 1),
    ("lesion_f1", "lesion F1", 3),
    ("false_positives_per_scan", "false positives per scan", 2),
)
_UNKNOWN = {"value": None, "low": None, "high": None}
OFF_BUDGET = 0.2
"""A training time that lies further than this share from the one asked for is pointed out."""


@dataclass(frozen=True)
class Cell:
    """A figure ready to print; `credible` says that a difference's interval excludes 0."""

    value: str
    interval: str
    credible: bool = False


def write_comparison_report(
    path: Path,
    content: Mapping[str, Any],
    pictures: Sequence[tuple[str, bytes]],
    metrics: Mapping[tuple[str, str], Sequence[Sequence[Mapping[str, Any]]]] | None = None,
) -> dict[str, bytes]:
    """Write a comparison as one self-contained HTML page.

    Args:
        path: the page; written whole or not at all.
        content: what `compare.json` holds.
        pictures: captions with PNG files, see `contours_figure`.
        metrics: network and loss to the rows of `metrics.jsonl` of each of the row's trainings.

    Returns:
        The planes of accuracy and time, and the learning curves, that the page shows: name to PNG file.

    Raises:
        DataError: if the page cannot be written.
    """
    rows = content["rows"]
    measured = [row for row in rows if row["figures"]]
    labels = list(content["labels"].items()) if len(content["labels"]) > 1 else []
    networks = [row for row in measured if row["loss"] == rows[0]["loss"]]
    times = [("seconds_per_predicted_case", "seconds per predicted case", "dice-prediction-time", 1.0)]
    if content["equal"] == "steps":
        times.append(("training_seconds", "training time in minutes", "dice-training-time", 60.0))
    planes: list[tuple[str, list[bytes]]] = []
    files: dict[str, bytes] = {}
    for key, title, name, unit in times if len(networks) > 1 else []:
        themed = [_plane(networks, rows[0], key, title, unit, theme) for theme in (LIGHT, DARK)]
        planes.append((f"Mean Dice over {title}", themed))
        files[name] = themed[0]
    trainings = [
        (named(row), each) for row in rows for each in (metrics or {}).get((row["network"], row["loss"]), ())
    ]
    curves = [compared_curves_figure(trainings, theme) for theme in (LIGHT, DARK)] if trainings else None
    if curves:
        files["learning-curves"] = curves[0]
    page = render(
        "comparison.html.j2",
        title=f"Comparison on {content['dataset']}",
        content=content,
        lead=lead(content),
        verdict=verdict(rows),
        columns=COLUMNS,
        table=[_line(row, content) for row in rows],
        gpu=any(row["peak_gpu_memory_gb"] for row in rows),
        differences=[
            (
                named(row),
                cells(row["difference_to_first_row"]),
                row["difference_to_first_row"]["dice"]["cases"],
            )
            for row in rows
            if row["difference_to_first_row"]
        ],
        first=named(rows[0]),
        by_label=[
            (name, [(named(row), cells(row["figures"][value])) for row in measured]) for value, name in labels
        ],
        pictures=figures(pictures),
        planes=planes,
        curves=curves,
        runs=[(named(row), run) for row in rows for run in row["runs"]],
        several_seeds=len(content["seeds"]) > 1,
        seeds=[(named(row), list(row["dice_by_seed"].items())) for row in rows],
        shared=flat(content["shared"]),
        record=flat(
            {
                key: content.get(key)
                for key in (
                    "command",
                    "started",
                    "finished",
                    "revision",
                    "python",
                    "machine",
                    "data_sha256",
                    "packages",
                )
            }
        ),
        notes=_notes(content),
    )
    write_text(path, page)
    return files


def lead(content: Mapping[str, Any]) -> str:
    """The data behind the figures and the budget of each row, in one paragraph."""
    folds = content["folds"]
    where = f"fold {folds[0]}" if len(folds) == 1 else f"{len(folds)} folds"
    equal = (
        f"the same number of steps ({content['steps']:,})"
        if content["equal"] == "steps"
        else f"the same training time ({content['minutes']:g} min per run)"
    )
    seeds = content["seeds"]
    repeated = "" if len(seeds) == 1 else f" Every row was trained with {len(seeds)} seeds."
    return (
        f"{content['held_out_cases']} held-out cases of {where}. Every row had the same split, preparation, patches "
        f"and augmentation, and {equal}.{repeated}"
    )


def verdict(rows: Sequence[Mapping[str, Any]]) -> str:
    """The row with the highest mean Dice, and which rows differ clearly from the first one; empty without figures."""
    measured = [row for row in rows if row["figures"]]
    if not measured:
        return ""

    def dice(row: Mapping[str, Any]) -> Mapping[str, Any]:
        found: Mapping[str, Any] = row["figures"]["overall"]["dice"]
        return found

    def marked(row: Mapping[str, Any]) -> str:
        return named(row) + ("†" if row.get("few_steps") else "")

    best = max(measured, key=lambda row: dice(row)["value"] or 0.0)
    top = dice(best)
    first = f"Highest mean Dice: {marked(best)}, {number(top['value'], 3)} ({interval(top['low'], top['high'], 3)})."
    sides: dict[str, list[str]] = {}
    for row in measured:
        if difference := row["difference_to_first_row"]:
            cell = cells(difference)[0]
            if row.get("few_steps") or rows[0].get("few_steps"):
                said = "After so few steps not to be compared with"
            elif not cell.credible:
                said = "Not clearly different from"
            else:
                said = "Clearly above" if difference["dice"]["value"] > 0 else "Clearly below"
            sides.setdefault(said, []).append(
                f"{marked(row)} ({cell.interval})" if cell.interval else marked(row)
            )
    told = [f"{said} {marked(rows[0])}: {'; '.join(found)}." for said, found in sides.items()]
    return " ".join([first, *told, "In parentheses: 95 % intervals."])


def named(row: Mapping[str, Any]) -> str:
    """A row in words."""
    return f"{row['network']}, {row['loss']}"


def cells(found: Mapping[str, Mapping[str, Any]]) -> list[Cell]:
    """The figures of a row, or its differences, in the order of `COLUMNS`."""
    made = []
    for name, _, digits in COLUMNS:
        figure = found.get(name, _UNKNOWN)  # comparisons of earlier versions lack some
        low, high = figure["low"], figure["high"]
        credible = low is not None and high is not None and not low <= 0 <= high
        made.append(Cell(number(figure["value"], digits), interval(low, high, digits), credible))
    return made


def _line(row: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    runs = row["runs"]
    finished = sum(run["outcome"] == "finished" for run in runs)
    problems = list(dict.fromkeys(run["outcome"] for run in runs if run["outcome"] != "finished"))
    if row.get("collapsed_runs"):
        problems.append(
            f"collapsed: {row['collapsed_runs']} of {len(runs)} runs found nothing, or mark everything"
        )
    training = row["training_seconds"]
    return {
        "network": row["network"],
        "loss": row["loss"],
        "parameters": DASH if row["parameters"] is None else _parameters(row["parameters"]),
        "training": DASH if training is None else _minutes(training),
        "off": off_budget(row, content),
        "steps": number(row["steps_done"], 0),
        "few": row.get("few_steps", False),
        "seconds": number(row["seconds_per_predicted_case"], 2),
        "memory": number(row["peak_memory_gb"], 2),
        "gpu": number(row["peak_gpu_memory_gb"], 2),
        "cells": cells(row["figures"]["overall"]) if row["figures"] else None,
        "problem": ", ".join(problems),
        "part": f"{finished} of {len(runs)} runs" if 0 < finished < len(runs) else "",
    }


def off_budget(row: Mapping[str, Any], content: Mapping[str, Any]) -> bool:
    """Whether a row's training missed the time that all rows were to have by more than `OFF_BUDGET`."""
    if content["equal"] == "steps" or row["training_seconds"] is None:
        return False
    return bool(abs(row["training_seconds"] / 60 / content["minutes"] - 1) > OFF_BUDGET)


def _notes(content: Mapping[str, Any]) -> list[str]:
    """What a reader must know before believing the table."""
    notes = [f"WARNING: {content['alert']}"] if content.get("alert") else []
    if any(off_budget(row, content) for row in content["rows"]):
        notes.append(
            f"* The number of steps that fit into {content['minutes']:g} min was measured at the start of the row; the "
            f"training then took over {OFF_BUDGET:.0%} more or less, because other work ran on the machine at one time "
            "and not at the other. Such a row did not have the same time."
        )
    if any(row.get("few_steps") for row in content["rows"]):
        notes.append(f"† Too few steps to judge by. {content['rules']['few_steps']}")
    if len(formats := {run.get("runtime") for row in content["rows"] for run in row["runs"]} - {None}) > 1:
        notes.append(
            f"The runs did not all compute in the same number format ({', '.join(sorted(formats))}): see the runs."
        )
    if content["held_out_cases"] < 20:
        notes.append(
            f"{content['held_out_cases']} held-out cases are few: the intervals are wide, and themselves uncertain."
        )
    if content["rows"][0]["figures"] is None:
        notes.append("The first row did not finish, so no differences from it are shown.")
    return [*notes, *starts_told(content)]


def starts_told(content: Mapping[str, Any]) -> list[str]:
    """What the rows started from and took over, a line for each that differs; none for random weights."""
    rows: dict[str, list[str]] = {}
    for row in content["rows"]:
        for start in filter(None, (run.get("start") for run in row["runs"])):
            told = f"{start['name']} ({start['taken']})"
            if named(row) not in rows.setdefault(told, []):
                rows[told].append(named(row))
    every = len(content["rows"])
    return [
        f"Started from {told}: {'all rows' if len(names) == every else ', '.join(names)}."
        for told, names in rows.items()
    ]


def _plane(
    rows: Sequence[Mapping[str, Any]],
    first: Mapping[str, Any],
    key: str,
    title: str,
    unit: float,
    theme: Theme,
) -> bytes:
    points = []
    for row in rows:
        dice, time = row["figures"]["overall"]["dice"], max(row[key] / unit, 1e-3)
        points.append(Point(row["network"], time, dice["value"], dice["low"], dice["high"], row is first))
    return plane_figure(points, title, "Dice, mean", theme)


def _parameters(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count >= 1e5 else f"{count / 1e3:.0f} k"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
