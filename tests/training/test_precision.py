"""Precision: which patches train in float32, and that gradients in bfloat16 are right for all others."""

import pytest
import torch
from torch.nn import functional

from focalis.prediction import Runtime
from focalis.prediction.runtime import cpu_has_bfloat16
from focalis.training.precision import trusted

LOW, FULL = Runtime(dtype=torch.bfloat16), Runtime(dtype=torch.float32)


def planned(plan, depth, strides):
    network = plan.network.model_copy(update={"strides_zyx": strides})
    return plan.model_copy(update={"patch_zyx": (depth, 32, 32), "network": network})


@pytest.mark.parametrize(
    ("depth", "strides", "expected"),
    [
        (2, ((1, 2, 2), (1, 2, 2)), FULL),
        (8, ((2, 2, 2), (2, 2, 2)), FULL),
        (16, ((2, 2, 2), (2, 2, 2), (2, 2, 2)), FULL),
        (1, ((1, 2, 2), (1, 2, 2)), LOW),
        (40, ((2, 2, 2), (2, 2, 2), (2, 2, 2)), LOW),
    ],
)
def test_maps_of_two_slices_train_in_float32_on_the_processor(plan, depth, strides, expected):
    plan = planned(plan, depth, strides)
    assert trusted(LOW, plan) == expected
    assert trusted(FULL, plan) == FULL
    gpu = Runtime(torch.device("cuda"), torch.bfloat16)
    assert trusted(gpu, plan) == gpu


@pytest.mark.skipif(not cpu_has_bfloat16(), reason="the processor has no bfloat16")
@pytest.mark.parametrize("depth", [1, 3, 4, 5])
def test_gradients_of_maps_of_any_other_depth_are_those_of_float32(depth):
    torch.manual_seed(0)
    image, weight = torch.randn(2, 16, depth, 10, 10), torch.randn(8, 16, 3, 3, 3)
    gradients = []
    for low in (False, True):
        kernel = weight.clone().requires_grad_()
        given = image.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            out = functional.conv3d(given, kernel, padding=1)
        out.float().square().sum().backward()
        gradients.append(kernel.grad)
    assert (gradients[1] - gradients[0]).abs().max() < 0.02 * gradients[0].abs().max()
