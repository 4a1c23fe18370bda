"""SegNet in three dimensions: a decoder that unpools by the indices of the encoder's max-pooling."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from focalis.networks.base import Network
from focalis.networks.blocks import Triple, initialise

WIDTHS = (32, 64, 128, 256, 256)
CONVOLUTIONS = (2, 2, 3, 3, 3)


class SegNet(Network):
    """VGG's convolutions down, the same in reverse up; between them only the places of the maxima.

    Source: Badrinarayanan et al., "SegNet" (IEEE TPAMI 2017, arXiv 1511.00561): 13 convolutions of VGG16, each with
    batch normalisation and ReLU. Here with three dimensions and half of VGG16's channels.

    Args:
        strides_zyx: the steps down, at most five; with fewer, the coarse stages are left out.
        inputs: image channels.
        outputs: classes, the background included.
    """

    moves = True

    def __init__(self, strides_zyx: Sequence[Triple], inputs: int, outputs: int) -> None:
        super().__init__()
        self.strides_zyx = tuple(strides_zyx)
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        channels = inputs
        for width, convolutions in zip(WIDTHS[: len(strides_zyx)], CONVOLUTIONS, strict=False):
            self.downs.append(_stage([channels] + [width] * convolutions))
            channels = width
        for i in reversed(range(len(strides_zyx))):
            width = WIDTHS[max(i - 1, 0)]
            self.ups.append(_stage([channels] * CONVOLUTIONS[i] + [width]))
            channels = width
        self.output = nn.Conv3d(channels, outputs, 1)
        initialise(self)

    def heads(self) -> list[nn.Conv3d]:
        return [self.output]

    def forward(self, x: Tensor) -> Tensor:
        places = []
        for down, stride in zip(self.downs, self.strides_zyx, strict=True):
            x = down(x)
            size = x.shape
            x, indices = functional.max_pool3d(x, stride, stride, return_indices=True)
            places.append((indices, size))
        for up in self.ups:
            x = up(unpool(x, *places.pop()))
        return self.output(x)  # type: ignore[no-any-return]


def unpool(x: Tensor, indices: Tensor, size: Sequence[int]) -> Tensor:
    """Zeros of `size` (batch, channel, z, y, x) with the values of `x` at the places where the maxima were.

    `indices` count the voxels of a channel, as `torch.nn.functional.max_pool3d` returns them. No two are equal where
    the pooling windows do not overlap, so the result is the same in every run on a GPU too.
    """
    empty = x.new_zeros(size).flatten(2)
    return empty.scatter(2, indices.flatten(2), x.flatten(2)).view(*size)


def _stage(channels: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, width in pairwise(channels):
        layers += [nn.Conv3d(before, width, 3, padding=1, bias=False), nn.BatchNorm3d(width)]
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)
