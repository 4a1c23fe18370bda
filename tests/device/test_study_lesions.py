"""The lesions of a study: their numbers and places, against figures known by construction and SimpleITK's measures."""

import numpy as np
import pytest
import SimpleITK as sitk

from focalis.device.study_lesions import lesion_at, list_lesions
from focalis.volume import Grid, Volume

SPACING = (2.0, 0.5, 1.5)


def found(masks, image, spacing=SPACING):
    z, y, x = image.shape
    identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    grid = Grid((x, y, z), spacing[::-1], (10.0, 20.0, 30.0), identity)
    return list_lesions(masks, Volume(image, grid))


def test_a_box_has_the_figures_of_a_box():
    mask = np.zeros((6, 10, 12), dtype=bool)
    mask[1:4, 2:6, 3:8] = True
    image = np.where(mask, 10.0, 0.0)
    image[2, 3, 5] = 40

    (lesion,), numbered = found({"tumour": mask}, image)

    measured = lesion.measured
    assert (measured.number, measured.name, measured.voxels, lesion.box_zyx) == (
        1,
        "tumour",
        60,
        ((1, 2, 3), (4, 6, 8)),
    )
    assert measured.volume_mm3 == pytest.approx(60 * 1.5)
    assert measured.longest_axial.length_mm > measured.perpendicular.length_mm > 0
    assert lesion.mean == pytest.approx(10 + 30 / 60)
    assert lesion.maximum == 40
    assert measured.centroid_lps_mm == pytest.approx((10 + 5 * 1.5, 20 + 3.5 * 0.5, 30 + 2 * 2.0))
    assert mask[lesion.centre_zyx]
    assert np.array_equal(numbered == 1, mask)


def test_a_lesion_in_pieces_is_measured_as_one_and_each_piece_by_itself():
    mask = np.zeros((6, 10, 12), dtype=bool)
    mask[0, 0, 0] = mask[2:4, 3:6, 3:6] = mask[5, 9, 10:] = True
    grid = Grid((12, 10, 6), SPACING[::-1], (10.0, 20.0, 30.0))

    lesion = lesion_at(np.argwhere(mask), "tumour", Volume(np.zeros(mask.shape), grid), 7)

    assert (lesion.measured.number, lesion.measured.voxels) == (7, 21)
    assert [part.voxels for part in lesion.parts] == [18, 2, 1]
    assert lesion.parts[0].centroid_lps_mm == pytest.approx((10 + 4 * 1.5, 20 + 4 * 0.5, 30 + 2.5 * 2.0))
    assert lesion.box_zyx == ((0, 0, 0), (6, 10, 12))


def test_lesions_are_numbered_through_the_labels_in_their_order():
    first, second = np.zeros((3, 5, 9), dtype=bool), np.zeros((3, 5, 9), dtype=bool)
    first[2, 4, 8] = second[0, 0, 0] = second[0, 0, 4] = True

    lesions, numbered = found({"b": first, "a": second}, np.zeros(first.shape))

    assert [(lesion.measured.number, lesion.measured.name) for lesion in lesions] == [
        (1, "b"),
        (2, "a"),
        (3, "a"),
    ]
    assert [numbered[lesion.centre_zyx] for lesion in lesions] == [1, 2, 3]


def test_nothing_found_is_an_empty_table():
    lesions, numbered = found({"a": np.zeros((2, 3, 4), dtype=bool)}, np.zeros((2, 3, 4)))

    assert lesions == ()
    assert not numbered.any()


def test_ragged_lesions_measure_as_simpleitk_measures_them():
    rng = np.random.default_rng(3)
    mask = rng.random((7, 20, 20)) > 0.9
    image = rng.normal(size=mask.shape)

    lesions, numbered = found({"a": mask}, image, (1.0, 1.0, 1.0))

    peer = sitk.LabelIntensityStatisticsImageFilter()
    peer.Execute(sitk.GetImageFromArray(numbered), sitk.GetImageFromArray(image))
    assert len(lesions) == peer.GetNumberOfLabels()
    for lesion in lesions:
        assert lesion.measured.voxels == peer.GetNumberOfPixels(lesion.measured.number)
        assert lesion.mean == pytest.approx(peer.GetMean(lesion.measured.number))
        assert lesion.maximum == pytest.approx(peer.GetMaximum(lesion.measured.number))
