"""What a loss is told about each voxel: one class, or the share of the readers who chose each.

If some labels of a case were not drawn, the loss sees the probabilities that `merge_undrawn` makes: there the
background stands for itself and for all that nobody looked for. Voxels that nobody has judged at all are `IGNORED`.

A target is int64 class indices (batch, z, y, x), `IGNORED` where nobody has judged; or floating shares (batch, classes,
z, y, x) that sum to 1, and to 0 where nobody has judged. Every loss term takes both; on shares of 0 and 1 they agree.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from focalis.dataset import IGNORED
from focalis.ranks import total


def full_precision(logits: Tensor) -> Tensor:
    """The logits in float32, or in float64 if they have that."""
    return logits if logits.dtype == torch.float64 else logits.float()


UNLIKELY = -1e4
"""The log of a probability of 0: finite, so that 0 times it is 0."""


def merge_undrawn(logits: Tensor, undrawn: Tensor) -> Tensor:
    """The log probabilities in which the classes that nobody drew have joined the background.

    The marginal loss of Shi et al., "Marginal loss and exclusion loss for partially supervised multi-organ
    segmentation" (Med Image Anal 2021), for every loss: p(background) becomes the sum over it and the undrawn classes,
    whose own probability becomes 0 and has no gradient.

    Args:
        logits: (batch, classes, z, y, x).
        undrawn: bool (batch, classes), never the background.

    Returns:
        Logits of the same shape, in float32 or better; a row without an undrawn class is as likely as before.
    """
    log_p = functional.log_softmax(full_precision(logits), dim=1)
    absent = undrawn[:, :, None, None, None]
    background = log_p.masked_fill(~absent, UNLIKELY)
    background = torch.cat([log_p[:, :1], background[:, 1:]], 1).logsumexp(1, keepdim=True)
    return torch.cat([background, log_p[:, 1:].masked_fill(absent[:, 1:], UNLIKELY)], 1)


def is_soft(target: Tensor) -> bool:
    """Whether a target is shares of classes."""
    return target.is_floating_point()


def judged(target: Tensor) -> Tensor:
    """Where anybody has judged, bool (batch, z, y, x)."""
    return target.sum(1) > 0 if is_soft(target) else target != IGNORED


def foreground(target: Tensor) -> Tensor:
    """Where any reader has drawn anything, bool (batch, z, y, x); undefined where nobody has judged."""
    return target[:, 1:].sum(1) > 0 if is_soft(target) else target > 0


def ratio(part: Tensor, whole: Tensor, least: float = 1) -> Tensor:
    """The sum of `part` over the sum of `whole`, of the whole batch, wherever its patches are; see `focalis.ranks`."""
    return total(part.sum()) / total(whole.sum()).clamp(min=least)


def mean(values: Tensor) -> Tensor:
    """The mean of values of which each patch of the batch has as many."""
    return ratio(values, torch.ones_like(values))


def shares(target: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """The target as shares of the classes, (batch, classes, z, y, x); what nobody has judged is background."""
    if is_soft(target):
        rest = (target.sum(1, keepdim=True) == 0).to(dtype)
        return torch.cat([target[:, :1].to(dtype) + rest, target[:, 1:].to(dtype)], 1)
    return functional.one_hot(target * judged(target), classes).movedim(-1, 1).to(dtype)
