"""Engines that compute in a memory of their own, and what happens where memory is not there."""

import gc
import weakref
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from small_plan import small_plan
from torch import nn

from focalis.errors import ModelError
from focalis.model import Model
from focalis.planning import NetworkSettings, Normalisation
from focalis.prediction import Runtime, plan_passes, run_passes
from focalis.prediction.engine import Host, is_out_of_memory
from focalis.prediction.runtime import TorchEngine


class Pointwise(nn.Module):
    def forward(self, x):
        return torch.cat([-x, x], dim=1)


def model(members=1):
    plan = small_plan(
        normalisation=(Normalisation(kind="window", low=-1e6, high=1e6),),
        batch=1,
        network=NetworkSettings(strides_zyx=((2, 2, 2),)),
    )
    return Model(plan, tuple(Pointwise() for _ in range(members)))


ARRAY = np.random.default_rng(0).normal(size=(1, 16, 32, 32)).astype(np.float32)
WANTED = 1 / (1 + np.exp(-2 * ARRAY[0]))


@dataclass(frozen=True)
class Card(Runtime):
    """A device with a memory of its own, played by the processor: it says what is free, and counts what is fetched."""

    free: float = 1e12
    fetched: tuple = ()

    def free_bytes(self):
        return self.free

    def fetch(self, array):
        SEEN.append(tuple(array.shape))
        return super().fetch(array)


SEEN = []


@pytest.fixture(autouse=True)
def _nothing_seen():
    SEEN.clear()


def test_image_and_sum_stay_on_the_device_and_one_result_comes_back():
    passed = run_passes(model(3), ARRAY, runtime=Card(), mirror=True)
    assert passed.passes.sums_there
    assert SEEN == [(2, 16, 32, 32)]
    np.testing.assert_allclose(passed.probabilities[1], WANTED, atol=1e-6)
    np.testing.assert_array_equal(
        passed.probabilities, run_passes(model(3), ARRAY, runtime=Runtime(), mirror=True).probabilities
    )


def test_the_tiles_follow_the_devices_memory_and_the_host_keeps_to_its_budget():
    whole = plan_passes(model(), ARRAY.shape[1:], budget_bytes=1e12, runtime=Card())
    cut = plan_passes(model(), ARRAY.shape[1:], budget_bytes=1e12, runtime=Card(free=whole.bytes - 1))
    assert whole.tile_zyx == (16, 32, 32)
    assert np.prod(cut.tile_zyx) < np.prod(whole.tile_zyx)
    with pytest.raises(ModelError, match="budget is too small"):
        plan_passes(model(), ARRAY.shape[1:], budget_bytes=1000, runtime=Card())


def test_if_only_tiles_fit_on_the_device_the_sum_stays_on_the_host():
    small = model()
    tile = plan_passes(small, (8, 8, 8), budget_bytes=1e12, runtime=Card()).bytes
    passed = run_passes(small, ARRAY, runtime=Card(free=tile))
    assert not passed.passes.sums_there
    assert len(SEEN) == passed.passes.tiles > 1
    np.testing.assert_allclose(passed.probabilities[1], WANTED, atol=1e-5)


class Cramped(Host):
    """Engines that raise for more voxels than they can hold; see `Engines`."""

    def __init__(self, most, error):
        self.most, self.error, self.tried, self.kept = most, error, [], []

    def engines(self, given):
        return [Cell(engine, self) for engine in Runtime().engines(given)]


class Cell:
    patchwise = False

    def __init__(self, engine, among):
        self.engine, self.among = engine, among

    def __call__(self, x):
        self.among.tried.append(int(np.prod(x.shape[2:])))
        if self.among.tried[-1] > self.among.most:
            inner = np.zeros(10_000, dtype=np.float32).view(Held)
            self.among.kept.append(weakref.ref(inner))
            raise type(self.among.error)(*self.among.error.args)
        return self.engine(torch.from_numpy(np.ascontiguousarray(x))).numpy()

    def float32_because(self, _):
        return ""

    def forward_bytes(self, shape):
        return 8 * int(np.prod(shape))

    def reach_zyx(self):
        return None

    def release(self):
        gc.collect()
        assert all(ref() is None for ref in self.among.kept), "the failed pass is still held"


class Held(np.ndarray):
    """An array that can be watched."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_means_the_next_smaller_tile(error):
    ways = Cramped(16 * 16 * 32, error)
    passed = run_passes(model(), ARRAY, runtime=ways)
    np.testing.assert_allclose(passed.probabilities[1], WANTED, atol=1e-5)
    failed = [voxels for voxels in ways.tried if voxels > ways.most]
    assert failed == sorted(set(failed), reverse=True)  # each size is tried once
    assert passed.passes.tiles > 1


@pytest.mark.slow
def test_the_smallest_tile_that_does_not_fit_is_an_error_that_says_what_to_do():
    with pytest.raises(
        ModelError, match=r"not enough memory, not even for the smallest tile; close .*\(gone\)"
    ):
        run_passes(model(), ARRAY, runtime=Cramped(0, MemoryError("gone")))


def test_other_errors_are_not_tried_again():
    ways = Cramped(0, RuntimeError("a kernel is missing"))
    with pytest.raises(RuntimeError, match="a kernel is missing"):
        run_passes(model(), ARRAY, runtime=ways)
    assert len(ways.tried) == 1
    assert not is_out_of_memory(ValueError("out of memory"))


def test_what_a_gpu_has_free_is_what_nobody_takes_and_what_pytorch_keeps(monkeypatch):
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (10e9, 20e9))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda _: 5e9)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda _: 2e9)
    assert Runtime(torch.device("cuda", 1), torch.float32).free_bytes() == pytest.approx(0.9 * 13e9)


def test_where_even_the_smallest_tile_fails_the_sum_goes_to_the_host(monkeypatch):
    plans = []
    for free in np.linspace(250.6e6, 250e6, 601):
        try:
            plans.append(
                (free, plan_passes(model(), ARRAY.shape[1:], budget_bytes=1e12, runtime=Card(free=free)))
            )
        except ModelError:
            break
    least = min(free for free, layout in plans if layout.is_least and layout.sums_there)
    compute, failed = TorchEngine.__call__, []

    def once(self, x):
        if not failed:
            failed.append(x.shape)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(self, x)

    monkeypatch.setattr(TorchEngine, "__call__", once)
    passed = run_passes(model(), ARRAY, runtime=Card(free=least))
    assert failed
    assert not passed.passes.sums_there
    np.testing.assert_allclose(passed.probabilities[1], WANTED, atol=1e-5)
