"""The losses by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import get_args

from torch import Tensor, ones_like, where

from focalis.errors import PlanError
from focalis.losses.distance import BackgroundWeight, background_weight
from focalis.losses.target import foreground, is_soft, judged
from focalis.losses.terms import (
    cross_entropy,
    distance_focal_loss,
    soft_dice_loss,
    tversky_loss,
    weighted_cross_entropy,
)

FALSE_POSITIVE, FALSE_NEGATIVE = 0.3, 0.7
"""What they cost in the Tversky loss: the values that did best in its paper."""


@dataclass(frozen=True)
class DistanceFocal:
    """The method's loss for a batch, with the parameters of its weight; see `distance_focal_loss`."""

    r: float = 0.5
    form: BackgroundWeight = "exponential"
    k_per_mm: float = 0.1
    floor: float = 0.1
    cap_mm: float = 50.0

    def __call__(self, logits: Tensor, target: Tensor, distance_mm: Tensor) -> Tensor:
        """The loss of logits (b, classes, z, y, x), a target (see `losses.target`) and distance in mm (b, z, y, x)."""
        weight = background_weight(distance_mm, self.form, self.k_per_mm, self.floor, self.cap_mm)
        known = judged(target)
        weight = where(foreground(target), ones_like(weight), weight) * known
        return distance_focal_loss(logits, target if is_soft(target) else target * known, weight, self.r)


Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def _distance_focal_dice(focal: DistanceFocal) -> Loss:
    def loss(logits: Tensor, target: Tensor, distance_mm: Tensor) -> Tensor:
        return focal(logits, target, distance_mm) + soft_dice_loss(logits, target)

    return loss


def _dice_cross_entropy(*, present: bool) -> Loss:
    def loss(logits: Tensor, target: Tensor, _distance_mm: Tensor) -> Tensor:
        return soft_dice_loss(logits, target, present=present) + cross_entropy(logits, target)

    return loss


def _with_weight(form: BackgroundWeight) -> Callable[[DistanceFocal], Loss]:
    return lambda focal: replace(focal, form=form)


LOSSES: dict[str, Callable[[DistanceFocal], Loss]] = {
    "distance_focal": lambda focal: focal,
    **{f"distance_focal_{form}": _with_weight(form) for form in get_args(BackgroundWeight)},
    "distance_focal_dice": _distance_focal_dice,
    "focal": _with_weight("constant"),
    "dice_cross_entropy": lambda _: _dice_cross_entropy(present=False),
    "present_dice_cross_entropy": lambda _: _dice_cross_entropy(present=True),
    "weighted_cross_entropy": lambda _: lambda logits, target, _mm: weighted_cross_entropy(logits, target),
    "tversky": lambda _: (
        lambda logits, target, _mm: tversky_loss(logits, target, FALSE_POSITIVE, FALSE_NEGATIVE)
    ),
}
"""Name to a function that makes the loss from the focal parameters.

`distance_focal` is the loss as claimed, with the background weight that the parameters name; behind it a weight's own
name takes that weight instead.
"""


def build_loss(name: str, focal: DistanceFocal) -> Loss:
    """Build a loss by name; PlanError lists the known names.

    Returns:
        A function of logits (b, classes, z, y, x), a target and distance in mm (b, z, y, x). The target is int64 class
        indices (b, z, y, x) or floating shares of the classes (b, classes, z, y, x), see `losses.target`.
    """
    if name not in LOSSES:
        raise PlanError(f"unknown loss {name!r}; known are {', '.join(sorted(LOSSES))}")
    return LOSSES[name](focal)
