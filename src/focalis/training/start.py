"""The weights that a training starts from: random ones, those that come with Focalis, or a model's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from focalis.display import listed
from focalis.errors import ModelError, PlanError, UsageError, one_line
from focalis.files import sha256_of
from focalis.model import KEY, load_model
from focalis.models import SHIPPED, model_file, published_file
from focalis.networks import BY_NAME, Nested, Network, Transfer, split_name, transfer
from focalis.planning import SCRATCH, SHAPES, SHAPES_OF, Plan
from focalis.planning.parts import network_of

PRIOR_SHARE = 0.01
"""Foreground share that the fresh output layer predicts: starting at one half would let the background's sheer
number dominate the first steps."""
OUTPUT, ANY_LESION = "output", "any lesion"
"""What a file of weights says of an output layer that tells lesions of any kind from the background."""
NESTED = "network."
"""Before the names of tensors in a network of nested regions, see `focalis.networks.Nested`."""
_OTHERWISE = "train from random weights (--start scratch), or give a model's file"


@dataclass(frozen=True)
class Start:
    """Weights that a training may start from.

    Attributes:
        name: the file's name without its suffix.
        state: tensors by the names of the network's state dict; for `focalis.networks.transferred`.
        recipe: how they were made, by the file's own words.
        plan: a model's plan. With the same labels and regions its output layer is taken over, and its first layer goes
            by the names of the channels.
    """

    name: str
    sha256: str
    state: Mapping[str, Tensor]
    recipe: Mapping[str, str] = field(default_factory=dict)
    plan: Plan | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def has_labels_of(self, plan: Plan) -> bool:
        """Whether it is a model with a plan's labels and regions, so that its output layer goes along."""
        return self.plan is not None and (self.plan.labels, self.plan.regions) == (plan.labels, plan.regions)


def start_of(plan: Plan) -> Start | None:
    """The start that a plan names, for its network; see `read_start`."""
    return read_start(plan.start, plan.network.name)


def read_start(name: Path | str, network: str = "dense") -> Start | None:
    """Read a start by its name in a plan: `scratch` (None), `shapes`, or the path or the name of a model.

    Args:
        network: whose shapes are meant. One that has none gets those of the default network, which do not fit it;
            `first_network` says so.

    Raises:
        ModelError: the file cannot be read, holds no weights, or those of several networks; or this installation has
            none of that name, or another than the one that was published.
        UsageError: a bare word that is neither a file nor a known name.
    """
    if name == SCRATCH:
        return None
    bare = str(name) == Path(name).name and not Path(name).suffix and not Path(name).exists()
    if name != SHAPES and bare and name not in SHIPPED:
        known = ", ".join((SCRATCH, SHAPES, *sorted(SHIPPED)))
        raise UsageError.at(
            name, "is not a file, and no start of this name is known", f"give {known}, or a model's file"
        )
    if name == SHAPES:
        path = published_file(SHAPES_OF.get(split_name(network)[0], SHAPES_OF["dense"]), _OTHERWISE)
    else:
        path = model_file(name)
    try:
        digest = sha256_of(path)
        with safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
            if KEY not in said:
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                return Start(path.stem, digest, state, said)
    except (OSError, SafetensorError) as error:
        raise ModelError.at(path, f"cannot be read as weights ({one_line(error)})", _OTHERWISE) from error
    model = load_model(path)
    if len(model.members) > 1:
        raise ModelError.at(
            path,
            f"holds {len(model.members)} networks",
            "start from one of them, such as fold_0/model.safetensors of its run",
        )
    return Start(
        path.stem,
        digest,
        model.members[0].state_dict(),
        plan=model.plan,
        provenance=model.provenance,
    )


def first_network(plan: Plan, start: Start | None) -> tuple[Network, Transfer | None]:
    """The plan's network with the start's weights, and what was taken over.

    What the start does not give is random, from torch's global state; fresh output layers predict a small foreground.
    Upon given weights they begin at zero: random ones send back gradients that spoil the weights before the layer has
    learned anything.
    Parts that the plan freezes need no gradient, and their batch normalisation is in evaluation mode. What the start
    did not give is not frozen, nor is a first layer for another number of image channels.

    Raises:
        ModelError: the start is that of another network; both are named.
        PlanError: the network does not say which of its parts is to be frozen.
    """
    network = network_of(plan)
    inner = network.network if isinstance(network, Nested) else network
    taken = None
    if start is not None:
        try:
            taken = _take_over(start, plan, inner)
        except ModelError as error:
            theirs = start.plan.network.name if start.plan else ""
            whose = f"{start.name} ({theirs})" if theirs else start.name
            otherwise = f", or take the network {theirs}" if theirs and theirs != plan.network.name else ""
            raise ModelError.at(
                whose, f"does not fit the plan's network {plan.network.name}: {error}{otherwise}"
            ) from error
    names = {id(layer): name for name, layer in inner.named_modules()}
    for head in inner.heads():
        if taken is None or f"{names[id(head)]}.bias" in taken.fresh:
            share = PRIOR_SHARE / (plan.outputs - 1)
            prior = [math.log(1 - PRIOR_SHARE)] + [math.log(share)] * (plan.outputs - 1)
            if plan.regions:
                prior = [math.log(PRIOR_SHARE / (1 - PRIOR_SHARE))] + [0.0] * (len(plan.regions) - 1)
            head.bias = nn.Parameter(torch.tensor(prior))
            if start is not None:
                nn.init.zeros_(head.weight)
    network.train()
    if plan.freeze != "nothing":
        kept_free = _freeze(inner, plan, {*taken.fresh, taken.other_channels} if taken else set())
        if taken and kept_free:
            taken = replace(taken, notes=(*taken.notes, f"not frozen: {listed(kept_free, 4)}"))
    return network, taken


def _take_over(start: Start, plan: Plan, network: Network) -> Transfer:
    """Give a plan's network, that inside `Nested` of nested regions, the weights of a start."""
    state, own, before = start.state, network.state_dict(), start.plan
    if all(name.startswith(NESTED) and name not in own for name in state):
        state = {name.removeprefix(NESTED): tensor for name, tensor in state.items()}
    any_lesion = start.recipe.get(OUTPUT) == ANY_LESION and not plan.regions
    if before is None:
        return transfer(state, network, with_heads=any_lesion)
    channels = _by_name(before.channels, plan.channels)
    taken = transfer(state, network, with_heads=start.has_labels_of(plan), channels=channels)
    all_known = BY_NAME in taken.adapted and set(plan.channels) <= set(before.channels)
    return replace(taken, notes=_differences(before, plan, by_name=all_known))


def _by_name(there: tuple[str, ...], here: tuple[str, ...]) -> tuple[int | None, ...]:
    """Where each of a plan's channels stands in the start, None for one that it lacks; empty if nothing moves or none
    is known."""
    if there == here or not set(here) & set(there) or len(set(there)) < len(there):
        return ()
    return tuple(there.index(name) if name in there else None for name in here)


def _differences(before: Plan, plan: Plan, *, by_name: bool) -> tuple[str, ...]:
    """What a model's images were given as and a plan's are not, a phrase each."""

    def images(of: Plan) -> dict[str, str]:
        spacing = [f"{size:.3g}" for size in of.spacing_zyx_mm]
        return {
            "channels": ", ".join(of.channels),
            "spacing": " x ".join(spacing if len(set(spacing)) > 1 else spacing[:1]),
            "": ", ".join(dict.fromkeys(each.kind for each in of.normalisation)),
        }

    there, here = images(before), images(plan)
    if by_name or len(before.channels) == len(plan.channels) == 1:
        del there["channels"]
    return tuple(
        f"{what} {there[what]} there, {here[what]} here".strip()
        for what in there
        if there[what] != here[what]
    )


def _freeze(network: Network, plan: Plan, free: set[str]) -> list[str]:
    """Freeze what the plan says, but not the tensors `free`; returns those of them that it would have frozen."""
    heads = {id(module) for head in network.heads() for module in head.modules()}
    parts = network.encoder() if plan.freeze == "encoder" else [network]
    if not parts or not heads:
        raise PlanError(
            f"freeze is {plan.freeze}, and the network {plan.network.name} does not say which of its parts that is; "
            "freeze nothing, or take the network dense, small-unet or unet"
        )
    inside = {id(module) for part in parts for module in part.modules()} - heads
    kept_free = []
    for place, module in network.named_modules():
        if id(module) not in inside:
            continue
        tensors = [
            *module.named_parameters(place, recurse=False),
            *module.named_buffers(place, recurse=False),
        ]
        own = [name for name, _ in tensors if name in free]
        kept_free += own
        # of a module with children forward asks whether auxiliary outputs are wanted
        if not own and not list(module.children()):
            module.training = False
        for name, tensor in tensors:
            if name not in own and isinstance(tensor, nn.Parameter):
                tensor.requires_grad_(False)
    return kept_free
