"""Compare the names that label files give to their values with those of the data set and of each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from focalis.dataset import Dataset
from focalis.quality.facts import CaseFacts
from focalis.quality.finding import Finding
from focalis.volume import NamedSegment

_LISTED_NAMES = 4


def judge_segments(
    path: Path, segments: Sequence[NamedSegment], present: Collection[int], dataset: Dataset
) -> list[str]:
    """Complaints about segments whose name is a label's in the data set, but whose value is another.

    Args:
        present: the values that occur in it; an empty segment has no voxel that could be taken for another.
    """
    messages = []
    for segment in segments:
        values = [value for value, name in dataset.labels.items() if _key(name) == _key(segment.name)]
        if values and segment.value in present and segment.value not in values:
            messages.append(
                f'{path}: its segment "{segment.name}" has the value {segment.value}, and dataset.json names '
                f"{values[0]} so; correct the values or the names"
            )
    return messages


def find_renamed_segments(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Values that have different names, and names that have different values; one finding for each of them."""
    named = [(case.case, label.value, label.name) for case in facts for label in case.labels if label.name]
    for value in sorted({value for _, value, _ in named}):
        names = [(case, _key(name), f'"{name}"') for case, other, name in named if other == value]
        yield from _differing(f"label {value}", names)
    for key in sorted({_key(name) for _, _, name in named}):
        values = [(case, str(value), f"label {value}") for case, value, name in named if _key(name) == key]
        name = next(name for _, _, name in named if _key(name) == key)
        yield from _differing(f'"{name}"', values)


def _differing(what: str, said: Sequence[tuple[str, str, str]]) -> Iterator[Finding]:
    """A finding if the cases do not all say the same: (case, what it says, in words); it is about the fewer ones."""
    counts = Counter(key for _, key, _ in said)
    if len(counts) < 2:
        return
    words = {key: text for _, key, text in reversed(said)}
    most = max(counts.values())
    usual = [key for key, count in counts.items() if count == most]
    cases = tuple(dict.fromkeys(case for case, key, _ in said if len(usual) > 1 or key != usual[0]))
    listed = ", ".join(f"{words[key]} in {count}" for key, count in counts.most_common(_LISTED_NAMES))
    more = ", ..." if len(counts) > _LISTED_NAMES else ""
    yield Finding(
        "segment", cases, f"the files' headers differ on what {what} is: {listed}{more} of {len(said)}"
    )


def _key(name: str) -> str:
    """A name without differences in spelling: case, spaces, hyphens and underscores."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
