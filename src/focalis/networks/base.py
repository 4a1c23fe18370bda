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
    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits (batch, outputs, z, y, x) of an image (batch, inputs, z, y, x).

        In training mode a network with auxiliary outputs returns a list: the logits, then those of every auxiliary
        output, all at the input's size.
        """

    @abstractmethod
    def heads(self) -> list[nn.Conv3d]:
        """The output layer and the auxiliary ones: convolutions with a bias, which is a prior over the classes."""

    def encoder(self) -> list[nn.Module]:
        """The parts between the image and the coarsest features; none where the network does not part itself so."""
        return []

    def output_weights(self) -> list[float]:
        """What each output of a forward pass in training mode counts in the loss."""
        return [1.0] + [AUXILIARY_WEIGHT] * (len(self.heads()) - 1)


def all_outputs(logits: Tensor | list[Tensor]) -> list[Tensor]:
    """What a forward pass in training mode returned, as a list: the logits, then those of the auxiliary outputs."""
    return [logits] if isinstance(logits, Tensor) else logits
