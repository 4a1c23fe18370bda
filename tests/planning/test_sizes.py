"""The sizes that networks of other packages take, found by trying them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from planning.test_make import found, plan_of
from torch import nn

from focalis import plugins
from focalis.errors import PlanError
from focalis.networks import NetworkSpec
from focalis.planning import NetworkSettings
from focalis.planning.parts import network_of
from focalis.planning.sizes import require_sizes_taken
from focalis.planning.step_memory import training_bytes

MONAI_CLASSES = (
    "AttentionUnet",
    "BasicUNetPlusPlus",
    "DynUNet",
    "SegResNet",
    "SegResNetDS",
    "SegResNetDS2",
    "SwinUNETR",
    "UNet",
    "VNet",
)


class Halves(nn.Module):
    """Takes sizes that can be halved so often; where `peeks`, it looks at a value as well."""

    def __init__(self, outputs, times, peeks=False):
        super().__init__()
        self.last = nn.Conv3d(1, outputs, 1)
        self.times, self.peeks = times, peeks

    def forward(self, x):
        if self.peeks:
            assert torch.isfinite(x).all()
        for size in x.shape[2:]:
            if size % 2**self.times:
                raise RuntimeError(f"Sizes of tensors must match: {size}")
        return self.last(x)


def offer(monkeypatch, **options):
    """A plug-in whose network halves as often as it likes, whatever the plan's strides."""
    spec = NetworkSpec(lambda _strides, _inputs, outputs: Halves(outputs, **options), stages=2)
    entry = SimpleNamespace(name="halves", module="halves", dist=None, load=lambda: spec)
    monkeypatch.setattr(plugins, "offered", lambda _kind: {"halves": entry})


@pytest.mark.slow
def test_vnet_gets_the_sixteenths_that_it_needs():
    plan = plan_of(found(), network="monai:VNet")
    assert plan.network.total_stride_zyx == (16, 16, 16)
    assert plan.patch_zyx == (48, 48, 48)


def test_a_network_that_only_its_data_can_build_is_planned():
    """Its class copies tensors while it is built, which tensors without data do not allow."""
    assert plan_of(found(shapes_zyx=((24, 28, 32),) * 3), network="monai:SegResNetDS2").batch > 1


@pytest.mark.slow
@pytest.mark.parametrize("name", MONAI_CLASSES)
@pytest.mark.parametrize("shape", [(24, 28, 32), (72, 72, 72)])
def test_a_network_of_monai_trains_on_the_patch_of_its_plan_and_predicts_other_sizes(name, shape):
    if name == "SwinUNETR":
        pytest.importorskip("einops")
    plan = plan_of(found(shapes_zyx=(shape,) * 3), network=f"monai:{name}")
    network = network_of(plan)
    network.train()(torch.randn(2, 1, *plan.patch_zyx)).sum().backward()
    stride = np.array(plan.network.total_stride_zyx)
    for size in [plan.patch_zyx] if network.patchwise else [stride, stride * (3, 1, 2)]:
        with torch.inference_mode():
            assert network.eval()(torch.randn(1, 1, *map(int, size))).shape == (1, 2, *size)


def test_a_plugins_total_stride_is_found(monkeypatch):
    offer(monkeypatch, times=4)
    plan = plan_of(found(shapes_zyx=((24, 28, 32),) * 3), network="halves")
    assert plan.network.total_stride_zyx == (16, 16, 16)
    assert plan.patch_zyx == (32, 32, 32)
    assert "multiples of 16 x 16 x 16" in plan.reasons["patch_zyx"]


def test_a_plugin_that_takes_the_plans_sizes_keeps_them(monkeypatch):
    offer(monkeypatch, times=2)
    plan = plan_of(found(shapes_zyx=((24, 28, 32),) * 3), network="halves")
    assert plan.network.strides_zyx == ((2, 2, 2), (2, 2, 2))
    assert plan.patch_zyx == (20, 24, 28)


def test_a_network_that_looks_at_values_is_measured_in_earnest(monkeypatch):
    offer(monkeypatch, times=4)
    blind = plan_of(found(), network="halves")
    offer(monkeypatch, times=4, peeks=True)
    peeking = plan_of(found(), network="halves")
    assert peeking.patch_zyx == blind.patch_zyx
    assert training_bytes(blind) <= training_bytes(peeking) < 1.3 * training_bytes(blind)


def test_a_network_that_takes_no_size_is_refused_in_a_line(monkeypatch, caplog):
    offer(monkeypatch, times=9)
    with pytest.raises(
        PlanError, match=r"network halves: a training step with .* take another network"
    ) as error:
        plan_of(found(), network="halves")
    assert "\n" not in str(error.value)
    assert not caplog.records


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (
            (40, 40, 40),
            r"monai:VNet: a training step with 2 patches of 40 x 40 x 40 voxels fails .* another patch",
        ),
        (
            (48, 48, 48),
            r"monai:VNet: prediction gives it sizes of multiples of 8 x 8 x 8.* raise the strides",
        ),
    ],
)
def test_a_plan_of_sizes_that_the_network_does_not_take_is_refused(patch, message, caplog):
    settings = NetworkSettings(name="monai:VNet", strides_zyx=((2, 2, 2),) * 3)
    plan = plan_of(found()).model_copy(update={"network": settings, "patch_zyx": patch})
    with pytest.raises(PlanError, match=message):
        require_sizes_taken(plan)
    assert not caplog.records
