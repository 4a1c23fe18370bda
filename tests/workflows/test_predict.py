"""Many files, one model: what works is done, what does not is refused with its reason."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from focalis.cli.main import app, main
from focalis.errors import DataError, ModelError, UsageError
from focalis.lesions import OperatingPoint
from focalis.model import Model, Refinement, open_model, save_model
from focalis.networks import build_network
from focalis.planning import NetworkSettings, Normalisation, Plan, describe, learn_scope
from focalis.prediction import plan_passes
from focalis.volume import Grid, Volume, read_segments, read_volume, write_volume
from focalis.volume import read_channels as right_channels
from focalis.workflows import case_images, predict_case, result_files
from focalis.workflows.predict import predict

GRID = Grid((8, 9, 10), (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0))


class Positive(nn.Module):
    def forward(self, x):
        x = x.sum(dim=1, keepdim=True)
        return torch.cat([-x, x], dim=1)


def plan(channels=("image",)):
    return Plan(
        channels=channels,
        labels={3: "lesion"},
        spacing_zyx_mm=(3.0, 1.0, 2.0),
        normalisation=(Normalisation(kind="window", low=-99, high=99),) * len(channels),
        patch_zyx=(8, 8, 8),
        batch=1,
        network=NetworkSettings(strides_zyx=((2, 2, 2),)),
    )


def model(channels=("image",)):
    return Model(plan(channels), (Positive(),), OperatingPoint(0.5))


def image(path, seed=0, grid=GRID):
    volume = Volume(np.random.default_rng(seed).normal(size=grid.shape_zyx).astype(np.float32), grid)
    write_volume(volume, path)
    return volume


def listing(folder):
    """The files of a folder, except the label description that lies beside all masks."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "itksnap_labels.txt")
    return sorted(str(path.relative_to(folder)) for path in files)


def test_a_folder_gives_a_label_map_per_image_on_its_own_grid(tmp_path):
    images = {name: image(tmp_path / "in" / f"{name}.nii.gz", seed) for seed, name in enumerate("ab")}
    image(tmp_path / "in" / "c.nii", 7)
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    report = predict(model(), [tmp_path / "in"], tmp_path / "out")
    assert [(row.case, row.status) for row in report.rows] == [("a", "done"), ("b", "done"), ("c", "done")]
    tables = [f"lesions/{name}.{suffix}" for name in "abc" for suffix in ("csv", "json")]
    assert listing(tmp_path / "out") == ["a.nii.gz", "b.nii.gz", "c.nii.gz", *tables]
    assert not report.refused
    assert 0 < report.seconds_per_case < 60
    for name, volume in images.items():
        label = read_volume(tmp_path / "out" / f"{name}.nii.gz")
        assert not label.grid.differences(volume.grid)
        np.testing.assert_array_equal(label.array, 3 * (volume.array > 0))


def test_a_segmentation_of_3d_slicer_names_its_segments(tmp_path):
    volume = image(tmp_path / "in" / "a.nii.gz")
    predict(model(), [tmp_path / "in"], tmp_path / "out", output_format="nrrd")
    assert listing(tmp_path / "out") == ["a.seg.nrrd", "lesions/a.csv", "lesions/a.json"]
    assert [(each.value, each.name) for each in read_segments(tmp_path / "out" / "a.seg.nrrd")] == [
        (3, "lesion")
    ]
    np.testing.assert_array_equal(read_volume(tmp_path / "out" / "a.seg.nrrd").array, 3 * (volume.array > 0))


def test_a_label_description_for_itk_snap_lies_beside_the_masks(tmp_path):
    image(tmp_path / "in" / "a.nii.gz")
    predict(model(), [tmp_path / "in"], tmp_path / "out")
    assert '"lesion"' in (tmp_path / "out" / "itksnap_labels.txt").read_text()


def test_a_saved_model_and_a_data_set_folder(tmp_path):
    network = build_network("dense", ((2, 2, 2),), 1, 2)
    save_model(Model(plan(), (network,)), tmp_path / "model.safetensors")
    image(tmp_path / "set" / "images" / "a.nii.gz")
    image(tmp_path / "set" / "labels" / "a.nii.gz")
    report = predict(tmp_path / "model.safetensors", [tmp_path / "set"], tmp_path / "out", mirror=True)
    assert [(row.case, row.reason) for row in report.rows] == [("a", "")]
    assert listing(tmp_path / "out") == ["a.nii.gz", "lesions/a.csv", "lesions/a.json"]


def test_bad_files_are_refused_and_do_not_stop_the_rest(tmp_path):
    folder = tmp_path / "in"
    for number, name in enumerate(["a_good", "b_cut", "c_nan", "d_flat", "e_text", "f_good"]):
        volume = image(folder / f"{name}.nii.gz", number)
    cut = folder / "b_cut.nii.gz"
    cut.write_bytes(cut.read_bytes()[:300])
    volume.array[2, 3, 4] = np.nan
    write_volume(volume, folder / "c_nan.nii.gz")
    write_volume(Volume(np.zeros(GRID.shape_zyx, np.int16), GRID), folder / "d_flat.nii.gz")
    (folder / "e_text.nii.gz").write_text("hello")
    report = predict(model(), [folder, tmp_path / "absent.nii.gz", tmp_path / "x.png"], tmp_path / "out")
    tables = [f"lesions/{name}_good.{suffix}" for name in "af" for suffix in ("csv", "json")]
    assert listing(tmp_path / "out") == ["a_good.nii.gz", "f_good.nii.gz", *tables]
    reasons = {row.case: row.reason for row in report.refused}
    assert set(reasons) == {"b_cut", "c_nan", "d_flat", "e_text", "absent", "x.png"}
    assert reasons["c_nan"].startswith(f"{folder / 'c_nan.nii.gz'}: holds 1 voxels that are NaN")
    assert "one value everywhere" in reasons["d_flat"]
    for case, reason in reasons.items():
        assert case in reason
        assert "\n" not in reason


def test_a_refusal_names_its_file_wherever_the_file_lies(tmp_path, monkeypatch):
    """Also a file in the current folder: its parent is a dot, as in every number."""
    monkeypatch.chdir(tmp_path)
    usual = [image(tmp_path / "usual" / f"{seed}.nii.gz", seed) for seed in range(8)]
    known = replace(model(), scope=learn_scope([describe([one], plan().normalisation) for one in usual]))
    files = [Path("b.nii.gz"), Path("in") / "c.nii.gz"]
    for file in files:
        image(file, 100, replace(GRID, spacing_xyz_mm=(1.0, 2.0, 9.5)))
    report = predict(known, files, tmp_path / "strict", strict=True)
    for file, row in zip(files, report.refused, strict=True):
        assert row.reason.startswith(f"{file}: lies outside of what the model was trained on: ")
        assert "9.5 mm" in row.reason
    for row in predict(known, files, tmp_path / "small", memory_gb=1e-4).rows:
        assert f"{row.case}.nii.gz: the memory budget" in row.reason


def test_what_is_not_there_is_said_not_to_exist(tmp_path):
    (tmp_path / "there.txt").write_text("no image")
    there, *missing = predict(
        model(), [tmp_path / "there.txt", tmp_path / "nowhere", tmp_path / "x.txt"], tmp_path / "out"
    ).rows
    assert "is not an image file that is known here" in there.reason
    assert [row.reason for row in missing] == [
        f"{tmp_path / name}: does not exist; check the path" for name in ("nowhere", "x.txt")
    ]


def test_channels_are_grouped_by_name(tmp_path):
    for case in ("p1", "p2_x"):
        for seed, channel in enumerate(("FLAIR", "T1")):
            image(tmp_path / "in" / f"{case}_{channel}.nii.gz", seed)
    image(tmp_path / "in" / "p3_T1.nii.gz")
    report = predict(model(("FLAIR", "T1")), [tmp_path / "in"], tmp_path / "out")
    assert [(row.case, row.status) for row in report.rows] == [
        ("p1", "done"),
        ("p2_x", "done"),
        ("p3", "refused"),
    ]
    assert "case p3 lacks channel FLAIR; give p3_FLAIR (or p3_0000) too" in report.refused[0].reason
    expected = (
        sum(read_volume(tmp_path / "in" / f"p1_{channel}.nii.gz").array for channel in ("FLAIR", "T1")) > 0
    )
    np.testing.assert_array_equal(read_volume(tmp_path / "out" / "p1.nii.gz").array, 3 * expected)


def test_the_channels_of_one_case_can_be_given_in_order(tmp_path):
    paths = [tmp_path / "first.nii.gz", tmp_path / "second.nii.gz"]
    for seed, path in enumerate(paths):
        image(path, seed)
    report = predict(model(("FLAIR", "T1")), paths, tmp_path / "out")
    assert [(row.case, row.status) for row in report.rows] == [("first", "done")]


def test_two_cases_that_each_lack_a_channel_are_not_taken_for_one(tmp_path):
    paths = [tmp_path / "a_T1.nii.gz", tmp_path / "b_T1.nii.gz"]
    for seed, path in enumerate(paths):
        image(path, seed)
    report = predict(model(("FLAIR", "T1")), paths, tmp_path / "out")
    assert [(row.case, row.status) for row in report.rows] == [("a", "refused"), ("b", "refused")]


def test_the_name_of_a_single_channel_is_not_part_of_the_case(tmp_path):
    image(tmp_path / "in" / "p1_FLAIR.nii.gz")
    image(tmp_path / "in" / "p2.nii.gz")
    report = predict(model(("FLAIR",)), [tmp_path / "in"], tmp_path / "out")
    assert [row.case for row in report.rows] == ["p1", "p2"]


def test_two_cases_of_one_name_do_not_overwrite_each_other(tmp_path):
    image(tmp_path / "x" / "a.nii.gz", 0)
    image(tmp_path / "y" / "a.nii.gz", 1)
    report = predict(model(), [tmp_path / "x", tmp_path / "y"], tmp_path / "out")
    assert [row.status for row in report.rows] == ["done", "refused"]
    assert "a second case named a" in report.rows[1].reason


def test_an_input_is_never_overwritten(tmp_path):
    volume = image(tmp_path / "a.nii.gz")
    report = predict(model(), [tmp_path / "a.nii.gz"], tmp_path)
    assert "would overwrite an input" in report.rows[0].reason
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz").array, volume.array)


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    image(tmp_path / "a.nii.gz")

    def fail(*_):
        raise DataError.at("out/a.nii.gz", "cannot be written (disk full)")

    monkeypatch.setattr("focalis.workflows.result_files.write_volume", fail)
    report = predict(model(), [tmp_path / "a.nii.gz"], tmp_path / "out")
    assert report.rows[0].reason == "out/a.nii.gz: cannot be written (disk full)"
    assert report.rows[0].output is None
    assert listing(tmp_path) == ["a.nii.gz"]


def test_a_table_that_cannot_be_written_takes_the_mask_with_it(tmp_path, monkeypatch):
    for name in ("a", "b"):
        image(tmp_path / f"{name}.nii.gz")
    right = predict_case.write_lesions

    def fail(folder, case, *more):
        if case == "a":
            raise DataError.at(folder / "lesions" / "a.json", "cannot be written (disk full)")
        right(folder, case, *more)

    monkeypatch.setattr(predict_case, "write_lesions", fail)
    inputs = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
    report = predict(model(), inputs, tmp_path / "out", probabilities=True)
    assert [row.status for row in report.rows] == ["refused", "done"]
    assert {path.name.split(".")[0] for path in (tmp_path / "out").rglob("*.*")} == {"b", "itksnap_labels"}


def test_probabilities_and_threshold(tmp_path):
    volume = image(tmp_path / "a.nii.gz")
    predict(model(), [tmp_path / "a.nii.gz"], tmp_path / "out", threshold=0.9, probabilities=True)
    assert listing(tmp_path / "out") == [
        "a.nii.gz",
        "lesions/a.csv",
        "lesions/a.json",
        "probabilities/a.nii.gz",
    ]
    probability = read_volume(tmp_path / "out" / "probabilities" / "a.nii.gz").array
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-2 * volume.array)), atol=1e-6)
    np.testing.assert_array_equal(read_volume(tmp_path / "out" / "a.nii.gz").array > 0, probability >= 0.9)


def test_too_small_a_budget_refuses_the_case_with_the_need(tmp_path):
    image(tmp_path / "a.nii.gz")
    report = predict(model(), [tmp_path / "a.nii.gz"], tmp_path / "out", memory_gb=0.001)
    assert "memory budget is too small" in report.rows[0].reason
    told = re.search("and 0.00 GB are left for them; raise the budget by (.*) GB", report.rows[0].reason)
    more = predict(model(), [tmp_path / "a.nii.gz"], tmp_path / "out", memory_gb=0.001 + float(told[1]))
    assert more.rows[0].status == "done"


def test_a_row_says_in_how_many_pieces_the_image_went_and_the_document_what_ran_the_network(
    tmp_path, monkeypatch
):
    image(tmp_path / "a.nii.gz", grid=Grid((32, 32, 16), (1.0, 1.0, 3.0)))
    report = predict(model(), [tmp_path / "a.nii.gz"], tmp_path / "out", precision="float32")
    assert (report.rows[0].tiles, report.rows[0].blended, report.runtime) == (1, False, "cpu, float32")
    document = json.loads((tmp_path / "out" / "lesions" / "a.json").read_text())
    assert document["runtime"] == "cpu, float32"
    passes = replace(plan_passes(model(), (16, 32, 16), budget_bytes=10**9), tile_zyx=(8, 32, 16))
    monkeypatch.setattr("focalis.prediction.predictor.plan_passes", lambda *_, **__: passes)
    report = predict(model(), [tmp_path / "a.nii.gz"], tmp_path / "out")
    assert (report.rows[0].tiles, report.rows[0].blended) == (3, True)


def test_progress_names_every_case(tmp_path):
    for name in "ab":
        image(tmp_path / "in" / f"{name}.nii.gz")
    calls = []
    predict(model(), [tmp_path / "in"], tmp_path / "out", progress=lambda *call: calls.append(call))
    assert [name for _, _, name in calls] == ["a", "b", ""]
    assert (calls[0], calls[-1]) == ((0, 2, "a"), (2, 2, ""))
    assert calls[1] in [(0, 2, "b"), (1, 2, "b")]  # the first may still be being written


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"threshold": 1.5}, "threshold"),
        ({"memory_gb": 0}, "memory budget"),
        ({"memory_gb": float("nan")}, "memory budget"),
        ({"memory_gb": float("inf")}, "memory budget"),
        ({"device": "toaster"}, "toaster"),
        ({"precision": "float8"}, "float8"),
        ({"strict": True}, "does not know what it was trained on"),
        ({"uncertainty": True}, "needs several passes"),
    ],
)
def test_wrong_options_are_usage_errors(tmp_path, options, reason):
    image(tmp_path / "a.nii.gz")
    with pytest.raises(UsageError, match=reason):
        predict(model(), [tmp_path / "a.nii.gz"], tmp_path / "out", **options)


def test_masks_of_earlier_runs_in_the_folder_are_counted_and_left(tmp_path):
    out = tmp_path / "out"
    for name in ("a", "b"):
        image(tmp_path / "in" / f"{name}.nii.gz")
    image(out / "another.nii.gz")  # an image that lies there, without a table of lesions
    assert predict(model(), [tmp_path / "in"], out).older_masks == 0
    assert predict(model(), [tmp_path / "in"], out).older_masks == 0  # made again
    image(tmp_path / "c.nii.gz")
    (tmp_path / "in" / "b.nii.gz").write_bytes(b"damaged")
    before = listing(out)
    report = predict(model(), [tmp_path / "in" / "b.nii.gz", tmp_path / "c.nii.gz"], out)
    assert [row.status for row in report.rows] == ["refused", "done"]
    assert report.older_masks == 2  # also that of the case which was refused this time
    assert set(before) < set(listing(out))


def test_the_command_says_how_many_older_masks_there_are(tmp_path):
    network = build_network("dense", ((2, 2, 2),), 1, 2)
    save_model(Model(plan(), (network,)), tmp_path / "model.safetensors")
    said = []
    for name in ("a", "b", "c"):
        image(tmp_path / f"{name}.nii.gz")
        words = ["predict", "model.safetensors", f"{name}.nii.gz", "-o", "out"]
        words = [str(tmp_path / word) if word.endswith(("z", "s", "out")) else word for word in words]
        said.append(CliRunner().invoke(app, [*words, "--json"]))
    assert "older" not in said[0].stderr
    assert f"note: 1 older mask is in {tmp_path / 'out'} too" in said[1].stderr
    assert f"note: 2 older masks are in {tmp_path / 'out'} too" in said[2].stderr
    assert json.loads(said[2].stdout)["older_masks"] == 2


def test_wrong_places_are_usage_errors(tmp_path):
    image(tmp_path / "a.nii.gz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no image"):
        predict(model(), [tmp_path / "empty"], tmp_path / "out")
    with pytest.raises(UsageError, match="no image given"):
        predict(model(), [], tmp_path / "out")
    with pytest.raises(UsageError, match="is a file"):
        predict(model(), [tmp_path / "empty"], tmp_path / "a.nii.gz")
    with pytest.raises(ModelError, match=r"none\.safetensors: cannot be read"):
        predict(tmp_path / "none.safetensors", [tmp_path / "a.nii.gz"], tmp_path / "out")


def test_a_point_chosen_without_mirror_images_is_said_to_be(tmp_path):
    image(tmp_path / "a.nii.gz")
    plain, mirrored, given = (
        predict(model(), [tmp_path / "a.nii.gz"], tmp_path / "out", **options).operating_point.how
        for options in (
            {},
            {"mirror": True},
            {"mirror": True, "threshold": 0.5, "min_size_mm3": 0, "min_confidence": 0},
        )
    )
    assert mirrored == f"{plain}; chosen without mirror images"
    assert "mirror" not in given


def test_a_promise_is_reported_and_void_at_another_point(tmp_path):
    image(tmp_path / "a.nii.gz")
    point = OperatingPoint(0.5, promise="at most 7 % of a scan's lesions missed on average")
    promising, out = replace(model(), operating_point=point), tmp_path / "out"
    save_model(
        Model(plan(), (build_network("dense", ((2, 2, 2),), 1, 2),), point), tmp_path / "m.safetensors"
    )
    assert open_model(tmp_path / "m.safetensors").operating_point == point
    for options, kept in (
        ({}, True),
        ({"threshold": 0.4}, False),
        ({"min_confidence": 0.7}, False),
        ({"min_size_mm3": 5.0}, False),
        ({"mirror": True}, False),
    ):
        report = predict(promising, [tmp_path / "a.nii.gz"], out, **options)
        assert (report.operating_point.promise == point.promise) is kept
        assert report.operating_point.promise.startswith("none: the model's promise is for") is not kept
        told = json.loads((out / "lesions" / "a.json").read_text())
        assert told["promise"] == report.operating_point.promise
    assert predict(model(), [tmp_path / "a.nii.gz"], out, threshold=0.4).operating_point.promise == ""


def test_an_image_outside_of_the_models_scope_is_reported_and_with_strict_refused(tmp_path):
    usual = [image(tmp_path / "usual" / f"{seed}.nii.gz", seed) for seed in range(8)]
    known = replace(model(), scope=learn_scope([describe([one], plan().normalisation) for one in usual]))
    image(tmp_path / "in" / "a.nii.gz", 100)
    image(tmp_path / "in" / "b.nii.gz", 100, replace(GRID, spacing_xyz_mm=(1.0, 2.0, 9.0)))
    report = predict(known, [tmp_path / "in"], tmp_path / "out")
    assert [(row.case, row.status, bool(row.outside)) for row in report.rows] == [
        ("a", "done", False),
        ("b", "done", True),
    ]
    assert any("spacing of 9 mm" in phrase for phrase in report.rows[1].outside)
    strict = predict(known, [tmp_path / "in"], tmp_path / "strict", strict=True)
    assert [row.status for row in strict.rows] == ["done", "refused"]
    assert strict.rows[1].reason.startswith(
        f"{tmp_path / 'in' / 'b.nii.gz'}: lies outside of what the model was trained"
    )
    assert not (tmp_path / "strict" / "b.nii.gz").exists()


def test_the_command_warns_on_stderr_and_refuses_with_strict(tmp_path):
    usual = [image(tmp_path / "usual" / f"{seed}.nii.gz", seed) for seed in range(8)]
    scope = learn_scope([describe([one], plan().normalisation) for one in usual])
    network = build_network("dense", ((2, 2, 2),), 1, 2)
    save_model(Model(plan(), (network,), scope=scope), tmp_path / "model.safetensors")
    assert open_model(tmp_path / "model.safetensors").scope == scope
    image(tmp_path / "b.nii.gz", 100, replace(GRID, spacing_xyz_mm=(1.0, 2.0, 9.0)))
    words = [
        "predict",
        str(tmp_path / "model.safetensors"),
        str(tmp_path / "b.nii.gz"),
        "-o",
        str(tmp_path / "out"),
    ]
    warned = CliRunner().invoke(app, [*words, "--json"])
    assert warned.exit_code == 0
    assert "warning: b lies outside of what the model was trained on: spacing of 9 mm" in warned.stderr
    assert json.loads(warned.stdout)["rows"][0]["outside"]
    refused = CliRunner().invoke(app, [*words, "--strict"])
    assert refused.exit_code == 1
    assert "leave --strict out" in refused.stderr


def test_refinement_is_refused_where_the_model_holds_none(tmp_path):
    image(tmp_path / "a.nii.gz")
    with pytest.raises(UsageError, match=r"holds no refinement; train it with .*dense\+crf"):
        predict(model(), [tmp_path / "a.nii.gz"], tmp_path / "out", refine=True)
    assert not (tmp_path / "out").exists()


def test_a_models_refinement_is_used_unless_it_is_switched_off(tmp_path):
    image(tmp_path / "a.nii.gz")
    smooth = replace(model(), refinement=Refinement(0.0, 1.0, 1.0, 20.0, 4.0, 5))
    voxels = {}
    for how in (None, True, False):
        predict(smooth, [tmp_path / "a.nii.gz"], tmp_path / f"{how}", refine=how)
        voxels[how] = read_volume(tmp_path / f"{how}" / "a.nii.gz").array
    predict(model(), [tmp_path / "a.nii.gz"], tmp_path / "plain")
    assert np.array_equal(voxels[None], voxels[True])
    assert not np.array_equal(voxels[True], voxels[False])
    assert np.array_equal(voxels[False], read_volume(tmp_path / "plain" / "a.nii.gz").array)


@pytest.mark.parametrize("axes", [(False, False, False), (False, False, True), (True, True, True)])
def test_mirror_images_that_a_plan_does_not_have_are_said_to_be_missing(tmp_path, axes):
    image(tmp_path / "a.nii.gz")
    settings = plan().training.model_copy(update={"flip_axes_zyx": axes, "quarter_turns": False})
    mirrored = Model(plan().model_copy(update={"training": settings}), (Positive(),), OperatingPoint(0.5))
    report = predict(mirrored, [tmp_path / "a.nii.gz"], tmp_path / "out", mirror=True)
    document = json.loads((tmp_path / "out" / "lesions" / "a.json").read_text())
    assert report.idle_mirror is not any(axes)
    assert document["mirrored"] is any(axes)
    assert ("without mirror images" in report.operating_point.how) is any(axes)
    if not any(axes):
        with pytest.raises(UsageError, match="mirrors along no axis"):
            predict(mirrored, [tmp_path / "a.nii.gz"], tmp_path / "out", mirror=True, uncertainty=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": "toaster"}, "device 'toaster' is unknown"),
        ({"device": "cuda:77"}, "is not on this machine"),
        ({"precision": "float8"}, "precision 'float8' is unknown"),
        ({"precision": "float16", "device": "cpu"}, "float16 needs a GPU"),
        ({"runtime": "tensor"}, "run time 'tensor' is unknown"),
    ],
)
def test_options_are_looked_at_before_the_model(tmp_path, options, said):
    with pytest.raises(UsageError, match=said):
        predict(tmp_path / "no.safetensors", [tmp_path / "a.nii.gz"], tmp_path / "out", **options)


ERRORS = [RuntimeError("itk::ERROR: stride"), MemoryError(), KeyError("x"), OSError(5, "Input/output error")]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("where", ["read_images", "check_scope", "segment", "write_volume", "write_lesions"])
def test_any_error_of_one_case_refuses_that_case_alone(tmp_path, monkeypatch, error, where):
    for seed, name in enumerate("abc"):
        image(tmp_path / "in" / f"{name}.nii.gz", seed)
    module = result_files if where == "write_volume" else predict_case
    right, calls = getattr(module, where), []

    def broken(*given, **options):
        calls.append(1)
        if len(calls) == 2:
            raise error
        return right(*given, **options)

    monkeypatch.setattr(module, where, broken)
    report = predict(model(), [tmp_path / "in"], tmp_path / "out")
    assert [row.status for row in report.rows] == ["done", "refused", "done"]
    assert report.rows[1].reason.startswith(f"{tmp_path / 'in' / 'b.nii.gz'}: ")


def test_ctrl_c_is_not_an_error_of_a_case(tmp_path, monkeypatch):
    image(tmp_path / "a.nii.gz")

    def stop(*_given, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(predict_case, "segment", stop)
    with pytest.raises(KeyboardInterrupt):
        predict(model(), [tmp_path / "a.nii.gz"], tmp_path / "out")


def test_links_that_lead_nowhere_and_what_is_not_a_file_are_refused(tmp_path):
    image(tmp_path / "a.nii.gz")
    (tmp_path / "loop.nii.gz").symlink_to("loop.nii.gz")
    (tmp_path / "gone.nrrd").symlink_to("nowhere.nrrd")
    (tmp_path / "folder.nii").mkdir()
    os.mkfifo(tmp_path / "pipe.mha")
    report = predict(model(), [tmp_path], tmp_path / "out")
    assert [row.case for row in report.rows if row.status == "done"] == ["a"]
    assert {row.case for row in report.refused} == {"loop", "gone", "folder.nii", "pipe.mha"}
    alone = predict(model(), [tmp_path / "loop.nii.gz", tmp_path / "a.nii.gz"], tmp_path / "out2")
    assert [row.status for row in alone.rows] == ["refused", "done"]
    two = predict(model(("t1", "t2")), [tmp_path / "loop.nii.gz", tmp_path / "gone.nrrd"], tmp_path / "out3")
    assert all(row.status == "refused" for row in two.rows)


def test_an_image_that_the_budget_cannot_hold_is_refused_before_it_is_read(tmp_path, monkeypatch):
    image(tmp_path / "small.nii.gz")
    grid = Grid((300, 200, 150), (1.0, 2.0, 3.0))
    for suffix in ("nii.gz", "nrrd", "mha"):
        write_volume(Volume(np.zeros(grid.shape_zyx, np.uint8), grid), tmp_path / f"large.{suffix}")
    read = []
    monkeypatch.setattr(
        case_images, "read_channels", lambda paths: read.append(paths) or right_channels(paths)
    )
    for suffix in ("nii.gz", "nrrd", "mha"):
        given = [tmp_path / f"large.{suffix}", tmp_path / "small.nii.gz"]
        report = predict(model(), given, tmp_path / "out", memory_gb=0.9)
        assert [row.status for row in report.rows] == ["refused", "done"]
        assert "raise the budget by" in report.rows[0].reason
    assert {path.name for paths in read for path in paths} == {"small.nii.gz"}


def test_the_command_shows_the_traceback_of_a_refused_case_with_debug(tmp_path, monkeypatch, capsys):
    image(tmp_path / "a.nii.gz")
    save_model(Model(plan(), (build_network("dense", ((2, 2, 2),), 1, 2),)), tmp_path / "m.safetensors")

    def broken(*_given, **_options):
        raise RuntimeError("deep inside")

    monkeypatch.setattr(predict_case, "segment", broken)
    words = [
        "predict",
        str(tmp_path / "m.safetensors"),
        str(tmp_path / "a.nii.gz"),
        "-o",
        str(tmp_path / "out"),
    ]
    for extra, shown in (([], False), (["--debug"], True)):
        with pytest.raises(SystemExit) as stopped:
            main([*words, *extra])
        said = capsys.readouterr().err
        assert stopped.value.code == 1
        assert "a.nii.gz: cannot be processed (RuntimeError: deep inside)" in said
        assert ("Traceback" in said) is shown


def test_a_segmentation_of_slicer_beside_its_image_is_not_an_image(tmp_path):
    image(tmp_path / "in" / "a.nrrd")
    write_volume(Volume(np.zeros(GRID.shape_zyx, np.uint8), GRID), tmp_path / "in" / "a.seg.nrrd")
    report = predict(model(), [tmp_path / "in"], tmp_path / "out")
    assert [(row.case, row.status) for row in report.rows] == [("a", "done")]


def test_an_image_that_does_not_say_how_it_lies_is_reported(tmp_path):
    path = tmp_path / "a.nrrd"
    image(path)
    content = path.read_bytes().replace(b"space: left-posterior-superior", b"space dimension: 3")
    path.write_bytes(content)
    (row,) = predict(model(), [path], tmp_path / "out").rows
    assert any("does not say how it lies (it names no space of the patient)" in line for line in row.outside)


def padded(value, dtype):
    array = np.random.default_rng(0).normal(100, 20, GRID.shape_zyx).astype(dtype)
    array[0, :2] = value
    return Volume(array, GRID)


@pytest.mark.parametrize(
    ("value", "dtype", "said"),
    [
        (1e39, np.float64, "values are NaN or infinite|as large as 1e\\+39"),
        (-3e38, np.float32, "most likely a fill value"),
        (1e30, np.float32, "most likely a fill value"),
    ],
)
def test_values_beyond_float32_are_refused(tmp_path, value, dtype, said):
    write_volume(padded(value, dtype), tmp_path / "a.nii.gz")
    (row,) = predict(model(), [tmp_path / "a.nii.gz"], tmp_path / "out").rows
    assert row.status == "refused"
    assert re.search(said, row.reason)
    assert not (tmp_path / "out" / "a.nii.gz").exists()


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd", "mha"])
def test_padding_is_reported_and_with_strict_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    write_volume(padded(-32768, np.int16), path)
    usual = [image(tmp_path / "usual" / f"{seed}.nii.gz", seed) for seed in range(8)]
    known = replace(model(), scope=learn_scope([describe([one], plan().normalisation) for one in usual]))
    (row,) = predict(known, [path], tmp_path / "out").rows
    assert (row.status, row.outside[0]) == ("done", "the value -32768 in image most likely means no data")
    (row,) = predict(known, [path], tmp_path / "strict", strict=True).rows
    assert (row.status, row.output) == ("refused", None)
    assert "-32768 in image most likely means no data" in row.reason
