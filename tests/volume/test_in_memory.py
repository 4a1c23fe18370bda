"""Images in memory become volumes on the right grid, and nothing about them is guessed."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from focalis.errors import DataError, UsageError
from focalis.volume import GridWarning, read_volume, to_canonical, volumes_in_memory, write_volume

ARRAY = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)


def test_an_array_lies_as_its_spacing_and_orientation_say():
    ((volume,), axes) = volumes_in_memory(ARRAY, (3.0, 0.5, 0.7))
    assert axes == "zyx"
    assert volume.grid.size_xyz == (5, 4, 3)
    assert volume.grid.spacing_xyz_mm == (0.7, 0.5, 3.0)
    np.testing.assert_array_equal(volume.grid.direction_matrix, np.eye(3))
    np.testing.assert_array_equal(volume.array, ARRAY)


@pytest.mark.parametrize("orientation", ["SPL", "RAS", "LIA", "als", "PSR"])
def test_any_orientation_leads_to_the_same_canonical_image(orientation):
    """Turn the array's axes as the letters say; the patient stays where he is."""
    pairs = {"S": (0, 1), "I": (0, -1), "P": (1, 1), "A": (1, -1), "L": (2, 1), "R": (2, -1)}
    axes, signs = zip(*(pairs[letter] for letter in orientation.upper()), strict=True)
    turned = ARRAY.transpose(axes)[tuple(slice(None, None, sign) for sign in signs)]
    spacing = [(3.0, 0.5, 0.7)[axis] for axis in axes]
    ((plain,), _), ((other,), _) = (
        volumes_in_memory(ARRAY, (3.0, 0.5, 0.7)),
        volumes_in_memory(turned, spacing, orientation),
    )
    ours, wanted = to_canonical(other), to_canonical(plain)
    np.testing.assert_array_equal(ours.array, wanted.array)
    assert ours.grid.spacing_xyz_mm == wanted.grid.spacing_xyz_mm


def test_a_tensor_is_an_array_also_in_half_precision():
    for tensor in (torch.from_numpy(ARRAY), torch.from_numpy(ARRAY).bfloat16().requires_grad_()):
        ((volume,), _) = volumes_in_memory(tensor, (1, 1, 1))
        np.testing.assert_allclose(volume.array, ARRAY, atol=0.02)
        assert volume.array.dtype == np.float32


def test_simpleitk_and_nibabel_images_lie_as_in_their_files(tmp_path):
    image = sitk.GetImageFromArray(ARRAY)
    image.SetSpacing((0.7, 0.5, 3.0))
    image.SetOrigin((-10.0, 20.0, 5.0))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    ((volume,), _) = volumes_in_memory(image)
    write_volume(volume, tmp_path / "a.nii.gz")
    ((again,), axes) = volumes_in_memory(nibabel.load(tmp_path / "a.nii.gz"))
    assert axes == "xyz"
    for each in (again, read_volume(tmp_path / "a.nii.gz")):
        assert not each.grid.differences(volume.grid)
        np.testing.assert_array_equal(each.array, ARRAY)


def test_channels_come_as_a_list_or_as_the_first_axis():
    for given in ([ARRAY, 2 * ARRAY], np.stack([ARRAY, 2 * ARRAY])):
        (one, two), _ = volumes_in_memory(given, (1, 1, 1))
        np.testing.assert_array_equal(two.array, 2 * one.array)


def test_masks_may_be_boolean_and_images_may_not():
    ((mask,), _) = volumes_in_memory(ARRAY > 0, (1, 1, 1), masks=True)
    assert mask.array.dtype == np.uint8
    with pytest.raises(DataError, match="array of bool is not an image"):
        volumes_in_memory(ARRAY > 0, (1, 1, 1))


@pytest.mark.parametrize(
    ("given", "options", "reason"),
    [
        (ARRAY, {}, "has no spacing; give spacing_mm"),
        (torch.from_numpy(ARRAY), {}, "has no spacing"),
        (ARRAY, {"spacing_mm": (1, 1)}, "three numbers"),
        (ARRAY, {"spacing_mm": 1.0}, "three numbers"),
        (ARRAY, {"spacing_mm": (1, 0, 1)}, "above 0"),
        (ARRAY, {"spacing_mm": (1, float("nan"), 1)}, "above 0"),
        (ARRAY, {"spacing_mm": (1, 1, 1), "orientation": "LRS"}, "orientation 'LRS'"),
        (ARRAY, {"spacing_mm": (1, 1, 1), "orientation": "zyx"}, "orientation 'zyx'"),
        (sitk.GetImageFromArray(ARRAY), {"spacing_mm": (1, 1, 1)}, "knows its spacing"),
        (ARRAY.tolist(), {"spacing_mm": (1, 1, 1)}, "not an image that Focalis knows"),
        ("scan.nii.gz", {}, "not an image that Focalis knows"),
        ([], {}, "no image is given"),
    ],
)
def test_what_is_not_known_is_asked_for(given, options, reason):
    with pytest.raises(UsageError, match=reason):
        volumes_in_memory(given, **options)


@pytest.mark.parametrize(
    "given",
    [
        ARRAY[0],
        ARRAY[None, None],
        ARRAY.astype(complex),
        ARRAY.astype(object),
        sitk.GetImageFromArray(ARRAY[0]),
        sitk.GetImageFromArray(ARRAY, isVector=True),
    ],
)
def test_what_is_not_an_image_is_refused(given):
    spacing = None if isinstance(given, sitk.Image) else (1, 1, 1)
    with pytest.raises(DataError, match=r"not an image|not a channel"):
        volumes_in_memory(given, spacing)


def test_skewed_simpleitk_images_are_treated_as_their_files():
    def skewed(cosine: float) -> sitk.Image:
        image = sitk.GetImageFromArray(ARRAY)
        image.SetDirection((1, cosine, 0, 0, 1, 0, 0, 0, 1))
        return image

    with pytest.warns(GridWarning, match=r"the SimpleITK image: its axes are not quite perpendicular"):
        ((volume,), _) = volumes_in_memory(skewed(5e-4))
    matrix = volume.grid.direction_matrix
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(3), atol=1e-12)
    with pytest.raises(DataError, match=r"the SimpleITK image: its axes are not perpendicular"):
        volumes_in_memory(skewed(0.1))
