"""Cross entropy to a power: voxels that are missed stand out."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from focalis.dataset import IGNORED
from focalis.losses import Loss, LossSpec
from focalis.plugins import Parameters


class Power(Parameters):
    """`exponent`: how strongly missed voxels stand out; 1 is plain cross entropy."""

    exponent: float = Field(default=1.5, gt=0)


def power(exponent: float) -> Loss:
    """The mean over the voxels that somebody judged of their cross entropy to a power."""

    def loss(logits: Tensor, target: Tensor, _distance_mm: Tensor) -> Tensor:
        if target.is_floating_point():
            raise NotImplementedError("example-power takes label maps, not shares of readers")
        judged = target != IGNORED
        cost = functional.cross_entropy(logits.float(), target * judged, reduction="none")
        return (cost**exponent * judged).sum() / judged.sum().clamp(min=1)

    return loss


POWER = LossSpec(power, Power)
