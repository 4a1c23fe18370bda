"""The losses by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from pydantic import Field
from torch import Tensor, ones_like, where

from focalis.losses.distance import BackgroundWeight, background_weight
from focalis.losses.loss_spec import Loss, LossSpec
from focalis.losses.per_lesion import blob_loss, component_tversky_loss, two_way_loss, voronoi_loss
from focalis.losses.target import foreground, is_soft, judged
from focalis.losses.terms import (
    cross_entropy,
    distance_focal_loss,
    l1_dice_focal_loss,
    soft_dice_loss,
    tversky_loss,
    weighted_cross_entropy,
)
from focalis.plugins import Parameters, built, find_part, installed, validated


class Focusing(Parameters):
    """`r`: focusing exponent of (1 - p_t)^r, > 0."""

    r: float = Field(default=0.5, gt=0)


class Decay(Focusing):
    """`k_per_mm`: how fast the background's weight falls (or grows) with the distance, in 1/mm; `floor`: its least."""

    k_per_mm: float = Field(default=0.1, gt=0)
    floor: float = Field(default=0.1, ge=0)


class Growth(Decay):
    """`cap_mm`: the distance at which the weight stops to grow."""

    cap_mm: float = Field(default=50.0, gt=0)


class Claimed(Growth):
    """`weight`: the background's weight as a function of the distance from the lesion."""

    weight: BackgroundWeight = "exponential"


class Tversky(Parameters):
    """What a false positive and a false negative cost; the defaults did best in the loss's paper."""

    false_positive: float = Field(default=0.3, ge=0)
    false_negative: float = Field(default=0.7, ge=0)


class Lesions(Parameters):
    """`weight`: what the term that counts lesions is multiplied with before it joins soft Dice and cross entropy."""

    weight: float = Field(default=1.0, ge=0)


class Blobs(Lesions):
    """The same; its paper found twice the plain loss plus once the blobs' best."""

    weight: float = Field(default=0.5, ge=0)


class ComponentTversky(Tversky):
    """`size_exponent`: 0 for lesions that weigh by their size, 1 for nearly alike; `background`: a voxel's weight."""

    weight: float = Field(default=0.3, ge=0)
    size_exponent: float = Field(default=1.0, ge=0)
    background: float = Field(default=0.1, ge=0)


class L1(Parameters):
    """`r`: focusing exponent of (1 - p_t)^r, > 0."""

    r: float = Field(default=2.0, gt=0)


@dataclass(frozen=True)
class DistanceFocal:
    """The method's loss for a batch, with the parameters of its weight; see `distance_focal_loss`."""

    r: float = 0.5
    weight: BackgroundWeight = "exponential"
    k_per_mm: float = 0.1
    floor: float = 0.1
    cap_mm: float = 50.0

    def __call__(self, logits: Tensor, target: Tensor, distance_mm: Tensor) -> Tensor:
        """The loss of logits (b, classes, z, y, x), a target (see `losses.target`) and distance in mm (b, z, y, x)."""
        weight = background_weight(distance_mm, self.weight, self.k_per_mm, self.floor, self.cap_mm)
        known = judged(target)
        weight = where(foreground(target), ones_like(weight), weight) * known
        return distance_focal_loss(logits, target if is_soft(target) else target * known, weight, self.r)


def _distance_focal_dice(**parameters: object) -> Loss:
    focal = DistanceFocal(**parameters)  # type: ignore[arg-type]
    return lambda logits, target, distance_mm: (
        focal(logits, target, distance_mm) + soft_dice_loss(logits, target)
    )


def _dice_cross_entropy(*, present: bool) -> Loss:
    return lambda logits, target, _distance_mm: (
        soft_dice_loss(logits, target, present=present) + cross_entropy(logits, target)
    )


def _tversky(false_positive: float, false_negative: float) -> Loss:
    return lambda logits, target, _distance_mm: tversky_loss(logits, target, false_positive, false_negative)


def _with_lesions(term: Callable[..., Tensor], parameters: type[Parameters] = Lesions) -> LossSpec:
    """Soft Dice plus cross entropy plus a weighted term that counts lesions."""

    def build(weight: float, **own: float) -> Loss:
        return lambda logits, target, _distance_mm, nearest: (
            soft_dice_loss(logits, target)
            + cross_entropy(logits, target)
            + weight * term(logits, target, nearest, **own)
        )

    return LossSpec(build, parameters, lesions=True)


def _with_weight(form: BackgroundWeight, parameters: type[Parameters] = Decay) -> LossSpec:
    return LossSpec(partial(DistanceFocal, weight=form), parameters)


LOSSES: dict[str, LossSpec] = {
    "distance_focal": LossSpec(DistanceFocal, Claimed),
    "distance_focal_exponential": _with_weight("exponential"),
    "distance_focal_gaussian": _with_weight("gaussian"),
    "distance_focal_reciprocal": _with_weight("reciprocal"),
    "distance_focal_growth": _with_weight("growth", Growth),
    "distance_focal_constant": _with_weight("constant", Focusing),
    "distance_focal_dice": LossSpec(_distance_focal_dice, Claimed),
    "focal": _with_weight("constant", Focusing),
    "dice_cross_entropy": LossSpec(partial(_dice_cross_entropy, present=False)),
    "present_dice_cross_entropy": LossSpec(partial(_dice_cross_entropy, present=True)),
    "weighted_cross_entropy": LossSpec(
        lambda: lambda logits, target, _distance_mm: weighted_cross_entropy(logits, target)
    ),
    "tversky": LossSpec(_tversky, Tversky),
    "l1_dice_focal": LossSpec(
        lambda r: lambda logits, target, _distance_mm: l1_dice_focal_loss(logits, target, r), L1
    ),
    "two_way_dice_cross_entropy": _with_lesions(two_way_loss),
    "cc_dice_cross_entropy": _with_lesions(voronoi_loss),
    "blob_dice_cross_entropy": _with_lesions(blob_loss, Blobs),
    "component_tversky": _with_lesions(component_tversky_loss, ComponentTversky),
}
"""Focalis's own losses; installed packages may offer more, see `focalis.plugins`.

`distance_focal` is the loss as claimed, with the background weight that its parameters name; behind it a weight's own
name takes that weight instead.
"""


def loss_names() -> tuple[str, ...]:
    """The names of all losses, those of installed packages included."""
    return (*sorted(LOSSES), *installed("loss"))


def loss_spec(name: str) -> LossSpec:
    """A loss by name; PlanError lists the known names."""
    return find_part("loss", name, LOSSES, LossSpec)


def loss_parameters(name: str, given: Mapping[str, object]) -> Parameters:
    """A loss's own parameters, those not given at their defaults; PlanError for an unknown name or parameter."""
    return validated("loss", name, loss_spec(name).parameters, given)


def build_loss(name: str, parameters: Mapping[str, object] | None = None) -> Loss:
    """Build a loss by name, with its own parameters; PlanError lists the known names or parameters."""
    spec, own = loss_spec(name), loss_parameters(name, parameters or {})
    return built("loss", name, lambda: spec.build(**own.model_dump()))
