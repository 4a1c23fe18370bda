"""The HTML pages: complete, escaped, self-contained."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from focalis.evaluation import Evaluation, Score, evaluate_case
from focalis.report import write_evaluation_report, write_fit_report
from focalis.report.page import number
from focalis.volume import Grid, Volume

NASTY = "<script>alert('x')</script> & $5"
PNG = b"\x89PNG not really"
VOID = {"meta", "source", "img", "br", "hr", "link"}


class Checker(HTMLParser):
    """Collects what a page refers to and whether its elements close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "srcset", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def check(path: Path) -> Checker:
    page = path.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert all(reference.startswith("data:image/png;base64,") for reference in checker.references)
    assert "<script" not in page
    assert not re.search(r"url\(|@import|https?:", page)
    return checker


def scored(names: dict[int, str]) -> list[Score]:
    rng = np.random.default_rng(0)
    scores: list[Score] = []
    for case in ("alpha", NASTY, "empty"):
        truth = Volume((rng.random((5, 6, 7)) < 0.3 * (case != "empty")).astype(np.uint8), Grid((7, 6, 5)))
        guess = Volume((rng.random((5, 6, 7)) < 0.3).astype(np.uint8), Grid((7, 6, 5)))
        scores += evaluate_case(truth, guess, names, case=case)
    return scores


@pytest.mark.parametrize("names", [{1: "lesion"}, {1: "core", 2: NASTY}])
def test_evaluation_report(tmp_path: Path, names: dict[int, str]) -> None:
    evaluation = Evaluation.of(scored(names), tolerance_mm=2.5)
    path = tmp_path / "deep" / "report.html"
    write_evaluation_report(path, evaluation, [(NASTY, PNG)])
    text = check(path).text
    assert text.count(NASTY) >= 2
    assert "tolerance of\n2.5 mm" in text
    assert number(evaluation.summary.overall["dice"].mean) in text
    assert "2 of 3" in text  # HD95 is undefined where the truth is empty
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_one_case_without_pictures(tmp_path: Path) -> None:
    write_evaluation_report(tmp_path / "r.html", Evaluation.of(scored({1: "lesion"})[:1]))
    checker = check(tmp_path / "r.html")
    assert "1 case." in checker.text
    assert checker.references == []


@pytest.mark.parametrize("metrics", [[], [{"step": 1, "loss": 2.0, "learning_rate": 0.1}]])
def test_fit_report(tmp_path: Path, metrics: list[dict[str, float]]) -> None:
    write_fit_report(
        tmp_path / "r.html",
        Evaluation.of(scored({1: "lesion"})),
        plan_text=f"labels: {NASTY}",
        metrics=metrics,
        overlays=[("Worst case", PNG)],
        record={
            "seed": 3,
            "machine": {"cores": 2},
            "packages": {"torch": "2.13.0"},
            "command": NASTY,
            "gpu": None,
        },
        split_note=f"Scores are on 3 cases. {NASTY}",
    )
    checker = check(tmp_path / "r.html")
    for expected in (
        f"labels: {NASTY}",
        "machine.cores",
        "torch",
        "Worst case",
        f"Scores are on 3 cases. {NASTY}",
    ):
        assert expected in checker.text
    assert ("No step was recorded" in checker.text) == (not metrics)


def test_numbers() -> None:
    assert number(None) == "\N{EN DASH}"
    assert number(-1234.5, 1) == "\N{MINUS SIGN}1,234.5"
