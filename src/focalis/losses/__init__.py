"""Losses: the method's distance-weighted focal loss, and what it is summed with or compared to."""

from focalis.losses.catalogue import LOSSES, DistanceFocal, build_loss, loss_names, loss_parameters, loss_spec
from focalis.losses.distance import (
    INFINITE_FROM_MM,
    NO_FOREGROUND_MM,
    BackgroundWeight,
    background_weight,
    distance_to_foreground,
    nearest_lesion,
)
from focalis.losses.loss_spec import Loss, LossSpec
from focalis.losses.nested_regions import by_region
from focalis.losses.per_lesion import blob_loss, component_tversky_loss, two_way_loss, voronoi_loss
from focalis.losses.target import merge_undrawn
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
    "LossSpec",
    "background_weight",
    "blob_loss",
    "build_loss",
    "by_region",
    "component_tversky_loss",
    "cross_entropy",
    "distance_focal_loss",
    "distance_to_foreground",
    "loss_names",
    "loss_parameters",
    "loss_spec",
    "merge_undrawn",
    "nearest_lesion",
    "soft_dice_loss",
    "tversky_loss",
    "two_way_loss",
    "voronoi_loss",
    "weighted_cross_entropy",
]
