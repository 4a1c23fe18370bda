"""The fully convolutional DenseNet: dense blocks down and up, with long skips between them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from focalis.networks.base import Network
from focalis.networks.blocks import DenseBlock, Triple, Unit, initialise

STEM, UNITS, GROWTH, DROPOUT = 48, 4, 12, 0.2


class FullyConvolutionalDenseNet(Network):
    """FC-DenseNet56 in three dimensions: blocks of four units with growth 12 at every resolution.

    On the way up only the new features of a block are stepped up, which keeps the number of channels small; the
    skip brings all features of the way down.

    Source: Jegou et al., "The one hundred layers tiramisu" (CVPRW 2017, arXiv 1611.09326).

    Args:
        strides_zyx: the steps down; the original has five.
        inputs: image channels.
        outputs: classes, the background included.
    """

    def __init__(self, strides_zyx: Sequence[Triple], inputs: int, outputs: int) -> None:
        super().__init__()
        self.stem = nn.Conv3d(inputs, STEM, 3, padding=1, bias=False)
        self.downs, self.transitions = nn.ModuleList(), nn.ModuleList()
        channels, skips = STEM, []
        for stride in strides_zyx:
            self.downs.append(DenseBlock(channels, UNITS, GROWTH, dropout=DROPOUT))
            channels += UNITS * GROWTH
            skips.append(channels)
            self.transitions.append(
                nn.Sequential(
                    Unit(channels, channels, kernel=1, dropout=DROPOUT), nn.MaxPool3d(stride, stride)
                )
            )
        self.bottom = DenseBlock(channels, UNITS, GROWTH, dropout=DROPOUT)
        new = UNITS * GROWTH
        self.ups, self.merges = nn.ModuleList(), nn.ModuleList()
        for stride, skip in zip(reversed(strides_zyx), reversed(skips), strict=True):
            more = (stride[0] - 1, stride[1] - 1, stride[2] - 1)
            self.ups.append(nn.ConvTranspose3d(new, new, 3, stride, 1, more))
            self.merges.append(DenseBlock(new + skip, UNITS, GROWTH, dropout=DROPOUT))
            channels = new + skip + UNITS * GROWTH
        self.output = nn.Conv3d(channels, outputs, 1)
        initialise(self)

    def heads(self) -> list[nn.Conv3d]:
        return [self.output]

    def forward(self, x: Tensor) -> Tensor:
        x, features = self.stem(x), []
        for down, transition in zip(self.downs, self.transitions, strict=True):
            x = down(x)
            features.append(x)
            x = transition(x)
        x = self.bottom(x)
        for up, merge in zip(self.ups, self.merges, strict=True):
            new = x[:, -UNITS * GROWTH :]
            x = merge(torch.cat([up(new), features.pop()], dim=1))
        return self.output(x)  # type: ignore[no-any-return]
