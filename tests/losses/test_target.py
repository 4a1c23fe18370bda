"""Soft targets: every loss against a plain reference, and against the hard target where both say the same."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from focalis.dataset import IGNORED
from focalis.losses import LOSSES, build_loss, soft_dice_loss
from focalis.losses.target import foreground, judged, shares

FOCAL = {"r": 1.5, "k_per_mm": 0.2, "floor": 0.05}


def taken(name):
    """Those of the focal parameters that a loss takes."""
    return {key: value for key, value in FOCAL.items() if key in LOSSES[name].parameters.model_fields}


def example(classes=3, readers=3, dtype=torch.float64):
    """Logits, the readers' class indices, their mean, and distances; some voxels are judged by one reader or none."""
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(2, classes, 2, 3, 4, generator=generator, dtype=dtype)
    drawn = torch.randint(0, classes, (readers, 2, 2, 3, 4), generator=generator)
    drawn[:, 0, 0, 0] = 0
    drawn[1:, 0, 1, 0] = IGNORED
    drawn[:, 1, 1, 2] = IGNORED
    known = (drawn != IGNORED)[..., None]
    votes = (functional.one_hot(drawn * known[..., 0], classes) * known).sum(0)
    mean = (votes / known.sum(0).clamp(min=1)).movedim(-1, 1).to(dtype)
    union = ((drawn > 0) & (drawn != IGNORED)).any(0)
    distance = 15 * torch.rand(2, 2, 3, 4, generator=generator, dtype=dtype) * ~union
    return logits, drawn, mean, distance


def naive_terms(logits, mean, distance):
    """Focal loss, soft Dice loss and cross entropy, voxel by voxel in plain Python."""
    classes = logits.shape[1]
    top = bottom = entropy = known = 0.0
    overlap, total = np.zeros((2, classes)), np.zeros((2, classes))
    for b, z, y, x in np.ndindex(*distance.shape):
        row = [math.exp(float(v)) for v in logits[b, :, z, y, x]]
        p = [value / sum(row) for value in row]
        t = [float(v) for v in mean[b, :, z, y, x]]
        if sum(t) == 0:
            continue
        known += 1
        weight = 1.0 if sum(t[1:]) > 0 else max(math.exp(-0.2 * float(distance[b, z, y, x])), 0.05)
        bottom += weight
        for c in range(classes):
            top -= weight * t[c] * (1 - p[c]) ** 1.5 * math.log(p[c])
            entropy -= t[c] * math.log(p[c])
            overlap[b, c] += p[c] * t[c]
            total[b, c] += p[c] + t[c]
    dice = ((2 * overlap + 1) / (total + 1))[:, 1:].mean()
    return {"focal": top / bottom, "dice": 1 - dice, "entropy": entropy / known}


PARTS = {
    "distance_focal": ("focal",),
    "distance_focal_dice": ("focal", "dice"),
    "dice_cross_entropy": ("dice", "entropy"),
}


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("classes", [2, 3])
def test_a_soft_target_agrees_with_the_formula(name, classes):
    logits, _, mean, distance = example(classes)
    terms = naive_terms(logits, mean, distance)
    value = build_loss(name, taken(name))(logits, mean, distance)
    assert float(value) == pytest.approx(sum(terms[part] for part in PARTS[name]), rel=1e-10)


def test_soft_dice_of_what_is_present_leaves_out_a_class_that_no_reader_drew():
    logits, _, mean, _ = example(3)
    mean[0, 0] += mean[0, 1]
    mean[0, 1] = 0
    said = (torch.softmax(logits, 1)[0, 1] * mean[0].sum(0)).sum()  # where at least one reader judged
    absent = 1 - 1 / (said + 1)
    pairs = mean.shape[0] * (mean.shape[1] - 1)
    expected = (pairs * soft_dice_loss(logits, mean) - absent) / (pairs - 1)
    torch.testing.assert_close(soft_dice_loss(logits, mean, present=True), expected)


@pytest.mark.parametrize("name", LOSSES)
def test_one_reader_as_shares_is_the_hard_target(named, name):
    logits, drawn, mean, distance = example(readers=1)
    loss = named(name, taken(name))
    values, gradients = [], []
    for target in (drawn[0], mean):
        value = loss(logits.requires_grad_(), target, distance)
        values.append(value.detach())
        gradients.append(torch.autograd.grad(value, logits)[0])
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_agrees_with_finite_differences(named, name):
    logits, _, mean, distance = example()
    loss = named(name, taken(name))
    assert torch.autograd.gradcheck(lambda x: loss(x, mean, distance), logits.requires_grad_())


@pytest.mark.parametrize("name", LOSSES)
def test_what_no_reader_judged_has_no_gradient(named, name):
    logits, _, mean, distance = example()
    named(name, taken(name))(logits.requires_grad_(), mean, distance).backward()
    unjudged = mean.sum(1) == 0
    assert unjudged.any()
    assert not logits.grad.movedim(1, -1)[unjudged].any()
    assert torch.isfinite(named(name, taken(name))(logits, torch.zeros_like(mean), distance))


@pytest.mark.parametrize("name", LOSSES)
def test_low_precision_logits_are_judged_in_single_precision(named, name):
    logits, _, mean, distance = (part.float() for part in example())
    value = named(name, taken(name))(logits.bfloat16(), mean, distance)
    assert value.dtype == torch.float32


def test_disputed_voxels_weigh_as_much_as_foreground():
    """One of two readers drew the voxel: with the union's distance it is not background, however far the rest."""
    logits = torch.tensor([[0.0, -1.0], [0.0, 1.0]], dtype=torch.float64).reshape(1, 2, 1, 1, 2)
    mean = torch.tensor([[0.5, 1.0], [0.5, 0.0]], dtype=torch.float64).reshape(1, 2, 1, 1, 2)
    distance = torch.tensor([0.0, 1000.0], dtype=torch.float64).reshape(1, 1, 1, 2)
    disputed, p = 0.5**1.5 * math.log(2), 1 / (1 + math.exp(2))
    far = -((1 - p) ** 1.5) * math.log(p)
    assert float(build_loss("distance_focal", FOCAL)(logits, mean, distance)) == pytest.approx(
        (disputed + 0.05 * far) / 1.05
    )


def test_helpers_say_the_same_of_hard_and_soft_targets():
    _, drawn, mean, _ = example(readers=1)
    hard = drawn[0]
    assert torch.equal(judged(hard), judged(mean))
    assert torch.equal(foreground(hard) & judged(hard), foreground(mean))
    torch.testing.assert_close(shares(hard, 3, torch.float64), shares(mean, 3, torch.float64))
    assert (shares(mean, 3, torch.float64).sum(1) == 1).all()
