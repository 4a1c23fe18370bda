"""Intensity changes against scipy, and what they must keep."""

import numpy as np
import torch
from scipy import ndimage

from focalis.training.intensity import blur, change_intensities, gamma


def test_blur_agrees_with_scipy():
    x = np.random.default_rng(0).normal(size=(9, 11, 13)).astype(np.float32)
    expected = ndimage.gaussian_filter(x, 0.8, mode="nearest", radius=3)
    np.testing.assert_allclose(blur(torch.from_numpy(x), 0.8).numpy(), expected, atol=1e-5)


def test_gamma_keeps_order_mean_and_deviation():
    x = torch.randn(6, 7, 8)
    y = gamma(x, 1.4)
    assert torch.equal(x.flatten().argsort(), y.flatten().argsort())
    torch.testing.assert_close(y.mean(), x.mean(), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(), x.std(), atol=1e-4, rtol=0)


def test_gamma_of_a_constant_patch_is_finite():
    assert torch.isfinite(gamma(torch.full((3, 3, 3), 2.0), 0.7)).all()


def test_changes_derive_from_the_generator_alone():
    x = torch.randn(2, 6, 6, 6)
    torch.manual_seed(1)
    one = change_intensities(x, np.random.default_rng(3))
    torch.manual_seed(2)
    assert torch.equal(one, change_intensities(x, np.random.default_rng(3)))


def test_some_samples_change_and_some_do_not():
    x = torch.randn(1, 4, 4, 4)
    same = [torch.equal(x, change_intensities(x, np.random.default_rng(seed))) for seed in range(60)]
    assert 0.1 < np.mean(same) < 0.9
