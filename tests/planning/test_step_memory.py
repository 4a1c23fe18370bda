"""The estimate of a training step against the resident memory of a real one."""

import subprocess
import sys

import pytest
import torch
from small_plan import small_plan

from focalis.losses import loss_names
from focalis.networks import peak_bytes
from focalis.planning import LossSettings, NetworkSettings
from focalis.planning.step_memory import training_bytes

SCRIPT = """
import sys
import numpy as np, torch
from pathlib import Path
from focalis.planning import read_plan
from focalis.prediction import Runtime
from focalis.training import TrainingCase
from focalis.training.loop import seconds_per_step
from focalis.workflows.record import peak_memory_gb
plan = read_plan(Path(sys.argv[1]))
shape = plan.patch_zyx
label = np.zeros(shape, np.uint8)
label[4:8, 4:8, 4:8] = 1
case = TrainingCase("c", np.zeros((1, *shape), np.float32), label, np.ones(shape, np.float16),
                    (np.argwhere(label).astype(np.int32),))
seconds_per_step(plan, [case], Runtime(), measured=1)
print(round(peak_memory_gb() * 1e9))
"""


def plan_of(batch, side):
    return small_plan(patch_zyx=(side, side, side), batch=batch, network=NetworkSettings())


@pytest.mark.slow
def test_the_estimate_grows_with_batch_and_patch():
    one, two, large = (training_bytes(plan_of(*size)) for size in ((1, 32), (2, 32), (2, 48)))
    assert one < two < large


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "side"), [(2, 40), (2, 64)])
def test_a_real_step_stays_within_the_estimate(batch, side, tmp_path):
    from focalis.planning import write_plan

    plan = plan_of(batch, side)
    write_plan(plan, tmp_path / "plan.yaml")
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "plan.yaml")]
    peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    estimate = training_bytes(plan)
    assert 0.4 * estimate < peak < estimate


def test_a_network_that_holds_a_layer_twice_is_counted_too():
    layer = torch.nn.Conv3d(1, 1, 3, padding=1)
    network = torch.nn.Sequential(torch.nn.Sequential(layer), torch.nn.Sequential(layer))
    image = torch.zeros(1, 1, 8, 8, 8)
    assert peak_bytes(lambda: network(image), spent=network) >= 8**3 * 4


@pytest.mark.parametrize("regions", [{}, {"whole": (1, 2), "core": (2,)}])
def test_a_step_with_any_loss_is_counted(regions):
    labels = {1: "edge", 2: "core"} if regions else {1: "lesion"}

    def need(loss):
        return training_bytes(
            small_plan(labels=labels, regions=regions, patch_zyx=(16, 16, 16), loss=LossSettings(name=loss))
        )

    usual = need("dice_cross_entropy")
    for loss in loss_names():
        assert need(loss) == pytest.approx(usual, rel=0.25), loss
