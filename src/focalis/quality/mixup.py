"""Images and label maps that were mixed up."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from focalis.display import listed
from focalis.quality.label_values import unrest

MixUp = Literal["swapped", "copy", "image"]
"""Image and label stand in each other's place; the image is a copy of the label; the label is an image."""

MOST_VALUES = 8
"""What holds more different values than these is not a label map, where an image should be."""
ONE_BY_ONE = 2
"""Up to so many cases of a kind get a line each; more share one line."""
_SAMPLED = 100_000
_CALM = 0.3
_SAID: Mapping[MixUp, tuple[str, str]] = {
    "swapped": ("image and label stand in each other's place", "swap them"),
    "copy": ("the image holds what the label holds", "put the image in its place"),
    "image": (
        "the label map holds an image or a map of probabilities: many values, which change from voxel to voxel",
        "put the label map in its place",
    ),
}


@dataclass(frozen=True)
class Mixed:
    """A case whose image and label were mixed up.

    Attributes:
        path: the file that it is about.
        empty: whether its label holds no foreground: it is believed only if another case is concerned that does.
        otherwise: what is to be said of the case if it is not believed.
    """

    case: str
    kind: MixUp
    path: Path
    empty: bool = False
    otherwise: tuple[str, ...] = ()


def looks_like_a_label_map(array: NDArray[Any]) -> bool:
    """Whether an array (z, y, x) holds a few different values, which seldom change from voxel to voxel."""
    values = array.reshape(-1)
    for part in (values[:: max(1, values.size // _SAMPLED)], values):  # a part rules out most images
        if len(np.unique(part)) > MOST_VALUES:
            return False
    return unrest(array) < _CALM


def digest(array: NDArray[Any]) -> bytes:
    """A hash of shape and regions: of each voxel, which of the few values it has, numbered as they first occur."""
    total = hashlib.blake2b(str(array.shape).encode(), digest_size=16)
    present, first = np.unique(array, return_index=True)
    numbers = np.argsort(np.argsort(first)).astype(np.uint8)
    for plane in array:
        total.update(numbers[np.searchsorted(present, plane)].tobytes())
    return total.digest()


def is_copied(label: NDArray[Any], images: Collection[bytes]) -> bool:
    """Whether a label map has the regions of an image whose hash is among `images`, whatever its values."""
    return bool(images) and looks_like_a_label_map(label) and digest(label) in images


def told(found: Sequence[Mixed], root: Path, cases: int) -> Iterator[tuple[str, str]]:
    """The mix-ups of a data set as (case, line); one line without a case for many of a kind."""
    for kind, (what, advice) in _SAID.items():
        alike = [each for each in found if each.kind == kind]
        if all(each.empty for each in alike):
            yield from ((each.case, message) for each in alike for message in each.otherwise)
            continue
        if len(alike) <= ONE_BY_ONE:
            yield from ((each.case, f"{each.path}: {what}; {advice}") for each in alike)
            continue
        names = listed([each.case for each in alike])
        yield "", f"{root}: {what}, in {len(alike)} of {cases} cases ({names}); {advice}"
