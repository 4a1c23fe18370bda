"""A network as a person names it: how it is built, and what a plan must know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from focalis.plugins import NoParameters, Parameters


@dataclass(frozen=True)
class NetworkSpec:
    """A network by name; an installed package offers one as an entry point of the group `focalis.networks`.

    Attributes:
        build: called with the strides (z, y, x) of every stage, the number of image channels, the number of classes
            (the background included), and the own parameters by name. Returns a module that maps (batch, channels, z,
            y, x) to logits (batch, classes, z, y, x); a `Network` may have auxiliary outputs and say more of itself.
        stages: the number of strides that a plan gives it.
        any_depth: a stage that would halve no axis is left out of the plan.
        parameters: its own parameters, which stand in the plan beside its name.
    """

    build: Callable[..., nn.Module]
    stages: int = 3
    any_depth: bool = False
    parameters: type[Parameters] = NoParameters
