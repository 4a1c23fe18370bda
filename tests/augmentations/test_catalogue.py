"""Intensity changes against scipy and plain formulas, and what they must keep."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from small_plan import small_plan

from focalis.augmentations import build_augmentation
from focalis.errors import PlanError
from focalis.planning.plan import AugmentationSettings, Normalisation, Plan
from focalis.training.batches import make_batch
from focalis.training.prepared import TrainingCase


def test_blur_agrees_with_scipy_for_each_channel():
    x = np.random.default_rng(0).normal(size=(2, 9, 11, 13)).astype(np.float32)
    blur = build_augmentation("blur", {"sigma_voxels": (0.4, 1.2)})
    kernels = torch.zeros(2, 9)
    for row, (sigma, radius) in zip(kernels, [(0.8, 3), (0.5, 2)], strict=True):
        away = torch.arange(-radius, radius + 1)
        kernel = torch.exp(-0.5 * (away / sigma) ** 2)
        row[4 - radius : 5 + radius] = kernel / kernel.sum()
    blurred = blur.apply(torch.from_numpy(x), kernels).numpy()
    for number, (sigma, radius) in enumerate([(0.8, 3), (0.5, 2)]):
        expected = ndimage.gaussian_filter(x[number], sigma, mode="nearest", radius=radius)
        np.testing.assert_allclose(blurred[number], expected, atol=1e-5)


def test_blur_draws_a_kernel_of_its_limits():
    blur = build_augmentation("blur", {"sigma_voxels": [0.5, 0.5]})
    kernel = blur.draw(np.random.default_rng(0), (8, 8, 8))
    away = np.arange(-2, 3)
    expected = np.exp(-2.0 * away**2)
    np.testing.assert_allclose(kernel, expected / expected.sum(), atol=1e-6)


def test_noise_is_up_to_its_limit_and_added():
    noise = build_augmentation("noise", {"limit": 0.5})
    drawn = torch.stack([noise.draw(np.random.default_rng(seed), (16, 16, 16)) for seed in range(20)])
    deviations = drawn.std((1, 2, 3))
    assert 0.3 < float(deviations.max()) <= 0.52
    assert float(deviations.min()) < 0.2
    torch.testing.assert_close(noise.apply(torch.ones(20, 16, 16, 16), drawn), 1 + drawn)


def test_brightness_is_added_and_contrast_multiplies_about_the_mean():
    x, by = torch.randn(2, 4, 5, 6), torch.tensor([0.5, 2.0])
    wide = by.reshape(2, 1, 1, 1)
    mean = x.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(build_augmentation("brightness").apply(x, by), x + wide)
    torch.testing.assert_close(build_augmentation("contrast").apply(x, by), wide * x + (1 - wide) * mean)


def test_gamma_keeps_order_mean_and_deviation_of_each_channel():
    x = torch.randn(2, 6, 7, 8) * torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1)
    y = build_augmentation("gamma").apply(x, torch.tensor([1.4, 0.8]))
    assert not torch.allclose(x, y, atol=0.05)
    for before, after in zip(x, y, strict=True):
        assert torch.equal(before.flatten().argsort(), after.flatten().argsort())
        torch.testing.assert_close(after.mean(), before.mean(), atol=1e-5, rtol=0)
        torch.testing.assert_close(after.std(), before.std(), atol=1e-4, rtol=0)


def test_gamma_of_a_constant_patch_is_finite():
    x = torch.full((1, 3, 3, 3), 2.0)
    torch.testing.assert_close(build_augmentation("gamma").apply(x, torch.tensor([0.7])), x)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("blurr", {}, "unknown augmentation 'blurr'; known are blur, brightness, contrast, gamma, noise"),
        ("blur", {"sigma": 1.0}, "augmentation blur: sigma: .*its parameters are: share, sigma_voxels"),
        ("blur", {"sigma_voxels": (1.0, 0.4)}, "augmentation blur: sigma_voxels: .*the lower one first"),
        ("noise", {"share": 1.5}, "augmentation noise: share: .*less than or equal to 1"),
        ("gamma", {"limits": (0.0, 1.0)}, "augmentation gamma: limits: .*above 0"),
        ("brightness", {"limit": float("inf")}, "augmentation brightness: limit: .*finite"),
    ],
)
def test_what_is_wrong_with_an_entry_is_named(name, parameters, message):
    with pytest.raises(PlanError, match=message):
        build_augmentation(name, parameters)


def test_shift_moves_a_channel_by_whole_voxels_with_edge_values_outside():
    shift = build_augmentation("shift", {"voxels_zyx": [1, 3, 2]})
    x = torch.randn(40, 6, 9, 8)
    drawn = torch.stack([shift.draw(np.random.default_rng(seed), (6, 9, 8)) for seed in range(40)]).float()
    steps = drawn.argmax(2) - 3
    assert (steps.abs().amax(0) == torch.tensor([1, 3, 2])).all()
    for before, after, moved in zip(x, shift.apply(x, drawn), steps, strict=True):
        expected = ndimage.shift(before.numpy(), (-moved).tolist(), order=0, mode="nearest")
        np.testing.assert_array_equal(after.numpy(), expected)


def test_shift_leaves_the_first_channel_of_every_sample():
    plan = small_plan(channels=("FLAIR", "T1"), normalisation=(Normalisation(), Normalisation()), batch=6)
    plan = plan.model_copy(update={"augmentation": (AugmentationSettings(name="shift", share=1.0),)})
    label = np.zeros((20, 20, 20), np.uint8)
    label[8:12, 8:12, 8:12] = 1
    image = np.random.default_rng(0).normal(size=(1, 20, 20, 20)).repeat(2, axis=0).astype(np.float32)
    distance = np.zeros(label.shape, np.float16)
    case = TrainingCase("a", image, label, distance, (np.argwhere(label).astype(np.int32),))
    first, second = make_batch([case], plan, 0, 0).image.unbind(1)
    plain = make_batch([case], plan.model_copy(update={"augmentation": ()}), 0, 0).image[:, 0]
    torch.testing.assert_close(first, plain)
    assert all(not torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_plan_of_one_channel_has_nothing_to_shift():
    content = small_plan().model_dump() | {"augmentation": [{"name": "shift"}]}
    with pytest.raises(ValueError, match="there is no other; leave it out"):
        Plan.model_validate(content)


def test_no_plan_shifts_channels_by_default():
    assert "shift" not in [entry.name for entry in small_plan().augmentation]
