"""dataset.json: what nnU-Net and the Medical Segmentation Decathlon say about their data sets.

Sources: nnU-Net, documentation/dataset_format.md (version 2) and its version 1; Antonelli et al., Nat Commun 2022,
and the files of the Decathlon's ten tasks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from focalis.errors import DataError, did_you_mean
from focalis.settings import first_fault

BACKGROUND = "background"
_IGNORED_NAMES = frozenset({"ignore", "ignored", "ignorelabel"})
_KEYS = {
    "labels": "labels",
    "label": "labels",
    "drawn": "drawn",
    "regionsclassorder": "regions_class_order",
    "channelnames": "channel_names",
    "fileending": "file_ending",
    "numtraining": "numTraining",
}
"""What the keys mean, without case and separators."""


@dataclass(frozen=True)
class Labels:
    """Names of label values.

    Attributes:
        names: value to name, ascending, without the background 0 and the ignored value.
        ignore: the value of voxels that nobody has judged; None if there is none.
        drawn: case to the values that somebody looked for in it; cases in which all were drawn are left out.
        regions: name to values of nested regions, from the outermost to the innermost; none without regions.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    ignore: int | None = None
    drawn: Mapping[str, frozenset[int]] = field(default_factory=dict)
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def drawn_in(self, path: Path, cases: Collection[str]) -> Mapping[str, frozenset[int]]:
        """`drawn`, after a look whether these are all the cases that there are.

        Raises:
            DataError: `path`, the dataset.json, says what was drawn in a case that is not there.
        """
        if strange := sorted(self.drawn.keys() - set(cases)):
            raise DataError.at(
                path,
                f'"drawn" names case {strange[0]}, which is not there{did_you_mean(strange[0], cases)}',
                "correct the name",
            )
        return self.drawn


class Pair(BaseModel):
    """A training case as version 1 lists it."""

    image: str
    label: str


class Files(BaseModel):
    """A training case as version 2 may list it."""

    images: list[str]
    label: str


class Description(BaseModel):
    """A dataset.json, both versions; fields that nobody needs here are passed over."""

    channel_names: dict[int, str] | None = None
    modality: dict[int, str] | None = None
    file_ending: str | None = None
    training_count: int | None = Field(default=None, alias="numTraining")
    training: list[Pair] | None = None
    dataset: dict[str, Files] | None = None


def read_description(path: Path) -> tuple[Description, Labels]:
    """Read a dataset.json.

    Raises:
        DataError: the file cannot be read, or a field is not what it should be.
    """
    content = _content(path)
    try:
        description = Description.model_validate(content)
    except ValidationError as error:
        where, what = first_fault(error)
        raise DataError.at(
            path, f'"{where.replace(".", " ")}" is wrong ({what.lower()})', "correct it"
        ) from error
    return description, _labels(path, content)


def read_labels(path: Path) -> Labels:
    """The labels alone of a dataset.json; none without the file or its labels.

    Raises:
        DataError: the file cannot be read, or its labels are malformed.
    """
    return _labels(path, _content(path)) if path.is_file() else Labels()


def read_beside(path: Path) -> Labels:
    """What a dataset.json says of regions, drawn labels and an ignored value, for the label maps beside it; nothing if
    of none of these.

    Raises:
        DataError: as of `read_labels`.
    """
    content = _content(path) if path.is_file() else {}
    labels = content.get("labels")
    words = [*labels, *labels.values()] if isinstance(labels, dict) else []
    regions = any(isinstance(word, list) for word in words)
    ignored = any(isinstance(word, str) and _plain(word) in _IGNORED_NAMES for word in words)
    return _labels(path, content) if regions or ignored or "drawn" in content else Labels()


def channel_names(path: Path, description: Description) -> tuple[str, ...]:
    """The channels in the order of their numbers; names that occur twice get their number, as in `CT_0001`.

    Raises:
        DataError: there is no channel, or numbers are missing.
    """
    names = description.channel_names or description.modality
    if not names:
        raise DataError.at(path, "names no channel", 'add "channel_names": {"0": "CT"}')
    if sorted(names) != list(range(len(names))):
        raise DataError.at(path, f"channels must be numbered from 0 without a gap, not {sorted(names)}")
    listed = [names[number] for number in range(len(names))]
    return tuple(
        f"{name}_{number:04d}" if listed.count(name) > 1 else name for number, name in enumerate(listed)
    )


def is_reserved(name: str) -> bool:
    """Whether a name in dataset.json means the background or what is to be ignored, and no label."""
    return _plain(name) in {BACKGROUND, *_IGNORED_NAMES}


def drawn_values(where: str, words: Sequence[object], names: Mapping[int, str]) -> frozenset[int]:
    """The label values that a list of labels, by name or value, says were drawn in a case; `where` says whose.

    Raises:
        DataError: one is not a label, or there is none.
    """
    values = {name: value for value, name in names.items()}
    found = set()
    for word in words:
        if isinstance(word, str) and is_reserved(word):
            continue
        value = values.get(word) if isinstance(word, str) else word
        if value is None and isinstance(word, str) and word.isdecimal():
            value = int(word)
        if type(value) is not int or value < 1 or (names and value not in names):
            known = ", ".join(values) or "whole numbers from 1"
            raise DataError.at(
                where, f"{word!r} is not a label", f"those are {known}{did_you_mean(str(word), values)}"
            )
        found.add(value)
    if not found:
        raise DataError.at(
            where, "no label was drawn, so nothing can be learned from it", "leave the case out"
        )
    return frozenset(found)


def note_without_labels(path: Path, labels: Labels) -> tuple[str, ...]:
    """What to say of a dataset.json that names no label; nothing if it does, or if it is not there."""
    if labels.names or not path.is_file():
        return ()
    keys = ", ".join(_content(path)) or "none"
    return (
        f'{path.name} names no labels (its keys: {keys}); add "labels", {{"background": 0, "lesion": 1}}',
    )


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError.at(path, f"is not readable JSON ({error})", "mend it or remove it") from error
    if not isinstance(content, dict):
        raise DataError.at(path, 'must be an object, {"labels": {"background": 0, "lesion": 1}}')
    known: dict[str, Any] = {}
    for key, value in content.items():
        meant = _KEYS[_plain(key)] if _plain(key) in _KEYS else str(key)
        if meant in known:
            raise DataError.at(path, f'has "{meant}" twice, once as "{key}"', "keep one")
        known[meant] = value
    return known


def _plain(name: str) -> str:
    """A name in lower case, without separators."""
    return re.sub(r"[\W_]+", "", name.casefold())


def _labels(path: Path, content: Mapping[str, Any]) -> Labels:
    """Version 2 maps names to values, version 1 values to names."""
    labels = content.get("labels", {})
    if isinstance(labels, dict) and labels and all(isinstance(name, str) for name in labels.values()):
        turned = {name: int(value) for value, name in labels.items() if value.isdecimal()}
        if len(turned) == len(labels):
            labels = turned
    if isinstance(labels, dict) and any(isinstance(value, list) for value in labels.values()):
        return _region_labels(path, content, labels)
    if not isinstance(labels, dict) or not all(
        type(value) is int and value >= 0 for value in labels.values()
    ):
        raise DataError.at(
            path,
            '"labels" must map names to whole numbers, {"background": 0, "lesion": 1}, or numbers to names, '
            '{"0": "background", "1": "lesion"}, each name once',
        )
    if len(set(labels.values())) != len(labels):
        raise DataError.at(path, "two labels share a value", "give each label its own")
    ignored = [value for name, value in labels.items() if _plain(name) in _IGNORED_NAMES]
    background = [value for name, value in labels.items() if _plain(name) == BACKGROUND]
    if any(background) or 0 in ignored:
        raise DataError.at(path, "the background, and nothing else, must be 0", "renumber the labels")
    if len(ignored) > 1:
        raise DataError.at(
            path, f"names two values to be ignored, {ignored[0]} and {ignored[1]}", "give them one"
        )
    ignore = ignored[0] if ignored else None
    names = {
        value: str(name)
        for name, value in sorted(labels.items(), key=lambda item: item[1])
        if value not in (0, ignore)
    }
    return Labels(names, ignore, _drawn(path, content, names))


def _region_labels(path: Path, content: Mapping[str, Any], labels: Mapping[str, Any]) -> Labels:
    """Nested regions in nnU-Net's notation: {"whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}."""
    given = {name: value if isinstance(value, list) else [value] for name, value in labels.items()}
    for name, values in given.items():
        if not values or not all(type(value) is int and value >= 0 for value in values):
            raise DataError.at(path, f"region {name} must list whole numbers, {name}: [1, 2]", "correct it")
    ignored = {value for name, values in given.items() if _plain(name) in _IGNORED_NAMES for value in values}
    regions = {name: tuple(sorted(set(values))) for name, values in given.items() if not is_reserved(name)}
    if "drawn" in content:
        raise DataError.at(
            path, '"drawn" goes with labels of one value each, not with regions', "leave one out"
        )
    if len(ignored) > 1 or any({0, *ignored} & set(values) for values in regions.values()):
        raise DataError.at(path, "regions hold the background or the ignored value", "take it out of them")
    nested = dict(sorted(regions.items(), key=lambda item: -len(item[1])))
    names: dict[int, str] = {}
    for (name, outer), (inner, within) in zip_longest(
        nested.items(), list(nested.items())[1:], fillvalue=("", ())
    ):
        own = set(outer) - set(within)
        if not set(within) <= set(outer):
            raise DataError.at(
                path,
                f"the regions {name} and {inner} overlap, and neither holds the other",
                "Focalis trains regions that lie inside each other: take one of them out",
            )
        if len(own) != 1:
            what = f"the values {', '.join(map(str, sorted(own)))} lie" if own else "no value lies"
            raise DataError.at(
                path,
                f"{what} in region {name} and in no inner one",
                "give what is between two regions one value",
            )
        names[own.pop()] = f"{name} without {inner}" if inner else name
    order = content.get("regions_class_order")
    wanted = [_own(nested, name) for name in regions]
    if order is not None and order != wanted:
        raise DataError.at(
            path,
            f'"regions_class_order" is {order}',
            f"of the regions {', '.join(regions)} it must be {wanted}, the value of each that lies in no "
            "inner one",
        )
    return Labels(dict(sorted(names.items())), next(iter(ignored), None), regions=nested)


def _own(nested: Mapping[str, tuple[int, ...]], name: str) -> int:
    """The value of a region that lies in no inner one."""
    within = [values for values in nested.values() if set(values) < set(nested[name])]
    (own,) = set(nested[name]).difference(*within)
    return own


def _drawn(path: Path, content: Mapping[str, Any], names: Mapping[int, str]) -> dict[str, frozenset[int]]:
    """Case to the labels that were drawn in it."""
    drawn = content.get("drawn", {})
    if not isinstance(drawn, dict) or not all(isinstance(words, list) for words in drawn.values()):
        raise DataError.at(
            path, '"drawn" must map cases to the labels that were drawn in them, {"case7": ["lesion"]}'
        )
    return {
        case: drawn_values(f'{path}: "drawn" of case {case}', words, names) for case, words in drawn.items()
    }
