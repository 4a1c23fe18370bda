"""Enhanced multi-frame objects: each frame stands where its functional groups say."""

import tracemalloc

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid

from focalis.dicom import find_series, only_series, read_series
from focalis.errors import DataError
from focalis.volume import Grid


def refusal(path) -> str:
    with pytest.raises(DataError) as caught:
        read_series([path])
    message = str(caught.value)
    assert message.startswith(f"{path}")
    assert "\n" not in message
    return message


def change(path, edit) -> None:
    dataset = pydicom.dcmread(path)
    edit(dataset)
    dataset.save_as(path)


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
@pytest.mark.parametrize("shared", [True, False])
def test_frames_stand_by_position(tmp_path, write_multiframe, oblique_grid, stored, modality, shared) -> None:
    order = [3, 0, 4, 1, 2]
    path = write_multiframe(
        tmp_path / "a.dcm", stored, oblique_grid, modality=modality, order=order, shared=shared
    )
    series = read_series(only_series(tmp_path))
    np.testing.assert_array_equal(series.volume.array, stored)
    assert series.volume.grid.differences(oblique_grid) == []
    assert series.files == (path,) * 5
    assert series.frame_numbers == tuple(order.index(z) + 1 for z in range(5))
    assert series.instance_uids == (series.header.SOPInstanceUID,) * 5
    assert "PixelData" not in series.header


def test_every_direction(tmp_path, write_multiframe, any_grid, stored) -> None:
    volume = read_series([write_multiframe(tmp_path / "a.dcm", stored, any_grid)]).volume
    np.testing.assert_array_equal(volume.array, stored)
    assert volume.grid.size_xyz == any_grid.size_xyz
    np.testing.assert_allclose(volume.grid.origin_xyz_mm, any_grid.origin_xyz_mm, atol=1e-9)
    np.testing.assert_allclose(volume.grid.spacing_xyz_mm, any_grid.spacing_xyz_mm, atol=1e-9)
    np.testing.assert_allclose(volume.grid.direction, any_grid.direction, atol=1e-9)


def test_each_frame_has_its_own_slope(tmp_path, write_multiframe, grid, stored) -> None:
    slope, intercept = [0.5, 1.25, 2, 3.0625, 0.001], [0, 1, 2, 3, 4.5]
    path = write_multiframe(
        tmp_path / "a.dcm",
        stored,
        grid,
        modality="PT",
        slope=slope,
        intercept=intercept,
        order=[4, 2, 0, 1, 3],
    )
    expected = stored * np.reshape(slope, (5, 1, 1)) + np.reshape(intercept, (5, 1, 1))
    array = read_series([path]).volume.array
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, expected.astype(np.float32))


def test_highdicom_reads_the_same(tmp_path, write_multiframe, oblique_grid, stored) -> None:
    path = write_multiframe(tmp_path / "a.dcm", stored, oblique_grid, slope=2, intercept=-7)
    volume = read_series([path]).volume
    peer = hd.imread(path).get_volume()
    assert peer.handedness.value == "RIGHT_HANDED"
    ours = {
        tuple(np.round(place, 6)): value
        for place, value in zip(places(volume.grid), volume.array.flat, strict=True)
    }
    indices = np.moveaxis(np.indices(peer.spatial_shape), 0, -1).reshape(-1, 3)
    theirs = zip(peer.map_indices_to_reference(indices), peer.array.flat, strict=True)
    assert {tuple(np.round(place, 6)): value for place, value in theirs} == ours


def places(grid: Grid) -> np.ndarray:
    """Patient positions of all voxels, in the order of an array's elements."""
    z, y, x = np.indices(grid.shape_zyx).reshape(3, -1)
    return (np.stack([x, y, z], axis=1) * grid.spacing_xyz_mm) @ grid.direction_matrix.T + grid.origin_xyz_mm


@pytest.mark.parametrize("modality", ["CT", "MR", "PT"])
def test_series_converted_by_highdicom_read_as_before(
    tmp_path, write_series, oblique_grid, stored, modality
) -> None:
    files = write_series(tmp_path / "single", stored, oblique_grid, modality=modality)
    converter = {
        "CT": hd.legacy.LegacyConvertedEnhancedCTImage,
        "MR": hd.legacy.LegacyConvertedEnhancedMRImage,
        "PT": hd.legacy.LegacyConvertedEnhancedPETImage,
    }[modality]
    datasets = [pydicom.dcmread(file) for file in sorted(files)]
    converted = converter(datasets, generate_uid(), 4, generate_uid(), 1)
    (tmp_path / "multi").mkdir()
    converted.save_as(tmp_path / "multi" / "a.dcm")
    series = read_series(only_series(tmp_path / "multi"))
    single = read_series(files)
    np.testing.assert_array_equal(series.volume.array, single.volume.array)
    assert series.volume.grid == single.volume.grid
    assert len(find_series(tmp_path)) == 2


def test_large_objects_are_read_frame_by_frame(tmp_path, write_multiframe) -> None:
    size = (512, 384, 24)
    stored = np.random.default_rng(0).integers(-1000, 1000, size=size[::-1]).astype(np.int16)
    path = write_multiframe(tmp_path / "a.dcm", stored, Grid(size, (1.0, 1.0, 2.0)), slope=2)
    tracemalloc.start()
    array = read_series([path]).volume.array
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(array, stored.astype(np.int32) * 2)
    assert peak_bytes < 1.3 * array.nbytes
    content = path.read_bytes()
    path.write_bytes(content[:-1000])
    assert "cut short or damaged" in refusal(path)


def test_a_frame_at_the_place_of_another_is_named(tmp_path, write_multiframe, grid, stored) -> None:
    path = write_multiframe(tmp_path / "a.dcm", stored, grid, order=range(5))

    def edit(dataset: Dataset) -> None:
        groups = dataset.PerFrameFunctionalGroupsSequence
        groups[3].PlanePositionSequence = groups[1].PlanePositionSequence

    change(path, edit)
    message = refusal(path)
    assert "two slices at one place: a.dcm frame 2 at 107.25 mm and a.dcm frame 4 at 107.25 mm" in message


def test_two_stacks_in_one_object_are_named(tmp_path, write_multiframe, grid, stored) -> None:
    path = write_multiframe(tmp_path / "a.dcm", stored, grid, order=range(5), shared=False)

    def edit(dataset: Dataset) -> None:
        last = dataset.PerFrameFunctionalGroupsSequence[4].PlaneOrientationSequence[0]
        last.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]

    change(path, edit)
    message = refusal(path)
    assert "differ in orientation" in message
    assert "1 0 0 0 0 -1 (1: a.dcm frame 5 at" in message


@pytest.mark.parametrize(
    ("sequence", "name"),
    [
        ("PlanePositionSequence", "Image Position (Patient)"),
        ("PlaneOrientationSequence", "Image Orientation (Patient)"),
        ("PixelMeasuresSequence", "Pixel Spacing"),
    ],
)
def test_a_frame_without_its_place_is_named(tmp_path, write_multiframe, grid, stored, sequence, name) -> None:
    path = write_multiframe(tmp_path / "a.dcm", stored, grid, shared=False)
    change(path, lambda dataset: delattr(dataset.PerFrameFunctionalGroupsSequence[2], sequence))
    assert f"{path} frame 3: lacks {name};" in refusal(path)


def test_fewer_positions_or_pixels_than_frames_are_refused(tmp_path, write_multiframe, grid, stored) -> None:
    path = write_multiframe(tmp_path / "a.dcm", stored, grid)
    whole = path.read_bytes()
    change(path, lambda dataset: dataset.PerFrameFunctionalGroupsSequence.pop())
    assert "has 5 frames but the positions of 4" in refusal(path)
    path.write_bytes(whole)
    change(path, lambda dataset: setattr(dataset, "PixelData", dataset.PixelData[:-84]))
    assert "cut short or damaged" in refusal(path)
