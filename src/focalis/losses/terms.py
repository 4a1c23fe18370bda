"""Loss terms that count voxels: distance-weighted focal, soft Dice, Tversky, cross entropy. All in float32 or better.

Targets are hard or soft, see `focalis.losses.target`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from focalis.dataset import IGNORED
from focalis.losses.target import full_precision, is_soft, judged, mean, ratio, shares
from focalis.ranks import total

ERROR_BINS = 10
"""Into how many bins `l1_dice_focal_loss` sorts the errors."""


def distance_focal_loss(logits: Tensor, target: Tensor, weight: Tensor, r: float) -> Tensor:
    """The method's loss, -w (1 - p_t)^r log(p_t), as a mean over voxels that is weighted by w.

    Source: the method's formula (docs/method.md). p_t is the softmax probability of a voxel's true class. The
    sum over voxels is divided by the sum of the weights, so that its size does not depend on the patch. Safe
    at p_t -> 0 and 1: log(p_t) is a log-softmax, and 1 - p_t = -expm1(log p_t) is held above 1e-12, where the
    power's derivative would be infinite for r < 1. With a soft target it is the mean over the readers of what each
    reader's class would cost.

    Args:
        logits: (batch, classes, z, y, x), any floating dtype.
        target: class indices (batch, z, y, x), int64, none of them IGNORED; or shares (batch, classes, z, y, x).
        weight: w >= 0 (batch, z, y, x): 1 on the foreground, `background_weight` elsewhere.
        r: focusing exponent, > 0.

    Returns:
        A scalar; 0 where all weights are 0.
    """
    log_p = functional.log_softmax(full_precision(logits), dim=1)
    log_pt = log_p if is_soft(target) else log_p.gather(1, target[:, None])[:, 0]
    miss = (-torch.expm1(log_pt)).clamp(min=1e-12)
    loss = -(miss**r) * log_pt
    if is_soft(target):
        loss = (target * loss).sum(1)
    return ratio(weight * loss, weight, 1e-12)


def soft_dice_loss(logits: Tensor, target: Tensor, *, present: bool = False) -> Tensor:
    """One minus the soft Dice of the foreground classes, mean over the batch's patches and classes.

    Every patch counts alike, so a small lesion weighs as much as a large one; pooled over the batch, the large ones
    would decide. A smoothing of one voxel keeps a patch without the class defined: its Dice is 1 only as far as no
    probability is spent on it. Where many patches lack the class, that pull towards silence outweighs the lesions.

    Args:
        logits: (batch, classes, z, y, x).
        target: class indices (batch, z, y, x), int64, or IGNORED; or shares (batch, classes, z, y, x).
        present: only the classes that a patch holds count.

    Returns:
        A scalar between 0 and 1; 0 where nothing counts.
    """
    p = functional.softmax(full_precision(logits), dim=1)[:, 1:]
    truth = shares(target, logits.shape[1], p.dtype)[:, 1:]
    p = p * judged(target)[:, None]
    axes = (2, 3, 4)
    overlap, size = (p * truth).sum(axes), truth.sum(axes)
    loss = 1 - (2 * overlap + 1) / (p.sum(axes) + size + 1)
    if not present:
        return mean(loss)
    counts = size > 0
    return ratio(torch.where(counts, loss, 0), counts)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Plain voxel-wise cross entropy, mean over the voxels that are not IGNORED; shapes as in `soft_dice_loss`."""
    return ratio(_summed_cross_entropy(logits, target), judged(target))


def weighted_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy in which every class of the batch counts alike, however few its voxels are.

    A voxel's weight is one over the number of voxels of its class in the batch, and the sum is divided by the sum of
    the weights: the mean over the classes present of the mean cross entropy inside each. Source: the class balancing
    of Xie & Tu, "Holistically-nested edge detection" (ICCV 2015), by batch and for any number of classes. The
    frequencies are the batch's own: those of whole cases would not fit patches, of which most hold a lesion.

    Args:
        logits: (batch, classes, z, y, x).
        target: class indices (batch, z, y, x), int64, or IGNORED; or shares (batch, classes, z, y, x).

    Returns:
        A scalar; 0 where nobody has judged anything.
    """
    logits = full_precision(logits)
    truth = shares(target, logits.shape[1], logits.dtype) * judged(target)[:, None]
    counts = total(truth.sum((0, 2, 3, 4)))
    weight = torch.where(counts > 0, 1 / counts.clamp(min=1e-12), 0)
    per_class = total(-(truth * functional.log_softmax(logits, dim=1)).sum((0, 2, 3, 4)))
    return (weight * per_class).sum() / (counts > 0).sum().clamp(min=1)


def tversky_loss(logits: Tensor, target: Tensor, false_positive: float, false_negative: float) -> Tensor:
    """One minus the Tversky index of the foreground classes, mean over the batch's patches and classes.

    TP / (TP + a FP + b FN) with soft counts: a and b say what a false positive and a false negative cost; with one
    half each it is `soft_dice_loss`, whose smoothing it has (half a voxel here is one voxel there). Source: Salehi et
    al., "Tversky loss function for image segmentation" (MLMI 2017).

    Args:
        logits: (batch, classes, z, y, x).
        target: class indices (batch, z, y, x), int64, or IGNORED; or shares (batch, classes, z, y, x).
        false_positive: a >= 0.
        false_negative: b >= 0.

    Returns:
        A scalar between 0 and 1.
    """
    p = functional.softmax(full_precision(logits), dim=1)[:, 1:]
    truth = shares(target, logits.shape[1], p.dtype)[:, 1:]
    p = p * judged(target)[:, None]
    axes = (2, 3, 4)
    hit, said, true = (p * truth).sum(axes), p.sum(axes), truth.sum(axes)
    cost = false_positive * (said - hit) + false_negative * (true - hit)
    return 1 - mean((hit + 0.5) / (hit + cost + 0.5))


def _summed_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    if is_soft(target):
        return -(target * functional.log_softmax(full_precision(logits), dim=1)).sum()
    return functional.cross_entropy(full_precision(logits), target, ignore_index=IGNORED, reduction="sum")


def l1_dice_focal_loss(logits: Tensor, target: Tensor, r: float) -> Tensor:
    """Soft Dice loss plus focal loss with voxels that weigh by how rare an error of their size is.

    The error of a voxel is half the L1 distance of its probabilities and its target, between 0 and 1. The judged voxels
    of the batch are sorted into `ERROR_BINS` bins by it. Each bin that holds a voxel has the same total weight, so the
    many easy voxels do not drown the few hard ones; the weights have a mean of 1 and no gradient. Soft Dice is taken
    per patch and foreground class, with squares in the denominator and a smoothing of one voxel. After Dzikunu et al.,
    L1-weighted Dice Focal Loss (arXiv 2502.02756).

    Args:
        logits: (batch, classes, z, y, x).
        target: class indices (batch, z, y, x), int64, or IGNORED; or shares (batch, classes, z, y, x).
        r: focusing exponent, > 0.

    Returns:
        A scalar; 0 where nobody has judged anything.
    """
    log_p = functional.log_softmax(full_precision(logits), dim=1)
    p = log_p.exp()
    known = judged(target)
    truth = shares(target, logits.shape[1], p.dtype)
    error = (p.detach() - truth).abs().sum(1) / 2
    bins = (error * ERROR_BINS).long().clamp(max=ERROR_BINS - 1)
    counts = total(torch.bincount(bins[known], minlength=ERROR_BINS)).to(p.dtype)
    weight = known * (total(known.sum()) / (counts > 0).sum().clamp(min=1) / counts.clamp(min=1))[bins]
    miss = (-torch.expm1(log_p)).clamp(min=1e-12)
    focal = ratio(weight * -(truth * miss**r * log_p).sum(1), weight)
    p, truth, weight, axes = p[:, 1:], truth[:, 1:], weight[:, None], (2, 3, 4)
    overlap, size = (weight * p * truth).sum(axes), (weight * (p**2 + truth**2)).sum(axes)
    dice = 1 - (2 * overlap + 1) / (size + 1)
    return mean(dice) + focal
