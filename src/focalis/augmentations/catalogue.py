"""The augmentations of intensities by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import AfterValidator, Field
from torch import Tensor
from torch.nn import functional

from focalis.augmentations.augmentation import Augmentation, Share
from focalis.plugins import find_part, validated


def _ascending(limits: tuple[float, float]) -> tuple[float, float]:
    if not 0 < limits[0] <= limits[1] < math.inf:
        raise ValueError("give two numbers above 0, the lower one first")
    return limits


Limits = Annotated[tuple[float, float], AfterValidator(_ascending)]
Reach = Annotated[int, Field(ge=0, le=8)]
Strength = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Blur(Augmentation):
    """Gaussian blur, edge values outside. `sigma_voxels`: limits of the standard deviation; it ends at three."""

    share: Share = 0.15
    sigma_voxels: Limits = (0.4, 1.0)

    def draw(self, rng: np.random.Generator, _shape_zyx: tuple[int, int, int]) -> Tensor:
        """The kernel along one axis, zero beyond its end up to the length of the longest."""
        sigma = rng.uniform(*self.sigma_voxels)
        radius, longest = math.ceil(3 * sigma), math.ceil(3 * self.sigma_voxels[1])
        kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
        return functional.pad(kernel / kernel.sum(), [longest - radius] * 2)

    def apply(self, channels: Tensor, drawn: Tensor) -> Tensor:
        return _filtered(channels, [drawn] * 3)


class Shift(Augmentation):
    """A shift by whole voxels, edge values outside, of all channels but the first one: channels that do not match.

    `voxels_zyx`: the greatest along each axis, to both sides.
    """

    changes_first: ClassVar[bool] = False

    share: Share = 0.3
    voxels_zyx: tuple[Reach, Reach, Reach] = (1, 2, 2)

    def draw(self, rng: np.random.Generator, _shape_zyx: tuple[int, int, int]) -> Tensor:
        """A kernel per axis that is 1 where the voxel comes from, all of the length of the longest."""
        longest = max(self.voxels_zyx)
        steps = torch.tensor([longest - int(rng.integers(-most, most + 1)) for most in self.voxels_zyx])
        return functional.one_hot(steps, 2 * longest + 1)

    def apply(self, channels: Tensor, drawn: Tensor) -> Tensor:
        return _filtered(channels, list(drawn.unbind(1)))


class Noise(Augmentation):
    """Gaussian noise. `limit`: its greatest standard deviation."""

    share: Share = 0.15
    limit: Strength = 0.15

    def draw(self, rng: np.random.Generator, shape_zyx: tuple[int, int, int]) -> Tensor:
        """The noise itself, so that it is the same on every device."""
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        return torch.randn(shape_zyx, generator=generator) * rng.uniform(0, self.limit)

    def apply(self, channels: Tensor, drawn: Tensor) -> Tensor:
        return channels + drawn


class Brightness(Augmentation):
    """A constant on top. `limit`: the greatest, up or down."""

    share: Share = 0.2
    limit: Strength = 0.2

    def draw(self, rng: np.random.Generator, _shape_zyx: tuple[int, int, int]) -> float:
        """The constant."""
        return rng.uniform(-self.limit, self.limit)

    def apply(self, channels: Tensor, drawn: Tensor) -> Tensor:
        return channels + _along(channels, drawn)


class Contrast(Augmentation):
    """Distances from the channel's mean, multiplied. `limits`: of the factor."""

    share: Share = 0.2
    limits: Limits = (0.75, 1.3)

    def draw(self, rng: np.random.Generator, _shape_zyx: tuple[int, int, int]) -> float:
        """The factor."""
        return rng.uniform(*self.limits)

    def apply(self, channels: Tensor, drawn: Tensor) -> Tensor:
        mean = channels.mean((1, 2, 3), keepdim=True)
        return (channels - mean) * _along(channels, drawn) + mean


class Gamma(Augmentation):
    """Values between the channel's extremes, mapped to 0..1, raised to a power; mean and deviation are kept.

    `limits`: of the exponent.
    """

    share: Share = 0.2
    limits: Limits = (0.7, 1.5)

    def draw(self, rng: np.random.Generator, _shape_zyx: tuple[int, int, int]) -> float:
        """The exponent."""
        return rng.uniform(*self.limits)

    def apply(self, channels: Tensor, drawn: Tensor) -> Tensor:
        axes = (1, 2, 3)
        low, high = channels.amin(axes, keepdim=True), channels.amax(axes, keepdim=True)
        changed = torch.pow((channels - low) / (high - low).clamp(min=1e-6), _along(channels, drawn))
        mean = channels.mean(axes, keepdim=True)
        before, after = channels - mean, changed - changed.mean(axes, keepdim=True)
        # the ratio of their deviations; `std` itself is several times slower on a CPU
        was, now = (torch.linalg.vector_norm(x, dim=axes, keepdim=True) for x in (before, after))
        return torch.addcmul(mean, after, was / now.clamp(min=1e-6))


def _filtered(channels: Tensor, kernels_zyx: Sequence[Tensor]) -> Tensor:
    """Channels (n, z, y, x) filtered along z, y and x, edge values outside; per axis a kernel for each (n, size)."""
    for axis, kernels in enumerate(kernels_zyx):
        count, size = kernels.shape
        shape = [1, 1, 1]
        shape[axis] = size
        padding = [0] * 6
        padding[4 - 2 * axis] = padding[5 - 2 * axis] = size // 2
        padded = functional.pad(channels[None], padding, mode="replicate")
        channels = functional.conv3d(padded, kernels.reshape(count, 1, *shape), groups=count)[0]
    return channels


def _along(channels: Tensor, drawn: Tensor) -> Tensor:
    """One number per channel, in the shape that meets all its voxels."""
    return drawn.reshape(len(channels), 1, 1, 1)


AUGMENTATIONS: dict[str, type[Augmentation]] = {
    "blur": Blur,
    "noise": Noise,
    "brightness": Brightness,
    "contrast": Contrast,
    "gamma": Gamma,
    "shift": Shift,
}
"""Focalis's own augmentations; installed packages may offer more, see `focalis.plugins`."""


def build_augmentation(name: str, parameters: Mapping[str, object] | None = None) -> Augmentation:
    """Build an augmentation by name, with its own parameters; PlanError lists the known names or parameters."""
    cls = find_part("augmentation", name, AUGMENTATIONS, Augmentation)
    return validated("augmentation", name, cls, parameters or {})
