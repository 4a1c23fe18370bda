"""A series is whole unless something says that it is not."""

import pytest

from focalis.device.records import Header
from focalis.device.store import Store
from focalis.device.wholeness import what_is_missing


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store") as store:
        yield store


def send(store, count=8, series="1.2", first=0, **told):
    """Keep images of a series, 3 mm apart, numbered from 1."""
    for place in range(first, first + count):
        header = {
            "sop_uid": f"{series}.{place}",
            "sop_class": "1",
            "series_uid": series,
            "study_uid": "1",
            "transfer_syntax": "1",
            "modality": "CT",
            "number": place + 1,
            "normal": "0 0 1",
            "position_mm": 3.0 * place,
        }
        more = {key: value(place) if callable(value) else value for key, value in told.items()}
        store.keep(f"{series} {place}".encode(), Header(**{**header, **more}), "test")


def missing(store, series="1.2"):
    return what_is_missing(store, store.series_row(series))


def test_a_series_without_any_hint_is_whole(store):
    send(store)
    assert missing(store) == ()


@pytest.mark.parametrize(("come", "expected"), [(5, ("9 images announced, 5 came",)), (9, ()), (11, ())])
def test_a_series_has_as_many_images_as_it_says(store, come, expected):
    send(store, come, expected=9)
    assert missing(store) == expected


def test_the_largest_announcement_counts_whichever_image_has_it(store):
    send(store, 6, expected=lambda place: {2: 7, 4: 12}.get(place))
    assert missing(store) == ("12 images announced, 6 came",)


def test_every_acquisition_is_counted_for_itself(store):
    send(store, 10, acquisition=lambda place: str(place // 6 + 1), acquisition_images=6)
    assert missing(store) == ("acquisition 2 has 6 images, 4 came",)


def test_an_acquisition_may_fill_several_series_of_a_study(store):
    for series in ("1.2", "1.3"):
        send(store, 4, series, acquisition="7", acquisition_images=8)
    assert missing(store, "1.2") == missing(store, "1.3") == ()


def test_one_acquisition_may_be_smaller_than_its_series(store):
    send(store, 9, acquisition_images=5)
    assert missing(store) == ()


def test_slices_that_are_missing_between_others_are_counted(store):
    send(store, 3)
    send(store, 4, first=5)
    assert missing(store) == ("2 slices are missing between others",)


def test_slices_may_come_in_any_order(store):
    send(store, 7, position_mm=lambda place: 2.5 * (place * 3 % 7), number=lambda place: place * 3 % 7)
    assert missing(store) == ()


def test_numbers_with_gaps_do_not_count_where_slices_lie_side_by_side(store):
    send(store, 6, number=lambda place: place + (place > 2) * 4)
    assert missing(store) == ()


def test_numbers_with_gaps_count_where_no_place_is_reported(store):
    send(store, 6, number=lambda place: place + (place > 2), normal="", position_mm=None)
    assert missing(store) == ("1 instance number is missing between others",)


def test_uneven_slices_are_left_to_the_reader_of_the_series(store):
    send(store, 6, position_mm=lambda place: place**1.5, number=None)
    assert missing(store) == ()


def test_an_image_in_quarantine_is_missing_until_a_whole_one_comes(store):
    send(store, 5)
    store.quarantine(b"cut short", "has pixel data cut short", "test", "1.2", "1.2.5")
    assert missing(store) == ("1 image is in quarantine",)
    send(store, 1, first=5)
    assert missing(store) == ()


def test_images_under_one_sop_instance_uid_are_missing(store):
    send(store, 6, sop_uid="1.2.0")
    assert missing(store) == ("5 images are in quarantine",)


def test_a_sending_that_broke_off_counts_until_a_later_one_ends_well(store):
    send(store, 5)
    store.sending_ended(store.sending_began("1.2"), "CT1 aborted the association")
    assert missing(store) == ("CT1 aborted the association",)
    store.sending_ended(store.sending_began("1.2"))
    assert missing(store) == ()


def test_a_sending_beside_it_does_not_make_up_for_one_that_broke_off(store):
    send(store, 5)
    first, second = store.sending_began("1.2"), store.sending_began("1.2")
    store.sending_ended(first, "CT1 lost its connection")
    store.sending_ended(second)
    assert missing(store) == ("CT1 lost its connection",)


def test_a_series_that_has_all_it_announces_is_whole_however_its_sender_left(store):
    send(store, 8, expected=8)
    store.sending_ended(store.sending_began("1.2"), "CT1 aborted the association")
    assert missing(store) == ()


def test_a_single_multi_frame_image_is_whole(store):
    send(store, 1, frames=40, acquisition_images=40)
    store.sending_ended(store.sending_began("1.2"), "CT1 lost its connection")
    assert missing(store) == ()


def test_what_was_being_sent_when_the_device_stopped_has_broken_off(tmp_path):
    with Store(tmp_path / "stopped") as store:
        send(store, 5)
        store.sending_began("1.2")
    with Store(tmp_path / "stopped") as store:
        store.own()
        assert missing(store) == ("the device stopped while it came",)
