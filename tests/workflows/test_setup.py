"""What `fit` and `compare` begin with."""

from types import SimpleNamespace

import pytest
import torch

from focalis.dataset import Case, Dataset
from focalis.errors import DataError, PlanError
from focalis.planning import make, read_plan, write_plan
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


@pytest.fixture
def given(phantoms, tmp_path, monkeypatch):
    """A plan of 7 patches and 7 GB. A patch takes 1 GB of a training step, 2 GB with another network or loss."""

    def step_bytes(plan):
        usual = (plan.network.name, plan.loss.name) == ("dense", "dice_cross_entropy")
        return plan.batch * (1 if usual else 2) * 10**9

    monkeypatch.setattr(make, "training_bytes", step_bytes)
    plan = read_plan(fit(phantoms, tmp_path / "made", plan_only=True, memory_gb=50, network="dense").plan)
    write_plan(plan.model_copy(update={"batch": 7, "memory_budget_gb": 7.0}), tmp_path / "given.yaml")
    return tmp_path / "given.yaml"


CHANGED = [
    ({"memory_gb": 4.5}, 4),
    ({"network": "unet"}, 3),
    ({"loss": "focal"}, 3),
    ({"network": "unet", "memory_gb": 11.0}, 5),
]


@pytest.mark.parametrize(("changes", "batch"), [*CHANGED, ({"folds": 2, "parallel": 2}, 3)])
def test_a_given_plan_that_is_changed_gets_the_batch_that_fits(given, phantoms, tmp_path, changes, batch):
    plan = read_plan(fit(phantoms, tmp_path / "run", plan=given, plan_only=True, **changes).plan)
    assert plan.batch == batch
    assert plan.reasons["batch"].endswith("; reduced from 7 to fit the memory budget")
    assert plan.reasons["memory_budget_gb"].startswith("a training step is estimated at")


@pytest.mark.parametrize(("changes", "batch"), CHANGED)
def test_so_does_the_plan_in_the_folder(given, phantoms, tmp_path, changes, batch):
    (tmp_path / "run").mkdir()
    given.rename(tmp_path / "run" / "plan.yaml")
    assert read_plan(fit(phantoms, tmp_path / "run", plan_only=True, **changes).plan).batch == batch


@pytest.mark.parametrize("changes", [{}, {"memory_gb": 7.0}, {"seed": 3, "readers": "labels"}])
def test_a_given_plan_is_taken_at_its_word_where_nothing_of_its_memory_changes(
    given, phantoms, tmp_path, changes
):
    write_plan(read_plan(given).model_copy(update={"batch": 40}), given)
    assert read_plan(fit(phantoms, tmp_path / "run", plan=given, plan_only=True, **changes).plan).batch == 40


def test_a_given_plan_without_reasons_gets_that_of_its_batch(given, phantoms, tmp_path):
    write_plan(read_plan(given).model_copy(update={"reasons": {}}), given)
    plan = read_plan(fit(phantoms, tmp_path / "run", plan=given, plan_only=True, memory_gb=2.0).plan)
    assert plan.reasons["batch"] == "reduced from 7 to fit the memory budget"


def test_a_given_plan_of_which_no_patch_fits_is_refused(given, phantoms, tmp_path):
    with pytest.raises(PlanError, match=r"a memory budget of 1.5 GB is too small for one patch"):
        fit(phantoms, tmp_path / "run", plan=given, plan_only=True, memory_gb=1.5, network="unet")


@pytest.mark.parametrize("earlier", [False, True])
def test_a_run_whose_plan_was_changed_is_resumed_by_the_same_command(given, phantoms, tmp_path, earlier):
    command = {"plan": given, "plan_only": True, "memory_gb": 3.0}
    path = fit(phantoms, tmp_path / "run", **command).plan
    if earlier:  # by a version that changed the budget alone
        write_plan(read_plan(given).model_copy(update={"memory_budget_gb": 3.0}), path)
    before = path.read_text()
    assert fit(phantoms, tmp_path / "run", resume=True, **command).plan.read_text() == before
    with pytest.raises(PlanError, match="the run follows another plan"):
        fit(phantoms, tmp_path / "run", resume=True, **command | {"memory_gb": 2.0})


@pytest.mark.usefixtures("given")
def test_a_new_plan_is_made_for_the_loss_that_is_asked_for(phantoms, tmp_path):
    assert (
        read_plan(fit(phantoms, tmp_path / "run", plan_only=True, memory_gb=5, loss="focal").plan).batch == 2
    )


def test_a_fault_of_splits_that_no_file_holds_names_the_data_set(tmp_path):
    cases = tuple(Case(name, (), None, holds=frozenset()) for name in "abcd")
    with pytest.raises(DataError, match="has no training case with a lesion; move some there") as told:
        divide(Dataset(tmp_path, cases, ()), Folds(folds=2), 0)
    assert told.value.path == tmp_path
