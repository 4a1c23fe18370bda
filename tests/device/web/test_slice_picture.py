"""Pictures of slices: which way up, which part, which colours."""

import io

import numpy as np
import pytest
from PIL import Image

from focalis.device.web.preparing import prepare
from focalis.device.web.slice_picture import LONGEST_PIXELS, slice_png
from focalis.device.web.views import View
from focalis.dicom import Origin, read_series, write_segmentation
from focalis.identity import ModelIdentity
from focalis.volume import Grid

SHAPE = (4, 6, 8)
AMBER, TEAL, PINK = (255, 176, 0), (45, 212, 191), (244, 114, 182)


def view_of(tmp_path, image, marks, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), direction=None):
    """A view on arrays that run to superior, posterior and left."""
    from focalis.volume import Volume, write_volume

    z, y, x = image.shape
    tmp_path.mkdir(exist_ok=True)
    grid = Grid((x, y, z), spacing[::-1], origin, direction or Grid((1, 1, 1), (1, 1, 1)).direction)
    write_volume(Volume(image.astype(np.int16), grid), tmp_path / "image.nii")
    write_volume(Volume(marks.astype(np.uint16), grid), tmp_path / "lesions.nii")
    return View(tmp_path, image.shape, spacing, {"Automatic": (0, 100)}, [], "int16", "CT")


def picture(view, plane, index, **options):
    options = {"window": (0, 100), "verdicts": {}} | options
    return Image.open(io.BytesIO(slice_png(view, plane, index, **options)))


def brightest(view, plane, index):
    """Where the one bright voxel is, as shares of the picture's width and height."""
    values = np.asarray(picture(view, plane, index).convert("L"), dtype=float)
    y, x = np.unravel_index(values.argmax(), values.shape)
    return x / values.shape[1], y / values.shape[0]


def test_planes_show_the_patient_as_radiologists_look(tmp_path):
    image = np.zeros(SHAPE)
    image[3, 0, 7] = 100  # superior, anterior, left
    view = view_of(tmp_path, image, np.zeros(SHAPE))

    for plane, index, (right, down) in (
        ("axial", 3, (True, False)),  # the patient's left is at the right, anterior at the top
        ("coronal", 0, (True, False)),  # superior at the top
        ("sagittal", 7, (False, False)),  # anterior at the left
    ):
        x, y = brightest(view, plane, index)
        assert (x > 0.5, y > 0.5) == (right, down), plane


def test_pixels_are_square_millimetres(tmp_path):
    view = view_of(tmp_path, np.zeros(SHAPE), np.zeros(SHAPE), spacing=(6.0, 1.0, 1.5))

    assert picture(view, "axial", 0).size == (LONGEST_PIXELS, LONGEST_PIXELS // 2)  # 12 mm by 6 mm
    assert picture(view, "sagittal", 0).size == (LONGEST_PIXELS // 4, LONGEST_PIXELS)  # 6 mm by 24 mm


COARSE = {"spacing": (2.0, 1.5, 0.5), "origin": (-3.0, -2.0, -4.0)}
TURNED = {"direction": (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0), "origin": (4.0, -6.0, -2.0)}


@pytest.mark.parametrize("where", [COARSE, TURNED])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("part", [None, (1, 4, 2, 5)])
def test_images_on_other_voxels_are_drawn_at_the_same_places_of_the_patient(tmp_path, where, plane, part):
    """Their values rise along the patient's axes, so that they are known between voxels too."""
    view = view_of(tmp_path / "study", np.zeros((6, 6, 8)), np.zeros((6, 6, 8)))
    empty = np.zeros((14, 20, 40))
    other = view_of(tmp_path / "other", empty, empty, **where)
    affine, (z, y, x) = other.affine_zyx(), np.indices(empty.shape)
    x_mm, y_mm, z_mm = (
        np.tensordot(affine[:3, :3], np.stack([z, y, x]), axes=1) + affine[:3, 3, None, None, None]
    )
    other = view_of(tmp_path / "other", 400 * x_mm + 200 * y_mm + 900 * z_mm, empty, **where)

    values = np.asarray(picture(view, plane, 3, other=other, window=(-10000, 10000), part=part), dtype=float)

    axis = {"axial": 0, "coronal": 1, "sagittal": 2}[plane]
    rows, columns = (size for each, size in enumerate((6, 6, 8)) if each != axis)
    top, bottom, left, right = part or (0, rows, 0, columns)
    height, width = values.shape
    row = top + (np.arange(height) + 0.5) * (bottom - top) / height - 0.5
    column = left + (np.arange(width) + 0.5) * (right - left) / width - 0.5
    row, column = np.meshgrid(row if axis == 0 else row[::-1], column, indexing="ij")
    at = np.insert(np.stack([row, column]), axis, 3, axis=0)  # z, y, x in mm of the study
    wanted = (400 * at[2] + 200 * at[1] + 900 * at[0] + 10000) / 20000 * 255
    inside = values > 0
    assert inside.mean() > 0.8
    assert np.abs(values - wanted)[inside].max() < 1.1


def test_where_other_images_show_nothing_the_picture_is_black_with_the_lesion_over_it(tmp_path):
    marks = np.zeros(SHAPE)
    marks[2, 2:4, 2:5] = 1
    view = view_of(tmp_path / "study", np.full(SHAPE, 100), marks)
    half = view_of(tmp_path / "other", np.full((4, 6, 4), 100), np.zeros((4, 6, 4)), origin=(4.0, 0.0, 0.0))

    bare = np.asarray(picture(view, "axial", 2, other=half, overlay=False))
    assert set(np.unique(bare[:, :360])) == {0}
    assert bare[:, 364:].min() == 255
    shown = np.asarray(picture(view, "axial", 2, other=half).convert("RGB")).reshape(-1, 3)
    assert (shown == AMBER).all(axis=1).any()


def test_the_window_is_black_and_white_at_its_ends(tmp_path):
    image = np.tile(np.array([0, 10, 20, 30, 40, 50, 60, 70]), (4, 6, 1))
    view = view_of(tmp_path, image, np.zeros(SHAPE))

    values = np.asarray(picture(view, "axial", 0, window=(20, 60)))

    assert values[0, 0] == 0
    assert values[0, -1] == 255
    assert 100 < values[360, int((4 + 0.5) / 8 * 720)] < 155


@pytest.mark.parametrize(
    ("verdicts", "colour"), [({}, AMBER), ({1: "accepted"}, TEAL), ({1: "rejected"}, PINK)]
)
def test_a_lesion_has_the_colour_of_its_verdict(tmp_path, verdicts, colour):
    marks = np.zeros(SHAPE)
    marks[1, 2:4, 2:5] = 1
    view = view_of(tmp_path, np.zeros(SHAPE), marks)

    pixels = np.asarray(picture(view, "axial", 1, verdicts=verdicts).convert("RGB"))
    y, x = np.nonzero((pixels == colour).all(axis=2))

    assert (x.min() / 720, (x.max() + 1) / 720) == pytest.approx((2 / 8, 5 / 8), abs=0.01)
    assert (y.min() / 540, (y.max() + 1) / 540) == pytest.approx((2 / 6, 4 / 6), abs=0.01)
    hidden = picture(view, "axial", 1, verdicts=verdicts, overlay=False)
    assert hidden.mode == "L"
    assert not np.asarray(hidden).any()


def test_the_chosen_lesion_has_the_thicker_line_and_a_rejected_one_a_dotted_one(tmp_path):
    marks = np.zeros(SHAPE)
    marks[0, 1:5, 1:7] = 1
    view = view_of(tmp_path, np.zeros(SHAPE), marks)

    def drawn(colour, **options):
        pixels = np.asarray(picture(view, "axial", 0, **options).convert("RGB"))
        return int((pixels == colour).all(axis=2).sum())

    plain, chosen = drawn(AMBER), drawn(AMBER, selected=1)
    assert 1.8 < chosen / plain < 2.1
    assert 0.4 < drawn(PINK, verdicts={1: "rejected"}) / plain < 0.6


@pytest.mark.parametrize("name", ["LPS", "RAI", "PSL", "oblique"])
def test_a_view_stands_upright_whatever_the_series_direction(tmp_path, write_series, name):
    """The prepared image is SimpleITK's own reorientation, and every lesion's place lies in the lesion."""
    import json

    import SimpleITK as sitk
    from dicom_fixtures import GRIDS

    grid = GRIDS.get(name, GRIDS["LPS"])
    stored = np.random.default_rng(0).integers(-500, 500, grid.shape_zyx).astype(np.int16)
    label = np.zeros(grid.shape_zyx, dtype=np.uint8)
    label[1:3, 1:3, 1:4] = 1
    label[4, 5, 6] = 1
    files = write_series(tmp_path / "in", stored, grid, modality="MR")
    series = read_series(files)
    write_segmentation(label, {1: "lesion"}, series, tmp_path / "seg.dcm", Origin(ModelIdentity("m"), "1"))

    prepare([str(file) for file in files], str(tmp_path / "seg.dcm"), str(tmp_path / "view"))

    image = sitk.ReadImage(str(tmp_path / "view" / "image.nii"))
    peer = sitk.GetImageFromArray(stored)
    peer.SetSpacing(grid.spacing_xyz_mm)
    peer.SetOrigin(grid.origin_xyz_mm)
    peer.SetDirection(grid.direction)
    if name != "oblique":
        assert np.array_equal(
            sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(sitk.DICOMOrient(peer, "LPS"))
        )
    table = json.loads((tmp_path / "view" / "view.json").read_text())
    marks = sitk.ReadImage(str(tmp_path / "view" / "lesions.nii"))
    assert [lesion["voxels"] for lesion in table["lesions"]] == [12, 1]
    for lesion in table["lesions"]:
        x, y, z = lesion["centre_ras_mm"]
        place = marks.TransformPhysicalPointToIndex((-x, -y, z))
        assert marks[place] == lesion["number"]
        assert list(place) == lesion["centre_zyx"][::-1]
