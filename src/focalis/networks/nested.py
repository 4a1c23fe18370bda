"""Sigmoid outputs of nested regions, as one distribution over the labels between them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from focalis.networks.base import Network


class Nested(Network):
    """A network with a sigmoid per region, from the outermost to the innermost.

    Sigmoid r is the probability of region r inside region r - 1, so that an inner region is never more likely than the
    one around it: p(region r) = sigmoid(1) ... sigmoid(r). What it gives are the logarithms of p(background) and of the
    probability that a voxel lies in region r and in no inner one. They are logits like those of any other network: a
    softmax leaves them as they are.

    Args:
        network: one with an output per region.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network: Network = network
        self.patchwise, self.moves = network.patchwise, network.moves

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        found = self.network(x)
        return [_between(logits) for logits in found] if isinstance(found, list) else _between(found)

    def heads(self) -> list[nn.Conv3d]:
        return self.network.heads()

    def encoder(self) -> list[nn.Module]:
        return self.network.encoder()

    def output_weights(self) -> list[float]:
        return self.network.output_weights()


def _between(logits: Tensor) -> Tensor:
    """Log probabilities (batch, 1 + regions, z, y, x) from the sigmoids' logits (batch, regions, z, y, x)."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    inside = functional.logsigmoid(logits).cumsum(dim=1)  # of each region
    out = functional.logsigmoid(-logits)  # of region r, inside region r - 1
    around = torch.cat([torch.zeros_like(inside[:, :1]), inside], dim=1)
    return torch.cat([around[:, :-1] + out, around[:, -1:]], dim=1)
