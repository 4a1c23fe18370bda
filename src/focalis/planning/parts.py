"""The network, the loss and the augmentations that a plan names, built."""

from __future__ import annotations

from importlib.metadata import version

from focalis.augmentations import Augmentation, build_augmentation
from focalis.errors import PlanError, UsageError
from focalis.losses import Loss, build_loss, by_region, loss_parameters, loss_spec
from focalis.networks import MONAI, REFINED, Nested, Network, build_network, split_name
from focalis.planning.plan import AUGMENTATION, AugmentationSettings, LossSettings, Plan
from focalis.plugins import Plugin, plugin_of


def network_of(plan: Plan) -> Network:
    """The plan's network, freshly initialised from torch's global random state; PlanError for an unknown name."""
    settings = plan.network
    outputs = len(plan.labels) if plan.regions else plan.outputs
    network = build_network(
        settings.name, settings.strides_zyx, len(plan.channels), outputs, settings.parameters
    )
    return Nested(network) if plan.regions else network


def loss_of(plan: Plan) -> Loss:
    """The plan's loss: a function of logits, target and distance in mm; PlanError for an unknown name."""
    loss = build_loss(plan.loss.name, plan.loss.parameters)
    return by_region(loss) if plan.regions else loss


def loss_settings(name: str) -> LossSettings:
    """A loss by name, with all its parameters at their defaults; PlanError for an unknown name."""
    return LossSettings(name=name, **loss_parameters(name, {}).model_dump())


def augmentations_of(plan: Plan) -> tuple[Augmentation, ...]:
    """The plan's augmentations in their order; PlanError for an unknown name or parameter."""
    return tuple(build_augmentation(entry.name, entry.parameters) for entry in plan.augmentation)


def default_augmentation() -> tuple[AugmentationSettings, ...]:
    """The default entries, with all their parameters."""
    return tuple(
        AugmentationSettings(name=entry.name, **build_augmentation(entry.name).model_dump(mode="json"))
        for entry in AUGMENTATION
    )


def plugins_of(plan: Plan) -> list[Plugin]:
    """The installed packages that the plan's parts come from, Focalis itself left out."""
    network = plan.network.name.removesuffix(REFINED)
    of_monai = network.startswith(MONAI)
    own = Plugin("network", network, "monai", version("monai")) if of_monai else plugin_of("network", network)
    others = [plugin_of("augmentation", name) for name in dict.fromkeys(e.name for e in plan.augmentation)]
    return [plugin for plugin in (own, plugin_of("loss", plan.loss.name), *others) if plugin is not None]


def check_names(network: str | None, loss: str | None) -> None:
    """UsageError that lists the known names if one that a person gave is not known."""
    try:
        if network is not None:
            split_name(network)
        if loss is not None:
            loss_spec(loss)
    except PlanError as error:
        raise UsageError(str(error)) from None
