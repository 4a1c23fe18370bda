"""Targets and responses of RECIST 1.1, against examples worked out by hand."""

from collections.abc import Sequence
from typing import Any

import pytest

from focalis.errors import UsageError
from focalis.followup import LesionDay, Sighting, Size, Targets, Track, choose_targets, sum_targets
from focalis.followup.recist import is_measurable

Lesion = tuple[str, Sequence[Any]]
"""The name of a lesion's label, and what it is on each date: its diameter in mm, or a status without one."""

GONE, OUTSIDE, UNKNOWN = "gone", "outside", "unknown"


def size(mm: float, across: float | None = None, cut: bool = False, volume: float | None = None) -> Size:
    return Size(mm**3 / 2 if volume is None else volume, 0.0, mm, 0.0, across or mm, mm, 1, cut)


def merged(into: int) -> Sighting:
    return Sighting("merged", merged_into=into)


def of(number: int, lesion: Lesion) -> tuple[Track, tuple[LesionDay, ...]]:
    """A lesion and its sizes; numbers are diameters, strings statuses, a `Size` is taken as it is."""
    name, dates = lesion
    sightings, days = [], []
    there = False
    for day, given in enumerate(dates):
        found = size(given) if isinstance(given, int | float) else given if isinstance(given, Size) else None
        if isinstance(given, Sighting):
            sightings.append(given)
        elif found is None:
            sightings.append(Sighting(given))
        else:
            shown = any(each.status == "absent" for each in sightings)
            first = "baseline" if day == 0 else "new" if shown else "first view"
            sightings.append(Sighting("persistent" if there else first, (number,)))  # type: ignore[arg-type]
            there = True
        days.append(LesionDay(found, None, None))
    return Track(number, 1, name, tuple(sightings)), tuple(days)


def followed(*lesions: Lesion | Sequence[Any], named: Sequence[int] = (), slice_mm: float = 1.0) -> Targets:
    both = [
        of(number, each if isinstance(each, tuple) else ("lesion", each))
        for number, each in enumerate(lesions, start=1)
    ]
    tracks, measured = [track for track, _ in both], [days for _, days in both]
    found = sum_targets(tracks, measured, choose_targets(tracks, measured, named, slice_mm), 1.96)
    assert found is not None
    return found


def responses(*lesions: Lesion | Sequence[Any], named: Sequence[int] = ()) -> list[str]:
    return [each.response for each in followed(*lesions, named=named).sums]


# --- the sum of the targets


def test_partial_response_is_a_fall_of_30_percent_from_the_first_date() -> None:
    assert responses([40, 28], [30, 21]) == ["baseline", "PR"]  # 70 to 49: exactly 30 %
    assert responses([40, 29], [30, 21]) == ["baseline", "SD"]


def test_progression_is_a_rise_of_20_percent_and_5_mm_from_the_nadir() -> None:
    assert responses([40, 20, 25]) == ["baseline", "PR", "PD"]  # 25 % and 5 mm, though 38 % below the first
    assert responses([40, 20, 24.5]) == ["baseline", "PR", "PR"]  # 4.5 mm
    assert responses([14, 11, 14]) == ["baseline", "SD", "SD"]  # 27 %, but 3 mm
    assert responses([60, 50, 59]) == ["baseline", "SD", "SD"]  # 9 mm, but 18 %
    assert responses([60, 50, 60]) == ["baseline", "SD", "PD"]  # 10 mm and 20 %


def test_the_first_date_is_the_nadir_where_no_sum_was_less() -> None:
    found = followed([30, 32, 36]).sums[2]
    assert (found.nadir_mm, found.nadir_date) == (30, 0)
    assert found.from_nadir_percent == pytest.approx(20)
    assert found.response == "PD"


def test_the_nadir_is_named_with_its_date() -> None:
    found = followed([50, 30, 40, 33]).sums[3]
    assert (found.nadir_mm, found.nadir_date) == (30, 1)
    assert found.from_first_percent == pytest.approx(-34)
    assert found.from_nadir_percent == pytest.approx(10)
    assert found.response == "PR"


def test_complete_response_is_that_no_lesion_is_left() -> None:
    assert responses([20, GONE], [15, GONE]) == ["baseline", "CR"]


def test_targets_that_are_gone_while_others_stay_are_a_partial_response() -> None:
    found = followed([20, GONE], [8, 8]).sums[1]
    assert (found.target, found.non_target, found.response) == ("CR", "non-CR/non-PD", "PR")


def test_a_target_that_is_back_after_a_complete_response_is_progression() -> None:
    assert responses([20, GONE, 4]) == ["baseline", "CR", "PD"]


def test_a_target_that_is_back_while_others_stayed_counts_with_its_diameter() -> None:
    assert responses([20, GONE, 6], [40, 30, 28]) == ["baseline", "PR", "PR"]  # 60, 30, 34


# --- what cannot be measured


@pytest.mark.parametrize("lost", [OUTSIDE, UNKNOWN, size(15, cut=True), merged(3)])
def test_a_sum_that_misses_a_target_is_not_evaluable_and_has_no_percentage(lost: Any) -> None:
    """The third lesion is not a target: what has merged with it has no diameter of its own."""
    found = followed([30, lost, 30], [20, 20, 20], [8, 8, 8]).sums
    assert (found[1].sum_mm, found[1].from_first_percent, found[1].from_nadir_percent) == (None, None, None)
    assert found[1].target == found[1].response == "NE"
    assert len(found[1].missing) == 1
    assert found[1].missing[0].startswith("lesion 1 ")
    assert (found[2].sum_mm, found[2].nadir_date, found[2].response) == (50, 0, "SD")


def test_a_target_that_took_in_another_lesion_is_not_evaluable() -> None:
    found = followed([30, 36], [8, merged(1)]).sums[1]
    assert found.response == "NE"
    assert found.missing == ("lesion 1 has merged with lesion 2, which is not a target",)


def test_two_targets_that_merged_count_with_the_diameter_of_both() -> None:
    found = followed([30, 44], [20, merged(1)]).sums[1]
    assert (found.sum_mm, found.response) == (44, "SD")


def test_what_is_seen_may_be_progression_already() -> None:
    """The example of section 4.4: 50 mm at first, and two of three targets alone are 80 mm."""
    found = followed([20, 45], [15, 35], [15, OUTSIDE]).sums[1]
    assert found.sum_mm is None
    assert found.response == "PD"


def test_a_first_sum_that_misses_a_target_gives_no_response() -> None:
    found = followed([size(20, cut=True), 20], [30, 10], named=[1, 2]).sums
    assert found[0].sum_mm is None
    assert (found[1].sum_mm, found[1].from_first_percent, found[1].response) == (30, None, "NE")


# --- other lesions


def test_a_new_lesion_is_progression_for_as_long_as_it_is_there() -> None:
    found = followed([30, 20, 20, 20], ["absent", 6, 6, GONE]).sums
    assert [each.new_lesions for each in found] == [(), (2,), (2,), ()]
    assert [each.response for each in found] == ["baseline", "PD", "PD", "PR"]
    assert found[1].target == "PR"


def test_a_lesion_where_no_scan_looked_before_is_new() -> None:
    assert responses([30, 30], [OUTSIDE, 6]) == ["baseline", "PD"]


def test_a_lesion_of_a_scan_that_could_not_be_registered_is_not_new() -> None:
    assert responses([30, UNKNOWN], [UNKNOWN, 6]) == ["baseline", "NE"]


def test_other_lesions_progress_by_73_percent_of_volume_and_5_mm() -> None:
    def non_target(before: Size, after: Size) -> str:
        return followed([30, 30], [before, after], named=[1]).sums[1].non_target

    assert non_target(size(20, volume=1000), size(25, volume=1730)) == "PD"
    assert non_target(size(20, volume=1000), size(25, volume=1700)) == "non-CR/non-PD"
    assert non_target(size(5, volume=100), size(8, volume=200)) == "non-CR/non-PD"
    assert responses([30, 30], [20, 30], named=[1]) == ["baseline", "PD"]


def test_other_lesions_that_are_not_shown_are_not_evaluable_and_leave_the_response_to_the_targets() -> None:
    found = followed([30, 20], [8, OUTSIDE]).sums[1]
    assert (found.non_target, found.response) == ("NE", "PR")


def test_without_other_lesions_there_is_nothing_to_assess() -> None:
    assert followed([30, 20]).sums[1].non_target == "none"


# --- lymph nodes


@pytest.mark.parametrize("name", ["lymph_node", "Lymphknoten", "mediastinal node", "LN 4R", "nodes"])
def test_lymph_nodes_are_measured_across(name: str) -> None:
    found = followed((name, [size(30, 20), size(28, 12)]))
    assert found.nodes == (1,)
    assert [each.sum_mm for each in found.sums] == [20, 12]
    assert found.sums[1].response == "PR"


@pytest.mark.parametrize("name", ["nodule", "lung_nodule", "melanoma", "nodular lesion", "lnc"])
def test_nodules_are_not_nodes(name: str) -> None:
    assert followed((name, [30, 20])).nodes == ()


def test_nodes_below_10_mm_are_normal_and_a_complete_response() -> None:
    found = followed(("node", [size(25, 16), size(14, 9)]), ("lesion", [20, GONE])).sums[1]
    assert (found.sum_mm, found.response) == (9, "CR")
    assert followed(("node", [size(25, 16), size(14, 10)])).sums[1].response == "PR"


def test_a_normal_node_is_neither_a_new_nor_another_lesion() -> None:
    lesions = [("tumour", [30, 30]), ("node", ["absent", size(14, 9)]), ("node", [size(12, 8), size(12, 8)])]
    found = followed(*lesions).sums[1]
    assert (found.new_lesions, found.non_target, found.response) == ((), "none", "SD")


# --- which are targets


def test_targets_are_the_five_largest_of_10_mm_or_more_that_are_not_cut_off() -> None:
    first = [20, 9.9, 10, size(90, cut=True), 14, 30, 25, 12]
    assert followed(*([mm, mm] for mm in first)).numbers == (6, 7, 1, 5, 8)


def test_nodes_are_targets_from_15_mm_across() -> None:
    assert followed(("node", [size(30, 15)]), ("node", [size(40, 14)]), ("lesion", [10])).numbers == (1, 3)


def test_thick_slices_ask_for_larger_lesions() -> None:
    assert followed([16], [14], slice_mm=8.0).numbers == (1,)
    track, _ = of(1, ("lesion", [14]))
    assert is_measurable(track, size(14), 5.0)
    assert not is_measurable(track, size(14), 8.0)


def test_named_targets_must_be_there_and_no_more_than_five() -> None:
    with pytest.raises(UsageError, match="lesion 7 is not there"):
        followed([20, 20], named=[7])
    with pytest.raises(UsageError, match="5 at most"):
        followed(*([20, 20] for _ in range(6)), named=[1, 2, 3, 4, 5, 6])


def test_without_a_measurable_lesion_there_is_no_sum() -> None:
    track, days = of(1, ("lesion", [5, 20]))
    assert sum_targets([track], [days], choose_targets([track], [days], (), 1.0), 1.96) is None
