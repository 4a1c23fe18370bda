"""A nibabel image in memory is what its file is: the same grid and values, the same warnings, the same refusals."""

import warnings
from pathlib import Path

import nibabel
import numpy as np
import pytest

from focalis.errors import DataError
from focalis.volume import read_volume, read_volumes, volumes_in_memory

ORIGIN = (12.345678, -30.25, 101.0)
SPACING = (0.7, 1.3, 5.0)
VALUES = np.arange(120, dtype=np.int16).reshape(4, 5, 6)
SERIES = np.stack([VALUES, VALUES[::-1]], axis=-1)


def turned(angle: float = 0.4, *, shear: float = 0.0, mirrored: bool = False) -> np.ndarray:
    """An oblique affine; the first two axes have the cosine `shear` between them."""
    c, s = np.cos(angle), np.sin(angle)
    tilt = np.array([[1, 0, 0], [0, np.cos(0.3), -np.sin(0.3)], [0, np.sin(0.3), np.cos(0.3)]])
    axes = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ tilt
    axes[:, 1] = np.sqrt(1 - shear**2) * axes[:, 1] + shear * axes[:, 0]
    affine = np.eye(4)
    affine[:3, :3] = axes * SPACING * (-1 if mirrored else 1, 1, 1)
    affine[:3, 3] = ORIGIN
    return affine


def image(
    *,
    values: np.ndarray = VALUES,
    sform: np.ndarray | None = None,
    sform_code: int = 0,
    qform: np.ndarray | None = None,
    qform_code: int = 0,
    spacing: np.ndarray | None = None,
    unit: str = "mm",
    scale: tuple[float, float] | None = None,
) -> nibabel.Nifti1Image:
    made = nibabel.Nifti1Image(values, None)
    made.header["pixdim"][1:4] = SPACING if spacing is None else spacing
    made.header.set_xyzt_units(unit)
    if sform is not None:
        made.set_sform(sform, sform_code, update_affine=False)
    if qform is not None:
        made.set_qform(qform, qform_code, update_affine=False)
    if scale is not None:
        made.header.set_slope_inter(*scale)
    return made


HEADERS = {
    "oblique sform": {"sform": turned(), "sform_code": 1},
    "oblique qform": {"qform": turned(), "qform_code": 1},
    "both forms agree": {"sform": turned(), "sform_code": 1, "qform": turned(), "qform_code": 1},
    "mirrored, both forms": {
        "sform": turned(mirrored=True),
        "sform_code": 2,
        "qform": turned(mirrored=True),
        "qform_code": 2,
    },
    "aligned sform against mirrored qform": {
        "sform": turned(),
        "sform_code": 2,
        "qform": turned(mirrored=True),
        "qform_code": 1,
    },
    "scanner sform against qform": {
        "sform": turned(),
        "sform_code": 1,
        "qform": turned(0.9),
        "qform_code": 1,
    },
    "sheared sform beside a qform": {
        "sform": turned(shear=0.1),
        "sform_code": 1,
        "qform": turned(),
        "qform_code": 1,
    },
    "no form": {},
    "unnoticed shear": {"sform": turned(shear=5e-5), "sform_code": 1},
    "repaired shear": {"sform": turned(shear=5e-4), "sform_code": 1},
    "refused shear": {"sform": turned(shear=5e-3), "sform_code": 1},
    "metres that mean millimetres": {"sform": turned() * 100, "sform_code": 1, "unit": "meter"},
    "metres": {
        "sform": np.diag([1e-3, 1e-3, 1e-3, 1]) @ turned(),
        "sform_code": 1,
        "spacing": np.multiply(SPACING, 1e-3),
        "unit": "meter",
    },
    "sheared metres": {
        "sform": np.diag([1e-3, 1e-3, 1e-3, 1]) @ turned(shear=5e-4),
        "sform_code": 1,
        "spacing": np.multiply(SPACING, 1e-3),
        "unit": "meter",
    },
    "micrometres": {"qform": turned(), "qform_code": 1, "unit": "micron"},
    "sform of another spacing": {"sform": turned() @ np.diag([2.0, 2, 2, 1]), "sform_code": 1},
    "one volume of a series": {"values": SERIES[..., :1], "sform": turned(), "sform_code": 1},
    "two volumes": {"values": SERIES, "sform": turned(), "sform_code": 1},
    "two sheared volumes": {"values": SERIES, "sform": turned(shear=5e-4), "sform_code": 1},
    "five axes": {"values": SERIES[..., None, :], "sform": turned(), "sform_code": 1},
    "two axes": {"values": VALUES[0], "sform": turned(), "sform_code": 1},
    "float32": {"values": VALUES / np.float32(7), "sform": turned(), "sform_code": 1},
    "float64": {"values": VALUES / np.float64(7), "sform": turned(), "sform_code": 1},
    "scaled": {"sform": turned(), "sform_code": 1, "scale": (0.3, -1024.0)},
    "scaled and sheared": {"sform": turned(shear=5e-4), "sform_code": 1, "scale": (0.3, -1024.0)},
    "not finite": {
        "values": np.where(VALUES == 7, np.nan, VALUES).astype(np.float32),
        "sform": turned(),
        "sform_code": 1,
    },
}


def outcome(read):
    """What reading gives: the volumes, or the fault, and the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = read()
        except DataError as error:
            found = str(error)
    return found, sorted(str(each.message) for each in caught)


def save(made: nibabel.Nifti1Image, path: Path) -> Path:
    nibabel.save(made, path)
    return path


@pytest.mark.parametrize("case", HEADERS)
def test_an_image_in_memory_is_what_its_file_is(tmp_path, case):
    path = save(image(**HEADERS[case]), tmp_path / "a.nii.gz")
    wanted, warned = outcome(lambda: read_volumes(path))
    found, warned_too = outcome(lambda: volumes_in_memory(nibabel.load(path))[0])
    assert warned_too == warned
    if isinstance(wanted, str):
        assert found == wanted
        return
    assert [each.grid for each in found] == [each.grid for each in wanted]
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine.array.dtype == theirs.array.dtype
        np.testing.assert_array_equal(mine.array, theirs.array)


def test_the_headers_hold_every_kind_of_outcome(tmp_path):
    """So that the comparison above compares something."""
    paths = {case: save(image(**how), tmp_path / f"{i}.nii") for i, (case, how) in enumerate(HEADERS.items())}
    outcomes = {case: outcome(lambda path=path: read_volumes(path)) for case, path in paths.items()}
    refused = {case for case, (found, _) in outcomes.items() if isinstance(found, str)}
    assert refused == {"refused shear", "metres that mean millimetres", "five axes", "two axes"}
    assert "mm apart" in str(outcomes["aligned sform against mirrored qform"][1])
    assert "not quite perpendicular" in str(outcomes["repaired shear"][1])
    assert outcomes["oblique sform"][0][0].grid.spacing_xyz_mm == tuple(np.float32(SPACING).tolist())


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image, nibabel.MGHImage])
@pytest.mark.parametrize("shear", [0.0, 5e-4])
def test_an_image_made_from_an_array_lies_by_its_affine(tmp_path, kind, shear):
    made = kind(VALUES, turned(shear=shear))
    path = save(nibabel.Nifti1Image(VALUES, made.affine), tmp_path / "a.nii")
    wanted, _ = outcome(lambda: read_volume(path))
    (found, axes), _ = outcome(lambda: volumes_in_memory(made))
    assert axes == "xyz"
    assert found[0].grid == wanted.grid
    np.testing.assert_array_equal(found[0].array, wanted.array)


def test_an_analyze_image_lies_by_its_affine():
    made = nibabel.AnalyzeImage(VALUES, np.diag([-0.7, 1.3, 5.0, 1.0]))
    ((volume,), _) = volumes_in_memory(made)
    np.testing.assert_allclose(volume.grid.spacing_xyz_mm, SPACING, rtol=1e-6)
    assert volume.grid.direction == (1, 0, 0, 0, -1, 0, 0, 0, 1)


def test_a_new_affine_counts_and_the_image_is_left_as_it_was(tmp_path):
    loaded = nibabel.load(save(image(sform=turned(), sform_code=1), tmp_path / "a.nii"))
    moved = turned()
    moved[:3, 3] += 10
    made = nibabel.Nifti1Image(VALUES, moved, loaded.header)
    before = made.header.binaryblock
    ((volume,), _) = volumes_in_memory(made)
    np.testing.assert_allclose(volume.grid.origin_xyz_mm, (-22.345678, 20.25, 111), rtol=1e-6)
    assert made.header.binaryblock == before


def test_what_a_header_cannot_hold_is_refused():
    values = np.broadcast_to(np.int16(1), (40000, 2, 2))
    with pytest.raises(DataError, match=r"the nibabel image: does not fit into a NIfTI header"):
        volumes_in_memory(nibabel.Nifti2Image(values, np.eye(4)))
