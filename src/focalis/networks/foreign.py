"""Networks that were not written for Focalis: modules of other packages, and those of MONAI by their class names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ConfigDict
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from focalis.errors import PlanError
from focalis.networks.base import Network
from focalis.networks.blocks import Triple
from focalis.networks.network_spec import NetworkSpec
from focalis.plugins import Parameters

MONAI = "monai:"
"""Before the name of a class of `monai.networks.nets`."""
MONAI_STAGES = 5
"""Strides of up to 32 in all; planning finds where a class needs more (`focalis.planning.sizes`)."""
FIRST_WIDTH, MOST_WIDTH = 16, 256


class ForeignNetwork(Network):
    """A module that gives the logits, as a network with one output.

    Its normalisation decides how it predicts: batch normalisation sees whole volumes as it saw patches; all others,
    attention, and adaptive pooling, may depend on the size of what they are given, so tiles then have the patch's size.

    Args:
        module: maps (batch, inputs, z, y, x) to logits (batch, outputs, z, y, x).
        outputs: classes, the background included.
    """

    def __init__(self, module: nn.Module, outputs: int) -> None:
        super().__init__()
        self.module = module
        self._outputs = outputs
        last = [
            layer
            for layer in module.modules()
            if isinstance(layer, nn.Conv3d) and layer.out_channels == outputs and layer.bias is not None
        ]
        self._heads = last[-1:]
        self.patchwise = any(_depends_on_size(layer) for layer in module.modules())

    def heads(self) -> list[nn.Conv3d]:
        """See `Network.heads`: the last convolution with a bias and an output per class, if there is one."""
        return list(self._heads)

    def output_weights(self) -> list[float]:
        return [1.0]

    def forward(self, x: Tensor) -> Tensor:
        """See `Network.forward`; of several outputs the first."""
        found = self.module(x)
        if isinstance(found, list | tuple):
            found = found[0]
        if not isinstance(found, Tensor):
            raise PlanError(f"the network returns a {type(found).__name__}; let it return logits, a tensor")
        if found.dim() == 6:  # MONAI's deep supervision stacks its outputs
            found = found[:, 0]
        if found.shape[1] != self._outputs:
            raise PlanError(
                f"the network gives {found.shape[1]} channels; it must give logits of {self._outputs} classes, the "
                "background included: change its parameters in the plan"
            )
        if found.shape[2:] != x.shape[2:]:
            raise PlanError(
                f"the network turns {tuple(x.shape[2:])} voxels into {tuple(found.shape[2:])}; its output must "
                "have the size of its input: change network.strides_zyx or its parameters in the plan"
            )
        return found


def _depends_on_size(layer: nn.Module) -> bool:
    name = type(layer).__name__.lower()
    if "norm" in name:
        return not isinstance(layer, _BatchNorm)
    return any(word in name for word in ("attention", "posit", "adaptive"))


class _Anything(Parameters):
    """Whatever arguments the class takes."""

    model_config = ConfigDict(frozen=True, extra="allow")


def monai_spec(name: str) -> NetworkSpec:
    """A network of MONAI by `monai:CLASS`; the arguments of the class are its parameters.

    Raises:
        PlanError: MONAI is not installed, or has no such class.
    """
    try:
        import monai.networks.nets as nets
    except ImportError as error:
        raise PlanError(f"network {name!r} needs MONAI; install it with: pip install monai einops") from error
    cls = getattr(nets, name.removeprefix(MONAI), None)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise PlanError(f"network {name!r}: monai.networks.nets has no such class; see MONAI's documentation")

    def build(strides_zyx: Sequence[Triple], inputs: int, outputs: int, **given: Any) -> nn.Module:
        return _built(name, cls, strides_zyx, inputs, outputs, given)

    return NetworkSpec(build, stages=MONAI_STAGES, parameters=_Anything)


def _built(
    name: str,
    cls: Callable[..., nn.Module],
    strides_zyx: Sequence[Triple],
    inputs: int,
    outputs: int,
    given: Mapping[str, Any],
) -> nn.Module:
    """The class with the arguments given, and with those that follow from the plan."""
    takes = inspect.signature(cls).parameters
    known = {"spatial_dims": 3, "in_channels": inputs, "out_channels": outputs, "n_classes": outputs}
    wanted = {key for key, value in takes.items() if value.default is inspect.Parameter.empty}
    arguments = {key: value for key, value in known.items() if key in takes}
    arguments |= {key: value for key, value in _shape(cls.__name__, strides_zyx).items() if key in wanted}
    arguments |= given
    lacking = sorted(
        key for key in wanted - arguments.keys() if takes[key].kind is not inspect.Parameter.VAR_KEYWORD
    )
    if lacking:
        raise PlanError(f"network {name}: give {', '.join(lacking)} in the plan, under network")
    return cls(**arguments)


def _shape(cls: str, strides_zyx: Sequence[Triple]) -> dict[str, Any]:
    """The arguments that say how MONAI's networks step down, from the plan's strides."""
    widths = [min(FIRST_WIDTH * 2**i, MOST_WIDTH) for i in range(len(strides_zyx) + 1)]
    steps = [list(stride) for stride in strides_zyx]
    if cls == "DynUNet":  # it counts the first convolution as a step
        return {"kernel_size": [3] * len(widths), "strides": [1, *steps], "upsample_kernel_size": steps}
    return {"channels": widths, "strides": steps}
