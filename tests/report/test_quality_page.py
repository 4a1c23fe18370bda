"""The page of the check: complete, escaped, self-contained."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from focalis.dataset import Case, Dataset
from focalis.quality import KINDS, CheckResult, Finding, Measured, PlannedSpacing, Problem, Survey, survey
from focalis.quality.facts import Measurements
from focalis.report.figure import LIGHT
from focalis.report.quality_page import ROWS_OPEN, intensity_figure, sizes_figure, write_quality_report
from focalis.volume import Grid, Volume

NASTY = "<script>alert('x')</script> & $5"
TIMES = "\N{MULTIPLICATION SIGN}"
VOID = {"meta", "source", "img", "br"}


class Checker(HTMLParser):
    """The text of a page, and whether its elements close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.text += " "
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def text_of(path: Path) -> str:
    page = path.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert "<script" not in page
    assert not re.search(r"url\(|@import|https?:", page)
    return " ".join(checker.text.split())


def looked_at(
    names: tuple[str, ...],
    labels: dict[int, str],
    channels: tuple[str, ...] = ("image",),
    problems: tuple[Problem, ...] = (),
    remarks: tuple[Finding, ...] = (),
) -> Survey:
    rng = np.random.default_rng(0)
    cases = tuple(Case(name, (Path("i"),) * len(channels), Path("l"), f"patient of {name}") for name in names)
    dataset = Dataset(Path("some") / "nodules", cases, channels, labels)
    measurements = Measurements(dataset)
    grid = Grid((7, 6, 5), (1.0, 2.0, 3.0))
    for case in cases:
        for channel in range(len(channels)):
            measurements.image(case, channel, Volume(rng.normal(size=(5, 6, 7)), grid))
        array = np.zeros((5, 6, 7), np.uint8)
        for value in labels:
            array[1:4, 1:5, value : value + 1] = value
        measurements.label(case, Volume(array, grid))
    facts = measurements.facts(dict.fromkeys(names[:1], ("r1", "r2")))
    measured = Measured(CheckResult(problems, tuple(labels)), facts, remarks)
    return survey(dataset, measured, PlannedSpacing((3.0, 2.0, 1.0), "the median"))


def test_the_page_holds_problems_findings_and_figures(tmp_path: Path) -> None:
    problem = Problem("beta", f"{NASTY}: is cut short; copy it again")
    remarks = (Finding("grid", ("alpha",), NASTY), Finding("reader", (), "raters/x belongs to no case"))
    found = looked_at(("alpha", NASTY), {1: "core", 2: NASTY}, ("T1", NASTY), (problem,), remarks)
    write_quality_report(tmp_path / "deep" / "report.html", found)
    text = text_of(tmp_path / "deep" / "report.html")
    assert f"beta {NASTY}: is cut short; copy it again" in text
    for finding in found.findings:
        assert finding.message in text
        assert KINDS[finding.kind].why in text
        assert KINDS[finding.kind].advice in text
    assert all(kind.rule in text for kind in KINDS.values())
    assert "patient of alpha" in text
    assert "1 case with 2 readers, 1 case with no readers" in text
    # 12 voxels of 6 mm3 per case and label, in two cases
    assert f"1: core 2 2 1.0 72.0 72.0 72.0 12 12 12 0 2: {NASTY} 2 2" in text
    assert f"The planned spacing is 1 {TIMES} 2 {TIMES} 3 mm (x {TIMES} y {TIMES} z): the median." in text
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["report.html"]


def test_many_findings_of_a_kind_are_folded(tmp_path: Path) -> None:
    remarks = tuple(Finding("grid", (f"case{i}",), "is skewed") for i in range(ROWS_OPEN + 5))
    write_quality_report(tmp_path / "report.html", looked_at(("a",), {1: "core"}, remarks=remarks))
    text = text_of(tmp_path / "report.html")
    assert f"{KINDS['grid'].title}: {ROWS_OPEN + 5}" in text
    assert "5 more" in text
    assert text.count("is skewed") == ROWS_OPEN + 5


def test_a_clean_set_says_so(tmp_path: Path) -> None:
    write_quality_report(tmp_path / "report.html", looked_at(("a", "b"), {1: "core"}))
    text = text_of(tmp_path / "report.html")
    assert "None: the data set can be used." in text


def test_a_set_of_which_nothing_could_be_read(tmp_path: Path) -> None:
    dataset = Dataset(Path("nodules"), (Case("a", (Path("i"),), None),), ("image",))
    problems = (Problem("a", "i: does not exist; check the path"),)
    measured = Measured(CheckResult(problems, ()), Measurements(dataset).facts({}), ())
    write_quality_report(tmp_path / "report.html", survey(dataset, measured, None))
    assert "i: does not exist; check the path" in text_of(tmp_path / "report.html")


@pytest.mark.parametrize("figure", [sizes_figure, intensity_figure])
@pytest.mark.parametrize("channels", [("image",), ("T1", "T2", "FLAIR")])
def test_figures_are_png_files(figure, channels: tuple[str, ...]) -> None:
    assert figure(looked_at(("a",), {1: "core"}, channels), LIGHT).startswith(b"\x89PNG")
