"""Localizers in a series are left out; another stack is not."""

from unittest.mock import Mock

import numpy as np
import pytest
from device_work import GRID, block, config, in_this_process, keep_files, until, working
from pydicom import dcmread

from focalis.device.odd_images import odd_ones
from focalis.device.store import Store
from focalis.volume import Grid

SAGITTAL = [0, 1, 0, 0, 0, -1]


def turned(path, number):
    """Make a file another image of the series, in another plane."""
    data = dcmread(path)
    data.ImageOrientationPatient = SAGITTAL
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.9.{number}"
    data.InstanceNumber = 100 + number
    other = path.with_name(f"localizer{number}.dcm")
    data.save_as(other, enforce_file_format=True)
    return other


@pytest.fixture
def files(write_series, tmp_path):
    grid = Grid((6, 5, 20), (1.0, 1.0, 1.0))
    return write_series(tmp_path / "in", np.zeros(grid.shape_zyx, np.int16), grid)


@pytest.mark.parametrize(("count", "left_out"), [(0, 0), (1, 1), (3, 3), (4, 0), (20, 0)])
def test_few_images_of_another_plane_are_odd(files, count, left_out):
    others = [turned(files[0], number) for number in range(count)]
    assert set(odd_ones([*others, *files])) == set(others[:left_out])


def test_images_of_another_size_are_odd(files):
    data = dcmread(files[3])
    data.Rows, data.PixelData = 4, data.PixelData[: 4 * 6 * 2]
    other = files[3].with_name("small.dcm")
    data.save_as(other, enforce_file_format=True)
    assert odd_ones([*files, other]) == [other]


def test_a_series_with_a_localizer_is_segmented_without_it(model, write_series, tmp_path):
    files = write_series(tmp_path / "in", block(), GRID)
    localizer = turned(files[0], 1)
    with Store(tmp_path / "store") as store:
        uid = keep_files(store, [*files, localizer])
    with working(tmp_path / "store", config(model), run=in_this_process) as jobs:
        task = until(lambda: jobs.store.tasks("done") or jobs.store.tasks("refused"))[0]
        assert (task.state, len(jobs.store.instances(uid)), len(jobs.store.images(uid))) == ("done", 7, 6)
        told = [event.text for event in jobs.store.events(task_id=task.task_id)]
        used = dcmread(next(each.path for each in jobs.store.results(task.task_id) if each.kind == "seg"))
    assert "left out 1 of 7 images, of another orientation or size than the others" in told
    assert "1.2.9.1" not in str(used)


@pytest.mark.parametrize("outcome", ["refused", "held", "failed"])
def test_a_task_that_ends_early_leaves_the_localizer_out(model, write_series, tmp_path, outcome):
    files = write_series(tmp_path / "in", block(), GRID)
    with Store(tmp_path / "store") as store:
        uid = keep_files(store, [*files, turned(files[0], 1)])
    answer = Mock(side_effect=in_this_process)
    with working(tmp_path / "store", config(model), run=answer) as jobs:
        (done,) = until(lambda: jobs.store.tasks("done"))
        images, made = jobs.store.images(uid), answer.call_count
        answer.side_effect = lambda *_: {"outcome": outcome, "reason": "why"}
        jobs.store.add_task("other", uid, "tiny", done.model_sha256, done.input_sha256)
        until(lambda: jobs.store.task("other").state == outcome)
        assert answer.call_count > made
        assert jobs.store.images(uid) == images
