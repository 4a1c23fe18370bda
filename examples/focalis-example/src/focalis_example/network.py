"""A plain encoder and decoder: one convolution per stage down, one transposed convolution per stage up."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import nn

from focalis.networks import NetworkSpec
from focalis.plugins import Parameters


class Width(Parameters):
    """`width`: channels of every layer."""

    width: int = Field(default=16, ge=1)


def plain(
    strides_zyx: Sequence[tuple[int, int, int]], inputs: int, outputs: int, width: int
) -> nn.Sequential:
    """Any module will do that maps (batch, inputs, z, y, x) to logits (batch, outputs, z, y, x)."""
    layers: list[nn.Module] = []
    for stride in strides_zyx:
        layers += [nn.Conv3d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm3d(width), nn.ReLU()]
        inputs = width
    for stride in reversed(strides_zyx):
        layers += [
            nn.ConvTranspose3d(width, width, stride, stride, bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.Conv3d(width, outputs, 1))


PLAIN = NetworkSpec(plain, stages=2, parameters=Width)
