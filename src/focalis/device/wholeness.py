"""Whether a series is complete, by its header, the positions of its slices and how it was sent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from focalis.device.records import Instance, Quarantined, SeriesRow
from focalis.device.store import Store

_TOLERANCE = 0.1
"""Deviation of a gap between slices as a share of the usual gap: less is rounding."""


def what_is_missing(store: Store, row: SeriesRow) -> tuple[str, ...]:
    """Why a series is incomplete, a phrase each; empty if nothing suggests it."""
    instances = store.instances(row.series_uid)
    in_study = store.acquisition_counts(row.study_uid)
    announced = announced_images(row, instances, in_study)
    found = [text for have, wanted, text in announced if have < wanted]
    found += slice_gaps(instances)
    found += _kept_aside(
        [each for each in store.quarantined(row.series_uid) if not _replaced(each, instances)]
    )
    whole_by_its_word = bool(announced) and not any(have < wanted for have, wanted, _ in announced)
    one_multi_frame = len(instances) == 1 and instances[0].frames > 1
    if not whole_by_its_word and not one_multi_frame:
        found += store.faults_of(row.series_uid)
    return tuple(found)


def announced_images(
    row: SeriesRow, instances: Sequence[Instance], in_study: dict[str, int]
) -> list[tuple[int, int, str]]:
    """What a series says of its size: how many images are there, how many should be, and a phrase, for each word.

    Images in Acquisition counts all images of an acquisition, which may fill several series of a study.

    Args:
        instances: those that are there.
        in_study: Acquisition Number to the number of images with it in the study.
    """
    found = []
    if row.expected is not None:
        phrase = f"{row.expected} images announced, {len(instances)} came"
        found.append((len(instances), row.expected, phrase))
    groups: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        if instance.frames == 1:
            groups[instance.acquisition].append(instance)
    for acquisition, members in sorted(groups.items()):
        wanted = max((each.acquisition_images or 0 for each in members), default=0)
        if wanted > 0:
            have = max(len(members), in_study.get(acquisition, 0) if acquisition else 0)
            name = f"acquisition {acquisition}" if acquisition and len(groups) > 1 else "the acquisition"
            found.append((have, wanted, f"{name} has {wanted} images, {have} came"))
    return found


def slice_gaps(instances: Sequence[Instance]) -> list[str]:
    """Slices that are missing between others: by their places, or by their numbers where the places do not tell."""
    normals = {each.normal for each in instances}
    places = [each.position_mm for each in instances if each.position_mm is not None]
    if len(normals) == 1 and len(places) == len(instances):
        distinct = sorted({round(place, 2) for place in places})
        missing, even = _missing_between(distinct)
        if missing:
            return [f"{missing} slice{' is' if missing == 1 else 's are'} missing between others"]
        if even and len(distinct) == len(places):
            return []  # contiguous, whatever their numbers say
    numbers = [each.number for each in instances if each.number is not None]
    if len(numbers) == len(instances) == len(set(numbers)):
        missing, _ = _missing_between(sorted(map(float, numbers)))
        if missing:
            return [f"{missing} instance number{' is' if missing == 1 else 's are'} missing between others"]
    return []


def _missing_between(ordered: Sequence[float]) -> tuple[int, bool]:
    """How many values an even row lacks between its ends, and whether the values fill an even row."""
    gaps = [later - earlier for earlier, later in pairwise(ordered)]
    if len(gaps) < 2:
        return 0, False
    usual = sorted(gaps)[(len(gaps) - 1) // 2]
    times = [round(gap / usual) for gap in gaps]
    if any(
        count < 1 or abs(gap - count * usual) > _TOLERANCE * usual
        for gap, count in zip(gaps, times, strict=True)
    ):
        return 0, False
    missing = sum(times) - len(times)
    return missing, missing == 0


def _kept_aside(quarantined: Sequence[Quarantined]) -> list[str]:
    count = len(quarantined)
    return [f"{count} image{' is' if count == 1 else 's are'} in quarantine"] if count else []


def _replaced(quarantined: Quarantined, instances: Sequence[Instance]) -> bool:
    """Whether an intact object has replaced a damaged one."""
    return quarantined.sop_uid is not None and any(each.sop_uid == quarantined.sop_uid for each in instances)
