"""The small pictures of cases: what they show, and where."""

import io

import matplotlib.image
import numpy as np
import pytest

from focalis.errors import DataError
from focalis.evaluation import judge_lesions
from focalis.report import case_picture, strip
from focalis.volume import Grid, Volume

GRID = Grid((64, 48, 24), (1.0, 1.0, 2.0))
RED, BLUE = (255, 0, 0), (0, 0, 255)
SIDE = 160


def box(*corners, value=1):
    """A label map of one box, its corners by (z, y, x)."""
    array = np.zeros((24, 48, 64), np.uint8)
    array[tuple(slice(*each) for each in corners)] = value
    return Volume(array, GRID)


def image():
    rng = np.random.default_rng(0)
    return Volume(rng.normal(100, 5, (24, 48, 64)).astype(np.float32), GRID)


def pixels(jpeg):
    return matplotlib.image.imread(io.BytesIO(jpeg), format="jpg").astype(int)


def like(picture, colour):
    return np.abs(picture - np.asarray(colour)).sum(axis=-1) < 150


def test_three_squares_with_the_outline_around_the_middle():
    picture = pixels(strip(image(), [(box((10, 14), (20, 28), (30, 38)), {1: RED})], "a"))
    assert picture.shape == (SIDE, 3 * SIDE + 4, 3)
    for start in (0, SIDE + 2, 2 * (SIDE + 2)):
        rows, columns = np.nonzero(like(picture[:, start : start + SIDE], RED))
        assert abs((rows.min() + rows.max()) / 2 - SIDE / 2) < 10
        assert abs((columns.min() + columns.max()) / 2 - SIDE / 2) < 10
    axial = like(picture[:, :SIDE], RED)
    # 8 mm of 32 mm are a quarter of the side
    assert abs(np.ptp(np.nonzero(axial)[1]) - SIDE / 4) < 5
    assert not axial[SIDE // 2, SIDE // 2]


def test_each_label_has_its_colour():
    both = box((10, 14), (20, 28), (30, 34)).array + box((10, 14), (20, 28), (34, 38), value=2).array
    picture = pixels(strip(image(), [(Volume(both, GRID), {1: RED, 2: BLUE})], "a"))[:, :SIDE]
    assert np.nonzero(like(picture, RED))[1].mean() < np.nonzero(like(picture, BLUE))[1].mean()


def test_a_missed_lesion_is_in_the_middle_of_its_picture():
    truth = box((4, 8), (10, 18), (8, 16)).array | box((15, 17), (36, 40), (50, 54)).array
    truth, found = Volume(truth, GRID), box((4, 8), (10, 18), (8, 16))
    lesions, _ = judge_lesions("a", truth, found, {1: "lesion"})
    bright = image().array.copy()
    bright[15:17, 36:40, 50:54] = 200  # the missed one alone stands out
    picture = case_picture("a", Volume(bright, GRID), truth, found, lesions)
    ((each, jpeg),) = picture.missed
    assert each.lesion.volume_mm3 == 2 * 4 * 4 * 2
    axial = pixels(jpeg)[:, :SIDE].mean(axis=-1)
    middle = axial[SIDE // 2 - 4 : SIDE // 2 + 4, SIDE // 2 - 4 : SIDE // 2 + 4].mean()
    assert middle > axial[:20].mean() + 50


def test_an_empty_case_and_values_that_are_not_finite_are_shown():
    hollow = image().array.copy()
    hollow[:, :10] = np.nan
    picture = pixels(strip(Volume(hollow, GRID), [(box((0, 0), (0, 0), (0, 0)), {1: RED})], "a"))
    assert not like(picture, RED).any()
    assert picture.std() > 10


def test_another_grid_is_refused():
    other = Grid((64, 48, 24), (1.0, 1.0, 2.0), (9.0, 0.0, 0.0))
    with pytest.raises(DataError, match=r"case 7.*different grids"):
        strip(image(), [(Volume(box((1, 2), (1, 2), (1, 2)).array, other), {1: RED})], "case 7")
