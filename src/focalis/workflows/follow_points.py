"""Follow the lesions that a person points at on the first date: what a guided model outlines there on every date."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from focalis.followup import Placement, Study, carry, place
from focalis.prediction import Place
from focalis.volume import Volume
from focalis.workflows.follow_inputs import Masks, Scan

Find = Callable[[Scan, Sequence[Place]], Masks]
"""Outline the lesions at places of a scan."""


def find_at(
    scans: Sequence[Scan],
    places: Sequence[Place],
    study: Callable[[int, NDArray[np.integer]], Study],
    find: Find,
    say: Callable[[str], None],
) -> tuple[list[Masks], list[Study], tuple[Placement, ...]]:
    """The masks of all dates, what is measured in them, and how their scans lie to each other.

    On a later date the model looks where the registration, refined around the lesion, puts the lesion's centre; from
    the latest date that shows it. Where a scan does not show that place, or could not be registered, it finds nothing.

    Args:
        places: in the lesions of the first date.
        study: measures a date, by its place from 0, in a label map on its scan's grid.
        find: the model, at places.
        say: called with what is done next.
    """
    nothing = [np.zeros(scan.volumes[0].grid.shape_zyx, np.uint8) for scan in scans]
    studies = [study(day, empty) for day, empty in enumerate(nothing)]
    masks = [find(scans[0], places)]
    studies[0] = study(0, masks[0].label.array)
    placements = place(studies, say)
    lesions = [(0, (piece,)) for piece in range(len(studies[0].pieces))]
    for day, scan in enumerate(scans[1:], start=1):
        grid = scan.volumes[0].grid
        expected = [_expected(studies, placements, pieces, last, day) for last, pieces in lesions]
        there = [Place((tuple(at),)) for at in expected if at is not None]
        here = [each for each in there if each.lies_in(grid)]
        masks.append(find(scan, here) if here else Masks(Volume(nothing[day], grid), (), {}))
        studies[day] = study(day, masks[day].label.array)
        for number, at in enumerate(expected):
            piece = 0 if at is None else int(studies[day].look_up(at[None])[0])
            if piece > 0:
                lesions[number] = (day, (piece - 1,))
    return masks, studies, placements


def _expected(
    studies: Sequence[Study], placements: Sequence[Placement], pieces: tuple[int, ...], last: int, day: int
) -> NDArray[np.float64] | None:
    """Where the middle of a lesion lies on a later date, x, y, z in mm; None if the two are not registered."""
    if placements[last].root != placements[day].root:
        return None
    inside = studies[last].places(pieces)
    middle = inside[np.linalg.norm(inside - inside.mean(axis=0), axis=1).argmin()]
    return carry(studies, placements, pieces, last, day).transform.apply(middle)
