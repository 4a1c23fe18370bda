"""How two scans of one person lie to each other: rigid, then affine, from the scanner's coordinates.

Registration says where to look; nothing that is measured is resampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import SimpleITK as sitk

from focalis.followup.optimise import optimise
from focalis.followup.scan import SmallScan, extent_mm, make_small
from focalis.followup.shift import best_shift
from focalis.followup.similarity import similarity
from focalis.followup.transform import Transform
from focalis.volume import Volume

LEAST_SIMILARITY = 0.55
DOUBTFUL_SIMILARITY = 0.75
LEAST_OVERLAP = 0.1
MOST_INCONSISTENT_MM = 4.0
_SURELY_UNMIRRORED, _MIRRORED_GAIN = 0.9, 0.1

REGISTRATION_RULE = (
    "Two scans are registered by mutual information, rigidly and then affinely, from the scanner's coordinates, and "
    "if that fails from the shift of the highest correlation. The similarity is the mean local correlation of both "
    "images where both show the body. Scans could not be registered if the similarity stays below "
    f"{LEAST_SIMILARITY:g}, if less than {100 * LEAST_OVERLAP:.0f} % of the smaller body is seen in both, if the "
    f"way back, found on its own, misses the start by more than {MOST_INCONSISTENT_MM:g} mm, or if the similarity is "
    f"below {_SURELY_UNMIRRORED:g} and that of a mirror image is higher by {_MIRRORED_GAIN:g}."
)

_VOXELS_ALONG = 90
_COARSEST_MM = 4.0
_GOOD_START = 0.6
_MOST_STRETCH = 1.15
_WORTH_IT = 0.02
"""By so much the similarity must rise for an affine transform to be taken."""
_PERTURBED_DEGREES, _PERTURBED_MM = 3.0, 8.0

Kind = Literal["rigid", "affine"]


@dataclass(frozen=True, eq=False)
class Registration:
    """How a later scan lies to an earlier one.

    Attributes:
        transform: from places of the earlier scan to places of the later one.
        kind: rigid or affine.
        similarity: mean local correlation of both images in the body, up to 1.
        overlap: the share of the smaller body that both scans show.
        inconsistency_mm: how far the way there and the way back, found on its own, miss the start: the median over
            the body.
        problem: why they could not be registered, a phrase; empty if they could.
    """

    transform: Transform
    kind: Kind
    similarity: float
    overlap: float
    inconsistency_mm: float
    problem: str = ""


@dataclass(frozen=True, eq=False)
class _Fitted:
    transform: Transform
    kind: Kind
    similarity: float
    overlap: float


def register(earlier: Volume, later: Volume) -> Registration:
    """Register two scans of one person.

    They may differ in field of view, spacing and direction, and show parts of the body in common only.

    Args:
        earlier, later: one channel each, of one modality.

    Returns:
        The registration; with a `problem` where it is not to be trusted.
    """
    voxel_mm = min(
        _COARSEST_MM, extent_mm(earlier.grid) / _VOXELS_ALONG, extent_mm(later.grid) / _VOXELS_ALONG
    )
    first, second = make_small(earlier, voxel_mm), make_small(later, voxel_mm)
    found = _rigid(first, second, Transform.identity())
    if found is None or found.similarity < _GOOD_START:
        other = _rigid(first, second, best_shift(first.image, second.image))
        found = max((each for each in (found, other) if each), key=lambda each: each.similarity, default=None)
    if found is None:
        return Registration(
            Transform.identity(), "rigid", 0.0, 0.0, float("inf"), "they show nothing in common"
        )
    found = _affine(first, second, found)
    miss = _inconsistency(first, second, found)
    problem = _problem(found, miss)
    if not problem and found.similarity < _SURELY_UNMIRRORED and _is_mirrored(first, second, found):
        problem = "one fits the mirror image of the other better, so its axes or its orientation are wrong"
    return Registration(found.transform, found.kind, found.similarity, found.overlap, miss, problem)


def _rigid(first: SmallScan, second: SmallScan, start: Transform) -> _Fitted | None:
    centre = first.body_places.mean(axis=0)
    moved = optimise(first.image, second.image, start, centre, where=_around(first.body), levels=(4, 2, 1))
    return None if moved is None else _judged(first, second, moved, "rigid")


def _affine(first: SmallScan, second: SmallScan, rigid: _Fitted) -> _Fitted:
    """The affine registration where it is plausible in one person and worth it, else the rigid one."""
    centre = first.body_places.mean(axis=0)
    moved = optimise(
        first.image,
        second.image,
        rigid.transform,
        centre,
        where=_around(first.body),
        levels=(2, 1),
        affine=True,
    )
    if moved is None:
        return rigid
    stretches = np.linalg.svd(moved.matrix, compute_uv=False)
    if stretches.max() > _MOST_STRETCH or stretches.min() < 1 / _MOST_STRETCH:
        return rigid
    found = _judged(first, second, moved, "affine")
    better = found.similarity > rigid.similarity + _WORTH_IT and found.overlap > 0.9 * rigid.overlap
    return found if better else rigid


def _judged(first: SmallScan, second: SmallScan, transform: Transform, kind: Kind) -> _Fitted:
    alike, share = similarity(first.image, second.image, transform, first.body)
    seen = sitk.Resample(
        first.body + 1, second.body, transform.inverse().to_sitk(), sitk.sitkNearestNeighbor, 0
    )
    body = sitk.GetArrayViewFromImage(second.body) > 0
    other_share = float((body & (sitk.GetArrayViewFromImage(seen) > 0)).sum() / max(int(body.sum()), 1))
    return _Fitted(transform, kind, alike, max(share, other_share))


def _inconsistency(first: SmallScan, second: SmallScan, found: _Fitted) -> float:
    """How far the way back, started off its place and found on the other scan's voxels, misses the start."""
    back = found.transform.inverse()
    centre = second.body_places.mean(axis=0)
    nudge = sitk.Euler3DTransform()
    nudge.SetCenter(centre.tolist())
    nudge.SetRotation(*np.radians([_PERTURBED_DEGREES, -_PERTURBED_DEGREES, _PERTURBED_DEGREES]).tolist())
    step = min(_PERTURBED_MM, 3 * max(second.image.GetSpacing()))
    nudge.SetTranslation([step, -step, step])
    start = Transform.from_sitk(nudge).then(back)
    again = optimise(
        second.image,
        first.image,
        start,
        centre,
        where=_around(second.body),
        levels=(2, 1),
        affine=found.kind == "affine",
    )
    if again is None:
        return float("inf")
    places = first.body_places
    misses = np.linalg.norm(again.apply(found.transform.apply(places)) - places, axis=1)
    return float(np.median(misses))


def _is_mirrored(first: SmallScan, second: SmallScan, found: _Fitted) -> bool:
    """Whether a scan whose values are flipped along an axis of its grid fits much better."""
    for axis in range(3):
        flipped = second.flipped(axis)
        other = _rigid(first, flipped, best_shift(first.image, flipped.image))
        if other is not None and other.similarity > found.similarity + _MIRRORED_GAIN:
            return True
    return False


def _around(body: sitk.Image) -> sitk.Image:
    """The body and a rim of three voxels, whose contrast to the air says where it lies."""
    wider: sitk.Image = sitk.BinaryDilate(body, [3, 3, 3])
    return wider


def _problem(found: _Fitted, miss_mm: float) -> str:
    if found.overlap < LEAST_OVERLAP:
        return f"only {100 * found.overlap:.0f} % of the smaller body is seen in both"
    if found.similarity < LEAST_SIMILARITY:
        return f"their similarity is {found.similarity:.2f}, below {LEAST_SIMILARITY:g}"
    if miss_mm > MOST_INCONSISTENT_MM:
        return f"the way there and back misses by {miss_mm:.1f} mm"
    return ""
