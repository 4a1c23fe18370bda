"""The tables and figures of docs/evidence-tables.md, from the result files alone. What is not there is called not
measured.

make evidence            or: python benchmarks/evidence_page.py
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import thick_slices
from evidence_accuracy import accuracy
from evidence_data import LABELS
from evidence_figures import (
    Line,
    common,
    dice_at_half_of,
    dice_of,
    flat,
    fold_differences,
    gap_of,
    line_of,
    mean_of,
    own,
    own_difference,
    per_case,
    sensitivity_of,
    share,
    sign_test,
    to_the_first,
    usual,
    usual_difference,
)
from evidence_losses import background, loss_grid, loss_nodules
from evidence_pictures import curve_picture, forest_picture, weights_picture
from evidence_plan import DEFAULT, FEW_START, FOCAL, RESULTS, SCRATCH, FitRow, Row, experiments
from evidence_tables import (
    Lines,
    by_loss,
    from_start,
    here,
    lines_of,
    loss_title,
    missing,
    table,
    text,
    verdict,
)

from focalis.evaluation import Figure
from focalis.files import write_bytes, write_text

DOCS = Path(__file__).parents[1] / "docs"
PAGE = "evidence-tables.md"
END = "<!-- /evidence -->"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder of the page and images/")
    options = parser.parse_args(arguments)
    write_page(options.results, options.docs)
    print(options.docs / PAGE)


def write_page(results: Path, docs: Path) -> None:
    """Replace what stands between the marks of the page, and the pictures."""
    page = (docs / PAGE).read_text(encoding="utf-8")
    images = docs / "images"
    write_bytes(images / "weights.png", weights_picture())
    for name, make in SECTIONS.items():
        page = between(page, f"<!-- evidence: {name} -->", make(results, images))
    write_text(docs / PAGE, page)


def between(page: str, begin: str, lines: Lines) -> str:
    """The page with these lines behind a mark, up to the next closing one; SystemExit without the mark."""
    if page.count(begin) != 1:
        raise SystemExit(f"the page needs {begin} once, has it {page.count(begin)} times")
    before, after = page.split(begin)
    return before + "\n".join([begin, *lines, END]) + after.split(END, 1)[1]


def state(results: Path, _images: Path) -> Lines:
    """Which rows are there; one that two experiments share is counted with the first of them."""
    rows, seen = [], set()
    for name, listed in experiments().items():
        paths = {row.path(results) for row in listed}
        fresh = paths - seen
        seen |= paths
        there, shared = sum(path.exists() for path in fresh), len(paths) - len(fresh)
        rows.append([name, str(len(fresh)), str(there), str(len(fresh) - there or ""), str(shared or "")])
    return table("experiment | rows of its own | measured | missing | shared with those above", rows)


def success(results: Path, _images: Path) -> Lines:
    """The share of seeds that did not collapse."""
    found: Lines = []
    losses = [loss_title(DEFAULT), loss_title(FOCAL)]
    for experiment, what, title, first in (
        ("success-phantoms", "Phantoms, 0.01 %", by_loss, losses),
        ("success-phantoms-long", "Phantoms, 0.01 %, 1,000 steps", by_loss, losses),
        ("success-nodules", "Smallest third of nodules, windows", by_loss, losses),
        ("success-start", "Seven nodules, windows, 350 steps, by their start", from_start, [SCRATCH]),
    ):
        scan = "scan" if "phantoms" in experiment else "window"
        lines = {line.title: line for line in lines_of(experiment, results, title)}
        found += [f"### {what}", "", *missing(list(lines.values()))]
        if not any(line.found for line in lines.values()):
            found.append("")
            continue
        beside = {name: _successes(lines[name], finds_a_lesion) for name in first if name in lines}
        rows = []
        for loss, line in lines.items():
            seeds, tenth, drawn = (
                _successes(line, judge) for judge in (finds_a_lesion, finds_a_tenth, draws_at_half)
            )
            rows.append(
                [
                    loss,
                    f"{sum(seeds.values())} of {len(seeds)}",
                    text(share(sum(seeds.values()), len(seeds)), 2),
                    *("" if loss == name else _sign(seeds, other) for name, other in beside.items()),
                    f"{sum(tenth.values())} of {len(tenth)}",
                    f"{sum(drawn.values())} of {len(drawn)}",
                    text(own(line, sensitivity_of), 2),
                    text(usual(line, "false_positives_per_scan"), 2),
                ]
            )
        head = (
            f"{'loss' if title is by_loss else 'start'} | runs that succeeded | share | "
            f"{''.join(f'p beside {name} | ' for name in beside)}"
            "runs that find a tenth of the lesions | runs that draw anything at one half "
            f"| lesions found, mean over {scan}s of runs that did not diverge | false positives per {scan}"
        )
        found += [*table(head, rows), ""]
    return found


def _successes(line: Line, judge: Callable[[Sequence[Mapping[str, Any]]], bool]) -> dict[int, int]:
    """1 for every seed that succeeded by a judge of its held-out scores, 0 for the others; diverged ones did not."""
    seeds = {
        seed: int(content["outcome"] == "finished" and judge(content["scores"]["held_out"]))
        for (_, seed), content in line.found.items()
    }
    assert len(seeds) == len(line.found), "one fold for each seed"
    return seeds


def _sign(seeds: Mapping[int, int], other: Mapping[int, int]) -> str:
    """The sign test of the seeds that both have."""
    differences = [seeds[seed] - other[seed] for seed in seeds if seed in other]
    if not differences:
        return ""
    return f"{sign_test(differences.count(1), differences.count(-1)):.3f}, {len(differences)} seeds"


def finds_a_lesion(entries: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a run found anything: at its own operating point, one held-out lesion or more is detected."""
    return any(entry["detected_lesions"] > 0 for entry in entries)


def finds_a_tenth(entries: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a run found more than a lucky hit: a tenth of the held-out lesions."""
    found, there = (sum(entry[f"{of}_lesions"] for entry in entries) for of in ("detected", "truth"))
    return bool(found and found >= there / 10)


def draws_at_half(entries: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a run calls anything foreground that it holds for more likely than not."""
    return any(entry["predicted_voxels_at_half"] > 0 for entry in entries)


def few_cases(results: Path, images: Path) -> Lines:
    """The learning curve, and how far training and test lie apart."""
    grouped: dict[tuple[int | None, str], list[Row]] = {}
    for row in experiments()["few-cases"]:
        assert isinstance(row, Row)
        grouped.setdefault((row.cases, f"{row.network}, {row.steps} steps"), []).append(row)
    lines = {key: line_of(key[1], rows, results) for key, rows in grouped.items()}
    if not any(line.finished() for line in lines.values()):
        return missing(list(lines.values()))
    rows: list[list[str]] = []
    curves: dict[str, list[tuple[str, Figure, Figure]]] = {}
    for (cases, network), line in lines.items():
        (rival,) = (each for (of, name), each in lines.items() if of == cases and name.startswith("nnunet"))
        trained, held_out = line.dice_by_case("dice_train"), per_case(flat(line.runs()), dice_of)
        known = common(trained, rival.dice_by_case("dice_train"))
        unknown = common(held_out, per_case(flat(rival.runs()), dice_of))
        compared = line is not rival and set(line.finished()) == set(rival.finished())
        size = next((f", {each['parameters'] / 1e6:.2f} M" for each in line.finished().values()), "")
        rows.append(
            [
                str(cases or "all"),
                network + size,
                here(line),
                text(mean_of(held_out)),
                text(usual_difference(line, rival, "dice"), sign=True) if line is not rival else "",
                text(own(line, dice_at_half_of)),
                text(own_difference(line, rival, dice_at_half_of), sign=True) if line is not rival else "",
                text(mean_of(trained)),
                text(gap_of(trained, held_out)),
                text(gap_of(known, unknown), sign=True) if compared else "",
            ]
        )
        curves.setdefault(network, []).append((str(cases or "all"), mean_of(held_out), mean_of(trained)))
    write_bytes(images / "evidence-few-cases.png", curve_picture(curves))
    head = (
        "training cases | network, steps, parameters | rows | Dice, held out | less nnunet | at one half | less nnunet "
        "| Dice, training cases | gap | gap, less that of nnunet"
    )
    return [
        *missing(list(lines.values())),
        *table(head, rows),
        "",
        "![Dice by the number of training cases](images/evidence-few-cases.png)",
    ]


def few_cases_start(results: Path, _images: Path) -> Lines:
    """From random weights and from shapes: the data, numbers of cases and steps of which both are there."""
    grouped: dict[tuple[str, str, int | None, int], dict[str, list[Row]]] = {}
    for row in experiments()["few-cases-start"]:
        assert isinstance(row, Row)
        key = row.data, row.network, row.cases, row.steps
        grouped.setdefault(key, {}).setdefault(row.start, []).append(row)
    every: list[Line] = []
    rows: list[list[str]] = []
    for (data, network, cases, steps), by_start in sorted(grouped.items(), key=in_order_of_cases):
        scratch, shapes = (line_of(start, of_start, results) for start, of_start in by_start.items())
        every += [scratch, shapes]
        if set(scratch.finished()) & set(shapes.finished()):
            rows.append(
                [
                    data if network == "dense" else f"{data}, `{network}`",
                    str(cases or "all"),
                    str(steps),
                    f"{here(scratch)}; {here(shapes)}",
                    text(usual(scratch, "dice")),
                    text(usual(shapes, "dice")),
                    text(usual_difference(shapes, scratch, "dice"), sign=True),
                    text(own_difference(shapes, scratch, dice_at_half_of), sign=True),
                    fold_differences(shapes, scratch, dice_of),
                    "; ".join(filter(None, map(_gap, (scratch, shapes)))),
                ]
            )
            rows += [
                [f"{data}, {label}", str(cases or "all"), str(steps), "", *figures, "", "", ""]
                for label, *figures in by_label(data, scratch, shapes)
            ]
    head = (
        "data | training cases | steps | rows: scratch; shapes | Dice from scratch | Dice from shapes "
        "| shapes less scratch | at one half | by fold | gap to training cases: scratch; shapes"
    )
    return [*missing(every), *(table(head, rows) if rows else [])]


def few_cases_network(results: Path, _images: Path) -> Lines:
    """The small U-Net beside the default network, both from shapes: the data and numbers of cases of which both are
    there."""
    grouped: dict[tuple[str, int | None], dict[str, list[Row]]] = {}
    for row in experiments()["few-cases-network"]:
        assert isinstance(row, Row)
        grouped.setdefault((row.data, row.cases), {}).setdefault(row.network, []).append(row)
    every: list[Line] = []
    rows: list[list[str]] = []
    for (data, cases), by_network in grouped.items():
        usual_one, small = (line_of(name, of_network, results) for name, of_network in by_network.items())
        every += [usual_one, small]
        if not set(usual_one.finished()) & set(small.finished()):
            continue
        rows.append(
            [
                data,
                str(cases or "all"),
                f"{here(usual_one)}; {here(small)}",
                text(usual(usual_one, "dice")),
                text(usual(small, "dice")),
                text(usual_difference(small, usual_one, "dice"), sign=True),
                text(own_difference(small, usual_one, dice_at_half_of), sign=True),
                fold_differences(small, usual_one, dice_of),
                "; ".join(_minutes(line) for line in (usual_one, small)),
            ]
        )
        rows += [
            [f"{data}, {label}", str(cases or "all"), "", *figures, "", "", ""]
            for label, *figures in by_label(data, usual_one, small)
        ]
    head = (
        "data | training cases | rows: dense; small-unet | Dice, dense | Dice, small-unet | small-unet less dense "
        "| at one half | by fold | minutes of training: dense; small-unet"
    )
    return [*missing(every), *(table(head, rows) if rows else [])]


def _minutes(line: Line) -> str:
    """How long the shortest training took: others shared the machine."""
    return f"{min(content['training_seconds'] for content in line.finished().values()) / 60:.1f}"


def _gap(line: Line) -> str:
    """How much higher the Dice is on training cases; empty where it was not taken on them."""
    if not all("dice_train" in content["scores"] for content in line.finished().values()):
        return ""
    return text(gap_of(line.dice_by_case("dice_train"), per_case(flat(line.runs()), dice_of)))


def in_order_of_cases(entry: tuple[tuple[str, str, int | None, int], Any]) -> tuple[int, bool, int, float]:
    """Data as they are planned, the default network, the short trainings first, few cases before many."""
    data, network, cases, steps = entry[0]
    return [each for each, *_ in FEW_START].index(data), network != "dense", steps, cases or math.inf


def by_label(data: str, scratch: Line, shapes: Line) -> list[list[str]]:
    """Of data with several labels, each one's Dice from both starts, and their difference, on the rows of both."""
    both = set(scratch.finished()) & set(shapes.finished())
    lines = [replace(line, found={key: line.found[key] for key in both}) for line in (scratch, shapes)]
    rows = []
    for label in LABELS.get(data, {}).values():
        before, after = (line.dice_by_case(f"dice_{label}") for line in lines)
        difference = text(mean_of(common(after, before)), sign=True)
        rows.append([label, text(mean_of(before)), text(mean_of(after)), difference])
    return rows


def network(results: Path, images: Path) -> Lines:
    """One thing changed at a time, in equal time."""
    lines = lines_of("network", results, lambda row: f"`{row.network}`")
    if not any(line.finished() for line in lines):
        return missing(lines)
    first = lines[0]
    differences = to_the_first(lines, "dice")
    rows = []
    for line, difference in zip(lines, differences, strict=True):
        contents = list(line.finished().values())
        parameters = f"{contents[0]['parameters'] / 1e6:.2f} M" if contents else ""
        steps = str(contents[0]["steps"]) if contents else ""
        rows.append(
            [
                line.title,
                here(line),
                parameters,
                steps,
                text(usual(line, "dice")),
                text(difference, sign=True),
                "" if line is first else fold_differences(line, first, dice_of),
                text(own(line, dice_at_half_of)),
                "" if line is first else text(own_difference(line, first, dice_at_half_of), sign=True),
            ]
        )
    write_bytes(
        images / "evidence-network.png",
        forest_picture(
            [line.title for line in lines],
            differences,
            "Dice less that of the default network",
        ),
    )
    return [
        *missing(lines),
        *table(
            "network | rows | parameters | steps in the time | Dice | less the default's | by fold "
            "| Dice at one half | less the default's",
            rows,
        ),
        "",
        verdict("Dice", lines, first, differences),
        "",
        "![Differences](images/evidence-network.png)",
    ]


def accuracy_section(results: Path, _images: Path) -> Lines:
    """The default on four sets; from shapes what is there."""
    known = experiments()
    rows = [*known["accuracy"], *(row for row in known["accuracy-start"] if row.path(results).exists())]
    return accuracy([row for row in rows if isinstance(row, FitRow)], results)


def thick(results: Path, _images: Path) -> Lines:
    """The stand-in for cardiac scans of thick slices."""
    folder = results / "thick_slices"
    return thick_slices.table(folder).splitlines() if any(folder.glob("*.json")) else ["**Not measured yet**"]


SECTIONS: dict[str, Callable[[Path, Path], Lines]] = {
    "state": state,
    "loss-nodules": loss_nodules,
    "loss-grid": loss_grid,
    "loss-ventricle": background("loss-ventricle"),
    "loss-ventricle-long": background("loss-ventricle-long"),
    "loss-phantoms": background("loss-phantoms"),
    "loss-phantoms-long": background("loss-phantoms-long"),
    "success": success,
    "few-cases": few_cases,
    "few-cases-start": few_cases_start,
    "few-cases-network": few_cases_network,
    "network": network,
    "thick-slices": thick,
    "accuracy": accuracy_section,
}

if __name__ == "__main__":
    main()
