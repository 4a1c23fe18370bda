"""Public objects show themselves in one short line, and as a table in a notebook."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from focalis.display import LONGEST_LINE, Shown


@dataclass(frozen=True, repr=False)
class Result(Shown):
    shows = ("path", "dice", "labels", "rows", "note")

    path: Path
    dice: float
    labels: dict
    rows: tuple
    note: str = ""


def test_a_line_names_what_matters_with_few_digits():
    shown = repr(Result(Path("runs/a"), 0.123456789, {1: "lesion"}, tuple(range(9))))
    assert shown == "Result(path=runs/a, dice=0.123457, labels={1: lesion}, rows=9)"


def test_a_line_stays_short_whatever_it_holds():
    shown = repr(
        Result(Path("x" * 900), 1.0, dict.fromkeys(range(4), "y" * 200), ("z" * 400,) * 4, "n" * 999)
    )
    assert len(shown) <= LONGEST_LINE


def test_the_table_is_escaped():
    page = Result(Path("a"), 1.0, {1: "<script>"}, ())._repr_html_()
    assert page.startswith("<table>")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_without_a_choice_all_attributes_are_shown():
    @dataclass(frozen=True, repr=False)
    class All(Shown):
        values: np.ndarray
        note: str = ""

    shown = All(np.zeros((2, 3), np.float32), "two\nlines")
    assert repr(shown) == str(shown) == "All(values=float32 (2, 3), note=two lines)"
