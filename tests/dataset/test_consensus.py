"""Consensus of readers: against plain counting, SimpleITK itself, and the majority that a public set ships."""

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from focalis.dataset import IGNORED, majority, open_dataset, staple, with_readers
from focalis.volume import read_volume

DATA = Path(os.environ.get("FOCALIS_DATA", Path(__file__).parents[3] / "shared" / "data"))


def random_readers(count, values=(0, 1, 2, IGNORED), shape=(3, 4, 5), seed=0):
    rng = np.random.default_rng(seed)
    return [rng.choice(np.asarray(values, np.uint8), shape) for _ in range(count)]


def blobs(count, seed=0):
    """Readers who draw one ball, each a little elsewhere."""
    rng = np.random.default_rng(seed)
    places = np.moveaxis(np.indices((16, 16, 16)), 0, -1)
    return [
        (np.linalg.norm(places - (8 + rng.uniform(-1, 1, 3)), axis=-1) < rng.uniform(3, 5)).astype(np.uint8)
        for _ in range(count)
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_majority_is_what_counting_says(count):
    readers = random_readers(count)
    found = majority(readers)
    for place in np.ndindex(*found.shape):
        votes = [int(reader[place]) for reader in readers if reader[place] != IGNORED]
        drawn = [vote for vote in votes if vote]
        if not votes:
            expected = IGNORED
        elif 2 * len(drawn) < len(votes) or not drawn:
            expected = 0
        else:
            expected = max(sorted(set(drawn)), key=drawn.count)
        assert found[place] == expected, (place, votes)


def test_one_reader_is_his_own_consensus():
    (reader,) = random_readers(1)
    assert np.array_equal(majority([reader]), reader)
    assert np.array_equal(staple([reader]), reader)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_staple_is_simpleitks(count):
    readers = blobs(count)
    likely = sitk.GetArrayFromImage(sitk.STAPLE([sitk.GetImageFromArray(reader) for reader in readers], 1.0))
    assert np.array_equal(staple(readers), (likely >= 0.5).astype(np.uint8))


def test_staple_of_two_labels_keeps_both():
    readers = [2 * one + (one == 0) * other for one, other in zip(blobs(3), blobs(3, seed=9), strict=True)]
    found = staple(readers)
    assert set(np.unique(found)) == {0, 1, 2}
    assert np.array_equal(found == 2, staple([(reader == 2).astype(np.uint8) for reader in readers]) == 1)


def test_a_careless_reader_counts_less_with_staple():
    good = blobs(1)[0]
    careless = np.zeros_like(good)
    careless[1, 1, 1:4] = 1
    assert np.array_equal(staple([good, good, good, careless]), good)


@pytest.mark.parametrize("consensus", [majority, staple])
def test_nothing_drawn_stays_nothing(consensus):
    empty = np.zeros((3, 3, 3), np.uint8)
    assert not consensus([empty, empty, empty]).any()


def test_staple_leaves_out_what_a_reader_has_not_judged():
    first, second = blobs(2)
    second[0] = IGNORED
    assert (staple([first, second])[0] == IGNORED).all()


@pytest.mark.skipif(not (DATA / "lidc_nodules").is_dir(), reason="lidc_nodules is not here")
def test_majority_equals_the_one_that_lidc_nodules_ships():
    cases = [
        case for case in with_readers(open_dataset(DATA / "lidc_nodules")).cases if len(case.readers) > 2
    ]
    for case in cases[::4]:
        shipped = read_volume(DATA / "lidc_nodules" / "labels_majority" / f"{case.name}.nii.gz").array
        readers = [read_volume(path).array.astype(np.uint8) for path in case.readers.values()]
        assert np.array_equal(majority(readers), shipped), case.name
