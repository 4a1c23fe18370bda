"""What a processor needs for a training: its freed memory kept, and no more trust in low precision than it earns."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import torch

from focalis import ranks
from focalis.networks import convolutions
from focalis.planning import Plan
from focalis.planning.parts import network_of
from focalis.prediction import Runtime, float32_because

_SETTINGS = {-1: 2**28, -3: 2**25}
"""glibc's M_TRIM_THRESHOLD, up to how much free memory is kept, and M_MMAP_THRESHOLD, from where a block is a mapping
of its own and goes back at once, in bytes: tensors of a patch are kept, those of a whole volume are not."""


def keep_freed_memory() -> bool:
    """Let this process keep the memory that tensors give back, for the tensors of the next step.

    By default glibc soon returns free memory to the system and gets it back page by page, each page zeroed: a tenth of
    a training step on a processor (decision 0013).

    Returns:
        Whether the C library took the setting; other libraries than glibc have none.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(mallopt(parameter, value) == 1 for parameter, value in _SETTINGS.items())


def trusted_to_train(runtime: Runtime, plan: Plan) -> Runtime:
    """The run time, or the one in float32 with a note where its precision is not right for the plan's patches.

    Every convolution of this rank's step counts, forwards and backwards; see `focalis.prediction.precision`.
    """
    if runtime.device.type != "cpu" or runtime.dtype == torch.float32:
        return runtime

    with torch.random.fork_rng(devices=[]):
        network = network_of(plan).train()

        def forward() -> None:
            with torch.no_grad():
                network(torch.zeros(plan.batch, len(plan.channels), *plan.patch_zyx))

        found = convolutions(forward)
    own = len(ranks.share(range(plan.batch)))  # a batch of one has no statistics for the network to run with
    if found is not None:
        found = tuple(replace(each, input_shape=(own, *each.input_shape[1:])) for each in found)
    why = float32_because(found, runtime.dtype, runtime.memory_format, backward=True)
    return runtime.in_float32(why) if why else runtime
