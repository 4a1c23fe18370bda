"""The losses beside each other: on nodules, by their parameters, and where background lies far from every lesion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from evidence_figures import (
    FAR_MM,
    Judged,
    Line,
    dice_at_half_of,
    dice_of,
    flat,
    mean_of,
    mean_over_cases,
    own,
    own_difference,
    per_case,
    rows_above,
    sensitivity_of,
    to_the_first,
    usual,
    usual_difference,
    usual_of,
)
from evidence_pictures import forest_picture, predictions_picture
from evidence_plan import BALANCED, CLAIMED, FASTER, FOCAL, LIGHTER, WEIGHTED
from evidence_tables import Lines, by_loss, here, lines_of, loss_title, missing, table, text, verdict

from focalis.evaluation import Figure
from focalis.files import write_bytes

SEEDS_DRAWN = (0, 1)
"""The seeds whose predictions are drawn, the same for every loss."""
FOCAL_LOSSES = (*CLAIMED[:-1], FASTER, BALANCED, LIGHTER)
"""Focal losses that weigh background by distance, and the controls without it."""
BESIDE = (WEIGHTED, BALANCED, LIGHTER, FOCAL)
"""What they stand beside: weighted cross entropy, as in the document, and focal losses without distance."""


def loss_nodules(results: Path, images: Path) -> Lines:
    """Losses on the nodules' windows."""
    lines = lines_of("loss-nodules", results, by_loss)
    if not any(line.finished() for line in lines):
        return missing(lines)
    first = lines[0]
    differences = to_the_first(lines, "dice")
    rows = []
    for line, difference in zip(lines, differences, strict=True):
        rows.append(
            [
                line.title,
                here(line),
                text(usual(line, "dice")),
                text(difference, sign=True),
                "" if line is first else rows_above(line, first, mean_over_cases(dice_of)),
                text(own(line, dice_at_half_of)),
                "" if line is first else text(own_difference(line, first, dice_at_half_of), sign=True),
                "" if line is first else rows_above(line, first, mean_over_cases(dice_at_half_of)),
                text(usual(line, "lesion_f1")),
                text(usual(line, "false_positives_per_scan"), 2),
            ]
        )
    write_bytes(
        images / "evidence-loss-nodules.png",
        forest_picture(
            [line.title for line in lines],
            differences,
            f"Dice less that of {first.title}",
        ),
    )
    return [
        *missing(lines),
        *table(
            "loss | rows | Dice | less the default's | rows above the default's | Dice at one half "
            "| less the default's | rows above the default's | lesion F1 | false positives per window",
            rows,
        ),
        "",
        verdict("Dice", lines, first, differences),
        "",
        "![Differences](images/evidence-loss-nodules.png)",
        *_beside_by_figure("Dice", lines, "dice"),
        *_beside("Dice at one half", lines, dice_at_half_of),
        *_beside_by_figure("Lesion F1", lines, "lesion_f1"),
        *_beside_by_figure("False positives per window", lines, "false_positives_per_scan", 2),
    ]


def _beside(
    what: str, lines: Sequence[Line], value: Callable[[Judged], float | None], digits: int = 3
) -> Lines:
    """A table of the focal losses beside those of `BESIDE` that are among the lines, by a value of a case."""
    return _table_beside(what, lines, partial(own_difference, value=value), mean_over_cases(value), digits)


def _beside_by_figure(
    what: str, lines: Sequence[Line], name: str, digits: int = 3, mine: Sequence[Line] = ()
) -> Lines:
    """The same, or a table of `mine`, by one of the `FIGURES`."""
    return _table_beside(what, lines, partial(usual_difference, name=name), usual_of(name), digits, mine)


def _table_beside(
    what: str,
    lines: Sequence[Line],
    difference: Callable[[Line, Line], Figure | None],
    figure: Callable[[Sequence[Sequence[Judged]]], float | None],
    digits: int,
    mine: Sequence[Line] = (),
) -> Lines:
    by_title = {line.title: line for line in lines}
    mine = mine or [by_title[title] for loss in FOCAL_LOSSES if (title := loss_title(loss)) in by_title]
    if not mine:
        return []
    others = [by_title[title] for loss in BESIDE if (title := loss_title(loss)) in by_title]
    head = " | ".join(f"less {other.title} | rows above" for other in others)
    rows = []
    for line in mine:
        row = [line.title]
        for other in others:
            same = other is line
            row += ["" if same else text(difference(line, other), digits, sign=True)]
            row += ["" if same else rows_above(line, other, figure)]
        rows.append(row)
    return ["", *table(f"{what} | {head}", rows)]


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
            f"{line.title}{line.note}",
            here(line),
            text(mean_of(line.dice_by_case("dice_inner"))),
            text(usual(line, "dice")),
            text(difference, sign=True),
        ]
        for line, difference in zip(listed, to_the_first(listed, "dice"), strict=True)
    ]
    head = "loss | rows | Dice, inner split | Dice, held out | less the default's"
    return [
        *missing(lines),
        *table(head, rows),
        *_beside_by_figure("Dice, held out", lines, "dice", mine=chosen),
    ]


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
    taken: dict[str, list[str]] = {}
    for (fold, _), line in best.items():
        taken.setdefault(line.title, []).append(f"fold {fold}")
    of = "; ".join(f"{', '.join(folds)}: {title}" for title, folds in taken.items())
    return Line(
        f"`{form}`, chosen in each fold",
        lines[0].wanted,
        {key: line.found[key] for key, line in best.items()},
        note=f" ({of or 'nothing yet'})",
    )


def background(name: str) -> Callable[[Path, Path], Lines]:
    """Losses where background lies far from every lesion."""

    def section(results: Path, images: Path) -> Lines:
        lines = lines_of(name, results, by_loss)
        if not any(line.finished() for line in lines):
            return missing(lines)
        first = lines[0]
        # With fewer seeds than the default has, a difference would be one to those few seeds of it.
        alike = [line for line in lines if line.wanted == first.wanted]
        titles = [line.title for line in alike]
        differences = dict(zip(titles, to_the_first(alike, "lesion_f1"), strict=True))

        def beside(line: Line, value: Callable[[Judged], float | None], digits: int = 3) -> list[str]:
            found = None if line is first or line not in alike else own_difference(line, first, value)
            return [text(own(line, value), digits), text(found, digits, sign=True)]

        def above(line: Line, figure: Callable[[Sequence[Sequence[Judged]]], float | None]) -> str:
            return "" if line is first or line not in alike else rows_above(line, first, figure)

        empty = any(own(line, _left_empty).cases for line in lines)
        rows = [
            [
                line.title,
                here(line),
                *beside(line, dice_of),
                above(line, mean_over_cases(dice_of)),
                *(beside(line, _dice_of_lesions) if empty else []),
                *beside(line, _dice_of_lesions_at_half),
                *beside(line, sensitivity_of),
                text(usual(line, "lesion_f1")),
                text(differences.get(line.title), sign=True),
                above(line, usual_of("lesion_f1")),
            ]
            for line in lines
        ]
        heads = [
            "loss | rows | Dice, all scans | less the default's | rows above",
            *(["Dice, scans with lesions | less the default's"] if empty else []),
            "Dice at one half, scans with lesions | less the default's",
            "lesions found, mean over scans | less the default's | lesion F1 | less the default's | rows above",
        ]
        wrong = [
            [
                line.title,
                text(usual(line, "false_positives_per_scan"), 2),
                _per_lesion_found(line),
                text(own(line, _overlapping), 2),
                text(own(line, _left_empty), 2),
                *beside(line, _far, 2),
                *beside(line, _far_voxels_at_half, 0),
                _distance(line),
            ]
            for line in lines
            if line.finished()
        ]
        found = [
            *missing(lines),
            *table(" | ".join(heads), rows),
            "",
            verdict("Lesion F1", alike, first, list(differences.values())),
            "",
            f"False positives per scan; far is {FAR_MM:g} mm or more from every lesion, or in an empty scan:",
            "",
            *table(
                "loss | false positives | per lesion found | overlapping a lesion | empty scans left empty | far "
                "| less the default's | far voxels at one half | less the default's "
                "| median distance from the nearest lesion",
                wrong,
            ),
            *_beside("Dice", alike, dice_of),
            *_beside("Dice at one half, scans with lesions", alike, _dice_of_lesions_at_half),
            *_beside_by_figure("Lesion F1", alike, "lesion_f1"),
            *_beside("Far false positives", alike, _far, 2),
            *_beside("Far voxels at one half", alike, _far_voxels_at_half, 0),
        ]
        drawn = {
            seed: pictures
            for seed in SEEDS_DRAWN
            if (
                pictures := [
                    (line.title, line.finished()[0, seed]["picture"])
                    for line in lines
                    if "picture" in line.finished().get((0, seed), {})
                ]
            )
        }
        if drawn:
            write_bytes(images / f"evidence-{name}.png", predictions_picture(drawn))
            found += ["", f"![Foreground probability by loss](images/evidence-{name}.png)"]
        return found

    return section


def _dice_of_lesions(judged: Judged) -> float | None:
    return judged.dice if judged.truth_lesions else None


def _dice_of_lesions_at_half(judged: Judged) -> float | None:
    return judged.dice_at_half if judged.truth_lesions else None


def _left_empty(judged: Judged) -> float | None:
    return None if judged.truth_lesions else float(judged.predicted_lesions == 0)


def _overlapping(judged: Judged) -> float:
    return float(judged.overlapping)


def _per_lesion_found(line: Line) -> str:
    """False positives of all scans and rows by the lesions found in them."""
    entries = [judged for row in line.judged.values() for judged in row]
    found = sum(judged.detected_lesions for judged in entries)
    wrong = sum(len(judged.false_positives_mm) for judged in entries)
    return f"{wrong / found:.1f}" if found else "none found"


def _far(judged: Judged) -> float:
    return float(judged.far)


def _far_voxels_at_half(judged: Judged) -> float:
    return float(judged.far_voxels_at_half)


def _distance(line: Line) -> str:
    """The median over scans with lesions of each scan's own: the mean over rows of the median of its false positives.

    One noisy scan does not decide it.
    """

    def median_mm(judged: Judged) -> float | None:
        known = [mm for mm in judged.false_positives_mm if mm is not None]
        return float(np.median(known)) if known else None

    by_case = per_case(flat(line.runs()), median_mm)
    if not by_case:
        return "no false positives"
    return f"{np.median(list(by_case.values())):.0f} mm, {len(by_case)} scans"
