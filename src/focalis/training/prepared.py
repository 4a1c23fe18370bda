"""Training cases made ready once and kept, found again by content and plan, opened when they are needed.

A prepared case is named by a hash of everything that preparation depends on, and kept in one step: other processes see
the whole case or none.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from focalis import ranks
from focalis.dataset import IGNORED, Case, majority, staple
from focalis.errors import DataError
from focalis.files import ABANDONED_AFTER_S, UNFINISHED, KnownFiles, age_s, sha256_of
from focalis.lesions import label_components
from focalis.losses import distance_to_foreground, loss_spec, nearest_lesion
from focalis.planning import Description, Plan, describe, prepare_image, prepare_label
from focalis.training.prepared_folder import DAMAGED, Content, Entry, PreparedFolder, gone
from focalis.training.prepared_objects import PreparedObjects
from focalis.volume import Grid, content_digest, content_profile, data_files, read_volume

PREPARATION_VERSION = 6
"""Part of the key: raise it whenever the same files and plan would be prepared into other arrays or figures."""

KNOWN = "known.sqlite"
"""In the folder of prepared cases: what their source files hold, see `focalis.files.KnownFiles`."""

VOXELS_PER_LESION = 500
MARKED_EVERY_S = 3600.0
READ_AT_A_TIME = 16

SOURCES = {"labels": "labels", "majority": "majority", "staple": "staple", "mean": "each", "random": "each"}
"""What is prepared for each of `Plan.readers`: the label map, one map from all readers, or each reader's own."""


@dataclass(frozen=True)
class TrainingCase:
    """A case as training reads it, on the plan's grid; what comes from disk is memory-mapped.

    Attributes:
        image: float32 (channel, z, y, x), normalised.
        label: uint8 (z, y, x), class indices, `focalis.dataset.IGNORED` where nobody has judged. By `Plan.readers` it
            is the label map, or what the readers agree on; for `mean` and `random`, the majority.
        distance_mm: float16 (z, y, x), distance to the foreground, of which ignored voxels are no part; of several
            readers, to the union of their regions: a voxel that one of them drew is not background.
        lesions: per lesion (26-connected, of one label, as far as a reader drew it), int32 (n, 3) voxel indices z, y,
            x; of a large lesion every n-th voxel, so that fewer than 2 x `VOXELS_PER_LESION` remain.
        lesion_labels: the class index of each lesion; empty where the plan has one label.
        undrawn: the class indices that nobody looked for in it: what lies in the background may be any of them.
        lacks: the channels that it lacks; they are 0 in the image.
        readers: uint8 (reader, z, y, x), each reader's class indices, for `mean` and `random`; None otherwise.
        nearest: unsigned (z, y, x), the number of the lesion that each voxel is nearest to, from 1 on, 0 without a
            lesion; None unless the plan's loss counts lesions.
        spacing_zyx_mm: of the image before it came onto the plan's grid.
    """

    name: str
    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    distance_mm: NDArray[np.float16]
    lesions: tuple[NDArray[np.int32], ...]
    lesion_labels: tuple[int, ...] = ()
    readers: NDArray[np.uint8] | None = None
    nearest: NDArray[np.unsignedinteger] | None = None
    undrawn: tuple[int, ...] = ()
    lacks: tuple[int, ...] = ()
    spacing_zyx_mm: tuple[float, ...] | None = None

    def read(self) -> TrainingCase:
        """The case with image and label as arrays of NumPy, for what needs all of them."""
        return replace(self, image=np.asarray(self.image), label=np.asarray(self.label))

    def judged(self, predicted: NDArray[np.integer]) -> NDArray[np.integer]:
        """Class indices (z, y, x) as far as the case can tell: what nobody drew or judged in it is background."""
        unknown = (np.asarray(self.label) == IGNORED) | np.isin(predicted, self.undrawn)
        return np.where(unknown, 0, predicted)

    def drawn(self, outputs: int) -> list[int]:
        """The class indices of the labels that were drawn in it."""
        return [index for index in range(1, outputs) if index not in self.undrawn]


class _InUse:
    """Cases that a run uses; marked all together, whichever of them is opened, so that no other run removes them."""

    def __init__(self, store: PreparedFolder | PreparedObjects) -> None:
        self.store, self.entries = store, list[Entry]()
        self._marked = time.monotonic()

    def mark(self) -> None:
        """Mark them if that is due."""
        if time.monotonic() - self._marked > MARKED_EVERY_S:
            self._marked = time.monotonic()
            self.store.mark(self.entries)


class PreparedCases(Sequence[TrainingCase]):
    """Prepared cases, each opened anew whenever it is asked for.

    A mapped array holds a file handle as long as it lives, and a process may have no more than a thousand: so the
    sequence keeps names, not arrays, and a thousand cases take no more memory than one.
    """

    def __init__(self, entries: Sequence[Entry], in_use: _InUse) -> None:
        self._entries, self._in_use = tuple(entries), in_use

    def __len__(self) -> int:
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> TrainingCase: ...
    @overload
    def __getitem__(self, index: slice) -> PreparedCases: ...
    def __getitem__(self, index: int | slice) -> TrainingCase | PreparedCases:
        if isinstance(index, slice):
            return PreparedCases(self._entries[index], self._in_use)
        self._in_use.mark()
        name, _ = entry = self._entries[index]
        return _training_case(name, *self._read(entry))

    @cached_property
    def holding(self) -> list[bool]:
        """Which of them hold a lesion. Several are opened at a time: of an object store each takes its time."""
        with ThreadPoolExecutor(READ_AT_A_TIME) as pool:
            return list(pool.map(lambda number: bool(self[number].lesions), range(len(self))))

    def descriptions(self) -> list[Description]:
        """What the images are like, case by case, for `focalis.planning.learn_scope`."""
        return [facts["description"] for facts in self._facts()]

    def digests(self) -> dict[str, list[str]]:
        """Case name to the digests and profiles of its channels, see `focalis.volume`; constant ones have none."""
        names = (name for name, _ in self._entries)
        return {name: facts["content"] for name, facts in zip(names, self._facts(), strict=True)}

    def _facts(self) -> list[dict[str, Any]]:
        with ThreadPoolExecutor(READ_AT_A_TIME) as pool:  # of an object store each takes its time
            return list(pool.map(lambda entry: self._read(entry)[1], self._entries))

    def _read(self, entry: Entry) -> Content:
        store = self._in_use.store
        try:
            return store.read(entry)
        except DAMAGED as error:
            raise gone(store.place(entry)) from error


def with_lesion(cases: Sequence[TrainingCase]) -> list[bool]:
    """Which of the cases hold a lesion."""
    return cases.holding if isinstance(cases, PreparedCases) else [bool(case.lesions) for case in cases]


def prepare_cases(
    cases: Sequence[Case], plan: Plan, folder: Path, address: str | None = None
) -> PreparedCases:
    """Prepare cases, one at a time on each rank, or take those that lie there already.

    Of every case in a folder the entry in use stays and the one used before it; older ones that nobody has used for a
    day are removed. So is what a killed process left a day ago or earlier.

    Args:
        folder: where they lie, and what is known of their files.
        address: the object store in which they lie instead, see `PreparedObjects`.

    Raises:
        DataError: a case has no label, a file cannot be read, or it changed while it was read; the store cannot be
            reached.
    """
    for abandoned in folder.glob(f"{UNFINISHED}*"):  # of earlier versions
        if age_s(abandoned) > ABANDONED_AFTER_S:
            shutil.rmtree(abandoned, ignore_errors=True)
    known = KnownFiles(folder / KNOWN)
    in_use = _InUse(PreparedFolder(folder) if address is None else PreparedObjects(address))
    # Trainings that begin together each begin at another case, and find what the others have made.
    names = " ".join(case.name for case in cases)
    begin = int(hashlib.sha256(names.encode()).hexdigest(), 16) % max(1, len(cases))
    turned = [*cases[begin:], *cases[:begin]]
    made = ranks.shared_out(lambda case: _prepared(case, plan, in_use, known), turned)
    entries = [*made[len(cases) - begin :], *made[: len(cases) - begin]]
    known.save()
    in_use.store.tidy(in_use.entries)
    in_use.entries = entries
    return PreparedCases(entries, in_use)


def missing_cases(cases: Sequence[Case], plan: Plan, folder: Path, address: str | None = None) -> list[Case]:
    """The cases that `prepare_cases` would have to make."""
    store = PreparedFolder(folder) if address is None else PreparedObjects(address)
    known = KnownFiles(folder / KNOWN)
    entries = [(case.name, preparation_key(case, plan, known.sha256_of)) for case in cases]
    missing = set(store.missing(entries))
    return [case for case, entry in zip(cases, entries, strict=True) if entry in missing]


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
    if len(plan.label_values) > 1:
        settings["lesions"] = "of each label"
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


def _prepared(case: Case, plan: Plan, in_use: _InUse, known: KnownFiles) -> Entry:
    """A prepared case, which is made if it is not there."""
    if case.label is None:
        raise DataError.at(case.name, "has no label file", "training needs one per image")
    store = in_use.store
    entry = case.name, preparation_key(case, plan, known.sha256_of)
    if store.has(entry):
        store.mark([entry])
    else:
        arrays, facts = _made(case, plan)
        if preparation_key(case, plan, known.sha256_of) != entry[1]:
            raise DataError.at(case.name, "its files changed while they were read", "start again")
        if not store.has(entry):  # another process was faster
            store.add(entry, arrays, facts)
    in_use.entries.append(entry)
    in_use.mark()
    return entry


def _made(case: Case, plan: Plan) -> Content:
    """What training needs of a case."""
    volumes = case.read_images()
    prepared = prepare_image(volumes, plan)
    marks = [mark(volume.array) for volume in volumes for mark in (content_digest, content_profile)]
    facts = {
        "description": describe(volumes, plan.normalisation),
        "content": [mark for mark in marks if mark],
        "lacks": sorted(case.lacks),
        "undrawn": _undrawn(case, plan),
    }
    del volumes
    label, drawn = _targets(case, plan, prepared.input_grid)
    arrays: dict[str, NDArray[Any]] = {"image": prepared.array, "label": label}
    if SOURCES[plan.readers] == "each":
        arrays["readers"] = drawn
    foreground = ((drawn > 0) & (drawn != IGNORED)).any(axis=0).astype(np.uint8)
    components, count = label_components(foreground > 0)
    if len(plan.label_values) == 1:
        arrays["lesions"] = _lesion_voxels(components, count)
    else:
        arrays["lesions"], facts["lesion_labels"] = _lesions_of_each_label(
            drawn, [index for index in range(1, plan.outputs) if index not in facts["undrawn"]]
        )
    if loss_spec(plan.loss.name).lesions:
        arrays["nearest"] = nearest_lesion(components, count, plan.spacing_zyx_mm)
    del components
    arrays["distance"] = distance_to_foreground(foreground, plan.spacing_zyx_mm).astype(np.float16)
    return arrays, facts


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


def _training_case(name: str, arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> TrainingCase:
    rows = arrays["lesions"]
    starts = np.flatnonzero(np.diff(rows[:, 0])) + 1
    return TrainingCase(
        name,
        arrays["image"],
        arrays["label"],
        arrays["distance"],
        tuple(np.split(np.array(rows[:, 1:]), starts)) if len(rows) else (),
        tuple(facts.get("lesion_labels", ())),
        arrays.get("readers"),
        arrays.get("nearest"),
        tuple(facts["undrawn"]),
        tuple(facts["lacks"]),
        tuple(map(math.exp, facts["description"]["spacing"])),
    )


def _lesions_of_each_label(
    drawn: NDArray[np.uint8], indices: Sequence[int]
) -> tuple[NDArray[np.int32], list[int]]:
    """Rows as those of `_lesion_voxels` for one label after the other, and the class index of each lesion.

    A tumour inside an organ, or touching it, is a lesion of its own.

    Args:
        drawn: class indices (reader, z, y, x).
        indices: those of the labels.
    """
    rows, labels = [np.zeros((0, 4), np.int32)], list[int]()
    for index in indices:
        components, count = label_components((drawn == index).any(axis=0))
        rows.append(_lesion_voxels(components, count) + np.asarray([len(labels), 0, 0, 0], np.int32))
        labels += [index] * count
    return np.concatenate(rows), labels


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
