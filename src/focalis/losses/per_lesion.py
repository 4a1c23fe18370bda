"""Loss terms that count lesions instead of voxels: each lesion of a batch weighs alike, whatever its size.

A lesion is a connected component of the foreground, all labels together, as everywhere lesions are counted. The terms
judge the probability of the foreground, p = 1 - p(background), and leave the labels to what they are summed with.
`nearest` numbers for every voxel the lesion that it is nearest to, from 1 on, see `losses.distance.nearest_lesion`;
only lesions with a voxel in the patch count. Voxels that nobody has judged take no part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from focalis.lesions import label_components
from focalis.losses.target import full_precision, judged, ratio, shares


@dataclass(frozen=True)
class _Voxels:
    """Per voxel, (batch, z, y, x): p, the share of the readers who drew it, its cross entropy, 1 where it is judged."""

    p: Tensor
    truth: Tensor
    entropy: Tensor
    known: Tensor

    @classmethod
    def of(cls, logits: Tensor, target: Tensor) -> _Voxels:
        log_p = functional.log_softmax(full_precision(logits), dim=1)
        known = judged(target).to(log_p.dtype)
        truth = shares(target, logits.shape[1], log_p.dtype)[:, 1:].sum(1) * known
        entropy = -(truth * log_p[:, 1:].logsumexp(1) + (1 - truth) * log_p[:, 0]) * known
        return cls(-torch.expm1(log_p[:, 0]) * known, truth, entropy, known)

    def drawn(self, nearest: Tensor) -> Tensor:
        """The lesion that each voxel is part of, 0 for the background."""
        return nearest * (self.truth > 0)


def voronoi_loss(logits: Tensor, target: Tensor, nearest: Tensor) -> Tensor:
    """Soft Dice loss plus cross entropy of each lesion's cell, mean over the lesions.

    The cell of a lesion is what lies nearer to it than to any other: a false positive counts against the lesion that
    it is nearest to. Source: Bouteille et al., CC-DiceCE (arXiv 2511.17146).

    Args:
        logits: (batch, classes, z, y, x).
        target: class indices (batch, z, y, x), int64, or IGNORED; or shares (batch, classes, z, y, x).
        nearest: int64 (batch, z, y, x).

    Returns:
        A scalar; 0 without a lesion.
    """
    voxels = _Voxels.of(logits, target)
    return _by_component(voxels, voxels.drawn(nearest), nearest, nearest)


def two_way_loss(logits: Tensor, target: Tensor, nearest: Tensor) -> Tensor:
    """Half of what each true lesion costs on average, plus half of what each predicted one does.

    A lesion costs the soft Dice loss in its cell, see `voronoi_loss`, and the mean cross entropy of its own voxels. A
    predicted lesion, a component of p >= 1/2, costs the soft Dice loss and the mean cross entropy of its own voxels.
    So a missed lesion and a false one cost alike, whether they have eight voxels or eight thousand, and scans without
    a lesion teach too. After the idea of BiCC (arXiv 2609.30223).

    Args, returns: as of `voronoi_loss`.
    """
    voxels = _Voxels.of(logits, target)
    true, said = voxels.drawn(nearest), _predicted(voxels)
    return (_by_component(voxels, true, nearest, true) + _by_component(voxels, said, said, said)) / 2


def blob_loss(logits: Tensor, target: Tensor, nearest: Tensor) -> Tensor:
    """Soft Dice loss plus cross entropy of the patch with all lesions but one left out, mean over the lesions.

    Source: Kofler et al., blob loss (MIDL 2023, arXiv 2205.08209).

    Args, returns: as of `voronoi_loss`.
    """
    voxels = _Voxels.of(logits, target)
    body = voxels.drawn(nearest)
    index, total = _numbered(body)

    def of(values: Tensor) -> Tensor:  # (batch, number), the background's first
        return _sums(values, index, total).reshape(len(body), -1)

    overlap, said, true = of(voxels.p * voxels.truth), of(voxels.p), of(voxels.truth)
    entropy, known = of(voxels.entropy), of(voxels.known)
    dice = 1 - (2 * overlap + 1) / (said + said[:, :1] + true + 1)
    cost = dice + (entropy + entropy[:, :1]) / (known + known[:, :1]).clamp(min=1)
    return _mean(cost[:, 1:], true[:, 1:] > 0)


def component_tversky_loss(
    logits: Tensor,
    target: Tensor,
    nearest: Tensor,
    *,
    false_positive: float,
    false_negative: float,
    size_exponent: float,
    background: float,
) -> Tensor:
    """One minus the Tversky index with voxels that weigh by the size of their lesion, mean over patches with a lesion.

    A voxel of a lesion of n voxels weighs (n + 5)^-g, one of the background `background`. Source: Luu et al.,
    Component-Adaptive Tversky (arXiv 2604.08015), with the constants of their program.

    Args:
        logits, target, nearest: as of `voronoi_loss`.
        size_exponent: g; with 0 lesions weigh by their size, with 1 nearly alike.
        background: weight of a voxel of the background.

    Returns:
        A scalar between 0 and 1; 0 without a lesion.
    """
    voxels = _Voxels.of(logits, target)
    body = voxels.drawn(nearest)
    index, total = _numbered(body)
    size = _sums((body > 0).to(voxels.p.dtype), index, total)
    weight = torch.where(body > 0, (size[index].reshape(body.shape) + 5) ** -size_exponent, background)
    axes = (1, 2, 3)
    hit = (weight * voxels.p * voxels.truth).sum(axes)
    false = (weight * voxels.p * (1 - voxels.truth)).sum(axes)
    missed = (weight * (1 - voxels.p) * voxels.truth).sum(axes)
    loss = 1 - (hit + 1e-5) / (hit + false_positive * false + false_negative * missed + 1e-5)
    return _mean(loss, voxels.truth.sum(axes) > 0)


def _by_component(voxels: _Voxels, body: Tensor, cell: Tensor, judged_in: Tensor) -> Tensor:
    """Soft Dice loss in each component's cell plus mean cross entropy where `judged_in` has its number.

    The mean over the components that have a voxel in `body`; all three number components, 0 for none.
    """
    index, total = _numbered(body, cell, judged_in)
    in_body, in_cell, entropy_in = index.reshape(3, -1)
    overlap, said, true = (
        _sums(values, in_cell, total) for values in (voxels.p * voxels.truth, voxels.p, voxels.truth)
    )
    dice = 1 - (2 * overlap + 1) / (said + true + 1)
    entropy, known = (_sums(values, entropy_in, total) for values in (voxels.entropy, voxels.known))
    present = _sums((body > 0) * voxels.known, in_body, total) > 0
    return _mean(dice + entropy / known.clamp(min=1), present)


def _predicted(voxels: _Voxels) -> Tensor:
    """The components of p >= 1/2, numbered in each patch, 0 elsewhere."""
    mask = (voxels.p.detach() >= 0.5).cpu().numpy()
    numbers = [torch.from_numpy(label_components(patch)[0]) for patch in mask]
    return torch.stack(numbers).long().to(voxels.p.device)


def _numbered(*components: Tensor) -> tuple[Tensor, int]:
    """The maps one after the other, flat, with numbers of their own for each patch, and how many numbers there are."""
    count = max(int(each.max()) for each in components) + 1
    patches = len(components[0])
    start = count * torch.arange(patches, device=components[0].device).reshape(-1, 1, 1, 1)
    return torch.cat([(each + start).flatten() for each in components]), patches * count


def _sums(values: Tensor, index: Tensor, total: int) -> Tensor:
    return values.new_zeros(total).index_add(0, index, values.flatten())


def _mean(values: Tensor, counts: Tensor) -> Tensor:
    """The mean of the values that count; 0 if none does."""
    return ratio(torch.where(counts, values, 0), counts)
