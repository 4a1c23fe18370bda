"""The operating point, and the one place that applies it: from probabilities to what is reported as a lesion."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focalis.display import Shown
from focalis.errors import ModelError
from focalis.lesions.candidates import highest
from focalis.lesions.components import label_components, voxels_of
from focalis.lesions.probability import temper, untempered
from focalis.lesions.second_look import FEATURES, features, lesion_chance

COLDEST = 0.01
"""The lowest temperature, and the inverse of the highest: beyond them tempered probabilities underflow in float32."""


@dataclass(frozen=True, repr=False)
class OperatingPoint(Shown):
    """What is reported as a lesion, and where that choice comes from. Probabilities are tempered ones.

    Attributes:
        threshold: a voxel is foreground where 1 - p(background) reaches it; in (0, 1).
        how: one line on how it was chosen.
        curve: (threshold, mean Dice with nothing dropped) pairs that it was chosen from.
        minimum_mm3: foreground components of a smaller volume are dropped; 0 drops none.
        minimum_confidence: components whose highest probability stays below it are dropped; in [0, 1].
        froc: (minimum confidence, false positives per scan, sensitivity) on the cases that it was chosen on, at its
            threshold and minimum size, from the strictest on; empty without true lesions.
        lesions, found: true lesions of these cases, and how many of them it finds; None where that is not known.
        temperature: what the log odds of the foreground probability are divided by, see `temper`.
        second_look: the weights that decide which components are reported, in place of minimum size and confidence,
            see `focalis.lesions.second_look`; empty for none.
        promise: what holds on new scans at this point, with its confidence and the cases it rests on, one line; or
            "none", and why; empty if nothing was asked for.
    """

    shows = ("threshold", "minimum_mm3", "minimum_confidence", "temperature", "how")

    threshold: float = 0.5
    how: str = "not chosen; the default"
    curve: tuple[tuple[float, float], ...] = ()
    minimum_mm3: float = 0.0
    minimum_confidence: float = 0.0
    froc: tuple[tuple[float, float, float], ...] = ()
    lesions: int | None = None
    found: int | None = None
    temperature: float = 1.0
    promise: str = ""
    second_look: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"a threshold lies between 0 and 1, not at {self.threshold}")
        if not 0 <= self.minimum_confidence <= 1:
            raise ValueError(f"a minimum confidence lies between 0 and 1, not at {self.minimum_confidence}")
        if not 0 <= self.minimum_mm3 < math.inf:
            raise ValueError(f"a minimum size is 0 mm3 or more, not {self.minimum_mm3}")
        if not COLDEST <= self.temperature <= 1 / COLDEST:
            raise ValueError(f"a temperature is from {COLDEST} to {1 / COLDEST:g}, not {self.temperature}")
        if len(self.second_look) not in (0, 1 + FEATURES) or not np.isfinite(self.second_look).all():
            raise ValueError(f"a second look has {1 + FEATURES} finite weights, not {self.second_look}")

    @property
    def untempered(self) -> float:
        """The threshold on probabilities as the network gives them."""
        return untempered(self.threshold, self.temperature)

    @property
    def best_dice(self) -> float:
        """The highest mean Dice of its curve; 0 without one."""
        return max((dice for _, dice in self.curve), default=0.0)

    def numbers(self) -> dict[str, Any]:
        """What it reports and why, without the curves: for records."""
        names = ("threshold", "minimum_mm3", "minimum_confidence", "temperature", "how")
        some = ("promise", "second_look")
        return {name: getattr(self, name) for name in names} | {
            name: value for name in some if (value := getattr(self, name))
        }

    def __str__(self) -> str:
        drops = (
            "a second look at each candidate"
            if self.second_look
            else f"minimum size {self.minimum_mm3:.3g} mm3, minimum confidence {self.minimum_confidence:.4g}"
        )
        return f"threshold {self.threshold:.4g}, {drops}, temperature {self.temperature:.3g} ({self.how})"


def promised_of(promise: str, *, outside: bool, missing: bool) -> str:
    """What a point's promise says of a case; nothing if it lies outside of the model's scope or lacks a channel."""
    if not promise or promise.startswith("none:") or not (outside or missing):
        return promise
    why = "lies outside of what the model was trained on" if outside else "lacks a channel"
    return f"none: the case {why}"


@dataclass(frozen=True, eq=False)
class Reported:
    """What an operating point makes of probabilities; arrays (z, y, x).

    Attributes:
        mask: class indices or label values of what is reported.
        candidates: the same before small and unsure lesions are dropped; the mask itself if nothing can be.
        foreground: float32, 1 - p(background), tempered.
    """

    mask: NDArray[np.integer]
    candidates: NDArray[np.integer]
    foreground: NDArray[np.float32]


def report_lesions(
    slabs: Iterable[tuple[slice, NDArray[np.float32]]],
    shape_zyx: Sequence[int],
    point: OperatingPoint,
    spacing_zyx_mm: Sequence[float],
    values: Sequence[int] | None = None,
    nested: bool = False,
) -> Reported:
    """Apply an operating point.

    Args:
        slabs: slices along z, and the untempered probabilities (label, z, y, x) there, channel 0 the background; of a
            single label, its own channel may be left out.
        shape_zyx: the size of all slabs together.
        spacing_zyx_mm: the voxel size.
        values: the label value of each channel, 0 first; the mask then has the smallest type that holds them. Class
            indices by default.

    Raises:
        ModelError: a probability is not finite.
    """
    kept = None if values is None else np.asarray(values).astype(np.min_scalar_type(max(values)))
    mask = np.empty(tuple(shape_zyx), dtype=np.uint8 if kept is None else kept.dtype)
    foreground = np.empty(tuple(shape_zyx), dtype=np.float32)
    for where, slab in slabs:
        foreground[where] = temper(1 - slab[0], point.temperature)
        if not np.isfinite(foreground[where]).all():
            raise ModelError(
                "the probabilities are not finite; check the image's values, and whether the model was trained on such "
                "images"
            )
        found = decide(slab, point.threshold, foreground[where], nested=nested)
        mask[where] = found if kept is None else kept[found]
    candidates = mask
    if point.minimum_mm3 > 0 or point.minimum_confidence > 0 or point.second_look:
        candidates = mask.copy()
        _drop_lesions(mask, foreground, point, spacing_zyx_mm)
    return Reported(mask, candidates, foreground)


def decide(
    probabilities: NDArray[np.float32],
    threshold: float,
    foreground: NDArray[np.float32] | None = None,
    *,
    nested: bool = False,
) -> NDArray[np.uint8]:
    """Class indices (z, y, x) from probabilities (label, z, y, x), channel 0 being the background.

    With one channel or two there is a single label. A voxel is foreground where its foreground probability, 1 - p[0]
    unless given, reaches the threshold; it then gets the foreground label with the highest probability, the lower one
    in a tie. Of nested regions, whose probability is the sum from a label to the last, it gets the innermost one that
    reaches one half, as if they were painted from the outermost on.
    """
    likely = 1 - probabilities[0] if foreground is None else foreground
    if len(probabilities) <= 2:
        return np.asarray(likely >= threshold, dtype=np.uint8)
    if nested:
        inner = probabilities[:1:-1].cumsum(axis=0)
        best: NDArray[np.uint8] = (inner >= 0.5).sum(axis=0, dtype=np.uint8)
    else:
        best = probabilities[1:].argmax(axis=0).astype(np.uint8)
    best += 1
    best[~(likely >= threshold)] = 0
    return best


def _drop_lesions(
    labels: NDArray[np.integer],
    foreground: NDArray[np.float32],
    point: OperatingPoint,
    spacing_zyx_mm: Sequence[float],
) -> None:
    """Set to 0, in place, the components that are not to be reported: too small or too unsure, or by a second look.

    Components are those of the foreground, all labels together: a small core inside a large rim is not a small lesion.
    The confidence of a component is the highest probability in it.
    """
    inside = labels > 0
    components, count = label_components(inside)
    numbers = components[inside] - 1  # lesions are few voxels: what follows does not grow with the volume
    if point.second_look:
        raw = temper(foreground, 1 / point.temperature)
        kept = lesion_chance(point.second_look, features(components, count, raw, spacing_zyx_mm)) >= 0.5
    else:
        least = voxels_of(point.minimum_mm3, math.prod(spacing_zyx_mm))
        kept = highest(foreground, components, count) >= point.minimum_confidence
        kept &= np.bincount(numbers, minlength=count) >= least
    labels[inside] *= kept[numbers]
