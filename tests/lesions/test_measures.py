"""Measures of lesions: solids of known size on grids of any spacing and direction."""

from itertools import product

import numpy as np
import pytest
from matplotlib.path import Path
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from focalis.lesions import Lesion, axial_axis, disagreement, measure_lesions, temper
from focalis.volume import Grid, Volume, to_sitk

STRAIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
OBLIQUE = tuple(Rotation.from_euler("xyz", [20, -15, 35], degrees=True).as_matrix().ravel().tolist())
SAGITTAL = (0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0)  # image axes: posterior, inferior, left
SPACINGS = [(1.0, 1.0, 1.0), (0.7, 0.9, 2.5), (1.3, 0.5, 0.8)]
NAMES = {1: "lesion"}


def grid_of(
    shape_zyx: tuple[int, int, int], spacing_xyz: tuple[float, ...], direction: tuple[float, ...]
) -> Grid:
    z, y, x = shape_zyx
    return Grid((x, y, z), spacing_xyz, (-31.5, 12.25, 103.0), direction)  # type: ignore[arg-type]


def patient_mm(grid: Grid) -> NDArray[np.float64]:
    """The place of every voxel's centre in the patient, shape (z, y, x, 3)."""
    index = np.moveaxis(np.indices(grid.shape_zyx), 0, -1)[..., ::-1] * grid.spacing_xyz_mm
    return index @ grid.direction_matrix.T + grid.origin_xyz_mm


def only(mask: NDArray[np.bool_], grid: Grid) -> Lesion:
    (lesion,) = measure_lesions(mask.astype(np.uint8), grid, NAMES)
    return lesion


def solid(
    half_axes_mm: tuple[float, float, float],
    spacing_xyz: tuple[float, ...],
    direction: tuple[float, ...],
    turn: NDArray[np.float64],
) -> tuple[NDArray[np.bool_], Grid, NDArray[np.float64]]:
    """An ellipsoid whose half axes lie along the columns of `turn` in the patient; and its centre."""
    shape = tuple(int(2 * max(half_axes_mm) / s) + 7 for s in spacing_xyz[::-1])
    grid = grid_of(shape, spacing_xyz, direction)  # type: ignore[arg-type]
    places = patient_mm(grid)
    centre = places.reshape(-1, 3).mean(axis=0) + np.asarray([0.21, -0.13, 0.17])
    along = (places - centre) @ turn
    return (np.square(along / half_axes_mm).sum(axis=-1) <= 1), grid, centre


@pytest.mark.parametrize("direction", [STRAIGHT, OBLIQUE, SAGITTAL])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_sphere_has_its_diameter_in_every_direction_to_a_voxel(spacing, direction):
    mask, grid, centre = solid((9.0, 9.0, 9.0), spacing, direction, np.eye(3))
    lesion = only(mask, grid)
    axis = 2 - axial_axis(grid)
    in_plane = max(s for i, s in enumerate(spacing) if i != axis)
    assert lesion.volume_mm3 == pytest.approx(4 / 3 * np.pi * 9**3, rel=0.02)
    assert lesion.longest_axial.length_mm == pytest.approx(18, abs=in_plane)
    assert lesion.perpendicular.length_mm == pytest.approx(18, abs=in_plane)
    assert lesion.longest_3d.length_mm == pytest.approx(18, abs=max(spacing))
    np.testing.assert_allclose(lesion.centroid_lps_mm, centre, atol=0.15)


@pytest.mark.parametrize("direction", [STRAIGHT, OBLIQUE, SAGITTAL])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_an_ellipsoid_shows_its_axes(spacing, direction):
    """Its long axis and one short one lie in the axial slices of the grid, turned by 30 degrees there."""
    columns = np.asarray(direction).reshape(3, 3)
    stack = int(np.abs(columns[2]).argmax())
    first, second = (i for i in range(3) if i != stack)
    angle = np.radians(30)
    long = np.cos(angle) * columns[:, first] + np.sin(angle) * columns[:, second]
    short = -np.sin(angle) * columns[:, first] + np.cos(angle) * columns[:, second]
    turn = np.stack([long, short, columns[:, stack]], axis=1)
    mask, grid, _ = solid((13.0, 6.0, 8.0), spacing, direction, turn)
    lesion = only(mask, grid)
    in_plane = max(spacing[first], spacing[second])
    assert lesion.volume_mm3 == pytest.approx(4 / 3 * np.pi * 13 * 6 * 8, rel=0.02)
    assert lesion.longest_axial.length_mm == pytest.approx(26, abs=in_plane)
    assert lesion.perpendicular.length_mm == pytest.approx(12, abs=in_plane)
    assert lesion.longest_3d.length_mm == pytest.approx(26, abs=max(spacing))
    drawn = np.subtract(*lesion.longest_axial.ends_lps_mm) / lesion.longest_axial.length_mm
    assert abs(drawn @ long) > np.cos(np.radians(6))


def test_the_lines_lie_in_one_slice_at_right_angles_and_end_at_the_lesion():
    mask, grid, _ = solid(
        (11.0, 5.0, 7.0), (0.8, 0.8, 3.0), OBLIQUE, Rotation.random(random_state=4).as_matrix()
    )
    lesion = only(mask, grid)
    axial, across = (np.subtract(*line.ends_lps_mm) for line in (lesion.longest_axial, lesion.perpendicular))
    normal = grid.direction_matrix[:, 2]
    assert abs(axial @ across) < 1e-6
    assert abs(axial @ normal) < 1e-6
    assert abs(across @ normal) < 1e-6
    assert np.linalg.norm(axial) == pytest.approx(lesion.longest_axial.length_mm)
    image = to_sitk(Volume(mask.astype(np.uint8), grid))
    for end in lesion.longest_axial.ends_lps_mm:
        x, y, z = image.TransformPhysicalPointToContinuousIndex(end)
        assert z == pytest.approx(lesion.slice_index)
        around = mask[
            lesion.slice_index, int(np.floor(y)) : int(np.ceil(y)) + 1, int(np.floor(x)) : int(np.ceil(x)) + 1
        ]
        assert around.any()
        assert not around.all() or around.size == 1


@pytest.mark.parametrize("direction", [STRAIGHT, OBLIQUE])
def test_a_long_box_measures_as_its_sides(direction):
    """40 x 2 x 3 voxels: its corners are so near to the ends of its axis that both lengths are known."""
    grid = grid_of((10, 10, 50), (0.5, 0.6, 2.0), direction)
    mask = np.zeros(grid.shape_zyx, bool)
    mask[3:6, 4:6, 5:45] = True
    lesion = only(mask, grid)
    assert lesion.voxels == 240
    assert lesion.volume_mm3 == pytest.approx(240 * 0.6)
    assert lesion.longest_axial.length_mm == pytest.approx(np.hypot(20, 0.6), abs=0.02)
    assert lesion.perpendicular.length_mm == pytest.approx(1.2, abs=0.05)
    assert lesion.longest_3d.length_mm == pytest.approx(np.sqrt(20**2 + 0.6**2 + 4**2), abs=0.02)
    assert lesion.slice_index == 4
    image = to_sitk(Volume(mask.astype(np.uint8), grid))
    np.testing.assert_allclose(
        lesion.centroid_lps_mm, image.TransformContinuousIndexToPhysicalPoint((24.5, 4.5, 4.0)), atol=1e-6
    )


def test_a_single_voxel_has_the_size_of_a_voxel():
    grid = grid_of((5, 5, 5), (0.7, 0.9, 3.0), OBLIQUE)
    mask = np.zeros(grid.shape_zyx, bool)
    mask[2, 1, 3] = True
    lesion = only(mask, grid)
    assert lesion.longest_axial.length_mm == pytest.approx(0.9)
    assert lesion.perpendicular.length_mm == pytest.approx(0.7)
    assert lesion.longest_3d.length_mm == pytest.approx(3.0)
    assert lesion.slice_index == 2


@pytest.mark.parametrize("seed", range(6))
def test_random_lesions_measure_as_by_trying_every_pair(seed):
    rng = np.random.default_rng(seed)
    grid = grid_of((5, 6, 6), (0.7, 1.1, 2.5), (STRAIGHT, OBLIQUE, SAGITTAL)[seed % 3])
    mask = ndimage.gaussian_filter(rng.random(grid.shape_zyx), 0.8) > 0.52
    axis = axial_axis(grid)
    lesions = measure_lesions(mask.astype(np.uint8), grid, NAMES)
    labelled, count = ndimage.label(mask, np.ones((3, 3, 3)))
    assert len(lesions) == count > 0
    steps = [np.eye(3)[a] * sign / 2 for a in range(3) for sign in (1, -1)]
    for lesion in lesions:
        voxels = np.argwhere(labelled == lesion.number)
        assert lesion.voxels == len(voxels)
        faces = np.unique([v + s for v in voxels for s in steps], axis=0)
        apart = cdist(faces * grid.spacing_zyx_mm, faces * grid.spacing_zyx_mm)
        one_slice = (faces[:, None, axis] == faces[None, :, axis]) & (faces[:, axis] % 1 == 0)
        assert lesion.longest_3d.length_mm == pytest.approx(apart.max())
        assert lesion.longest_axial.length_mm == pytest.approx(apart[one_slice].max())


def test_the_perpendicular_is_the_widest_of_many_cuts_of_the_hull():
    mask, grid, _ = solid(
        (12.0, 5.0, 4.0), (0.6, 0.6, 2.0), STRAIGHT, Rotation.from_euler("z", 25, degrees=True).as_matrix()
    )
    lesion = only(mask, grid)
    voxels = np.argwhere(mask[lesion.slice_index])[:, ::-1] * 0.6
    points = np.concatenate([voxels + s for s in ([0.3, 0], [-0.3, 0], [0, 0.3], [0, -0.3])])
    hull = Path(points[ConvexHull(points).vertices])
    start, stop = (np.asarray(end[:2]) - grid.origin_xyz_mm[:2] for end in lesion.longest_axial.ends_lps_mm)
    along = (stop - start) / np.linalg.norm(stop - start)
    across = np.asarray([-along[1], along[0]])
    reach = np.arange(-15, 15, 0.01)
    widths = [
        0.01 * hull.contains_points(start + t * (stop - start) + reach[:, None] * across).sum()
        for t in np.linspace(0, 1, 200)
    ]
    assert lesion.perpendicular.length_mm == pytest.approx(max(widths), abs=0.03)


def test_probabilities_and_their_spread_are_taken_inside_each_lesion():
    grid = grid_of((3, 3, 9), (1.0, 1.0, 1.0), STRAIGHT)
    labels = np.zeros(grid.shape_zyx, np.uint8)
    labels[1, 1, 1:3], labels[1, 1, 5:7] = 1, 2
    probability = np.full(grid.shape_zyx, 0.99, np.float32)
    probability[1, 1, 1:3] = 0.5, 0.75
    probability[1, 1, 5:7] = 0.8, 0.8
    spread = np.zeros(grid.shape_zyx, np.float32)
    spread[1, 1, 1:3] = 0.5, 0.0
    first, second = measure_lesions(labels, grid, {1: "core", 2: "rim"}, probability, spread)
    assert (first.name, first.mean_probability, first.confidence) == ("core", 0.625, 0.75)
    assert first.uncertainty == pytest.approx(0.25 / (0.25 + 0.5625 + 0.25))
    assert (second.name, second.number, second.uncertainty) == ("rim", 1, 0.0)
    assert second.confidence == pytest.approx(0.8)
    assert measure_lesions(labels, grid, {3: "absent"}) == ()


def test_uncertainty_is_that_of_the_passes_whatever_the_temperature():
    passes = np.random.default_rng(2).uniform(0.05, 0.95, (6, 1, 1, 30)).astype(np.float32)
    mean, deviation = passes.mean(axis=0), passes.std(axis=0)
    grid = grid_of((1, 1, 30), (1.0, 1.0, 1.0), STRAIGHT)
    labels = np.ones(grid.shape_zyx, np.uint8)
    for temperature in (0.5, 1.0, 2.4):
        (lesion,) = measure_lesions(
            labels, grid, {1: "lesion"}, temper(mean, temperature), deviation, temperature
        )
        assert lesion.uncertainty == pytest.approx(disagreement(mean, deviation), rel=1e-5)
        assert lesion.confidence == pytest.approx(temper(mean, temperature).max())


def test_disagreement_is_one_less_the_soft_dice_of_the_pairs_of_passes():
    passes = np.random.default_rng(1).random((5, 40))
    pairs = list(product(passes, passes))
    shared = np.mean([2 * (p * q).sum() for p, q in pairs])
    whole = np.mean([(p * p).sum() + (q * q).sum() for p, q in pairs])
    assert disagreement(passes.mean(axis=0), passes.std(axis=0)) == pytest.approx(1 - shared / whole)
    assert disagreement(passes[0], np.zeros(40)) == 0
