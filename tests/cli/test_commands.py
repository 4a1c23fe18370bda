"""What each command passes on and prints; the workflows themselves are tested elsewhere."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from focalis.volume import Grid, Volume, write_volume


@pytest.fixture
def masks(tmp_path):
    """Two cases of 512 voxels: the prediction of `a` is right, that of `b` is half of the truth."""
    for case, depth in (("a", 4), ("b", 2)):
        for folder, size in (("labels", 4), ("masks", depth)):
            array = np.zeros((8, 8, 8), np.uint8)
            array[:size, :4, :4] = 1
            write_volume(Volume(array, Grid((8, 8, 8))), tmp_path / folder / f"{case}.nii.gz")
    return tmp_path


def test_evaluate_prints_the_figures_and_writes_the_files(run, masks):
    code, out, _ = run("evaluate", masks / "masks", masks / "labels", "-o", masks / "scores")

    assert code == 0
    assert "2 cases, Dice 0.833" in out  # the mean of 1 and 2/3
    with (masks / "scores" / "cases.csv").open() as table:
        assert [float(row["dice"]) for row in csv.DictReader(table)] == pytest.approx([1, 2 / 3])
    assert (masks / "scores" / "report.html").is_file()


def test_evaluate_json_is_evaluation_json(run, masks):
    code, out, _ = run("evaluate", masks / "masks", masks / "labels", "-o", masks / "scores", "--json")

    assert code == 0
    assert json.loads(out) == json.loads((masks / "scores" / "evaluation.json").read_text())


def test_evaluate_names_a_truth_without_a_prediction(run, masks):
    (masks / "masks" / "b.nii.gz").unlink()

    code, _, err = run("evaluate", masks / "masks", masks / "labels")

    assert code == 1
    assert str(masks / "labels" / "b.nii.gz") in err


def test_fit_passes_its_options_on(run, monkeypatch, tmp_path):
    given = {}

    def fit(dataset, out, **options):
        from focalis.workflows.fit import FitResult

        given.update(options, dataset=dataset, out=out)
        return FitResult(run=out, plan=out / "plan.yaml")

    monkeypatch.setattr("focalis.workflows.fit.fit", fit)

    code, out, _ = run(
        "fit",
        "data",
        "-o",
        tmp_path,
        "--steps",
        7,
        "--fold",
        2,
        "--seed",
        5,
        "--plan-only",
        "--resume",
        "--json",
    )

    assert code == 0
    assert json.loads(out)["plan"] == str(tmp_path / "plan.yaml")
    assert given["dataset"] == Path("data")
    assert given["out"] == tmp_path
    assert (given["steps"], given["fold"], given["seed"]) == (7, 2, 5)
    assert given["plan_only"]
    assert given["resume"]
    assert given["minutes"] is None


def test_predict_tells_refused_cases_by_its_exit_code(run, monkeypatch, tmp_path):
    from focalis.lesions import OperatingPoint
    from focalis.workflows.predict import PredictReport, PredictRow

    rows = (
        PredictRow("a", "done", "", tmp_path / "a.nii.gz", 7, 1.0),
        PredictRow("b", "refused", "b.nii.gz: holds 3 voxels that are NaN; repair it", None, 0, 0.1),
    )
    point = OperatingPoint(0.4, "the model's: chosen", (), 12.0, 0.6, temperature=1.3)
    report = PredictReport(rows, point, scope_known=True, runtime="cpu, float32")
    monkeypatch.setattr("focalis.workflows.predict.predict", lambda *_args, **_options: report)

    code, out, err = run("predict", "model.safetensors", "scans", "-o", tmp_path)

    assert code == 1
    assert out.startswith("1 of 2 cases")
    assert (
        "threshold 0.4, minimum size 12 mm3, minimum confidence 0.6, temperature 1.3 (the model's: chosen)"
        in out
    )
    assert err == "refused: b.nii.gz: holds 3 voxels that are NaN; repair it\n"

    assert out.endswith("run time: cpu, float32\n")

    monkeypatch.setattr(
        "focalis.workflows.predict.predict",
        lambda *_args, **_options: replace(report, runtime="cpu, openvino int8"),
    )
    _, out, _ = run("predict", "model.safetensors", "scans", "-o", tmp_path)
    assert "openvino int8; chosen by timing, for the same mask everywhere: --runtime torch --precision" in out
    _, out, _ = run("predict", "model.safetensors", "scans", "-o", tmp_path, "--runtime", "openvino-int8")
    assert out.endswith("run time: cpu, openvino int8\n")

    strange = (replace(rows[1], outside=("it is a PT series, and the model is for CT",)),)
    monkeypatch.setattr(
        "focalis.workflows.predict.predict", lambda *_args, **_options: replace(report, rows=strange)
    )
    _, _, err = run("predict", "model.safetensors", "scans", "-o", tmp_path)
    first, second = err.splitlines()
    assert first.startswith("warning: b lies outside of what the model was trained on: it is a PT series")
    assert second.startswith("refused: b.nii.gz")

    monkeypatch.setattr(
        "focalis.workflows.predict.predict", lambda *_args, **_options: replace(report, rows=rows[1:])
    )
    code, out, err = run("predict", "model.safetensors", "scans", "-o", tmp_path)
    assert (code, out) == (1, "")  # nothing was written, so there is nothing to say of it
    assert err.startswith("refused: b.nii.gz")

    cut = (replace(rows[0], tiles=9, blended=True),)
    monkeypatch.setattr(
        "focalis.workflows.predict.predict", lambda *_args, **_options: replace(report, rows=cut)
    )
    _, _, err = run("predict", "model.safetensors", "scans", "-o", tmp_path)
    assert err.startswith(
        "note: 1 of 1 images went through the network in tiles that are blended (a in 9); a larger --memory-gb"
    )

    monkeypatch.setattr("focalis.workflows.predict.predict", lambda *_args, **_options: report)
    report = PredictReport(rows[:1], report.operating_point, scope_known=False, runtime="cpu, float32")
    code, out, err = run("predict", "model.safetensors", "scans", "-o", tmp_path)
    assert (code, err) == (
        0,
        "note: the model does not know its training images; no image was compared with them\n",
    )
