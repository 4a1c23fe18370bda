"""Every network under equal time and every loss by equal steps on real data, and their tables.

    python benchmarks/comparison.py lidc_nodules --minutes 12     # every network with the default loss
    python benchmarks/comparison.py lidc_nodules --steps 800     # every loss on the default network, two at a time
    python benchmarks/comparison.py page

The first two train with `focalis compare` and write one file each into benchmarks/results/comparison; the same command
again goes on where it stopped. A step costs the same with every loss, so equal steps are equal time, whatever else the
machine does. The last one writes tables and figures from those files and from the files of
benchmarks/nnunet.py; what was not measured is left out. FOCALIS_DATA names the folder of the data sets.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import HERE, cut, values_of, windows_of

import focalis
from focalis.evaluation import Figure, Score, evaluate_case, figures_of, paired_differences
from focalis.losses import LOSSES, DistanceFocal, build_loss
from focalis.model import load_model
from focalis.networks import NETWORKS
from focalis.planning.plan import LossSettings, NetworkSettings
from focalis.prediction import Settings, segment
from focalis.report import Point, plane_figure
from focalis.report.comparison_page import off_budget
from focalis.volume import Volume, read_volume
from focalis.workflows.record import provenance, read_json, write_json

RESULTS = HERE / "results" / "comparison"
PAGE = HERE.parent / "docs" / "evidence-tables.md"
IMAGES = HERE.parent / "docs" / "images"
BEGIN, END = "<!-- comparison: made by benchmarks/comparison.py -->", "<!-- /comparison -->"
OFF_NOTE = (
    "`*`: missed the asked time by more than a fifth. How many steps fit is measured when a row starts, and the "
    "machine was slower or faster then than later: look at the steps too."
)
NNUNET_EPOCH = 250
"""Iterations of an epoch of nnU-Net; of 1,000 epochs its recipe is made."""
DIGITS = {"dice": 3, "hd95_mm": 2, "lesion_f1": 3, "false_positives_per_scan": 2}
TITLES = {
    "lidc_nodules": "lidc_nodules, windows",
    "msd_hippocampus": "msd_hippocampus, whole cases, mean of both labels",
}


def main() -> None:
    """Train and score one data set, or write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=[*TITLES, "page"])
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, help="training time of each network; 12 without --steps")
    budget.add_argument("--steps", type=int, help="training steps of each loss")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--networks", help="some networks instead of all, with commas")
    parser.add_argument("--losses", help="some losses instead of all, with commas")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the run folders go")
    parser.add_argument("--on", help="train on slurm or ray, with --steps")
    options = parser.parse_args()
    if options.what == "page":
        write_page()
        return
    if "FOCALIS_DATA" not in os.environ:
        sys.exit("FOCALIS_DATA is not set: name the folder that holds the data sets")
    minutes = None if options.steps else options.minutes or 12.0
    budget_name = f"{options.steps}steps" if options.steps else f"{minutes:g}min"
    name = f"{options.what}-{budget_name}-fold{options.fold}"
    target = RESULTS / f"{name}.json"
    network, loss = NetworkSettings().name, LossSettings().name
    networks = options.networks.split(",") if options.networks else None
    losses = options.losses.split(",") if options.losses else None
    if options.steps:
        networks, losses = networks or [network], losses or [loss, *different_losses(loss)]
    else:
        networks = networks or [network, *(n for n in NETWORKS if n != network), "deeplab+crf"]
        losses = losses or [loss]
    if target.exists() and has_all(read_json(target), networks, losses):
        print(f"{target}: is there, nothing to do")
        return
    data = Path(os.environ["FOCALIS_DATA"]) / options.what
    result = focalis.compare(
        data,
        options.runs / f"comparison-{name}",
        networks=networks,
        losses=losses,
        minutes=minutes,
        steps=options.steps,
        parallel=2 if options.steps else 1,
        start="scratch",
        fold=options.fold,
        on=options.on,
        progress=lambda stage, progress: print(stage, flush=True) if progress is None else None,
    )
    if result.left:
        print(result.left)
        return
    content = result.content | {"fold": options.fold}
    content["command"] = provenance()["command"]
    for row in content["rows"]:
        homes = [result.folder / run["folder"] for run in row["runs"] if run["outcome"] == "finished"]
        windows = options.what == "lidc_nodules"
        row["repeats"] = [
            scores
            for home in homes
            for scores in (window_scores(home, data) if windows else whole_scores(home))
        ]
        if windows and homes:
            row["seconds_per_window"] = read_json(homes[0] / "windows.json")["seconds"]
    write_json(target, content)
    print(f"{target}: {len(content['rows'])} rows")


def has_all(content: Mapping[str, Any], networks: Sequence[str], losses: Sequence[str]) -> bool:
    """Whether a result holds a finished run of every network and every loss."""
    done = [row for row in content["rows"] if all(run["outcome"] == "finished" for run in row["runs"])]
    return set(networks) <= {row["network"] for row in done} and set(losses) <= {row["loss"] for row in done}


def different_losses(first: str) -> list[str]:
    """Every loss but the first, each once: two names may stand for one loss with its default parameters."""
    found: dict[DistanceFocal | str, str] = {}
    for name in LOSSES:
        made = build_loss(name)
        found.setdefault(made if isinstance(made, DistanceFocal) else name, name)
    return [name for name in found.values() if name != first]


def window_scores(home: Path, data: Path) -> list[list[list[Any]]]:
    """All figures of the held-out windows, each predicted as if nothing existed around it: a list per window number.

    They are kept in the run's folder, so that a comparison that is gone on with does not predict them again.
    """
    kept = home / "windows.json"
    if not kept.exists():
        model, windows = load_model(home / "model.safetensors"), windows_of(data)
        repeats: list[list[list[Any]]] = [[], []]
        seconds = []
        for case in read_json(home / "record.json")["cases"]["held_out"]:
            image, truth = (read_volume(data / part / f"{case}.nii.gz") for part in ("images", "labels"))
            for number, origin in enumerate(windows[case]):
                begin = time.perf_counter()
                found = segment(model, [cut(image, origin)], Settings(runtime="torch")).mask
                seconds.append(time.perf_counter() - begin)
                true = cut(truth, origin)
                scores = evaluate_case(true, Volume(found, true.grid), model.plan.labels, case=case)
                repeats[number] += [values_of(score) for score in scores]
        write_json(kept, {"repeats": repeats, "seconds": float(np.median(seconds))})
    found_before: list[list[list[Any]]] = read_json(kept)["repeats"]
    return found_before


def whole_scores(home: Path) -> list[list[list[Any]]]:
    """All figures of the held-out cases, as the run itself was judged."""
    return [[values_of(Score(**row)) for row in read_json(home / "evaluation.json")["cases"]]]


def write_page() -> None:
    """Replace tables and figures of the page by those of the results that are there."""
    lines: list[str] = []
    for path in sorted(RESULTS.glob("*.json")):
        lines += section(path.stem, read_json(path))
    if not lines:
        lines = ["No comparison has been measured yet.", ""]
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    PAGE.write_text("\n".join([before + BEGIN, "", *lines, END]) + after, encoding="utf-8")
    print(f"{PAGE}: {len(lines)} lines")


def section(name: str, content: Mapping[str, Any]) -> list[str]:
    """One comparison: the tables of networks and of losses, and the plane."""
    dataset, first = content["dataset"], content["rows"][0]
    reference = scores_of(first)
    networks = [row for row in content["rows"] if row["loss"] == first["loss"]]
    losses = [row for row in content["rows"] if row["network"] == first["network"]]
    peer = nnunet_row(name, content["threads"])
    by_steps = content["equal"] == "steps"
    each = f"{content['steps']} steps" if by_steps else f"{content['minutes']:g} minutes of training"
    threads = "one thread" if content["threads"] == 1 else f"{content['threads']} threads"
    lines = [
        f"## {'Losses' if by_steps else 'Networks'}: {TITLES[dataset]}",
        "",
        f"Fold {content['fold']}, {each} each, {threads}{', two rows at a time' if by_steps else ''}, "
        f"{content['runtime']}; revision `{(content['revision'] or 'unknown')[:12]}`.",
        "",
    ]
    for title, rows in (
        ("network", [*networks, *([peer] if peer else [])]),
        ("loss", losses),
    ):
        if len(rows) < 2:
            continue
        lines += [
            f"| {title} | parameters | steps | training | s per {unit(dataset)} | memory | Dice | difference "
            "| HD95, mm | lesion F1 | false positives |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
            *(
                table_line(row, row[title], dataset, reference, row is first, off_budget(row, content))
                for row in rows
            ),
            "",
            *([OFF_NOTE, ""] if any(off_budget(row, content) for row in rows) else []),
        ]
    points = [
        point(row, dataset, row is first) for row in [*networks, *([peer] if peer else [])] if row["repeats"]
    ]
    if first["repeats"] and len(networks) > 1:
        lines += [dominance([*networks, *([peer] if peer else [])], dataset), ""]
    if len(points) > 1:
        IMAGES.mkdir(exist_ok=True)
        picture = f"comparison-{name}.png"
        (IMAGES / picture).write_bytes(plane_figure(points, f"seconds per {unit(dataset)}", "Dice, mean"))
        lines += [f"![Dice against seconds per {unit(dataset)}](images/{picture})", ""]
    return lines


def dominance(rows: Sequence[Mapping[str, Any]], dataset: str) -> str:
    """Whether any U-Net is at least as accurate and as fast in prediction as the first row, after equal training."""
    first, *others = [row for row in rows if row["repeats"]]
    unets = [row for row in others if any(part in row["network"].lower() for part in ("unet", "u-net"))]
    dice = {row["network"]: figures_of(scores_of(row))["dice"].value or 0.0 for row in (first, *unets)}
    better = [
        f"`{row['network']}`"
        for row in unets
        if dice[row["network"]] >= dice[first["network"]]
        and seconds_of(row, dataset) <= seconds_of(first, dataset)
    ]
    if not unets:
        return "No U-Net was measured."
    if better:
        return f"At least as accurate and as fast as `{first['network']}`: {', '.join(better)}."
    return f"None of the {len(unets)} U-Nets is at least as accurate and as fast as `{first['network']}`."


def nnunet_row(name: str, threads: int) -> dict[str, Any] | None:
    """The row of the real nnU-Net with the same data, time, fold and threads, if it had an epoch's time."""
    path = HERE / "results" / "nnunet" / f"{name}-seed0.json"
    if not path.exists():
        return None
    row: dict[str, Any] = read_json(path)
    if {row["threads"], row["threads_in_prediction"]} != {threads}:
        print(f"{path}: left out, it ran with other threads than the rest")
        return None
    if row["iterations"] < NNUNET_EPOCH:
        print(f"{path}: left out, {row['iterations']} iterations are less than one of its epochs")
        return None
    return row | {
        "network": "nnU-Net 2.8.1, the package",
        "loss": "its own",
        "steps_done": row["iterations"],
        "peak_memory_gb": max(row["training_memory_gb"], row["peak_memory_gb"]),
        "runs": [],
    }


def unit(dataset: str) -> str:
    """What a prediction is timed on."""
    return "window" if dataset == "lidc_nodules" else "case"


def seconds_of(row: Mapping[str, Any], dataset: str) -> float:
    """Seconds per window or case."""
    value: float = row["seconds_per_window" if unit(dataset) == "window" else "seconds_per_predicted_case"]
    return value


def scores_of(row: Mapping[str, Any]) -> list[list[Score]]:
    """The scores of a row: windows of a case are repeats of it, of which the mean is taken first."""
    return [[Score(*score) for score in scores] for scores in row["repeats"]]


def table_line(
    row: Mapping[str, Any],
    name: str,
    dataset: str,
    reference: list[list[Score]],
    is_first: bool,
    off: bool,
) -> str:
    """A row of a table, or why there are no figures."""
    if not row["repeats"]:
        return f"| {name} | {', '.join(run['outcome'] for run in row['runs'])} | | | | | | | | | |"
    scores = scores_of(row)
    found = figures_of(scores)
    difference = paired_differences(scores, reference)["dice"] if reference and not is_first else None
    cells = [
        name,
        f"{row['parameters'] / 1e6:.2f} M",
        f"{row['steps_done']:.0f}",
        f"{row['training_seconds'] / 60:.1f} min{' *' if off else ''}",
        f"{seconds_of(row, dataset):.2f}",
        f"{row['peak_memory_gb']:.2f} GB",
        text(found["dice"], 3),
        text(difference, 3) if difference else "",
        *(text(found[figure], digits) for figure, digits in list(DIGITS.items())[1:]),
    ]
    return f"| {' | '.join(cells)} |"


def text(figure: Figure, digits: int) -> str:
    """A figure with its interval."""
    if figure.value is None:
        return "undefined"
    value = f"{figure.value:.{digits}f}"
    return value if figure.low is None else f"{value} ({figure.low:.{digits}f} to {figure.high:.{digits}f})"


def point(row: Mapping[str, Any], dataset: str, is_first: bool) -> Point:
    """A row in the plane."""
    dice = figures_of(scores_of(row))["dice"]
    return Point(row["network"], seconds_of(row, dataset), dice.value or 0.0, dice.low, dice.high, is_first)


if __name__ == "__main__":
    main()
