"""NIfTI headers that place an image wrongly, twice or not at all."""

import struct
import warnings

import nibabel
import numpy as np
import pytest

from focalis.errors import DataError
from focalis.volume import GridWarning, placement_lacks, read_volume
from focalis.volume.placement import placement_in, read_header

AFFINE = np.asarray([[0, -3.0, 0, 10], [2.0, 0, 0, 20], [0, 0, 4.0, 30], [0, 0, 0, 1]])


def write(path, *edits):
    image = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), AFFINE)
    image.set_qform(AFFINE, 1)
    nibabel.save(image, path)
    content = bytearray(path.read_bytes())
    for form, place, value in edits:
        struct.pack_into(f"<{form}", content, place, value)
    path.write_bytes(content)
    return path


def test_the_placement_is_nibabels(tmp_path):
    path = write(tmp_path / "a.nii")
    placement, peer = placement_in(path, read_header(path)), nibabel.load(path)
    np.testing.assert_allclose(placement.sform, peer.get_sform(), atol=1e-5)
    np.testing.assert_allclose(placement.qform, peer.get_qform(), atol=1e-5)
    assert placement.size_xyz == (3, 4, 5)


@pytest.mark.parametrize("value", [0.0, -2.0, np.nan, np.inf])
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_a_spacing_that_is_not_a_length_is_refused_by_its_field(tmp_path, axis, value):
    path = write(tmp_path / "a.nii", ("f", 76 + 4 * axis, value))
    with pytest.raises(DataError, match=rf"pixdim\[{axis}\]"):
        read_volume(path)


@pytest.mark.parametrize(("place", "field"), [(280, "sform"), (256, "qform")])
def test_a_placement_that_is_not_a_number_is_refused_by_its_field(tmp_path, place, field):
    with pytest.raises(DataError, match=field):
        read_volume(write(tmp_path / "a.nii", ("f", place, np.nan)))


@pytest.mark.parametrize("bcd", [(2.0, 2.0, 2.0), (0.0, 0.0, 1.2), (0.8, 0.8, 0.0)])
def test_a_qform_that_is_not_a_rotation_is_refused_where_it_is_used(tmp_path, bcd):
    quaternion = [("f", 256 + 4 * place, value) for place, value in enumerate(bcd)]
    with pytest.raises(DataError, match="its qform is not a rotation"):
        read_volume(write(tmp_path / "a.nii", *quaternion, ("h", 254, 0)))
    with pytest.warns(GridWarning, match="sform and qform"):
        read_volume(write(tmp_path / "a.nii", *quaternion))


@pytest.mark.parametrize("magic", [b"\0\0\0\0", b"n+2\0", b"abcd"])
def test_a_file_without_the_magic_of_nifti_is_refused(tmp_path, magic):
    with pytest.raises(DataError, match="is not a NIfTI file"):
        read_volume(write(tmp_path / "a.nii", ("4s", 344, magic)))


def test_values_that_the_header_does_not_describe_are_reported(tmp_path):
    path = write(tmp_path / "a.nii", ("h", 44, 3))
    with pytest.warns(GridWarning, match="30 bytes more than the values that its header describes"):
        read_volume(path)


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("size", [0, -6])
def test_a_size_below_1_is_refused_by_its_field(tmp_path, axis, size):
    with pytest.raises(DataError, match=rf"dim\[{axis}\]\) is {size};"):
        read_volume(write(tmp_path / "a.nii", ("h", 40 + 2 * axis, size)))


@pytest.mark.parametrize("offset", [0.0, 348.0, -16.0, np.nan, np.inf])
def test_values_that_do_not_begin_behind_the_header_are_refused(tmp_path, offset):
    with pytest.raises(DataError, match="vox_offset"):
        read_volume(write(tmp_path / "a.nii", ("f", 108, offset)))


def test_wrong_bits_per_value_hide_no_missing_values(tmp_path):
    path = write(tmp_path / "a.nii", ("h", 72, 8))  # of a file of 16 bits
    np.testing.assert_array_equal(np.sort(read_volume(path).array, axis=None), np.arange(60))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="80 of 120 bytes"):
        read_volume(path)


def test_a_header_in_metres_that_means_millimetres_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"20 m long.*unit"):
        read_volume(write(tmp_path / "a.nii", ("B", 123, 1)))


def test_micrometres_become_millimetres_also_with_skewed_axes(tmp_path):
    edits = (("B", 123, 3), ("h", 252, 0), ("f", 280, 0.0005))
    with pytest.warns(GridWarning, match="perpendicular"):
        grid = read_volume(write(tmp_path / "a.nii", *edits)).grid
    np.testing.assert_allclose(grid.spacing_xyz_mm, (0.002, 0.003, 0.004))
    np.testing.assert_allclose(grid.origin_xyz_mm, (-0.010, -0.020, 0.030))


@pytest.mark.parametrize(
    ("edit", "said"), [(("f", 268, -500.0), "510 mm apart"), (("f", 320, 40.0), "sform has a spacing")]
)
def test_fields_that_contradict_each_other_are_reported(tmp_path, edit, said):
    with pytest.warns(GridWarning, match=said):
        read_volume(write(tmp_path / "a.nii", edit))


def test_a_header_that_agrees_with_itself_says_nothing(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_volume(write(tmp_path / "a.nii"))
    assert placement_lacks(write(tmp_path / "a.nii")) == ""
    assert "sform_code" in placement_lacks(write(tmp_path / "a.nii", ("h", 252, 0), ("h", 254, 0)))
