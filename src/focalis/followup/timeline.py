"""Lesions over any number of dates: one identity for each, and what it is on every date."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from focalis.display import Shown
from focalis.followup.local import LocalRegistration, refine
from focalis.followup.pairing import Earlier, Match, match
from focalis.followup.registration import Registration, register
from focalis.followup.study import Study
from focalis.followup.transform import Transform

Status = Literal[
    "baseline",
    "persistent",
    "new",
    "first view",
    "gone",
    "absent",
    "outside",
    "merged",
    "split",
    "returned",
    "unknown",
]
"""What a lesion is on a date.

baseline: there on the first date. new: there, and not on an earlier date that shows the place. first view: there, and
no earlier date shows the place. absent: not there yet. outside: the scan does not show the place. merged: a part of
another lesion now. split: in more pieces than before. returned: there again. unknown: the scan could not be registered.
"""

THERE: tuple[Status, ...] = ("baseline", "persistent", "new", "first view", "split", "returned")
"""What a lesion is on a date on which it is there."""

_SHOWN = 0.5
"""A place is shown by a scan if at least this share of a lesion lies in its field of view."""

Advance = Callable[[str], None]


@dataclass(frozen=True)
class Sighting:
    """A lesion on one date.

    Attributes:
        pieces: its pieces in the date's study; none if it is not there.
        merged_into: the identity of the lesion that it is a part of; None if it is not.
        centre_lps_mm: its centre, or where it would lie; None where that is not known.
        similarity: of its surroundings on this date and on the date before that shows it; None where there is no such.
        moved_mm: how far local refinement moved it.
        distance_mm: between both centres, where it was matched by distance and not by overlap.
    """

    status: Status
    pieces: tuple[int, ...] = ()
    merged_into: int | None = None
    centre_lps_mm: tuple[float, float, float] | None = None
    similarity: float | None = None
    moved_mm: float = 0.0
    distance_mm: float | None = None


@dataclass(frozen=True)
class Track:
    """One lesion over all dates.

    Attributes:
        number: its identity, from 1.
    """

    number: int
    label: int
    name: str
    sightings: tuple[Sighting, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Placement(Shown):
    """How a date's scan lies to the others.

    Attributes:
        root: the first date of those that it is registered with; its own if it could not be registered.
        onto: the date that it was registered to; None for a root.
        registration: how; None for the first date. If a date could not be registered, the best attempt.
        to_root: from places of this scan to places of the root's.
    """

    root: int
    onto: int | None
    registration: Registration | None
    to_root: Transform


@dataclass
class _Open:
    """A lesion while its dates are gone through."""

    label: int
    name: str
    sightings: list[Sighting] = field(default_factory=list)

    @property
    def last(self) -> int | None:
        """The latest date on which it is there; None if it is a part of another lesion since."""
        if any(each.status == "merged" for each in self.sightings):
            return None
        return max(day for day, each in enumerate(self.sightings) if each.pieces)


def place(studies: Sequence[Study], advance: Advance | None = None) -> tuple[Placement, ...]:
    """Register each date to the date before it, or failing that to the latest one that it can be registered to."""
    found: list[Placement] = []
    for day, study in enumerate(studies):
        best: Registration | None = None
        placed: Placement | None = None
        for onto in reversed(range(day)):
            if advance is not None:
                advance(f"register {study.name} to {studies[onto].name}")
            attempt = register(studies[onto].image, study.image)
            if not attempt.problem:
                back = attempt.transform.inverse().then(found[onto].to_root)
                placed = Placement(found[onto].root, onto, attempt, back)
                break
            if best is None or attempt.similarity > best.similarity:
                best = attempt
        found.append(placed or Placement(day, None, best, Transform.identity()))
    return tuple(found)


def track(
    studies: Sequence[Study], placements: Sequence[Placement], advance: Advance | None = None
) -> tuple[Track, ...]:
    """Follow every lesion of every date.

    Args:
        studies: in the order of their dates.
        advance: called with what is done next.

    Returns:
        The lesions, by the date on which they are first there, and by label and number on that date.
    """
    tracks: list[_Open] = []
    for day, study in enumerate(studies):
        if advance is not None:
            advance(f"match lesions of {study.name}")
        known = [each for each in tracks if each.last is not None]
        linked = [each for each in known if placements[each.last or 0].root == placements[day].root]
        local = [
            carry(studies, placements, each.sightings[each.last or 0].pieces, each.last or 0, day)
            for each in linked
        ]
        matches = match(
            [
                Earlier(studies[each.last or 0], each.sightings[each.last or 0].pieces, near.transform)
                for each, near in zip(linked, local, strict=True)
            ],
            study,
        )
        seen = [
            _sighting(each, outcome, near, studies, day, [tracks.index(other) + 1 for other in linked])
            for each, outcome, near in zip(linked, matches, local, strict=True)
        ]
        for each in tracks:
            if each in linked:
                each.sightings.append(seen[linked.index(each)])
            else:
                each.sightings.append(_unlinked(each))
        taken = {piece for outcome in matches for piece in outcome.pieces}
        for number, piece in enumerate(study.pieces):
            if number not in taken:
                tracks.append(_first(studies, placements, day, number))
                assert tracks[-1].label == piece.lesion.label
    return tuple(
        Track(number, each.label, each.name, tuple(each.sightings))
        for number, each in enumerate(tracks, start=1)
    )


def carry(
    studies: Sequence[Study],
    placements: Sequence[Placement],
    pieces: tuple[int, ...],
    earlier: int,
    later: int,
) -> LocalRegistration:
    """Where a lesion lies on a later date that is registered with its own.

    Args:
        studies: in the order of their dates.
        pieces: its pieces on the earlier date.
        earlier, later: the numbers of both dates, from 0.
    """
    study = studies[earlier]
    return refine(study, studies[later], study.voxels_zyx(pieces), _between(placements, earlier, later))


def _between(placements: Sequence[Placement], one: int, other: int) -> Transform:
    """From places of one date to places of another one of the same root."""
    return placements[one].to_root.then(placements[other].to_root.inverse())


def _sighting(
    lesion: _Open,
    outcome: Match,
    near: LocalRegistration,
    studies: Sequence[Study],
    day: int,
    numbers: list[int],
) -> Sighting:
    last = lesion.last or 0
    was_gone = any(each.status == "gone" for each in lesion.sightings[last + 1 :])
    status: Status
    if outcome.merged_into is not None:
        status = "merged"
    elif outcome.pieces:
        grew_apart = len(outcome.pieces) > len(lesion.sightings[last].pieces)
        status = "split" if grew_apart else "returned" if was_gone else "persistent"
    else:
        status = "gone" if outcome.seen >= _SHOWN else "outside"
    study = studies[day]
    places = (
        study.places(outcome.pieces)
        if outcome.pieces
        else near.transform.apply(studies[last].places(lesion.sightings[last].pieces))
    )
    return Sighting(
        status,
        outcome.pieces,
        None if outcome.merged_into is None else numbers[outcome.merged_into],
        _mean(places),
        None if status == "outside" else near.similarity,
        near.moved_mm,
        outcome.distance_mm,
    )


def _unlinked(lesion: _Open) -> Sighting:
    """A lesion on a date that is not registered with its own, or after it became a part of another."""
    merged = next((each for each in lesion.sightings if each.status == "merged"), None)
    if merged is None:
        return Sighting("unknown")
    return Sighting("merged", merged_into=merged.merged_into)


def _first(studies: Sequence[Study], placements: Sequence[Placement], day: int, piece: int) -> _Open:
    """A lesion that is there for the first time, with what the dates before it show of its place."""
    study = studies[day]
    lesion = study.pieces[piece].lesion
    places = study.places((piece,))
    before: list[Sighting] = []
    similarity, moved = None, 0.0
    for other in range(day):
        if placements[other].root != placements[day].root:
            before.append(Sighting("unknown"))
            continue
        back = _between(placements, day, other)
        shown = np.mean(studies[other].look_up(back.apply(places)) >= 0) >= _SHOWN
        if shown:
            near = refine(study, studies[other], study.voxels_zyx((piece,)), back)
            back, similarity, moved = near.transform, near.similarity, near.moved_mm
        before.append(Sighting("absent" if shown else "outside", centre_lps_mm=_mean(back.apply(places))))
    status: Status = "baseline" if day == 0 else "first view"
    if any(each.status == "absent" for each in before):
        status = "new"
    now = Sighting(status, (piece,), None, _mean(places), similarity, moved)
    return _Open(lesion.label, lesion.name, [*before, now])


def _mean(places: np.ndarray) -> tuple[float, float, float]:
    x, y, z = places.mean(axis=0)
    return float(x), float(y), float(z)
