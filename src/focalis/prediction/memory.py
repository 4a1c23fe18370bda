"""How much memory a forward pass needs, known before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from focalis.networks import peak_bytes

if TYPE_CHECKING:
    from focalis.prediction.runtime import Runtime

SCRATCH = 1.2
HEAP_SLACK_BYTES = 250_000_000
"""Allowance for what no tensor shows: work space inside the kernels, and blocks under 32 MB that the
C library keeps for re-use after they are freed. Both from the resident memory of real passes; a slow test
holds them."""


def forward_bytes(network: nn.Module, shape_bczyx: Sequence[int], runtime: Runtime) -> int:
    """Memory that a forward pass of the network adds to the process, input, output and allowance included."""
    return int(SCRATCH * peak_forward_bytes(network, shape_bczyx, runtime)) + HEAP_SLACK_BYTES


def peak_forward_bytes(network: nn.Module, shape_bczyx: Sequence[int], runtime: Runtime) -> int:
    """The most bytes of tensors alive at once in a forward pass without gradients, input and output included.

    Nothing of that size is allocated: the network runs on tensors that have a shape and a type but no
    data, and every storage is counted from its birth to its end. The weights are in memory already and do
    not count; their low-precision copies under autocast do.
    """

    def forward() -> None:
        with torch.inference_mode():
            x = torch.empty(tuple(shape_bczyx), device=runtime.device)
            x = x.to(memory_format=runtime.memory_format)
            with runtime.autocast():
                network(x)

    return peak_bytes(forward)
