"""Jobs on a real Ray on this machine: one node, several, and workers that are lost."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from small_plan import small_plan

from focalis.dataset import PhantomSettings, Split, write_phantoms
from focalis.errors import TrainingError, UsageError
from focalis.model import load_model
from focalis.planning import write_plan
from focalis.settings import Compute, Length
from focalis.workflows.compare import compare
from focalis.workflows.executors import executor
from focalis.workflows.fit import fit
from focalis.workflows.ray import ray
from focalis.workflows.task import Task

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::focalis.training.NothingLearnedWarning"),
]
OPTIONS = {"steps": 60, "folds": 2, "threads": 1, "memory_gb": 1.0, "device": "cpu"}


def quiet(*_told):
    pass


@pytest.fixture
def engine(monkeypatch):
    """Ray, whose processes find the package where this one does."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "src"))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    engine = pytest.importorskip("ray")
    yield engine
    engine.shutdown()


@pytest.fixture
def cluster(engine):
    """Two nodes of one processor and 4 GB each."""
    utils = pytest.importorskip("ray.cluster_utils")
    node = {"num_cpus": 1, "memory": 4 * 10**9, "object_store_memory": 80 * 2**20}
    made = utils.Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    made.add_node(**node)
    engine.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    yield made
    engine.shutdown()
    made.shutdown()


@pytest.fixture
def data(tmp_path):
    settings = PhantomSettings(shape_zyx=(16, 20, 20), foreground_share=0.02, lesions=1)
    write_phantoms(tmp_path / "data", 6, settings, 0)
    return tmp_path / "data"


def job(home, **compute):
    return Task(
        name="a training",
        dataset=Path("data"),
        labels={},
        holds={},
        home=home,
        prepared=home.parent / "prepared",
        fold=0,
        split=Split((), ()),
        plan=small_plan(memory_budget_gb=1.0),
        seed=0,
        length=Length(steps=1),
        compute=Compute(**{"device": "cpu", "threads": 1, **compute}),
        record={},
    )


def same_weights(one, other):
    for member, twin in zip(load_model(one).members, load_model(other).members, strict=True):
        pairs = zip(member.state_dict().values(), twin.state_dict().values(), strict=True)
        assert all(torch.equal(value, same) for value, same in pairs)


def until(true, seconds=300):
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.1)


def training(fold):
    """The process that trains a fold, which has its lock open."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            handles = [str(each.readlink()) for each in (process / "fd").iterdir()]
        except OSError:
            continue
        if str(fold / ".lock") in handles:
            return int(process.name)
    return None


def test_without_ray_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"--on ray needs Ray; pip install 'focalis\[ray\]'"):
        executor("ray", 1).run([job(tmp_path / "home")], 1, quiet)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_what_no_node_has_is_refused_and_what_a_worker_refuses_is_reported(tmp_path):
    for compute, why in [
        ({"device": "cuda"}, r"no node of the Ray cluster has cuda; give another --device"),
        ({"device": "cuda:1"}, r"device cuda:1 is a choice that Ray makes; give --device cuda"),
        ({"threads": 2}, r"a task needs 2 threads and 3 GB, and no node .* \(at most 1 and 4.0 GB\)"),
    ]:
        with pytest.raises(UsageError, match=why):
            ray([job(tmp_path / "home", **compute)], 1, quiet)
    with pytest.raises(TrainingError, match=r"a training: .*data: is not a folder"):
        ray([job(tmp_path / "home")], 1, quiet)
    assert job(tmp_path / "home").outcome["outcome"] == "failed"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("cluster")
def test_folds_whose_worker_is_killed_come_to_what_they_come_to_here(tmp_path, data):
    told, killed = [], []

    def kill():
        until(lambda: (tmp_path / "run" / "fold_1" / "metrics.jsonl").exists())
        killed.append(training(tmp_path / "run" / "fold_1"))
        os.kill(killed[0], signal.SIGKILL)

    write_plan(small_plan(), tmp_path / "plan.yaml")
    options = {**OPTIONS, "plan": tmp_path / "plan.yaml"}
    killer = threading.Thread(target=kill)
    killer.start()
    result = fit(data, tmp_path / "run", on="ray", progress=lambda *words: told.append(words), **options)
    killer.join()

    assert killed[0] != os.getpid()
    assert any(progress and progress.steps == 60 for _, progress in told)
    alone = fit(data, tmp_path / "here", **options)
    same_weights(result.model, alone.model)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_rows_of_a_comparison_outlive_a_node(tmp_path, data, cluster):
    def remove():
        until(lambda: any((tmp_path / "run").glob("*/*/metrics.jsonl")))
        cluster.remove_node(cluster.list_all_nodes()[1], allow_graceful=False)

    remover = threading.Thread(target=remove)
    remover.start()
    options = {"steps": 4, "threads": 1, "memory_gb": 1.0, "device": "cpu"}
    losses = ("dice_cross_entropy", "distance_focal")
    result = compare(data, tmp_path / "run", losses=losses, on="ray", **options)
    remover.join()

    runs = [run["outcome"] for row in result.content["rows"] for run in row["runs"]]
    assert runs == ["finished", "finished"]
