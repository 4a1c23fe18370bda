"""The second prediction of a scan: what the model is shown, and where its mask is put."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy
from small_plan import small_plan

from focalis.model import Model
from focalis.prediction import Settings
from focalis.volume import Absent, Grid, Volume
from focalis.workflows import repeated_prediction as module
from focalis.workflows.repeated_prediction import second_look

GRID = Grid((30, 28, 20), (1.0, 1.0, 2.0), (5.0, -3.0, 7.0))


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Volume]:
    """What the model was shown; it takes what is brighter than 500 for a lesion."""
    seen: list[Volume] = []

    def segment(_model: Model, volumes: list[Volume], _settings: Settings) -> Any:
        seen.extend(volumes)
        return SimpleNamespace(mask=(volumes[0].array > 500).astype(np.uint8))

    monkeypatch.setattr(module, "segment", segment)
    return seen


def scan() -> Volume:
    image = np.random.default_rng(1).normal(0, 20, GRID.shape_zyx)
    image[6:12, 10:16, 18:26] = 1000
    image[:, :3] = -3000
    return Volume(image.astype(np.float32), GRID)


@pytest.mark.parametrize("flips", [(True, True, True), (True, False, True)])
def test_the_mask_lies_where_the_lesion_does(shown: list[Volume], flips: tuple[bool, bool, bool]) -> None:
    plan = small_plan()
    training = plan.training.model_copy(update={"flip_axes_zyx": flips})
    model = Model(plan.model_copy(update={"training": training}), ())
    image = scan()
    found = second_look(model, [image], Settings())
    lesion = image.array > 500
    assert (found > 0)[scipy.ndimage.binary_erosion(lesion)].all()
    assert not (found > 0)[~scipy.ndimage.binary_dilation(lesion)].any()
    assert not np.array_equal(shown[0].array, image.array)
    if not all(flips):  # a part of the scan, and in the patient where it was
        assert shown[0].grid.origin_xyz_mm == (10.0, 2.0, 13.0)


@pytest.mark.parametrize("flips", [(True, True, True), (False, True, True)])
@pytest.mark.parametrize("lacks", [0, 1])
def test_a_channel_that_the_scan_lacks_is_lacking_again(
    shown: list[Volume], flips: tuple[bool, bool, bool], lacks: int
) -> None:
    plan = small_plan()
    training = plan.training.model_copy(update={"flip_axes_zyx": flips})
    model = Model(plan.model_copy(update={"training": training}), ())
    channels = [scan(), scan()]
    channels[lacks] = Absent.on(GRID)
    second_look(model, channels, Settings())
    assert [isinstance(each, Absent) for each in shown] == [place == lacks for place in range(2)]
    assert shown[0].grid == shown[1].grid


def test_the_voxels_lie_half_a_voxel_on_and_the_noise_is_that_of_two_scans_always_the_same(
    shown: list[Volume],
) -> None:
    image = scan()
    for _ in range(2):
        second_look(Model(small_plan(), ()), [image], Settings())
    first, again = (each.array[::-1, ::-1, ::-1] for each in shown)
    half_on = scipy.ndimage.uniform_filter(image.array, 2, origin=-1, mode="nearest")
    added = (first - half_on)[image.array > -3000]
    assert np.array_equal(first, again)
    assert added.std() == pytest.approx(20 * np.sqrt(2), rel=0.1)
    assert (first[image.array == -3000] == -3000).all()
