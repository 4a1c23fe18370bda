"""Tables of lesions: written by predict, read by evaluate, with the operating point that was used."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_plan import small_plan
from torch import nn

from focalis.errors import DataError, UsageError
from focalis.lesions import OperatingPoint, measure_lesions
from focalis.model import Model
from focalis.planning import NetworkSettings, Normalisation
from focalis.volume import Grid, Volume, read_volume, write_volume
from focalis.workflows.evaluate import evaluate
from focalis.workflows.lesion_tables import read_lesions
from focalis.workflows.predict import predict

GRID = Grid((24, 16, 12), (1.0, 1.0, 2.0), (4.0, 5.0, 6.0))


class Bright(nn.Module):
    """Foreground where the image is above 0; the gain is the member's own."""

    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = gain

    def forward(self, x):
        return torch.cat([-self.gain * x, self.gain * x], dim=1) / 2


CHOSEN = OperatingPoint(0.5, "chosen in a test")


def model(point=CHOSEN, members=1, temperature=1.0):
    plan = small_plan(
        spacing_zyx_mm=(2.0, 1.0, 1.0),
        normalisation=(Normalisation(kind="window", low=-99, high=99),),
        batch=1,
        network=NetworkSettings(strides_zyx=((2, 2, 2),)),
    )
    return Model(plan, tuple(Bright(1 + i) for i in range(members)), replace(point, temperature=temperature))


def scene(*blobs):
    """An image of log odds: -4 but in blobs (start and stop along x, log odds), six voxels high and 4 deep."""
    array = np.full(GRID.shape_zyx, -4, np.float32)
    for start, stop, odds in blobs:
        array[4:8, 5:11, start:stop] = odds
    return array


@pytest.fixture
def scans(tmp_path):
    """Two scans: in one a lesion is found, one missed and two invented; the other is empty, and one is invented."""
    images = {"a": scene((1, 5, 2.0), (8, 11, 0.5), (20, 22, 1.0)), "b": scene((14, 15, 0.7))}
    labels = {"a": scene((1, 5, 1), (14, 18, 1)) > 0, "b": scene() > 0}
    for name in images:
        write_volume(Volume(images[name], GRID), tmp_path / "images" / f"{name}.nii.gz")
        write_volume(Volume(labels[name].astype(np.uint8), GRID), tmp_path / "labels" / f"{name}.nii.gz")
    return tmp_path


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_predict_writes_what_is_measured_and_what_it_used(scans):
    report = predict(model(temperature=2.0), [scans / "images"], scans / "out", probabilities=True)
    assert [row.lesions for row in report.rows] == [3, 1]
    assert "chosen in a test" in str(report.operating_point)
    mask = read_volume(scans / "out" / "a.nii.gz")
    probability = read_volume(scans / "out" / "probabilities" / "a.nii.gz").array
    wanted = measure_lesions(mask.array, mask.grid, {1: "lesion"}, probability)
    found = read_lesions(scans / "out", "a")
    assert found == (wanted, 2.0)
    rows = table(scans / "out" / "lesions" / "a.csv")
    assert [float(row["volume_mm3"]) for row in rows] == [4 * 6 * n * 2 for n in (4, 3, 2)]
    assert [float(row["confidence"]) for row in rows] == pytest.approx(
        [1 / (1 + np.exp(-odds / 2)) for odds in (2.0, 0.5, 1.0)], abs=1e-5
    )
    document = json.loads((scans / "out" / "lesions" / "a.json").read_text(encoding="utf-8"))
    assert (document["threshold"], document["temperature"], document["connectivity"]) == (0.5, 2.0, 26)


def test_the_models_point_drops_lesions_and_another_can_be_given(scans):
    point = OperatingPoint(0.5, "chosen", (), minimum_mm3=60, minimum_confidence=0.65)
    own = predict(model(point), [scans / "images"], scans / "own")
    assert [row.lesions for row in own.rows] == [2, 0]  # odds of 0.5 are too unsure, 48 mm3 too small
    some = predict(model(point), [scans / "images"], scans / "some", min_confidence=0, min_size_mm3=0)
    assert [row.lesions for row in some.rows] == [3, 1]
    assert some.operating_point.how == "minimum size, minimum confidence given, the rest the model's"
    every = predict(
        model(point), [scans / "images"], scans / "all", threshold=0.01, min_confidence=0.9, min_size_mm3=0
    )
    assert every.operating_point.how == "threshold, minimum size, minimum confidence given"
    assert [row.lesions for row in every.rows] == [0, 0]  # one component of everything, at odds of 2 at most


def test_impossible_points_are_refused(scans):
    with pytest.raises(UsageError, match="minimum confidence"):
        predict(model(), [scans / "images"], scans / "out", min_confidence=1.5)
    with pytest.raises(UsageError, match="minimum size"):
        predict(model(), [scans / "images"], scans / "out", min_size_mm3=-1)


def test_uncertainty_of_an_ensemble_is_written_and_of_one_pass_refused(scans):
    report = predict(model(members=2), [scans / "images"], scans / "out", uncertainty=True)
    assert not report.refused
    spread = read_volume(scans / "out" / "uncertainty" / "a.nii.gz").array
    one, two = (1 / (1 + np.exp(-np.float32(2.0) * gain)) for gain in (1, 2))
    assert spread[5, 7, 2] == pytest.approx((two - one) / 2, abs=1e-3)
    assert all(float(row["uncertainty"]) > 0 for row in table(scans / "out" / "lesions" / "a.csv"))
    with pytest.raises(UsageError, match="add mirror=True"):
        predict(model(), [scans / "images"], scans / "alone", uncertainty=True)
    assert not (scans / "alone").exists()


def test_evaluate_uses_the_tables(scans):
    predict(model(temperature=2.0), [scans / "images"], scans / "out", probabilities=True)
    evaluation = evaluate(scans / "out", scans / "labels", scans / "scores")
    detection = evaluation.detection
    assert detection is not None
    assert detection.froc is not None
    last = detection.froc.points[-1]
    assert (last.sensitivity, last.fp_per_scan, last.fp_per_empty_scan) == (0.5, 1.5, 1.0)
    assert detection.froc.points[0].fp_per_scan == 0  # the surest lesion is the right one
    assert detection.calibration.temperatures == (2.0,)
    assert detection.calibration.voxels_before is not None
    assert detection.risk[0].aurc == detection.risk[0].perfect
    rows = table(scans / "scores" / "lesions.csv")
    assert sorted((row["case"], row["side"], row["status"]) for row in rows) == [
        ("a", "predicted", "false positive"),
        ("a", "predicted", "false positive"),
        ("a", "predicted", "right"),
        ("a", "true", "found"),
        ("a", "true", "missed"),
        ("b", "predicted", "false positive"),
    ]
    assert len(table(scans / "scores" / "froc.csv")) == len(detection.froc.points)
    assert (scans / "scores" / "froc.png").read_bytes().startswith(b"\x89PNG")
    page = (scans / "scores" / "report.html").read_text(encoding="utf-8")
    for heading in (
        "Lesions found against false positives",
        "Calibration",
        "Missed lesions: 1",
        "False positives: 3",
    ):
        assert heading in page
    document = json.loads((scans / "scores" / "evaluation.json").read_text(encoding="utf-8"))
    assert document["detection"]["froc"]["lesions"] == 2


def test_the_temperature_is_undone_for_the_figure_before_it(scans):
    predict(model(temperature=2.0), [scans / "images"], scans / "warm", probabilities=True)
    predict(model(), [scans / "images"], scans / "raw", probabilities=True)
    warm, raw = (evaluate(scans / name, scans / "labels", None).detection for name in ("warm", "raw"))
    assert warm is not None
    assert raw is not None
    assert warm.calibration.voxels_before.ece == pytest.approx(raw.calibration.voxels_after.ece, abs=1e-3)
    assert warm.calibration.lesions_before.ece == pytest.approx(raw.calibration.lesions_after.ece, abs=1e-3)


def test_without_tables_lesions_are_judged_all_the_same(scans):
    predict(model(), [scans / "images"], scans / "out")
    for path in (scans / "out" / "lesions").iterdir():
        path.unlink()
    evaluation = evaluate(scans / "out", scans / "labels", scans / "scores")
    assert evaluation.detection is None
    assert len(evaluation.lesions) == 6
    assert not (scans / "scores" / "froc.csv").exists()


def test_a_minimum_size_is_declared_and_used(scans):
    predict(model(), [scans / "images"], scans / "out")
    evaluation = evaluate(scans / "out", scans / "labels", None, min_lesion_mm3=100)
    assert sum(score.predicted_lesions for score in evaluation.scores) == 2
    assert sum(row.side == "predicted" for row in evaluation.lesions) == 2
    assert evaluation.to_json()["rules"]["lesion_minimum_mm3"] == 100
    with pytest.raises(UsageError, match="minimum size"):
        evaluate(scans / "out", scans / "labels", None, min_lesion_mm3=-1)


def test_a_table_of_another_mask_is_an_error(scans):
    predict(model(), [scans / "images"], scans / "out")
    write_volume(Volume(np.zeros(GRID.shape_zyx, np.uint8), GRID), scans / "out" / "a.nii.gz")
    with pytest.raises(DataError, match=r"a\.json: does not belong"):
        evaluate(scans / "out", scans / "labels", None)
    (scans / "out" / "lesions" / "a.json").write_text('{"lesions": [{}]}', encoding="utf-8")
    with pytest.raises(DataError, match="not a table of lesions"):
        evaluate(scans / "out", scans / "labels", None)
