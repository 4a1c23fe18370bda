"""Losses: the method's distance-weighted focal loss, and what it is summed with or compared to."""

from focalis.losses.catalogue import LOSSES, DistanceFocal, Loss, build_loss
from focalis.losses.distance import (
    INFINITE_FROM_MM,
    NO_FOREGROUND_MM,
    BackgroundWeight,
    background_weight,
    distance_to_foreground,
)
from focalis.losses.terms import (
    cross_entropy,
    distance_focal_loss,
    soft_dice_loss,
    tversky_loss,
    weighted_cross_entropy,
)

__all__ = [
    "INFINITE_FROM_MM",
    "LOSSES",
    "NO_FOREGROUND_MM",
    "BackgroundWeight",
    "DistanceFocal",
    "Loss",
    "background_weight",
    "build_loss",
    "cross_entropy",
    "distance_focal_loss",
    "distance_to_foreground",
    "soft_dice_loss",
    "tversky_loss",
    "weighted_cross_entropy",
]
