"""Direction cosines that are slightly off, and sform against qform; SimpleITK is the peer where it reads."""

import warnings
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from focalis.errors import DataError
from focalis.volume import GridWarning, read_volume, read_volumes
from focalis.volume.repair import straightened

VALUES = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
SPACING = (0.7, 1.3, 5.0)
ORIGIN = (-12.5, 30.25, 101.0)


def turn(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    tilt = np.array([[1, 0, 0], [0, np.cos(0.3), -np.sin(0.3)], [0, np.sin(0.3), np.cos(0.3)]])
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ tilt


def skewed(cosine: float, angle: float = 0.4) -> np.ndarray:
    """Three unit axes of which the first two have this cosine between them."""
    axes = turn(angle)
    axes[:, 1] = np.sqrt(1 - cosine**2) * axes[:, 1] + cosine * axes[:, 0]
    return axes


def affine(axes: np.ndarray, origin: tuple[float, float, float] = ORIGIN) -> np.ndarray:
    """The NIfTI affine (RAS) of axes that are given in LPS."""
    lps = np.eye(4)
    lps[:3, :3] = axes * SPACING
    lps[:3, 3] = origin
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def write_nifti(
    path: Path,
    sform: np.ndarray | None,
    sform_code: int,
    qform: np.ndarray | None = None,
    qform_code: int = 0,
    values: np.ndarray = VALUES,
) -> Path:
    image = nibabel.Nifti1Image(values.T, None)
    image.header["pixdim"][1:4] = SPACING
    image.set_sform(sform, sform_code)
    if qform is not None:
        image.set_qform(qform, qform_code)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("cosine", [3e-4, 9e-4])
def test_slightly_skewed_axes_are_repaired_with_a_warning(tmp_path: Path, suffix: str, cosine: float) -> None:
    path = write_nifti(tmp_path / f"a{suffix}", affine(skewed(cosine)), 1)
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(path))
    with pytest.warns(GridWarning, match=rf"a{suffix}: .* off by 0\.000{round(cosine * 1e4)}"):
        volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, VALUES)
    assert volume.array.dtype == np.int16
    assert volume.array.flags.c_contiguous
    matrix = volume.grid.direction_matrix
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(matrix, turn(0.4), atol=cosine)
    np.testing.assert_allclose(volume.grid.spacing_xyz_mm, SPACING, rtol=1e-6)
    np.testing.assert_allclose(volume.grid.origin_xyz_mm, ORIGIN, rtol=1e-6)


def test_both_axes_share_the_repair() -> None:
    with pytest.warns(GridWarning):
        matrix = straightened(Path("a"), skewed(8e-4))
    for axis in (0, 1):  # the nearest perpendicular axes part the skew evenly
        angle = np.arccos(np.clip(matrix[:, axis] @ skewed(8e-4)[:, axis], -1, 1))
        assert angle == pytest.approx(4e-4, rel=1e-3)
    np.testing.assert_allclose(matrix[:, 2], skewed(8e-4)[:, 2], atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)


def test_a_mirrored_grid_stays_mirrored() -> None:
    axes = skewed(8e-4) * (1, 1, -1)
    with pytest.warns(GridWarning):
        assert np.linalg.det(straightened(Path("a"), axes)) == pytest.approx(-1)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_more_skew_is_refused_with_advice(tmp_path: Path, suffix: str) -> None:
    path = write_nifti(tmp_path / f"a{suffix}", affine(skewed(2e-3)), 1)
    with pytest.raises(
        DataError, match=r"not perpendicular .* off by 0\.002.*; export it again, or resample"
    ):
        read_volume(path)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_the_rule_holds_for_every_format(tmp_path: Path, name: str) -> None:
    def write(cosine: float) -> None:
        axes = np.round(skewed(cosine), 12)
        rows = axes.T  # one row per image axis, in either format
        if name.endswith(".mha"):
            header = "ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = 6 5 4\n"
            header += f"TransformMatrix = {' '.join(str(v) for v in rows.ravel())}\n"
            header += "ElementSpacing = 1 1 1\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
        else:
            header = "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 6 5 4\n"
            header += (
                f"space directions: {' '.join(str(tuple(row.tolist())).replace(' ', '') for row in rows)}\n"
            )
            header += "endian: little\nencoding: raw\n\n"
        (tmp_path / name).write_bytes(header.encode() + VALUES.tobytes())

    write(1e-6)
    read_volume(tmp_path / name)
    write(5e-4)
    with pytest.warns(GridWarning, match=r"off by 0\.0005"):
        np.testing.assert_array_equal(read_volume(tmp_path / name).array, VALUES)
    write(0.1)
    with pytest.raises(DataError, match="not perpendicular"):
        read_volume(tmp_path / name)


def test_a_repaired_file_is_scaled_and_may_be_4d(tmp_path: Path) -> None:
    series = np.stack([VALUES, VALUES + 200])
    path = write_nifti(tmp_path / "a.nii", affine(skewed(5e-4)), 1, values=series)
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([2.0, -10.0], dtype="<f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(content)
    with pytest.warns(GridWarning):
        one, two = read_volumes(path)
    assert one.array.dtype == np.float32
    np.testing.assert_allclose(one.array, VALUES * 2.0 - 10)
    np.testing.assert_allclose(two.array, VALUES * 2.0 + 390)
    with pytest.raises(DataError, match=r"4-dimensional \(6 x 5 x 4 x 2\)"):
        read_volume(path)


def test_values_that_are_not_numbers_survive_the_repair(tmp_path: Path) -> None:
    values = VALUES.astype(np.float32)
    values[1, 2, 3] = np.nan
    path = write_nifti(tmp_path / "a.nii", affine(skewed(5e-4)), 1, values=values)
    with pytest.warns(GridWarning):
        np.testing.assert_array_equal(read_volume(path).array, values)


def test_complex_values_are_refused_there_too(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", affine(skewed(5e-4)), 1, values=VALUES.astype(np.complex64))
    with pytest.raises(DataError, match="one real number per voxel"):
        read_volume(path)


@pytest.mark.parametrize(
    ("sform_code", "qform_code", "taken"),
    [(0, 1, "q"), (1, 0, "s"), (1, 1, "s"), (2, 0, "s"), (2, 1, "q"), (4, 2, "q")],
)
def test_sform_against_qform_follows_simpleitk(
    tmp_path: Path, sform_code: int, qform_code: int, taken: str
) -> None:
    q_origin = (9.0, 9.0, 9.0)
    q = affine(turn(0.9), q_origin)
    path = write_nifti(tmp_path / "a.nii", affine(turn(0.4)), sform_code, q, qform_code)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        grid = read_volume(path).grid
    assert ["mm apart" in str(each.message) for each in caught] == [True] * bool(sform_code and qform_code)
    peer = sitk.ReadImage(str(path))
    np.testing.assert_allclose(grid.direction, peer.GetDirection(), atol=1e-12)
    np.testing.assert_allclose(grid.origin_xyz_mm, peer.GetOrigin())
    np.testing.assert_allclose(grid.origin_xyz_mm, q_origin if taken == "q" else ORIGIN)


def test_a_skewed_sform_beside_a_good_qform_does_not_count(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", affine(skewed(0.1)), 1, affine(turn(0.4)), 1)
    with pytest.warns(GridWarning, match="its sform and qform place it up to"):
        grid = read_volume(path).grid
    np.testing.assert_allclose(grid.direction_matrix, turn(0.4), atol=1e-6)
