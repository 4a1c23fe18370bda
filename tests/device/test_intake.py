"""The one way in: what each file becomes, and what a full disk, a flood or a program in the preamble changes."""

import pydicom
import pytest
from pydicom import uid

from focalis.device.config import Route
from focalis.device.earlier import namesake_studies
from focalis.device.wholeness import what_is_missing
from focalis.errors import DataError


@pytest.fixture
def path(write_series, stored, grid, tmp_path):
    return write_series(tmp_path / "series", stored, grid)[0]


def take(intake, *files):
    with intake.sender("test") as sender:
        return [sender.take([file.read_bytes() if hasattr(file, "read_bytes") else file]) for file in files]


def test_an_image_is_kept_and_known_the_second_time(intake, path):
    first, second = take(intake, path, path)

    assert (first.outcome, second.outcome) == ("kept", "known")
    assert first.stored
    assert first.header.sop_uid == pydicom.dcmread(path).SOPInstanceUID
    assert intake.store.counts()["instances"] == 1


def test_chunks_of_any_size_are_one_file(intake, path):
    data = path.read_bytes()
    with intake.sender("test") as sender:
        taken = sender.take(data[i : i + 7] for i in range(0, len(data), 7))

    assert taken.outcome == "kept"
    (kept,) = intake.store.instances(taken.header.series_uid)
    assert kept.path.read_bytes() == data


def test_a_program_in_the_preamble_does_not_stay(intake, path):
    data = b"MZ\x90\0 a program".ljust(128, b"!") + path.read_bytes()[128:]

    (taken,) = take(intake, data)

    (kept,) = intake.store.instances(taken.header.series_uid)
    assert kept.path.read_bytes() == bytes(128) + data[128:]


@pytest.mark.parametrize("data", [b"", b"DICM", b"%PDF-1.7", bytes(200)])
def test_what_is_not_dicom_is_foreign_and_gone(intake, data):
    (taken,) = take(intake, data)

    assert (taken.outcome, taken.stored) == ("foreign", False)
    assert intake.store.quarantined() == []
    assert list((intake.store.folder / "incoming").iterdir()) == []


def test_a_damaged_image_is_quarantined_and_shown(intake, path):
    (taken,) = take(intake, path.read_bytes()[:-20])

    assert taken.outcome == "quarantined"
    (aside,) = intake.store.quarantined()
    assert "cut short" in aside.reason
    assert aside.path.stat().st_size == path.stat().st_size - 20
    assert "cut short" in intake.store.events()[0].text


def test_a_duplicate_with_other_content_is_quarantined_and_shown(intake, path):
    ds = pydicom.dcmread(path)
    take(intake, path)
    ds.PatientName = "Somebody^Else"
    ds.save_as(path)

    (taken,) = take(intake, path)

    assert taken.outcome == "quarantined"
    (event,) = intake.store.events()
    assert event.series_uid == ds.SeriesInstanceUID
    assert "Somebody" not in event.text


def test_what_is_too_large_is_gone(make_intake, path):
    intake = make_intake(limits={"instance_mb": 0.001})

    with intake.sender("test") as sender:
        taken = sender.take(path.read_bytes() for _ in iter(int, 1))  # a stream without end

    assert taken.outcome == "too large"
    assert list((intake.store.folder / "incoming").iterdir()) == []


def test_a_disk_with_too_little_left_takes_nothing(make_intake, path):
    intake = make_intake(store={"least_free_gb": 1e9})

    (taken,) = take(intake, path)

    assert (taken.outcome, taken.header) == ("no room", None)
    assert "least_free_gb" in intake.store.events()[0].text
    assert intake.store.counts()["instances"] == 0


@pytest.mark.parametrize("step", ["stage", "keep", "quarantine", "event"])
def test_a_disk_that_fails_at_any_step_takes_nothing_and_is_survived(intake, path, monkeypatch, step):
    def fail(*_args, **_kwargs):
        raise DataError("no space left")

    data = path.read_bytes()[:-20] if step in ("quarantine", "event") else path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(intake.store, step, fail)
        (taken,) = take(intake, data)

    assert taken.outcome == ("quarantined" if step == "event" else "no room")
    assert list((intake.store.folder / "incoming").iterdir()) == []
    assert take(intake, path)[0].outcome == "kept"


def test_a_flood_of_damaged_files_does_not_fill_the_disk(intake, path, monkeypatch):
    monkeypatch.setattr("focalis.device.received._QUARANTINED_BYTES", 2.5 * path.stat().st_size)
    data = path.read_bytes()[:-20]

    found = take(intake, *(data[:300] + bytes([number]) + data[301:] for number in range(5)))

    assert {taken.outcome for taken in found} == {"quarantined"}
    assert len(intake.store.quarantined()) == 2
    assert "quarantine is full" in found[-1].reason


def test_a_series_rests_while_its_sender_is_there(intake, path):
    with intake.sender("test") as sender:
        uid = sender.take([path.read_bytes()]).header.series_uid
        assert intake.store.series_row(uid).open_associations == 1
        assert intake.store.series_to_complete(0) == []
    assert intake.store.series_row(uid).open_associations == 0
    sender.close()

    assert len(intake.store.series_to_complete(0)) == 1


def of_class(path, kind):
    """The same image as an object of another class, with a UID of its own."""
    ds = pydicom.dcmread(path)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = kind
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
    ds.save_as(path)
    return path


def missing(intake, series_uid):
    return what_is_missing(intake.store, intake.store.series_row(series_uid))


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (uid.SecondaryCaptureImageStorage, True),
        (uid.RTDoseStorage, False),
        (uid.MRSpectroscopyStorage, False),
    ],
)
def test_an_image_of_another_class_makes_its_series_incomplete(
    intake, write_series, stored, grid, tmp_path, kind, told, first
):
    one, other, *_ = write_series(tmp_path / "s", stored, grid)
    other = of_class(other, kind)
    kept = next(each for each in take(intake, *((other, one) if first else (one, other))) if each.stored)
    assert bool(missing(intake, kept.header.series_uid)) == told


def test_what_comes_later_and_is_not_kept_has_its_series_looked_at_again(
    intake, write_series, stored, grid, tmp_path
):
    files = write_series(tmp_path / "s", stored, grid)
    (first, *_) = take(intake, *files)
    series_uid = first.header.series_uid
    lossy = pydicom.dcmread(files[0])
    lossy.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    changed = pydicom.dcmread(files[1])
    changed.PixelData = bytes(len(changed.PixelData))
    for dataset in (lossy, changed):
        intake.store.complete(series_uid)
        assert missing(intake, series_uid) == ()
        dataset.save_as(tmp_path / "late.dcm")
        (late,) = take(intake, tmp_path / "late.dcm")
        assert not late.stored
        assert intake.store.series_row(series_uid).state == "receiving"
        assert missing(intake, series_uid)
        for aside in intake.store.quarantined():
            intake.store.delete_quarantined(aside.sha256)
        take(intake, *files)


def test_patient_ids_that_differ_in_spelling_are_found_but_are_not_one_person(
    intake, write_series, stored, grid, tmp_path
):
    rows = []
    for number, patient in enumerate(("PAT-007", "pat 7", "PAT-070")):
        files = write_series(
            tmp_path / patient, stored, grid, PatientID=patient, StudyInstanceUID=f"1.2.{number}"
        )
        (taken,) = take(intake, files[0])
        rows.append(intake.store.series_row(taken.header.series_uid))
    one, other, stranger = rows
    store = intake.store
    assert [each.series_uid for each in store.namesakes(one)] == [other.series_uid]
    assert store.namesakes(stranger) == []
    assert [each.series_uid for each in store.series_of_person(one.person)] == [one.series_uid]
    assert namesake_studies(store, (), one).startswith("1 other study has nearly the same Patient ID")
    assert namesake_studies(store, (), stranger) == ""
    assert namesake_studies(store, (Route(model="m", follow_up=False),), one) == ""


def test_an_image_that_is_read_after_its_sender_was_cut_off_has_come_by_a_broken_sending(intake, path):
    sender = intake.sender("CT1")
    sender.close("CT1 was cut off: what it sent was not answered")
    taken = sender.take([path.read_bytes()])
    assert missing(intake, taken.header.series_uid) == ("CT1 was cut off: what it sent was not answered",)
