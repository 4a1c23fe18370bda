"""The weights that a training starts from: random ones, those that come with Focalis, or a model's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from focalis.errors import ModelError, PlanError, UsageError, one_line
from focalis.files import sha256_of
from focalis.model import KEY, load_model
from focalis.models import SHIPPED, model_file, published_file
from focalis.networks import Nested, Network, Transfer, transfer
from focalis.planning import SCRATCH, SHAPES, Plan
from focalis.planning.parts import network_of

PRIOR_SHARE = 0.01
"""Foreground share that the fresh output layer predicts: starting at one half would let the background's sheer
number dominate the first steps."""
OUTPUT, ANY_LESION = "output", "any lesion"
"""What a file of weights says of an output layer that tells lesions of any kind from the background."""
_OTHERWISE = "train from random weights (--start scratch), or give a model's file"


@dataclass(frozen=True)
class Start:
    """Weights that a training may start from.

    Attributes:
        name: the file's name without its suffix.
        state: tensors by the names of the network's state dict; for `focalis.networks.transferred`.
        recipe: how they were made, by the file's own words.
        network: the name of the network; empty where the file does not say.
        labels: label value to name, of a model; with the same labels its output layer is taken over.
    """

    name: str
    sha256: str
    state: Mapping[str, Tensor]
    recipe: Mapping[str, str] = field(default_factory=dict)
    network: str = ""
    labels: Mapping[int, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)


def read_start(name: Path | str) -> Start | None:
    """Read a start by its name in a plan: `scratch` (None), `shapes`, or the path or the name of a model.

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
    path = published_file(SHAPES, _OTHERWISE) if name == SHAPES else model_file(name)
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
        network=model.plan.network.name,
        labels=model.plan.labels,
        provenance=model.provenance,
    )


def first_network(plan: Plan, start: Start | None) -> tuple[Network, Transfer | None]:
    """The plan's network with the start's weights, and what was taken over.

    What the start does not give is random, from torch's global state; fresh output layers predict a small foreground.
    Upon given weights they begin at zero: random ones send back gradients that spoil the weights before the layer has
    learned anything.
    Parts that the plan freezes need no gradient, and their batch normalisation is in evaluation mode.

    Raises:
        ModelError: the start is that of another network; both are named.
        PlanError: the network does not say which of its parts is to be frozen.
    """
    network = network_of(plan)
    taken = None
    if start is not None:
        try:
            plain = isinstance(network, Nested) and not any(key.startswith("network.") for key in start.state)
            inner = network.network if isinstance(network, Nested) and plain else network
            any_lesion = start.recipe.get(OUTPUT) == ANY_LESION and not plan.regions
            taken = transfer(start.state, inner, with_heads=any_lesion or dict(start.labels) == plan.labels)
        except ModelError as error:
            whose = f"{start.name} ({start.network})" if start.network else start.name
            raise ModelError.at(
                whose, f"does not fit the plan's network {plan.network.name}: {error}"
            ) from error
    fresh = None if taken is None else taken.fresh
    names = {id(layer): name for name, layer in network.named_modules()}
    for head in network.heads():
        if fresh is None or f"{names[id(head)]}.bias" in fresh:
            share = PRIOR_SHARE / (plan.outputs - 1)
            prior = [math.log(1 - PRIOR_SHARE)] + [math.log(share)] * (plan.outputs - 1)
            if plan.regions:
                prior = [math.log(PRIOR_SHARE / (1 - PRIOR_SHARE))] + [0.0] * (len(plan.regions) - 1)
            head.bias = nn.Parameter(torch.tensor(prior))
            if start is not None:
                nn.init.zeros_(head.weight)
    network.train()
    if plan.freeze != "nothing":
        _freeze(network, plan)
    return network, taken


def _freeze(network: Network, plan: Plan) -> None:
    heads = {id(module) for head in network.heads() for module in head.modules()}
    parts = network.encoder() if plan.freeze == "encoder" else [network]
    if not parts or not heads:
        raise PlanError(
            f"freeze is {plan.freeze}, and the network {plan.network.name} does not say which of its parts that is; "
            "freeze nothing, or take the network dense or unet"
        )
    for module in (module for part in parts for module in part.modules() if id(module) not in heads):
        if not list(module.children()):  # of the others forward asks whether auxiliary outputs are wanted
            module.training = False
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
