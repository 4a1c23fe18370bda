"""RT Structure Sets: masks to contours and back, and contours as other programs draw them."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from focalis.dicom import Origin, Superseded, write_segmentation
from focalis.dicom.contours import combine_contours, fill_contours
from focalis.dicom.series import Series, read_series
from focalis.dicom.structures import list_structures, read_structures, write_structures
from focalis.errors import DataError
from focalis.identity import ModelIdentity
from focalis.volume import Grid, to_sitk

Builder = Callable[..., Any]
NAMES = {0: "background", 1: "lesion", 4: "Läsion", 7: "nothing"}


@pytest.fixture
def series(tmp_path: Path, write_series: Builder, stored: np.ndarray, grid: Grid) -> Series:
    """An axial series of 7 x 6 x 5 voxels."""
    return read_series(write_series(tmp_path / "images", stored, grid))


def speckle(shape: tuple[int, ...]) -> np.ndarray:
    """Labels 1 and 4 at random: single voxels, voxels that touch at a corner, holes."""
    return np.random.default_rng(0).choice([0, 1, 4], shape, p=[0.4, 0.4, 0.2]).astype(np.uint8)


def write(label: np.ndarray, series: Series, path: Path, **changed: Any) -> bool:
    names, supersedes = changed.pop("names", NAMES), changed.pop("supersedes", None)
    origin = Origin(ModelIdentity(changed.pop("model", "abc")), **{"version": "1.0", **changed})
    return write_structures(label, names, series, path, origin, supersedes=supersedes)


def refusal(path: Path, series: Series, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_structures(path, series, **options)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what is written


def test_the_mask_comes_back_on_every_grid(
    tmp_path: Path, write_series: Builder, stored: np.ndarray, any_grid: Grid
) -> None:
    series = read_series(write_series(tmp_path / "images", stored, any_grid))
    label = speckle(stored.shape)
    assert write(label, series, tmp_path / "out.dcm")
    masks = read_structures(tmp_path / "out.dcm", series)
    assert list(masks) == ["lesion", "Läsion", "nothing"]
    for value, name in list(NAMES.items())[1:]:
        np.testing.assert_array_equal(masks[name], label == value)


def test_contours_run_through_voxel_corners_as_simpleitk_places_them(
    tmp_path: Path, write_series: Builder, stored: np.ndarray, oblique_grid: Grid
) -> None:
    series = read_series(write_series(tmp_path / "images", stored, oblique_grid))
    label = np.zeros(stored.shape, np.int16)
    label[3, 4, 2] = 1
    write(label, series, tmp_path / "out.dcm")
    (contour,) = pydicom.dcmread(tmp_path / "out.dcm").ROIContourSequence[0].ContourSequence
    image = to_sitk(series.volume)
    corners = [(1.5, 3.5, 3), (2.5, 3.5, 3), (2.5, 4.5, 3), (1.5, 4.5, 3)]
    expected = [image.TransformContinuousIndexToPhysicalPoint(corner) for corner in corners]
    np.testing.assert_allclose(np.reshape(contour.ContourData, (4, 3)), expected, atol=1e-5)
    assert contour.ContourGeometricType == "CLOSED_PLANAR"
    assert contour.NumberOfContourPoints == 4


@pytest.mark.parametrize("write_object", [write_structures, write_segmentation])
def test_a_series_that_was_read_is_not_read_again(
    tmp_path: Path, series: Series, write_object: Builder
) -> None:
    origin = Origin(ModelIdentity("abc"), "1.0")
    label = speckle(series.volume.array.shape)
    write_object(label, NAMES, series, tmp_path / "before.dcm", origin)
    for file in series.files:
        file.unlink()
    write_object(label, NAMES, series, tmp_path / "after.dcm", origin)
    assert (tmp_path / "after.dcm").read_bytes() == (tmp_path / "before.dcm").read_bytes()


def test_numbers_fit_16_bytes_far_from_the_origin(
    tmp_path: Path, write_series: Builder, stored: np.ndarray
) -> None:
    turn = np.cos(0.3), -np.sin(0.3), 0.0, np.sin(0.3), np.cos(0.3), 0.0, 0.0, 0.0, 1.0
    grid = Grid((7, 6, 5), (1 / 3, 0.7, 1.1), (-12345.678901, 98765.4321, -1e-7), turn)
    series = read_series(write_series(tmp_path / "images", stored, grid))
    label = speckle(stored.shape)
    write(label, series, tmp_path / "out.dcm")
    dataset = pydicom.dcmread(tmp_path / "out.dcm")
    texts = [
        number.original_string
        for roi in dataset.ROIContourSequence
        for contour in roi.get("ContourSequence", ())
        for number in contour.ContourData
    ]
    assert max(map(len, texts)) <= 16
    assert not any("e" in text or text == "-0" for text in texts)
    np.testing.assert_array_equal(read_structures(tmp_path / "out.dcm", series)["lesion"], label == 1)


def test_a_contour_lies_in_the_plane_of_its_image_where_slices_are_a_little_uneven(
    tmp_path: Path, write_series: Builder, stored: np.ndarray, grid: Grid
) -> None:
    paths = write_series(tmp_path / "images", stored, grid)
    dataset = pydicom.dcmread(paths[2])
    dataset.ImagePositionPatient[2] = float(dataset.ImagePositionPatient[2]) + 0.2
    dataset.save_as(paths[2])
    series = read_series(paths)
    label = speckle(stored.shape)
    write(label, series, tmp_path / "out.dcm")
    contours = pydicom.dcmread(tmp_path / "out.dcm").ROIContourSequence[0].ContourSequence
    image_of = {pydicom.dcmread(path).SOPInstanceUID: pydicom.dcmread(path) for path in paths}
    for contour in contours:
        image = image_of[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
        assert set(contour.ContourData[2::3]) == {image.ImagePositionPatient[2]}
    np.testing.assert_array_equal(read_structures(tmp_path / "out.dcm", series)["lesion"], label == 1)


def test_a_multiframe_source_is_referred_to_by_frame(
    tmp_path: Path, write_multiframe: Builder, stored: np.ndarray, grid: Grid
) -> None:
    series = read_series([write_multiframe(tmp_path / "image.dcm", stored, grid, order=[3, 0, 4, 1, 2])])
    label = np.zeros(stored.shape, np.uint8)
    label[1, 2:4, 2:4] = 1
    write(label, series, tmp_path / "out.dcm")
    dataset = pydicom.dcmread(tmp_path / "out.dcm")
    (reference,) = dataset.ROIContourSequence[0].ContourSequence[0].ContourImageSequence
    assert reference.ReferencedFrameNumber == 4
    assert reference.ReferencedSOPInstanceUID == series.instance_uids[0]
    study = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    assert len(study.RTReferencedSeriesSequence[0].ContourImageSequence) == 1
    np.testing.assert_array_equal(read_structures(tmp_path / "out.dcm", series)["lesion"], label == 1)


def test_what_the_object_says_of_itself(tmp_path: Path, series: Series) -> None:
    write(
        speckle(series.volume.array.shape), series, tmp_path / "out.dcm", created=datetime(2025, 6, 7, 8, 9)
    )
    dataset = pydicom.dcmread(tmp_path / "out.dcm")
    assert "for research use only" in dataset.SeriesDescription
    assert "for research use only" in dataset.StructureSetDescription
    assert (dataset.StructureSetDate, dataset.StructureSetTime) == ("20250607", "080900")
    assert dataset.ApprovalStatus == "UNAPPROVED"
    assert [roi.ROINumber for roi in dataset.StructureSetROISequence] == [1, 4, 7]
    assert {roi.ROIGenerationAlgorithm for roi in dataset.StructureSetROISequence} == {"AUTOMATIC"}
    study = dataset.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    (of,) = study.RTReferencedSeriesSequence
    assert of.SeriesInstanceUID == series.header.SeriesInstanceUID
    assert [item.ReferencedSOPInstanceUID for item in of.ContourImageSequence] == list(series.instance_uids)
    assert dataset.FrameOfReferenceUID == series.header.FrameOfReferenceUID


def test_nothing_found_writes_no_file_and_leaves_no_older_one(tmp_path: Path, series: Series) -> None:
    label = np.zeros(series.volume.array.shape, np.uint8)
    path = tmp_path / "out.dcm"
    assert not write(label, series, path)
    assert not path.exists()
    label[0, 0, 0] = 1
    assert write(label, series, path)
    assert not write(label * 0, series, path)
    assert not path.exists()


def test_nothing_found_withdraws_an_earlier_structure_set_by_one_without_contours(
    tmp_path: Path, series: Series
) -> None:
    label = np.zeros(series.volume.array.shape, np.uint8)
    path = tmp_path / "out.dcm"
    assert write(label, series, path, supersedes=Superseded("1.2.3", "1.2"))
    dataset = pydicom.dcmread(path)
    assert dataset.PredecessorStructureSetSequence[0].ReferencedSOPInstanceUID == "1.2.3"
    assert [each.has_outlines for each in list_structures(path)] == [False] * 3
    assert not any(mask.any() for mask in read_structures(path, series).values())


def test_an_image_of_the_series_is_neither_overwritten_nor_removed(series: Series) -> None:
    label = np.zeros(series.volume.array.shape, np.uint8)
    for value in (0, 1):
        label[0, 0, 0] = value
        with pytest.raises(DataError, match="is an image of the series"):
            write(label, series, series.files[2])
    assert len(read_series(series.files).files) == 5


# --- what others write


def foreign(
    path: Path, series: Series, rois: Sequence[tuple[str, Sequence[tuple[str, Any]]]], **attributes: Any
) -> Path:
    """An RT Structure Set of named structures with (geometric type, points x, y, z in mm) contours."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = RTStructureSetStorage, generate_uid()
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, meta.MediaStorageSOPInstanceUID
    dataset.Modality = "RTSTRUCT"
    dataset.FrameOfReferenceUID = series.header.FrameOfReferenceUID
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(rois, start=11):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        drawn.ReferencedROINumber = number
        drawn.ContourSequence = []
        for kind, points in contours:
            contour = Dataset()
            contour.ContourGeometricType = kind
            contour.NumberOfContourPoints = len(points)
            contour.ContourData = [f"{number:.4f}" for number in np.ravel(points)]
            image = Dataset()  # of some other image: references are not believed
            image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = generate_uid(), generate_uid()
            contour.ContourImageSequence = [image]
            drawn.ContourSequence.append(contour)
        dataset.StructureSetROISequence.append(roi)
        # in another order than the structures, and none at all for a structure without contours
        if contours:
            dataset.ROIContourSequence.insert(0, drawn)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def square(series: Series, z: float, low: float, high: float) -> np.ndarray:
    """The patient positions of a square in pixel indices, on the plane z."""
    corners = np.array([(low, low, z), (high, low, z), (high, high, z), (low, high, z)])
    image = to_sitk(series.volume)
    return np.array([image.TransformContinuousIndexToPhysicalPoint(corner.tolist()) for corner in corners])


@pytest.mark.parametrize("kind", ["CLOSED_PLANAR", "CLOSEDPLANAR_XOR"])
def test_a_contour_inside_another_is_a_hole(tmp_path: Path, series: Series, kind: str) -> None:
    drawn = [(kind, square(series, 2, 0.6, 4.4)), (kind, square(series, 2, 1.6, 3.4))]
    path = foreign(tmp_path / "a.dcm", series, [("ring", drawn)])
    expected = np.zeros(series.volume.array.shape, bool)
    expected[2, 1:5, 1:5] = True
    expected[2, 2:4, 2:4] = False
    np.testing.assert_array_equal(read_structures(path, series)["ring"], expected)


def test_a_keyhole_of_no_width_is_a_hole(tmp_path: Path, series: Series) -> None:
    outer, inner = square(series, 2, 0.6, 4.4), square(series, 2, 1.6, 3.4)
    points = np.concatenate([outer, outer[:1], inner[::-1], inner[-1:]])
    path = foreign(tmp_path / "a.dcm", series, [("ring", [("CLOSED_PLANAR", points)])])
    assert read_structures(path, series)["ring"].sum() == 16 - 4


@pytest.mark.parametrize(("z", "belongs_to"), [(2.0, 2), (2.3, 2), (1.55, 2), (-0.45, 0), (4.45, 4)])
def test_a_contour_belongs_to_the_slice_nearest_to_its_plane(
    tmp_path: Path, series: Series, z: float, belongs_to: int
) -> None:
    path = foreign(tmp_path / "a.dcm", series, [("a", [("CLOSED_PLANAR", square(series, z, 0.6, 4.4))])])
    assert np.flatnonzero(read_structures(path, series)["a"].any(axis=(1, 2))).tolist() == [belongs_to]


@pytest.mark.parametrize(("z", "named"), [(-0.6, "1.50 mm beyond.*first"), (6.0, "5.00 mm beyond.*last")])
def test_a_contour_beyond_the_slices_is_refused(tmp_path: Path, series: Series, z: float, named: str) -> None:
    path = foreign(tmp_path / "a.dcm", series, [("a", [("CLOSED_PLANAR", square(series, z, 0.6, 4.4))])])
    message = refusal(path, series)
    assert re.search(named, message)
    assert "structure 'a', contour 1" in message


def test_contours_drawn_on_finer_slices_are_refused(tmp_path: Path, series: Series) -> None:
    drawn = [("CLOSED_PLANAR", square(series, z, 0.6, 4.4)) for z in (1.7, 2.2)]
    assert "1.25 mm apart" in refusal(foreign(tmp_path / "a.dcm", series, [("a", drawn)]), series)


def test_a_contour_across_the_slices_is_refused(tmp_path: Path, series: Series) -> None:
    points = square(series, 2, 0.6, 4.4)
    points[2:, 2] += 2.5
    path = foreign(tmp_path / "a.dcm", series, [("a", [("CLOSED_PLANAR", points)])])
    assert "not parallel to the slices" in refusal(path, series)


def test_a_contour_wholly_beside_the_image_is_refused_and_one_across_its_edge_cut(
    tmp_path: Path, series: Series
) -> None:
    path = foreign(tmp_path / "a.dcm", series, [("a", [("CLOSED_PLANAR", square(series, 2, 40.0, 44.0))])])
    assert "lies beside the image" in refusal(path, series)
    foreign(path, series, [("a", [("CLOSED_PLANAR", square(series, 2, 3.6, 44.0))])])
    expected = np.zeros(series.volume.array.shape, bool)
    expected[2, 4:, 4:] = True
    np.testing.assert_array_equal(read_structures(path, series)["a"], expected)


def test_a_contour_that_leaves_the_image_is_reported_and_a_stray_point_refused(
    tmp_path: Path, series: Series
) -> None:
    for reach, told in ((5.9, 0), (9.0, 1)):
        drawn = [
            ("CLOSED_PLANAR", square(series, 2, 1.6, reach)),
            ("CLOSED_PLANAR", square(series, 3, 0.6, 4.4)),
        ]
        doubts: list[str] = []
        path = foreign(tmp_path / "a.dcm", series, [("a", drawn)])
        assert read_structures(path, series, doubts=doubts)["a"][2].sum() == (20 if told else 16)
        assert ["1 of its 2 contours reach beyond the image" in each for each in doubts] == [True] * told
    for stray in (-1400, 1900):
        points = square(series, 2, 1.6, 4.4)
        points[1] = square(series, 2, stray, stray)[0]
        path = foreign(tmp_path / "a.dcm", series, [("a", [("CLOSED_PLANAR", points)])])
        assert "mm off the image" in refusal(path, series)


def test_two_sets_of_contours_for_one_structure_are_refused(tmp_path: Path, series: Series) -> None:
    drawn = [("CLOSED_PLANAR", square(series, z, 0.6, 4.4)) for z in (1, 2)]
    path = foreign(tmp_path / "a.dcm", series, [("a", drawn[:1]), ("b", drawn[1:])])
    dataset = pydicom.dcmread(path)
    for item in dataset.ROIContourSequence:
        item.ReferencedROINumber = 12
    dataset.save_as(path)
    assert "two sets of contours for structure 12" in refusal(path, series)


def test_points_and_open_lines_enclose_nothing(tmp_path: Path, series: Series) -> None:
    whole = square(series, 2, 0.6, 4.4)
    drawn = [("POINT", whole[:1]), ("OPEN_PLANAR", whole), ("OPEN_NONPLANAR", whole)]
    drawn += [("CLOSED_PLANAR", whole[:2]), ("CLOSED_PLANAR", square(series, 3, 0.6, 4.4))]
    path = foreign(tmp_path / "a.dcm", series, [("a", drawn), ("marker", drawn[:1]), ("none", [])])
    listed = [(each.name, each.contours, each.passed_over) for each in list_structures(path)]
    assert listed == [("a", 1, 4), ("marker", 0, 1), ("none", 0, 0)]
    masks = read_structures(path, series)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"a": 16, "marker": 0, "none": 0}


def test_structures_of_one_name_are_kept_apart_by_number(tmp_path: Path, series: Series) -> None:
    drawn = [[("CLOSED_PLANAR", square(series, z, 0.6, 4.4))] for z in (1, 2, 3)]
    path = foreign(tmp_path / "a.dcm", series, [("GTV", drawn[0]), ("GTV", drawn[1]), ("", drawn[2])])
    masks = read_structures(path, series)
    assert list(masks) == ["GTV #11", "GTV #12", "structure #13"]
    assert [int(np.argmax(mask.any(axis=(1, 2)))) for mask in masks.values()] == [1, 2, 3]


def test_only_wanted_structures_are_looked_at(tmp_path: Path, series: Series) -> None:
    good, bad = square(series, 2, 0.6, 4.4), square(series, 20, 0.6, 4.4)
    path = foreign(
        tmp_path / "a.dcm", series, [("a", [("CLOSED_PLANAR", good)]), ("couch", [("CLOSED_PLANAR", bad)])]
    )
    assert list(read_structures(path, series, wanted=["a"])) == ["a"]
    assert "'couch'" in refusal(path, series)
    assert "has no structure 'b'; it has a, couch" in refusal(path, series, wanted=["b"])


def test_the_object_must_belong_to_the_series(tmp_path: Path, series: Series) -> None:
    drawn = [("a", [("CLOSED_PLANAR", square(series, 2, 0.6, 4.4))])]
    path = foreign(tmp_path / "a.dcm", series, drawn, FrameOfReferenceUID=generate_uid())
    assert "was not drawn on the series" in refusal(path, series)
    # one of the two links is enough: de-identification often breaks the other
    on, study, frame = Dataset(), Dataset(), Dataset()
    on.SeriesInstanceUID = series.header.SeriesInstanceUID
    study.RTReferencedSeriesSequence = [on]
    frame.FrameOfReferenceUID = generate_uid()
    frame.RTReferencedStudySequence = [study]
    foreign(path, series, drawn, FrameOfReferenceUID="", ReferencedFrameOfReferenceSequence=[frame])
    assert read_structures(path, series)["a"].sum() == 16


def test_damaged_points_and_other_files_are_refused(tmp_path: Path, series: Series) -> None:
    path = foreign(tmp_path / "a.dcm", series, [("a", [("CLOSED_PLANAR", square(series, 2, 0.6, 4.4))])])
    content = path.read_bytes()
    dataset = pydicom.dcmread(path)
    dataset.ROIContourSequence[0].ContourSequence[0].ContourData = ["1.5"] * 10
    dataset.save_as(path)
    assert "points are damaged" in refusal(path, series)
    path.write_bytes(content.replace(b"0000\\", b"zero\\"))
    assert "points are damaged" in refusal(path, series)
    assert "give an RT Structure Set" in refusal(series.files[0], series)
    assert "No such file" in refusal(tmp_path / "none.dcm", series)


# --- contours that repeat, overlap, are open or leave gaps


def read_with_doubts(path: Path, series: Series) -> tuple[np.ndarray, list[str]]:
    doubts: list[str] = []
    (mask,) = read_structures(path, series, doubts=doubts).values()
    return mask, [doubt.removeprefix(f"{path}: structure 'a': ") for doubt in doubts]


@pytest.mark.parametrize(
    "again",
    [
        lambda points: points,
        lambda points: points[::-1],
        lambda points: np.roll(points, 2, axis=0),
        lambda points: np.concatenate([points, points[:1]]),
        lambda points: points + np.array([0.01, -0.01, 0]),
    ],
    ids=["same", "other direction", "other start", "closed by its first point", "rounded"],
)
@pytest.mark.parametrize("times", [1, 2])
def test_a_repeated_contour_counts_once(
    tmp_path: Path, series: Series, again: Callable[[np.ndarray], np.ndarray], times: int
) -> None:
    points = square(series, 2, 0.6, 4.4)
    drawn = [("CLOSED_PLANAR", points), *[("CLOSED_PLANAR", again(points))] * times]
    mask, doubts = read_with_doubts(foreign(tmp_path / "a.dcm", series, [("a", drawn)]), series)
    assert mask.sum() == 16
    assert doubts == [f"{times} of its {times + 1} contours repeat another one and count once"]


RETRACED = "contours lie just inside a nearly identical one and count once"


def circle(radius: float, centre: float = 30.0, corners: int = 90) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def covered(*polygons: np.ndarray) -> tuple[int, int, int]:
    """The pixels that polygons of one structure cover, and how many of them were retraced or thin."""
    filled = combine_contours(polygons, (61, 61))
    return int(filled.mask.sum()), filled.retraced, filled.thin


def disc(radius: float) -> int:
    return int(fill_contours([circle(radius)], (61, 61)).sum())


@pytest.mark.parametrize("step", [1, -1], ids=["same direction", "other direction"])
def test_a_contour_redrawn_just_inside_counts_once(tmp_path: Path, series: Series, step: int) -> None:
    drawn = [
        ("CLOSED_PLANAR", square(series, 2, 0.9, 5.1)),
        ("CLOSED_PLANAR", square(series, 2, 1.1, 5.1)[::step]),
    ]
    mask, doubts = read_with_doubts(foreign(tmp_path / "a.dcm", series, [("a", drawn)]), series)
    assert mask.sum() == 25
    assert doubts == [f"1 of its 2 {RETRACED}"]


@pytest.mark.parametrize(("radius", "again"), [(3.1, 2.9), (8.0, 7.4), (25.0, 23.4)])
def test_nearly_identical_outlines_leave_no_ring(radius: float, again: float) -> None:
    assert covered(circle(radius), circle(again)) == (disc(radius), 1, 0)
    assert covered(circle(again), circle(radius)) == (disc(radius), 1, 0)


def test_outlines_drawn_three_times_count_once() -> None:
    assert covered(circle(12), circle(11.2), circle(10.4)) == (disc(12), 2, 0)


def test_the_hole_of_a_redrawn_outline_and_a_redrawn_hole_stay_holes() -> None:
    ring = disc(20) - disc(9)
    assert covered(circle(20), circle(19.2), circle(9)) == (ring, 1, 0)
    assert covered(circle(20), circle(9), circle(8.5)) == (ring, 1, 0)


def test_a_redrawn_keyhole_stays_a_hole() -> None:
    def keyhole(outer: float, inner: float) -> np.ndarray:
        around, hole = circle(outer), circle(inner)[::-1]
        start = np.roll(hole, 1, axis=0)
        return np.concatenate([around, around[:1], start, start[:1]])

    assert covered(keyhole(20, 8), keyhole(19.5, 8.3)) == (disc(20) - disc(8), 1, 0)
    assert covered(keyhole(20, 19))[0] == disc(20) - disc(19)


@pytest.mark.parametrize("hole", [5.0, 14.0, 17.0])
def test_a_smaller_contour_inside_is_a_hole_without_doubt(hole: float) -> None:
    assert covered(circle(20), circle(hole)) == (disc(20) - disc(hole), 0, 0)


def test_a_thin_wall_of_several_pixels_is_kept_and_told() -> None:
    assert covered(circle(28), circle(25.5)) == (disc(28) - disc(25.5), 0, 1)


def test_a_contour_that_walks_its_way_twice_is_filled(tmp_path: Path, series: Series) -> None:
    points = np.tile(square(series, 2, 0.6, 4.4), (2, 1))
    path = foreign(tmp_path / "a.dcm", series, [("a", [("CLOSED_PLANAR", points)])])
    assert read_with_doubts(path, series)[0].sum() == 16


def test_overlapping_contours_are_united(tmp_path: Path, series: Series) -> None:
    drawn = [("CLOSED_PLANAR", square(series, 2, 0.6, 3.4)), ("CLOSED_PLANAR", square(series, 2, 1.6, 4.4))]
    mask, doubts = read_with_doubts(foreign(tmp_path / "a.dcm", series, [("a", drawn)]), series)
    assert mask.sum() == 9 + 9 - 4
    assert doubts == ["2 of its 2 contours overlap and were united"]


def test_an_island_in_a_hole_is_filled(tmp_path: Path, series: Series) -> None:
    ends = ((-0.4, 5.4), (0.6, 4.4), (1.6, 3.4))
    drawn = [("CLOSED_PLANAR", square(series, 2, *each)) for each in ends]
    mask, doubts = read_with_doubts(foreign(tmp_path / "a.dcm", series, [("a", drawn)]), series)
    assert mask.sum() == 36 - 16 + 4
    assert doubts == []


def test_open_contours_and_the_gap_they_leave_are_reported(tmp_path: Path, series: Series) -> None:
    kinds = ["CLOSED_PLANAR", "OPEN_PLANAR", "OPEN_PLANAR", "CLOSED_PLANAR"]
    drawn = [(kind, square(series, z, 0.6, 4.4)) for z, kind in enumerate(kinds)]
    mask, doubts = read_with_doubts(foreign(tmp_path / "a.dcm", series, [("a", drawn)]), series)
    assert mask.sum(axis=(1, 2)).tolist() == [16, 0, 0, 16, 0]
    assert doubts[0] == "2 of its 4 contours are not closed and were passed over"
    assert doubts[1].startswith("has no contour on the slices 1 to 2")


def test_separate_lesions_of_one_structure_leave_no_gap(tmp_path: Path, series: Series) -> None:
    drawn = [("CLOSED_PLANAR", square(series, 0, -0.4, 1.4)), ("CLOSED_PLANAR", square(series, 4, 2.6, 4.4))]
    assert read_with_doubts(foreign(tmp_path / "a.dcm", series, [("a", drawn)]), series)[1] == []


@pytest.mark.parametrize(("kind", "low", "high"), [("OPEN_PLANAR", 0.6, 4.4), ("CLOSED_PLANAR", 1.1, 1.4)])
def test_outlines_that_enclose_no_voxel_are_refused(
    tmp_path: Path, series: Series, kind: str, low: float, high: float
) -> None:
    path = foreign(tmp_path / "a.dcm", series, [("a", [(kind, square(series, 2, low, high))])])
    assert "structure 'a': has contours that enclose no voxel" in refusal(path, series)


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS", "ignore:The value length")
@pytest.mark.parametrize("kind", ["CLOSED_PLANAR_XOR", "closedplanar_xor", "closed_planar"])
def test_a_kind_of_contour_may_be_spelt_otherwise(tmp_path: Path, series: Series, kind: str) -> None:
    drawn = [(kind, square(series, 2, 0.6, 4.4)), (kind, square(series, 2, 1.6, 3.4))]
    path = foreign(tmp_path / "a.dcm", series, [("ring", drawn)])
    assert read_structures(path, series)["ring"].sum() == 16 - 4


def test_contours_of_a_structure_that_is_not_described_are_refused(tmp_path: Path, series: Series) -> None:
    whole = [("CLOSED_PLANAR", square(series, 2, 0.6, 4.4))]
    path = foreign(tmp_path / "a.dcm", series, [("a", whole), ("b", whole)])
    dataset = pydicom.dcmread(path)
    del dataset.StructureSetROISequence[1]
    dataset.save_as(path)
    assert "contours of structure 12, which it does not describe" in refusal(path, series)


def test_a_structure_of_another_frame_of_reference_is_refused(tmp_path: Path, series: Series) -> None:
    whole = [("CLOSED_PLANAR", square(series, 2, 0.6, 4.4))]
    path = foreign(tmp_path / "a.dcm", series, [("on ct", whole), ("on mr", whole)])
    dataset = pydicom.dcmread(path)
    for roi, frame in zip(
        dataset.StructureSetROISequence, (series.header.FrameOfReferenceUID, generate_uid()), strict=True
    ):
        roi.ReferencedFrameOfReferenceUID = frame
    dataset.save_as(path)
    assert "'on mr': was drawn in another frame of reference" in refusal(path, series)
    assert read_structures(path, series, ["on ct"])["on ct"].sum() == 16


def test_contours_off_their_slice_or_short_of_points_are_reported(tmp_path: Path, series: Series) -> None:
    drawn = [("CLOSED_PLANAR", square(series, z, 0.6, 4.4)) for z in (1.35, 2, 2.9)]
    path = foreign(tmp_path / "a.dcm", series, [("a", drawn)])
    dataset = pydicom.dcmread(path)
    dataset.ROIContourSequence[0].ContourSequence[1].NumberOfContourPoints = 17
    dataset.save_as(path)
    doubts: list[str] = []
    read_structures(path, series, doubts=doubts)
    assert [doubt.partition("'a': ")[2] for doubt in doubts] == [
        "1 of its 3 contours hold another number of points than they state",
        "1 of its 3 contours lie up to 0.35 slices off the slice that they count for",
    ]


def test_contours_with_an_offset_are_refused(tmp_path: Path, series: Series) -> None:
    path = foreign(tmp_path / "a.dcm", series, [("a", [("CLOSED_PLANAR", square(series, 2, 0.6, 4.4))])])
    dataset = pydicom.dcmread(path)
    contour = dataset.ROIContourSequence[0].ContourSequence[0]
    contour.ContourOffsetVector = [0, 0, 0]
    dataset.save_as(path)
    assert read_structures(path, series)["a"].sum() == 16
    contour.ContourOffsetVector = [0, 0, 2.5]
    dataset.save_as(path)
    assert "has an offset" in refusal(path, series)
