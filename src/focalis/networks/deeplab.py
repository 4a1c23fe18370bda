"""DeepLab in three dimensions: atrous convolutions, and a pyramid of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from focalis.networks.base import Network
from focalis.networks.blocks import Triple, initialise

WIDTHS = (32, 64, 128, 256)
BLOCKS = 2
RATES = (2, 4, 6, 8)
PYRAMID = 64


class ResidualBlock(nn.Module):
    """Two convolutions with batch normalisation, and a shortcut around them: ResNet's basic block.

    The first convolution takes the stride; `dilation` is the atrous rate of both.
    """

    def __init__(self, inputs: int, outputs: int, stride: Triple, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(inputs, outputs, stride, dilation),
            nn.ReLU(inplace=True),
            *_convolution(outputs, outputs, (1, 1, 1), dilation),
        )
        same = inputs == outputs and stride == (1, 1, 1)
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, z, y, x) to (batch, outputs, z / stride, y / stride, x / stride)."""
        return functional.relu(self.body(x) + self.shortcut(x))


class AtrousPyramid(nn.Module):
    """Parallel views of the same features: a 1^3 convolution and 3^3 ones at several atrous rates, put together."""

    def __init__(self, inputs: int, outputs: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([_activated(inputs, outputs, kernel=1)])
        self.branches.extend(_activated(inputs, outputs, dilation=rate) for rate in rates)
        self.fuse = _activated(outputs * len(self.branches), outputs, kernel=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, z, y, x) to (batch, outputs, z, y, x)."""
        return self.fuse(torch.cat([branch(x) for branch in self.branches], dim=1))  # type: ignore[no-any-return]


class DeepLab(Network):
    """A residual network whose last stages widen their view by atrous rates in place of strides, and a pyramid.

    Sources: Chen et al., "DeepLab" (IEEE TPAMI 2018, arXiv 1606.00915), and "Rethinking atrous convolution" (arXiv
    1706.05587), from which come the 1^3 branch and the way the branches are put together. The logits are
    interpolated to the image's size.

    Args:
        strides_zyx: the steps down, one to four; every stage beyond them doubles the atrous rate instead.
        inputs: image channels.
        outputs: classes, the background included.
    """

    def __init__(self, strides_zyx: Sequence[Triple], inputs: int, outputs: int) -> None:
        super().__init__()
        channels, rate = WIDTHS[0], 1
        self.stem = nn.Sequential(*_convolution(inputs, channels, strides_zyx[0]), nn.ReLU(inplace=True))
        self.stages = nn.ModuleList()
        for i, width in enumerate(WIDTHS):
            rate *= 1 if i < len(strides_zyx) else 2
            stride = strides_zyx[i] if 0 < i < len(strides_zyx) else (1, 1, 1)
            blocks = [ResidualBlock(channels, width, stride, rate)]
            blocks += [ResidualBlock(width, width, (1, 1, 1), rate) for _ in range(BLOCKS - 1)]
            self.stages.append(nn.Sequential(*blocks))
            channels = width
        self.pyramid = AtrousPyramid(channels, PYRAMID, RATES)
        self.output = nn.Conv3d(PYRAMID, outputs, 1)
        initialise(self)

    def heads(self) -> list[nn.Conv3d]:
        return [self.output]

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[2:]
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return functional.interpolate(self.output(self.pyramid(x)), size, mode="trilinear")


def _convolution(
    inputs: int, outputs: int, stride: Triple = (1, 1, 1), dilation: int = 1, kernel: int = 3
) -> tuple[nn.Conv3d, nn.BatchNorm3d]:
    padding = dilation * (kernel // 2)
    layer = nn.Conv3d(inputs, outputs, kernel, stride, padding, dilation, bias=False)
    return layer, nn.BatchNorm3d(outputs)


def _activated(inputs: int, outputs: int, kernel: int = 3, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        *_convolution(inputs, outputs, dilation=dilation, kernel=kernel), nn.ReLU(inplace=True)
    )
