"""The table of lesions, against figures known by construction and SimpleITK's own measures."""

import numpy as np
import pytest
import SimpleITK as sitk

from focalis.lesions import measure_lesions

SPACING = (2.0, 0.5, 1.5)


def test_a_box_has_the_figures_of_a_box():
    mask = np.zeros((6, 10, 12), dtype=bool)
    mask[1:4, 2:6, 3:8] = True
    image = np.where(mask, 10.0, 0.0)
    image[2, 3, 5] = 40

    (lesion,), numbered = measure_lesions({"tumour": mask}, image, SPACING)

    assert (lesion.number, lesion.label, lesion.voxels, lesion.slices) == (1, "tumour", 60, (1, 3))
    assert lesion.volume_mm3 == pytest.approx(60 * 1.5)
    assert lesion.longest_mm == pytest.approx(np.hypot(4 * 0.5, 5 * 1.5))
    assert lesion.mean == pytest.approx(10 + 30 / 60)
    assert lesion.maximum == 40
    assert lesion.centroid_zyx == (2.0, 3.5, 5.0)
    assert mask[lesion.centre_zyx]
    assert np.array_equal(numbered == 1, mask)


def test_a_single_voxel_is_as_long_as_its_diagonal():
    mask = np.zeros((2, 2, 2), dtype=bool)
    mask[1, 0, 1] = True

    (lesion,), _ = measure_lesions({"spot": mask}, mask.astype(float), SPACING)

    assert lesion.longest_mm == pytest.approx(np.hypot(0.5, 1.5))
    assert lesion.centre_zyx == (1, 0, 1)


def test_lesions_are_numbered_through_the_labels_in_their_order():
    first, second = np.zeros((3, 5, 9), dtype=bool), np.zeros((3, 5, 9), dtype=bool)
    first[2, 4, 8] = second[0, 0, 0] = second[0, 0, 4] = True

    lesions, numbered = measure_lesions({"b": first, "a": second}, np.zeros(first.shape), SPACING)

    assert [(lesion.number, lesion.label) for lesion in lesions] == [(1, "b"), (2, "a"), (3, "a")]
    assert [numbered[lesion.centre_zyx] for lesion in lesions] == [1, 2, 3]


def test_nothing_found_is_an_empty_table():
    lesions, numbered = measure_lesions({"a": np.zeros((2, 3, 4), dtype=bool)}, np.zeros((2, 3, 4)), SPACING)

    assert lesions == ()
    assert not numbered.any()


def test_ragged_lesions_measure_as_simpleitk_measures_them():
    rng = np.random.default_rng(3)
    mask = rng.random((7, 20, 20)) > 0.9
    image = rng.normal(size=mask.shape)

    lesions, numbered = measure_lesions({"a": mask}, image, (1.0, 1.0, 1.0))

    peer = sitk.LabelIntensityStatisticsImageFilter()
    peer.Execute(sitk.GetImageFromArray(numbered), sitk.GetImageFromArray(image))
    assert len(lesions) == peer.GetNumberOfLabels()
    for lesion in lesions:
        assert lesion.voxels == peer.GetNumberOfPixels(lesion.number)
        assert lesion.mean == pytest.approx(peer.GetMean(lesion.number))
        assert lesion.maximum == pytest.approx(peer.GetMaximum(lesion.number))


def test_the_longest_distance_is_the_greatest_of_all_pairs():
    rng = np.random.default_rng(4)
    mask = rng.random((1, 9, 9)) > 0.4
    mask[0, 4] = mask[0, :, 4] = True
    mask[0, 1::2, 1:8] = True
    y, x = np.nonzero(mask[0])
    corners = np.concatenate([np.stack([(y + a) * 0.5, (x + b) * 1.5], 1) for a in (0, 1) for b in (0, 1)])
    (lesion, *rest), _ = measure_lesions({"a": mask}, np.zeros(mask.shape), SPACING)
    assert not rest  # one piece, so all corners are its own

    assert lesion.longest_mm == pytest.approx(np.linalg.norm(corners[:, None] - corners[None], axis=-1).max())
