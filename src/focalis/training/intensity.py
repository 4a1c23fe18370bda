"""Changes of a patch's intensities: noise, blur, brightness, contrast, gamma.

Images are normalised, so every strength is in units of an image's standard deviation. Each change strikes a share of
the samples; all draws come from the generator that is passed in.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

NOISE_SHARE, NOISE_LIMIT = 0.15, 0.15
BLUR_SHARE, BLUR_LIMITS_VOXELS = 0.15, (0.4, 1.0)
BRIGHTNESS_SHARE, BRIGHTNESS_LIMIT = 0.2, 0.2
CONTRAST_SHARE, CONTRAST_LIMITS = 0.2, (0.75, 1.3)
GAMMA_SHARE, GAMMA_LIMITS = 0.2, (0.7, 1.5)


def change_intensities(image: Tensor, rng: np.random.Generator) -> Tensor:
    """A changed copy of a patch, float32 (channel, z, y, x); every channel is struck on its own."""
    return torch.stack([_change(channel, rng) for channel in image])


def _change(x: Tensor, rng: np.random.Generator) -> Tensor:
    if rng.random() < BLUR_SHARE:
        x = blur(x, rng.uniform(*BLUR_LIMITS_VOXELS))
    if rng.random() < NOISE_SHARE:
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        x = x + torch.randn(x.shape, generator=generator) * rng.uniform(0, NOISE_LIMIT)
    if rng.random() < BRIGHTNESS_SHARE:
        x = x + rng.uniform(-BRIGHTNESS_LIMIT, BRIGHTNESS_LIMIT)
    if rng.random() < CONTRAST_SHARE:
        mean = x.mean()
        x = (x - mean) * rng.uniform(*CONTRAST_LIMITS) + mean
    if rng.random() < GAMMA_SHARE:
        x = gamma(x, rng.uniform(*GAMMA_LIMITS))
    return x


def blur(x: Tensor, sigma_voxels: float) -> Tensor:
    """Gaussian blur of (z, y, x) with edge values outside; the kernel ends at three standard deviations."""
    radius = int(np.ceil(3 * sigma_voxels))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma_voxels) ** 2)
    kernel = kernel / kernel.sum()
    x = x[None, None]
    for axis in range(3):
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = -1
        padding = [0] * 6
        padding[2 * (2 - axis)] = padding[2 * (2 - axis) + 1] = radius
        x = functional.conv3d(functional.pad(x, padding, mode="replicate"), kernel.reshape(shape))
    return x[0, 0]


def gamma(x: Tensor, exponent: float) -> Tensor:
    """Raise intensities, mapped to 0..1 between their extremes, to a power; mean and deviation are kept."""
    low, high = x.min(), x.max()
    span = (high - low).clamp(min=1e-6)
    changed = ((x - low) / span) ** exponent
    return (changed - changed.mean()) / changed.std().clamp(min=1e-6) * x.std() + x.mean()
