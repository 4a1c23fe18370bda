"""`focalis follow` on the command line: what it passes on, what it prints, and how it fails."""

import json
from pathlib import Path
from typing import Any

import pytest
from follow_scenes import Ball, grid_of, scan

from focalis.cli.main import main
from focalis.models import SHIPPED
from focalis.volume import write_volume

Answer = tuple[int, str, str]


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A folder with a scan, its mask with a lesion of 24 mm, and the mask of another size."""
    grid = grid_of((8, 8, 8))
    image, label = scan([Ball((20, 10, 15), 12)], grid)
    write_volume(image, tmp_path / "a.nii.gz")
    write_volume(label, tmp_path / "mask.nii.gz")
    write_volume(scan([], grid_of((12, 12, 12)))[1], tmp_path / "other.nii.gz")
    return tmp_path


@pytest.fixture
def run(pair: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*words: str) -> Answer:
        given = [str(pair / word) if word.endswith((".nii.gz", "out")) else word for word in words]
        with pytest.raises(SystemExit) as stopped:
            main(["follow", *given])
        printed = capsys.readouterr()
        return int(stopped.value.code or 0), printed.out, printed.err

    return call


TWO = ("a.nii.gz", "a.nii.gz", "-o", "out", "--masks", "mask.nii.gz", "--masks", "mask.nii.gz")


def test_the_example_of_the_help_names_no_model_that_needs_points(run: Any) -> None:
    code, out, _ = run("--help")
    assert code == 0
    example = out.partition("Example: ")[2].partition("Guide: ")[0]
    assert "focalis follow january/ april/ --model " in example
    assert "--at" in example or not any(name in example for name in SHIPPED)


def test_a_line_per_date_and_the_response_are_printed(run: Any, pair: Path) -> None:
    code, out, err = run(*TWO, "--dates", "2026-01-05,2026-04-05", "--targets", "1")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "1_a of 2026-01-05: 1 baseline"
    assert lines[1] == "2_a of 2026-04-05: 1 persistent"
    assert lines[2].startswith("targets 1: ")
    assert lines[2].endswith(" mm (SD)")
    assert lines[3] == f"report: {pair / 'out' / 'report.html'}"
    assert "warning: " in err
    assert "holds the same values" in err


def test_json_is_that_of_the_file(run: Any, pair: Path) -> None:
    code, out, _ = run(*TWO, "--json")
    assert code == 0
    assert json.loads(out) == json.loads((pair / "out" / "follow.json").read_text())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (TWO[:4], "--model"),
        (TWO[1:], "give one per scan"),
        (TWO[:6], "give one per scan"),
        ((*TWO, "--model", "lidc-nodule"), "or a mask for each scan"),
        ((*TWO, "--targets", "1;2"), "--targets: '1;2' are not numbers"),
        ((*TWO, "--targets", ""), "--targets: '' are not numbers"),
        ((*TWO, "--dates", "2026-01-05"), "one date per scan"),
        ((*TWO, "--dates", "2026-01-05,2025-13-01"), "'2025-13-01' is not a date"),
        ((*TWO, "--dates", ""), "one date per scan"),
        ((*TWO, "--dates", "2026-02-05,2026-01-05"), "give the earlier"),
    ],
)
def test_a_wrong_call_ends_with_2_and_one_line(
    run: Any, pair: Path, words: tuple[str, ...], said: str
) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (pair / "out").exists()


def test_a_target_that_is_not_there_ends_with_2(run: Any, pair: Path) -> None:
    code, out, err = run(*TWO, "--targets", "4")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: --targets: lesion 4 is not there on the first date")
    assert "register" not in err
    assert not (pair / "out").exists()


@pytest.mark.parametrize(
    "words",
    [
        (*TWO[:6], "--masks", "other.nii.gz"),
        ("a.nii.gz", "none.nii.gz", *TWO[2:]),
        (*TWO[:4], "--model", "lidc-nodule"),
    ],
)
def test_what_cannot_be_used_ends_with_1_and_names_the_file(
    run: Any, pair: Path, words: tuple[str, ...]
) -> None:
    code, out, err = run(*words)
    assert (code, out) == (1, "")
    assert str(pair) in err
    assert len(err.splitlines()) == 1
    assert not (pair / "out").exists()
