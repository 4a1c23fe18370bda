"""What every network offers to training and prediction."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

AUXILIARY_WEIGHT = 0.33


class Network(nn.Module, ABC):
    """A segmentation network: logits at the size of its input.

    z, y and x of an image must be multiples of the product of the network's strides.

    Attributes:
        patchwise: the network normalises by statistics of what it is given, so that prediction must give it what
            training gave it: tiles of the patch's size (decision 0009).
        moves: an input decides where values go, not only what they are.
    """

    patchwise = False
    moves = False

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, outputs, z, y, x) of an image (batch, inputs, z, y, x)."""

    def forward_all(self, x: Tensor) -> list[Tensor]:
        """The logits and those of every auxiliary output, all at the input's size: what training needs."""
        return [self.forward(x)]

    @abstractmethod
    def heads(self) -> list[nn.Conv3d]:
        """The output layer and the auxiliary ones: convolutions with a bias, which is a prior over the classes."""

    def output_weights(self) -> list[float]:
        """What each output of `forward_all` counts in the loss."""
        return [1.0] + [AUXILIARY_WEIGHT] * (len(self.heads()) - 1)
