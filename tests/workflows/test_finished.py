"""`predict` in parts, and what it keeps of an earlier run."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from device_work import save_tiny_model
from torch import nn
from typer.testing import CliRunner

from focalis.cli.main import app
from focalis.errors import UsageError
from focalis.lesions import OperatingPoint
from focalis.model import Model
from focalis.planning import NetworkSettings, Normalisation, Plan
from focalis.prediction import segment
from focalis.volume import Grid, Volume, read_volume, write_volume
from focalis.workflows.finished import part_of
from focalis.workflows.predict import predict

GRID = Grid((8, 9, 10), (1.0, 2.0, 3.0), (0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0))
OPTIONS = {"device": "cpu", "runtime": "torch", "precision": "float32"}


class Sign(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        x = self.scale * x.sum(dim=1, keepdim=True)
        return torch.cat([-x, x], dim=1)


@pytest.fixture
def model():
    plan = Plan(
        channels=("image",),
        labels={3: "lesion"},
        spacing_zyx_mm=(3.0, 2.0, 1.0),
        normalisation=(Normalisation(kind="window", low=-99, high=99),),
        patch_zyx=(8, 8, 8),
        batch=1,
        network=NetworkSettings(strides_zyx=((2, 2, 2),)),
    )
    return Model(plan, (Sign(),), OperatingPoint(0.5))


@pytest.fixture
def images(tmp_path):
    for number in range(5):
        values = np.random.default_rng(number).normal(size=GRID.shape_zyx).astype(np.float32)
        write_volume(Volume(values, GRID), tmp_path / "images" / f"case{number}.nii.gz")
    return tmp_path / "images"


def results(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def states(report):
    return {row.case: row.status for row in report.rows}


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_parts_together_are_all_cases_once(parts):
    cases = list("abcde")
    found = [part_of(cases, f"{number}/{parts}") for number in range(1, parts + 1)]
    assert sorted(case for each in found for case in each) == cases


@pytest.mark.parametrize("part", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3", ""])
def test_what_is_not_a_part_is_refused(part):
    with pytest.raises(UsageError, match="give I/N"):
        part_of([1], part)


def test_parts_into_one_folder_come_to_what_one_run_writes(model, images, tmp_path):
    predict(model, [images], tmp_path / "one", **OPTIONS)
    reports = [predict(model, [images], tmp_path / "parts", part=part, **OPTIONS) for part in ("1/2", "2/2")]
    assert [len(report.rows) for report in reports] == [3, 2]
    assert not any(report.older_masks for report in reports)
    assert results(tmp_path / "parts") == results(tmp_path / "one")


def test_finished_cases_are_kept_and_the_others_made(model, images, tmp_path):
    out = tmp_path / "out"
    first = predict(model, [images], out, **OPTIONS)
    (out / "case1.nii.gz").unlink()
    (out / "lesions" / "case3.json").unlink()
    before = results(out)
    again = predict(model, [images], out, resume=True, **OPTIONS)

    assert states(again) == {
        "case0": "kept", "case1": "done", "case2": "kept", "case3": "done", "case4": "kept"
    }  # fmt: skip
    for row, earlier in zip(again.rows, first.rows, strict=True):
        assert (row.foreground_voxels, row.lesions, row.output, row.outside) == (
            earlier.foreground_voxels,
            earlier.lesions,
            earlier.output,
            earlier.outside,
        )
    assert before.items() <= results(out).items()


@pytest.mark.parametrize("older", [False, True])
def test_a_case_whose_image_was_replaced_is_predicted_again(model, images, tmp_path, older):
    """Also by a file whose time of content was set back."""
    out = tmp_path / "out"
    predict(model, [images], out, **OPTIONS)
    values = np.random.default_rng(9).uniform(1, 2, GRID.shape_zyx).astype(np.float32)
    write_volume(Volume(values, GRID), images / "case2.nii.gz")
    if older:
        os.utime(images / "case2.nii.gz", (1e9, 1e9))
    again = predict(model, [images], out, resume=True, **OPTIONS)
    assert [case for case, status in states(again).items() if status == "done"] == ["case2"]
    assert again.rows[2].foreground_voxels == np.prod(GRID.shape_zyx)


def test_a_mask_of_an_image_that_was_replaced_meanwhile_is_not_kept(model, images, tmp_path, monkeypatch):
    out, place = tmp_path / "out", images / "case2.nii.gz"
    values = np.random.default_rng(9).uniform(1, 2, GRID.shape_zyx).astype(np.float32)

    def slowly(*arguments, **options):
        found = segment(*arguments, **options)
        write_volume(Volume(values, GRID), place)
        return found

    with monkeypatch.context() as patch:
        patch.setattr("focalis.workflows.predict_case.segment", slowly)
        report = predict(model, [place], out, **OPTIONS)
    assert [row.reason for row in report.refused] == [f"{place}: changed after it was read; start again"]
    assert not list(out.rglob("case2*"))
    again = predict(model, [place], out, resume=True, **OPTIONS)
    assert again.rows[0].foreground_voxels == np.prod(GRID.shape_zyx)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"threshold": 0.7}, "threshold"),
        ({"min_size_mm3": 9.0}, "minimum_mm3"),
        ({"memory_gb": 3.0}, "memory_gb"),
    ],
)
def test_a_case_of_other_settings_is_named_and_left_alone(model, images, tmp_path, changes, named):
    out = tmp_path / "out"
    predict(model, [images], out, part="1/3", **OPTIONS)
    before = results(out)
    again = predict(model, [images], out, resume=True, **OPTIONS, **changes)
    assert sorted(row.case for row in again.refused) == ["case0", "case3"]
    assert f"case0.json: is of another {named}, and is left as it is" in again.refused[0].reason
    assert before.items() <= results(out).items()


def test_a_case_of_another_model_is_named(model, images, tmp_path):
    predict(model, [images], tmp_path / "out", part="1/5", **OPTIONS)
    with torch.no_grad():
        model.members[0].scale.fill_(2.0)
    again = predict(model, [images], tmp_path / "out", resume=True, part="1/5", **OPTIONS)
    assert "is of another model" in again.refused[0].reason


@pytest.mark.parametrize("newer", [False, True])
def test_a_case_of_another_folder_and_the_same_name_is_named_and_left_alone(model, tmp_path, newer):
    for number, folder in enumerate("ab"):
        values = np.random.default_rng(number).normal(size=GRID.shape_zyx).astype(np.float32)
        write_volume(Volume(values, GRID), tmp_path / folder / "case1.nii.gz")
    out = tmp_path / "out"
    predict(model, [tmp_path / "a"], out, **OPTIONS)
    before = results(out)
    if newer:
        (tmp_path / "b" / "case1.nii.gz").touch()
    again = predict(model, [tmp_path / "b"], out, resume=True, **OPTIONS)
    assert "case1.json: is of other images of the same name, and is left as it is" in again.refused[0].reason
    assert results(out) == before


def test_series_of_one_name_are_told_by_their_uid(model, write_series, tmp_path):
    grid = Grid((8, 9, 10), (1.0, 2.0, 3.0))
    for number, folder in enumerate(("p1/CT", "p2/CT")):
        values = np.random.default_rng(number).integers(-90, 90, grid.shape_zyx).astype(np.int16)
        write_series(tmp_path / folder, values, grid)
    out = tmp_path / "out"
    first = predict(model, [tmp_path / "p1" / "CT"], out, output_format="seg", **OPTIONS)
    shutil.move(tmp_path / "p1", tmp_path / "moved")
    moved = predict(model, [tmp_path / "moved" / "CT"], out, output_format="seg", resume=True, **OPTIONS)
    other = predict(model, [tmp_path / "p2" / "CT"], out, output_format="seg", resume=True, **OPTIONS)
    assert [each.rows[0].status for each in (first, other)] == ["done", "refused"]
    assert moved.rows[0].status in ("kept", "done")  # a move on another disk changes the files' times
    assert "is of other images of the same name" in other.rows[0].reason


KILLED = """
import os, sys, focalis
from focalis.workflows import predict_case

predict_case.write_lesions = lambda *_: os._exit(9)
focalis.predict(sys.argv[1], [sys.argv[2]], sys.argv[3], threshold=0.9, device="cpu", runtime="torch")
"""


def test_a_kill_between_mask_and_table_leaves_no_table_for_another_mask(images, tmp_path):
    named, image, out = save_tiny_model(tmp_path / "m.safetensors"), images / "case1.nii.gz", tmp_path / "out"
    predict(named, [image], out, **OPTIONS)
    killed = subprocess.run([sys.executable, "-c", KILLED, named, image, out], check=False)
    assert killed.returncode == 9
    (row,) = predict(named, [image], out, resume=True, **OPTIONS).rows
    assert (row.status, np.count_nonzero(read_volume(row.output).array)) == ("done", row.foreground_voxels)


def test_what_a_run_did_not_write_is_made(model, images, tmp_path):
    predict(model, [images], tmp_path / "out", **OPTIONS)
    again = predict(model, [images], tmp_path / "out", resume=True, probabilities=True, **OPTIONS)
    assert set(states(again).values()) == {"done"}


def test_the_command_says_how_many_were_finished_before(images, tmp_path):
    words = ["predict", "lidc-nodule", str(images), "-o", str(tmp_path / "out"), "--part", "6/5"]
    said = CliRunner().invoke(app, words)
    assert said.exit_code == 2
    assert "give I/N" in said.output
