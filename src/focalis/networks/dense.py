"""The method's network: convolution, dense blocks, deconvolution, output layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from focalis.networks.base import Network
from focalis.networks.blocks import (
    DenseBlock,
    Triple,
    Unit,
    deconvolution,
    initialise,
    pooled_transition,
    strided_transition,
)


@dataclass(frozen=True)
class DenseConfig:
    """The shape of a dense network. Every tuple has one entry per stage, finest first.

    Attributes:
        stem: channels of the first convolution.
        stem_strided: the first stride is taken by the stem itself; otherwise the stem works at full
            resolution and the first stride by a transition.
        units: units per dense block.
        growth: channels that each unit adds.
        widths: channels that enter each block; None keeps all channels (a strided stem fixes the first).
        up: channels of each transposed convolution, finest first.
        decoder: units of the dense block after each step up, finest first; 0 for none.
        skips: long skips: a step up sees the features of the same resolution on the way down.
        pooled: step down by a 1^3 unit and max-pooling instead of a strided convolution.
        overlap: transposed convolutions with a kernel of twice their stride.
        dilations: more than one rate makes every unit a pyramid.
        auxiliary: stages with an auxiliary output in training.
        dropout: rate after every unit.
    """

    stem: int
    stem_strided: bool
    units: tuple[int, ...]
    growth: tuple[int, ...]
    widths: tuple[int | None, ...]
    up: tuple[int, ...]
    decoder: tuple[int, ...]
    skips: bool
    pooled: bool = False
    overlap: bool = False
    dilations: tuple[int, ...] = (1,)
    auxiliary: tuple[int, ...] = ()
    dropout: float = 0.0


class DenseNetwork(Network):
    """Stem, dense blocks with transitions, transposed convolutions, output layer, in sequence.

    Source of the sequence: the method's claim 1 (docs/method.md); of the long skips: fully convolutional
    DenseNets.

    Args:
        config: the network's shape.
        strides_zyx: down-sampling factor per stage, as many as `config.units`.
        inputs: image channels.
        outputs: classes, the background included.
    """

    def __init__(self, config: DenseConfig, strides_zyx: Sequence[Triple], inputs: int, outputs: int) -> None:
        super().__init__()
        self.config = config
        self.strides_zyx = tuple(strides_zyx)
        first = self.strides_zyx[0] if config.stem_strided else (1, 1, 1)
        self.stem = nn.Conv3d(inputs, config.stem, 3, first, 1, bias=False)

        step_down = pooled_transition if config.pooled else strided_transition
        self.downs, self.blocks = nn.ModuleList(), nn.ModuleList()
        channels, skip_channels = config.stem, [0 if config.stem_strided else config.stem]
        for i, stride in enumerate(self.strides_zyx):
            if i == 0 and config.stem_strided:
                self.downs.append(nn.Identity())
            else:
                width = config.widths[i] or channels
                self.downs.append(step_down(channels, width, stride))
                channels = width
            block = DenseBlock(channels, config.units[i], config.growth[i], config.dilations, config.dropout)
            self.blocks.append(block)
            channels = block.outputs
            skip_channels.append(channels)
        self.auxiliary = nn.ModuleDict(
            {str(i): nn.Conv3d(skip_channels[i + 1], outputs, 1) for i in config.auxiliary}
        )

        self.bottom = Unit(channels, channels, kernel=1) if config.pooled else nn.Identity()
        self.ups, self.merges = nn.ModuleList(), nn.ModuleList()
        for i in reversed(range(len(self.strides_zyx))):
            self.ups.append(deconvolution(channels, config.up[i], self.strides_zyx[i], config.overlap))
            channels = config.up[i] + (skip_channels[i] if config.skips else 0)
            if config.decoder[i]:
                width = config.up[i]
                squeeze = Unit(channels, width, kernel=1) if i > 0 and config.skips else nn.Identity()
                channels = width if i > 0 and config.skips else channels
                block = DenseBlock(channels, config.decoder[i], width, config.dilations, config.dropout)
                self.merges.append(nn.Sequential(squeeze, block))
                channels = block.outputs
            else:
                self.merges.append(nn.Identity())
        self.output = nn.Sequential(
            nn.BatchNorm3d(channels), nn.ReLU(inplace=True), nn.Conv3d(channels, outputs, 1)
        )
        initialise(self)

    def heads(self) -> list[nn.Conv3d]:
        return [
            layer for layer in [self.output[-1], *self.auxiliary.values()] if isinstance(layer, nn.Conv3d)
        ]

    def encoder(self) -> list[nn.Module]:
        return [self.stem, self.downs, self.blocks, self.bottom]

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        size = x.shape[2:]
        x = self.stem(x)
        features: list[Tensor | None] = [None if self.config.stem_strided else x]
        side = []
        for i, (down, block) in enumerate(zip(self.downs, self.blocks, strict=True)):
            x = block(down(x))
            features.append(x)
            if self.training and str(i) in self.auxiliary:
                side.append(functional.interpolate(self.auxiliary[str(i)](x), size, mode="trilinear"))
        features.pop()
        x = self.bottom(x)
        for up, merge in zip(self.ups, self.merges, strict=True):
            x = up(x)
            skip = features.pop()
            if self.config.skips and skip is not None:
                x = torch.cat([x, skip], dim=1)
            x = merge(x)
        logits: Tensor = self.output(x)
        return [logits, *side] if side else logits
