"""What a loss is told about each voxel: one class, or the share of the readers who chose each.

A target is int64 class indices (batch, z, y, x), `IGNORED` where nobody has judged; or floating shares (batch, classes,
z, y, x) that sum to 1, and to 0 where nobody has judged. Every loss term takes both; on shares of 0 and 1 they agree.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from focalis.dataset import IGNORED


def full_precision(logits: Tensor) -> Tensor:
    """The logits in float32, or in float64 if they have that."""
    return logits if logits.dtype == torch.float64 else logits.float()


def is_soft(target: Tensor) -> bool:
    """Whether a target is shares of classes."""
    return target.is_floating_point()


def judged(target: Tensor) -> Tensor:
    """Where anybody has judged, bool (batch, z, y, x)."""
    return target.sum(1) > 0 if is_soft(target) else target != IGNORED


def foreground(target: Tensor) -> Tensor:
    """Where any reader has drawn anything, bool (batch, z, y, x); undefined where nobody has judged."""
    return target[:, 1:].sum(1) > 0 if is_soft(target) else target > 0


def shares(target: Tensor, classes: int, dtype: torch.dtype) -> Tensor:
    """The target as shares of the classes, (batch, classes, z, y, x); what nobody has judged is background."""
    if is_soft(target):
        rest = (target.sum(1, keepdim=True) == 0).to(dtype)
        return torch.cat([target[:, :1].to(dtype) + rest, target[:, 1:].to(dtype)], 1)
    return functional.one_hot(target * judged(target), classes).movedim(-1, 1).to(dtype)
