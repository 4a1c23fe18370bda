"""Which lesion of one date is which lesion of another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from focalis.followup.study import Study
from focalis.followup.transform import Transform

LEAST_OVERLAP, MOSTLY = 0.1, 0.5
NEAR_MM = 5.0

FOLLOWING_RULE = (
    "Lesions are 26-connected components; only lesions of one label are matched. Two lesions are paired one to one "
    f"by the greatest overlap after registration; at least {100 * LEAST_OVERLAP:.0f} % of either must lie in the "
    f"other. Among the rest, a later lesion of which {100 * MOSTLY:.0f} % lie in an earlier one, or the other way "
    "round, is a part of it (split), and an earlier lesion that lies so in a later one has merged with it. What is "
    f"left is paired by distance: up to {NEAR_MM:g} mm and the mean of both radii between the centres."
)


@dataclass(frozen=True, eq=False)
class Earlier:
    """A lesion as it was last seen.

    Attributes:
        transform: from places of that scan to places of the one that is looked at.
    """

    study: Study
    pieces: tuple[int, ...]
    transform: Transform


@dataclass(frozen=True)
class Match:
    """What became of an earlier lesion.

    Attributes:
        pieces: its pieces in the later scan; none if it was not found.
        merged_into: the place among the earlier lesions of the one that it has become a part of; None if it has not.
        distance_mm: between the centres, where they did not overlap enough and were paired by distance.
        seen: the share of it that lies in the later scan's field of view.
    """

    pieces: tuple[int, ...]
    merged_into: int | None
    distance_mm: float | None
    seen: float


def match(earlier: list[Earlier], later: Study) -> list[Match]:
    """Match earlier lesions with the pieces of a later scan by `FOLLOWING_RULE`; one match for each, in their order."""
    shape = len(earlier), len(later.pieces)
    of_earlier, of_later, away = np.zeros(shape), np.zeros(shape), np.full(shape, np.inf)
    seen = np.ones(shape[0])
    for row, lesion in enumerate(earlier):
        label = lesion.study.pieces[lesion.pieces[0]].lesion.label
        places = lesion.transform.apply(lesion.study.places(lesion.pieces))
        hits = later.look_up(places)
        seen[row] = np.mean(hits >= 0)
        back = lesion.transform.inverse()
        volume = sum(lesion.study.pieces[piece].lesion.volume_mm3 for piece in lesion.pieces)
        for column, piece in enumerate(later.pieces):
            if piece.lesion.label != label:
                continue
            gap = float(np.linalg.norm(piece.lesion.centroid_lps_mm - places.mean(axis=0)))
            reach = NEAR_MM + (_radius(volume) + _radius(piece.lesion.volume_mm3)) / 2
            if gap <= reach:
                away[row, column] = gap
            if gap > _extent(places) + piece.lesion.longest_3d.length_mm:
                continue
            of_earlier[row, column] = np.mean(hits == column + 1)
            there = lesion.study.look_up(back.apply(later.places((column,))))
            of_later[row, column] = np.isin(there, np.add(lesion.pieces, 1)).mean()
    overlap = np.maximum(of_earlier, of_later)
    pairs = _assign(np.where(overlap >= LEAST_OVERLAP, of_earlier + of_later, 0))
    pieces = [[pairs[row]] if row in pairs else [] for row in range(shape[0])]
    owner = {column: row for row, column in pairs.items()}
    merged: dict[int, int] = {}
    for row in set(range(shape[0])) - set(pairs):
        column = int(overlap[row].argmax()) if shape[1] else -1
        if column in owner and overlap[row, column] >= MOSTLY:
            merged[row] = owner[column]
    for column in sorted(set(range(shape[1])) - set(owner)):
        row = int(overlap[:, column].argmax()) if shape[0] else -1
        if row in pairs and overlap[row, column] >= MOSTLY:
            pieces[row].append(column)
    taken = {column for row in pieces for column in row}
    nearness = np.where(np.isfinite(away), 1 / (1 + away), 0)
    nearness[list({*pairs, *merged})] = 0
    nearness[:, list(taken)] = 0
    by_distance = _assign(nearness)
    for row, column in by_distance.items():
        pieces[row] = [column]
    return [
        Match(
            tuple(pieces[row]),
            merged.get(row),
            float(away[row, by_distance[row]]) if row in by_distance else None,
            float(seen[row]),
        )
        for row in range(shape[0])
    ]


def _assign(gain: NDArray[np.float64]) -> dict[int, int]:
    """The one-to-one choice of rows and columns with the greatest sum; a gain of 0 is not a pair."""
    if not gain.size:
        return {}
    chosen = zip(*scipy.optimize.linear_sum_assignment(gain, maximize=True), strict=True)
    return {int(row): int(column) for row, column in chosen if gain[row, column] > 0}


def _radius(volume_mm3: float) -> float:
    """The radius of a sphere of that volume."""
    return float((3 * volume_mm3 / (4 * np.pi)) ** (1 / 3))


def _extent(places: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(np.ptp(places, axis=0))) + 1.0
