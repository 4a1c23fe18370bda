"""What is measured in a case, against arrays whose figures are known."""

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from focalis.dataset import Case, Dataset
from focalis.quality import CaseFacts, LabelFacts, LabelMapFacts
from focalis.quality.facts import Measurements
from focalis.volume import Grid, Volume, from_sitk, to_sitk

SPACING = (0.5, 1.0, 3.0)


def measured(
    label: Volume | None = None, image: Volume | None = None, ignore: int | None = None
) -> CaseFacts:
    case = Case("a", (Path("images/a.nii.gz"),), Path("labels/a.nii.gz"))
    dataset = Dataset(Path(), (case,), ("image",), {}, ignore)
    measurements = Measurements(dataset)
    if label is not None:
        measurements.label(case, label)
    if image is not None:
        measurements.image(case, 0, image)
    (facts,) = measurements.facts({"a": ("r1",)})
    return facts


def label_of(array: np.ndarray, **grid: object) -> LabelMapFacts:
    z, y, x = array.shape
    facts = measured(Volume(array, Grid((x, y, z), SPACING, **grid))).label
    assert facts is not None
    return facts


def a_label() -> np.ndarray:
    array = np.zeros((6, 8, 10), np.uint8)
    array[2:4, 3:5, 7:9] = 1
    array[1, 1, 1] = array[2, 2, 2] = 1  # joined by a corner
    array[4, 6, 1:4] = 2
    return array


def test_lesions_of_each_label_in_voxels_and_mm3() -> None:
    facts = label_of(a_label())
    assert facts.foreground_share == 13 / 480
    one, two = facts.labels
    assert (one.value, one.voxels, one.volume_mm3) == (1, 10, 15.0)
    assert [(lesion.voxels, lesion.volume_mm3) for lesion in one.lesions] == [(2, 3.0), (8, 12.0)]
    assert (two.value, [lesion.voxels for lesion in two.lesions]) == (2, [3])
    assert two.lesions[0].voxel_xyz == (2, 6, 4)


def test_ignored_voxels_are_not_foreground() -> None:
    facts = measured(Volume(a_label(), Grid((10, 8, 6), SPACING)), ignore=1).label
    assert facts is not None
    assert [label.value for label in facts.labels] == [2]
    assert facts.foreground_share == 3 / 480


def test_an_empty_label_map() -> None:
    facts = label_of(np.zeros((4, 4, 4), np.int16))
    assert facts.labels == ()
    assert facts.foreground_share == 0


AXES = [(order, signs) for order in permutations((0, 1, 2)) for signs in product((False, True), repeat=3)]


def turned(order: tuple[int, ...], flips: tuple[bool, ...]) -> Volume:
    """The label saved along other axes by SimpleITK: the same voxels at the same places of the patient."""
    image = to_sitk(Volume(a_label(), Grid((10, 8, 6), SPACING, (-3.0, 4.0, 5.0))))
    return from_sitk(sitk.Flip(sitk.PermuteAxes(image, order), flips, False))


@pytest.mark.parametrize(("order", "flips"), AXES)
def test_the_order_of_the_axes_changes_nothing_but_where_the_voxels_are_stored(
    order: tuple[int, ...], flips: tuple[bool, ...]
) -> None:
    volume, reference = turned(order, flips), label_of(a_label(), origin_xyz_mm=(-3.0, 4.0, 5.0))
    facts = measured(volume).label
    assert facts is not None
    assert facts.content.oriented == reference.content.oriented
    assert facts.spacing_zyx_mm == pytest.approx(reference.spacing_zyx_mm)
    for mine, theirs in zip(facts.labels, reference.labels, strict=True):
        assert mine.left_mm == pytest.approx(theirs.left_mm)
        assert mine.sides == theirs.sides
        assert sorted(lesion.voxels for lesion in mine.lesions) == sorted(le.voxels for le in theirs.lesions)
        for lesion in mine.lesions:
            x, y, z = lesion.voxel_xyz
            assert volume.array[z, y, x] == mine.value


def only(array: np.ndarray, **grid: object) -> LabelFacts:
    (label,) = label_of(array, **grid).labels
    return label


def test_a_label_on_the_high_x_side_is_left_in_lps() -> None:
    array = np.zeros((5, 5, 11), np.uint8)
    array[2, 2, 8] = 1
    assert only(array).left_mm == pytest.approx(1.5)  # three voxels of 0.5 mm
    assert only(array, direction=(-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)).left_mm == pytest.approx(-1.5)


def test_an_oblique_image_counts_what_points_to_the_left() -> None:
    array = np.zeros((5, 5, 11), np.uint8)
    array[2, 2, 8] = 1
    c, s = np.cos(0.5), np.sin(0.5)
    assert only(array, direction=(c, -s, 0, s, c, 0, 0, 0, 1)).left_mm == pytest.approx(1.5 * c)


@pytest.mark.parametrize(
    ("place", "sides"),
    [
        ((0, 2, 2), ("inferior",)),
        ((4, 2, 2), ("superior",)),
        ((2, 0, 2), ("anterior",)),
        ((2, 4, 2), ("posterior",)),
        ((2, 2, 0), ("right",)),
        ((2, 2, 4), ("left",)),
        ((0, 4, 4), ("inferior", "posterior", "left")),
        ((2, 2, 2), ()),
    ],
)
def test_the_ends_that_a_label_touches(place: tuple[int, int, int], sides: tuple[str, ...]) -> None:
    array = np.zeros((5, 5, 5), np.uint8)
    array[place] = 1
    assert only(array).sides == sides


def test_an_axis_of_two_planes_has_no_inside_to_be_in() -> None:
    array = np.zeros((2, 5, 5), np.uint8)
    array[:, 2, 2] = 1
    assert only(array).sides == ()


def test_the_content_is_the_values_whatever_type_and_header() -> None:
    array = np.random.default_rng(0).integers(-50, 50, (4, 5, 6)).astype(np.int16)
    grid = Grid((6, 5, 4))
    content = measured(image=Volume(array, grid)).images[0].content
    as_float = np.where(array == 0, np.float64(-0.0), array)
    moved = Grid((6, 5, 4), SPACING, (1.0, 2.0, 3.0))
    assert measured(image=Volume(as_float, moved)).images[0].content == content
    changed = array.copy()
    changed[3, 4, 5] += 1
    assert measured(image=Volume(changed, grid)).images[0].content != content
    assert measured(image=Volume(array.reshape(5, 4, 6), Grid((6, 4, 5)))).images[0].content != content


def test_the_percentiles_of_an_image() -> None:
    array = np.arange(1001, dtype=np.int16).reshape(7, 11, 13)
    facts = measured(image=Volume(array, Grid((13, 11, 7)))).images[0]
    assert (facts.low, facts.middle, facts.high) == (10, 500, 990)


def test_readers_come_with_the_case() -> None:
    assert measured().readers == ("r1",)
    assert measured().label is None
