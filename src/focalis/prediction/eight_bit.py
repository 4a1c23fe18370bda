"""Convolutions in 8-bit integers: the ranges of their inputs, and the network that rounds as integers would.

The rounding is simulated by PyTorch's own operations, so that its effect can be measured anywhere; a run time that
finds them in a network computes in integers (OpenVINO does). Weights: symmetric, one scale per output channel. Inputs:
one scale and zero point per layer, from the least and the greatest value that was seen.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional

LEVELS = 255
WEIGHT_LEVELS = 127

Ranges = dict[str, tuple[float, float]]
"""Name of a convolution to the least and the greatest value of its input."""


def input_ranges(network: nn.Module, run: Callable[[], object]) -> Ranges:
    """What the inputs of a network's convolutions range over while `run` makes it work."""
    found: Ranges = {}

    def note(name: str, values: Tensor) -> None:
        if isinstance(values, FakeTensor):  # the estimate of memory runs the network on shapes alone
            return
        values = values.detach()
        low, high = found.get(name, (0.0, 0.0))  # zero is what a convolution pads with
        found[name] = min(low, float(values.min())), max(high, float(values.max()))

    with ExitStack() as stack:
        for name, layer in network.named_modules():
            if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
                hook = layer.register_forward_pre_hook(lambda _, given, name=name: note(name, given[0]))
                stack.callback(hook.remove)
        run()
    return found


def rounded(network: nn.Module, ranges: Mapping[str, tuple[float, float]]) -> nn.Module:
    """A copy of the network whose convolutions round inputs and weights as 8-bit integers would."""
    result = copy.deepcopy(network).eval()
    for name, (low, high) in ranges.items():
        parent, _, child = name.rpartition(".")
        layer = result.get_submodule(name)
        assert isinstance(layer, nn.Conv3d | nn.ConvTranspose3d)
        setattr(result.get_submodule(parent), child, _Rounded(layer, low, high))
    return result


class _Rounded(nn.Module):
    """A convolution between rounded inputs and rounded weights."""

    def __init__(self, layer: nn.Conv3d | nn.ConvTranspose3d, low: float, high: float) -> None:
        super().__init__()
        self.layer = layer
        self.scale = max(high - low, 1e-6) / LEVELS
        self.zero_point = round(-low / self.scale)
        self.axis = 1 if isinstance(layer, nn.ConvTranspose3d) else 0
        weight = layer.weight.detach()
        others = [axis for axis in range(weight.ndim) if axis != self.axis]
        self.weight_scale = nn.Buffer(weight.abs().amax(others).clamp(min=1e-12) / WEIGHT_LEVELS)
        self.weight_zero_point = nn.Buffer(torch.zeros(weight.shape[self.axis], dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, 0, LEVELS)
        layer = self.layer
        weight = torch.fake_quantize_per_channel_affine(
            layer.weight, self.weight_scale, self.weight_zero_point, self.axis, -WEIGHT_LEVELS, WEIGHT_LEVELS
        )
        if isinstance(layer, nn.ConvTranspose3d):
            assert not isinstance(layer.padding, str)
            return functional.conv_transpose3d(
                x,
                weight,
                layer.bias,
                layer.stride,
                [int(size) for size in layer.padding],
                layer.output_padding,
                layer.groups,
                layer.dilation,
            )
        return functional.conv3d(
            x, weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups
        )
