"""Prepared cases: what lies on disk, and that a crash leaves nothing half-written."""

import numpy as np
import pytest

from focalis.dataset import PhantomSettings, write_phantoms
from focalis.planning import Normalisation, Plan
from focalis.training import prepare_case, prepare_cases


@pytest.fixture
def data(tmp_path):
    settings = PhantomSettings(shape_zyx=(24, 24, 24), foreground_share=0.01, lesions=2)
    return write_phantoms(tmp_path / "data", 2, settings, 0)


@pytest.fixture
def plan(data):
    return Plan(
        channels=data.channels,
        labels={1: "lesion"},
        spacing_zyx_mm=(1.0, 1.0, 1.0),
        normalisation=(Normalisation(),),
        patch_zyx=(16, 16, 16),
        batch=2,
    )


def test_arrays_are_mapped_and_lesions_are_listed(data, plan, tmp_path):
    case = prepare_case(data.cases[0], plan, tmp_path / "prepared")
    assert isinstance(case.image, np.memmap)
    assert case.image.shape[1:] == case.label.shape == case.distance_mm.shape
    assert (case.distance_mm[case.label > 0] == 0).all()
    assert (case.distance_mm[case.label == 0] > 0).all()
    voxels = np.concatenate(case.lesions)
    assert (case.label[tuple(voxels.T)] > 0).all()


def test_a_prepared_case_is_not_prepared_again(data, plan, tmp_path):
    prepare_case(data.cases[0], plan, tmp_path / "prepared")
    data.cases[0].images[0].unlink()
    assert prepare_case(data.cases[0], plan, tmp_path / "prepared").name == data.cases[0].name


def test_what_a_crash_left_is_made_again(data, plan, tmp_path):
    folder = tmp_path / "prepared"
    unfinished = folder / f".{data.cases[0].name}.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "image.npy").write_bytes(b"half")
    cases = prepare_cases(data.cases, plan, folder)
    assert len(cases) == 2
    assert not unfinished.exists()
