"""Figures that documentation quotes beside the tables: the weights that controls match."""

import mean_weights
import numpy as np
import pytest
import torch
from evidence_plan import Row

from focalis.training.patches import Patch


def test_mean_weights_are_of_the_background_of_patches_with_a_lesion(tmp_path, monkeypatch):
    """One of two patches holds a lesion, a voxel, with one voxel at 5 mm and one at 40 mm, where the floor holds."""
    label = torch.tensor([[[[1, 0, 0]]], [[[0, 0, 0]]]])
    distance_mm = torch.tensor([[[[0.0, 5.0, 40.0]]], [[[2e4, 2e4, 2e4]]]])
    batch = Patch(torch.zeros(2, 1, 1, 1, 3), label, distance_mm)
    monkeypatch.setattr(mean_weights, "batches", lambda *given: [batch] * len(given[-1]))
    monkeypatch.setattr(mean_weights, "prepare_cases", lambda *_: [])
    monkeypatch.setattr(mean_weights, "data_hash", lambda _: "")
    monkeypatch.setattr(mean_weights, "task_of", lambda *_: Task())
    monkeypatch.setattr(mean_weights, "inner_of", lambda *_: Task())
    monkeypatch.setattr(mean_weights, "plan_of", lambda *_: Plan())
    found = mean_weights.of_row(Row("phantoms", steps=3), tmp_path)
    assert (found["patches"], found["patches_with_lesion"]) == (6, 3)
    for k in (0.1, 0.3):
        assert found["mean_weight"][f"k {k}/mm"] == pytest.approx((np.exp(-5 * k) + 0.1) / 2, abs=1e-4)


class Task:
    """As much of a task as is asked for."""

    cases = train = ()

    @property
    def data(self):
        return self

    def select(self, _names):
        return ()


class Plan:
    """As much of a plan."""

    batch = 2
