"""How the tables of the evidence are written, and what is said above and below them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evidence_figures import Line, line_of
from evidence_plan import BALANCED, LIGHTER, Row, RowLoss, experiments, loss_name

from focalis.evaluation import Figure

Lines = list[str]
FEWEST_PATIENTS = 10
"""Of fewer patients no difference is called apart from zero: their bootstrap intervals are far too narrow."""


def lines_of(name: str, results: Path, title: Callable[[Row], str]) -> list[Line]:
    """The lines of an experiment, in the order of its plan."""
    grouped: dict[str, list[Row]] = {}
    for row in experiments()[name]:
        assert isinstance(row, Row)
        grouped.setdefault(row.setting, []).append(row)
    return [line_of(title(rows[0]), rows, results) for rows in grouped.values()]


def by_loss(row: Row) -> str:
    """A line by its loss."""
    return loss_title(row.loss)


def from_start(row: Row) -> str:
    """A line by its start."""
    return row.start


def loss_title(loss: RowLoss) -> str:
    """What a loss is called in tables."""
    controls = {BALANCED: "balanced focal", LIGHTER: f"balanced focal, {LIGHTER.floor:g}"}
    return controls.get(loss, f"`{loss_name(loss)}`")


def missing(lines: Sequence[Line]) -> Lines:
    """Said above a table that is not whole, and of which revisions its rows are."""
    there, wanted = (sum(numbers) for numbers in zip(*((len(x.found), x.wanted) for x in lines), strict=True))
    of = revisions(content for line in lines for content in line.found.values())
    return [*not_all(there, wanted), *([f"Revision {of}.", ""] if there else [])]


def revisions(contents: Iterable[Mapping[str, Any]]) -> str:
    """The revisions of results; a plus stands for code that was changed and not yet committed."""
    found = {str(content["revision"]) for content in contents}
    return ", ".join(sorted(each[:8] + "+" * each.endswith("+") for each in found))


def leaves_out_zero(figure: Figure | None) -> bool:
    """Whether a difference's interval does, and rests on patients enough to say so."""
    if figure is None or figure.low is None or figure.high is None:
        return False
    return figure.cases >= FEWEST_PATIENTS and not figure.low <= 0 <= figure.high


def not_all(there: int, wanted: int) -> Lines:
    """Said where rows are missing; empty where none is."""
    if not there:
        return [f"**Not measured yet**: none of {wanted} rows is there."]
    return [] if there == wanted else [f"**Not all measured yet**: {there} of {wanted} rows are there.", ""]


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
            and each.value is not None
            and leaves_out_zero(each)
            and len(line.finished()) == len(line.found)
            and each.value * sign > 0
        ]
        return ", ".join(found) or "none"

    return f"{what}: above {first.title} with an interval that leaves out zero: {names(1)}. Below it: {names(-1)}."


def text(figure: Figure | None, digits: int = 3, *, sign: bool = False) -> str:
    """A figure with its interval; bold where a difference `leaves_out_zero`."""
    if figure is None or figure.value is None:
        return ""
    form = f"{'+' if sign else ''}.{digits}f"
    if figure.low is None or figure.high is None:
        return format(figure.value, form)
    found = f"{figure.value:{form}} ({figure.low:{form}} to {figure.high:{form}})"
    return f"**{found}**" if sign and leaves_out_zero(figure) else found


def table(head: str, rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; the head's columns are parted by bars."""
    columns = [column.strip() for column in head.split("|")]
    return [
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
