"""Change with its error, against figures worked out by hand."""

from collections.abc import Sequence
from datetime import date, timedelta

import numpy as np
import pytest

from focalis.followup import (
    MeasurementError,
    Placement,
    Study,
    Track,
    Transform,
    estimate_error,
    make_study,
    measure,
    track,
)
from focalis.followup.change import Size, change
from focalis.volume import Grid, Volume

GRID = Grid((60, 40, 20), (1.0, 1.0, 1.0))
NO_ERROR = MeasurementError(0.0, 0.0, 0, "nothing")


def bars(lengths: Sequence[int], day: int | None = 0, height: int = 3) -> Study:
    """A date with bars of 3 voxels by `height`, so many voxels long, 6 rows apart; 0 is none."""
    label = np.zeros(GRID.shape_zyx, dtype=np.uint8)
    for row, length in enumerate(lengths):
        label[5 : 5 + height, 2 + 6 * row : 5 + 6 * row, 5 : 5 + length] = 1
    when = None if day is None else date(2026, 1, 1) + timedelta(days=day)
    return make_study("scan", Volume(label.astype(np.float32), GRID), label, {1: "lesion"}, when)


def tracks_of(studies: Sequence[Study]) -> tuple[Track, ...]:
    return track(studies, [Placement(0, None, None, Transform.identity()) for _ in studies])


def size(
    volume: float, sd: float = 0.0, length: float = 10.0, length_sd: float = 0.0, cut: bool = False
) -> Size:
    return Size(volume, sd, length, length_sd, length, length, 1, cut)


def test_a_doubled_volume_has_its_days_as_doubling_time() -> None:
    found = change(0, size(100), size(200), 90, 1.96)
    assert found.volume_percent == pytest.approx(100)
    assert found.doubling_days == pytest.approx(90)
    assert found.growth_percent_per_30_days == pytest.approx(100 * (2 ** (1 / 3) - 1))


def test_a_shrinking_lesion_has_a_halving_time() -> None:
    assert change(0, size(200), size(50), 60, 1.96).doubling_days == pytest.approx(-30)


def test_a_change_within_the_error_has_no_doubling_time() -> None:
    found = change(0, size(100, sd=10), size(120, sd=12), 90, 1.96)
    limit = 100 * np.expm1(1.96 * np.hypot(0.1, 0.1))
    assert found.volume_limits_percent[1] == pytest.approx(limit)
    assert not found.volume_beyond_error
    assert found.doubling_days is None
    low, high = found.growth_limits or (0, 0)
    assert low < 0 < high


def test_where_the_error_is_not_known_there_is_no_doubling_time() -> None:
    assert change(0, size(100), size(200), 90, 1.96, error_known=False).doubling_days is None


@pytest.mark.parametrize("days", [None, 0])
def test_without_a_time_between_there_are_no_rates(days: int | None) -> None:
    found = change(0, size(100), size(200), days, 1.96)
    assert found.volume_percent == pytest.approx(100)
    assert found.doubling_days is None
    assert found.growth_percent_per_30_days is None


def test_a_lesion_at_the_border_of_the_scan_is_not_reliable() -> None:
    found = change(0, size(100), size(200, cut=True), 10, 1.96)
    assert not found.reliable
    assert found.doubling_days is None


def test_the_error_is_estimated_from_repeated_masks() -> None:
    """Bars of 3 x 3 with 20 and 22 voxels: volumes 180 and 198 mm3, lengths 20.10 and 22.09 mm between faces."""
    first, second = bars([20]), bars([22])
    found = estimate_error([first], [[second]], "two readers")
    surface = np.mean([2 / 3 * (4 * 3 * n + 18) for n in (20, 22)])
    assert found.repeated == 1
    assert found.border_mm == pytest.approx(np.std([180, 198], ddof=1) / surface)
    assert found.diameter_mm == pytest.approx(np.std([20.10, 22.09], ddof=1), abs=0.01)


def test_few_repeats_make_wider_limits() -> None:
    assert MeasurementError(0.1, 0.1, 1, "").quantile > MeasurementError(0.1, 0.1, 30, "").quantile > 1.96


def test_without_repeats_only_the_voxels_have_an_error() -> None:
    found = estimate_error([bars([20])], [[]], "nothing")
    assert found.repeated == 0
    assert found.volume_sd_mm3(bars([20]).pieces[0]) > 0


def test_merged_lesions_are_compared_with_their_sum() -> None:
    first = bars([20, 10])
    label = (first.numbered > 0).astype(np.uint8)
    label[5:8, 2:11, 5:10] = 1
    joined = make_study("scan", first.image, label, {1: "lesion"}, date(2026, 2, 1))
    studies = [first, joined]
    found = measure(tracks_of(studies), studies, NO_ERROR)
    (kept,) = [days[1] for days in found if days[1].size is not None]
    assert kept.since_last is not None
    assert kept.since_last.volume_percent == pytest.approx(100 * (np.count_nonzero(label) / 270 - 1))


def test_a_lesion_that_merged_in_two_steps_is_compared_with_all_of_its_parts() -> None:
    first = bars([20, 10, 50])
    studies = [first]
    for day, rows in ((30, slice(2, 11)), (60, slice(2, 17))):
        label = (first.numbered > 0).astype(np.uint8)
        label[5:8, rows, 5:10] = 1
        when = date(2026, 1, 1) + timedelta(days=day)
        studies.append(make_study("scan", first.image, label, {1: "lesion"}, when))
    (kept,) = [days[2] for days in measure(tracks_of(studies), studies, NO_ERROR) if days[2].size is not None]
    assert kept.since_first is not None
    assert kept.since_last is not None
    assert kept.since_first.volume_percent == pytest.approx(100 * (810 / 720 - 1))
    assert kept.since_last.volume_percent == pytest.approx(100 * (810 / 765 - 1))


def test_a_lesion_that_is_gone_has_lost_all_of_its_volume() -> None:
    studies = [bars([20, 10]), bars([20, 0], 30)]
    gone = measure(tracks_of(studies), studies, NO_ERROR)[1][1]
    assert gone.size is None
    assert gone.since_last is not None
    assert gone.since_last.volume_percent == -100
