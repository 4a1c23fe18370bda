"""Segmentation objects: written, and read as highdicom and other programs write them."""

import resource
import shutil
import subprocess
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription, segread
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from focalis.colours import label_colour
from focalis.dicom import Origin, read_origin
from focalis.dicom.derived import GIVEN_MASKS
from focalis.dicom.segmentation import list_segments, read_segmentation, write_segmentation
from focalis.dicom.series import Series, read_series
from focalis.errors import DataError
from focalis.identity import ModelIdentity
from focalis.volume import Grid

Builder = Callable[..., Any]
NAMES = {0: "background", 1: "lesion", 4: "Läsion", 7: "nothing"}


@pytest.fixture
def series(tmp_path: Path, write_series: Builder, stored: np.ndarray, grid: Grid) -> Series:
    """An axial series of 7 x 6 x 5 voxels: frames of 42 bits, no whole bytes."""
    return read_series(write_series(tmp_path / "images", stored, grid))


def speckle(shape: tuple[int, ...]) -> np.ndarray:
    """Labels 1 and 4 at random, and slices without them."""
    label = np.random.default_rng(0).choice([0, 1, 4], shape, p=[0.5, 0.3, 0.2]).astype(np.uint8)
    label[1] = 0
    label[2][label[2] == 4] = 0
    return label


def write(label: np.ndarray, series: Series, path: Path, **changed: Any) -> None:
    of_the_object = {key: changed.pop(key) for key in ("supersedes", "tracking") if key in changed}
    names, model = changed.pop("names", NAMES), ModelIdentity(weights_sha256=changed.pop("model", "abc"))
    write_segmentation(
        label, names, series, path, Origin(model, **{"version": "1.0", **changed}), **of_the_object
    )


def refusal(path: Path, series: Series, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_segmentation(path, series, **options)
    assert str(caught.value).startswith(f"{path}")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what is written


def test_the_mask_comes_back_on_every_grid(
    tmp_path: Path, write_series: Builder, stored: np.ndarray, any_grid: Grid
) -> None:
    series = read_series(write_series(tmp_path / "images", stored, any_grid))
    label = speckle(stored.shape)
    write(label, series, tmp_path / "out.dcm")
    masks = read_segmentation(tmp_path / "out.dcm", series)
    assert list(masks) == ["lesion", "Läsion", "nothing"]
    for value, name in list(NAMES.items())[1:]:
        np.testing.assert_array_equal(masks[name], label == value)


def test_highdicom_reads_what_was_written(tmp_path: Path, series: Series) -> None:
    label = speckle(series.volume.array.shape)
    write(label, series, tmp_path / "out.dcm")
    peer = segread(tmp_path / "out.dcm")
    frames = peer.get_pixels_by_source_instance(
        source_sop_instance_uids=list(series.instance_uids), assert_missing_frames_are_empty=True
    )
    for index, value in enumerate((1, 4, 7)):
        np.testing.assert_array_equal(frames[..., index], label == value)
    assert [peer.get_segment_description(n).segment_label for n in (1, 2, 3)] == [
        "lesion",
        "Läsion",
        "nothing",
    ]
    # and by position: in highdicom's volumes the last slice along row x column comes first
    volume = peer.get_volume(segment_numbers=[1], combine_segments=True)
    np.testing.assert_array_equal(volume.array[::-1] > 0, label == 1)
    np.testing.assert_allclose(volume.position, series.volume.grid.to_patient((0, 0, 4)))


def test_a_multiframe_source_is_referred_to_by_frame(
    tmp_path: Path, write_multiframe: Builder, stored: np.ndarray, grid: Grid
) -> None:
    series = read_series([write_multiframe(tmp_path / "image.dcm", stored, grid, order=[3, 0, 4, 1, 2])])
    label = np.zeros(stored.shape, np.uint8)
    label[1, 2:4, 2:4], label[2, 0, 0] = 1, 4
    write(label, series, tmp_path / "out.dcm")
    dataset = pydicom.dcmread(tmp_path / "out.dcm")
    assert len(dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 1
    found = [
        group.DerivationImageSequence[0].SourceImageSequence[0]
        for group in dataset.PerFrameFunctionalGroupsSequence
    ]
    assert [source.ReferencedFrameNumber for source in found] == [4, 5]
    assert {source.ReferencedSOPInstanceUID for source in found} == {series.instance_uids[0]}
    assert {source.ReferencedSOPClassUID for source in found} == {series.header.SOPClassUID}
    masks = read_segmentation(tmp_path / "out.dcm", series)
    np.testing.assert_array_equal(masks["lesion"], label == 1)
    np.testing.assert_array_equal(masks["Läsion"], label == 4)


def test_what_the_object_says_of_itself(tmp_path: Path, series: Series) -> None:
    names = {1: "Lung tumour", 2: "edema", 3: "hippocampus"}
    label = np.zeros(series.volume.array.shape, np.uint8)
    label[3, 2, 2:5] = 1, 2, 3
    write(
        label, series, tmp_path / "out.dcm", names=names, model="f" * 64, created=datetime(2025, 6, 7, 8, 9)
    )
    dataset = pydicom.dcmread(tmp_path / "out.dcm")
    assert dataset.SegmentationType == "BINARY"
    assert "for research use only" in dataset.SeriesDescription
    assert (dataset.ContentDate, dataset.ContentTime[:6]) == ("20250607", "080900")
    (of,) = dataset.ReferencedSeriesSequence
    assert of.SeriesInstanceUID == series.header.SeriesInstanceUID
    assert [i.ReferencedSOPInstanceUID for i in of.ReferencedInstanceSequence] == list(series.instance_uids)
    source = dataset.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    assert source.ReferencedSOPInstanceUID == series.instance_uids[3]
    for segment in dataset.SegmentSequence:
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("Focalis", "1.0")
        assert "f" * 64 in algorithm.AlgorithmParameters
        assert "for research use only" in segment.SegmentDescription
    listed = list_segments(tmp_path / "out.dcm")
    assert [segment.property_type for segment in listed] == ["Neoplasm", "Edema", "Lesion"]
    assert {segment.category for segment in listed} == {"Morphologically Abnormal Structure"}


def test_segments_have_the_colours_of_the_labels(tmp_path: Path, series: Series) -> None:
    write(speckle(series.volume.grid.shape_zyx), series, tmp_path / "seg.dcm")
    found = [
        CIELabColor.from_dicom_value(list(each.RecommendedDisplayCIELabValue)).to_rgb()
        for each in pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence
    ]
    np.testing.assert_allclose(found, [label_colour(place) for place in range(3)], atol=1)


def test_a_reviewed_object_names_its_reviewer(tmp_path: Path, series: Series) -> None:
    label = speckle(series.volume.array.shape)
    write(label, series, tmp_path / "first.dcm")
    write(label, series, tmp_path / "reviewed.dcm", reviewer="Dr. Ödön")

    first, reviewed = segread(tmp_path / "first.dcm"), segread(tmp_path / "reviewed.dcm")

    assert reviewed.SOPInstanceUID != first.SOPInstanceUID
    assert reviewed.ContentCreatorName == "Dr. Ödön"
    assert reviewed.SeriesDescription == "Focalis segmentation, reviewed, for research use only"
    for segment in reviewed.SegmentSequence:
        assert segment.SegmentAlgorithmType == "SEMIAUTOMATIC"
        assert segment.SegmentDescription == "Found by Focalis, reviewed by Dr. Ödön, for research use only"
    assert {segment.SegmentAlgorithmType for segment in first.SegmentSequence} == {"AUTOMATIC"}


@pytest.mark.parametrize(
    ("told", "kind", "algorithms"),
    [
        ({"pointed": True}, "SEMIAUTOMATIC", 1),
        ({"pointed": True, "reviewer": "a"}, "SEMIAUTOMATIC", 1),
        ({"model": GIVEN_MASKS}, "MANUAL", 0),
    ],
)
def test_an_object_says_how_much_of_it_is_a_persons_work(
    tmp_path: Path, series: Series, told: dict[str, Any], kind: str, algorithms: int
) -> None:
    origin = Origin(**{"model": ModelIdentity("m"), "version": "1", **told})
    write_segmentation(speckle(series.volume.array.shape), NAMES, series, tmp_path / "seg.dcm", origin)
    for segment in segread(tmp_path / "seg.dcm").SegmentSequence:
        assert segment.SegmentAlgorithmType == kind
        assert len(segment.get("SegmentationAlgorithmIdentificationSequence", [])) == algorithms
    assert read_origin(tmp_path / "seg.dcm").version == "1"


def test_nothing_found_is_a_valid_object_of_empty_frames(tmp_path: Path, series: Series) -> None:
    write(np.zeros(series.volume.array.shape, np.uint8), series, tmp_path / "out.dcm")
    dataset = pydicom.dcmread(tmp_path / "out.dcm")
    assert dataset.NumberOfFrames == 3
    assert not any(dataset.PixelData)
    of = dataset.ReferencedSeriesSequence[0]
    assert [i.ReferencedSOPInstanceUID for i in of.ReferencedInstanceSequence] == list(series.instance_uids)
    masks = read_segmentation(tmp_path / "out.dcm", series)
    assert list(masks) == ["lesion", "Läsion", "nothing"]
    assert not any(mask.any() for mask in masks.values())


def test_an_image_of_the_series_is_not_overwritten(series: Series) -> None:
    with pytest.raises(DataError, match="is an image of the series"):
        write(speckle(series.volume.array.shape), series, series.files[2])
    assert len(read_series(series.files).files) == 5


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, series: Series) -> None:
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "a.dcm"
    write(speckle(series.volume.array.shape), series, path)
    before = path.read_bytes()

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(DataError, match="File too large"):
            write(speckle(series.volume.array.shape), series, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [entry.name for entry in path.parent.iterdir()] == ["a.dcm"]
    assert path.read_bytes() == before


# --- what others write


def described(number: int, label: str) -> SegmentDescription:
    return SegmentDescription(
        number, label, codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion, "MANUAL"
    )


def by_highdicom(
    path: Path,
    images: Sequence[Dataset],
    pixels: Any,
    labels: Sequence[str],
    kind: str = "BINARY",
    **options: Any,
) -> Path:
    """A Segmentation object of highdicom's making."""
    Segmentation(
        source_images=images,
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=[described(n, label) for n, label in enumerate(labels, start=1)],
        series_instance_uid=generate_uid(),
        series_number=1,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="Other",
        manufacturer_model_name="Other",
        software_versions="1",
        device_serial_number="1",
        **options,
    ).save_as(path)
    return path


def images_of(series: Series) -> list[Dataset]:
    return [pydicom.dcmread(file) for file in series.files]


def test_overlapping_segments_are_kept_apart(tmp_path: Path, series: Series) -> None:
    pixels = np.random.default_rng(1).random((*series.volume.array.shape, 3)) < 0.5
    path = by_highdicom(tmp_path / "a.dcm", images_of(series), pixels, ["a", "b", "c"])
    masks = read_segmentation(path, series)
    np.testing.assert_array_equal(np.stack(list(masks.values()), axis=-1), pixels)
    assert list(read_segmentation(path, series, wanted=["b"])) == ["b"]
    np.testing.assert_array_equal(read_segmentation(path, series, wanted=["b"])["b"], pixels[..., 1])


def test_frames_find_their_slice_by_position_in_any_order(tmp_path: Path, series: Series) -> None:
    label = speckle(series.volume.array.shape)
    label[label == 4] = 2
    images = images_of(series)
    order = [3, 0, 4, 2, 1]
    path = by_highdicom(tmp_path / "a.dcm", [images[z] for z in order], label[order], ["a", "b"])
    dataset = pydicom.dcmread(path)
    shuffle = np.random.default_rng(0).permutation(dataset.NumberOfFrames)
    size = dataset.Rows * dataset.Columns
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
    frames = bits[: size * len(shuffle)].reshape(-1, size)[shuffle]
    groups = dataset.PerFrameFunctionalGroupsSequence
    dataset.PerFrameFunctionalGroupsSequence = [groups[i] for i in shuffle]
    for group in dataset.PerFrameFunctionalGroupsSequence:
        del group.DerivationImageSequence
    dataset.PixelData = np.packbits(frames.ravel(), bitorder="little").tobytes()
    dataset.save_as(path)
    masks = read_segmentation(path, series)
    np.testing.assert_array_equal(masks["a"], label == 1)
    np.testing.assert_array_equal(masks["b"], label == 2)


def test_a_label_map_object_is_read(tmp_path: Path, series: Series) -> None:
    label = np.random.default_rng(1).integers(0, 4, series.volume.array.shape).astype(np.uint8)
    path = by_highdicom(tmp_path / "a.dcm", images_of(series), label, ["a", "b", "c"], "LABELMAP")
    masks = read_segmentation(path, series)
    for value, name in enumerate("abc", start=1):
        np.testing.assert_array_equal(masks[name], label == value)
    assert list(read_segmentation(path, series, wanted={"c"})) == ["c"]


@pytest.mark.parametrize(("greatest", "least"), [(255, 128), (100, 50), (1, 1)])
def test_of_a_fractional_object_half_and_more_belongs(
    tmp_path: Path, series: Series, greatest: int, least: int
) -> None:
    share = np.random.default_rng(1).integers(0, greatest + 1, series.volume.array.shape) / greatest
    path = by_highdicom(
        tmp_path / "a.dcm", images_of(series), share, ["a"], "FRACTIONAL", max_fractional_value=greatest
    )
    expected = np.round(share * greatest) >= least
    np.testing.assert_array_equal(read_segmentation(path, series)["a"], expected)


@pytest.mark.parametrize(
    ("kind", "syntax"),
    [
        ("BINARY", JPEG2000Lossless),
        ("FRACTIONAL", RLELossless),
        ("FRACTIONAL", JPEGLSLossless),
        ("LABELMAP", RLELossless),
        ("LABELMAP", JPEGLSLossless),
    ],
)
def test_compressed_frames_are_read(
    tmp_path: Path, write_series: Builder, kind: str, syntax: str, grid: Grid
) -> None:
    grid = Grid((33, 35, 2), grid.spacing_xyz_mm)  # 7 x 6 is too small for the encoders
    series = read_series(write_series(tmp_path / "images", np.zeros(grid.shape_zyx, np.int16), grid))
    mask = np.random.default_rng(1).random(grid.shape_zyx) < 0.5
    # RLE by pydicom itself: the other encoder, gdcm's, aborts on frames of an odd size
    options = {} if syntax == RLELossless else {"transfer_syntax_uid": syntax}
    path = by_highdicom(tmp_path / "a.dcm", images_of(series), mask, ["a"], kind, **options)
    if syntax == RLELossless:
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless, encoding_plugin="pydicom")
        dataset.save_as(path)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read_segmentation(path, series)["a"], mask)


def test_a_deflated_object_is_read(tmp_path: Path, series: Series) -> None:
    label = speckle(series.volume.array.shape)
    write(label, series, tmp_path / "a.dcm")
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(tmp_path / "a.dcm")
    np.testing.assert_array_equal(read_segmentation(tmp_path / "a.dcm", series)["lesion"], label == 1)


def test_segments_of_one_label_are_kept_apart_by_number(tmp_path: Path, series: Series) -> None:
    label = np.random.default_rng(1).integers(0, 4, series.volume.array.shape).astype(np.uint8)
    path = by_highdicom(tmp_path / "a.dcm", images_of(series), label, ["tumour", "node", "tumour"])
    masks = read_segmentation(path, series)
    assert list(masks) == ["tumour #1", "node", "tumour #3"]
    for value, mask in enumerate(masks.values(), start=1):
        np.testing.assert_array_equal(mask, label == value)


@pytest.mark.parametrize(
    "turn", [lambda v: v.flip_spatial([0, 1]), lambda v: v.permute_spatial_axes([2, 0, 1])]
)
def test_frames_turned_by_right_angles_are_read(
    tmp_path: Path, series: Series, turn: Callable[[highdicom.Volume], highdicom.Volume]
) -> None:
    grid = series.volume.grid
    mask = np.random.default_rng(1).random(grid.shape_zyx) < 0.5
    affine = np.eye(4)
    affine[:3, :3] = (grid.direction_matrix * grid.spacing_xyz_mm)[:, ::-1]
    affine[:3, 3] = grid.origin_xyz_mm
    uid = series.header.FrameOfReferenceUID
    volume = turn(highdicom.Volume(mask, affine, "PATIENT", frame_of_reference_uid=uid))
    path = by_highdicom(tmp_path / "a.dcm", images_of(series), volume, ["a"])
    np.testing.assert_array_equal(read_segmentation(path, series)["a"], mask)


def changed(path: Path, **groups: Any) -> None:
    """Change the shared functional groups of an object, or the first frame's position."""
    dataset = pydicom.dcmread(path)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    if "spacing" in groups:
        shared.PixelMeasuresSequence[0].PixelSpacing = groups["spacing"]
    if "orientation" in groups:
        shared.PlaneOrientationSequence[0].ImageOrientationPatient = groups["orientation"]
    if "shift" in groups:
        for group in dataset.PerFrameFunctionalGroupsSequence:
            place = group.PlanePositionSequence[0]
            place.ImagePositionPatient = list(np.add(place.ImagePositionPatient, groups["shift"]))
    dataset.save_as(path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"spacing": [2.5, 1.5]}, "spacing (1.5, 2.5, 2.5) against (0.75, 1.25, 2.5) mm"),
        ({"orientation": [0.8, 0.6, 0, -0.6, 0.8, 0]}, "direction "),
        ({"shift": [0.375, 0, 0]}, "origin "),
        ({"shift": [0, 0, 1.0]}, "origin "),
        ({"spacing": [1.25, 0.9]}, "spacing (0.9, "),
    ],
)
def test_another_grid_is_refused_with_its_difference(
    tmp_path: Path, series: Series, change: dict[str, Any], named: str
) -> None:
    write(speckle(series.volume.array.shape), series, tmp_path / "a.dcm")
    changed(tmp_path / "a.dcm", **change)
    message = refusal(tmp_path / "a.dcm", series)
    assert "lies on another grid than the series" in message
    assert named in message


def test_a_label_outside_the_series_is_refused(tmp_path: Path, series: Series) -> None:
    label = np.zeros(series.volume.array.shape, np.uint8)
    label[3:, 5, 6] = 1
    write(label, series, tmp_path / "a.dcm")
    changed(tmp_path / "a.dcm", shift=[0, 0, 2.5])
    assert "lie outside the series, the first at (6, 5, 5)" in refusal(tmp_path / "a.dcm", series)
    # empty pixels may lie outside: a part of the series is enough where the label is
    changed(tmp_path / "a.dcm", shift=[-0.75 * 6, 0, -2.5])
    found = read_segmentation(tmp_path / "a.dcm", series)["lesion"]
    assert np.argwhere(found).tolist() == [[3, 5, 0], [4, 5, 0]]


def test_an_object_of_another_series_is_refused(
    tmp_path: Path, series: Series, write_series: Builder, stored: np.ndarray, grid: Grid
) -> None:
    other = read_series(write_series(tmp_path / "other", stored, grid))
    write(speckle(stored.shape), series, tmp_path / "a.dcm")
    assert "was not drawn on the series" in refusal(tmp_path / "a.dcm", other)


def test_damaged_and_other_files_are_refused(tmp_path: Path, series: Series) -> None:
    path = tmp_path / "a.dcm"
    write(speckle(series.volume.array.shape), series, path)
    assert "has no segment 'tumour'; it has lesion, Läsion, nothing" in refusal(
        path, series, wanted=["tumour"]
    )
    dataset = pydicom.dcmread(path)
    dataset.PixelData = dataset.PixelData[:4]
    dataset.save_as(path)
    assert "cannot be decoded" in refusal(path, series)
    dataset.PerFrameFunctionalGroupsSequence[-1].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 9
    dataset.save_as(path)
    assert "frames of segment 9, which it does not describe" in refusal(path, series)
    del dataset.PerFrameFunctionalGroupsSequence[-1]
    dataset.save_as(path)
    assert "frames but the places of" in refusal(path, series)
    assert "is a CT Image Storage; give a DICOM Segmentation" in refusal(series.files[0], series)
    assert "No such file" in refusal(tmp_path / "none.dcm", series)


def test_objects_are_written_uncompressed(tmp_path: Path, series: Series) -> None:
    write(speckle(series.volume.array.shape), series, tmp_path / "a.dcm")
    assert pydicom.dcmread(tmp_path / "a.dcm").file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


def test_voxels_of_a_segment_that_is_not_described_are_refused(tmp_path: Path, series: Series) -> None:
    label = np.random.default_rng(1).integers(0, 4, series.volume.array.shape).astype(np.uint8)
    path = by_highdicom(tmp_path / "a.dcm", images_of(series), label, ["a", "b", "c"], "LABELMAP")
    dataset = pydicom.dcmread(path)
    dataset.SegmentSequence = [item for item in dataset.SegmentSequence if item.SegmentNumber != 2]
    dataset.save_as(path)
    assert "voxels of segment 2, which it does not describe" in refusal(path, series)


@pytest.mark.parametrize("size_xyz", [(7, 6, 5), (5, 5, 8)])
def test_frames_that_are_padded_to_whole_bytes_are_refused(
    tmp_path: Path, write_series: Builder, grid: Grid, size_xyz: tuple[int, int, int]
) -> None:
    grid = Grid(size_xyz, grid.spacing_xyz_mm)
    series = read_series(write_series(tmp_path / "images", np.zeros(grid.shape_zyx, np.int16), grid))
    label = np.ones(grid.shape_zyx, np.uint8)
    write(label, series, tmp_path / "a.dcm", names={1: "a"})
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.PixelData = b"".join(np.packbits(plane, bitorder="little").tobytes() for plane in label)
    dataset.PixelData += bytes(len(dataset.PixelData) % 2)
    dataset.save_as(tmp_path / "a.dcm")
    assert "cannot be decoded (holds" in refusal(tmp_path / "a.dcm", series)


@pytest.mark.parametrize(
    ("edited", "told"),
    [
        ({"MaximumFractionalValue": 0}, "its Maximum Fractional Value is 0"),
        ({"MaximumFractionalValue": 90}, "values that a FRACTIONAL object cannot have"),
        ({"PixelRepresentation": 1}, "values that a FRACTIONAL object cannot have"),
        ({"SegmentationType": "BINARY"}, "values that a BINARY object cannot have"),
        ({"BitsStored": 6}, "stores 6 of 8 bits per value"),
    ],
)
def test_values_that_contradict_the_kind_of_object_are_refused(
    tmp_path: Path, series: Series, edited: dict[str, Any], told: str
) -> None:
    shares = np.random.default_rng(2).random(series.volume.array.shape)
    path = by_highdicom(
        tmp_path / "a.dcm", images_of(series), shares, ["a"], "FRACTIONAL", max_fractional_value=160
    )
    dataset = pydicom.dcmread(path)
    for keyword, value in edited.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path)
    assert told in refusal(path, series)


@pytest.mark.parametrize(
    ("size_xyz", "corner", "outcome"),
    [
        ((9, 5, 4), False, "doubted"),
        ((7, 7, 2), False, "doubted"),
        ((9, 5, 4), True, "refused"),
        ((8, 5, 4), False, "read"),
        ((9, 5, 1), False, "read"),
    ],
)
def test_frames_that_may_be_padded_are_reported(
    tmp_path: Path,
    write_series: Builder,
    grid: Grid,
    size_xyz: tuple[int, int, int],
    corner: bool,
    outcome: str,
) -> None:
    """Of so few pixels, padded frames take as many bytes as unpadded ones."""
    grid = Grid(size_xyz, grid.spacing_xyz_mm)
    series = read_series(write_series(tmp_path / "images", np.zeros(grid.shape_zyx, np.int16), grid))
    label = np.zeros(grid.shape_zyx, np.uint8)
    label[:, 2:4, 3:5] = 1
    label[-1, -1, -1] = corner
    path = tmp_path / "a.dcm"
    write(label, series, path, names={1: "a"})
    dataset = pydicom.dcmread(path)
    padded = b"".join(np.packbits(plane, bitorder="little").tobytes() for plane in label)
    assert len(padded) + len(padded) % 2 == len(dataset.PixelData)
    dataset.PixelData = padded + bytes(len(padded) % 2)
    dataset.save_as(path)
    doubts: list[str] = []
    if outcome == "refused":
        assert "seems to be padded to whole bytes" in refusal(path, series)
        return
    found = read_segmentation(path, series, doubts=doubts)["a"]
    assert ["may each be padded" in doubt for doubt in doubts] == [True] * (outcome == "doubted")
    assert np.array_equal(found, label == 1) == (outcome == "read")


@pytest.mark.skipif(shutil.which("dcmconv") is None, reason="needs dcmtk")
@pytest.mark.parametrize("vr", ["OB", "OW"])
def test_single_bits_in_big_endian_are_read(tmp_path: Path, series: Series, vr: str) -> None:
    label = speckle(series.volume.array.shape)
    write(label, series, tmp_path / "a.dcm")
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset["PixelData"].VR = vr
    dataset.save_as(tmp_path / "a.dcm")
    subprocess.run(["dcmconv", "+tb", tmp_path / "a.dcm", tmp_path / "b.dcm"], check=True)
    np.testing.assert_array_equal(read_segmentation(tmp_path / "b.dcm", series)["lesion"], label == 1)
