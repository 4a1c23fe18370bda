"""How far passes disagree: against computing every pass by itself."""

import numpy as np
import pytest
import torch
from small_plan import small_plan
from torch import nn

from focalis.errors import UsageError
from focalis.lesions import OperatingPoint, temper
from focalis.model import Model
from focalis.planning import NetworkSettings, Normalisation
from focalis.prediction import Settings, run_passes, segment
from focalis.prediction.predictor import mirror_flips
from focalis.volume import Grid, Volume


class Pointwise(nn.Module):
    """Each voxel by itself, so that tiles agree; a ramp along x makes mirror images differ."""

    def __init__(self, gain, ramp=0.0):
        super().__init__()
        self.gain, self.ramp = gain, ramp

    def forward(self, x):
        x = self.gain * x[:, :1] + self.ramp * torch.linspace(-1, 1, x.shape[-1])
        return torch.cat([-x, x], dim=1)


def model(*members, temperature=1.0, spacing=(1.0, 1.0, 1.0)):
    plan = small_plan(
        spacing_zyx_mm=spacing,
        normalisation=(Normalisation(kind="window", low=-1e6, high=1e6),),
        batch=1,
        network=NetworkSettings(strides_zyx=((2, 2, 2),)),
    )
    return Model(plan, members, OperatingPoint(0.4, temperature=temperature))


def noise(shape=(8, 8, 8), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_the_deviation_over_members_is_that_of_their_probabilities():
    members = [Pointwise(gain) for gain in (0.5, 1.0, 3.0)]
    array = noise()[None]
    passed = run_passes(model(*members), array, spread=True)
    mean, deviation = passed.probabilities, passed.deviation
    each = np.stack([1 - run_passes(model(member), array).probabilities[0] for member in members])
    np.testing.assert_allclose(1 - mean[0], each.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(deviation, each.std(axis=0), atol=1e-3)
    np.testing.assert_array_equal(mean, run_passes(model(*members), array).probabilities)


def test_the_deviation_over_mirror_images():
    member, array = Pointwise(1.0, ramp=1.5), noise(seed=1)[None]
    deviation = run_passes(model(member), array, mirror=True, spread=True).deviation
    passes = []
    for flip in mirror_flips((True, True, True)):
        axes = tuple(axis - 1 for axis in flip)  # of a tensor with a batch to an array without
        seen = np.ascontiguousarray(np.flip(array, axes)) if axes else array
        found = 1 - run_passes(model(member), seen).probabilities[0]
        passes.append(np.flip(found, tuple(axis - 1 for axis in axes)) if axes else found)
    np.testing.assert_allclose(deviation, np.std(passes, axis=0), atol=1e-3)
    assert deviation.max() > 0.1


def test_members_that_agree_have_none_also_across_tiles():
    array = noise((8, 16, 64), 2)[None]
    members = [Pointwise(1.0), Pointwise(1.0)]
    whole = run_passes(model(*members), array, spread=True).deviation
    tiled = run_passes(model(*members), array, budget_bytes=251_500_000, spread=True).deviation
    assert max(whole.max(), tiled.max()) < 2e-3


def test_one_pass_says_nothing():
    image = Volume(noise(), Grid((8, 8, 8)))
    with pytest.raises(UsageError, match="add mirror=True"):
        segment(model(Pointwise(1.0)), [image], Settings(uncertainty=True))


def test_a_case_gets_its_map_on_its_own_grid_and_zero_outside_of_what_was_seen():
    grid = Grid((9, 8, 7), (1.5, 1.0, 2.0), (3.0, -2.0, 1.0))
    image = Volume(noise(grid.shape_zyx, 3), grid)
    prediction = segment(
        model(Pointwise(0.5), Pointwise(3.0), spacing=(1.0, 1.0, 1.0)), [image], Settings(uncertainty=True)
    )
    assert prediction.uncertainty is not None
    assert prediction.uncertainty.shape == grid.shape_zyx
    assert prediction.uncertainty.min() >= 0
    assert 0.05 < prediction.uncertainty.max() <= 0.5
    assert segment(model(Pointwise(0.5)), [image]).uncertainty is None


def test_the_temperature_is_applied_before_the_threshold():
    image = Volume(noise(), Grid((8, 8, 8)))
    raw = segment(model(Pointwise(1.0)), [image]).probability
    warm = segment(model(Pointwise(1.0), temperature=2.0), [image])
    np.testing.assert_allclose(warm.probability, temper(raw, 2.0), atol=1e-6)
    np.testing.assert_array_equal(warm.mask, warm.probability >= np.float32(0.4))
