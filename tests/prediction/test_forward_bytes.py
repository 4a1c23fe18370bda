"""The memory of a forward pass, counted before it runs."""

import json
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn

from focalis.networks import build_network
from focalis.prediction import Runtime, peak_forward_bytes

SHAPE = (1, 1, 8, 8, 8)
VOXELS = 512
BFLOAT16 = Runtime(dtype=torch.bfloat16)


def chain():
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 2, 1)).eval()


def test_a_chain_of_layers_holds_input_and_two_neighbours():
    assert peak_forward_bytes(chain(), SHAPE, Runtime()) == 4 * VOXELS * (1 + 4 + 4)


def test_an_operation_in_place_needs_nothing():
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Conv3d(4, 2, 1)).eval()
    assert peak_forward_bytes(network, SHAPE, Runtime()) == 4 * VOXELS * (1 + 4 + 2)


def test_a_concatenation_holds_both_parts():
    class Dense(nn.Module):
        def forward(self, x):
            y = x + 1
            return torch.cat([x, y], dim=1)

    assert peak_forward_bytes(Dense(), SHAPE, Runtime()) == 4 * VOXELS * (1 + 1 + 2)


def test_what_lives_on_counts_to_the_end():
    class Skip(nn.Module):
        def forward(self, x):
            early = x * 2
            late = (x + 1).exp().sin()
            return early + late

    # input and early, then two neighbours of the chain; the sum comes when only sin is left
    assert peak_forward_bytes(Skip(), SHAPE, Runtime()) == 4 * VOXELS * (1 + 1 + 2)


def test_low_precision_halves_the_activations():
    network = chain()
    weights = 2 * (4 * 27 + 4)
    # at the ReLU the cast input is gone, its original is not; a few cast weights may be alive
    expected = 4 * VOXELS + 2 * VOXELS * (4 + 4)
    assert expected <= peak_forward_bytes(network, SHAPE, BFLOAT16) <= expected + weights


def test_nothing_is_allocated():
    """A volume of 32 GB is counted at once, and the network stays what it was."""
    network = chain()
    assert peak_forward_bytes(network, (1, 1, 2000, 2000, 2000), Runtime()) == 4 * 2000**3 * 9
    assert network[0].weight.device.type == "cpu"
    assert network(torch.zeros(SHAPE)).shape == (1, 2, 8, 8, 8)


def test_it_grows_with_the_volume():
    network = build_network("dense", ((2, 2, 2),) * 2, 1, 2).eval()
    small = peak_forward_bytes(network, (1, 1, 32, 32, 32), Runtime())
    large = peak_forward_bytes(network, (1, 1, 64, 64, 64), Runtime())
    assert large == pytest.approx(8 * small, rel=0.01)


MEASURE = """
import json, pathlib, re, sys
import numpy as np, torch
from focalis.model import Model
from focalis.networks import build_network
from focalis.planning import NetworkSettings, Normalisation, Plan
from focalis.prediction import Runtime, plan_passes, run_passes

def kilobytes(key):
    return int(re.search(key + r":\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])

name, dtype, size, budget, mirror = json.loads(sys.argv[1])
strides = ((2, 2, 2),) * (3 if name == "dense" else 2)
settings = NetworkSettings(name=name, strides_zyx=strides)
plan = Plan(channels=("image",), labels={1: "x"}, spacing_zyx_mm=(1, 1, 1), patch_zyx=(32, 32, 32), batch=1,
            normalisation=(Normalisation(),), network=settings)
model = Model(plan, (build_network(name, strides, 1, 2), build_network(name, strides, 1, 2)))
how = {"runtime": Runtime(dtype=getattr(torch, dtype)), "mirror": mirror}
run_passes(model, np.ones((1, 32, 32, 32), dtype=np.float32), budget_bytes=10**10, **how).probabilities
image = np.random.default_rng(0).normal(size=(1, size, size - 3, size)).astype(np.float32)
passes = plan_passes(model, image.shape[1:], budget_bytes=budget, **how)
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = kilobytes("VmRSS")
run_passes(model, image, budget_bytes=budget, **how).probabilities
print(json.dumps([passes.tile_zyx == passes.padded_zyx, passes.bytes, 1024 * (kilobytes("VmHWM") - before)]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("name", "dtype", "size", "budget", "whole", "mirror"),
    [
        ("dense", "float32", 96, 4_000_000_000, True, True),
        ("dense", "float32", 144, 4_000_000_000, True, False),
        ("dense", "float32", 160, 600_000_000, False, False),
        ("dense", "bfloat16", 96, 4_000_000_000, True, False),
        ("densevoxnet", "float32", 80, 4_000_000_000, True, False),
    ],
)
def test_resident_memory_stays_within_the_estimate(name, dtype, size, budget, whole, mirror):
    argument = json.dumps([name, dtype, size, budget, mirror])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURE), argument], capture_output=True, text=True, check=True
    )
    in_one, estimate, grown = json.loads(done.stdout)
    assert in_one is whole
    assert grown <= estimate <= budget
