"""Cases in which only some labels were drawn: what the others may be is left open, in training and in figures."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from focalis.dataset import IGNORED, Case
from focalis.losses import LOSSES, build_loss, distance_to_foreground, loss_spec, merge_undrawn
from focalis.planning.parts import augmentations_of
from focalis.prediction import Runtime
from focalis.training import prepare_cases
from focalis.training.batches import Dealt, draw_batch
from focalis.training.loop import train
from focalis.training.prepared import TrainingCase
from focalis.training.validation import operating_point, watch
from focalis.volume import Grid, Volume, write_volume

RUNTIME = Runtime(torch.device("cpu"), torch.float32)


@pytest.fixture
def two_labels(plan):
    return plan.model_copy(update={"labels": {3: "anterior", 7: "posterior"}})


def tensors(classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 4, 5, 6, generator=generator, dtype=torch.float64)
    target = torch.randint(0, 2, (2, 4, 5, 6), generator=generator)
    distance = torch.rand(2, 4, 5, 6, generator=generator) * 10
    nearest = torch.ones(2, 4, 5, 6, dtype=torch.int64)
    return logits, target, distance, nearest


def test_the_background_of_a_case_takes_the_probability_of_what_nobody_drew():
    logits, *_ = tensors()
    undrawn = torch.tensor([[False, False, True, True], [False, False, False, False]])
    merged = merge_undrawn(logits, undrawn).softmax(1)
    plain = logits.softmax(1)
    torch.testing.assert_close(merged[0, 0], plain[0, 0] + plain[0, 2] + plain[0, 3])
    torch.testing.assert_close(merged[0, 1], plain[0, 1])
    assert not merged[0, 2:].any()
    torch.testing.assert_close(merged[1], plain[1])


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_blind_to_how_background_and_undrawn_labels_share_their_probability(name):
    logits, target, distance, nearest = tensors()
    undrawn = torch.tensor([[False, False, True, True]] * 2)
    loss = build_loss(name)
    extra = (distance, nearest) if loss_spec(name).lesions else (distance,)
    other = logits.clone()
    total = other[:, [0, 2, 3]].logsumexp(1)
    other[:, 2] += 2.5
    other[:, [0, 2, 3]] += (total - other[:, [0, 2, 3]].logsumexp(1))[:, None]
    first = loss(merge_undrawn(logits, undrawn), target, *extra)
    second = loss(merge_undrawn(other, undrawn), target, *extra)
    torch.testing.assert_close(first, second)
    assert torch.isfinite(first)
    assert not torch.isclose(loss(logits, target, *extra), loss(other, target, *extra))


def test_two_undrawn_labels_of_three_leave_what_one_label_alone_would_cost():
    logits, target, distance, _ = tensors()
    undrawn = torch.tensor([[False, False, True, True]] * 2)
    alone = torch.stack([logits[:, [0, 2, 3]].logsumexp(1), logits[:, 1]], 1)
    cost = build_loss("dice_cross_entropy")
    dice = build_loss("present_dice_cross_entropy")
    torch.testing.assert_close(
        dice(merge_undrawn(logits, undrawn), target, distance), dice(alone, target, distance)
    )
    with_absent = cost(merge_undrawn(logits, undrawn), target, distance)
    entropy = torch.nn.functional.cross_entropy(alone, target)
    # Absent labels add a Dice loss of 0 each to the mean over three.
    torch.testing.assert_close(with_absent - entropy, (cost(alone, target, distance) - entropy) / 3)


def test_gradients_reach_no_undrawn_label_where_another_was_drawn_and_are_finite():
    logits, _, distance, _ = tensors()
    logits.requires_grad_(True)
    target = torch.zeros(2, 4, 5, 6, dtype=torch.int64)
    undrawn = torch.tensor([[False, False, True, True]] * 2)
    build_loss("distance_focal")(merge_undrawn(logits, undrawn), target, distance).backward()
    push = logits.grad
    assert torch.isfinite(push).all()
    # What makes background likelier makes each undrawn label likelier, in proportion to its probability.
    share = logits.detach().softmax(1)
    torch.testing.assert_close(push[:, 2] / share[:, 2], push[:, 0] / share[:, 0])


def two_balls(name, drawn, seed=0):
    """A bright ball (class 1) and a dark one (class 2) in noise; the label has only those that are `drawn`."""
    rng = np.random.default_rng(seed)
    shape = (24, 24, 24)
    axes = np.moveaxis(np.indices(shape), 0, -1)
    bright, dark = (((axes - centre) ** 2).sum(-1) <= 16 for centre in ((7, 7, 7), (16, 16, 16)))
    image = rng.normal(size=shape) * 0.3 + 3.0 * bright - 3.0 * dark
    label = (bright * (1 in drawn) + 2 * dark * (2 in drawn)).astype(np.uint8)
    lesions = [np.argwhere(label == value).astype(np.int32) for value in drawn]
    return TrainingCase(
        name,
        image[None].astype(np.float32),
        label,
        distance_to_foreground(label, (1, 1, 1)).astype(np.float16),
        tuple(lesions),
        undrawn=tuple({1, 2} - set(drawn)),
    )


def test_patches_of_one_batch_differ_in_what_was_drawn(two_labels):
    cases = [two_balls("a", (1, 2)), two_balls("b", (2,))]
    patch = draw_batch(Dealt.of(cases), two_labels, augmentations_of(two_labels), {}, 0, 0).patch
    assert sorted(patch.undrawn.tolist()) == [[False, False, False], [False, True, False]]


@pytest.mark.slow
def test_both_labels_are_learned_from_cases_that_show_one_each(two_labels, tmp_path):
    cases = [two_balls(f"c{seed}", (1 + seed % 2,), seed) for seed in range(4)]
    network = train(two_labels, cases, [], tmp_path, steps=60, seed=0, runtime=RUNTIME)
    seen = watch(two_labels, network, [two_balls("whole", (1, 2), 9)], RUNTIME)
    assert seen.dice > 0.6
    assert (seen.lesions, seen.found) == (2, 2)


class Odds(nn.Module):
    """The image holds the log odds of class 2; class 1 is certain where they exceed 5."""

    def forward(self, x):
        return torch.cat([torch.zeros_like(x), 100 * (x - 5), x], dim=1)


def test_what_is_found_of_an_undrawn_label_is_not_a_false_positive(two_labels):
    label = np.zeros((16, 16, 16), np.uint8)
    label[4:8, 4:8, 4:8] = 2
    odds = np.where(label > 0, 3.0, -6.0)
    odds[10:13, 10:13, 10:13] = 8.0  # class 1, which nobody drew
    labels = (label.copy(), label)
    labels[0][0:2] = IGNORED
    cases = [
        TrainingCase(f"c{n}", odds[None].astype(np.float32), each, np.ones(1, np.float16), (), undrawn=(1,))
        for n, each in enumerate(labels)
    ]
    assert watch(two_labels, Odds(), cases, RUNTIME).dice == 1
    point = operating_point(two_labels, Odds(), cases, RUNTIME)
    assert all(rate == 0 for _, rate, found in point.froc if found == 1)


def test_what_was_drawn_is_prepared_and_changes_the_entry(tmp_path, two_labels):
    array = np.zeros((16, 16, 16), np.uint8)
    array[3:6, 3:6, 3:6] = 7
    grid = Grid((16, 16, 16))
    image, label = tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"
    write_volume(Volume(np.random.default_rng(0).normal(size=array.shape).astype(np.float32), grid), image)
    write_volume(Volume(array, grid), label)
    case = Case("a", (image,), label, drawn=frozenset({7}))
    first = prepare_cases([case], two_labels, tmp_path / "prepared")[0]
    assert first.undrawn == (1,)
    assert (first.label == 2).sum() == 27
    assert prepare_cases([replace(case, drawn=None)], two_labels, tmp_path / "prepared")[0].undrawn == ()
