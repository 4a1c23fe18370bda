"""Channels that may miss: in training, in prediction and in the figures."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_plan import small_plan
from typer.testing import CliRunner

import focalis
from focalis.cli.main import app
from focalis.dataset import Case, open_dataset
from focalis.errors import DataError, ModelError, UsageError
from focalis.evaluation import evaluate_case
from focalis.evaluation.missing import by_channels, channels_line
from focalis.model import load_model, save_model
from focalis.planning import describe, fingerprint, learn_scope, outside, prepare_image, read_plan
from focalis.prediction import segment
from focalis.training.batches import make_batch
from focalis.training.prepared import TrainingCase
from focalis.volume import Absent, Grid, Volume, read_volume, to_sitk, write_volume
from focalis.workflows import comparison
from focalis.workflows.compare import Row, compare, shared_plans
from focalis.workflows.evaluate import evaluate
from focalis.workflows.fit import fit
from focalis.workflows.predict import predict

GRID = Grid((20, 18, 16))


def a_set(root: Path, channels: list[str]) -> Path:
    """A case per entry: the first letters of the channels that it has, F for FLAIR and T for T1."""
    for number, has in enumerate(channels):
        rng = np.random.default_rng(number)
        label = np.zeros(GRID.shape_zyx, np.uint8)
        label[6:10, 6:10, 6:12] = 1
        for letter, name in (("F", "FLAIR"), ("T", "T1")):
            if letter in has:
                image = rng.normal(0, 1, GRID.shape_zyx).astype(np.float32) + 4 * label
                write_volume(Volume(image, GRID), root / "images" / f"c{number}_{name}.nii.gz")
        write_volume(Volume(label, GRID), root / "labels" / f"c{number}.nii.gz")
    return root


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A model of two channels that was trained on cases of which two lack T1."""
    folder = tmp_path_factory.mktemp("missing")
    root = a_set(folder / "d", ["FT", "FT", "F", "FT", "F", "FT"])
    splits = [{"train": ["c0", "c1", "c2", "c3"], "val": ["c4", "c5"]}]
    (root / "splits.json").write_text(json.dumps(splits))
    return root, fit(root, folder / "run", steps=1, eight_bit=False, fold=0, channels_may_miss=["T1"])


def test_cases_of_folders_may_lack_what_may_miss(tmp_path):
    root = a_set(tmp_path, ["FT", "F", "T"])
    with pytest.raises(DataError, match="case c1 has no channel T1, case c2 has no channel FLAIR"):
        open_dataset(root)
    with pytest.raises(DataError, match="case c2 has no channel FLAIR"):
        open_dataset(root, ["T1"])
    (root / "images" / "c2_T1.nii.gz").rename(root / "images" / "c2_FLAIR.nii.gz")
    data = open_dataset(root, ["T1"])
    assert data.channels == ("FLAIR", "T1")
    assert [case.lacks for case in data.cases] == [frozenset(), {1}, {1}]
    volumes = data.cases[1].read_images()
    assert [isinstance(volume, Absent) for volume in volumes] == [False, True]
    assert volumes[1].grid == volumes[0].grid


def test_the_first_channel_may_miss_too(tmp_path):
    (case,) = open_dataset(a_set(tmp_path, ["FT", "T"]), ["FLAIR"]).cases[1:]
    assert (case.lacks, case.channels, [path.name for path in case.images]) == ({0}, (1,), ["c1_T1.nii.gz"])


def test_pictures_show_the_first_channel_that_a_case_has(tmp_path):
    cases = open_dataset(a_set(tmp_path, ["FT", "T"]), ["FLAIR"]).cases
    for case, name in zip(cases, ("c0_FLAIR", "c1_T1"), strict=True):
        expected = read_volume(tmp_path / "images" / f"{name}.nii.gz").array
        np.testing.assert_array_equal(case.read_first_image().array, expected)


@pytest.mark.slow
def test_pictures_of_a_comparison_show_a_channel_of_a_case_without_the_first(tmp_path, monkeypatch):
    shown = []

    def figure(image, _label, _predictions, _case):
        shown.append(image)
        return b""

    monkeypatch.setattr(comparison, "contours_figure", figure)
    root = a_set(tmp_path / "d", ["FT", "FT", "FT", "FT", "T"])
    names = [f"c{number}" for number in range(5)]
    (root / "splits.json").write_text(json.dumps([{"train": names[:4], "val": names[4:]}]))
    losses, may_miss = ["dice_cross_entropy", "focal"], ["FLAIR"]
    compare(root, tmp_path / "rows", losses=losses, channels_may_miss=may_miss, steps=1, on="here")
    assert shown
    assert not any(isinstance(image, Absent) for image in shown)


def test_numbered_channels_and_empty_cells_may_miss(tmp_path):
    for name in ("a_0000", "a_0001", "b_0001"):
        (tmp_path / "imagesTr").mkdir(exist_ok=True)
        (tmp_path / "imagesTr" / f"{name}.nii.gz").touch()
    (tmp_path / "labelsTr").mkdir()
    for name in "ab":
        (tmp_path / "labelsTr" / f"{name}.nii.gz").touch()
    (tmp_path / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "T2", "1": "ADC"}, "labels": {"x": 1}})
    )
    with pytest.raises(DataError, match="case b has no channel 0000"):
        open_dataset(tmp_path, ["ADC"])
    assert open_dataset(tmp_path, ["T2"]).cases[1].lacks == {0}
    rows = "case,image_T2,image_ADC,label\na,imagesTr/a_0000.nii.gz,imagesTr/a_0001.nii.gz,\n"
    rows += "b,,imagesTr/b_0001.nii.gz,\n"
    (tmp_path / "m.csv").write_text(rows)
    with pytest.raises(DataError, match="image_T2 of case b is empty"):
        open_dataset(tmp_path / "m.csv")
    assert [case.lacks for case in open_dataset(tmp_path / "m.csv", ["T2"]).cases] == [frozenset(), {0}]


@pytest.mark.parametrize(
    ("may_miss", "said"),
    [
        (["T2"], "has no channel 'T2' that may miss; its channels are FLAIR, T1"),
        (["T1", "FLAIR"], "all channels"),
    ],
)
def test_what_may_miss_must_be_channels_and_not_all(tmp_path, may_miss, said):
    with pytest.raises(UsageError, match=said):
        open_dataset(a_set(tmp_path, ["FT"]), may_miss)


def two_channels(**changes):
    normalisation = small_plan().normalisation * 2
    return small_plan(
        channels=("FLAIR", "T1"), normalisation=normalisation, channels_may_miss=("T1",), **changes
    )


def test_a_share_of_the_patches_goes_without_the_channel_and_always_where_the_case_lacks_it():
    shape = (12, 12, 12)
    image = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    whole = TrainingCase("a", image, np.zeros(shape, np.uint8), np.ones(shape, np.float16), ())
    lacking = TrainingCase("b", image * [[[[1]]], [[[0]]]], whole.label, whole.distance_mm, (), lacks=(1,))
    plan = two_channels(batch=8)
    zero = [
        [(patch == 0).all().item() for patch in make_batch([case], plan, 0, step).image.flatten(0, 1)]
        for case in (whole, lacking)
        for step in range(25)
    ]
    first, second = np.array(zero[:25]).reshape(-1, 2), np.array(zero[25:]).reshape(-1, 2)
    assert not first[:, 0].any()
    assert 0.22 < first[:, 1].mean() < 0.38
    assert second[:, 1].all()
    assert not second[:, 0].any()


def test_an_absent_channel_is_zero_whatever_its_normalisation_and_has_no_figures():
    plan = two_channels()
    image = Volume(np.random.default_rng(0).normal(size=GRID.shape_zyx).astype(np.float32), GRID)
    window = plan.normalisation[0].model_copy(update={"kind": "window", "low": 5.0, "high": 9.0, "mean": 7.0})
    plan = plan.model_copy(update={"normalisation": (plan.normalisation[0], window)})
    assert not prepare_image([image, Absent.on(GRID)], plan).array[1].any()
    cases = [describe([image, image if n else Absent.on(GRID)], plan.normalisation) for n in range(6)]
    scope = learn_scope(cases)
    assert len(scope.thumbnails) == 2
    assert outside(scope, cases[0], plan.channels) == ()


def test_a_run_says_what_is_lost_without_the_channel(fitted):
    _, result = fitted
    assert read_plan(result.plan).channels_may_miss == ("T1",)
    groups = json.loads((result.run / "record.json").read_text())["by_channels"]
    assert {group: each["cases"] for group, each in groups.items()} == {"all channels": 1, "without T1": 2}
    assert any("without T1 (2 cases)" in line for line in result.caveats)
    assert load_model(result.model).plan.channels_may_miss == ("T1",)


def test_a_promise_does_not_hold_for_a_case_that_lacks_a_channel(fitted, tmp_path):
    root, result = fitted
    model = load_model(result.model)
    promise = "at most 10 % of a scan's lesions missed on average"
    promising = replace(model, operating_point=replace(model.operating_point, promise=promise))
    predict(promising, [root / "images"], tmp_path / "masks")
    told = {
        case: json.loads((tmp_path / "masks" / "lesions" / f"{case}.json").read_text())["promise"]
        for case in ("c3", "c4")
    }
    assert told == {"c3": promise, "c4": "none: the case lacks a channel"}
    again = predict(promising, [root / "images"], tmp_path / "masks", resume=True)
    assert {row.status for row in again.rows} == {"kept"}

    save_model(promising, tmp_path / "promising.safetensors")
    loaded = focalis.load(tmp_path / "promising.safetensors")
    noise = np.random.default_rng(9).normal(0, 1, GRID.shape_zyx)
    assert (
        loaded.segment([noise, None], GRID.spacing_zyx_mm).point.promise == "none: the case lacks a channel"
    )
    assert loaded.segment([noise, noise], GRID.spacing_zyx_mm).point.promise == promise


def test_each_prediction_says_what_was_missing_and_evaluate_reports_both(fitted, tmp_path):
    root, result = fitted
    report = predict(result.model, [root / "images"], tmp_path / "masks")
    assert {row.case: row.missing for row in report.rows if row.missing} == {"c2": ("T1",), "c4": ("T1",)}
    table = json.loads((tmp_path / "masks" / "lesions" / "c4.json").read_text())
    assert table["channels_missing"] == ["T1"]
    found = evaluate(tmp_path / "masks", root / "labels", tmp_path / "scores")
    assert {group: each["cases"] for group, each in found.channels.items()} == {
        "all channels": 4,
        "without T1": 2,
    }
    assert json.loads((tmp_path / "scores" / "evaluation.json").read_text())["by_channels"] == found.channels
    said = CliRunner().invoke(
        app, ["predict", str(result.model), str(root / "images"), "-o", str(tmp_path / "again")]
    )
    assert "note: c2 was predicted without T1" in said.stderr


def test_a_channel_that_must_be_there_is_asked_for(fitted, tmp_path):
    root, result = fitted
    alone = tmp_path / "in" / "x_T1.nii.gz"
    alone.parent.mkdir()
    alone.write_bytes((root / "images" / "c0_T1.nii.gz").read_bytes())
    (row,) = predict(result.model, [alone.parent], tmp_path / "masks").rows
    assert "case x lacks channel FLAIR" in row.reason


def test_figures_are_of_the_cases_of_each_group():
    truth = Volume(np.eye(4, dtype=np.uint8)[None].repeat(4, 0), Grid((4, 4, 4)))
    empty = Volume(np.zeros((4, 4, 4), np.uint8), Grid((4, 4, 4)))
    rows = [
        (missing, score)
        for case, missing, mask in (("a", (), truth), ("b", (), empty), ("a", ("T1",), empty))
        for score in evaluate_case(truth, mask, {1: "x"}, case=case)
    ]
    assert (
        channels_line(by_channels(rows))
        == "mean Dice 0.500 all channels (2 cases), 0.000 without T1 (1 case)"
    )
    assert by_channels(rows[:2]) == {}


def test_a_case_without_lacking_channels_is_as_before():
    assert Case("a", (Path("a.nii"),), None).channels == (0,)


def test_check_knows_what_may_miss(tmp_path):
    root = a_set(tmp_path, ["FT", "F", "FT"])
    words = ["check", str(root)]
    assert CliRunner().invoke(app, words).exit_code == 1
    found = CliRunner().invoke(app, [*words, "--channels-may-miss", "T1"])
    assert (found.exit_code, "3 cases, 0 errors" in found.output) == (0, True), found.output


def test_an_array_may_lack_a_channel(fitted):
    root, result = fitted
    model = focalis.load(result.model)
    flair, t1 = (read_volume(root / "images" / f"c5_{name}.nii.gz") for name in ("FLAIR", "T1"))
    (case,) = (case for case in open_dataset(root, ["T1"]).cases if case.name == "c5")
    expected = segment(model, [case.read_images()[0], Absent.on(flair.grid)])
    found = model.segment([flair.array, None], spacing_mm=(1, 1, 1), orientation="SPL")
    np.testing.assert_array_equal(found.mask, expected.mask)
    both = model.segment([to_sitk(flair), to_sitk(t1)])
    assert not np.array_equal(both.probability, found.probability)
    with pytest.raises(ModelError, match="channel FLAIR is missing"):
        model.segment([None, t1.array], spacing_mm=(1, 1, 1))
    with pytest.raises(UsageError, match="no image is given"):
        model.segment([None, None], spacing_mm=(1, 1, 1))


def test_the_rows_of_a_comparison_may_miss_what_the_data_set_lacks(tmp_path):
    data = replace(open_dataset(a_set(tmp_path, ["FT", "F", "FT"]), ["T1"]), labels={1: "lesion"})
    rows = [Row("dense", "dice_cross_entropy"), Row("dense", "tversky")]
    plans = shared_plans(data, fingerprint(data.cases, data.ignore), rows, 4.0, None, ("T1",))
    assert {plan.channels_may_miss for plan in plans.values()} == {("T1",)}
