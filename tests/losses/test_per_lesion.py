"""Losses that count lesions against naive references, lesion by lesion and voxel by voxel in plain Python."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from focalis.dataset import IGNORED
from focalis.losses import (
    blob_loss,
    build_loss,
    component_tversky_loss,
    cross_entropy,
    nearest_lesion,
    soft_dice_loss,
    two_way_loss,
    voronoi_loss,
)

TERMS = {"cc": voronoi_loss, "two_way": two_way_loss, "blob": blob_loss}
COSTS = {"false_positive": 0.3, "false_negative": 0.7, "size_exponent": 0.8, "background": 0.2}


def scene(classes=3, seed=0):
    """Two patches: one with three lesions of 12, 3 and 1 voxels and a plane that nobody judged, one without any."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, classes, 4, 6, 7, generator=generator, dtype=torch.float64)
    target = torch.zeros(2, 4, 6, 7, dtype=torch.long)
    target[0, 0:3, 0:2, 0:2] = 1
    target[0, 3, 5, 4:7] = classes - 1
    target[0, 0, 5, 0] = 1
    target[0, :, :, 3] = IGNORED
    return logits, target


def voxels(logits, target, b):
    """Foreground probability, truth, cross entropy and whether judged of every voxel of a patch."""
    p, y, entropy, known = {}, {}, {}, {}
    for place in np.ndindex(*target.shape[1:]):
        row = [math.exp(float(v)) for v in logits[(b, slice(None), *place)]]
        background = row[0] / sum(row)
        value = int(target[(b, *place)])
        known[place] = value != IGNORED
        p[place], y[place] = 1 - background, int(known[place] and value > 0)
        entropy[place] = -math.log(1 - background if y[place] else background)
    return p, y, entropy, known


def dice_loss(p, y, places):
    overlap = sum(p[v] * y[v] for v in places)
    return 1 - (2 * overlap + 1) / (sum(p[v] for v in places) + sum(y[v] for v in places) + 1)


def mean(values):
    values = list(values)
    return sum(values) / len(values) if values else 0.0


def components(mask):
    numbers, count = ndimage.label(mask, np.ones((3, 3, 3)))
    return [{tuple(v) for v in np.argwhere(numbers == i)} for i in range(1, count + 1)]


def naive(term, logits, target, near):
    """One of the terms by its definition."""
    true, said = [], []
    for b in range(len(target)):
        p, y, entropy, known = voxels(logits, target, b)
        judged = [v for v in known if known[v]]
        for number in sorted({int(near[(b, *v)]) for v in judged if y[v]}):
            cell = [v for v in judged if near[(b, *v)] == number]
            body = [v for v in cell if y[v]]
            rest = [v for v in judged if not y[v]]
            if term == "cc":
                true.append(dice_loss(p, y, cell) + mean(entropy[v] for v in cell))
            elif term == "two_way":
                true.append(dice_loss(p, y, cell) + mean(entropy[v] for v in body))
            else:
                true.append(dice_loss(p, y, body + rest) + mean(entropy[v] for v in body + rest))
        mask = np.zeros(target.shape[1:], bool)
        for v in judged:
            mask[v] = p[v] >= 0.5
        said += [dice_loss(p, y, part) + mean(entropy[v] for v in part) for part in components(mask)]
    return (mean(true) + mean(said)) / 2 if term == "two_way" else mean(true)


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_value_agrees_with_the_definition(term, classes, seed, nearest):
    logits, target = scene(classes, seed)
    near = nearest(target)
    expected = naive(term, logits, target, near)
    assert float(TERMS[term](logits, target, near)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("term", TERMS)
def test_gradient_agrees_with_finite_differences(term, nearest):
    logits, target = scene()
    near = nearest(target)
    assert torch.autograd.gradcheck(lambda x: TERMS[term](x, target, near), logits.requires_grad_())


def test_component_tversky_agrees_with_the_formula(nearest):
    logits, target = scene()
    near = nearest(target)
    p, y, _, known = voxels(logits, target, 0)
    size = {n: sum(y[v] for v in y if near[(0, *v)] == n) for n in (1, 2, 3)}
    hit = false = missed = 0.0
    for v in [v for v in known if known[v]]:
        weight = (size[int(near[(0, *v)])] + 5) ** -0.8 if y[v] else 0.2
        hit, false = hit + weight * p[v] * y[v], false + weight * p[v] * (1 - y[v])
        missed += weight * (1 - p[v]) * y[v]
    expected = 1 - (hit + 1e-5) / (hit + 0.3 * false + 0.7 * missed + 1e-5)  # the empty patch does not count
    assert float(component_tversky_loss(logits, target, near, **COSTS)) == pytest.approx(expected, rel=1e-10)
    assert torch.autograd.gradcheck(
        lambda x: component_tversky_loss(x, target, near, **COSTS), logits.requires_grad_()
    )


@pytest.mark.parametrize(
    ("name", "term", "weight"),
    [
        ("cc_dice_cross_entropy", voronoi_loss, 1.0),
        ("two_way_dice_cross_entropy", two_way_loss, 1.0),
        ("blob_dice_cross_entropy", blob_loss, 0.5),
    ],
)
def test_the_named_losses_add_their_term_to_dice_and_cross_entropy(name, term, weight, nearest):
    logits, target = scene()
    near, distance = nearest(target), torch.zeros(target.shape)
    plain, own = soft_dice_loss(logits, target) + cross_entropy(logits, target), term(logits, target, near)
    torch.testing.assert_close(build_loss(name)(logits, target, distance, near), plain + weight * own)
    torch.testing.assert_close(
        build_loss(name, {"weight": 3.0})(logits, target, distance, near), plain + 3 * own
    )


def certain(*found):
    """Logits of a line of 40 voxels that are sure of foreground where `found` says so, and of background elsewhere."""
    line = torch.full((40,), -4.0)
    for place in found:
        line[place] = 4.0
    return torch.stack([-line, line]).reshape(1, 2, 1, 1, 40)


LARGE, SMALL, FALSE = slice(0, 20), slice(24, 26), slice(32, 34)


@pytest.fixture
def line():
    """A line of 40 voxels with a lesion of 20 voxels and one of two."""
    target = torch.zeros(1, 1, 1, 40, dtype=torch.long)
    target[..., LARGE], target[..., SMALL] = 1, 1
    return target


@pytest.mark.parametrize(("term", "share"), [("two_way", 0.8), ("blob", 0.25), ("cc", 0.15)])
def test_missing_a_small_lesion_costs_no_less_than_a_share_of_missing_one_ten_times_as_large(
    term, share, line, nearest
):
    """By voxels the share is one tenth; cross entropy over cells keeps some of that."""
    near = nearest(line)
    right, without_small, without_large = (
        float(TERMS[term](certain(*parts), line, near)) for parts in ((LARGE, SMALL), (LARGE,), (SMALL,))
    )
    assert without_small - right > share * (without_large - right) > 0


def test_two_ways_a_false_lesion_costs_about_as_much_as_a_missed_one(line, nearest):
    near = nearest(line)
    right, missed, false = (
        float(two_way_loss(certain(*parts), line, near))
        for parts in ((LARGE, SMALL), (LARGE,), (LARGE, SMALL, FALSE))
    )
    assert (false - right) == pytest.approx(missed - right, rel=0.5)


def test_two_ways_a_patch_without_lesions_teaches_where_it_is_wrong():
    logits, empty = certain(FALSE).requires_grad_(), torch.zeros(1, 1, 1, 40, dtype=torch.long)
    two_way_loss(logits, empty, empty).backward()
    wrong = logits.grad[0, 1, 0, 0]
    assert (wrong[FALSE] > 0).all()
    assert not wrong[LARGE].any()
    assert float(voronoi_loss(logits.detach(), empty, empty)) == 0


def test_a_lesion_that_lies_outside_of_the_patch_has_no_term(line, nearest):
    """The cell of a lesion reaches into a patch that holds none of its voxels."""
    near = nearest(line)
    cut = slice(27, 40)
    logits = certain(FALSE)[..., cut]
    for term in (voronoi_loss, blob_loss):
        assert float(term(logits, line[..., cut], near[..., cut])) == 0


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (5.0, 0.7, 1.2)])
def test_the_nearest_lesion_is_the_nearest_in_millimetres(spacing):
    rng = np.random.default_rng(0)
    numbers = np.zeros((7, 9, 11), np.int32)
    for number in range(1, 6):
        numbers[tuple(rng.integers(0, size) for size in numbers.shape)] = number
    found = nearest_lesion(numbers, 5, spacing)
    seeds = [np.argwhere(numbers == number)[0] for number in range(1, 6)]
    for place in np.ndindex(*numbers.shape):
        away = [np.linalg.norm((np.array(place) - seed) * spacing) for seed in seeds]
        assert away[found[place] - 1] == pytest.approx(min(away))
    assert found.dtype == np.uint8


@pytest.mark.parametrize(("count", "kind"), [(0, np.uint8), (1, np.uint8), (300, np.uint16)])
def test_numbers_of_lesions_fit_their_type(count, kind):
    numbers = np.zeros((1, 30, 30), np.int32)
    numbers.ravel()[:count] = np.arange(1, count + 1)
    found = nearest_lesion(numbers, count, (1, 1, 1))
    assert found.dtype == kind
    assert found.max() == count
    assert (found[numbers > 0] == numbers[numbers > 0]).all()
