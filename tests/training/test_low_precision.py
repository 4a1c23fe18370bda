"""Precision: which plans train in float32, and that the reason is kept."""

import pytest
import torch
from torch.nn import functional

from focalis import ranks
from focalis.prediction import Runtime
from focalis.prediction import precision as precision_of
from focalis.training.processor import trusted_to_train

LOW, FULL = Runtime(dtype=torch.bfloat16), Runtime(dtype=torch.float32)
TWICE = ((2, 2, 2), (2, 2, 2))


def planned(plan, patch, strides):
    network = plan.network.model_copy(update={"strides_zyx": strides})
    return plan.model_copy(update={"patch_zyx": patch, "network": network})


@pytest.mark.parametrize(
    ("patch", "strides", "expected"),
    [
        ((2, 32, 32), ((1, 2, 2), (1, 2, 2)), FULL),
        ((1, 32, 32), ((1, 2, 2), (1, 2, 2)), FULL),
        ((8, 16, 16), TWICE, FULL),
        ((16, 8, 16), TWICE, FULL),
        ((16, 16, 4), TWICE, FULL),
        ((12, 12, 16), TWICE, LOW),
        ((3, 16, 16), ((1, 2, 2), (1, 2, 2)), LOW),
    ],
)
def test_maps_of_one_or_two_voxels_train_in_float32_on_the_processor(plan, patch, strides, expected):
    plan = planned(plan, patch, strides)
    found = trusted_to_train(LOW, plan)
    assert found == expected
    assert bool(found.note) is (expected == FULL)
    assert trusted_to_train(FULL, plan) == FULL
    gpu = Runtime(torch.device("cuda"), torch.bfloat16)
    assert trusted_to_train(gpu, plan) == gpu


def test_a_processor_whose_bfloat16_is_wrong_trains_in_float32(plan, monkeypatch):
    precision_of.is_right.cache_clear()
    right = functional.conv3d

    def broken(x, *rest):
        y = right(x, *rest)
        return y * torch.nan if torch.is_autocast_enabled("cpu") and x.shape[1] == 1 else y

    monkeypatch.setattr(functional, "conv3d", broken)
    found = trusted_to_train(LOW, planned(plan, (16, 16, 16), TWICE))
    precision_of.is_right.cache_clear()
    assert found == FULL
    assert "is wrong on this processor" in found.note


def test_a_rank_tries_its_own_share_of_the_batch(plan, monkeypatch):
    tried = []
    monkeypatch.setattr(ranks, "count", lambda: 2)
    monkeypatch.setattr(
        "focalis.training.processor.float32_because",
        lambda found, *_, **__: tried.append(found[0].input_shape[0]) or "",
    )
    trusted_to_train(LOW, planned(plan.model_copy(update={"batch": 3}), (16, 16, 16), TWICE))
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    trusted_to_train(LOW, planned(plan.model_copy(update={"batch": 3}), (16, 16, 16), TWICE))
    assert tried == [2, 1]


def test_asking_leaves_the_random_state_alone(plan):
    before = torch.get_rng_state()
    trusted_to_train(LOW, planned(plan, (16, 16, 16), TWICE))
    assert torch.equal(before, torch.get_rng_state())
