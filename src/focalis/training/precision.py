"""Where low precision cannot be trusted in training."""

from __future__ import annotations

import torch

from focalis.networks import convolutions
from focalis.planning import Plan
from focalis.planning.parts import network_of
from focalis.prediction import Runtime, float32_because


def trusted(runtime: Runtime, plan: Plan) -> Runtime:
    """The run time, or the one in float32 with a note where its precision is not right for the plan's patches.

    Every convolution of a training step counts, forwards and backwards; see `focalis.prediction.precision`.
    """
    if runtime.device.type != "cpu" or runtime.dtype == torch.float32:
        return runtime

    def forward() -> None:
        network_of(plan).train()(torch.empty(plan.batch, len(plan.channels), *plan.patch_zyx))

    with torch.random.fork_rng(devices=[]):
        found = convolutions(forward)
    why = float32_because(found, runtime.dtype, runtime.memory_format, backward=True)
    return runtime.in_float32(why) if why else runtime
