"""The averaged network that follows the trained one, and the batch statistics that both end on (decision 0007)."""

from __future__ import annotations

from itertools import compress

import torch
from torch import nn

STATISTICS_HELD_FROM = 0.4
"""From this share of the steps on, batch normalisation uses the averaged statistics that prediction will use. The
statistics of a few patches vary so much that a network which always trained with its own batch's is another one when it
predicts (decision 0007)."""


def hold_statistics(network: nn.Module, average: nn.Module, adopt: bool) -> None:
    """Let batch normalisation use fixed statistics from here on; `adopt` takes over the averaged ones first."""
    for layer, averaged in zip(network.modules(), average.modules(), strict=True):
        if isinstance(layer, nn.BatchNorm3d):
            if adopt:
                for mine, theirs in zip(layer.buffers(), averaged.buffers(), strict=True):
                    mine.copy_(theirs)
            layer.eval()


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the averaged weights and batch statistics a step towards the network's."""
    means, values = ([*module.parameters(), *module.buffers()] for module in (average, network))
    smooth = [mean.is_floating_point() for mean in means]
    torch._foreach_lerp_([*compress(means, smooth)], [*compress(values, smooth)], 1 - decay)
    for mean, value, smoothed in zip(means, values, smooth, strict=True):
        if not smoothed:
            mean.copy_(value)


def averaging_decay(step: int, limit: float) -> float:
    """The decay of the average after a step, from 0: short at first, so that the random start is soon forgotten."""
    return min(limit, (1 + step) / (10 + step))
