"""The network and the loss that a plan names, built."""

from __future__ import annotations

from importlib.metadata import version

from focalis.errors import PlanError, UsageError
from focalis.losses import Loss, build_loss, loss_parameters, loss_spec
from focalis.networks import MONAI, REFINED, Network, build_network, split_name
from focalis.planning.plan import LossSettings, Plan
from focalis.plugins import Plugin, plugin_of


def network_of(plan: Plan) -> Network:
    """The plan's network, freshly initialised from torch's global random state; PlanError for an unknown name."""
    settings = plan.network
    return build_network(
        settings.name, settings.strides_zyx, len(plan.channels), plan.outputs, settings.parameters
    )


def loss_of(plan: Plan) -> Loss:
    """The plan's loss: a function of logits, target and distance in mm; PlanError for an unknown name."""
    return build_loss(plan.loss.name, plan.loss.parameters)


def loss_settings(name: str) -> LossSettings:
    """A loss by name, with all its parameters at their defaults; PlanError for an unknown name."""
    return LossSettings(name=name, **loss_parameters(name, {}).model_dump())


def plugins_of(plan: Plan) -> list[Plugin]:
    """The installed packages that the plan's network and loss come from, Focalis itself left out."""
    network = plan.network.name.removesuffix(REFINED)
    of_monai = network.startswith(MONAI)
    own = Plugin("network", network, "monai", version("monai")) if of_monai else plugin_of("network", network)
    return [plugin for plugin in (own, plugin_of("loss", plan.loss.name)) if plugin is not None]


def check_names(network: str | None, loss: str | None) -> None:
    """UsageError that lists the known names if one that a person gave is not known."""
    try:
        if network is not None:
            split_name(network)
        if loss is not None:
            loss_spec(loss)
    except PlanError as error:
        raise UsageError(str(error)) from None
