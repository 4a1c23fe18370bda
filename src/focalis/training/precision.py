"""Where bfloat16 cannot be trusted in training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from focalis.planning import Plan
from focalis.prediction import Runtime

WRONG_DEPTH = 2


def trusted(runtime: Runtime, plan: Plan) -> Runtime:
    """The run time, in float32 where bfloat16 on this processor would give wrong gradients for such patches.

    With PyTorch 2.13 (oneDNN, AVX512-BF16) the weight gradient of a 3^3 convolution of a map that is two slices deep
    along z comes from memory that nobody has written: it is infinite, or anything. Any other depth is right. Patches of
    two slices, or that strides bring down to two, therefore train in float32.
    """
    depths = plan.patch_zyx[0] // np.cumprod([1, *(stride[0] for stride in plan.network.strides_zyx)])
    if runtime.device.type == "cpu" and runtime.dtype == torch.bfloat16 and WRONG_DEPTH in depths:
        return replace(runtime, dtype=torch.float32)
    return runtime
