"""Training cases made ready once and kept on disk, found again by content and plan, opened when they are needed.

A prepared case lies in `folder`/NAME/KEY, where KEY is a hash of everything that preparation depends on. It is made in
a folder of its own and moved there in one step: other processes see the whole case or none.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from focalis import ranks
from focalis.dataset import IGNORED, Case, majority, staple
from focalis.errors import DataError
from focalis.files import (
    ABANDONED_AFTER_S,
    UNFINISHED,
    KnownFiles,
    age_s,
    sha256_of,
    whole_folder,
    write_text,
)
from focalis.lesions import label_components
from focalis.losses import distance_to_foreground, loss_spec, nearest_lesion
from focalis.planning import Description, Plan, describe, prepare_image, prepare_label
from focalis.volume import Grid, content_digest, content_profile, data_files, read_volume

PREPARATION_VERSION = 5
"""Part of the key: raise it whenever the same files and plan would be prepared into other arrays or figures."""

KNOWN = "known.sqlite"
"""In the folder of prepared cases: what their source files hold, see `focalis.files.KnownFiles`."""

VOXELS_PER_LESION = 500
ENTRIES_PER_CASE = 2
"""How many versions of a case stay on disk, the one in use included: the others are those used last. More stay as long
as another run may use them: a run marks what it opens."""
MARKED_EVERY_S, UNUSED_AFTER_S = 3600.0, 24 * 3600.0

SOURCES = {"labels": "labels", "majority": "majority", "staple": "staple", "mean": "each", "random": "each"}
"""What is prepared for each of `Plan.readers`: the label map, one map from all readers, or each reader's own."""

Read = TypeVar("Read")


@dataclass(frozen=True)
class TrainingCase:
    """A case as training reads it, on the plan's grid; what comes from disk is memory-mapped.

    Attributes:
        image: float32 (channel, z, y, x), normalised.
        label: uint8 (z, y, x), class indices, `focalis.dataset.IGNORED` where nobody has judged. By `Plan.readers` it
            is the label map, or what the readers agree on; for `mean` and `random`, the majority.
        distance_mm: float16 (z, y, x), distance to the foreground, of which ignored voxels are no part; of several
            readers, to the union of their regions: a voxel that one of them drew is no background.
        lesions: per lesion (26-connected, of the same foreground), int32 (n, 3) voxel indices z, y, x; of a large
            lesion every n-th voxel, so that fewer than 2 x `VOXELS_PER_LESION` remain.
        undrawn: the class indices that nobody looked for in it: what lies in the background may be any of them.
        lacks: the channels that it lacks; they are 0 in the image.
        readers: uint8 (reader, z, y, x), each reader's class indices, for `mean` and `random`; None otherwise.
        nearest: unsigned (z, y, x), the number of the lesion that each voxel is nearest to, from 1 on, 0 without a
            lesion; None unless the plan's loss counts lesions.
    """

    name: str
    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    distance_mm: NDArray[np.float16]
    lesions: tuple[NDArray[np.int32], ...]
    readers: NDArray[np.uint8] | None = None
    nearest: NDArray[np.unsignedinteger] | None = None
    undrawn: tuple[int, ...] = ()
    lacks: tuple[int, ...] = ()

    def judged(self, predicted: NDArray[np.integer]) -> NDArray[np.integer]:
        """Class indices (z, y, x) as far as the case can tell: what nobody drew or judged in it is background."""
        unknown = (self.label == IGNORED) | np.isin(predicted, self.undrawn)
        return np.where(unknown, 0, predicted)

    def drawn(self, outputs: int) -> list[int]:
        """The class indices of the labels that were drawn in it."""
        return [index for index in range(1, outputs) if index not in self.undrawn]


class PreparedCases(Sequence[TrainingCase]):
    """Prepared cases on disk, each opened anew whenever it is asked for.

    A mapped array holds a file handle as long as it lives, and a process may have no more than a thousand: so the
    sequence keeps folders, not arrays, and a thousand cases take no more memory than one.
    """

    def __init__(self, homes: Sequence[Path]) -> None:
        self._homes = tuple(homes)

    def __len__(self) -> int:
        return len(self._homes)

    @overload
    def __getitem__(self, index: int) -> TrainingCase: ...
    @overload
    def __getitem__(self, index: slice) -> PreparedCases: ...
    def __getitem__(self, index: int | slice) -> TrainingCase | PreparedCases:
        if isinstance(index, slice):
            return PreparedCases(self._homes[index])
        return self._read(_open, self._homes[index])

    def descriptions(self) -> list[Description]:
        """What the images are like, case by case, for `focalis.planning.learn_scope`."""
        return [self._read(_description, home) for home in self._homes]

    def digests(self) -> dict[str, list[str]]:
        """Case name to the digests and profiles of its channels, see `focalis.volume`; constant ones have none."""
        return {home.parent.name: self._read(_digests, home) for home in self._homes}

    def _read(self, read: Callable[[Path], Read], home: Path) -> Read:
        try:
            return read(home)
        except _DAMAGED as error:
            raise DataError.at(
                home, "the prepared case is gone or damaged", "start again, it will be made anew"
            ) from error


def prepare_cases(cases: Sequence[Case], plan: Plan, folder: Path) -> PreparedCases:
    """Prepare cases into `folder`, one at a time on each rank, or take those that lie there already.

    Of every case the entry in use stays and the one used before it; older ones that nobody has used for a day are
    removed. So are unfinished folders
    that a killed process left a day ago or earlier.

    Raises:
        DataError: a case has no label, a file cannot be read, or it changed while it was read.
    """
    for abandoned in folder.glob(f"{UNFINISHED}*"):
        if age_s(abandoned) > ABANDONED_AFTER_S:
            shutil.rmtree(abandoned, ignore_errors=True)
    known = KnownFiles(folder / KNOWN)
    homes = ranks.shared_out(lambda case: _prepared(case, plan, folder, known), cases)
    known.save()
    return PreparedCases(homes)


def preparation_key(case: Case, plan: Plan, sha256_of: Callable[[Path], str] = sha256_of) -> str:
    """A hash of all that a prepared case depends on: its files' contents, parts of the plan, `PREPARATION_VERSION`."""
    settings: dict[str, object] = {
        "version": PREPARATION_VERSION,
        "channels": plan.channels,
        "label_values": plan.label_values,
        "ignore": plan.ignore,
        "spacing_zyx_mm": plan.spacing_zyx_mm,
        "normalisation": [how.model_dump() for how in plan.normalisation],
    }
    sources = (*case.images, *case.label_files)
    if (source := SOURCES[plan.readers]) != "labels":
        settings["readers"] = source, len(case.readers)
        sources = (*sources, *case.readers.values())
    if loss_spec(plan.loss.name).lesions:
        settings["nearest"] = True
    if undrawn := _undrawn(case, plan):
        settings["undrawn"] = undrawn
    if case.lacks:
        settings["lacks"] = sorted(case.lacks)
    total = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    contents = {
        path: _content(path, sha256_of) for path in dict.fromkeys(sources)
    }  # a 4D file stands for several channels
    total.update(" ".join(contents[path] for path in sources).encode())
    return total.hexdigest()[:32]


def _undrawn(case: Case, plan: Plan) -> list[int]:
    """The class indices of the plan's labels that nobody drew in a case."""
    drawn = case.drawn_of(plan.labels)
    return [index for index, value in enumerate(plan.label_values, start=1) if value not in drawn]


def _content(path: Path, sha256_of: Callable[[Path], str]) -> str:
    """SHA-256 of an image file, or of header and data file where these are two; names do not count."""
    total = hashlib.sha256()
    for file in data_files(path):
        with DataError.of_system(file, "check the path"):
            total.update(bytes.fromhex(sha256_of(file)))
    return total.hexdigest()


def _prepared(case: Case, plan: Plan, folder: Path, known: KnownFiles) -> Path:
    """The folder of a prepared case, which is made if it is not there."""
    if case.label is None:
        raise DataError.at(case.name, "has no label file", "training needs one per image")
    key = preparation_key(case, plan, known.sha256_of)
    home = folder / case.name / key
    if _is_whole(home):
        os.utime(home)
    else:
        _make(case, plan, home, folder)
        if preparation_key(case, plan, known.sha256_of) != key:
            shutil.rmtree(home, ignore_errors=True)
            raise DataError.at(case.name, "its files changed while they were read", "start again")
    _forget_older(home)
    return home


def _make(case: Case, plan: Plan, home: Path, folder: Path) -> None:
    """Prepare a case and move it to its place; if another process was faster, its result counts."""
    with whole_folder(home, keep=_is_whole, within=folder) as unfinished:
        volumes = case.read_images()
        prepared = prepare_image(volumes, plan)
        write_text(unfinished / "description.json", json.dumps(describe(volumes, plan.normalisation)))
        marks = [mark(volume.array) for volume in volumes for mark in (content_digest, content_profile)]
        write_text(unfinished / "content.json", json.dumps([mark for mark in marks if mark]))
        del volumes
        np.save(unfinished / "image.npy", prepared.array)
        if case.lacks:
            np.save(unfinished / "lacks.npy", sorted(case.lacks))
        label, drawn = _targets(case, plan, prepared.input_grid)
        np.save(unfinished / "label.npy", label)
        if undrawn := _undrawn(case, plan):
            np.save(unfinished / "undrawn.npy", undrawn)
        if SOURCES[plan.readers] == "each":
            np.save(unfinished / "readers.npy", drawn)
        foreground = ((drawn > 0) & (drawn != IGNORED)).any(axis=0).astype(np.uint8)
        components, count = label_components(foreground > 0)
        np.save(unfinished / "lesions.npy", _lesion_voxels(components, count))
        if loss_spec(plan.loss.name).lesions:
            np.save(unfinished / "nearest.npy", nearest_lesion(components, count, plan.spacing_zyx_mm))
        del components
        distance = distance_to_foreground(foreground, plan.spacing_zyx_mm)
        np.save(unfinished / "distance.npy", distance.astype(np.float16))


def _targets(case: Case, plan: Plan, grid: Grid) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """What the case trains on, class indices (z, y, x), and what was drawn, (reader, z, y, x).

    A case without readers has its label map for the only one.
    """
    paths = {} if plan.readers == "labels" else case.readers
    drawn = []
    for reader, path in paths.items():
        volume = read_volume(path)
        if different := grid.differences(volume.grid):
            raise DataError.at(
                path,
                f"the mask of reader {reader} is not on the grid of the image: {', '.join(different)}",
                "resample it or export it again",
            )
        drawn.append(prepare_label(volume, plan))
    drawn = drawn or [prepare_label(case.read_label(), plan)]
    return (staple(drawn) if plan.readers == "staple" else majority(drawn)), np.stack(drawn)


_DAMAGED = (OSError, ValueError, EOFError)
"""What NumPy raises for a file that is missing, cut short or no array."""


def _open(home: Path) -> TrainingCase:
    if age_s(home) > MARKED_EVERY_S:
        with suppress(OSError):  # somebody else's folder
            os.utime(home)
    rows = np.load(home / "lesions.npy")
    starts = np.flatnonzero(np.diff(rows[:, 0])) + 1
    some = (_optional(home / "undrawn.npy"), _optional(home / "lacks.npy"))
    return TrainingCase(
        home.parent.name,
        np.load(home / "image.npy", mmap_mode="r"),
        np.load(home / "label.npy", mmap_mode="r"),
        np.load(home / "distance.npy", mmap_mode="r"),
        tuple(np.split(rows[:, 1:], starts)) if len(rows) else (),
        _optional(home / "readers.npy"),
        _optional(home / "nearest.npy"),
        *(() if found is None else tuple(found.tolist()) for found in some),
    )


def _optional(path: Path) -> NDArray[Any] | None:
    return np.load(path, mmap_mode="r") if path.exists() else None


def _description(home: Path) -> Description:
    description: Description = json.loads((home / "description.json").read_text(encoding="utf-8"))
    return description


def _digests(home: Path) -> list[str]:
    digests: list[str] = json.loads((home / "content.json").read_text(encoding="utf-8"))
    return digests


def _is_whole(home: Path) -> bool:
    try:
        _open(home)
        _description(home)
        _digests(home)
    except _DAMAGED:
        return False
    return True


def _forget_older(home: Path) -> None:
    """Remove a case's other entries but for those used last, and those that another run may be using."""
    others = sorted((path for path in home.parent.iterdir() if path != home), key=age_s)
    for path in others[ENTRIES_PER_CASE - 1 :]:
        if age_s(path) > UNUSED_AFTER_S:
            shutil.rmtree(path, ignore_errors=True)


def _lesion_voxels(components: NDArray[np.int32], count: int) -> NDArray[np.int32]:
    """Rows (lesion, z, y, x), by lesion; of a large lesion every n-th voxel."""
    voxels = np.argwhere(components > 0)
    of = components[tuple(voxels.T)]
    order = np.argsort(of, kind="stable")
    sizes = np.bincount(of, minlength=count + 1)[1:]
    first = np.cumsum(sizes) - sizes
    step = np.maximum(1, sizes // VOXELS_PER_LESION)
    place = np.arange(len(order)) - np.repeat(first, sizes)
    kept = order[place % np.repeat(step, sizes) == 0]
    return np.column_stack([of[kept], voxels[kept]]).astype(np.int32)
