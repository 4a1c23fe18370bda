"""The 3D U-Net: the classic one, one of the shape that nnU-Net plans, and a small one of that shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from focalis.networks.base import Network
from focalis.networks.blocks import Triple, initialise

SLOPE = 0.01
"""Slope of the leaky ReLU below zero, as in nnU-Net."""


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a U-Net. Tuples have one entry per resolution, finest first: one more than there are strides.

    Attributes:
        widths: channels of the two convolutions of each resolution on the way down.
        kernels: kernel of the convolutions at each resolution (z, y, x).
        pooled: step down by max-pooling; otherwise by the stride of a resolution's first convolution.
        keeps: a step up keeps its channels; otherwise it takes those of the resolution that it reaches.
        instance: instance normalisation and leaky ReLU; otherwise batch normalisation and ReLU.
        supervised: every resolution on the way up but the full and the coarsest has an output in training.
    """

    widths: tuple[tuple[int, int], ...]
    kernels: tuple[Triple, ...]
    pooled: bool
    keeps: bool
    instance: bool
    supervised: bool


class UNet(Network):
    """Two convolutions per resolution on the way down and on the way up, and long skips between them.

    Sources: Cicek et al., "3D U-Net" (MICCAI 2016); Isensee et al., "nnU-Net" (Nature Methods 2021).

    Args:
        config: the network's shape.
        strides_zyx: the steps down, one fewer than `config.widths`.
        inputs: image channels.
        outputs: classes, the background included.
    """

    def __init__(self, config: UNetConfig, strides_zyx: Sequence[Triple], inputs: int, outputs: int) -> None:
        super().__init__()
        self.config = config
        self.patchwise = config.instance
        self.pools, self.downs = nn.ModuleList(), nn.ModuleList()
        channels = inputs
        for stride, widths, kernel in zip(
            [(1, 1, 1), *strides_zyx], config.widths, config.kernels, strict=True
        ):
            pools = config.pooled and stride != (1, 1, 1)
            self.pools.append(nn.MaxPool3d(stride, stride) if pools else nn.Identity())
            step = (1, 1, 1) if config.pooled else stride
            self.downs.append(self._double(channels, widths, kernel, step))
            channels = widths[1]
        self.ups, self.merges, self.auxiliary = nn.ModuleList(), nn.ModuleList(), nn.ModuleDict()
        for i in reversed(range(len(strides_zyx))):
            width = config.widths[i][1]
            up = channels if config.keeps else width
            self.ups.append(
                nn.ConvTranspose3d(channels, up, strides_zyx[i], strides_zyx[i], bias=config.instance)
            )
            self.merges.append(self._double(up + width, (width, width), config.kernels[i]))
            channels = width
            if config.supervised and 0 < i < len(strides_zyx) - 1:
                self.auxiliary[str(i)] = nn.Conv3d(width, outputs, 1)
        self.output = nn.Conv3d(channels, outputs, 1)
        initialise(self, SLOPE if config.instance else 0.0)

    def _double(
        self, inputs: int, widths: tuple[int, int], kernel: Triple, stride: Triple = (1, 1, 1)
    ) -> nn.Sequential:
        """Convolution, normalisation, activation, twice; no bias, which the normalisation would take away again."""
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        layers: list[nn.Module] = []
        for before, width, step in zip((inputs, widths[0]), widths, (stride, (1, 1, 1)), strict=True):
            layers.append(nn.Conv3d(before, width, kernel, step, padding, bias=False))
            if self.config.instance:
                layers += [nn.InstanceNorm3d(width, affine=True), nn.LeakyReLU(SLOPE, inplace=True)]
            else:
                layers += [nn.BatchNorm3d(width), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)

    def heads(self) -> list[nn.Conv3d]:
        """See `Network.heads`; the auxiliary ones from the finest to the coarsest."""
        coarser = [head for head in self.auxiliary.values() if isinstance(head, nn.Conv3d)]
        return [self.output, *reversed(coarser)]

    def encoder(self) -> list[nn.Module]:
        return [self.downs]

    def output_weights(self) -> list[float]:
        """See `Network.output_weights`: half the weight at every coarser resolution, as in nnU-Net."""
        weights = [0.5**i for i in range(len(self.heads()))]
        return [weight / sum(weights) for weight in weights]

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        size = x.shape[2:]
        features, side = [], []
        for pool, down in zip(self.pools, self.downs, strict=True):
            x = down(pool(x))
            features.append(x)
        features.pop()
        for up, merge in zip(self.ups, self.merges, strict=True):
            x = merge(torch.cat([up(x), features.pop()], dim=1))
            key = str(len(features))
            if self.training and key in self.auxiliary:
                side.append(functional.interpolate(self.auxiliary[key](x), size, mode="trilinear"))
        logits: Tensor = self.output(x)
        return [logits, *reversed(side)] if side else logits


def classic(strides_zyx: Sequence[Triple]) -> UNetConfig:
    """The 3D U-Net as published: 32 and 64 channels at full resolution, twice as many at each step down."""
    steps = range(len(strides_zyx) + 1)
    return UNetConfig(
        widths=tuple((32 * 2**i, 64 * 2**i) for i in steps),
        kernels=((3, 3, 3),) * len(steps),
        pooled=True,
        keeps=True,
        instance=False,
        supervised=False,
    )


def planned(strides_zyx: Sequence[Triple]) -> UNetConfig:
    """The U-Net that nnU-Net plans: 32 channels, doubled at each step down to at most 320."""
    widths = [min(32 * 2**i, 320) for i in range(len(strides_zyx) + 1)]
    return UNetConfig(
        widths=tuple((width, width) for width in widths),
        kernels=tuple(_kernel(strides_zyx, i) for i in range(len(widths))),
        pooled=False,
        keeps=False,
        instance=True,
        supervised=True,
    )


def small(strides_zyx: Sequence[Triple]) -> UNetConfig:
    """Half of the channels that nnU-Net plans, and deep supervision as there.

    Kernels are cubes whatever the strides, so that weights of one plan fit another, and normalisation is over the
    batch, so that a whole volume may be predicted at once.
    """
    widths = [min(16 * 2**i, 160) for i in range(len(strides_zyx) + 1)]
    return UNetConfig(
        widths=tuple((width, width) for width in widths),
        kernels=((3, 3, 3),) * len(widths),
        pooled=False,
        keeps=False,
        instance=False,
        supervised=True,
    )


def _kernel(strides_zyx: Sequence[Triple], resolution: int) -> Triple:
    """3, but 1 along an axis whose voxels are still coarser than the others: one that only later steps halve."""

    def size(axis: int) -> int:
        first = next((i for i, stride in enumerate(strides_zyx) if stride[axis] > 1), 0)
        return 1 if resolution < first else 3

    return size(0), size(1), size(2)
