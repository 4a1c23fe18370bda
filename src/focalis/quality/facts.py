"""Measurements of each case while the check holds it: contents, sizes, positions, intensities; not yet judged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from focalis.dataset import Case, Dataset
from focalis.display import Shown
from focalis.lesions import LabelLesions, lesions_by_label
from focalis.planning.fingerprint import CaseFigures, take_figures
from focalis.quality.contrast import MOST_VOXELS, contrasts, ranks
from focalis.quality.label_values import may_be_an_image
from focalis.quality.mixup import looks_like_a_label_map
from focalis.volume import Grid, NamedSegment, Volume, padding_value, to_canonical

SAMPLED_VOXELS = 1_000_000
SIDES = (("inferior", "superior"), ("anterior", "posterior"), ("right", "left"))
"""The ends of the axes z, y, x of an image in canonical orientation."""
LEAST_PLANES = 3
"""An axis of fewer planes has no inside: touching its ends says nothing."""


@dataclass(frozen=True)
class Content:
    """What an array holds, as two hashes.

    Attributes:
        stored: of shape and values as they lie in the file, whatever the header and the data type.
        oriented: the same in canonical orientation: equal for one image that was saved along other axes.
    """

    stored: str
    oriented: str


@dataclass(frozen=True)
class ImageFacts:
    """One channel of a case.

    Attributes:
        grid: as the header has it.
        low, middle, high: 1st, 50th and 99th percentile of the values (of an even selection of about a million).
        padding: a value that most likely stands for no data; None without.
        like_a_label: whether it looks like a label map, see `focalis.quality.mixup`.
    """

    path: Path
    channel: str
    grid: Grid
    content: Content
    low: float
    middle: float
    high: float
    padding: float | None = None
    like_a_label: bool = False


@dataclass(frozen=True)
class LesionFacts:
    """A 26-connected component of one label.

    Attributes:
        voxel_xyz: one of its voxels, by index in the file, from 0, as viewers count.
    """

    voxels: int
    volume_mm3: float
    voxel_xyz: tuple[int, int, int]


@dataclass(frozen=True, repr=False)
class LabelFacts(Shown):
    """One label value in one case.

    Attributes:
        left_mm: how far its centroid lies to the patient's left of the image's centre; negative to the right.
        sides: the ends of the image that it touches: left, right, anterior, posterior, inferior, superior.
        lesions: its components, in order of their first voxel.
        name: what the file itself calls it, of a file that names segments; else empty.
        contrasts, ranks: per channel, how it stands out, see `focalis.quality.contrast`; none of large images.
    """

    value: int
    voxels: int
    volume_mm3: float
    left_mm: float
    sides: tuple[str, ...]
    lesions: tuple[LesionFacts, ...]
    name: str = ""
    contrasts: tuple[tuple[float, ...], ...] = ()
    ranks: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, repr=False)
class LabelMapFacts(Shown):
    """The label map of a case.

    Attributes:
        path: its file; of several masks, the first.
        shape_zyx: in canonical orientation.
        spacing_zyx_mm: in canonical orientation.
        foreground_share: share of the voxels that are foreground, 0 to 1.
        labels: the values that occur, ascending.
        like_an_image: whether it may be an image, see `focalis.quality.label_values`.
    """

    path: Path
    content: Content
    shape_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float]
    foreground_share: float
    labels: tuple[LabelFacts, ...]
    like_an_image: bool = False


@dataclass(frozen=True, repr=False)
class CaseFacts(Shown):
    """What was measured in one case; files with problems are left out.

    Attributes:
        label: its sound label map, or None.
        readers: the readers who contoured it, from `raters/`.
    """

    case: str
    patient: str
    images: tuple[ImageFacts, ...]
    label: LabelMapFacts | None
    readers: tuple[str, ...]

    @property
    def labels(self) -> tuple[LabelFacts, ...]:
        """What was measured of each of its labels; nothing without a sound label map."""
        return () if self.label is None else self.label.labels


@dataclass(frozen=True)
class _Measured:
    images: tuple[ImageFacts, ...]
    label: LabelMapFacts | None


_MEASURED = TypeAdapter(_Measured)


class Measurements:
    """Measures every sound array while the check holds it, so that no file is read twice.

    Attributes:
        figures: by case, what a plan is made from; of large images, and of cases that lack channels, none.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.figures: dict[str, CaseFigures] = {}
        self._images: dict[str, list[ImageFacts]] = {}
        self._labels: dict[str, LabelMapFacts] = {}
        self._held: dict[int, Volume] = {}
        self._held_of = ""

    def image(self, case: Case, channel: int, volume: Volume) -> None:
        """Measure an image."""
        canonical = to_canonical(volume)
        if case.name != self._held_of:
            self._held, self._held_of = {}, case.name
        if volume.array.size * len(case.images) <= MOST_VOXELS and not case.lacks:
            self._held[channel] = canonical
        low, middle, high = (float(value) for value in np.percentile(_sample(volume.array), (1, 50, 99)))
        self._images.setdefault(case.name, []).append(
            ImageFacts(
                case.images[case.channels.index(channel)],
                self._dataset.channels[channel],
                volume.grid,
                _content(volume, canonical),
                low,
                middle,
                high,
                padding_value(volume.array),
                looks_like_a_label_map(volume.array),
            )
        )

    def label(self, case: Case, volume: Volume, segments: Sequence[NamedSegment] = ()) -> None:
        """Measure a label map of whole numbers, 0 being background; what is to be ignored is not foreground."""
        canonical = to_canonical(volume)
        array = canonical.array
        names = {segment.value: segment.name for segment in segments}
        held = self._held_channels(case, canonical.grid)
        images = [image.array for image in held.values()]
        if held and all(not image.grid.differences(canonical.grid) for image in held.values()):
            self.figures[case.name] = take_figures(case, canonical, held, self._dataset.ignore)
        labels = tuple(
            _label_facts(
                found,
                canonical.grid,
                volume.grid,
                names.get(found.value, ""),
                tuple(contrasts(image, array == found.value) for image in images),
                tuple(ranks(image, array == found.value) for image in images),
            )
            for found in lesions_by_label(array, self._dataset.ignore)
        )
        self._held = {}
        self._labels[case.name] = LabelMapFacts(
            case.label_files[0],
            _content(volume, canonical),
            canonical.grid.shape_zyx,
            canonical.grid.spacing_zyx_mm,
            sum(label.voxels for label in labels) / array.size,
            labels,
            may_be_an_image(array),
        )

    def _held_channels(self, case: Case, grid: Grid) -> dict[int, Volume]:
        """All channels of a case in canonical orientation, if they are held and of the label's shape; else none."""
        held = self._held if case.name == self._held_of else {}
        fitting = {
            place: image for place, image in sorted(held.items()) if image.grid.shape_zyx == grid.shape_zyx
        }
        return fitting if len(fitting) == len(case.images) else {}

    def remember(self, case: Case) -> dict[str, Any]:
        """What was measured in a case, as JSON has it; see `recall`."""
        facts = _Measured(tuple(self._images.get(case.name, ())), self._labels.get(case.name))
        return dict(_MEASURED.dump_python(facts, mode="json"))

    def recall(self, case: Case, remembered: dict[str, Any]) -> None:
        """Take what was measured in a case before."""
        facts = _MEASURED.validate_python(remembered)
        self._images[case.name] = list(facts.images)
        if facts.label is not None:
            self._labels[case.name] = facts.label

    def facts(self, readers: Mapping[str, tuple[str, ...]]) -> tuple[CaseFacts, ...]:
        """What was measured, case by case."""
        return tuple(
            CaseFacts(
                case.name,
                case.patient,
                tuple(self._images.get(case.name, ())),
                self._labels.get(case.name),
                readers.get(case.name, ()),
            )
            for case in self._dataset.cases
        )


def _sample(array: NDArray[Any]) -> NDArray[np.float32]:
    step = max(1, round((array.size / SAMPLED_VOXELS) ** (1 / 3)))
    return array[::step, ::step, ::step].astype(np.float32)


def _content(volume: Volume, canonical: Volume) -> Content:
    stored = _hash(volume.array)
    already = np.may_share_memory(volume.array, canonical.array)
    return Content(stored, stored if already else _hash(canonical.array))


def _hash(array: NDArray[Any]) -> str:
    """Of shape and values as float32, plane by plane: the data type of a file is not its content."""
    total = hashlib.blake2b(str(array.shape).encode(), digest_size=16)
    for plane in array:
        total.update((plane.astype(np.float32) + np.float32(0)).tobytes())  # + 0 turns -0 into 0
    return total.hexdigest()


def _label_facts(
    found: LabelLesions,
    grid: Grid,
    file_grid: Grid,
    name: str,
    stands_out: tuple[tuple[float, ...], ...],
    ranked: tuple[tuple[float, ...], ...],
) -> LabelFacts:
    """Measure one label, which was found on `grid`, in canonical orientation, except its contrasts and ranks."""
    places = np.argwhere(found.components)
    of = found.components[tuple(places.T)]
    places += np.asarray([part.start for part in found.box_zyx])
    order = np.argsort(of, kind="stable")
    sizes = found.sizes()
    inside = order[np.cumsum(sizes) - sizes + sizes // 2]
    lesions = tuple(
        LesionFacts(int(size), float(size * grid.voxel_volume_mm3), _index_in(file_grid, grid, place))
        for size, place in zip(sizes, places[inside], strict=True)
    )
    away = (places.mean(axis=0) - (np.asarray(grid.shape_zyx) - 1) / 2)[::-1]
    return LabelFacts(
        found.value,
        len(places),
        len(places) * grid.voxel_volume_mm3,
        float(grid.direction_matrix[0] @ (away * grid.spacing_xyz_mm)),
        tuple(_sides(found.box_zyx, grid.shape_zyx)),
        lesions,
        name,
        stands_out,
        ranked,
    )


def _sides(box: tuple[slice, slice, slice], shape: tuple[int, ...]) -> Iterator[str]:
    for (first, last), part, size in zip(SIDES, box, shape, strict=True):
        if size >= LEAST_PLANES:
            if part.start == 0:
                yield first
            if part.stop == size:
                yield last


def _index_in(grid: Grid, other: Grid, place_zyx: NDArray[np.intp]) -> tuple[int, int, int]:
    """The index in `grid` of a voxel of `other`, which holds the same voxels along other axes."""
    x, y, z = (round(float(index)) for index in grid.to_indices(other.to_patient(place_zyx[::-1])))
    return x, y, z
