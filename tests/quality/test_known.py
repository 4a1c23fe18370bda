"""A case whose files are the same is not read again: what was measured in it is known."""

import time
from dataclasses import replace

import numpy as np
import pytest

from focalis.dataset import PhantomSettings, open_dataset, write_phantoms
from focalis.files import KnownFiles
from focalis.planning import fingerprint
from focalis.quality import measure, problems
from focalis.volume import Volume, read_volume, write_volume

SMALL = PhantomSettings(shape_zyx=(16, 18, 20), foreground_share=0.01, lesions=1)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Three cases that were written long ago."""
    write_phantoms(tmp_path / "data", 3, SMALL, 0)
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 10**11)
    return open_dataset(tmp_path / "data")


@pytest.fixture
def read(monkeypatch):
    """The names of the images that a check reads."""
    seen = []
    real = problems.read_entries
    monkeypatch.setattr(
        problems, "read_entries", lambda path, entries: seen.append(path.name) or real(path, entries)
    )
    return seen


def looked_at(dataset, store):
    known = KnownFiles(store)
    found = measure(dataset, known=known)
    known.save()
    return found


def changed(case, change):
    image = read_volume(case.images[0])
    write_volume(Volume(change(image.array.copy()), image.grid), case.images[0])


def test_the_second_time_no_image_is_read_and_the_facts_are_the_same(data, read, tmp_path):
    first = looked_at(data, tmp_path / "known.json")
    read.clear()

    second = looked_at(data, tmp_path / "known.json")

    assert read == []
    assert (second.result, second.facts, second.remarks) == (first.result, first.facts, first.remarks)
    assert second.result.holds == first.result.holds == {case.name: {1} for case in data.cases}


def test_a_changed_image_is_read_again_alone(data, read, tmp_path):
    before = looked_at(data, tmp_path / "known.json")
    changed(data.cases[1], lambda array: array + 1)
    read.clear()

    after = looked_at(data, tmp_path / "known.json")

    assert read == [data.cases[1].images[0].name]
    assert [a == b for a, b in zip(before.facts, after.facts, strict=True)] == [True, False, True]


def test_a_faulty_case_is_read_and_told_every_time(data, read, tmp_path):
    changed(data.cases[0], lambda array: np.where(array > array.mean(), np.nan, array))
    first = looked_at(data, tmp_path / "known.json")
    read.clear()
    assert looked_at(data, tmp_path / "known.json").result == first.result
    assert read == [data.cases[0].images[0].name]
    assert len(first.result.problems) == 1


@pytest.mark.parametrize("change", [{"ignore": 7}, {"labels": {1: "core"}}, {"channels": ("CT",)}])
def test_another_meaning_of_the_same_files_is_looked_at_again(data, read, tmp_path, change):
    looked_at(data, tmp_path / "known.json")
    read.clear()
    looked_at(replace(data, **change), tmp_path / "known.json")
    assert len(read) == 3


def test_a_channel_that_is_put_onto_the_grid_of_another_is_reported_again(data, tmp_path):
    image = read_volume(data.cases[0].images[0])
    moved = data.root / "images" / "second.nii.gz"
    write_volume(Volume(image.array, replace(image.grid, origin_xyz_mm=(1.0, 0.0, 0.0))), moved)
    case = replace(data.cases[0], images=(*data.cases[0].images, moved))
    data = replace(data, cases=(case,), channels=("T1", "T2"))

    first = looked_at(data, tmp_path / "known.json")

    assert [finding.kind for finding in first.remarks] == ["grid"]
    assert looked_at(data, tmp_path / "known.json").remarks == first.remarks
    assert measure(data).figures == {}  # what was read lies on another grid than what will be trained on


def test_figures_taken_in_passing_are_those_of_reading_the_cases(data):
    taken = measure(data).figures
    assert set(taken) == {case.name for case in data.cases}
    assert fingerprint(data.cases, taken=taken) == fingerprint(data.cases)


def test_figures_of_a_case_do_not_depend_on_the_others(data):
    several, one = fingerprint(data.cases), fingerprint(data.cases[2:])
    assert several.lesion_volumes_mm3[-len(one.lesion_volumes_mm3) :] == one.lesion_volumes_mm3
    assert several.shapes_zyx[2:] == one.shapes_zyx
