"""Distances to the lesion and the background weights."""

import math

import numpy as np
import pytest
import torch

from focalis.losses import NO_FOREGROUND_MM, background_weight, distance_to_foreground


def test_distances_agree_with_brute_force_on_an_anisotropic_grid():
    rng = np.random.default_rng(1)
    label = (rng.random((6, 7, 8)) < 0.03).astype(np.uint8)
    spacing = (3.0, 0.5, 1.25)
    found = distance_to_foreground(label, spacing)
    points = np.argwhere(label) * spacing
    voxels = np.moveaxis(np.indices(label.shape), 0, -1) * spacing
    naive = np.sqrt(((voxels[..., None, :] - points) ** 2).sum(-1)).min(-1)
    np.testing.assert_allclose(found, naive, rtol=1e-5)


def test_two_labels_are_one_foreground():
    label = np.zeros((1, 1, 7), np.uint8)
    label[0, 0, 0], label[0, 0, 6] = 1, 2
    assert distance_to_foreground(label, (1, 1, 2)).ravel().tolist() == [0, 2, 4, 6, 4, 2, 0]


def test_a_case_without_foreground_is_infinitely_far():
    assert (distance_to_foreground(np.zeros((2, 3, 4), np.uint8), (1, 1, 1)) == NO_FOREGROUND_MM).all()


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("exponential", [1.0, math.exp(-0.6), math.exp(-3.0)]),
        ("gaussian", [1.0, math.exp(-0.36), math.exp(-9.0)]),
        ("reciprocal", [1.0, 1 / 1.6, 1 / 4]),
        ("growth", [1.0, 1.6, 3.4]),
        ("constant", [1.0, 1.0, 1.0]),
    ],
)
def test_each_form_has_its_value(form, expected):
    weight = background_weight(torch.tensor([0.0, 2.0, 10.0]), form, k_per_mm=0.3, floor=0.0, cap_mm=8.0)
    torch.testing.assert_close(weight, torch.tensor(expected))


@pytest.mark.parametrize("form", ["exponential", "gaussian", "reciprocal"])
def test_a_decay_never_falls_below_the_floor(form):
    weight = background_weight(torch.tensor([0.0, 500.0, NO_FOREGROUND_MM]), form, 0.3, 0.05, 50.0)
    torch.testing.assert_close(weight, torch.tensor([1.0, 0.05, 0.05]))


def test_without_foreground_growth_is_at_its_cap():
    weight = background_weight(torch.tensor([NO_FOREGROUND_MM]), "growth", 0.3, 0.0, 10.0)
    torch.testing.assert_close(weight, torch.tensor([4.0]))


def test_half_precision_distances_are_weighed_in_single_precision():
    weight = background_weight(torch.tensor([3.0], dtype=torch.float16), "exponential", 0.15, 0.0, 50.0)
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, torch.tensor([math.exp(-0.45)]))
