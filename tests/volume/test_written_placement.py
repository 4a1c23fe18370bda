"""NRRD and MetaImage headers whose placement is wrong, or not given."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from focalis.errors import DataError
from focalis.volume import Grid, GridWarning, Volume, placement_lacks, read_volume, write_volume

VALUES = np.arange(24, dtype="<i2").tobytes()
MATRIX = "TransformMatrix = 1 0 0 0 1 0 0 0 1\n"
SPACING = "ElementSpacing = 1 2 3\n"
DIRECTIONS = "space directions: (1,0,0) (0,2,0) (0,0,3)\n"


def nrrd(path: Path, fields: str) -> Path:
    header = "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 3 2\nendian: little\nencoding: raw\n"
    path.write_bytes(f"{header}{fields}\n".encode() + VALUES)
    return path


def meta(path: Path, tags: str) -> Path:
    header = "ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementType = MET_SHORT\nBinaryData = True\n"
    path.write_bytes(f"{header}{tags}ElementDataFile = LOCAL\n".encode() + VALUES)
    return path


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("spacings: 1 -2 3\n", "its spacings is 1 -2 3"),
        ("spacings: 1 2 0\n", "its spacings is 1 2 0"),
        ("spacings: nan 2 3\n", "its spacings is nan 2 3"),
        (f'space: LPS\n{DIRECTIONS}space units: "mm" "mm" "um"\n', r"in um \(space units\)"),
        ('spacings: 1 2 3\nunits: "cm" "cm" "cm"\n', r"in cm \(units\)"),
        ("space: LPS\nspace directions: (1,0,0) none (0,0,3)\n", "its space directions is "),
        ("axis mins: 5 5 5\naxis maxs: 9 9 9\n", "is placed by axis mins"),
    ],
)
def test_an_nrrd_whose_lengths_are_wrong_is_refused_by_its_field(tmp_path, fields, said) -> None:
    with pytest.raises(DataError, match=said):
        read_volume(nrrd(tmp_path / "a.nrrd", fields))


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (f"{MATRIX}ElementSpacing = 1 -2 3\n", "its ElementSpacing is 1 -2 3"),
        (f"{MATRIX}ElementSize = -1 2 3\n", "its ElementSize is -1 2 3"),
        (f"{MATRIX}ElementSpacing = 1 2 nan\n", "its ElementSpacing is 1 2 nan"),
        (f"{MATRIX}{SPACING}Offset = 0 nan 0\n", "its Offset is 0 nan 0"),
        (f"{MATRIX}{SPACING}Position = 0 inf 0\n", "its Position is 0 inf 0"),
        (f"{MATRIX}{SPACING}DistanceUnits = um\n", r"in um \(DistanceUnits\)"),
        (f"{MATRIX}ElementSpacing = 1 2\n", "its ElementSpacing holds 2 numbers, and 3 are needed"),
        (f"{MATRIX}ElementSpacing = \n", "its ElementSpacing holds 0 numbers"),
        (f"{MATRIX}{SPACING}Offset = 1 2\n", "its Offset holds 2 numbers"),
        (
            f"{SPACING}TransformMatrix = 1 0 0 0 1 0\n",
            "its TransformMatrix holds 6 numbers, and 9 are needed",
        ),
    ],
)
def test_a_metaimage_whose_placement_is_wrong_is_refused_by_its_tag(tmp_path, tags, said) -> None:
    with pytest.raises(DataError, match=said):
        read_volume(meta(tmp_path / "a.mha", tags))


@pytest.mark.parametrize("stated", ["LPI", "ras", "RSA"])
@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
def test_an_orientation_that_contradicts_the_matrix_is_reported(tmp_path, stated, suffix) -> None:
    path = tmp_path / f"a{suffix}"
    write_volume(Volume(np.zeros((3, 4, 5), np.uint8), Grid((5, 4, 3))), path)
    path.write_bytes(
        path.read_bytes().replace(
            b"AnatomicalOrientation = RAI", f"AnatomicalOrientation = {stated}".encode()
        )
    )
    with pytest.warns(
        GridWarning, match=f"its AnatomicalOrientation is {stated.upper()}, its TransformMatrix says RAI"
    ):
        read_volume(path)


@pytest.mark.parametrize("turn", [(0, 0, 1), (0, 1, 0), (0.2, 0.1, -0.1), (0.5, 0.5, 0.5)])
def test_the_orientation_that_simpleitk_writes_fits_its_matrix(tmp_path, turn) -> None:
    b, c, d = turn
    a = math.sqrt(1 - b * b - c * c - d * d)
    turned = Rotation.from_quat((b, c, d, a)).as_matrix()
    grid = Grid((5, 4, 3), direction=tuple(turned.ravel().tolist()))
    write_volume(Volume(np.zeros((3, 4, 5), np.uint8), grid), tmp_path / "a.mha")
    assert read_volume(tmp_path / "a.mha").grid == grid


def test_values_that_a_metaimage_does_not_describe_are_reported(tmp_path) -> None:
    path = meta(tmp_path / "a.mha", SPACING)
    path.write_bytes(path.read_bytes() + bytes(16))
    with pytest.warns(GridWarning, match="16 bytes more"):
        read_volume(path)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("", "it has no space directions or spacings"),
        ("spacings: 1 2 3\n", "it has no space directions"),
        (f"space dimension: 3\n{DIRECTIONS}", "it names no space of the patient"),
        (f"space: scanner-xyz\n{DIRECTIONS}", "it names no space of the patient"),
        (f"space: right-anterior-superior\n{DIRECTIONS}", ""),
        (f"space: LPS\n{DIRECTIONS}", ""),
    ],
)
def test_what_an_nrrd_lacks_to_say_how_it_lies(tmp_path, fields, said) -> None:
    assert placement_lacks(nrrd(tmp_path / "a.nrrd", fields)) == said


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ("", "it has no ElementSpacing"),
        (SPACING, "it has no TransformMatrix"),
        (f"{SPACING}AnatomicalOrientation = LPI\n", "it has no TransformMatrix"),
        (f"ElementSize = 1 2 3\n{MATRIX}", ""),
        (f"{SPACING}Rotation = 0 1 0 1 0 0 0 0 -1\n", ""),
    ],
)
def test_what_a_metaimage_lacks_to_say_how_it_lies(tmp_path, tags, said) -> None:
    assert placement_lacks(meta(tmp_path / "a.mha", tags)) == said


@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd", ".nii.gz"])
def test_what_focalis_writes_says_how_it_lies(tmp_path, suffix) -> None:
    path = tmp_path / f"a{suffix}"
    write_volume(Volume(np.zeros((2, 3, 4), np.int16), Grid((4, 3, 2))), path)
    assert placement_lacks(path) == ""
