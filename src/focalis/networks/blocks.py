"""The parts of a dense network: unit, pyramid unit, dense block, steps between resolutions, and the first weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

Triple = tuple[int, int, int]


class Unit(nn.Sequential):
    """Batch normalisation, ReLU, convolution without bias, in the order that the method states.

    Maps (batch, inputs, z, y, x) to (batch, outputs, z, y, x).
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, dilation: int = 1, dropout: float = 0.0
    ) -> None:
        layers: list[nn.Module] = [
            nn.BatchNorm3d(inputs),
            nn.ReLU(inplace=True),
            nn.Conv3d(
                inputs, outputs, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False
            ),
        ]
        if dropout > 0:
            layers.append(nn.Dropout(dropout))
        super().__init__(*layers)


class PyramidUnit(nn.Module):
    """A unit whose new features come from several scales at once: parallel dilation rates, concatenated.

    After DDNet (doi 10.1049/ipr2.12248, abstract). `outputs` is shared out evenly, the first rate takes the rest.
    """

    def __init__(self, inputs: int, outputs: int, dilations: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = nn.Sequential(nn.BatchNorm3d(inputs), nn.ReLU(inplace=True))
        share = outputs // len(dilations)
        sizes = [outputs - share * (len(dilations) - 1)] + [share] * (len(dilations) - 1)
        self.branches = nn.ModuleList(
            nn.Conv3d(inputs, size, 3, padding=rate, dilation=rate, bias=False)
            for size, rate in zip(sizes, dilations, strict=True)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, z, y, x) to (batch, outputs, z, y, x)."""
        x = self.norm(x)
        return self.dropout(torch.cat([branch(x) for branch in self.branches], dim=1))  # type: ignore[no-any-return]


class DenseBlock(nn.Module):
    """Units in sequence, each of which sees the block's input and the output of every unit before it.

    Maps (batch, inputs, z, y, x) to (batch, inputs + units * growth, z, y, x).
    """

    def __init__(
        self, inputs: int, units: int, growth: int, dilations: Sequence[int] = (1,), dropout: float = 0.0
    ) -> None:
        super().__init__()
        widths = [inputs + i * growth for i in range(units)]
        self.units = nn.ModuleList(
            Unit(width, growth, dropout=dropout)
            if len(dilations) == 1
            else PyramidUnit(width, growth, dilations, dropout)
            for width in widths
        )
        self.outputs = inputs + units * growth

    def forward(self, x: Tensor) -> Tensor:
        """Return the input with every unit's features behind it."""
        for unit in self.units:
            x = torch.cat([x, unit(x)], dim=1)
        return x


def pooled_transition(inputs: int, outputs: int, stride: Triple) -> nn.Sequential:
    """A 1^3 unit, then max-pooling by `stride`: the step down that DenseVoxNet takes."""
    return nn.Sequential(Unit(inputs, outputs, kernel=1), nn.MaxPool3d(stride, stride))


def strided_transition(inputs: int, outputs: int, stride: Triple) -> nn.Sequential:
    """BN-ReLU and a convolution whose kernel is its stride: mixes channels and steps down in one read."""
    return nn.Sequential(
        nn.BatchNorm3d(inputs), nn.ReLU(inplace=True), nn.Conv3d(inputs, outputs, stride, stride, bias=False)
    )


def deconvolution(inputs: int, outputs: int, stride: Triple, overlap: bool) -> nn.Sequential:
    """BN-ReLU and a transposed convolution that steps up by `stride`.

    With `overlap` the kernel is twice the stride (4^3 for stride 2), so that neighbouring outputs share
    inputs; otherwise it equals the stride, which is cheaper.
    """
    z, y, x = (2 * s if overlap and s > 1 else s for s in stride)
    kernel = (z, y, x)
    padding = ((z - stride[0]) // 2, (y - stride[1]) // 2, (x - stride[2]) // 2)
    return nn.Sequential(
        nn.BatchNorm3d(inputs),
        nn.ReLU(inplace=True),
        nn.ConvTranspose3d(inputs, outputs, kernel, stride, padding, bias=False),
    )


def initialise(network: nn.Module, slope: float = 0.0) -> None:
    """Draw the weights of all convolutions for the ReLU (with that `slope` below zero) behind them; biases are zero.

    Source: He et al., "Delving deep into rectifiers" (2015), the normal variant.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(module.weight, slope, nonlinearity="leaky_relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
