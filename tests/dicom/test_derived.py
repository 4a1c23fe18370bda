"""What Segmentation objects and RT Structure Sets share: identity, UIDs, times, and validity by dciodvfy."""

import resource
import shutil
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from focalis.dicom.derived import Caution, Origin, Superseded, read_origin
from focalis.dicom.segmentation import write_segmentation
from focalis.dicom.series import Series, read_series
from focalis.dicom.structures import write_structures
from focalis.errors import DataError
from focalis.identity import ModelIdentity
from focalis.volume import Grid

Builder = Callable[..., Any]
WRITERS: list[Callable[..., Any]] = [write_segmentation, write_structures]


@pytest.fixture
def series(tmp_path: Path, write_series: Builder, stored: np.ndarray, grid: Grid) -> Series:
    """An axial series."""
    return read_series(write_series(tmp_path / "images", stored, grid))


@pytest.fixture
def label(stored: np.ndarray) -> np.ndarray:
    """A label map with two labels."""
    return np.random.default_rng(0).integers(0, 3, stored.shape).astype(np.uint8)


def write(
    writer: Callable[..., Any], label: np.ndarray, series: Series, path: Path, **changed: Any
) -> pydicom.FileDataset:
    options: dict[str, Any] = {"names": {1: "a", 2: "b"}, "model": "abc", "version": "1.0", **changed}
    names, model, supersedes = (options.pop(key, None) for key in ("names", "model", "supersedes"))
    writer(label, names, series, path, Origin(ModelIdentity(model), **options), supersedes=supersedes)
    return pydicom.dcmread(path)


@pytest.mark.parametrize("most", [100, 1500, 3500])
@pytest.mark.parametrize("writer", WRITERS)
def test_an_object_that_the_system_cuts_short_is_not_a_result(
    tmp_path: Path, series: Series, label: np.ndarray, writer: Callable[..., Any], most: int
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        with pytest.raises(
            DataError, match=r"a.dcm: cannot be written \(File too large\); check folder and disk$"
        ):
            write(writer, label, series, tmp_path / "results" / "a.dcm")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "results").iterdir()) == []


@pytest.mark.parametrize("writer", WRITERS)
def test_the_same_result_is_the_same_file(
    tmp_path: Path, series: Series, label: np.ndarray, writer: Callable[..., Any]
) -> None:
    write(writer, label, series, tmp_path / "a.dcm")
    write(writer, label.astype(np.int64), read_series(series.files), tmp_path / "b.dcm")
    assert (tmp_path / "a.dcm").read_bytes() == (tmp_path / "b.dcm").read_bytes()


def test_another_result_is_another_object(
    tmp_path: Path, series: Series, label: np.ndarray, write_series: Builder, stored: np.ndarray, grid: Grid
) -> None:
    other_label = label.copy()
    other_label[0, 0, 0] = (label[0, 0, 0] + 1) % 3
    other_series = read_series(write_series(tmp_path / "other", stored, grid))
    results = [
        (writer, {"label": label, "series": series, **changed})
        for writer in WRITERS
        for changed in (
            {},
            {"label": other_label},
            {"series": other_series},
            {"model": "abd"},
            {"version": "1.1"},
            {"names": {1: "a", 2: "c"}},
            {"created": datetime(2025, 1, 1)},
        )
    ]
    written = [write(writer, path=tmp_path / "out.dcm", **options) for writer, options in results]
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        uids = [dataset[keyword].value for dataset in written]
        assert len(set(uids)) == len(uids)
        assert all(uid.is_valid and uid.startswith("2.25.") for uid in uids)


@pytest.mark.parametrize("writer", WRITERS)
def test_times_are_those_of_the_images_unless_told(
    tmp_path: Path, series: Series, label: np.ndarray, writer: Callable[..., Any]
) -> None:
    dataset = write(writer, label, series, tmp_path / "a.dcm")
    assert (dataset.SeriesDate, dataset.SeriesTime) == ("20240102", "101112")
    assert "InstanceCreationDate" not in dataset
    told = write(writer, label, series, tmp_path / "a.dcm", created=datetime(2025, 6, 7, 8, 9, 10, 11))
    assert (told.SeriesDate, told.SeriesTime) == ("20250607", "080910")


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
    ("offset", "date", "time"),
    [("+0545", "20250608", "034509"), ("-0330", "20250607", "183009"), ("+0000", "20250607", "220009")],
)
def test_a_time_is_written_in_the_zone_that_the_object_states(
    tmp_path: Path,
    write_series: Builder,
    stored: np.ndarray,
    grid: Grid,
    label: np.ndarray,
    writer: Callable[..., Any],
    offset: str,
    date: str,
    time: str,
) -> None:
    series = read_series(write_series(tmp_path / "images", stored, grid, TimezoneOffsetFromUTC=offset))
    created = datetime.fromisoformat("2025-06-07T22:00:09+00:00")
    told = write(writer, label, series, tmp_path / "a.dcm", created=created)
    assert told.TimezoneOffsetFromUTC == offset
    assert (told.SeriesDate, told.SeriesTime) == (date, time)
    assert (told.InstanceCreationDate, told.InstanceCreationTime) == (date, time)


@pytest.mark.parametrize("writer", WRITERS)
def test_patient_and_study_are_the_sources_whatever_its_character_set(
    tmp_path: Path,
    write_series: Builder,
    stored: np.ndarray,
    grid: Grid,
    label: np.ndarray,
    writer: Callable[..., Any],
) -> None:
    lacking = ("PatientSex", "PatientBirthDate", "AccessionNumber")
    paths = write_series(
        tmp_path / "images",
        stored,
        grid,
        SpecificCharacterSet=["", "ISO 2022 IR 87"],
        PatientName="Yamada^Tarou=山田^太郎",
        **dict.fromkeys(lacking),
    )
    series = read_series(paths)
    dataset = write(writer, label, series, tmp_path / "a.dcm")
    assert str(dataset.PatientName) == "Yamada^Tarou=山田^太郎"
    assert dataset.SpecificCharacterSet == "ISO_IR 192"
    assert "山田".encode() in (tmp_path / "a.dcm").read_bytes()
    for keyword in ("PatientID", "StudyInstanceUID", "StudyID", "StudyDate", "StudyDescription"):
        assert dataset[keyword].value == series.header[keyword].value
    for keyword in lacking:
        assert keyword in dataset
        assert not dataset[keyword].value


@pytest.mark.parametrize("writer", WRITERS)
def test_a_source_without_frame_of_reference_and_dates_is_served(
    tmp_path: Path,
    write_series: Builder,
    stored: np.ndarray,
    grid: Grid,
    label: np.ndarray,
    writer: Callable[..., Any],
) -> None:
    lacking = (
        "FrameOfReferenceUID",
        "PositionReferenceIndicator",
        "StudyDate",
        "StudyTime",
        "SeriesDate",
        "AcquisitionDate",
        "PatientName",
        "SeriesNumber",
    )
    paths = write_series(tmp_path / "images", stored, grid, **dict.fromkeys(lacking))
    dataset = write(writer, label, read_series(paths), tmp_path / "a.dcm")
    assert dataset.FrameOfReferenceUID.startswith("2.25.")
    assert dataset.SeriesDate[:2] == "20"


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"label": np.zeros((2, 3, 4), np.uint8)}, "does not fit the series"),
        ({"names": {1: "a"}}, "label value 2 has no name"),
        ({"names": {0: "background"}}, "without named labels"),
        ({"names": {1: "a", 2: "a"}}, "share a name"),
        ({"names": {1: "a", 2: "x" * 65}}, "1 to 64 characters"),
        ({"names": {1: "a", 2: "one\\two"}}, "no backslash"),
        ({"names": {1: "a", 2: " "}}, "1 to 64 characters"),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path,
    series: Series,
    label: np.ndarray,
    writer: Callable[..., Any],
    changed: dict[str, Any],
    named: str,
) -> None:
    with pytest.raises(DataError, match=named):
        write(writer, **{"label": label, "series": series, "path": tmp_path / "a.dcm", **changed})
    assert not (tmp_path / "a.dcm").exists()


def errors(path: Path) -> set[str]:
    """What dciodvfy calls an error in a file."""
    told = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    return {line for line in (told.stdout + told.stderr).splitlines() if line.startswith("Error")}


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
@pytest.mark.parametrize("multiframe", [False, True])
def test_dciodvfy_finds_no_error(
    tmp_path: Path,
    write_series: Builder,
    write_multiframe: Builder,
    stored: np.ndarray,
    oblique_grid: Grid,
    label: np.ndarray,
    writer: Callable[..., Any],
    modality: str,
    multiframe: bool,
) -> None:
    if multiframe:
        paths = [write_multiframe(tmp_path / "image.dcm", stored, oblique_grid, modality=modality)]
    else:
        paths = write_series(tmp_path / "images", stored, oblique_grid, modality=modality)
    series = read_series(paths)
    names = {1: "lesion", 2: "Ödem", 3: "nothing"}
    write(writer, label, series, tmp_path / "a.dcm", names=names, model="0123456789abcdef" * 4)
    assert errors(tmp_path / "a.dcm") == set()
    if writer is write_segmentation:
        write(writer, label * 0, series, tmp_path / "a.dcm", names=names)
        assert errors(tmp_path / "a.dcm") == set()


def test_cautions_come_back_from_a_segmentation(series, label, tmp_path):
    cautions = (
        Caution("OUT OF SCOPE", "the series is of MR; PARTIAL views: none; spacing of 5 mm"),
        Caution("FAILED TRAINING", "it found no lesion"),
    )
    for told in (cautions, ()):
        path = tmp_path / "seg.dcm"
        write(write_segmentation, label, series, path, cautions=told, supersedes=Superseded("1.2.3", "1.2.4"))
        assert read_origin(path).cautions == told


@pytest.mark.parametrize(
    ("told", "time"),
    [
        ("1011", "101100"),
        ("23", "230000"),
        ("000000", "000000"),
        ("10:11:12", "101112"),
        ("101112.999999", "101112"),
        ("236160", "000000"),
    ],
)
def test_times_without_seconds_and_of_the_old_kind_are_read(
    tmp_path, write_series, stored, grid, label, told, time
) -> None:
    files = write_series(tmp_path / "images", stored, grid)
    for file in files:
        content = pydicom.dcmread(file)
        content.add_new("AcquisitionTime", "SH", told)  # TM would complain
        content.AcquisitionDate = "20240229"
        content.save_as(file)
    dataset = write(write_segmentation, label, read_series(files), tmp_path / "a.dcm")
    assert (dataset.ContentDate, dataset.ContentTime[:6]) == ("20240229", time)


@pytest.mark.parametrize(
    "model",
    [
        ModelIdentity("lung, 2nd = best", "ab" * 32, "cd" * 32),
        ModelIdentity(weights_sha256="cd" * 32),
        ModelIdentity("masks that were given"),
    ],
)
def test_the_model_comes_back_from_a_segmentation(series, label, tmp_path, model):
    path = tmp_path / "seg.dcm"
    write_segmentation(label, {1: "a", 2: "b"}, series, path, Origin(model, "1.0"))
    assert read_origin(path).model == model


def test_the_model_of_an_older_segmentation_is_known_by_its_weights(series, label, tmp_path):
    path = tmp_path / "seg.dcm"
    written = write(write_segmentation, label, series, path, model="m")
    written.DeviceSerialNumber = "cd" * 32
    for segment in written.SegmentSequence:
        segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters = "model=" + "cd" * 32
    written.save_as(path)
    assert read_origin(path).model == ModelIdentity(weights_sha256="cd" * 32)
