"""The loss against a naive double-precision reference and against MONAI."""

import math

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss, FocalLoss, TverskyLoss
from torch.nn import functional

from focalis.dataset import IGNORED
from focalis.errors import PlanError
from focalis.losses import (
    LOSSES,
    NO_FOREGROUND_MM,
    DistanceFocal,
    build_loss,
    distance_focal_loss,
    soft_dice_loss,
    tversky_loss,
    weighted_cross_entropy,
)

FORMS = ["exponential", "gaussian", "reciprocal", "growth", "constant"]


def taken(name, **parameters):
    """Those of the parameters that a loss takes."""
    return {key: value for key, value in parameters.items() if key in LOSSES[name].parameters.model_fields}


def example(classes=3, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(2, classes, 3, 4, 5, generator=generator, dtype=dtype)
    target = torch.randint(0, classes, (2, 3, 4, 5), generator=generator)
    distance = 20 * torch.rand(2, 3, 4, 5, generator=generator, dtype=dtype) * (target == 0)
    return logits, target, distance


def naive(logits, target, distance, form, r, k, floor, cap):
    """The formula, voxel by voxel, in plain Python."""
    total = weights = 0.0
    for b, z, y, x in np.ndindex(*target.shape):
        row = [float(v) for v in logits[b, :, z, y, x]]
        true = int(target[b, z, y, x])
        pt = math.exp(row[true]) / sum(math.exp(v) for v in row)
        d = float(distance[b, z, y, x])
        weight = {
            "exponential": math.exp(-k * d),
            "gaussian": math.exp(-((k * d) ** 2)),
            "reciprocal": 1 / (1 + k * d),
            "growth": 1 + k * min(d, cap),
            "constant": 1.0,
        }[form]
        weight = 1.0 if true else max(weight, floor)
        total += -weight * (1 - pt) ** r * math.log(pt)
        weights += weight
    return total / weights


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("r", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("classes", [2, 3])
def test_value_agrees_with_the_formula(form, r, classes):
    logits, target, distance = example(classes)
    loss = DistanceFocal(r, form, 0.2, 0.03, 12.0)
    expected = naive(logits, target, distance, form, r, 0.2, 0.03, 12.0)
    assert float(loss(logits, target, distance)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_gradient_agrees_with_finite_differences(form):
    logits, target, distance = example()
    loss = DistanceFocal(2.0, form, 0.2, 0.03, 12.0)
    assert torch.autograd.gradcheck(lambda x: loss(x, target, distance), logits.requires_grad_())


def test_constant_weight_is_the_focal_loss():
    logits, target, distance = example(dtype=torch.float32)
    one_hot = torch.nn.functional.one_hot(target, 3).movedim(-1, 1).float()
    peer = FocalLoss(gamma=2.0, use_softmax=True, reduction="none")(logits, one_hot).sum() / target.numel()
    assert float(DistanceFocal(r=2.0, weight="constant")(logits, target, distance)) == pytest.approx(
        float(peer), rel=1e-5
    )


def test_soft_dice_agrees_with_monai_patch_by_patch():
    logits, target, _ = example(dtype=torch.float32)
    peer = DiceLoss(include_background=False, softmax=True, to_onehot_y=True, smooth_nr=1.0, smooth_dr=1.0)(
        logits, target[:, None]
    )
    assert float(soft_dice_loss(logits, target)) == pytest.approx(float(peer), rel=1e-5)


def test_soft_dice_of_what_is_present_leaves_out_the_classes_that_a_patch_lacks():
    logits, target, distance = example()
    target[0], target[1] = 0, target[1].clamp(max=1)  # one patch is empty, the other lacks class 2
    options = {"include_background": False, "softmax": True, "to_onehot_y": True, "reduction": "none"}
    peer = DiceLoss(smooth_nr=1.0, smooth_dr=1.0, **options)(logits[1:], target[1:, None])
    expected = peer.reshape(-1)[0]
    torch.testing.assert_close(soft_dice_loss(logits, target, present=True), expected)
    loss = build_loss("present_dice_cross_entropy")
    torch.testing.assert_close(
        loss(logits, target, distance), expected + functional.cross_entropy(logits, target)
    )
    empty = torch.zeros_like(target)
    plain = functional.cross_entropy(logits, empty)
    torch.testing.assert_close(loss(logits, empty, distance), plain)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [1e4, 88.0])
@pytest.mark.parametrize("r", [0.5, 2.0])
def test_certain_probabilities_are_safe(named, name, size, r):
    logits = torch.tensor([[size, -size]]).reshape(1, 2, 1, 1, 1).repeat(1, 1, 1, 1, 2).requires_grad_()
    target = torch.tensor([0, 1]).reshape(1, 1, 1, 2)
    loss = named(name, taken(name, r=r))(logits, target, torch.zeros(1, 1, 1, 2))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_patch_without_foreground_has_a_loss_and_a_gradient(named, name):
    logits, _, _ = example(classes=2, dtype=torch.float32)
    logits.requires_grad_()
    target = torch.zeros(2, 3, 4, 5, dtype=torch.long)
    far = torch.full((2, 3, 4, 5), NO_FOREGROUND_MM)
    loss = named(name, taken(name, floor=0.03))(logits, target, far)
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad.abs().sum() > 0


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_logits_are_judged_in_single_precision(named, name, dtype):
    logits, target, distance = example(dtype=torch.float32)
    low = logits.to(dtype)
    loss = named(name)
    value = loss(low, target, distance)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(low.float(), target, distance))


def test_a_far_false_positive_weighs_less_than_a_near_one_and_never_nothing():
    logits = torch.tensor([-2.0, 2.0]).reshape(1, 2, 1, 1, 1).repeat(1, 1, 1, 1, 3).requires_grad_()
    target = torch.tensor([0, 0, 0]).reshape(1, 1, 1, 3)
    distance = torch.tensor([1.0, 10.0, 1000.0]).reshape(1, 1, 1, 3)
    DistanceFocal(k_per_mm=0.15, floor=0.03)(logits, target, distance).backward()
    near, far, farthest = logits.grad[0, 1, 0, 0].tolist()
    assert near > far > farthest > 0


def test_all_weights_zero_is_zero():
    logits, _, _ = example(classes=2)
    target = torch.zeros(2, 3, 4, 5, dtype=torch.long)
    assert float(distance_focal_loss(logits, target, torch.zeros(2, 3, 4, 5), 2.0)) == 0


@pytest.mark.parametrize("form", FORMS)
def test_each_background_weight_has_a_loss_of_its_own_name(form):
    logits, target, distance = example()
    named = build_loss(f"distance_focal_{form}", taken(f"distance_focal_{form}", k_per_mm=0.2))
    torch.testing.assert_close(
        named(logits, target, distance), DistanceFocal(weight=form, k_per_mm=0.2)(logits, target, distance)
    )


def test_focal_takes_no_notice_of_the_distance():
    logits, target, distance = example()
    focal = build_loss("focal", {"r": 2.0})
    value = focal(logits, target, distance)
    assert float(value) == pytest.approx(naive(logits, target, distance, "constant", 2.0, 1, 0, 1), rel=1e-10)
    assert torch.equal(value, focal(logits, target, torch.zeros_like(distance)))


@pytest.mark.parametrize("classes", [2, 4])
def test_weighted_cross_entropy_is_the_mean_over_classes_of_the_mean_in_each(classes):
    logits, target, _ = example(classes)
    target[target == 1] *= (torch.arange(int((target == 1).sum())) < 2).long()  # two voxels are left of it
    of_class = [[] for _ in range(classes)]
    for b, z, y, x in np.ndindex(*target.shape):
        row = [float(v) for v in logits[b, :, z, y, x]]
        true = int(target[b, z, y, x])
        of_class[true].append(math.log(sum(math.exp(v) for v in row)) - row[true])
    assert len(of_class[1]) == 2
    expected = sum(sum(values) / len(values) for values in of_class) / classes
    assert float(weighted_cross_entropy(logits, target)) == pytest.approx(expected, rel=1e-12)


def test_weighted_cross_entropy_is_torchs_with_inverse_frequencies():
    logits, target, _ = example()
    weight = 1 / torch.bincount(target.flatten()).to(logits.dtype)
    peer = torch.nn.functional.cross_entropy(logits, target, weight)
    torch.testing.assert_close(weighted_cross_entropy(logits, target), peer)


def test_a_class_that_the_batch_lacks_does_not_count():
    logits, target, _ = example(3)
    target[target == 2] = 1
    two = weighted_cross_entropy(logits, target)
    weight = torch.tensor([1, 1, 0]) / torch.bincount(target.flatten(), minlength=3).clamp(min=1)
    peer = torch.nn.functional.cross_entropy(logits, target, weight.to(logits.dtype))
    torch.testing.assert_close(two, peer)


@pytest.mark.parametrize(("a", "b"), [(0.3, 0.7), (0.8, 0.1)])
def test_tversky_agrees_with_the_formula_and_with_monai(a, b):
    logits, target, _ = example()
    p = torch.softmax(logits, 1).numpy()
    index = []
    for patch in range(2):
        for value in (1, 2):
            hit = said = true = 0.0
            for place in np.ndindex(*target.shape[1:]):
                is_true = int(target[patch][place]) == value
                probability = float(p[(patch, value, *place)])
                hit, said, true = hit + probability * is_true, said + probability, true + is_true
            index.append((hit + 0.5) / (hit + a * (said - hit) + b * (true - hit) + 0.5))
    value = float(tversky_loss(logits, target, a, b))
    assert value == pytest.approx(1 - sum(index) / len(index), rel=1e-10)
    options = {"include_background": False, "softmax": True, "to_onehot_y": True}
    peer = TverskyLoss(alpha=a, beta=b, smooth_nr=0.5, smooth_dr=0.5, **options)(logits, target[:, None])
    assert value == pytest.approx(float(peer), rel=1e-6)


def test_tversky_with_equal_costs_is_soft_dice():
    logits, target, _ = example()
    torch.testing.assert_close(tversky_loss(logits, target, 0.5, 0.5), soft_dice_loss(logits, target))


def test_the_named_tversky_loss_minds_a_miss_more_than_a_false_alarm():
    target = torch.tensor([1, 1, 0, 0]).reshape(1, 1, 1, 4)
    sure = torch.tensor([8.0, 8.0, -8.0, -8.0])
    tversky = build_loss("tversky")

    def of(changed):
        x = sure.clone()
        x[changed] *= -1
        return float(tversky(torch.stack([-x, x]).reshape(1, 2, 1, 1, 4), target, torch.zeros(1, 1, 1, 4)))

    assert of([0]) > of([2]) > of([])


@pytest.mark.parametrize("name", ["weighted_cross_entropy", "tversky", "focal", "present_dice_cross_entropy"])
def test_gradients_of_the_compared_losses_agree_with_finite_differences(name):
    logits, target, distance = example()
    target[0] = 0  # a patch without any lesion
    target[1, 0] = IGNORED
    loss = build_loss(name)
    assert torch.autograd.gradcheck(lambda x: loss(x, target, distance), logits.requires_grad_())


def test_the_named_sum_is_the_sum_of_its_terms():
    logits, target, distance = example()
    focal = DistanceFocal()
    both = build_loss("distance_focal_dice")(logits, target, distance)
    torch.testing.assert_close(both, focal(logits, target, distance) + soft_dice_loss(logits, target))


def test_a_loss_has_its_own_parameters_only():
    logits, target, distance = example()
    mine = build_loss("tversky", {"false_positive": 0.5, "false_negative": 0.5})(logits, target, distance)
    torch.testing.assert_close(mine, tversky_loss(logits, target, 0.5, 0.5))
    with pytest.raises(
        PlanError, match=r"loss tversky: r: .*its parameters are: false_positive, false_negative"
    ):
        build_loss("tversky", {"r": 2.0})
    with pytest.raises(PlanError, match=r"loss distance_focal: k_per_mm: .*greater than 0"):
        build_loss("distance_focal", {"k_per_mm": 0})


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(PlanError, match=r"unknown loss 'hinge'; known are .*distance_focal_growth.*tversky"):
        build_loss("hinge")


@pytest.mark.parametrize("name", LOSSES)
def test_what_nobody_judged_takes_no_part(named, name):
    """Ignored planes at the end of a patch: value and gradient are those of the patch without them."""
    logits, target, distance = example()
    loss = named(name)
    target[..., 3:] = IGNORED
    logits.requires_grad_()
    value = loss(logits, target, distance)
    (gradient,) = torch.autograd.grad(value, logits)
    cut = logits.detach()[..., :3].clone().requires_grad_()
    expected = loss(cut, target[..., :3], distance[..., :3])
    (expected_gradient,) = torch.autograd.grad(expected, cut)
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(gradient[..., :3], expected_gradient)
    assert not gradient[..., 3:].any()


@pytest.mark.parametrize("name", LOSSES)
def test_a_patch_that_nobody_judged_has_a_finite_loss_and_no_gradient(named, name):
    logits, target, distance = example()
    logits.requires_grad_()
    value = named(name)(logits, torch.full_like(target, IGNORED), distance)
    value.backward()
    assert torch.isfinite(value)
    assert not logits.grad.any()
