"""How far a network sees, measured."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from focalis.prediction.engine import Triple

LONGEST = 128
"""Rods are no longer: a network that sees as far would need tiles that are larger than memory allows to be exact."""


def reach_of(network: nn.Module, channels: int, stride_zyx: Sequence[int]) -> Triple | None:
    """The greatest distance in voxels, per axis, from an input voxel to an output that it changes.

    NaN put into one voxel spreads to whatever depends on it. The network runs on rods, as thin as its strides allow,
    with the NaN in the middle, once for every phase of the stride. None for a network that sees everything, such as one
    that normalises by the statistics of the image at hand; for one that sees very far; and for one that moves values
    about (`Network.moves`), of which NaN tell too little.

    Args:
        network: any network without a fixed input size.
        stride_zyx: what the sizes of an image must be a multiple of.
    """
    if getattr(network, "patchwise", False) or getattr(network, "moves", False):
        return None
    network = copy.deepcopy(network).cpu().float().eval()
    found = [_along(network, channels, stride_zyx, axis) for axis in range(3)]
    if None in found:
        return None
    z, y, x = (reach or 0 for reach in found)
    return z, y, x


def _along(network: nn.Module, channels: int, stride_zyx: Sequence[int], axis: int) -> int | None:
    stride = stride_zyx[axis]
    length = -(-64 // stride) * stride
    while length <= LONGEST:
        shape = list(stride_zyx)
        shape[axis] = length
        reach = 0
        for place in range(length // 2, length // 2 + stride):
            x = torch.zeros(1, channels, *shape)
            x.select(2 + axis, place).fill_(torch.nan)
            with torch.inference_mode():
                struck = network(x)[0].isnan().any(0).transpose(0, axis).flatten(1).any(1).nonzero()
            reach = max([reach, *(abs(int(other) - place) for other in struck)])
        if reach < length // 2 - stride:
            return reach
        length *= 2
    return None
