"""What `fit` and `compare` begin with."""

from types import SimpleNamespace

import pytest
import torch

from focalis.dataset import Case, Dataset
from focalis.errors import DataError
from focalis.planning import read_plan
from focalis.prediction import Runtime
from focalis.settings import Compute, Folds
from focalis.workflows import setup
from focalis.workflows.fit import fit
from focalis.workflows.setup import Trainers, divide


@pytest.fixture
def card(monkeypatch):
    """A GPU of 24 x 10^9 bytes, by name only: nothing is computed on it."""
    runtime = Runtime(torch.device("cuda", 0), torch.bfloat16)
    monkeypatch.setattr(setup, "choose_runtime", lambda *_: runtime)
    properties = SimpleNamespace(total_memory=24_000_000_000)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: properties)


@pytest.mark.usefixtures("card")
def test_a_plan_is_made_for_the_memory_of_the_gpu_and_says_so(phantoms, tmp_path):
    path = fit(phantoms, tmp_path / "run", plan_only=True).plan
    assert read_plan(path).memory_budget_gb == 21
    assert "the memory of cuda:0, bfloat16; a training step is estimated at" in path.read_text()


@pytest.mark.usefixtures("card")
def test_what_is_asked_for_counts_more_than_the_gpu(phantoms, tmp_path):
    path = fit(phantoms, tmp_path / "run", plan_only=True, memory_gb=5).plan
    assert read_plan(path).memory_budget_gb == 5
    assert "bfloat16" not in path.read_text()


@pytest.mark.usefixtures("card")
def test_trainings_at_a_time_share_the_memory_of_the_gpu():
    assert Trainers.of("processes", 2, Compute()).card_gb == 10.5


def test_without_a_gpu_there_is_no_memory_of_one():
    assert Trainers.of("processes", 2, Compute(device="cpu")).card_gb is None


def test_a_fault_of_splits_that_no_file_holds_names_the_data_set(tmp_path):
    cases = tuple(Case(name, (), None, holds=frozenset()) for name in "abcd")
    with pytest.raises(DataError, match="has no training case with a lesion; move some there") as told:
        divide(Dataset(tmp_path, cases, ()), Folds(folds=2), 0)
    assert told.value.path == tmp_path
