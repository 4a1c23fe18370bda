"""Look for everything in a data set that would spoil a training, before the training."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from focalis.dataset import Case, Dataset
from focalis.display import CaseProgress
from focalis.errors import DataError, refusal
from focalis.files import KnownFiles
from focalis.quality.facts import Measurements
from focalis.quality.label_values import judge_label_values, looks_like_an_image, too_many_labels
from focalis.quality.mixup import Mixed, MixUp, digest, is_copied, looks_like_a_label_map, told
from focalis.quality.reader_masks import ReaderValues
from focalis.quality.segment_names import judge_segments
from focalis.volume import (
    Grid,
    GridWarning,
    Volume,
    read_channels,
    read_entries,
    read_segments,
    read_volume,
    why_unusable,
)


@dataclass(frozen=True)
class Problem:
    """Something that must be corrected before training.

    Attributes:
        case: the case's name; empty if the whole data set is meant.
        message: one line, "path: what is wrong; what to do".
    """

    case: str
    message: str

    def __str__(self) -> str:
        return f"{self.case}: {self.message}" if self.case else self.message


@dataclass(frozen=True)
class CheckResult:
    """What a check found.

    Attributes:
        problems: in the order of the cases; empty if the data set can be used.
        label_values: the label values that occur, ascending, without the background 0 and without any
            value that is reported as a problem.
        holds: case name to those of them that its label map holds, or a reader drew.
    """

    problems: tuple[Problem, ...]
    label_values: tuple[int, ...]
    holds: Mapping[str, frozenset[int]] = field(default_factory=dict, compare=False)


FACTS_VERSION = 2
"""Part of the key under which a case is known: raise it whenever the same files would be measured otherwise."""


def check_dataset(
    dataset: Dataset,
    look: Measurements | None = None,
    progress: CaseProgress | None = None,
    known: KnownFiles | None = None,
) -> CheckResult:
    """Read every file of a data set once, one array at a time, and list all problems.

    Per case: no label, no image, an unreadable file, a channel that shows nothing of what the first one shows, a
    label on another grid, NaN or infinite values, a constant image, an image in place of the label, label values that
    are negative, fractional, too great or not among the data set's labels, a segment whose name is another label's; of
    a data set `with_readers`, a reader's mask with any of these faults. For the whole: no foreground anywhere, or too
    many labels.

    Args:
        dataset: the data set.
        look: is shown every sound array on the way.
        known: sound cases that it knows, with what was measured in them, are not read again; it learns the others.
    """
    problems: list[Problem] = []
    values: set[int] = set()
    holds: dict[str, frozenset[int]] = {}
    drawn = ReaderValues()
    mixed: list[Mixed] = []
    for number, case in enumerate(dataset.cases):
        if progress is not None:
            progress(number, len(dataset.cases), case.name)
        try:
            found, messages = _known_case(case, dataset, look, drawn, mixed, known)
        except Exception as error:  # whatever a library raises concerns this case alone
            files = (*case.images, *case.label_files)
            found, messages = set(), [refusal(error, files[0] if files else case.name)]
        values |= found
        holds[case.name] = frozenset(found)
        problems += [Problem(case.name, message) for message in messages]
    if progress is not None:
        progress(len(dataset.cases), len(dataset.cases), "")
    for name, _, _, drawn_values in drawn.found:
        holds[name] |= drawn_values
    problems += [Problem(*each) for each in told(mixed, dataset.root, len(dataset.cases))]
    if values:
        problems += [Problem(case, message) for case, message in drawn.problems(values | set(dataset.labels))]
    if message := too_many_labels(dataset, values):
        problems.append(Problem("", message))
    if not values and not problems:
        message = f"{dataset.root / 'labels'}: no label holds any foreground; add cases with contours"
        problems.append(Problem("", message))
    return CheckResult(tuple(problems), tuple(sorted(values)), holds)


def _known_case(
    case: Case,
    dataset: Dataset,
    look: Measurements | None,
    drawn: ReaderValues,
    mixed: list[Mixed],
    known: KnownFiles | None,
) -> tuple[set[int], list[str]]:
    """`_check_case`, except a case that was sound when `known` saw it, and whose files are the same."""
    if known is None or look is None:
        return _check_case(case, dataset, look, drawn, mixed)
    read: list[tuple[set[int], list[str]]] = []

    def check() -> dict[str, Any] | None:
        mixed_up = len(mixed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            read.append(_check_case(case, dataset, look, drawn, mixed))
        for each in caught:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
        said = [each.message for each in caught if isinstance(each.message, GridWarning)]
        values, messages = read[0]
        if messages or len(mixed) > mixed_up or len(said) < len(caught):
            return None
        return {
            "values": sorted(values),
            "readers": {name: sorted(held) for each, name, _, held in drawn.found if each == case.name},
            "said": [[str(each.path), each.fault, each.advice] for each in said],
            "measured": look.remember(case),
        }

    names = dict(sorted(dataset.labels.items()))
    key = repr(
        (
            "check",
            FACTS_VERSION,
            (case.name, case.images, case.label, sorted(case.readers.items())),
            (case.drawn and sorted(case.drawn), sorted(case.lacks), dataset.channels, names, dataset.ignore),
        )
    )
    before = known.value(key, case.files(), check)
    if read:
        return read[0]
    look.recall(case, before["measured"])
    drawn.found += [
        (case.name, name, case.readers[name], set(held)) for name, held in before["readers"].items()
    ]
    for path, fault, advice in before["said"]:
        warnings.warn(GridWarning(Path(path), fault, advice), stacklevel=2)
    return set(before["values"]), []


def _check_case(
    case: Case, dataset: Dataset, look: Measurements | None, drawn: ReaderValues, mixed: list[Mixed]
) -> tuple[set[int], list[str]]:
    """The label values of a case and what is wrong with it; only one array is held at a time.

    What was mixed up is added to `mixed`, and nothing else said of that case.
    """
    messages: list[str] = []
    maps: dict[Path, bytes] = {}
    grids: dict[Path, Grid] = {}
    values: set[int] = set()
    for path in dict.fromkeys(case.images):
        messages += _check_images(case, path, grids, look, maps)
    messages += _channel_grid_problems(case, grids)
    if not case.images:
        messages.append(f"{_listed_files(case.label_files)}: has no image; add it or remove the label")
    if case.label is None:
        messages.append(f"{_listed_files(case.images)}: has no label; add it or remove the image")
    else:
        values, wrong, mix_up = _check_label(case, dataset, grids, look, maps)
        messages += wrong
        if mix_up is not None:
            path = case.images[0] if mix_up == "copy" else case.label_files[0]
            empty = mix_up == "copy" and not values
            mixed.append(Mixed(case.name, mix_up, path, empty, tuple(messages)))
            return set(), []
    for reader, path in case.readers.items():
        messages += _check_reader(case, reader, path, dataset, grids, drawn)
    return values, messages


def _check_reader(
    case: Case, reader: str, path: Path, dataset: Dataset, grids: Mapping[Path, Grid], drawn: ReaderValues
) -> list[str]:
    """What is wrong with a reader's mask; its usable values are added to `drawn`."""
    try:
        volume = read_volume(path)
    except DataError as error:
        return [str(error)]
    values, messages = judge_label_values(path, volume.array, dataset)
    messages += _undrawn(case, path, values, dataset)
    messages += judge_segments(path, read_segments(path), values | {dataset.ignore or 0}, dataset)
    drawn.found.append((case.name, reader, path, values))
    what = f"the mask of reader {reader} "
    return [*messages, *_label_grid_problems(path, volume.grid, grids, what)]


def _check_images(
    case: Case, path: Path, grids: dict[Path, Grid], look: Measurements | None, maps: dict[Path, bytes]
) -> list[str]:
    """What is wrong with an image file, which holds one channel or, in 4D, several.

    Its grid is added to `grids`, and a hash to `maps` if it looks like a label map.
    """
    messages: list[str] = []
    channels = [place for place, image in zip(case.channels, case.images, strict=True) if image == path]
    for channel, volume in zip(channels, _read(path, len(channels), messages), strict=False):
        grids[path] = volume.grid
        if looks_like_a_label_map(volume.array):
            maps[path] = digest(volume.array)
        wrong = list(_image_problems(path, volume.array))
        messages += wrong
        if look is not None and not wrong:
            look.image(case, channel, volume)
    return messages


def _check_label(
    case: Case,
    dataset: Dataset,
    grids: Mapping[Path, Grid],
    look: Measurements | None,
    maps: Mapping[Path, bytes],
) -> tuple[set[int], list[str], MixUp | None]:
    """The usable label values of a label map, what is wrong with it, and whether it was mixed up with an image."""
    path = case.label_files[0]
    try:
        volume = case.read_label()
    except DataError as error:
        return set(), [str(error)], None
    if looks_like_an_image(volume.array, {0, dataset.ignore, *dataset.labels}):
        return set(), [], "swapped" if case.images and case.images[0] in maps else "image"
    values, messages = judge_label_values(path, volume.array, dataset)
    if set(maps) == set(case.images) and is_copied(volume.array, maps.values()):
        return values, messages, "copy"
    messages += _undrawn(case, path, values, dataset)
    segments = (
        read_segments(path) if isinstance(case.label, Path) else ()
    )  # masks are numbered by their order
    messages += judge_segments(path, segments, values | {dataset.ignore or 0}, dataset)
    if look is not None and not messages:
        look.label(case, volume, segments)
    return values, [*messages, *_label_grid_problems(path, volume.grid, grids)], None


def _undrawn(case: Case, path: Path, values: set[int], dataset: Dataset) -> list[str]:
    """The complaint about labels that a map holds though the data set says that nobody drew them there."""
    surplus = sorted(values - (values if case.drawn is None else case.drawn))
    listed = ", ".join(f"{value} ({dataset.labels.get(value, 'unnamed')})" for value in surplus[:3])
    return (
        [f'{path}: holds label {listed}, which "drawn" says nobody drew in this case; correct one of them']
        if surplus
        else []
    )


def _read(path: Path, entries: int, messages: list[str]) -> tuple[Volume, ...]:
    try:
        return read_entries(path, entries)
    except DataError as error:
        messages.append(str(error))
        return ()


def _image_problems(path: Path, array: NDArray[Any]) -> Iterator[str]:
    if why := why_unusable(array):
        yield f"{path}: {why}"


def _channel_grid_problems(case: Case, grids: Mapping[Path, Grid]) -> Iterator[str]:
    """Whether channels on other grids can be brought onto the first one's, as training will do it."""
    for path in list(grids)[1:]:
        first = next(iter(grids))
        if grids[first].differences(grids[path]):
            try:
                read_channels([image for image in case.images if image in (first, path)])
            except DataError as error:
                yield str(error)


def _label_grid_problems(path: Path, grid: Grid, grids: Mapping[Path, Grid], what: str = "") -> Iterator[str]:
    """The label, or a reader's mask, against the case's first image."""
    for first_path, first in list(grids.items())[:1]:
        if different := first.differences(grid):
            yield (
                f"{path}: {what}is not on the grid of {first_path.name}: {', '.join(different)}; "
                "resample it or export it again"
            )


def _listed_files(paths: Iterable[Path]) -> str:
    return ", ".join(str(path) for path in dict.fromkeys(paths))
