"""What a model was trained on, in a few figures per image, and whether another image lies outside of it.

No figure knows what an image shows. Together they notice another modality, another part of the body, inverted or
windowed intensities, noise, and another field of view; not a disease that was never trained.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import scipy
from numpy.typing import NDArray

from focalis.display import Shown
from focalis.planning.plan import Normalisation
from focalis.settings import Frozen
from focalis.volume import Absent, Volume, percentiles_of, to_canonical

LEAST_CASES = 5
"""With fewer training cases nothing can be said about what is usual."""
LEVELS = (5, 25, 50, 75, 95)
THUMBNAIL = 8
"""Voxels per side of the coarse picture by which images of one place are known."""
AXES = ("z", "y", "x")
FINE = 5
"""Voxels per side of the surroundings against which fine structures are bright or dark."""
FLAT = 1e-12
"""Below this share of the mean square a variance is rounding."""
SAMPLED = 1_000_000
"""Images are sampled evenly down to about so many voxels for what needs no neighbours."""
REACH, FEW = 0.4, 20
"""An image may lie beyond the training cases' 1st to 99th percentile by REACH (1 + FEW / cases) times the distance
between these: few cases do not know the range."""
TOLERANCES = {
    "spacing": math.log(1.5),
    "extent": math.log(1.5),
    "intensity": 0.1,
    "shape": 0.1,
    "smoothness": 0.1,
    "polarity": 0.05,
    "likeness": 0.2,
}
"""The least distance beyond these percentiles that counts, by kind; of intensities, a share of the usual range."""

DIGITS = 4
"""Decimals of a limit. Those of older models were rounded to nearest, so half of the last one counts as inside."""

Description: TypeAlias = Mapping[str, Sequence[float]]
"""A case's figures by kind and channel, see `describe`."""


class Usual(Frozen):
    """The range of a figure that is still inside."""

    name: str
    low: float
    high: float


class Scope(Shown, Frozen):
    """What the training cases were like.

    Attributes:
        usual: the range of every figure.
        thumbnails: per channel, the mean of the training cases' coarse pictures.
    """

    cases: int
    usual: tuple[Usual, ...]
    thumbnails: tuple[tuple[float, ...], ...]

    @property
    def extent_zyx_mm(self) -> tuple[tuple[float, float, float], ...]:
        """The least, the middle and the greatest usual size of an image, in mm along z, y, x."""
        ranges = {each.name: each for each in self.usual}
        usual = [ranges[f"extent {axis}"] for axis in range(3)]
        z, y, x = (
            [math.exp(value) for value in (each.low, (each.low + each.high) / 2, each.high)] for each in usual
        )
        return tuple(zip(z, y, x, strict=True))


def describe(volumes: Sequence[Volume], normalisation: Sequence[Normalisation]) -> dict[str, list[float]]:
    """The figures of a case that are needed to learn a scope or to hold it against one.

    Args:
        volumes: one per channel, on one grid; of an `Absent` one there are no figures.
        normalisation: the plan's; absolute intensities count only where they have a unit (`window`).
    """
    grid = to_canonical(volumes[0]).grid
    spacing = np.asarray(grid.spacing_zyx_mm)
    found = {"spacing": np.log(spacing).tolist(), "extent": np.log(spacing * grid.shape_zyx).tolist()}
    for channel, (volume, how) in enumerate(zip(volumes, normalisation, strict=True)):
        if isinstance(volume, Absent):
            continue
        array = to_canonical(volume).array
        percentiles = percentiles_of(_sample(array), (1, 50, 99, *LEVELS))
        low, high = percentiles[[0, 2]].astype(np.float32)
        span = float(high - low) or 1.0
        if how.kind == "window":
            found[f"intensity {channel}"] = percentiles[:3].tolist()
        found[f"shape {channel}"] = ((percentiles[3:] - low) / span).tolist()
        image = np.clip(array, low, high).astype(np.float32, copy=False)
        found[f"smoothness {channel}"] = [_smoothness(image, axis) for axis in range(3)]
        found[f"polarity {channel}"] = [_polarity(image)]
        found[f"thumbnail {channel}"] = _thumbnail(image)
    return found


def learn_scope(cases: Sequence[Description]) -> Scope | None:
    """The scope of the training cases; None for fewer than `LEAST_CASES`."""
    if len(cases) < LEAST_CASES:
        return None
    kinds = dict.fromkeys(name for case in cases for name in case)
    usual, thumbnails = [], []
    for kind in (name for name in kinds if not name.startswith("thumbnail")):
        rows = np.asarray([case[kind] for case in cases if kind in case])
        scale = float(np.median(rows[:, -1] - rows[:, 0])) if kind.startswith("intensity") else 1.0
        usual += [_usual(f"{kind} {place}", rows[:, place], scale) for place in range(rows.shape[1])]
    pictures = {kind: [case[kind] for case in cases if kind in case] for kind in kinds if "thumbnail" in kind}
    for channel in range(len(pictures)):
        rows = np.asarray(pictures[f"thumbnail {channel}"])
        others = (rows.sum(axis=0) - rows) / max(1, len(rows) - 1)
        likeness = np.asarray([_likeness(row, other) for row, other in zip(rows, others, strict=True)])
        usual.append(_usual(f"likeness {channel} 0", likeness, 1.0).model_copy(update={"high": 1.0}))
        thumbnails.append(tuple(np.round(rows.mean(axis=0), 3).tolist()))
    return Scope(cases=len(cases), usual=tuple(usual), thumbnails=tuple(thumbnails))


def join_scopes(scopes: Sequence[Scope | None]) -> Scope | None:
    """The scope of an ensemble: what any member knows is inside; None if a member knows none."""
    known = [scope for scope in scopes if scope is not None]
    if len(known) < len(scopes) or not known:
        return None
    usual = tuple(
        Usual(name=each[0].name, low=min(one.low for one in each), high=max(one.high for one in each))
        for each in zip(*(scope.usual for scope in known), strict=True)
    )
    pictures = np.stack([np.asarray(scope.thumbnails) for scope in known]).mean(axis=0).round(3)
    thumbnails = tuple(tuple(row) for row in pictures.tolist())
    return Scope(cases=max(scope.cases for scope in known), usual=usual, thumbnails=thumbnails)


def outside(scope: Scope, case: Description, channels: Sequence[str]) -> tuple[str, ...]:
    """In what a case lies outside of the scope, a phrase per kind and channel; empty if it lies inside.

    Args:
        scope: what the model was trained on.
    """
    said: dict[str, tuple[float, str]] = {}
    for usual, value in _values(scope, case):
        kind, *numbers = usual.name.split()
        channel = int(numbers[0]) if len(numbers) > 1 else None
        beyond = max(usual.low - value, value - usual.high)
        about = kind if channel is None else f"{kind} {channel}"
        if beyond > 0.5 / 10**DIGITS and beyond > said.get(about, (0.0, ""))[0]:
            name = "" if channel is None else channels[channel]
            said[about] = beyond, _phrase(kind, int(numbers[-1]), name, value, usual)
    return tuple(phrase for _, phrase in said.values())


def positions(scope: Scope, case: Description) -> dict[str, float]:
    """Where each figure of a case lies in its usual range: -1 at its lower end, 1 at its upper end, by its name."""
    found = {}
    for usual, value in _values(scope, case):
        half = (usual.high - usual.low) / 2
        found[usual.name] = round((value - usual.low) / half - 1, 3) if half > 0 else 0.0
    return found


def _values(scope: Scope, case: Description) -> Iterator[tuple[Usual, float]]:
    """The figures of a case that the scope knows, each with its usual range; none of a channel that it lacks."""
    for usual in scope.usual:
        kind, *numbers = usual.name.split()
        place = int(numbers[-1])
        channel = int(numbers[0]) if len(numbers) > 1 else None
        if channel is not None and f"thumbnail {channel}" not in case:  # it lacks the channel
            continue
        if kind == "likeness":
            value = _likeness(
                np.asarray(case[f"thumbnail {channel}"]), np.asarray(scope.thumbnails[channel or 0])
            )
        else:
            value = case[kind if channel is None else f"{kind} {channel}"][place]
        yield usual, value


def _usual(name: str, values: NDArray[np.float64], scale: float) -> Usual:
    low, high = (float(value) for value in np.percentile(values, (1, 99)))
    reach = REACH * (1 + FEW / len(values)) * (high - low)
    margin = max(reach, TOLERANCES[name.split()[0]] * scale)
    unit = 10**DIGITS
    low, high = math.floor((low - margin) * unit) / unit, math.ceil((high + margin) * unit) / unit
    return Usual(name=name, low=low, high=high)


def _phrase(kind: str, place: int, channel: str, value: float, usual: Usual) -> str:
    low, high = usual.low, usual.high
    if kind in ("spacing", "extent"):
        what = "spacing" if kind == "spacing" else "field of view"
        usually = f"usual is {math.exp(low):.3g} to {math.exp(high):.3g}"
        return f"{what} of {math.exp(value):.4g} mm along {AXES[place]} ({usually})"
    if kind == "intensity":
        percentile = ("1st percentile", "median", "99th percentile")[place]
        return f"{percentile} of {channel} at {value:.4g} (usual is {low:.4g} to {high:.4g})"
    usually = f"(usual is {low:.2f} to {min(high, 1):.2f})"
    if kind == "shape":
        return f"{LEVELS[place]}th percentile of {channel} at {value:.2f} of its range {usually}"
    if kind == "smoothness":
        return f"neighbours along {AXES[place]} in {channel} correlate by {value:.2f} {usually}"
    if kind == "polarity":
        how = "brighter" if value > high else "darker"
        return f"fine structures of {channel} are {how} than usual: skewness {value:.2f} {usually}"
    return f"{channel} is laid out unlike the training images: correlation {value:.2f} (usual is {low:.2f} or more)"


def _step(array: NDArray[np.generic]) -> int:
    """Every how many voxels an image is sampled along each axis."""
    return max(1, round(math.cbrt(array.size / SAMPLED)))


def _sample(array: NDArray[np.generic]) -> NDArray[np.float32]:
    step = _step(array)
    return array[::step, ::step, ::step].astype(np.float32)


def _smoothness(image: NDArray[np.float32], axis: int) -> float:
    """The correlation of voxels with their neighbours along an axis; 1 where there is nothing to compare.

    In a large image, on evenly spread lines along the axis.
    """
    step = _step(image)
    along = np.moveaxis(image, axis, 0)[:, ::step, ::step].astype(np.float64)
    one, other = along[:-1], along[1:]
    if not one.size:
        return 1.0
    # Not by BLAS, whose threads wait for each other longer than they compute where the processor is busy.
    aa, bb, ab = (float(np.einsum("ijk,ijk", *pair)) for pair in ((one, one), (other, other), (one, other)))
    a, b, aa, bb, ab = (total / one.size for total in (float(one.sum()), float(other.sum()), aa, bb, ab))
    scale = math.sqrt(max(aa - a * a, 0.0) * max(bb - b * b, 0.0))
    return float((ab - a * b) / scale) if scale > FLAT * (aa + bb) else 1.0


def _polarity(image: NDArray[np.float32]) -> float:
    """Whether fine structures are brighter (above 0) or darker (below 0) than what is around them, from -1 to 1.

    The skewness, by the 5th, 50th and 95th percentile (Hinkley, Biometrika 1975), of the image less its mean over
    `FINE` voxels a side. Inverting the intensities turns its sign, whatever the share of bright and dark tissue is.
    """
    step = _step(image)
    around = image
    for axis in (2, 1):  # what is not sampled along one axis need not be blurred along the next
        around = scipy.ndimage.uniform_filter1d(around, FINE, axis=axis, mode="nearest")
        around = np.take(around, range(0, image.shape[axis], step), axis=axis)
    fine = _sample(image) - _mean_of_planes(around, FINE)[::step]
    low, middle, high = map(float, percentiles_of(fine, (5, 50, 95)))
    return (high + low - 2 * middle) / (high - low) if high > low else 0.0


def _mean_of_planes(image: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """What `scipy.ndimage.uniform_filter1d` gives along z: that goes through one column after the other, which takes
    four times as long where planes lie a power of two apart in memory.
    """
    planes = [image[min(max(z, 0), len(image) - 1)] for z in range(-(size // 2), len(image) + size // 2)]
    total = np.zeros(image.shape[1:])
    for plane in planes[:size]:
        total += plane
    mean = np.empty_like(image)
    mean[0] = total / size
    for z in range(1, len(image)):
        total += np.subtract(planes[z + size - 1], planes[z - 1], dtype=np.float64)
        mean[z] = total / size
    return mean


def _thumbnail(image: NDArray[np.float32]) -> list[float]:
    """The image blurred to `THUMBNAIL` voxels a side over its field of view, mean 0, standard deviation 1."""
    small = image
    for axis in (2, 1, 0):
        size = image.shape[axis]
        factor = size / THUMBNAIL
        small = scipy.ndimage.uniform_filter1d(small, max(1, round(factor)), axis=axis, mode="nearest")
        place = np.clip((np.arange(THUMBNAIL) + 0.5) * factor - 0.5, 0, size - 1)
        below = np.floor(place).astype(int)
        share = (place - below).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
        above = np.minimum(below + 1, size - 1)
        small = (1 - share) * small.take(below, axis) + share * small.take(above, axis)
    small = small - small.mean()
    picture: list[float] = np.round(small / (small.std() or 1.0), 3).ravel().tolist()
    return picture


def _likeness(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """The correlation of two coarse pictures; 0 if one of them shows nothing."""
    one, other = (each.astype(np.float32) - each.astype(np.float32).mean() for each in (one, other))
    scale = float(np.sqrt((one**2).sum(dtype=np.float64) * (other**2).sum(dtype=np.float64)))
    return float((one * other).sum(dtype=np.float64)) / scale if scale > 0 else 0.0
