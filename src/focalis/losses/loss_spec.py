"""A loss as a person names it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from focalis.plugins import NoParameters, Parameters

Loss = Callable[..., Tensor]
"""A scalar from logits (batch, classes, z, y, x), a target and distance in mm (batch, z, y, x).

The target is int64 class indices (batch, z, y, x) or floating shares of the classes (batch, classes, z, y, x), see
`losses.target`. A loss that counts lesions (`LossSpec.lesions`) also takes the number of the lesion that each voxel is
nearest to, int64 (batch, z, y, x), see `losses.distance.nearest_lesion`.
"""


@dataclass(frozen=True)
class LossSpec:
    """A loss by name; an installed package offers one as an entry point of the group `focalis.losses`.

    Attributes:
        build: called with the own parameters by name; returns the loss.
        parameters: its own parameters, which stand in the plan beside its name.
        lesions: whether the loss also takes the nearest lesion of each voxel, see `Loss`.
    """

    build: Callable[..., Loss]
    parameters: type[Parameters] = NoParameters
    lesions: bool = False
