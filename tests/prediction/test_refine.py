"""The fully connected CRF against a brute-force mean field, its boxes, and its place in a prediction."""

import time
from itertools import product

import numpy as np
import pytest
import torch

from focalis.errors import UsageError
from focalis.lesions import decide
from focalis.model import Refinement
from focalis.prediction import RefinementWarning, Settings, refine_probabilities, segment
from focalis.prediction import refine as module
from focalis.prediction.refine import MOST_TERMS, TOLERANCE, boxes_around, intensity_terms, mean_field
from focalis.volume import Grid, Volume

SETTINGS = Refinement(3.0, 2.5, 0.6, 2.0, 1.2, 4)
SPACING = (2.0, 1.0, 0.7)


def example(labels=3, channels=1, shape=(4, 5, 6), seed=0):
    rng = np.random.default_rng(seed)
    p = rng.random((labels, *shape)) ** 2 + 0.05
    return p / p.sum(0), rng.normal(size=(channels, *shape))


def brute_force(p, image, spacing, settings):
    """Every pair of voxels, one by one; see the paper's algorithm 1."""
    places = [np.multiply(v, spacing) for v in product(*(range(size) for size in p.shape[1:]))]
    colours = image.reshape(len(image), -1).T
    n = len(places)
    total = np.zeros((n, n))
    for weight, width, by_colour in (
        (settings.similar_weight, settings.similar_mm, True),
        (settings.near_weight, settings.near_mm, False),
    ):
        kernel = np.empty((n, n))
        for i in range(n):
            for j in range(n):
                exponent = ((places[i] - places[j]) ** 2).sum() / (2 * width**2)
                if by_colour:
                    exponent += ((colours[i] - colours[j]) ** 2).sum() / (2 * settings.similar_intensity**2)
                kernel[i, j] = np.exp(-exponent)
        size = kernel.sum(1)
        kernel /= np.sqrt(size[:, None] * size)
        np.fill_diagonal(kernel, 0)
        total += weight * kernel
    unary = -np.log(p.reshape(len(p), -1))
    q = np.exp(-unary)
    for _ in range(settings.iterations):
        penalty = np.array(
            [sum(q[k] @ total for k in range(len(p)) if k != label) for label in range(len(p))]
        )
        q = np.exp(-unary - penalty)
        q /= q.sum(0)
    return q.reshape(p.shape)


@pytest.mark.parametrize(("labels", "channels"), [(2, 1), (3, 2)])
@pytest.mark.parametrize("weights", [(3.0, 2.0), (4.0, 0.0), (0.0, 4.0)])
def test_the_mean_field_agrees_with_brute_force(labels, channels, weights):
    p, image = example(labels, channels)
    settings = Refinement(weights[0], 2.5, 0.6, weights[1], 1.2, 4)
    found, complete = mean_field(torch.from_numpy(p), torch.from_numpy(image), SPACING, settings)
    assert complete
    expected = brute_force(p, image, SPACING, settings)
    assert np.abs(expected - p).max() > 0.1  # it does something
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-3)


def test_single_precision_suffices():
    p, image = example()
    both = [
        mean_field(torch.from_numpy(p).to(kind), torch.from_numpy(image).to(kind), SPACING, SETTINGS)[
            0
        ].double()
        for kind in (torch.float32, torch.float64)
    ]
    torch.testing.assert_close(*both, rtol=0, atol=2e-3)


@pytest.mark.parametrize(("channels", "width"), [(1, 0.5), (2, 1.0), (4, 5.0)])
def test_the_terms_add_up_to_the_gaussian_of_the_intensities(channels, width):
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(channels, 300)))
    terms = intensity_terms(values, width)
    expected = torch.exp(-0.5 * (torch.cdist(values.T, values.T) / width) ** 2)
    assert (terms.T @ terms - expected).abs().max() < 1.001 * TOLERANCE
    assert len(terms) < MOST_TERMS


def test_what_too_few_terms_leave_out_is_a_voxel_that_hears_less():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 300)))
    terms = intensity_terms(values, 0.3)
    own = (terms**2).sum(0)
    assert len(terms) == MOST_TERMS
    assert own.max() < 1 + 1e-9
    assert own.min() < 0.5


def noisy_ball(shape=(16, 16, 16), radius=5.0):
    """A ball that is bright in the image; the network is unsure, and wrong in a tenth of the voxels."""
    rng = np.random.default_rng(0)
    z, y, x = np.indices(shape) - 7.5
    truth = z**2 + y**2 + x**2 < radius**2
    image = (2.0 * truth + 0.3 * rng.normal(size=shape)).astype(np.float32)[None]
    foreground = np.where(truth ^ (rng.random(shape) < 0.1), 0.65, 0.35).astype(np.float32)
    return truth, image, np.stack([1 - foreground, foreground])


def dice(truth, found):
    return 2 * (truth & found).sum() / (truth.sum() + found.sum())


def test_noise_in_the_probabilities_gives_way_to_the_image():
    truth, image, p = noisy_ball()
    settings = Refinement(6.0, 3.0, 0.5, 0.0, 1.0, 5)
    refined = refine_probabilities(p, image, (1, 1, 1), settings, 0.5).probabilities
    assert dice(truth, p[1] >= 0.5) < 0.8
    assert dice(truth, refined[1] >= 0.5) > 0.95
    np.testing.assert_allclose(refined.sum(0), 1, atol=1e-5)
    assert refined.dtype == np.float32


@pytest.mark.parametrize("threshold", [0.1, 0.8])
def test_the_same_threshold_decides_before_and_after(threshold):
    """Moving all odds by a factor, and the threshold with them, moves nothing else."""
    truth, image, p = noisy_ball()
    moved = p * np.float32([1 - threshold, threshold])[:, None, None, None]
    moved /= moved.sum(0)
    settings = Refinement(6.0, 3.0, 0.5, 0.0, 1.0, 5)
    plain = decide(refine_probabilities(p, image, (1, 1, 1), settings, 0.5).probabilities, 0.5)
    other = decide(
        refine_probabilities(moved, image, (1, 1, 1), settings, threshold).probabilities, threshold
    )
    assert (plain != other).mean() < 1e-3
    assert dice(truth, other > 0) > 0.95


def test_only_boxes_around_candidates_change():
    p, image = example(2, shape=(6, 30, 30))
    p[1] = 1e-4
    p[1, 3, 5, 5] = 0.6
    p[0] = 1 - p[1]
    p, image = p.astype(np.float32), image.astype(np.float32)
    settings = Refinement(3.0, 2.0, 0.5, 0.0, 1.0, 2)
    changed = np.argwhere(
        (refine_probabilities(p, image, (1, 1, 1), settings, 0.5).probabilities != p).any(0)
    )
    assert len(changed)
    assert changed.min(0).tolist() >= [1, 3, 3]
    assert changed.max(0).tolist() <= [5, 7, 7]


def test_nothing_to_refine_is_left_as_it_is():
    p, image = (array.astype(np.float32) for array in example(2))
    p[1], p[0] = 0.01, 0.99
    assert np.array_equal(refine_probabilities(p, image, SPACING, SETTINGS, 0.5).probabilities, p)
    without = Refinement(0.0, 1.0, 1.0, 0.0, 1.0, 5)
    p = example(2)[0].astype(np.float32)
    assert refine_probabilities(p, image, SPACING, without, 0.5).probabilities is p


def test_boxes_that_touch_become_one_and_others_stay_apart():
    candidates = np.zeros((4, 20, 40), bool)
    candidates[1, 2, [2, 7, 30]] = True
    boxes = boxes_around(candidates, (1, 3, 3))
    assert boxes == [
        (slice(0, 3), slice(0, 6), slice(0, 11)),
        (slice(0, 3), slice(0, 6), slice(27, 34)),
    ]


def test_a_box_that_is_too_large_is_done_in_parts_with_the_same_result(monkeypatch):
    """Except for what lies farther away than the margin, which is one width of the kernel."""
    truth, image, p = noisy_ball()
    settings = Refinement(6.0, 2.0, 0.5, 0.0, 1.0, 3)
    whole = refine_probabilities(p, image, (1, 1, 1), settings, 0.5).probabilities
    monkeypatch.setattr(module, "MOST_BOX_VOXELS", 8**3)
    parts = refine_probabilities(p, image, (1, 1, 1), settings, 0.5).probabilities
    assert (decide(parts, 0.5) != decide(whole, 0.5)).mean() < 0.01
    assert dice(truth, parts[1] >= 0.5) > 0.95


def test_when_the_time_is_over_the_rest_stays():
    _, image, p = noisy_ball()
    late = refine_probabilities(p, image, (1, 1, 1), SETTINGS, 0.5, seconds=0)
    assert not late.complete
    assert np.array_equal(late.probabilities, p)
    tensors = torch.from_numpy(p), torch.from_numpy(image)
    field, complete = mean_field(*tensors, (1, 1, 1), SETTINGS, time.monotonic() - 1)
    assert not complete
    assert torch.equal(field, tensors[0])


def test_a_prediction_is_refined_if_the_model_says_so_and_nobody_objects(crf_model):
    model, image, truth = crf_model
    refined, plain = (segment(model, image, Settings(refine=how)).mask > 0 for how in (None, False))
    assert dice(truth, plain) < 0.8
    assert dice(truth, refined) > 0.95
    asked = segment(model, image, Settings(refine=True)).mask > 0
    assert np.array_equal(asked, refined)


def test_a_model_without_refinement_cannot_be_asked_for_one(crf_model):
    from dataclasses import replace

    model, image, _ = crf_model
    with pytest.raises(
        UsageError, match=r"no refinement; train it with network='deeplab\+crf', or leave refine out"
    ):
        segment(replace(model, refinement=None), image, Settings(refine=True))


def test_a_refinement_cut_short_says_so(crf_model, monkeypatch):
    model, image, _ = crf_model
    real = refine_probabilities
    monkeypatch.setattr(
        "focalis.prediction.refine.refine_probabilities", lambda *rest, **how: real(*rest, **how, seconds=0)
    )
    with pytest.warns(RefinementWarning, match="cut short"):
        segment(model, image)


@pytest.fixture
def crf_model():
    """A model whose network doubts what the second channel tells it, while the first shows the object."""
    from torch import nn

    from focalis.model import Model
    from focalis.planning import NetworkSettings, Normalisation, Plan

    class Second(nn.Module):
        def forward(self, x):
            return torch.cat([-x[:, 1:], x[:, 1:]], dim=1)

    truth, image, p = noisy_ball()
    plan = Plan(
        channels=("image", "doubt"),
        labels={1: "ball"},
        spacing_zyx_mm=(1.0, 1.0, 1.0),
        normalisation=(Normalisation(kind="window", low=-9, high=9),) * 2,
        patch_zyx=(8, 8, 8),
        batch=1,
        network=NetworkSettings(name="deeplab+crf", strides_zyx=((2, 2, 2),)),
    )
    grid = Grid((16, 16, 16))
    # A small second channel, so that the kernel hears the first.
    doubt = 0.5 * np.log(p[1] / p[0]).astype(np.float32)
    refinement = Refinement(6.0, 3.0, 0.6, 0.0, 1.0, 5)
    model = Model(plan, (Second(),), refinement=refinement)
    return model, [Volume(image[0], grid), Volume(doubt, grid)], truth
