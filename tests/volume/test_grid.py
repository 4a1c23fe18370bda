import numpy as np
import pytest

from focalis.errors import DataError
from focalis.volume import Grid, Volume
from focalis.volume.files import to_sitk


def test_array_order_is_z_y_x() -> None:
    grid = Grid((4, 3, 2), (0.5, 1.0, 2.5))
    assert grid.shape_zyx == (2, 3, 4)
    assert grid.spacing_zyx_mm == (2.5, 1.0, 0.5)
    assert grid.voxel_volume_mm3 == pytest.approx(1.25)


def test_differences_name_each_property_and_its_size() -> None:
    grid = Grid((4, 3, 2), (1.0, 1.0, 2.0))
    assert grid.differences(Grid((4, 3, 2), (1.0005, 1.0, 2.0), (0.005, 0.0, 0.0))) == []
    other = Grid((5, 3, 2), (1.0, 1.5, 2.0), (0.0, 0.0, 7.0), (-1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    size, spacing, origin, direction = grid.differences(other)
    assert "4 x 3 x 2 against 5 x 3 x 2" in size
    assert "off by up to 0.5" in spacing
    assert "off by up to 7" in origin
    assert "off by up to 2" in direction


def test_an_array_must_fit_its_grid() -> None:
    with pytest.raises(DataError, match=r"\(4, 3, 2\)"):
        Volume(np.zeros((4, 3, 2)), Grid((4, 3, 2)))


def test_a_part_of_a_grid_has_its_voxels_where_simpleitk_has_them() -> None:
    direction = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
    grid = Grid((9, 8, 7), (0.5, 1.0, 2.5), (10.0, -20.0, 30.0), direction)
    image = to_sitk(Volume(np.zeros(grid.shape_zyx, np.uint8), grid))
    peer = image[2:6, 1:4, 3:5]
    part = grid.part((2, 1, 3), (4, 3, 2))
    assert part.size_xyz == peer.GetSize()
    assert part.origin_xyz_mm == pytest.approx(peer.GetOrigin())
    assert (part.spacing_xyz_mm, part.direction) == (grid.spacing_xyz_mm, grid.direction)
    assert grid.part((-1, -1, -1), (11, 10, 9)).part((1, 1, 1), grid.size_xyz) == grid


def test_places_and_indices_are_those_of_simpleitk() -> None:
    turned = (0.36, 0.48, -0.8, -0.8, 0.6, 0.0, 0.48, 0.64, 0.6)
    grid = Grid((9, 8, 7), (0.5, 1.0, 2.5), (10.0, -20.0, 30.0), turned)
    image = to_sitk(Volume(np.zeros(grid.shape_zyx, np.uint8), grid))
    indices = np.array([[0.0, 0.0, 0.0], [3.25, -1.5, 6.0]])
    places = np.array([image.TransformContinuousIndexToPhysicalPoint(each) for each in indices.tolist()])
    np.testing.assert_allclose(grid.to_patient(indices), places, atol=1e-9)
    np.testing.assert_allclose(grid.to_indices(places), indices, atol=1e-9)
    np.testing.assert_allclose(grid.to_indices(places[1]), indices[1], atol=1e-9)
