"""Duplicates, and patients on both sides of a split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from focalis.dataset import Case, Split
from focalis.display import counted, listed
from focalis.quality.facts import CaseFacts, Content, ImageFacts
from focalis.quality.finding import Finding


@dataclass(frozen=True)
class _ContentOf:
    """A file with its content, and the case that it belongs to."""

    case: str
    file: str
    content: Content
    image: ImageFacts | None = None


def find_duplicates(facts: Sequence[CaseFacts], splits: Mapping[int, Split]) -> Iterator[Finding]:
    """Images of the same content, in one case or several; and label maps of the same content whose images differ."""
    images = [
        _ContentOf(case.case, image.path.name, image.content, image)
        for case in facts
        for image in case.images
    ]
    paired = set()
    for group in _groups(images):
        cases = tuple(dict.fromkeys(found.case for found in group))
        paired.add(frozenset(cases))
        files = _and(found.file for found in group)
        yield Finding(
            "duplicate", cases, f"{files} hold the same image{_headers(group)}{_across(cases, splits)}"
        )
    labels = [
        _ContentOf(case.case, case.label.path.name, case.label.content)
        for case in facts
        if case.label is not None and case.labels
    ]
    for group in _groups(labels):
        cases = tuple(found.case for found in group)
        if frozenset(cases) not in paired:
            files = _and(f"labels/{found.file}" for found in group)
            yield Finding(
                "duplicate",
                cases,
                f"{files} hold the same contours, but their images differ{_across(cases, splits)}",
            )


def find_leaks(cases: Sequence[Case], splits: Mapping[int, Split]) -> Iterator[Finding]:
    """Patients with one case in training and another in validation of the same split; one finding per patient."""
    of_patient: dict[str, list[str]] = {}
    for case in cases:
        of_patient.setdefault(case.patient, []).append(case.name)
    for patient, names in of_patient.items():
        parted = _parting(names, splits)
        if parted:
            where = "split" if len(parted) == 1 else "splits"
            yield Finding(
                "split",
                tuple(names),
                f"are cases of patient {patient}, and {where} {_and(map(str, parted))} "
                f"{'trains' if len(parted) == 1 else 'train'} on some and validate{'s' if len(parted) == 1 else ''} "
                "on others",
            )


def find_left_out(cases: Sequence[Case], splits: Mapping[int, Split]) -> Iterator[Finding]:
    """Cases on neither side of a split; one finding for all splits that leave the same cases out."""
    numbers: dict[tuple[str, ...], list[int]] = {}
    for number, split in splits.items():
        sides = {*split.train, *split.val}
        numbers.setdefault(tuple(case.name for case in cases if case.name not in sides), []).append(number)
    for names, of in numbers.items():
        if names:
            yield Finding(
                "names",
                (),
                f"{len(names)} of {counted(len(cases))} ({listed(names)}) neither train nor validate in split "
                f"{_and(map(str, of))}",
            )


def _groups(files: Sequence[_ContentOf]) -> list[list[_ContentOf]]:
    """Files that share a content, stored or oriented, without repetition, in order of their first file."""
    groups: dict[frozenset[int], list[_ContentOf]] = {}
    keys: tuple[Callable[[Content], str], ...] = (lambda c: c.stored, lambda c: c.oriented)
    for key in keys:
        same: dict[str, list[int]] = {}
        for number, found in enumerate(files):
            same.setdefault(key(found.content), []).append(number)
        for members in same.values():
            if len(members) > 1:
                groups.setdefault(frozenset(members), [files[number] for number in members])
    return [groups[members] for members in sorted(groups, key=min)]


def _headers(group: Sequence[_ContentOf]) -> str:
    """How the headers of equal images differ."""
    first, *others = [found.image.grid for found in group if found.image is not None]
    differences = next((found for other in others if (found := first.differences(other))), [])
    return f" under other headers ({', '.join(differences)})" if differences else ""


def _across(cases: Sequence[str], splits: Mapping[int, Split]) -> str:
    parted = _parting(cases, splits)
    return f"; split {parted[0]} trains on one and validates on the other" if parted else ""


def _parting(cases: Sequence[str], splits: Mapping[int, Split]) -> list[int]:
    """The numbers of the splits that put some of the cases on each side."""
    wanted = set(cases)
    return [
        number for number, split in splits.items() if wanted & set(split.train) and wanted & set(split.val)
    ]


def _and(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
