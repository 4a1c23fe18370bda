"""The tables and figures of docs/evidence.md, from the result files alone; what is not there is called not measured.

make evidence            or: python benchmarks/evidence_page.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from evidence_accuracy import accuracy
from evidence_figures import (
    FAR_MM,
    Judged,
    Line,
    flat,
    gap_of,
    line_of,
    mean_of,
    own_difference,
    per_case,
    share,
    sign_test,
    text,
    to_the_first,
    usual,
    usual_difference,
)
from evidence_pictures import curve_picture, forest_picture, predictions_picture, weights_picture
from evidence_plan import (
    CLAIMED,
    DEFAULT,
    FOCAL,
    RESULTS,
    WEIGHTED,
    FitRow,
    Row,
    experiments,
    loss_name,
)

from focalis.evaluation import Figure
from focalis.files import write_bytes, write_text

DOCS = Path(__file__).parents[1] / "docs"
END = "<!-- /evidence -->"
Lines = list[str]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder of evidence.md and images/")
    options = parser.parse_args(arguments)
    write_page(options.results, options.docs)
    print(options.docs / "evidence.md")


def write_page(results: Path, docs: Path) -> None:
    """Replace what stands between the marks of docs/evidence.md, and the pictures."""
    page = (docs / "evidence.md").read_text(encoding="utf-8")
    images = docs / "images"
    write_bytes(images / "weights.png", weights_picture())
    for name, make in SECTIONS.items():
        page = between(page, f"<!-- evidence: {name} -->", make(results, images))
    write_text(docs / "evidence.md", page)


def between(page: str, begin: str, lines: Lines) -> str:
    """The page with these lines behind a mark, up to the next closing one; SystemExit without the mark."""
    if page.count(begin) != 1:
        raise SystemExit(f"evidence.md: needs {begin} once, has it {page.count(begin)} times")
    before, after = page.split(begin)
    return before + "\n".join([begin, *lines, END]) + after.split(END, 1)[1]


def state(results: Path, _images: Path) -> Lines:
    """Which rows are there."""
    lines = ["| experiment | rows | measured | missing |", "|---|---|---|---|"]
    for name, rows in experiments().items():
        paths = {row.path(results) for row in rows}
        there = sum(path.exists() for path in paths)
        lines.append(f"| {name} | {len(paths)} | {there} | {len(paths) - there or ''} |")
    return lines


def lines_of(name: str, results: Path, title: Callable[[Row], str]) -> list[Line]:
    """The lines of an experiment, in the order of its plan."""
    grouped: dict[str, list[Row]] = {}
    for row in experiments()[name]:
        assert isinstance(row, Row)
        grouped.setdefault(row.setting, []).append(row)
    return [line_of(title(rows[0]), rows, results) for rows in grouped.values()]


def by_loss(row: Row) -> str:
    """A line by its loss."""
    return f"`{loss_name(row.loss)}`"


def missing(lines: Sequence[Line]) -> Lines:
    """Said above a table that is not whole; empty for one that is."""
    there, wanted = (sum(numbers) for numbers in zip(*((len(x.found), x.wanted) for x in lines), strict=True))
    if not there:
        return [f"**Not measured yet**: none of {wanted} rows is there."]
    notes = [] if there == wanted else [f"**Not all measured yet**: {there} of {wanted} rows are there."]
    revisions = sorted({str(content["revision"])[:8] for line in lines for content in line.found.values()})
    return [*notes, f"Revision {', '.join(revisions)}.", ""]


def table(head: str, rows: Sequence[Sequence[str]]) -> Lines:
    """A Markdown table; the head's columns are parted by bars."""
    columns = [column.strip() for column in head.split("|")]
    return [
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def here(line: Line) -> str:
    """How many rows a line rests on, and what became of the others."""
    diverged = len(line.found) - len(line.finished())
    return f"{len(line.found)} of {line.wanted}" + (f", {diverged} diverged" if diverged else "")


def verdict(what: str, lines: Sequence[Line], first: Line, differences: Sequence[Figure | None]) -> str:
    """Which lines differ from the first one credibly, in a sentence; of a line with diverged runs nothing is said."""

    def names(sign: int) -> str:
        found = [
            line.title
            for line, each in zip(lines, differences, strict=True)
            if each is not None
            and each.low is not None
            and each.high is not None
            and len(line.finished()) == len(line.found)
            and (each.low > 0 if sign > 0 else each.high < 0)
        ]
        return ", ".join(found) or "none"

    return f"{what}: above {first.title} with an interval that leaves out zero: {names(1)}. Below it: {names(-1)}."


def loss_nodules(results: Path, images: Path) -> Lines:
    """Losses on the nodules' windows."""
    lines = lines_of("loss-nodules", results, by_loss)
    if not any(line.finished() for line in lines):
        return missing(lines)
    first = lines[0]
    differences = to_the_first(lines, "dice")
    rows = []
    for line, difference in zip(lines, differences, strict=True):
        half = mean_of(per_case(flat(line.runs()), lambda judged: judged.dice_at_half))
        seeds = ", ".join(_by_seed(line))
        rows.append(
            [
                line.title,
                here(line),
                text(usual(line, "dice")),
                seeds,
                text(difference, sign=True),
                text(half),
                text(usual(line, "lesion_f1")),
                text(usual(line, "false_positives_per_scan"), 2),
            ]
        )
    write_bytes(
        images / "evidence-loss-nodules.png",
        forest_picture(
            [(line.title, each) for line, each in zip(lines, differences, strict=True) if each is not None],
            f"Dice less that of {first.title}",
        ),
    )
    return [
        *missing(lines),
        *table(
            "loss | rows | Dice | by seed | difference | Dice at one half | lesion F1 | false positives per window",
            rows,
        ),
        "",
        verdict("Dice", lines, first, differences),
        "",
        "![Differences](images/evidence-loss-nodules.png)",
        "",
        *_as_claimed("Dice", lines, lambda line, other: usual_difference(line, other, "dice")),
    ]


def _as_claimed(
    what: str, lines: Sequence[Line], difference: Callable[[Line, Line], Figure | None], digits: int = 3
) -> Lines:
    """The document's own comparisons: every weight by distance against weighted cross entropy and plain focal loss."""
    by_title = {line.title: line for line in lines}
    others = [by_title[title] for loss in (WEIGHTED, FOCAL) if (title := f"`{loss_name(loss)}`") in by_title]
    head = " | ".join(
        f"less {other.title}" + (", no distance" if other.title == f"`{FOCAL.name}`" else "")
        for other in others
    )
    rows = [
        [line.title, *(text(difference(line, other), digits, sign=True) for other in others)]
        for loss in CLAIMED
        if loss != FOCAL and (line := by_title.get(f"`{loss_name(loss)}`"))
    ]
    return table(f"{what}, as claimed | {head}", rows)


def _by_seed(line: Line) -> Lines:
    runs = line.runs()
    seeds = sorted({seed for _, seed in runs})
    figures = [usual_of({key: run for key, run in runs.items() if key[1] == seed}) for seed in seeds]
    return [text(Figure(figure.value, None, None, 0)) for figure in figures]


def usual_of(runs: dict[tuple[int, int], list[list[Judged]]]) -> Figure:
    """The mean Dice of some runs."""
    return mean_of(per_case(flat(runs), dice_of))


def loss_grid(results: Path, _images: Path) -> Lines:
    """The parameters of the claimed loss: chosen on inner cases, reported on held-out ones."""
    lines = lines_of("loss-grid", results, by_loss)
    if not any(line.finished() for line in lines):
        return missing(lines)
    forms: dict[str, list[Line]] = {}
    for line in lines:
        forms.setdefault(_form(line), []).append(line)
    chosen = [_chosen(form, tried) for form, tried in forms.items() if len(tried) > 1]
    listed = [*lines, *chosen]
    rows = [
        [
            line.title,
            here(line),
            text(mean_of(line.dice_by_case("dice_inner"))),
            text(usual(line, "dice")),
            text(difference, sign=True),
        ]
        for line, difference in zip(listed, to_the_first(listed, "dice"), strict=True)
    ]
    head = f"loss | rows | Dice, inner split | Dice, held out | less {lines[0].title}"
    return [*missing(lines), *table(head, rows)]


def _form(line: Line) -> str:
    """The loss of a line without its parameters."""
    return line.title.strip("`").split(",")[0]


def _chosen(form: str, lines: Sequence[Line]) -> Line:
    """A loss with the parameters that are the best on each row's own inner split, where all of them were tried."""
    both = set.intersection(*(set(line.finished()) for line in lines))
    best: dict[tuple[int, int], Line] = {
        key: max(lines, key=lambda line: np.mean(list(line.found[key]["scores"]["dice_inner"].values())))
        for key in sorted(both)
    }
    taken = ", ".join(dict.fromkeys(line.title for line in best.values()))
    return Line(
        f"`{form}`, chosen in each fold: {taken or 'nothing yet'}",
        lines[0].wanted,
        {key: line.found[key] for key, line in best.items()},
    )


def with_lesions(judged: Judged) -> bool:
    """Whether a scan holds a lesion."""
    return judged.truth_lesions > 0


def background(name: str) -> Callable[[Path, Path], Lines]:
    """Losses where background lies far from every lesion."""

    def section(results: Path, images: Path) -> Lines:
        lines = lines_of(name, results, by_loss)
        if not any(line.finished() for line in lines):
            return missing(lines)
        first = lines[0]
        differences = to_the_first(lines, "lesion_f1")
        rows = [
            [
                line.title,
                here(line),
                text(usual(line, "dice", with_lesions)),
                text(mean_of(per_case(flat(line.runs(with_lesions)), lambda judged: judged.dice_at_half))),
                text(usual(line, "lesion_f1")),
                text(difference, sign=True),
                text(usual(line, "false_positives_per_scan"), 2),
            ]
            for line, difference in zip(lines, differences, strict=True)
        ]
        far_rows = []
        for line in lines:
            cells = [line.title]
            for value in (_far, _far_voxels, _far_voxels_at_half):
                cells += [
                    text(mean_of(per_case(flat(line.runs()), value)), 2),
                    "" if line is first else text(own_difference(line, first, value), 2, sign=True),
                ]
            far_rows.append([*cells, _distance(line)])
        found = [
            *missing(lines),
            *table(
                "loss | rows | Dice, scans with lesions | the same at one half | lesion F1 | difference "
                "| false positives per scan",
                rows,
            ),
            "",
            verdict("Lesion F1", lines, first, differences),
            "",
            f"Far from every lesion ({FAR_MM:g} mm or more, or in an empty scan), per scan:",
            "",
            *table(
                "loss | far false positives | difference | far voxels | difference | far voxels at one half "
                "| difference | distance of false positives from the nearest lesion",
                far_rows,
            ),
            "",
            *_as_claimed("Lesion F1", lines, lambda line, other: usual_difference(line, other, "lesion_f1")),
            "",
            *_as_claimed("Far false positives", lines, partial(own_difference, value=_far), 2),
            "",
            *_as_claimed(
                "Far voxels at one half", lines, partial(own_difference, value=_far_voxels_at_half), 2
            ),
        ]
        drawn = [
            (line.title, content["picture"])
            for line in lines
            for content in list(line.finished().values())[:1]
            if "picture" in content
        ]
        if drawn:
            write_bytes(images / f"evidence-{name}.png", predictions_picture(drawn))
            found += ["", f"![Foreground probability by loss](images/evidence-{name}.png)"]
        return found

    return section


def _far(judged: Judged) -> float:
    return float(judged.far)


def _far_voxels(judged: Judged) -> float:
    return float(judged.far_voxels)


def _far_voxels_at_half(judged: Judged) -> float:
    return float(judged.far_voxels_at_half)


def _distance(line: Line) -> str:
    """The median over scans with lesions of each scan's own median, so that one noisy scan does not decide."""

    def own(judged: Judged) -> float | None:
        known = [mm for mm in judged.false_positives_mm if mm is not None]
        return float(np.median(known)) if known else None

    by_case = per_case(flat(line.runs()), own)
    if not by_case:
        return "no false positives"
    return f"{np.median(list(by_case.values())):.0f} mm, {len(by_case)} scans"


def success(results: Path, _images: Path) -> Lines:
    """The share of seeds that did not collapse."""
    found: Lines = []
    for name, what in (
        ("success-phantoms", "phantoms, 0.01 %"),
        ("success-nodules", "smallest third of nodules"),
    ):
        grouped: dict[str, list[Row]] = {}
        for row in experiments()[name]:
            assert isinstance(row, Row)
            grouped.setdefault(loss_name(row.loss), []).append(row)
        lines = {loss: line_of(loss, rows, results) for loss, rows in grouped.items()}
        found += [f"### {what[0].upper()}{what[1:]}", "", *missing(list(lines.values()))]
        if not any(line.found for line in lines.values()):
            found.append("")
            continue
        beside = {name: _successes(lines[name], finds_a_lesion) for name in (DEFAULT.name, FOCAL.name)}
        rows = []
        for loss, line in lines.items():
            seeds, drawn = (_successes(line, judge) for judge in (finds_a_lesion, draws_at_half))
            rows.append(
                [
                    f"`{loss}`",
                    f"{sum(seeds.values())} of {len(seeds)}",
                    text(share(sum(seeds.values()), len(seeds)), 2),
                    *("" if loss == name else _sign(seeds, other) for name, other in beside.items()),
                    f"{sum(drawn.values())} of {len(drawn)}",
                    text(mean_of(per_case(flat(line.runs()), _sensitivity)), 2),
                ]
            )
        head = (
            f"loss | runs that succeeded | share | {' | '.join(f'p beside `{name}`' for name in beside)} "
            "| runs that draw anything at one half | lesions found, mean over scans of runs that did not diverge"
        )
        found += [*table(head, rows), ""]
    return found


def _successes(line: Line, judge: Callable[[Sequence[Mapping[str, Any]]], bool]) -> dict[int, int]:
    """1 for every seed that succeeded by a judge of its held-out scores, 0 for the others; diverged ones did not."""
    return {
        seed: int(content["outcome"] == "finished" and judge(content["scores"]["held_out"]))
        for (_, seed), content in line.found.items()
    }


def _sign(seeds: Mapping[int, int], other: Mapping[int, int]) -> str:
    """The sign test of the seeds that both have."""
    differences = [seeds[seed] - other[seed] for seed in seeds if seed in other]
    if not differences:
        return ""
    return f"{sign_test(differences.count(1), differences.count(-1)):.3f}, {len(differences)} seeds"


def finds_a_lesion(entries: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a run found anything: at its own operating point, one held-out lesion or more is detected."""
    return any(entry["detected_lesions"] > 0 for entry in entries)


def draws_at_half(entries: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a run calls anything foreground that it holds for more likely than not."""
    return any(entry["predicted_voxels_at_half"] > 0 for entry in entries)


def _sensitivity(judged: Judged) -> float | None:
    return judged.detected_lesions / judged.truth_lesions if judged.truth_lesions else None


def dice_of(judged: Judged) -> float:
    """Its Dice."""
    return judged.dice


def common(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """The differences of the cases that both have."""
    return {case: first[case] - second[case] for case in first if case in second}


def few_cases(results: Path, images: Path) -> Lines:
    """The learning curve, and how far training and test lie apart."""
    grouped: dict[tuple[int | None, str], list[Row]] = {}
    for row in experiments()["few-cases"]:
        assert isinstance(row, Row)
        grouped.setdefault((row.cases, row.network), []).append(row)
    lines = {key: line_of(key[1], rows, results) for key, rows in grouped.items()}
    if not any(line.finished() for line in lines.values()):
        return missing(list(lines.values()))
    rows: list[list[str]] = []
    curves: dict[str, list[tuple[str, Figure, Figure]]] = {"dense": [], "nnunet": []}
    for (cases, network), line in lines.items():
        rival = lines[cases, "nnunet"]
        trained, held_out = line.dice_by_case("dice_train"), per_case(flat(line.runs()), dice_of)
        known = common(trained, rival.dice_by_case("dice_train"))
        unknown = common(held_out, per_case(flat(rival.runs()), dice_of))
        compared = network != "nnunet" and set(line.finished()) == set(rival.finished())
        size = next((f", {each['parameters'] / 1e6:.2f} M" for each in line.finished().values()), "")
        rows.append(
            [
                str(cases or "all"),
                network + size,
                here(line),
                text(mean_of(held_out)),
                text(usual_difference(line, rival, "dice"), sign=True) if network != "nnunet" else "",
                text(mean_of(trained)),
                text(gap_of(trained, held_out)),
                text(gap_of(known, unknown), sign=True) if compared else "",
            ]
        )
        curves[network].append((str(cases or "all"), mean_of(held_out), mean_of(trained)))
    write_bytes(images / "evidence-few-cases.png", curve_picture(curves))
    head = (
        "training cases | network, parameters | rows | Dice, held out | less nnunet | Dice, training cases | gap "
        "| gap, less that of nnunet"
    )
    return [
        *missing(list(lines.values())),
        *table(head, rows),
        "",
        "![Dice by the number of training cases](images/evidence-few-cases.png)",
    ]


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
            ]
        )
    write_bytes(
        images / "evidence-network.png",
        forest_picture(
            [(line.title, each) for line, each in zip(lines, differences, strict=True) if each is not None],
            "Dice less that of the default network",
        ),
    )
    return [
        *missing(lines),
        *table("network | rows | parameters | steps in the time | Dice | difference", rows),
        "",
        verdict("Dice", lines, first, differences),
        "",
        "![Differences](images/evidence-network.png)",
    ]


def accuracy_section(results: Path, _images: Path) -> Lines:
    """The default on four sets."""
    rows = [row for row in experiments()["accuracy"] if isinstance(row, FitRow)]
    return accuracy(rows, results)


SECTIONS: dict[str, Callable[[Path, Path], Lines]] = {
    "state": state,
    "loss-nodules": loss_nodules,
    "loss-grid": loss_grid,
    "loss-ventricle": background("loss-ventricle"),
    "loss-phantoms": background("loss-phantoms"),
    "loss-phantoms-long": background("loss-phantoms-long"),
    "success": success,
    "few-cases": few_cases,
    "network": network,
    "accuracy": accuracy_section,
}

if __name__ == "__main__":
    main()
