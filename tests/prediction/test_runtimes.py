"""Other run times give the reference's masks, and the choice among them is measured once."""

import json
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_plan import small_plan
from torch import nn

from focalis.errors import ModelError, UsageError
from focalis.model import (
    EightBit,
    Model,
    OperatingPoint,
    Refinement,
    load_model,
    open_model,
    save_model,
)
from focalis.networks import build_network
from focalis.planning import NetworkSettings
from focalis.prediction import (
    RUNTIMES,
    Runtime,
    Settings,
    choice,
    input_ranges,
    lanes_for,
    openvino,
    plan_passes,
    rounded,
    run_passes,
    runtime_for,
    segment,
)
from focalis.prediction.engine import Host
from focalis.prediction.runtime import cpu_has_bfloat16
from focalis.volume import Grid, Volume, write_volume
from focalis.workflows.predict import predict

pytest.importorskip("openvino")
STRIDES = ((2, 2, 2), (1, 2, 2))
MASKS_AGREE = {
    ("openvino", "float32"): 0.9999,
    ("openvino", "bfloat16"): 0.99,
    ("openvino-int8", "auto"): 0.985,
}
"""The share of voxels on the same side of 0.5 as float32's, on noise through a network that was not trained: both are
hard."""


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = build_network("dense", STRIDES, 1, 2)
    for _ in range(8):  # statistics and a spread of outputs as training leaves them
        network(torch.randn(2, 1, 16, 16, 16))
    return network.eval()


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).normal(size=(1, 30, 33, 28)).astype(np.float32)


@pytest.fixture(scope="module")
def model(network, image):
    plan = small_plan(patch_zyx=(16, 16, 16), batch=1, network=NetworkSettings(strides_zyx=STRIDES))
    plain = Model(plan, (network,))
    ranges = input_ranges(network, lambda: run_passes(plain, image).probabilities)
    return Model(plan, (network,), eight_bit=EightBit((ranges,), 0.001, "a test"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache") / "focalis" / "networks"


@pytest.mark.parametrize(("name", "precision"), MASKS_AGREE)
def test_every_run_time_gives_the_mask_of_the_reference(model, image, cache, name, precision):
    if precision == "bfloat16" and not cpu_has_bfloat16():
        pytest.skip("the processor has no bfloat16")
    reference = run_passes(model, image).probabilities
    runtime = runtime_for(model, name, precision=precision, cache=cache)
    other = run_passes(model, image, runtime=runtime).probabilities
    assert other.dtype == np.float32
    assert 0.05 < (reference[1] > 0.5).mean() < 0.95
    assert ((other[1] > 0.5) == (reference[1] > 0.5)).mean() > MASKS_AGREE[name, precision]


def test_openvino_in_float32_computes_the_same_numbers(model, image, cache):
    engines = runtime_for(model, "openvino", precision="float32", cache=cache)
    for shape in ((16, 16, 16), (30, 33, 28)):  # one engine, two sizes
        part = image[:, : shape[0], : shape[1], : shape[2]]
        ours = run_passes(model, part, runtime=engines, mirror=True).probabilities
        np.testing.assert_allclose(ours, run_passes(model, part, mirror=True).probabilities, atol=1e-4)


@pytest.mark.parametrize(("name", "precision"), MASKS_AGREE)
def test_cases_computed_at_once_give_the_bytes_of_one_by_itself(
    model, cache, tmp_path, monkeypatch, name, precision
):
    if precision == "bfloat16" and not cpu_has_bfloat16():
        pytest.skip("the processor has no bfloat16")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parents[1]))
    for number, size in enumerate(((20, 24, 17), (20, 24, 17), (16, 16, 24), (20, 24, 17))):
        values = np.random.default_rng(number).normal(size=size).astype(np.float32)
        write_volume(
            Volume(values, Grid(size[::-1], (1.0, 1.0, 1.0))), tmp_path / "images" / f"c{number}.nii.gz"
        )
    given = {"runtime": name, "precision": precision, "probabilities": True, "min_size_mm3": 50}
    assert lanes_for(model, Settings(runtime=name, precision=precision, threads=2))[0] == 2
    together = predict(model, [tmp_path / "images"], tmp_path / "together", threads=2, **given)
    assert [row.case for row in together.rows] == ["c0", "c1", "c2", "c3"]
    for row in together.rows:
        alone = predict(
            model, [tmp_path / "images" / f"{row.case}.nii.gz"], tmp_path / "alone", threads=2, **given
        )
        assert (alone.rows[0].lesions, alone.rows[0].tiles) == (row.lesions, row.tiles)
    for file in sorted((tmp_path / "alone").rglob("c*.*")):
        assert (
            file.read_bytes() == (tmp_path / "together" / file.relative_to(tmp_path / "alone")).read_bytes()
        )


def test_threads_may_give_openvino_its_first_image_at_the_same_time(model, cache, tmp_path):
    save_model(model, tmp_path / "model.safetensors")
    runtime_for(model, "openvino", precision="float32", cache=cache)
    code = f"""
import threading
from pathlib import Path
import numpy as np
from focalis.model import open_model
from focalis.prediction import run_passes, runtime_for
from focalis.prediction.openvino import imported

openvino = imported()
compiled, compile_model = threading.Barrier(8), openvino.Core.compile_model

def together(*given):
    network = compile_model(*given)
    compiled.wait()
    return network

openvino.Core.compile_model = together
model = open_model(Path({str(tmp_path / "model.safetensors")!r}))
runtime = runtime_for(model, "openvino", precision="float32", cache=Path({str(cache)!r}))
image = np.ones((1, 16, 16, 16), np.float32)
threads = [threading.Thread(target=run_passes, args=(model, image), kwargs=dict(runtime=runtime)) for _ in range(8)]
for thread in threads:
    thread.start()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_ctrl_c_is_heard_after_compiled_networks_have_ended_in_any_order(model, cache, tmp_path, order):
    save_model(model, tmp_path / "model.safetensors")
    runtime_for(model, "openvino", precision="float32", cache=cache)
    code = f"""
import signal
import threading
from pathlib import Path
import numpy as np
from focalis.model import open_model
from focalis.prediction import run_passes, runtime_for

def predict(size):
    runtime = runtime_for(model, "openvino", precision="float32", cache=Path({str(cache)!r}))
    run_passes(model, np.ones((1, size, 16, 16), np.float32), runtime=runtime)
    return runtime

model = open_model(Path({str(tmp_path / "model.safetensors")!r}))
held = [predict(16), predict(24)]
elsewhere = threading.Thread(target=predict, args=(16,))
elsewhere.start()
elsewhere.join()
for number in {order}:
    held[number] = None
heard = []
signal.signal(signal.SIGINT, lambda *_: heard.append("Ctrl-C"))
signal.raise_signal(signal.SIGINT)
assert heard
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_what_pytorch_must_refine_is_computed_one_case_at_a_time(model, cache, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parents[1]))
    settings = Settings(runtime="openvino", threads=8)
    refined = replace(model, refinement=Refinement(3.0, 3.0, 0.5, 1.0, 1.0, 3))
    assert lanes_for(model, settings)[0] == 4
    assert lanes_for(refined, settings) == (1, settings)
    assert lanes_for(model, Settings(runtime="torch"))[0] == 1


@pytest.mark.parametrize(("cores", "lanes"), [({1, 5, 7}, 3), ({4}, 1), (set(range(8)), 4)])
def test_as_many_cases_are_computed_at_once_as_the_process_may_use_cores(
    model, cache, monkeypatch, cores, lanes
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parents[1]))
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: cores, raising=False)
    assert lanes_for(model, Settings(runtime="openvino"))[0] == lanes


@pytest.mark.parametrize("name", ["nnunet", "segnet"])
def test_openvino_computes_the_other_networks_too(model, tmp_path, name):
    """One is given tiles of the patch's size, whatever runs it; the other unpools by the places of maxima."""
    torch.manual_seed(0)
    network = build_network(name, STRIDES, 1, 2).eval()
    settings = NetworkSettings(name=name, strides_zyx=STRIDES)
    other = Model(model.plan.model_copy(update={"network": settings}), (network,))
    engines = runtime_for(other, "openvino", precision="float32", cache=tmp_path)
    array = np.random.default_rng(0).normal(size=(1, 13, 24, 16)).astype(np.float32)
    computed = run_passes(other, array, runtime=engines).probabilities
    np.testing.assert_allclose(computed, run_passes(other, array).probabilities, atol=1e-4)
    passes = [
        plan_passes(other, (13, 24, 16), budget_bytes=10**10, runtime=way) for way in (engines, Runtime())
    ]
    assert [each.tile_zyx for each in passes] == [(16, 16, 16) if name == "nnunet" else (14, 24, 16)] * 2


def test_the_deviation_is_that_of_the_reference(model, image, cache):
    engines = runtime_for(model, "openvino", precision="float32", cache=cache)
    part = image[:, :12, :16, :16]
    ours = run_passes(model, part, runtime=engines, mirror=True, spread=True)
    wanted = run_passes(model, part, mirror=True, spread=True)
    np.testing.assert_allclose(ours.probabilities, wanted.probabilities, atol=1e-3)
    np.testing.assert_allclose(ours.deviation, wanted.deviation, atol=1e-3)
    assert ours.deviation.max() > 0.01


def test_a_refined_mask_is_that_of_the_reference(model):
    """The field is PyTorch's, behind any run time."""
    field = Refinement(3.0, 2.0, 0.5, 1.0, 1.0, 2)
    refined = replace(model, refinement=field, operating_point=OperatingPoint(0.6, temperature=2.0))
    array = np.random.default_rng(1).normal(size=(16, 16, 16)).astype(np.float32)
    volumes = [Volume(array, Grid((16, 16, 16), (1.0, 1.0, 1.0)))]
    ours, wanted, plain = (
        segment(refined, volumes, Settings(runtime=way, precision="float32", refine=refine))
        for way, refine in (("openvino", None), ("torch", None), ("openvino", False))
    )
    np.testing.assert_array_equal(ours.mask, wanted.mask)
    assert (ours.mask != plain.mask).any()


class GrowsWithTheImage(nn.Module):
    """A network whose conversion is wrong: tracing takes a size it sees for a constant."""

    def forward(self, x):
        return torch.cat([x, x * int(x.shape[2])], dim=1)


def test_a_network_that_openvino_computes_wrongly_runs_by_torch(model, tmp_path):
    wrong = Model(model.plan, (GrowsWithTheImage(),))
    with pytest.raises(ModelError, match=r"does not compute what this network does.*--runtime torch"):
        runtime_for(wrong, "openvino", cache=tmp_path)
    assert isinstance(runtime_for(wrong, cache=tmp_path), Runtime)


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(model, tmp_path):
    (tmp_path / "networks").write_text("a file where the folder should be")
    assert isinstance(runtime_for(model, cache=tmp_path / "networks"), Runtime)
    with pytest.raises(ModelError, match="cannot be written"):
        runtime_for(model, "openvino", cache=tmp_path / "networks")


def test_one_run_time_that_fails_leaves_the_others(model, tmp_path, monkeypatch):
    def runtime(_model, name, *_):
        if name == "openvino-int8":
            raise ModelError("the integers cannot be converted")
        return name

    monkeypatch.setattr(choice, "_runtime", runtime)
    monkeypatch.setattr(choice, "_measure", lambda _, runtimes: dict(zip(runtimes, (2.0, 1.0), strict=True)))
    assert runtime_for(model, cache=tmp_path) == "openvino"
    (remembered,) = tmp_path.rglob("choice-*.json")
    assert json.loads(remembered.read_text())["seconds"] == {"torch": 2.0, "openvino": 1.0}


def test_a_full_disk_is_not_remembered_as_the_lack_of_a_run_time(model, tmp_path, monkeypatch):
    def runtime(_model, name, *_):
        if name != "torch":
            raise ModelError("cannot be written") from OSError("no space left")
        return name

    monkeypatch.setattr(choice, "_runtime", runtime)
    monkeypatch.setattr(choice, "_measure", lambda _, runtimes: dict.fromkeys(runtimes, 1.0))
    assert runtime_for(model, cache=tmp_path) == "torch"
    assert not list(tmp_path.rglob("choice-*.json"))


def test_a_model_that_no_run_time_can_open_is_refused_as_such(model, tmp_path, monkeypatch):
    def runtime(*_):
        raise ModelError("weights: damaged")

    monkeypatch.setattr(choice, "_runtime", runtime)
    with pytest.raises(ModelError, match="weights: damaged"):
        runtime_for(model, cache=tmp_path)


@pytest.mark.slow
def test_a_converted_network_that_was_damaged_is_converted_again(model, image, tmp_path):
    def predicted():
        return run_passes(model, image, runtime=runtime_for(model, "openvino", cache=tmp_path)).probabilities

    def flip(path):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0x40
        path.write_bytes(content)

    wanted = predicted()
    for name, damage in (
        ("network.bin", lambda path: path.unlink()),
        ("network.bin", flip),
        ("network.xml", lambda path: path.write_text("no network")),
        ("facts.json", lambda path: path.write_text("")),
        ("facts.json", lambda path: path.write_text("[]")),
        (
            "facts.json",
            lambda path: path.write_text(path.read_text().replace('"reach_zyx": [', '"reach_zyx": [1')),
        ),
    ):
        (path,) = tmp_path.rglob(name)
        damage(path)
        np.testing.assert_array_equal(predicted(), wanted)


@pytest.mark.usefixtures("unconverted")
@pytest.mark.parametrize("content", ["[]", "", "{}", '{"chosen": "openvino-int8"}', '{"chosen": 3}'])
def test_a_choice_that_is_none_is_made_again(model, tmp_path, monkeypatch, content):
    plain = replace(model, eight_bit=None)
    monkeypatch.setattr(choice, "_measure", lambda *_: {"torch": 2.0, "openvino": 1.0})
    runtime_for(plain, cache=tmp_path)
    (remembered,) = tmp_path.rglob("choice-*.json")
    remembered.write_text(content)
    assert runtime_for(plain, cache=tmp_path) == "openvino"
    assert json.loads(remembered.read_text())["chosen"] == "openvino"


def test_auto_is_torch_where_what_was_chosen_cannot_be_made_again(model, tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "_measure", lambda _, runtimes: {name: -len(name) for name in runtimes})
    assert "openvino" in str(runtime_for(replace(model, eight_bit=None), cache=tmp_path))
    (weights,) = tmp_path.rglob("network.bin")
    weights.unlink()

    def fails(*_, **__):
        raise ModelError("cannot be written")

    monkeypatch.setattr(openvino, "convert", fails)
    assert isinstance(runtime_for(replace(model, eight_bit=None), cache=tmp_path), Runtime)


@pytest.mark.parametrize("name", RUNTIMES)
def test_an_unknown_precision_is_refused_by_every_run_time(model, name):
    with pytest.raises(UsageError, match="precision 'int8' is unknown; choose one of auto, float32"):
        runtime_for(model, name, precision="int8")


def test_members_of_an_ensemble_take_turns_in_the_memory(model, image, cache):
    """What one pass needs fits a quarter of the budget, what two members would hold together does not."""
    pair = Model(model.plan, (model.members[0], model.members[0]))
    runtime = runtime_for(pair, "openvino", cache=cache)
    need = plan_passes(pair, image.shape[1:], budget_bytes=10**10, runtime=runtime).bytes
    found = run_passes(pair, image, runtime=runtime, budget_bytes=6 * need).probabilities
    assert not any(engine.is_compiled for engine in runtime.engines(pair))
    np.testing.assert_allclose(
        found,
        run_passes(model, image, runtime=runtime_for(model, "openvino", cache=cache)).probabilities,
        atol=1e-6,
    )


def test_integers_do_what_the_rounded_network_does(model, image, cache):
    """The simulation that the calibration judges by is close to what the processor computes."""
    simulated = Model(model.plan, (rounded(model.members[0], model.eight_bit.ranges[0]),))
    computed = run_passes(
        model, image, runtime=runtime_for(model, "openvino-int8", cache=cache)
    ).probabilities
    error = np.abs(computed - run_passes(simulated, image).probabilities).mean()
    assert error < 0.02


@pytest.mark.parametrize(
    ("name", "precision", "has_bfloat16", "rest"),
    [
        ("openvino", "auto", True, "bf16"),
        ("openvino", "auto", False, "f32"),
        ("openvino", "float32", True, "f32"),
        ("openvino", "bfloat16", False, "bf16"),
        ("openvino-int8", "auto", True, "bf16"),
        ("openvino-int8", "auto", False, "f32"),
    ],
)
def test_what_is_not_done_in_integers_is_in_bfloat16_where_the_processor_has_it(
    model, cache, monkeypatch, name, precision, has_bfloat16, rest
):
    monkeypatch.setattr(choice, "_openvino_has_bfloat16", lambda: has_bfloat16)
    assert runtime_for(model, name, precision=precision, cache=cache).precision == rest


def test_rounding_keeps_a_convolution_near_its_values():
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Conv3d(3, 4, 3), nn.ConvTranspose3d(4, 2, 2, 2, bias=False)).eval()
    x = torch.rand(1, 3, 8, 8, 8) * 5 - 1
    ranges = input_ranges(layer, lambda: layer(x))
    assert ranges["0"] == (float(x.min()), float(x.max()))
    with torch.no_grad():
        exact, coarse = layer(x), rounded(layer, ranges)(x)
    assert 0 < (exact - coarse).abs().max() < 0.03 * exact.abs().max()


def test_the_memory_estimate_grows_with_the_volume_and_counts_the_output(model, cache):
    engine = runtime_for(model, "openvino", cache=cache).engines(model)[0]
    small, large = (engine.forward_bytes((1, 1, size, size, size)) for size in (64, 128))
    assert large - small > 0.9 * 4 * 3 * (128**3 - 64**3)  # at least image and probabilities
    assert engine.reach_zyx() == Runtime().engines(model)[0].reach_zyx()
    assert plan_passes(
        model, (64, 64, 64), budget_bytes=10**10, runtime=runtime_for(model, "openvino", cache=cache)
    )


def test_what_a_large_share_of_the_budget_was_needed_for_is_given_back(model, image, cache):
    runtime = runtime_for(model, "openvino", cache=cache)
    (engine,) = runtime.engines(model)
    run_passes(model, image, runtime=runtime, budget_bytes=10**10)
    assert engine.is_compiled  # the next case of this size needs no compilation
    need = plan_passes(model, image.shape[1:], budget_bytes=10**10, runtime=runtime).bytes
    run_passes(model, image, runtime=runtime, budget_bytes=2 * need)
    assert not engine.is_compiled


@pytest.fixture
def unconverted(monkeypatch):
    """Run times that are only their names."""
    monkeypatch.setattr(choice, "_runtime", lambda _model, name, *_: name)


@pytest.mark.usefixtures("unconverted")
def test_auto_measures_once_and_remembers(model, tmp_path, monkeypatch):
    times = {"torch": 3.0, "openvino": 1.0, "openvino-int8": 2.0}
    asked = []
    monkeypatch.setattr(choice, "_measure", lambda _, runtimes: asked.append(list(runtimes)) or times)
    said = []
    for _ in range(2):
        assert runtime_for(model, cache=tmp_path, say=said.append) == "openvino"
    assert asked == [["torch", "openvino", "openvino-int8"]]
    assert said[0].startswith("measure")
    assert said[1:] == [
        "fastest: openvino; a patch takes 3000 ms by torch, 1000 ms by openvino, 2000 ms by openvino-int8"
    ]
    (remembered,) = tmp_path.rglob("choice-*.json")
    assert json.loads(remembered.read_text()) == {"chosen": "openvino", "seconds": times}


def test_a_measurement_knows_the_faster_of_two(model):
    class Waits(Host):
        def __init__(self, seconds):
            self.seconds = seconds

        def engines(self, _):
            return [lambda _: time.sleep(self.seconds)]

    seconds = choice._measure(model, {"slow": Waits(0.02), "quick": Waits(0)})
    assert seconds["quick"] < seconds["slow"]


@pytest.mark.usefixtures("unconverted")
@pytest.mark.parametrize(
    ("loss", "precision", "chosen"),
    [
        (0.0029, "auto", "openvino-int8"),
        (0.003, "auto", "openvino"),
        (-0.07, "auto", "openvino"),
        (0.0, "float32", "openvino"),
        (None, "auto", "openvino"),
    ],
)
def test_auto_takes_8_bits_only_where_they_cost_little_and_no_precision_was_named(
    model, tmp_path, monkeypatch, loss, precision, chosen
):
    eight_bit = None if loss is None else EightBit(model.eight_bit.ranges, loss, "")
    other = Model(model.plan, model.members, eight_bit=eight_bit)
    monkeypatch.setattr(choice, "_measure", lambda _, runtimes: {name: -len(name) for name in runtimes})
    assert runtime_for(other, precision=precision, cache=tmp_path) == chosen


def test_without_openvino_torch_runs(model, monkeypatch):
    monkeypatch.setattr(openvino, "is_installed", lambda: False)
    assert isinstance(runtime_for(model), Runtime)
    with pytest.raises(UsageError, match="needs OpenVINO"):
        runtime_for(model, "openvino")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"name": "tensorrt"}, "unknown"),
        ({"name": "openvino", "device": "cuda"}, "runs on the CPU"),
        ({"name": "openvino", "precision": "float16"}, "does not compute in float16"),
        ({"name": "openvino-int8", "precision": "float32"}, "does not compute in float32"),
    ],
)
def test_what_cannot_be_is_refused(model, options, reason):
    with pytest.raises(UsageError, match=reason):
        runtime_for(model, **options)


def test_a_model_without_calibration_has_no_8_bits(model, tmp_path):
    with pytest.raises(ModelError, match="not calibrated"):
        runtime_for(Model(model.plan, model.members), "openvino-int8", cache=tmp_path)
    assert not list(tmp_path.rglob("*.xml"))


def test_the_calibration_lies_in_the_model_file(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    assert load_model(path).eight_bit == model.eight_bit
    unread = open_model(path)
    assert unread.eight_bit == model.eight_bit
    assert unread.identity.weights_sha256 == model.identity.weights_sha256
    assert torch.equal(
        unread.members[0].state_dict()["stem.weight"], model.members[0].state_dict()["stem.weight"]
    )


def test_a_file_that_changed_while_open_is_noticed(model, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    unread = open_model(path)
    save_model(Model(model.plan, (build_network("dense", STRIDES, 1, 2),)), path)
    with pytest.raises(ModelError, match="changed while it was in use"):
        unread.members[0]


def test_a_second_prediction_does_without_torch(model, image, cache, tmp_path):
    path, out = tmp_path / "model.safetensors", tmp_path / "p.npy"
    save_model(model, path)
    runtime_for(model, "openvino", precision="float32", cache=cache)
    np.save(tmp_path / "image.npy", image)
    code = f"""
import sys, numpy as np
from pathlib import Path
from focalis.model import open_model
from focalis.prediction import run_passes, runtime_for
import focalis.workflows.predict
model = open_model(Path({str(path)!r}))
runtime = runtime_for(model, "openvino", precision="float32", cache=Path({str(cache)!r}))
np.save({str(out)!r}, run_passes(model, np.load({str(tmp_path / "image.npy")!r}), runtime=runtime).probabilities)
print(sorted({{"torch", "pydicom", "scipy.ndimage", "scipy.special", "matplotlib"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    np.testing.assert_allclose(np.load(out), run_passes(model, image).probabilities, atol=1e-4)
