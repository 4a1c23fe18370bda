"""The picture of a case."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from matplotlib import colors, image
from numpy.typing import NDArray

from focalis.errors import DataError
from focalis.report import overlay_figure
from focalis.report.figure import PREDICTION_COLOUR, TRUTH_COLOUR
from focalis.volume import Grid, Volume

GRID = Grid((40, 36, 12), (0.8, 0.9, 3.0))
HEAD_PIXELS = 50


def mask(*, filled: bool, start: int = 15) -> Volume:
    array = np.zeros(GRID.shape_zyx, np.uint8)
    if filled:
        array[5:8, start : start + 6, start : start + 6] = 1
    return Volume(array, GRID)


def noise() -> Volume:
    return Volume(np.random.default_rng(0).normal(size=GRID.shape_zyx).astype(np.float32), GRID)


def pixels(png: bytes) -> NDArray[np.floating]:
    return image.imread(BytesIO(png), format="png")[HEAD_PIXELS:, :, :3]


def shows(png: bytes, colour: str) -> bool:
    """Whether the picture below its legend has pixels of this colour."""
    return bool((np.abs(pixels(png) - colors.to_rgb(colour)).max(axis=2) < 0.03).sum() > 20)


@pytest.mark.parametrize("truth", [True, False])
@pytest.mark.parametrize("prediction", [True, False])
def test_outlines_of_what_is_there(truth: bool, prediction: bool) -> None:
    png = overlay_figure(noise(), mask(filled=truth), mask(filled=prediction, start=18), "case $x <b>")
    assert shows(png, TRUTH_COLOUR) == truth
    assert shows(png, PREDICTION_COLOUR) == prediction


def test_a_small_lesion_is_enlarged_in_a_second_row() -> None:
    grid = Grid((100, 100, 60))
    small = np.zeros(grid.shape_zyx, np.uint8)
    small[30:33, 40:43, 50:53] = 1
    large = np.zeros_like(small)
    large[10:50, 20:80, 20:80] = 1
    grey = Volume(np.random.default_rng(1).normal(size=grid.shape_zyx), grid)
    tall, flat = (overlay_figure(grey, Volume(a, grid), Volume(a, grid), "") for a in (small, large))
    assert pixels(tall).shape[0] > pixels(flat).shape[0] + 300


def test_shape_follows_the_spacing() -> None:
    """An axial cut of 40 x 0.8 by 36 x 0.9 mm beside cuts of 36 mm height: all as tall as each other."""
    empty = mask(filled=False)
    bright = Volume(np.where(np.arange(40) % 2, 1.0, 0.9) * np.ones(GRID.shape_zyx), GRID)
    height, width = pixels(overlay_figure(bright, empty, empty, "")).shape[:2]
    across_mm = 2 * 40 * 0.8 + 36 * 0.9
    assert height / width == pytest.approx(12 * 3.0 / across_mm, rel=0.03)


def test_looks_the_same_however_the_volume_is_stored() -> None:
    flipped_grid = replace(
        GRID, origin_xyz_mm=(39 * 0.8, 0.0, 0.0), direction=(-1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
    )

    def flip(volume: Volume) -> Volume:
        return Volume(volume.array[:, :, ::-1].copy(), flipped_grid)

    volumes = noise(), mask(filled=True), mask(filled=True, start=16)
    assert overlay_figure(*volumes, "a") == overlay_figure(*map(flip, volumes), "a")


def test_constant_and_invalid_images_are_drawn() -> None:
    truth = mask(filled=True)
    for value in (7.0, np.nan):
        grey = Volume(np.full(GRID.shape_zyx, value), GRID)
        assert shows(overlay_figure(grey, truth, truth, ""), PREDICTION_COLOUR)


def test_different_grids_are_refused() -> None:
    other = Volume(mask(filled=True).array, replace(GRID, origin_xyz_mm=(5.0, 0.0, 0.0)))
    with pytest.raises(DataError, match=r"A: image and prediction .* origin"):
        overlay_figure(noise(), mask(filled=True), other, "A")
