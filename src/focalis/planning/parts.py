"""The network and the loss that a plan names, built."""

from __future__ import annotations

from focalis.errors import PlanError, UsageError
from focalis.losses import DistanceFocal, Loss, build_loss
from focalis.networks import Network, build_network, split_name
from focalis.planning.plan import Plan


def network_of(plan: Plan) -> Network:
    """The plan's network, freshly initialised from torch's global random state; PlanError for an unknown name."""
    settings = plan.network
    return build_network(settings.name, settings.strides_zyx, len(plan.channels), plan.outputs)


def loss_of(plan: Plan) -> Loss:
    """The plan's loss: a function of logits, target and distance in mm; PlanError for an unknown name."""
    settings = plan.loss
    focal = DistanceFocal(settings.r, settings.weight, settings.k_per_mm, settings.floor, settings.cap_mm)
    return build_loss(settings.name, focal)


def check_names(network: str | None, loss: str | None) -> None:
    """UsageError that lists the known names if one that a person gave is not known."""
    try:
        if network is not None:
            split_name(network)
        if loss is not None:
            build_loss(loss, DistanceFocal())
    except PlanError as error:
        raise UsageError(str(error)) from None
