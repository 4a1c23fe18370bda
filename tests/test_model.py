"""The model file keeps everything, loses nothing, and says what is wrong with a damaged one."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from focalis.errors import DataError, ModelError
from focalis.files import sha256_of
from focalis.model import (
    Model,
    OperatingPoint,
    Refinement,
    load_model,
    open_model,
    save_model,
)
from focalis.networks import build_network
from focalis.planning import NetworkSettings, Normalisation, Plan

PLAN = Plan(
    channels=("FLAIR", "T1"),
    labels={1: "lesion", 5: "oedema"},
    spacing_zyx_mm=(3.0, 1.0, 1.0),
    normalisation=(Normalisation(), Normalisation(kind="window", low=-5, high=5, std=2)),
    patch_zyx=(16, 16, 16),
    batch=2,
    network=NetworkSettings(strides_zyx=((1, 2, 2), (2, 2, 2))),
)
POINT = OperatingPoint(
    0.35,
    "best Dice on the inner split",
    ((0.3, 0.61), (0.35, 0.63)),
    12.5,
    0.6,
    ((0.9, 0.5, 0.4), (0.6, 1.0, 0.7)),
    temperature=1.25,
    second_look=(0.5, 1.0, 0.25, -2.0, -0.125),
)


def network(seed=0):
    torch.manual_seed(seed)
    return build_network(PLAN.network.name, PLAN.network.strides_zyx, 2, 3)


@pytest.fixture
def model():
    return Model(PLAN, (network(0), network(1)), POINT, {"cases": 12, "data": {"sha256": "ab"}})


@pytest.fixture
def saved(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    return path


def rewrite(path, change):
    """Change the Focalis header of a model file, weights untouched."""
    blob = path.read_bytes()
    length = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + length])
    content = json.loads(header["__metadata__"]["focalis"])
    change(content)
    header["__metadata__"]["focalis"] = json.dumps(content)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + blob[8 + length :])


def test_a_round_trip_keeps_plan_point_provenance_and_every_weight(model, saved):
    loaded = load_model(saved)
    assert (loaded.plan, loaded.operating_point) == (PLAN, POINT)
    assert loaded.provenance == {"cases": 12, "data": {"sha256": "ab"}}
    assert loaded.operating_point.temperature == 1.25
    assert len(loaded.members) == 2
    for mine, theirs in zip(model.members, loaded.members, strict=True):
        assert not theirs.training
        for name, tensor in mine.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name]), name


def test_a_refinement_is_kept_in_the_header(model, tmp_path):
    refinement = Refinement(3.0, 4.5, 0.5, 0.0, 1.0, 5, "best of 19 settings")
    path = tmp_path / "refined.safetensors"
    save_model(dataclasses.replace(model, refinement=refinement), path)
    assert load_model(path).refinement == open_model(path).refinement == refinement


def test_a_file_from_before_there_were_refinements_is_read(saved):
    rewrite(saved, lambda content: content.pop("refinement"))
    assert load_model(saved).refinement is None


@pytest.mark.parametrize("wrong", [{"similar_mm": 3}, {"depth": 1}, [1, 2]])
def test_a_malformed_refinement_is_named(saved, wrong):
    rewrite(saved, lambda content: content.update(refinement=wrong))
    with pytest.raises(ModelError, match="malformed"):
        load_model(saved)


@pytest.mark.parametrize("change", [{"near_weight": -1.0}, {"similar_mm": 0.0}, {"iterations": -1}])
def test_a_refinement_has_weights_and_widths_that_mean_something(change):
    with pytest.raises(ValueError, match="refinement"):
        dataclasses.replace(Refinement(1.0, 1.0, 1.0, 1.0, 1.0, 1), **change)


def test_a_loaded_model_computes_the_same(model, saved):
    x = torch.randn(1, 2, 8, 8, 8)
    with torch.inference_mode():
        assert torch.equal(model.members[1](x), load_model(saved).members[1](x))


def test_half_the_room_keeps_what_is_computed_and_what_identifies_the_weights(model, tmp_path):
    whole, small = tmp_path / "whole.safetensors", tmp_path / "small.safetensors"
    save_model(model, whole)
    save_model(model, small, half=True)
    assert small.stat().st_size < 0.6 * whole.stat().st_size
    loaded = load_model(small)
    for name, tensor in loaded.members[0].state_dict().items():
        exact = model.members[0].state_dict()[name]
        assert tensor.dtype == exact.dtype, name
        stored = exact.half().float() if exact.dim() > 1 else exact
        assert torch.equal(tensor, stored), name
    header = open_model(small)
    assert (
        loaded.identity.weights_sha256
        == open_model(small).identity.weights_sha256
        == header.identity.weights_sha256
    )
    assert open_model(small).members[0] is not None  # reading them holds them against the header
    save_model(loaded, tmp_path / "again.safetensors")
    assert load_model(tmp_path / "again.safetensors").plan == PLAN


def test_the_same_model_makes_the_same_file(model, saved, tmp_path):
    save_model(model, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


def test_channels_last_and_shared_and_strided_weights_are_saved_by_value(tmp_path):
    member = nn.Module()
    member.last = nn.Conv3d(4, 3, 3).to(memory_format=torch.channels_last_3d)
    member.tied = nn.Conv3d(4, 3, 3)
    member.tied.weight = member.last.weight
    member.register_buffer("strided", torch.arange(24.0).reshape(4, 6).T[1:, ::2])
    member.register_buffer("count", torch.tensor(7))
    path = tmp_path / "model.safetensors"
    save_model(Model(PLAN, (member,)), path)
    with safe_open(path, "pt") as file:
        for name, tensor in member.state_dict().items():
            assert torch.equal(file.get_tensor(f"0.{name}"), tensor), name


def test_provenance_with_nan_and_numpy_values_is_saved(tmp_path):
    provenance = {"dice": float("nan"), "count": np.int64(3), "mean": np.float32(0.5), "pair": (1, 2.5)}
    path = tmp_path / "model.safetensors"
    save_model(Model(PLAN, (network(),), POINT, provenance), path)
    assert open_model(path).provenance == {"dice": None, "count": 3, "mean": 0.5, "pair": [1, 2.5]}


def test_an_interrupted_save_leaves_the_old_file_alone(model, saved, monkeypatch):
    before = saved.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(DataError, match=r"cannot be written.*disk full"):
        save_model(dataclasses.replace(model, provenance={}), saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_the_header_is_read_without_torch(saved):
    code = (
        "import sys, pathlib, focalis.model as m\n"
        f"print(m.open_model(pathlib.Path({str(saved)!r})).networks, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["2", "False"]


def test_building_a_model_puts_its_members_in_eval_mode():
    assert not Model(PLAN, (network().train(),)).members[0].training


@pytest.mark.parametrize("threshold", [0, 1, -1, float("nan")])
def test_a_threshold_lies_between_0_and_1(threshold):
    with pytest.raises(ValueError, match="between 0 and 1"):
        OperatingPoint(threshold)


@pytest.mark.parametrize("keep", [0, 5, 8, 500, 5000, -1000, -1])
def test_a_truncated_file_is_refused(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"model\.safetensors: ") as caught:
        load_model(saved)
    assert "\n" not in str(caught.value)


def test_a_single_flipped_bit_is_noticed(saved):
    blob = bytearray(saved.read_bytes())
    blob[-2000] ^= 1
    saved.write_bytes(blob)
    with pytest.raises(ModelError, match="do not match their checksum"):
        load_model(saved)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"absent\.safetensors: cannot be read"):
        load_model(tmp_path / "absent.safetensors")


@pytest.mark.parametrize(
    "content", [b"hello", b"PK\x03\x04" + bytes(300), bytes(64), b"\x08" + bytes(7) + b"[1,2,3] "]
)
def test_another_kind_of_file_is_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    for read in (load_model, open_model):
        with pytest.raises(ModelError, match=r"is not a \.safetensors file"):
            read(path)


def test_a_foreign_safetensors_file_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.zeros(3)}, path)
    with pytest.raises(ModelError, match="no Focalis header"):
        load_model(path)


def test_a_file_of_version_1_loads_and_drops_nothing(saved):
    def to_version_1(content):
        content["version"] = 1
        del content["temperature"]
        for name in ("minimum_mm3", "minimum_confidence", "froc", "second_look"):
            del content["operating_point"][name]

    rewrite(saved, to_version_1)
    loaded = load_model(saved)
    assert loaded.operating_point == OperatingPoint(POINT.threshold, POINT.how, POINT.curve)


def test_a_newer_format_asks_for_an_update(saved):
    rewrite(saved, lambda content: content.update(version=3))
    with pytest.raises(ModelError, match=r"format version 3.*update Focalis"):
        load_model(saved)


def test_an_invalid_plan_is_named_by_its_field(saved):
    rewrite(saved, lambda content: content["plan"].update(batch=0))
    with pytest.raises(ModelError, match="the plan in its header is not valid: batch"):
        load_model(saved)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content.pop("operating_point"), "malformed"),
        (lambda content: content["operating_point"].update(threshold=3), "malformed"),
        (lambda content: content["operating_point"].update(minimum_confidence=2), "malformed"),
        (lambda content: content["operating_point"].update(minimum_mm3=-1), "malformed"),
        (lambda content: content.update(temperature=0), "malformed"),
        (lambda content: content.update(members=0), "holds no network"),
        (lambda content: content.update(members=1), "weights of no member"),
        (lambda content: content.update(members=3), "do not fit"),
        (lambda content: content["plan"]["labels"].update({"9": "more"}), "do not fit"),
        (lambda content: content["plan"]["network"].update(name="unheard"), "do not fit"),
    ],
)
def test_a_header_that_contradicts_the_weights_is_refused(saved, change, reason):
    rewrite(saved, change)
    with pytest.raises(ModelError, match=rf"model\.safetensors: .*{reason}") as caught:
        load_model(saved)
    assert "\n" not in str(caught.value)


def test_a_model_is_known_by_its_name_its_file_and_its_weights(model, saved, tmp_path):
    file = tmp_path / "lung.safetensors"
    file.write_bytes(saved.read_bytes())
    known = load_model(file).identity
    assert known == open_model(file).identity
    assert (known.name, known.file_sha256) == ("lung", sha256_of(file))
    assert known.weights_sha256 == model.identity.weights_sha256 != known.file_sha256
    assert model.identity.record() == {"model_sha256": known.weights_sha256}
    assert load_model(saved).identity.name == tmp_path.name, "a run's model goes by its folder"
