"""Low precision on a processor: what is trusted agrees with float32, and what is wrong is noticed."""

from itertools import product

import numpy as np
import pytest
import torch
from small_plan import small_plan
from torch import nn
from torch.nn import functional

from focalis.errors import ModelError
from focalis.lesions import temper
from focalis.model import Model
from focalis.networks import build_network, convolutions
from focalis.planning import NetworkSettings, Normalisation
from focalis.prediction import (
    PrecisionWarning,
    Runtime,
    Settings,
    float32_because,
    plan_passes,
    run_passes,
    segment,
)
from focalis.prediction import precision as precision_of
from focalis.prediction.engine import Host
from focalis.volume import Grid, Volume

LOW = Runtime(dtype=torch.bfloat16)
LAYOUTS = (torch.contiguous_format, torch.channels_last_3d)
SHAPES = [
    (1, 12, 12), (2, 12, 12), (3, 12, 12), (4, 12, 12), (5, 9, 7), (12, 1, 12), (12, 2, 12), (12, 12, 1), (12, 12, 2),
    (1, 1, 12), (12, 3, 3), (3, 3, 3), (16, 16, 16),
]  # fmt: skip
STRIDES = ((1, 1, 1), (1, 2, 2), (2, 2, 2))


@pytest.fixture(autouse=True)
def _nothing_was_tried_before():
    precision_of.is_right.cache_clear()
    yield
    precision_of.is_right.cache_clear()


def plan(strides=((1, 1, 1),), patch=(8, 8, 8)):
    return small_plan(
        labels={1: "ball"},
        normalisation=(Normalisation(kind="zscore"),),
        patch_zyx=patch,
        network=NetworkSettings(strides_zyx=strides),
    )


def image(shape):
    return np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)


def rubbish():
    """Leave NaN and large numbers in the memory that the next tensors get."""
    for value in (torch.nan, 1e30):
        for side in (50, 100, 300, 1000):
            torch.full((side, side), value)


def wrong_where(condition, monkeypatch):
    """Let bfloat16 convolutions be NaN where a condition on the input's shape holds."""
    right = functional.conv3d

    def convolve(x, *rest, **named):
        y = right(x, *rest, **named)
        return torch.full_like(y, torch.nan) if torch.is_autocast_enabled("cpu") and condition(x.shape) else y

    monkeypatch.setattr(functional, "conv3d", convolve)


@pytest.mark.parametrize(("channels", "stride"), list(product((1, 2, 32), STRIDES)))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_trusted_agrees_with_float32_forwards_and_backwards(channels, stride, layout):
    """The sweep over shapes; on a processor with bfloat16 instructions it tries the kernels that are meant."""
    torch.manual_seed(0)
    trusted = 0
    for shape in SHAPES:
        layer = nn.Conv3d(channels, 16, 3, stride, 1, bias=False).to(memory_format=layout)
        x = torch.randn(2, channels, *shape).contiguous(memory_format=layout)
        found = convolutions(lambda layer=layer, x=x: layer(torch.empty(x.shape)))
        if float32_because(found, torch.bfloat16, layout, backward=True):
            continue
        trusted += 1
        results = []
        for low in (False, True):
            given = x.clone(memory_format=torch.preserve_format).requires_grad_()
            rubbish()
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                y = layer(given).float()
            results.append((y, *torch.autograd.grad(y.square().sum(), (given, layer.weight))))
        for exact, coarse in zip(*results, strict=True):
            assert (coarse - exact).abs().max() <= 0.03 * exact.abs().max(), shape
    assert trusted >= 1


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["1", "3", "3 dilated", "3 in groups", "2 up"])
def test_every_size_from_one_to_five_that_is_trusted_agrees_with_float32(kind, layout):
    torch.manual_seed(0)
    layer = {
        "1": nn.Conv3d(4, 8, 1),
        "3": nn.Conv3d(1, 8, 3, padding=1),
        "3 dilated": nn.Conv3d(4, 8, 3, padding=2, dilation=2),
        "3 in groups": nn.Conv3d(4, 8, 3, padding=1, groups=4),
        "2 up": nn.ConvTranspose3d(4, 8, 2, 2),
    }[kind].to(memory_format=layout)
    trusted = 0
    for shape in product(range(1, 6), repeat=3):
        x = torch.randn(1, layer.in_channels, *shape).contiguous(memory_format=layout)
        found = convolutions(lambda x=x: layer(torch.empty(x.shape)))
        if float32_because(found, torch.bfloat16, layout, backward=True):
            continue
        trusted += 1
        results = []
        for low in (False, True):
            given = x.clone(memory_format=torch.preserve_format).requires_grad_()
            rubbish()
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                y = layer(given).float()
            results.append((y, *torch.autograd.grad(y.square().sum(), (given, layer.weight))))
        for exact, coarse in zip(*results, strict=True):
            assert (coarse - exact).abs().max() <= 0.03 * exact.abs().max(), shape
    assert trusted == 27


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if min(shape) <= 2])
def test_maps_of_one_or_two_voxels_along_any_axis_are_not_trusted(shape):
    layer = nn.Conv3d(4, 4, 3, padding=1)
    found = convolutions(lambda: layer(torch.empty(1, 4, *shape)))
    for layout, backward in product(LAYOUTS, (False, True)):
        assert "1 or 2 voxels" in float32_because(found, torch.bfloat16, layout, backward=backward)
        assert not float32_because(found, torch.float32, layout, backward=backward)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30, 0.0])
def test_a_convolution_that_is_wrong_is_noticed(monkeypatch, value):
    right = functional.conv3d

    def broken(x, *rest):
        y = right(x, *rest)
        if torch.is_autocast_enabled("cpu") and x.shape[2] == 5:
            y[:, -1] = value
        return y

    monkeypatch.setattr(functional, "conv3d", broken)
    for depth, expected in ((5, "is wrong on this processor"), (6, "")):
        layer = nn.Conv3d(1, 8, 3, padding=1)
        found = convolutions(lambda layer=layer, depth=depth: layer(torch.empty(1, 1, depth, 20, 20)))
        assert expected in float32_because(found, torch.bfloat16, torch.channels_last_3d, backward=False)
        assert bool(expected) == bool(
            float32_because(found, torch.bfloat16, torch.channels_last_3d, backward=False)
        )


class _WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(_, y):
        return y.clone()

    @staticmethod
    def backward(_, gradient):
        return gradient * 3


def test_a_wrong_gradient_counts_only_in_training(monkeypatch):
    right = functional.conv3d

    def broken(*given):
        y = right(*given)
        return _WrongGradient.apply(y) if torch.is_autocast_enabled("cpu") else y

    monkeypatch.setattr(functional, "conv3d", broken)
    layer = nn.Conv3d(2, 8, 3, padding=1)
    found = convolutions(lambda: layer(torch.empty(1, 2, 10, 10, 10)))
    assert float32_because(found, torch.bfloat16, torch.channels_last_3d, backward=True)
    assert not float32_because(found, torch.bfloat16, torch.channels_last_3d, backward=False)


def test_trying_leaves_the_random_state_alone_and_happens_once(monkeypatch):
    calls = []
    right = functional.conv3d
    monkeypatch.setattr(functional, "conv3d", lambda *given: calls.append(1) or right(*given))
    layer = nn.Conv3d(1, 4, 3, padding=1)
    found = convolutions(lambda: layer(torch.empty(1, 1, 64, 64, 64)))
    before, calls[:] = torch.get_rng_state(), []
    float32_because(found, torch.bfloat16, torch.channels_last_3d, backward=False)
    tried = len(calls)
    float32_because(found, torch.bfloat16, torch.channels_last_3d, backward=False)
    assert tried == len(calls) > 1
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("shape", [(1, 24, 24), (2, 16, 16), (24, 1, 24), (16, 16, 2)])
def test_thin_images_are_predicted_in_float32_and_it_is_said(monkeypatch, shape):
    wrong_where(lambda shape: min(shape[2:]) <= 2, monkeypatch)
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 2, 1))
    model = Model(plan(), (network,))
    np.testing.assert_array_equal(
        run_passes(model, image(shape), runtime=LOW).probabilities,
        run_passes(model, image(shape)).probabilities,
    )
    passes = plan_passes(model, shape, budget_bytes=10**10, runtime=LOW)
    assert "1 or 2 voxels" in passes.float32_because
    assert not plan_passes(model, (8, 16, 16), budget_bytes=10**10, runtime=LOW).float32_because


def test_strides_count_and_the_memory_is_that_of_float32():
    network = build_network("dense", ((2, 2, 2), (2, 2, 2)), 1, 2).eval()
    model = Model(plan(((2, 2, 2), (2, 2, 2))), (network,))
    low, exact = (
        plan_passes(model, (8, 16, 16), budget_bytes=10**10, runtime=way) for way in (LOW, Runtime())
    )
    assert low.float32_because
    assert low.bytes == exact.bytes
    assert not plan_passes(model, (12, 16, 16), budget_bytes=10**10, runtime=LOW).float32_because


class RoundsUp:
    """An engine whose background probability is the least number above 1."""

    patchwise = False

    def __call__(self, x):
        background = np.full_like(x, np.nextafter(np.float32(1), np.float32(2)))
        return np.concatenate([background, np.zeros_like(x)], axis=1)

    def float32_because(self, _shape):
        return ""

    def forward_bytes(self, _shape):
        return 0


class RunsRoundingUp(Host):
    def engines(self, _model):
        return [RoundsUp()]


def test_a_probability_that_rounds_to_above_1_is_1():
    model = Model(plan(), (nn.Conv3d(1, 2, 3, padding=1),))
    found = run_passes(model, image((8, 9, 10)), runtime=RunsRoundingUp()).probabilities
    assert found.max() == 1
    assert np.isfinite(temper(1 - found[0], 2.5)).all()


class Overflows(nn.Module):
    """Foreground above 0, by way of a number that float16 does not hold; in float32 it is right."""

    def __init__(self, exact):
        super().__init__()
        self.exact = exact

    def forward(self, x):
        low = torch.is_autocast_enabled("cpu")
        scale = torch.inf if low or not self.exact else 1.0
        return torch.cat([torch.zeros_like(x), x * scale], dim=1)


def test_what_is_not_finite_in_low_precision_is_computed_again_in_float32():
    model = Model(plan(), (Overflows(exact=True),))
    with pytest.warns(PrecisionWarning, match=r"1 of 1 passes by cpu, bfloat16 were not finite"):
        found = run_passes(model, image((8, 9, 10)), runtime=LOW).probabilities
    np.testing.assert_array_equal(found, run_passes(model, image((8, 9, 10))).probabilities)


@pytest.mark.parametrize("runtime", [LOW, Runtime()])
def test_what_is_not_finite_in_float32_is_an_error(runtime):
    model = Model(plan(), (Overflows(exact=False),))
    with pytest.raises(ModelError, match="not finite, not even in float32"):
        run_passes(model, image((8, 9, 10)), runtime=runtime)
    two = Model(plan(), (Overflows(exact=False), Overflows(exact=False)))
    with pytest.raises(ModelError, match="not finite"):
        run_passes(two, image((8, 9, 10)), runtime=runtime, spread=True)


def test_a_case_says_that_it_was_computed_in_float32():
    grid = Grid((16, 16, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    model = Model(plan(), (nn.Conv3d(1, 2, 3, padding=1),))
    volume = Volume(image((2, 16, 16))[0], grid)
    assert (
        "1 or 2 voxels"
        in segment(model, [volume], Settings(runtime="torch", precision="bfloat16")).float32_because
    )
    assert not segment(model, [volume], Settings(runtime="torch", precision="float32")).float32_because
