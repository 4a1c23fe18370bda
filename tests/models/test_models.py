"""The models that come with Focalis: found by name, checked by hash, and honest about what is not there."""

import hashlib
import json
import os
import signal

import numpy as np
import pytest
from small_plan import small_plan
from typer.testing import CliRunner

import focalis
from focalis import models
from focalis.cli.main import app
from focalis.device.config import load_config
from focalis.device.models import open_models
from focalis.device.serve import serve, settings_for
from focalis.errors import ModelError, UsageError
from focalis.files import sha256_of
from focalis.lesions import OperatingPoint
from focalis.model import Model, open_model, save_model
from focalis.models import DATA, FOLDER, SHIPPED, model_file
from focalis.networks import build_network
from focalis.planning import NetworkSettings
from focalis.volume import Grid, Volume, write_volume

NAME = "lidc-nodule"
PLAN = small_plan(channels=("CT",), labels={1: "nodule"}, network=NetworkSettings(strides_zyx=((2, 2, 2),)))


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A stand-in for the model of the package: the folder that holds it, and its file."""
    folder = tmp_path / "models"
    network = build_network("dense", PLAN.network.strides_zyx, 1, 2)
    file = folder / f"{NAME}.safetensors"
    save_model(Model(PLAN, (network,), OperatingPoint(0.4)), file, half=True)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / f"{NAME}.sha256").write_text(f"{digest}  {file.name}\n")
    monkeypatch.setattr(models, "FOLDER", folder)
    monkeypatch.chdir(tmp_path)
    return file


def scan(path):
    array = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    write_volume(Volume(array, Grid((8, 8, 8))), path)


def test_a_name_gives_the_file_of_the_package(shipped):
    assert model_file(NAME) == shipped


@pytest.mark.usefixtures("shipped")
def test_a_path_is_left_as_it_is_whether_or_not_it_is_there(tmp_path):
    for path in (tmp_path / "no" / "lidc-nodule", tmp_path / "run.safetensors"):
        assert model_file(path) == path


@pytest.mark.usefixtures("shipped")
def test_a_file_of_the_same_name_comes_first(tmp_path):
    (tmp_path / NAME).write_bytes(b"mine")
    assert model_file(NAME) == (tmp_path / NAME).relative_to(tmp_path)


@pytest.mark.usefixtures("shipped")
def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UsageError, match=r"nodules: is not a file.*one of lidc-nodule"):
        model_file("nodules")


def test_another_file_than_the_published_one_is_refused(shipped):
    shipped.write_bytes(shipped.read_bytes() + b"\0")
    with pytest.raises(ModelError, match="published was"):
        model_file(NAME)


@pytest.mark.parametrize("ending", ["safetensors", "sha256"])
def test_an_installation_without_the_weights_says_so(shipped, ending):
    shipped.with_suffix(f".{ending}").unlink()
    with pytest.raises(ModelError, match="comes without the model's weights"):
        model_file(NAME)


@pytest.mark.usefixtures("shipped")
def test_the_name_works_wherever_a_model_is_opened():
    assert open_model(NAME).operating_point.threshold == 0.4
    assert focalis.load(NAME).plan == open_model(NAME).plan == PLAN
    assert focalis.load(NAME).identity.weights_sha256 == open_model(NAME).identity.weights_sha256


@pytest.mark.usefixtures("shipped")
def test_predict_takes_the_name(tmp_path):
    scan(tmp_path / "scan.nii.gz")
    done = CliRunner().invoke(app, ["predict", NAME, "scan.nii.gz", "-o", "masks", "--runtime", "torch"])
    assert (done.exit_code, done.exception) == (0, None)
    assert (tmp_path / "masks" / "scan.nii.gz").is_file()


def test_a_run_names_the_card_of_a_model_of_the_package(shipped, tmp_path):
    scan(tmp_path / "scan.nii.gz")
    words = ["scan.nii.gz", "-o", "masks", "--runtime", "torch", "--json"]
    card = shipped.with_suffix(".md")
    for given in (NAME, str(shipped)):
        done = CliRunner().invoke(app, ["predict", given, *words])
        assert (
            "and is not a detector; for research use only, not a medical device; trained on LIDC-IDRI, CC BY 3.0; "
            in (done.stderr)
        )
        assert f"its card: {card}\n" in done.stderr
        assert json.loads(done.stdout)["card"] == str(card)


def test_follow_and_export_name_the_card(shipped, tmp_path, monkeypatch):
    monkeypatch.setattr("focalis.export.export_model", lambda *_given: 0.0)
    for name in ("a", "b"):
        scan(tmp_path / f"{name}.nii.gz")
    for words in (
        ["export", NAME, "-o", "exported"],
        ["follow", "a.nii.gz", "b.nii.gz", "--model", NAME, "-o", "followed"],
    ):
        done = CliRunner().invoke(app, words)
        assert (done.exit_code, done.exception) == (0, None)
        assert f"for research use only, not a medical device; trained on {DATA[NAME]}; " in done.stderr
        assert f"its card: {shipped.with_suffix('.md')}\n" in done.stderr


def test_a_run_of_any_other_model_names_no_card(shipped, tmp_path):
    scan(tmp_path / "scan.nii.gz")
    own = tmp_path / f"{NAME}.safetensors"  # the name alone makes no model of the package
    own.write_bytes(shipped.read_bytes())
    done = CliRunner().invoke(app, ["predict", own.name, "scan.nii.gz", "-o", "masks", "--runtime", "torch"])
    assert (done.exit_code, done.exception) == (0, None)
    assert "its card" not in done.output
    assert focalis.predict(own, [tmp_path / "scan.nii.gz"], tmp_path / "masks").card is None


@pytest.mark.usefixtures("shipped")
def test_predict_says_which_names_there_are(tmp_path):
    scan(tmp_path / "scan.nii.gz")
    wrong = CliRunner().invoke(app, ["predict", "lung-nodule", "scan.nii.gz", "-o", "masks"])
    assert wrong.exit_code == 2
    assert "one of lidc-nodule" in wrong.output
    assert not (tmp_path / "masks").exists()


def test_the_device_serves_the_name(shipped, tmp_path):
    by_hand = settings_for(tmp_path.joinpath(NAME).relative_to(tmp_path), None, None, None, None)
    assert open_models(by_hand.models)[NAME].file == shipped
    config = tmp_path / "site" / "focalis.toml"
    config.parent.mkdir()
    config.write_text(f'[[models]]\nname = "nodules"\nfile = "{NAME}"\n')
    assert open_models(load_config(config).models)["nodules"].file == shipped


def test_the_device_names_the_card_of_a_model_of_the_package(shipped, tmp_path):
    own = tmp_path / "own.safetensors"
    own.write_bytes(shipped.read_bytes())
    config = tmp_path / "focalis.toml"
    config.write_text(
        f'[[models]]\nname = "nodules"\nfile = "{NAME}"\n[[models]]\nname = "own"\nfile = "{own}"\n'
        '[[routes]]\nmodel = "nodules"\n'
    )
    said = []

    def say(line):
        said.append(line)
        if line.startswith("ready"):
            os.kill(os.getpid(), signal.SIGTERM)

    serve(settings_for(None, config, tmp_path / "store", 0, 0), say)
    cards = [line for line in said if line.startswith("card ")]
    assert cards == [
        f"card    {NAME}: outlines the nodule in a CT crop of about 51 mm around it, and is not a detector; for "
        "research use only, not a medical device; trained on LIDC-IDRI, CC BY 3.0; "
        f"its card: {shipped.with_suffix('.md')}"
    ]


def test_a_file_beside_the_configuration_comes_first(shipped, tmp_path):
    config = tmp_path / "site" / "focalis.toml"
    config.parent.mkdir()
    (config.parent / NAME).write_bytes(shipped.read_bytes())
    config.write_text(f'[[models]]\nname = "nodules"\nfile = "{NAME}"\n')
    assert open_models(load_config(config).models)["nodules"].file == config.parent / NAME


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_the_model_of_this_installation(name, tmp_path):
    if not (FOLDER / f"{name}.safetensors").exists():
        with pytest.raises(ModelError, match="comes without"):
            focalis.load(name)
        pytest.skip(f"{name} is not in this source tree; benchmarks/starter_model.py makes it")
    assert (FOLDER / f"{name}.safetensors").stat().st_size < 8e6
    card = (FOLDER / f"{name}.md").read_text(encoding="utf-8")
    for needed in ("research use only", "CC BY 3.0", "10.1118/1.3528204", "10.7937/K9/TCIA.2015.LO9QL9SX"):
        assert needed in card
    assert DATA[name].split(", ")[1] in card
    assert sha256_of(FOLDER / f"{name}.safetensors") in card
    assert open_model(name).identity.weights_sha256 in card
    model = focalis.load(name)
    array = np.random.default_rng(0).normal(-600, 200, (40, 40, 40)).astype(np.float32)
    array[16:24, 16:24, 16:24] = 40  # a dense box in air-filled lung: not a nodule, but no reason to fail
    write_volume(Volume(array, Grid((40, 40, 40))), tmp_path / "scan.nii.gz")
    (row,) = focalis.predict(model, [tmp_path / "scan.nii.gz"], tmp_path / "masks").rows
    assert row.status == "done"
    assert model.scope is not None


def test_in_place_of_a_folder_the_run_in_it_is_proposed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo" / "run").mkdir(parents=True)
    (tmp_path / "demo" / "run" / "model.safetensors").touch()
    with pytest.raises(UsageError, match=r"demo: is not a run folder; did you mean demo.run"):
        model_file("demo")
