"""Pictures of a lesion on several dates."""

import io
from collections.abc import Sequence

import numpy as np
from follow_scenes import grid_of
from matplotlib.image import imread

from focalis.followup import LesionDay, Sighting, Size, Track, make_study
from focalis.report.follow_page import lesion_figure
from focalis.volume import Volume

GRID = grid_of((2, 2, 2), (-20, -20, -20), (20, 20, 20))


def tissue(tissues: Sequence[float], brightest: Sequence[float]) -> list[float]:
    """How bright the picture of each date shows its tissue; each scan also holds air (0) and one bright stripe."""
    studies = []
    for value, stripe in zip(tissues, brightest, strict=True):
        image = np.full(GRID.shape_zyx, value, np.float32)
        image[:, :5], image[:, -2:] = 0, stripe
        studies.append(make_study("scan", Volume(image, GRID), np.zeros(image.shape, np.uint8), {}))
    sightings = tuple(Sighting("persistent", centre_lps_mm=(0.0, 0.0, 0.0)) for _ in studies)
    size = Size(500, 50, 10, 1, 8, 10, pieces=1, cut=False)
    days = [LesionDay(size, None, None)] * len(studies)
    picture = imread(io.BytesIO(lesion_figure(Track(1, 1, "lesion", sightings), days, studies)))
    rows, columns = picture.shape[0], picture.shape[1] / (2.06 * len(studies) + 3.0)
    return [
        float(picture[round(0.55 * rows), round((2.06 * day + 0.3) * columns), 0])
        for day in range(len(studies))
    ]


def test_the_same_tissue_is_as_bright_on_each_date() -> None:
    first, second, third = tissue([100, 100, 100], [150, 400, 200])
    assert first == second == third
    assert 0.1 < first < 0.5


def test_scans_of_another_scale_are_shown_each_in_its_own_window() -> None:
    first, second = tissue([100, 5000], [150, 7500])
    assert first > 0.5
    assert abs(first - second) < 0.02
