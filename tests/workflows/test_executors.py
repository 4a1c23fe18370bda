"""Tasks in this process and in child processes that end in all the ways that processes end."""

import json
import sys
import textwrap
import types
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from small_plan import small_plan

from focalis import plugins
from focalis.dataset import Split
from focalis.errors import DataError, TrainingError, UsageError
from focalis.settings import Compute, Length
from focalis.training import Progress
from focalis.workflows import executors
from focalis.workflows.executors import Executor, executor, here, processes
from focalis.workflows.task import Task


def tasks(tmp_path, count, train=()):
    plan = small_plan()
    return [
        Task(
            name=f"number {number}",
            dataset=Path("data"),
            labels={},
            holds={},
            home=tmp_path / str(number),
            prepared=Path("prepared"),
            fold=0,
            split=Split(train, ()),
            plan=plan,
            seed=number,
            length=Length(steps=1),
            compute=Compute("cpu", "float32", threads=1),
            record={},
        )
        for number in range(count)
    ]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run so many tasks, each in a process of the given code, which knows its `task`; outcomes and what was told."""

    def call(code, count=1, parallel=1, tell=None):
        start = "import json, os, sys\ntask = json.loads(sys.stdin.readline())\n"
        finish = (
            "open(os.path.join(task['home'], 'outcome.json'), 'w').write('{\"outcome\": \"finished\"}')\n"
        )
        program = start + textwrap.dedent(code) + finish
        monkeypatch.setattr(executors, "COMMAND", (sys.executable, "-c", program))
        told = []
        try:
            processes(tasks(tmp_path, count), parallel, tell or (lambda *words: told.append(words)))
        except TrainingError as error:
            told.append(str(error))
        outcomes = [json.loads((tmp_path / str(n) / "outcome.json").read_text()) for n in range(count)]
        return outcomes, told

    return call


def test_a_finished_one_tells_its_progress(run):
    line = json.dumps({"step": 1, "steps": 2, "loss": 0.5, "val_dice": None, "seconds_left": 3.0})

    outcomes, told = run(f"print('''{line}''')\n")

    assert outcomes == [{"outcome": "finished"}]
    assert told == [("number 0", None), ("number 0", Progress(1, 2, 0.5, None, 3.0))]


def test_one_that_the_system_kills_does_not_stop_the_others(run):
    outcomes, told = run("if task['seed'] == 1: os.kill(os.getpid(), 9)\n", count=3)

    assert [outcome["outcome"] for outcome in outcomes] == ["finished", "killed", "finished"]
    assert "SIGKILL" in outcomes[1]["message"]
    assert "memory" in outcomes[1]["message"]
    assert told[-1] == f"number 1: {outcomes[1]['message']}"


def test_one_that_dies_without_a_word_is_reported_with_its_last_line(run):
    outcomes, _ = run("sys.exit('cannot open shared object file')\n")

    assert outcomes == [
        {"outcome": "failed", "message": "the process ended with exit code 1: cannot open shared object file"}
    ]


def test_one_that_dies_before_it_reads_its_task_is_reported_too(tmp_path, monkeypatch):
    """A task is longer than the pipe holds where the case names are many, so that writing it fails."""
    monkeypatch.setattr(executors, "COMMAND", (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"))
    long = tasks(tmp_path, 1, train=("case",) * 100_000)

    with pytest.raises(TrainingError, match="SIGKILL"):
        processes(long, 1, lambda *_words: None)

    assert long[0].outcome["outcome"] == "killed"


def test_an_older_outcome_does_not_count(run, tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "outcome.json").write_text('{"outcome": "finished"}')

    outcomes, _ = run("sys.exit('no')\n")

    assert outcomes[0]["outcome"] == "failed"


def test_two_at_a_time_run_at_the_same_time(run):
    """Each waits until the other has begun."""
    meet = """
        import pathlib, time
        home = pathlib.Path(task["home"])
        (home / "here").touch()
        limit = time.monotonic() + 30
        while not (home.parent / str(1 - task["seed"]) / "here").exists():
            time.sleep(0.02)
            assert time.monotonic() < limit
    """

    outcomes, _ = run(meet, count=2, parallel=2)

    assert [outcome["outcome"] for outcome in outcomes] == ["finished", "finished"]


WAIT = """
    import signal, time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored in the background
    try:
        print(json.dumps({"step": 1, "steps": 2, "loss": 0.5, "val_dice": None, "seconds_left": 3.0}), flush=True)
        time.sleep(60)
    except KeyboardInterrupt:
        open(os.path.join(task["home"], "saved"), "w").close()
        sys.exit(130)
"""


@pytest.mark.parametrize("parallel", [1, 2])
def test_ctrl_c_reaches_every_child_and_starts_no_other(run, tmp_path, parallel):
    begun = set()

    def press(name, progress):
        if progress:
            begun.add(name)
        if len(begun) == parallel:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(WAIT, count=3, parallel=parallel, tell=press)

    assert len(list(tmp_path.glob("*/saved"))) == parallel
    assert not list(tmp_path.glob("*/outcome.json"))
    assert not (tmp_path / "2" / "log.txt").exists()


def test_in_this_process_every_task_is_tried_and_the_failed_ones_are_named(tmp_path, monkeypatch):
    tried = []

    def carry_out(task, _tell):
        tried.append(task.seed)
        if task.seed != 1:
            raise DataError("a.nii.gz: is gone; put it back")

    monkeypatch.setattr(executors, "carry_out", carry_out)
    with pytest.raises(TrainingError, match=r"^number 0: a.nii.gz: is gone; put it back\nnumber 2: a.nii.gz"):
        here(tasks(tmp_path, 3), 1, lambda *_words: None)
    assert tried == [0, 1, 2]
    with pytest.raises(DataError, match=r"^a.nii.gz: is gone"):
        here(tasks(tmp_path, 1), 1, lambda *_words: None)


def test_in_this_process_an_unforeseen_error_does_not_stop_the_others_either(tmp_path, monkeypatch):
    tried = []

    def carry_out(task, _tell):
        tried.append(task.seed)
        if task.seed == 0:
            raise NotImplementedError("of the loss")

    monkeypatch.setattr(executors, "carry_out", carry_out)
    with pytest.raises(TrainingError, match=r"^number 0: NotImplementedError: of the loss$") as raised:
        here(tasks(tmp_path, 3), 1, lambda *_words: None)
    assert tried == [0, 1, 2]
    assert isinstance(raised.value.__cause__, NotImplementedError)
    with pytest.raises(NotImplementedError):
        here(tasks(tmp_path, 1), 1, lambda *_words: None)


def test_a_process_that_left_the_others_does_not_go_on_alone(tmp_path, monkeypatch):
    """Its launcher waits for its end, and starts all of them again."""
    together, tried = [2], []

    def carry_out(task, _tell):
        tried.append(task.seed)
        together[:] = [1]
        raise RuntimeError("out of memory")

    monkeypatch.setattr(executors.ranks, "count", lambda: together[0])
    monkeypatch.setattr(executors, "carry_out", carry_out)
    with pytest.raises(RuntimeError, match="out of memory"):
        here(tasks(tmp_path, 3), 1, lambda *_words: None)
    assert tried == [0]


def test_an_installed_package_registers_an_executor(monkeypatch):
    mine = types.ModuleType("cloud")
    mine.RENTED = Executor(lambda *_given: None)
    monkeypatch.setitem(sys.modules, "cloud", mine)
    entry = EntryPoint("rented", "cloud:RENTED", "focalis.executors")
    monkeypatch.setattr(plugins, "offered", lambda kind: {"rented": entry} if kind == "executor" else {})
    assert executor("rented", 8) is mine.RENTED
    with pytest.raises(UsageError, match="known are here, processes, ray, slurm, rented"):
        executor("lent", 8)


def test_an_executor_that_cannot_be_is_refused():
    with pytest.raises(UsageError, match="unknown executor 'cloud'; known are here, processes, ray, slurm"):
        executor("cloud", 1)
    with pytest.raises(UsageError, match="here is one process"):
        executor("here", 2)
