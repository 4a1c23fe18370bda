"""A fully connected CRF behind any network: every voxel hears every other one near it or like it.

Source: Kraehenbuehl & Koltun, "Efficient inference in fully connected CRFs with Gaussian edge potentials" (NIPS 2011,
arXiv 1210.5644): mean field, a Gaussian kernel of position and one of position and intensity, Potts compatibility,
kernels normalised symmetrically. Position is filtered exactly, axis by axis, by a small matrix each; the Gaussian of
the intensities is a sum of products (a pivoted Cholesky factor), exact to `TOLERANCE` for any number of channels.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from focalis.lesions import label_components
from focalis.model import Refinement

SECONDS = 60.0
"""What the refinement of a case may take."""
CANDIDATE_SHARE = 0.25
"""A voxel from this share of the threshold on may become foreground; boxes are laid around such voxels."""
MOST_BOX_VOXELS = 96**3
TOLERANCE = 1e-3
MOST_TERMS = 64
LEAST_PROBABILITY = 1e-6

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Refined:
    """Refined probabilities, float32 (label, z, y, x), and whether the time sufficed for all of them."""

    probabilities: NDArray[np.float32]
    complete: bool


def refine_probabilities(
    probabilities: NDArray[np.float32],
    image: NDArray[np.float32],
    spacing_zyx_mm: Sequence[float],
    settings: Refinement,
    threshold: float,
    *,
    seconds: float = SECONDS,
    device: torch.device | None = None,
) -> Refined:
    """Refine the probabilities in boxes around whatever could be foreground; elsewhere they stay as they are.

    The threshold is the point where a voxel is undecided: before the field background and foreground are weighed so
    that they are equal there, after it they are weighed back. So the same threshold decides before and after. The
    most likely boxes come first; where the time ends, the rest stays as far as it is.

    Args:
        probabilities: float32 (label, z, y, x), which sum to 1.
        image: the prepared case, float32 (channel, z, y, x).
        spacing_zyx_mm: voxel size of both.
        settings: the field's parameters.
        threshold: the operating point on 1 - p(background), in (0, 1).
        seconds: wall time that may pass.
        device: where to compute; the CPU by default.
    """
    if settings.similar_weight == 0 and settings.near_weight == 0:
        return Refined(probabilities, True)
    deadline = time.monotonic() + seconds
    foreground = 1 - probabilities[0]
    reach_mm = max(
        settings.similar_mm * (settings.similar_weight > 0), settings.near_mm * (settings.near_weight > 0)
    )
    margin = [int(np.ceil(reach_mm / size)) for size in spacing_zyx_mm]
    shape = foreground.shape
    boxes = [
        part
        for box in boxes_around(foreground >= CANDIDATE_SHARE * threshold, margin)
        for part in _halved(box)
    ]
    boxes.sort(key=lambda box: -float(foreground[box].sum()))
    result, complete = probabilities.copy(), True
    tilt = np.asarray([threshold] + [1 - threshold] * (len(probabilities) - 1), np.float32)[
        :, None, None, None
    ]
    for inner in boxes:
        if time.monotonic() >= deadline:
            return Refined(result, False)
        outer = _grown(inner, margin, shape)
        given = probabilities[(slice(None), *outer)] * tilt
        given /= given.sum(axis=0)
        field, whole = mean_field(
            torch.from_numpy(given).to(device or "cpu"),
            torch.from_numpy(np.ascontiguousarray(image[(slice(None), *outer)])).to(device or "cpu"),
            spacing_zyx_mm,
            settings,
            deadline,
        )
        complete &= whole
        found = field.cpu().numpy() * (1 - tilt)
        found /= found.sum(axis=0)
        local = tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
        result[(slice(None), *inner)] = found[(slice(None), *local)]
    return Refined(result, complete)


def mean_field(
    probabilities: Tensor,
    image: Tensor,
    spacing_zyx_mm: Sequence[float],
    settings: Refinement,
    deadline: float = np.inf,
) -> tuple[Tensor, bool]:
    """The mean field of the CRF whose unary potentials are -log of the probabilities, all voxels updated at once.

    Args:
        probabilities: (label, z, y, x), which sum to 1.
        image: (channel, z, y, x).
        spacing_zyx_mm: voxel size of both.
        settings: weights, widths, iterations.
        deadline: no iteration begins after this point of `time.monotonic`.

    Returns:
        The marginals (label, z, y, x), and whether all iterations were done.
    """
    shape = probabilities.shape[1:]
    kernels = []
    if settings.similar_weight > 0:
        terms = intensity_terms(image.flatten(1), settings.similar_intensity).view(-1, *shape)
        axes = _axes(shape, spacing_zyx_mm, settings.similar_mm, probabilities)
        kernels.append((settings.similar_weight, Kernel(axes, terms)))
    if settings.near_weight > 0:
        axes = _axes(shape, spacing_zyx_mm, settings.near_mm, probabilities)
        kernels.append((settings.near_weight, Kernel(axes, torch.ones_like(probabilities[:1]))))
    unary = probabilities.clamp(min=LEAST_PROBABILITY).log()
    marginals = probabilities
    for _ in range(settings.iterations):
        if time.monotonic() >= deadline:
            return marginals, False
        # Potts: what disagrees costs, which up to a constant is that what agrees is rewarded.
        agreement = sum((weight * kernel.messages(marginals) for weight, kernel in kernels), start=unary)
        marginals = torch.softmax(agreement, dim=0)
    return marginals, True


class Kernel:
    """A kernel between all pairs of voxels: a Gaussian of the position times a sum of products of voxel terms.

    Normalised symmetrically: k(i, j) / sqrt(s(i) s(j)), where s(i) is the sum of k(i, j) over all j.

    Args:
        axes: for z, y and x the symmetric matrix of the Gaussian between the planes of that axis.
        terms: (term, z, y, x); the sum over the terms of t(i) t(j) is the rest of the kernel.
    """

    def __init__(self, axes: Sequence[Tensor], terms: Tensor) -> None:
        self.axes, self.terms = axes, terms
        self.own = (terms**2).sum(dim=0)
        ones = torch.ones_like(terms[:1])
        self.scale = torch.maximum(self._sums(ones)[0], 0.5 * self.own).clamp(min=TOLERANCE).rsqrt()

    def messages(self, marginals: Tensor) -> Tensor:
        """What the others say to each voxel about each label, (label, z, y, x): the sum over j != i of k(i, j) q(j)."""
        given = self.scale * marginals
        return self.scale * (self._sums(given) - self.own * given)

    def _sums(self, values: Tensor) -> Tensor:
        z, y, x = self.axes
        total = torch.zeros_like(values)
        for term in self.terms:
            blurred = y @ (term * values) @ x
            blurred = (z @ blurred.flatten(2)).view_as(values)
            total += term * blurred
        return total


def intensity_terms(intensities: Tensor, width: float) -> Tensor:
    """Terms (term, voxel) whose products sum up to exp(-|a - b|^2 / (2 width^2)) for two voxels' intensities a, b.

    A pivoted Cholesky factor: the next term belongs to the voxel that the sum still represents worst. The kernel is
    off by at most `TOLERANCE`, or by what `MOST_TERMS` terms leave.

    Args:
        intensities: (channel, voxel).
        width: standard deviation of the Gaussian, in the intensities' unit.
    """
    points = intensities / width
    left = torch.ones_like(points[0])
    terms = points.new_empty((MOST_TERMS, points.shape[1]))
    for count in range(MOST_TERMS):
        pivot = int(left.argmax())
        worst = float(left[pivot])
        if worst <= TOLERANCE:
            return terms[:count]
        row = torch.exp(-0.5 * ((points - points[:, pivot, None]) ** 2).sum(dim=0))
        row -= terms[:count, pivot] @ terms[:count]
        terms[count] = row / worst**0.5
        left = (left - terms[count] ** 2).clamp(min=0)
    return terms


def boxes_around(candidates: NDArray[np.bool_], margin_zyx: Sequence[int]) -> list[Box]:
    """Boxes that do not overlap, each around candidates and as many voxels more as the margin says."""
    boxes = [
        _grown(box, margin_zyx, candidates.shape)
        for box in ndimage.find_objects(label_components(candidates)[0])
    ]
    while True:
        covered = np.zeros_like(candidates)
        for box in boxes:
            covered[box] = True
        merged = list(ndimage.find_objects(label_components(covered)[0]))
        if len(merged) == len(boxes):
            return merged
        boxes = merged


def _grown(box: Box, margin_zyx: Sequence[int], shape_zyx: Sequence[int]) -> Box:
    z, y, x = (
        slice(max(0, axis.start - margin), min(size, axis.stop + margin))
        for axis, margin, size in zip(box, margin_zyx, shape_zyx, strict=True)
    )
    return z, y, x


def _halved(box: Box) -> list[Box]:
    """The box, cut across its longest axis until no part is too large to hold its terms."""
    sides = [axis.stop - axis.start for axis in box]
    if np.prod(sides) <= MOST_BOX_VOXELS:
        return [box]
    longest = int(np.argmax(sides))
    middle = box[longest].start + sides[longest] // 2
    parts = []
    for piece in (slice(box[longest].start, middle), slice(middle, box[longest].stop)):
        z, y, x = (piece if axis == longest else side for axis, side in enumerate(box))
        parts += _halved((z, y, x))
    return parts


def _axes(
    shape: Sequence[int], spacing_zyx_mm: Sequence[float], width_mm: float, like: Tensor
) -> list[Tensor]:
    matrices = []
    for size, spacing in zip(shape, spacing_zyx_mm, strict=True):
        place = torch.arange(size, device=like.device, dtype=like.dtype) * (spacing / width_mm)
        matrices.append(torch.exp(-0.5 * (place[:, None] - place) ** 2))
    return matrices
