"""Structured Reports and Secondary Captures: written, read back, read by highdicom, valid to dciodvfy."""

import shutil
import subprocess
from dataclasses import replace

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from structured_reports import read_report

from focalis.dicom import (
    Caution,
    Origin,
    ReportedChange,
    ReportedLesion,
    ReportedResponse,
    Superseded,
    read_series,
    write_capture,
    write_report,
    write_segmentation,
    write_structures,
)
from focalis.dicom.reported_change import (
    CHANGE,
    CURRENT_RESPONSE,
    DIAMETER_CHANGE,
    OVERALL_RESPONSE,
    SUM_OF_DIAMETERS,
    VOLUME_CHANGE,
)
from focalis.identity import ModelIdentity

NAMES = {1: "nodule", 3: "cyst"}
LESIONS = (
    ReportedLesion(1, 1, 123.4567, 7.5, (1.25, -3.5, 100.0)),
    ReportedLesion(2, 2, 8.0, 2.0, (0.0, 1e-7, -20.125)),
)
MODEL = ModelIdentity("nodules", "fedcba9876543210" * 4, "0123456789abcdef" * 4)
DEVICE = Origin(MODEL, "1.0")


@pytest.fixture
def series(write_series, stored, grid, tmp_path):
    return read_series(write_series(tmp_path / "images", stored, grid))


@pytest.fixture
def write(series, tmp_path):
    """Write a report on two labels; its path."""

    def call(lesions=LESIONS, label=None, name="report.dcm", **options):
        if label is None:
            label = np.zeros(series.volume.array.shape, np.uint8)
            label[1, 2:4, 2:4], label[3, 1, 1] = 1, 3
        segmentation = tmp_path / "seg.dcm"
        write_segmentation(label, NAMES, series, segmentation, DEVICE)
        origin = replace(DEVICE, cautions=options.pop("cautions", ()))
        write_report(lesions, label, NAMES, series, segmentation, tmp_path / name, origin, **options)
        return tmp_path / name

    return call


def test_a_report_comes_back_lesion_by_lesion(write, tmp_path):
    report = read_report(write())
    assert report.segmentation_uid == dcmread(tmp_path / "seg.dcm").SOPInstanceUID
    assert (report.model, report.version) == (MODEL, "1.0")
    for lesion, given in zip(report.lesions, LESIONS, strict=True):
        assert (lesion.number, lesion.segment) == (given.number, given.segment)
        assert lesion.volume_mm3 == pytest.approx(given.volume_mm3, abs=5e-4)
        assert lesion.longest_axial_mm == pytest.approx(given.longest_axial_mm, abs=5e-4)
        assert lesion.centroid_xyz_mm == pytest.approx(given.centroid_xyz_mm, abs=5e-4)
    assert len({lesion.tracking_uid for lesion in report.lesions}) == 2
    assert report.total == 2


def test_a_report_that_lists_only_some_lesions_says_how_many_there_are(write):
    report = read_report(write(LESIONS[1:], total=2))
    assert [lesion.number for lesion in report.lesions] == [2]
    assert report.total == 2


def test_a_promise_is_a_comment_unless_the_result_is_in_doubt(write):
    promise = "at most 5 % of a scan's lesions missed on average"
    assert read_report(write(promise=promise)).cautions == (
        f"Promise of the model's operating point: {promise}",
    )
    doubtful = write(promise=promise, cautions=(Caution("PARTIAL", "made of an incomplete series"),))
    assert read_report(doubtful).cautions == ("PARTIAL: made of an incomplete series",)


def test_highdicom_reads_one_volumetric_group_per_lesion(write):
    report = highdicom.sr.srread(write())
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["nodule 1", "cyst 2"]
    (volume,) = groups[0].get_measurements(name=highdicom.sr.CodedConcept("118565006", "SCT", "Volume"))
    assert volume.value == pytest.approx(123.457)
    assert volume.unit.value == "mm3"
    assert groups[1].finding_type.meaning == "Cyst"
    assert groups[0].referenced_segment.referenced_segment_numbers == [1]


@pytest.mark.parametrize(
    ("change", "meaning", "figures"),
    [
        (ReportedChange("increase", 31.25, 2.5), "Increase in size", [31.25, 2.5]),
        (ReportedChange("decrease", -40.0, -1.0), "Decrease in size", [-40.0, -1.0]),
        (ReportedChange("no change", 3.0, 0.1), "No significant changes in the finding", [3.0, 0.1]),
        (ReportedChange("unknown", 80.0, 4.0), "Indeterminate", [80.0, 4.0]),
        (ReportedChange("new"), "New lesion", []),
    ],
)
def test_a_change_is_reported_with_its_verdict(write, change, meaning, figures):
    path = write((replace(LESIONS[0], change=change), LESIONS[1]))
    first, second = highdicom.sr.srread(path).content.get_volumetric_roi_measurement_groups()
    (verdict,) = first.get_qualitative_evaluations(name=CHANGE)
    assert verdict.value.meaning == meaning
    told = [each for name in (VOLUME_CHANGE, DIAMETER_CHANGE) for each in first.get_measurements(name=name)]
    assert [each.value for each in told] == figures
    assert [each.unit.value for each in told] == ["%", "mm"][: len(figures)]
    assert second.get_qualitative_evaluations(name=CHANGE) == []


@pytest.mark.parametrize(
    ("response", "told"),
    [
        (
            ReportedResponse(24.5, "SD", "non-CR/non-PD", "PD"),
            [
                "Target Lesion Stable Disease",
                "Non-Target Lesion Incomplete Response or Stable Disease",
                "Progressive disease",
            ],
        ),
        (ReportedResponse(24.5, "PR", "none", "PR"), ["Target Lesion Partial Response", "Partial response"]),
        (ReportedResponse(None, "NE", "none", "NE"), ["Indeterminate", "Not evaluable"]),
        (ReportedResponse(24.5, "baseline", "none", "baseline"), []),
    ],
)
def test_the_response_is_reported_with_the_sum_of_diameters(write, response, told):
    (group,) = highdicom.sr.srread(write(response=response)).content.get_image_measurement_groups()
    found = [
        each.value.meaning
        for name in (CURRENT_RESPONSE, OVERALL_RESPONSE)
        for each in group.get_qualitative_evaluations(name=name)
    ]
    assert found == told
    sums = group.get_measurements(name=SUM_OF_DIAMETERS)
    assert [(each.value, each.method.meaning) for each in sums] == (
        [] if response.sum_mm is None else [(response.sum_mm, "RECIST 1.1")]
    )


def test_a_lesion_that_is_gone_is_reported_as_absent(write):
    path = write(gone={"nodule 7": "2.25.77"})
    group = highdicom.sr.srread(path).content.get_image_measurement_groups(tracking_uid="2.25.77")[0]
    assert group.tracking_identifier == "nodule 7"
    lesion = highdicom.sr.CodedConcept("52988006", "SCT", "Lesion")
    assert [each.value.meaning for each in group.get_qualitative_evaluations(name=lesion)] == ["Absent"]


def test_nothing_found_says_so(write, series):
    path = write((), np.zeros(series.volume.array.shape, np.uint8))
    assert read_report(path).lesions == ()
    (group,) = highdicom.sr.srread(path).content.get_image_measurement_groups()
    lesion = highdicom.sr.CodedConcept("52988006", "SCT", "Lesion")
    (evaluation,) = group.get_qualitative_evaluations(name=lesion)
    assert evaluation.value.meaning == "Absent"


def test_a_report_is_for_research_use_only_and_the_same_every_time(write):
    first = write()
    assert "for research use only" in dcmread(first).SeriesDescription
    texts = [element.value for element in dcmread(first).iterall() if element.keyword == "TextValue"]
    assert "for research use only" in texts
    assert first.read_bytes() == write(name="again.dcm").read_bytes()


def test_every_kind_of_result_names_what_it_supersedes(write, series, tmp_path):
    earlier = Superseded("2.25.11", "2.25.12")
    label = np.ones(series.volume.array.shape, np.uint8)
    told = {"origin": DEVICE, "supersedes": earlier}
    assert read_report(write(supersedes=earlier)).supersedes == ("2.25.11",)
    write_segmentation(label, NAMES, series, tmp_path / "new.dcm", **told)
    assert dcmread(tmp_path / "new.dcm").DerivationDescription == "Supersedes 2.25.11"
    write_segmentation(label, NAMES, series, tmp_path / "old.dcm", DEVICE)
    assert dcmread(tmp_path / "new.dcm").SOPInstanceUID != dcmread(tmp_path / "old.dcm").SOPInstanceUID
    write_structures(label, NAMES, series, tmp_path / "rt.dcm", **told)
    (item,) = dcmread(tmp_path / "rt.dcm").PredecessorStructureSetSequence
    assert item.ReferencedSOPInstanceUID == "2.25.11"
    write_capture(np.zeros((4, 5, 3), np.uint8), label, NAMES, series, tmp_path / "sc.dcm", **told)
    assert dcmread(tmp_path / "sc.dcm").DerivationDescription == "Supersedes 2.25.11"


def test_a_picture_comes_back(series, tmp_path):
    picture = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    label = np.zeros(series.volume.array.shape, np.uint8)
    write_capture(picture, label, NAMES, series, tmp_path / "sc.dcm", DEVICE)
    dataset = dcmread(tmp_path / "sc.dcm")
    np.testing.assert_array_equal(dataset.pixel_array, picture)
    assert dataset.StudyInstanceUID == series.header.StudyInstanceUID
    assert "for research use only" in dataset.SeriesDescription


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_dciodvfy_finds_no_error(write, series, tmp_path):
    label = np.ones(series.volume.array.shape, np.uint8)
    told = {"origin": DEVICE, "supersedes": Superseded("2.25.11", "2.25.12")}
    write_segmentation(label, NAMES, series, tmp_path / "new.dcm", **told)
    write_structures(label, NAMES, series, tmp_path / "rt.dcm", **told)
    write_capture(np.zeros((4, 5, 3), np.uint8), label, NAMES, series, tmp_path / "sc.dcm", **told)
    reports = [
        write(),
        write((), label * 0, "none.dcm"),
        write(name="later.dcm", supersedes=told["supersedes"]),
    ]
    for path in (*reports, tmp_path / "new.dcm", tmp_path / "rt.dcm", tmp_path / "sc.dcm"):
        told = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        lines = (told.stdout + told.stderr).splitlines()
        assert [line for line in lines if line.startswith("Error")] == [], path
