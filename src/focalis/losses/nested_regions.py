"""The loss of nested regions: each region against everything else, as in nnU-Net's training by region."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from focalis.dataset import IGNORED
from focalis.losses.loss_spec import Loss
from focalis.losses.target import full_precision, is_soft


def by_region(loss: Loss) -> Loss:
    """The mean of a loss over the regions: of each, the logits of two classes, inside and outside.

    Class r of logits and target lies in the regions 1 to r and in no inner one.
    """

    def total(logits: Tensor, target: Tensor, *others: Tensor) -> Tensor:
        log_p = functional.log_softmax(full_precision(logits), dim=1)
        parts = []
        for region in range(1, log_p.shape[1]):
            two = torch.stack([log_p[:, :region].logsumexp(1), log_p[:, region:].logsumexp(1)], 1)
            parts.append(loss(two, _inside(target, region), *others))
        return torch.stack(parts).mean()

    return total


def _inside(target: Tensor, region: int) -> Tensor:
    """The target of one region: 1 inside, 0 outside, or their shares."""
    if is_soft(target):
        return torch.stack([target[:, :region].sum(1), target[:, region:].sum(1)], 1)
    return torch.where(target == IGNORED, IGNORED, (target >= region).long())
