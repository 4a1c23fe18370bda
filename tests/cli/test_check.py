"""`focalis check` as a command: what it prints, and its exit code."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner, Result

from focalis.cli.check import check
from focalis.volume import Grid, Volume, write_volume

SIZE = (8, 8, 8)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Seven cases, each with a single voxel beside its lesion."""
    rng = np.random.default_rng(0)
    for number in range(7):
        label = np.pad(np.ones((4, 3, 3), np.uint8), ((2, 2), (1, 4), (1, 4)))
        label[2 if number % 2 else 3, 6, 3 + number // 2] = 1
        write_volume(
            Volume(rng.normal(size=SIZE).astype(np.float32), Grid(SIZE)),
            tmp_path / "data/images" / f"c{number}.nii.gz",
        )
        write_volume(Volume(label, Grid(SIZE)), tmp_path / "data/labels" / f"c{number}.nii.gz")
    return tmp_path / "data"


def run(*words: object) -> Result:
    app = typer.Typer()
    app.command()(check)
    return CliRunner().invoke(app, [str(word) for word in words])


def test_warnings_are_printed_the_first_of_a_kind_and_do_not_fail(data: Path, tmp_path: Path) -> None:
    done = run(data, "-o", tmp_path / "out")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0] == "7 cases, 0 errors, 7 warnings"
    assert lines[1] == "Lesions of a few voxels:"
    assert lines[2].startswith(
        "  c0: lesions of fewer than 8 voxels at the planned spacing: 1 of 2 of label 1"
    )
    assert lines[7:] == [
        "  and 2 more; -o OUT writes them all",
        f"report: {tmp_path / 'out' / 'report.html'}",
    ]
    assert (tmp_path / "out" / "report.html").is_file()


def test_an_error_is_exit_code_1_and_the_report_is_written_all_the_same(data: Path, tmp_path: Path) -> None:
    (data / "labels/c3.nii.gz").unlink()
    done = run(data, "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert f"error: c3: {data / 'images/c3.nii.gz'}: has no label" in done.stderr
    assert done.stdout.startswith("7 cases, 1 error, 6 warnings\n")
    assert (tmp_path / "out" / "report.html").is_file()


def test_json_on_stdout_is_check_json(data: Path, tmp_path: Path) -> None:
    done = run(data, "-o", tmp_path / "out", "--json")
    assert json.loads(done.stdout) == json.loads((tmp_path / "out" / "check.json").read_text())


def test_a_splits_file_is_passed_on(data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('[{"train": ["c0"], "val": ["unknown"]}]')
    done = run(data, "--splits", tmp_path / "mine.json")
    assert done.exit_code == 1
    assert "names unknown, not in the data set" in done.stderr
