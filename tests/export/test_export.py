"""Exported networks: other programs get the probabilities and the mask of Focalis."""

import json
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from focalis.errors import ModelError, UsageError
from focalis.export import FORMATS, export_model, program
from focalis.lesions import OperatingPoint, features, label_components, lesion_chance
from focalis.model import Model, Refinement, save_model
from focalis.planning import NetworkSettings, Normalisation, Plan
from focalis.planning.parts import network_of
from focalis.prediction import Settings, require_crop, segment
from focalis.volume import Absent, Grid, Volume, read_volume, write_volume
from focalis.workflows.predict import predict

OBLIQUE = (0.0, 0.96, -0.28, -1.0, 0.0, 0.0, 0.0, 0.28, 0.96)


def model_for(channels=1, labels=1, members=1, spacing=(2.0, 1.5, 1.5), strides=(2, 2, 2), **more):
    """A model of small random networks."""
    hows = (
        Normalisation(),
        Normalisation(kind="window", low=-2.0, high=2.0, mean=0.1, std=0.8),
    )
    plan = Plan(
        channels=tuple(f"c{number}" for number in range(channels)),
        labels={3 * number + 1: f"kind {number}" for number in range(labels)},
        spacing_zyx_mm=spacing,
        normalisation=hows[:channels],
        patch_zyx=(8, 16, 16),
        batch=1,
        network=NetworkSettings(strides_zyx=(strides,), **more),
    )
    networks = []
    for seed in range(members):
        torch.manual_seed(seed)
        networks.append(network_of(plan).eval())
    return Model(plan, tuple(networks), OperatingPoint(temperature=1.7))


def images_for(model, shape_zyx=(9, 33, 30), spacing_xyz=(1.0, 1.2, 2.0), direction=OBLIQUE):
    """Smooth noise on an oblique grid, a quarter of it air."""
    rng = np.random.default_rng(4)
    grid = Grid(shape_zyx[::-1], spacing_xyz, (-31.0, 12.0, 8.0), direction)
    volumes = []
    for _ in model.plan.channels:
        array = rng.normal(size=shape_zyx).astype(np.float32).cumsum(1).cumsum(2) / 20
        array[:3, :, :12] = array.min() - 1
        volumes.append(Volume(array, grid))
    return volumes


def with_point(model, volumes):
    """The model with a threshold that a fifth of the image reaches, and a size and confidence that drop some of it."""
    likely = segment(model, volumes, Settings(runtime="torch", precision="float32")).probability
    at, top = (float(np.quantile(likely, share)) for share in (0.8, 0.9))
    point = OperatingPoint(at, minimum_mm3=30.0, minimum_confidence=top, temperature=1.7)
    return Model(model.plan, model.members, point)


@pytest.mark.parametrize(
    ("to", "settings", "grid"),
    [
        ("onnx", {"channels": 2, "labels": 2, "members": 2}, {}),
        pytest.param(  # nothing is resampled
            "onnx", {"spacing": (1.0, 1.0, 1.0)}, {"spacing_xyz": (1.0, 1.0, 1.0)}, marks=pytest.mark.slow
        ),
        ("openvino", {"strides": (1, 2, 2)}, {"direction": (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)}),
        pytest.param("torch", {"labels": 2}, {}, marks=pytest.mark.slow),
    ],
)
def test_the_program_beside_the_network_gives_the_mask_of_predict(tmp_path, to, settings, grid):
    pytest.importorskip({"onnx": "onnxscript", "openvino": "openvino", "torch": "torch"}[to])
    model = model_for(**settings)
    volumes = images_for(model, **grid)
    model = with_point(model, volumes)
    save_model(model, tmp_path / "model.safetensors")
    (tmp_path / "images").mkdir()
    paths = []
    for channel, volume in zip(model.plan.channels, volumes, strict=True):
        name = f"case_{channel}" if len(volumes) > 1 else "case"
        paths.append(tmp_path / "images" / f"{name}.nii.gz")
        write_volume(volume, paths[-1])
    how = {"runtime": "torch", "precision": "float32"}  # as the program computes on any processor
    predict(tmp_path / "model.safetensors", [tmp_path / "images"], tmp_path / "masks", **how)

    assert export_model(model, tmp_path / "exported", to) < 1e-4
    program = tmp_path / "exported" / "predict.py"
    subprocess.run([sys.executable, "-I", program, *paths, tmp_path / "mask.nii.gz"], check=True)

    expected, found = read_volume(tmp_path / "masks" / "case.nii.gz"), read_volume(tmp_path / "mask.nii.gz")
    assert set(np.unique(expected.array)) <= {0, *model.plan.labels}
    assert 0 < np.count_nonzero(expected.array) < 0.2 * expected.array.size
    np.testing.assert_array_equal(found.array, expected.array)
    assert found.grid.differences(expected.grid) == []


def test_the_program_takes_the_same_second_look():
    rng = np.random.default_rng(3)
    raw = ndimage.gaussian_filter(rng.random((9, 20, 22)).astype(np.float32), 0.7)
    lesions, count = label_components(raw > 0.6)
    spacing, weights = np.array([3.0, 1.0, 0.8]), (-0.4, 0.7, -0.5, 0.2, -0.3)

    kept = program.second_look(weights, lesions, raw, spacing)

    chances = lesion_chance(weights, features(lesions, count, raw, spacing))
    assert kept.tolist() == (chances >= 0.5).tolist()
    assert 3 < kept.sum() < count - 3


def test_pipeline_json_tells_what_a_program_needs(tmp_path):
    model = model_for(channels=2, labels=2)
    export_model(model, tmp_path / "exported", "torch")
    facts = json.loads((tmp_path / "exported" / "pipeline.json").read_text())
    assert facts["channels"] == ["c0", "c1"]
    assert facts["labels"] == [{"value": 1, "name": "kind 0"}, {"value": 4, "name": "kind 1"}]
    assert facts["spacing_zyx_mm"] == [2.0, 1.5, 1.5]
    assert facts["total_stride_zyx"] == [2, 2, 2]
    assert facts["temperature"] == 1.7
    assert (facts["guided"], facts["most_zyx_mm"]) == (False, None)
    assert facts["normalisation"][1]["kind"] == "window"


def test_the_program_goes_without_a_channel_that_may_miss(tmp_path, monkeypatch):
    model = model_for(channels=2)
    model = replace(model, plan=model.plan.model_copy(update={"channels_may_miss": ("c0",)}))
    _, there = images_for(model)
    write_volume(there, tmp_path / "scan.nii.gz")
    with_absent = [Absent.on(there.grid), there]
    model = with_point(model, with_absent)
    export_model(model, tmp_path / "exported", "torch")
    monkeypatch.setattr(program, "HERE", tmp_path / "exported")
    scan, mask = str(tmp_path / "scan.nii.gz"), str(tmp_path / "mask.nii.gz")
    program.main(["-", scan], mask)
    expected = segment(model, with_absent, Settings(runtime="torch", precision="float32")).mask
    assert expected.any()
    np.testing.assert_array_equal(read_volume(Path(mask)).array, expected)
    with pytest.raises(SystemExit, match="give an image for c1"):
        program.main([scan, "-"], mask)


def guided(point=None):
    """A guided model of crops of 16 x 24 x 24 mm, which takes images of up to half as much more."""
    model = model_for()
    return Model(model.plan.model_copy(update={"use": "guided"}), model.members, point or OperatingPoint())


@pytest.mark.parametrize("direction", [(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0), (0, 0, 1.0, 1.0, 0, 0, 0, 1.0, 0)])
def test_the_program_of_a_guided_model_refuses_a_whole_scan_as_predict_does(tmp_path, monkeypatch, direction):
    model = guided()
    export_model(model, tmp_path / "exported", "torch")
    monkeypatch.setattr(program, "HERE", tmp_path / "exported")
    scan, mask = tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz"
    # one voxel of 1 mm more than 24 x 36 x 36 mm along one axis is too many
    for shape, fits in (((20, 20, 24), True), ((25, 25, 25), False), ((14, 14, 37), False)):
        (volume,) = images_for(model, shape, (1.0, 1.0, 1.0), direction)
        write_volume(volume, scan)
        if fits:
            program.main([str(scan)], str(mask))
            expected = segment(model, [volume], Settings(runtime="torch", precision="float32")).mask
            np.testing.assert_array_equal(read_volume(mask).array, expected)
            mask.unlink()
            continue
        with pytest.raises(ModelError) as predicted:
            require_crop(model, volume.grid)
        with pytest.raises(SystemExit) as refused:
            program.main([str(scan)], str(mask))
        said, _, _ = str(predicted.value).partition("; ")
        assert str(refused.value) == f"{said}; give a crop around each lesion"
        assert not mask.exists()


def test_pipeline_json_and_metadata_tell_what_a_guided_model_takes(tmp_path):
    export_model(guided(), tmp_path / "bundle", "monai")
    facts = json.loads((tmp_path / "bundle" / "models" / "pipeline.json").read_text())
    assert (facts["guided"], facts["most_zyx_mm"]) == (True, [24.0, 36.0, 36.0])
    said = json.loads((tmp_path / "bundle" / "configs" / "metadata.json").read_text())["description"]
    assert "crops around a lesion, 24 x 36 x 36 mm (z, y, x) at most" in said


def test_the_program_names_an_image_that_it_cannot_read_in_a_line(tmp_path):
    (tmp_path / "pipeline.json").write_text(json.dumps({"channels": ["x"], "channels_may_miss": []}))
    copy = tmp_path / "predict.py"
    copy.write_text(Path(program.__file__).read_text())
    words = [sys.executable, "-I", copy, tmp_path / "lost.nii.gz", tmp_path / "mask.nii.gz"]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert (done.returncode, len(done.stderr.splitlines()), "lost.nii.gz" in done.stderr) == (1, 1, True)


def test_the_program_names_an_error_without_text_by_its_type(monkeypatch):
    def fails(*_):
        raise RuntimeError

    monkeypatch.setattr(sys, "argv", ["predict.py", "scan.nii.gz", "mask.nii.gz"])
    monkeypatch.setattr(json, "loads", fails)
    monkeypatch.setattr(Path, "read_text", lambda *_: "{}")
    with pytest.raises(SystemExit, match=r"^RuntimeError$"):
        runpy.run_path(program.__file__, run_name="__main__")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"to": "onx"}, UsageError, "did you mean 'onnx'"),
        ({"network": "nnunet"}, ModelError, "statistics of each tile"),
        ({"refinement": Refinement(1, 1, 1, 1, 1, 1)}, ModelError, "CRF"),
        ({"there": True}, UsageError, "is there already"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_nothing_is_written(tmp_path, change, error, words):
    model = model_for(**({"name": change["network"]} if "network" in change else {}))
    if "refinement" in change:
        model = Model(model.plan, model.members, refinement=change["refinement"])
    out = tmp_path / "exported"
    if "there" in change:
        out.mkdir()
        (out / "mine.txt").touch()
    with pytest.raises(error, match=words):
        export_model(model, out, change.get("to", "torch"))
    assert [each.name for each in tmp_path.rglob("*")] == (
        ["exported", "mine.txt"] if "there" in change else []
    )


def test_all_formats_are_named_in_the_help():
    from typer.testing import CliRunner

    from focalis.cli.main import app

    text = CliRunner().invoke(app, ["export", "--help"]).output
    assert all(name in text for name in FORMATS)


@pytest.mark.filterwarnings("ignore:parsing config_file")  # MONAI tells of `eval`
@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_monais_own_runner_gives_the_mask_of_focalis(tmp_path, monkeypatch, channels):
    from monai.bundle import run

    model = model_for(channels, labels=2, strides=(1, 2, 2))
    volumes = images_for(model)
    model = with_point(model, volumes)
    paths = [tmp_path / f"scan_{number}.nii.gz" for number in range(channels)]
    for volume, path in zip(volumes, paths, strict=True):
        write_volume(volume, path)
    export_model(model, tmp_path / "bundle", "monai")
    monkeypatch.chdir(tmp_path / "bundle")
    images = [str(path) for path in paths]
    run(config_file="configs/inference.json", images=images, mask=str(tmp_path / "mask.nii.gz"))
    expected = segment(model, volumes, Settings(runtime="torch", precision="float32")).mask
    assert expected.any()
    np.testing.assert_array_equal(read_volume(tmp_path / "mask.nii.gz").array, expected)


def test_a_bundle_states_what_its_network_takes_and_gives(tmp_path):
    export_model(model_for(2, labels=2), tmp_path / "bundle", "monai")
    said = json.loads((tmp_path / "bundle" / "configs" / "metadata.json").read_text())["network_data_format"]
    assert said["inputs"]["image"]["channel_def"] == {"0": "c0", "1": "c1"}
    assert said["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "kind 0", "2": "kind 1"}
    assert (tmp_path / "bundle" / "models" / "network.pt2").is_file()
