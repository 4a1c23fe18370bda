"""What every augmentation of intensities offers to training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor

from focalis.plugins import Parameters

Share = Annotated[float, Field(ge=0, le=1)]


class Augmentation(Parameters, ABC):
    """A random change of intensities: drawn on the CPU channel by channel, applied to many channels at once.

    An entry of the plan, its parameters beside its name. An installed package offers one as an entry point of the group
    `focalis.augmentations`: a subclass of this class. Images are normalised, so a strength is in units of an image's
    standard deviation.

    Attributes:
        share: of the channels that are changed; the channels of a sample are drawn one by one.
        changes_first: whether it may change the first channel of a sample too.
    """

    changes_first: ClassVar[bool] = True

    share: Share

    @abstractmethod
    def draw(self, rng: np.random.Generator, shape_zyx: tuple[int, int, int]) -> float | Tensor:
        """Everything random of the change of one channel: a number or a tensor, on the CPU.

        Args:
            rng: the only source of randomness.
            shape_zyx: of the channel. The shape of what is returned may depend on it, but on nothing random.
        """

    @abstractmethod
    def apply(self, channels: Tensor, drawn: Tensor) -> Tensor:
        """The changed channels.

        Args:
            channels: float32 (n, z, y, x), of any samples of the batch, on the device of the training.
            drawn: float32 (n, ...), what was drawn for each; for numbers (n,).
        """
