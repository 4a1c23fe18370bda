"""A ramp of brightness across the patch, as a receiving coil on one side makes it."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from focalis.augmentations import Augmentation


class Ramp(Augmentation):
    """`limit`: the greatest rise along each axis, from edge to edge."""

    share: float = Field(default=0.2, ge=0, le=1)
    limit: float = Field(default=0.5, ge=0)

    def draw(self, rng: np.random.Generator, _shape_zyx: tuple[int, int, int]) -> Tensor:
        """The rise along z, y, x."""
        return torch.from_numpy(rng.uniform(-self.limit, self.limit, size=3))

    def apply(self, channels: Tensor, drawn: Tensor) -> Tensor:
        """Add the ramps, each 0 at the middle of its patch."""
        for axis, rise in enumerate(drawn.T, start=1):
            shape = [1, 1, 1, 1]
            shape[axis] = -1
            place = torch.linspace(-0.5, 0.5, channels.shape[axis], device=channels.device)
            channels = channels + rise[:, None, None, None] * place.reshape(shape)
        return channels
