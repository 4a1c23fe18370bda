"""Child processes that end in all the ways that processes end."""

import json
import sys
import textwrap
from dataclasses import replace

import pytest

from focalis.training import Progress
from focalis.workflows import processes
from focalis.workflows.child import Task
from focalis.workflows.processes import run_tasks


def tasks(tmp_path, count):
    def task(number):
        return Task(
            "data",
            {},
            str(tmp_path / str(number)),
            "prepared",
            (),
            (),
            number,
            "cpu",
            "float32",
            1,
            1.0,
            1,
            "",
            {},
        )

    return [lambda number=number: task(number) for number in range(count)]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run so many tasks, each in a process of the given code, which knows its `task`; outcomes and what was told."""

    def call(code, count=1, parallel=1, tell=None):
        start = "import json, os, sys\ntask = json.loads(sys.stdin.readline())\n"
        finish = (
            "open(os.path.join(task['home'], 'outcome.json'), 'w').write('{\"outcome\": \"finished\"}')\n"
        )
        program = start + textwrap.dedent(code) + finish
        monkeypatch.setattr(processes, "COMMAND", (sys.executable, "-c", program))
        told = []
        run_tasks(tasks(tmp_path, count), parallel, tell or (lambda *words: told.append(words)))
        outcomes = [json.loads((tmp_path / str(n) / "outcome.json").read_text()) for n in range(count)]
        return outcomes, told

    return call


def test_a_finished_one_tells_its_progress(run):
    line = json.dumps({"step": 1, "steps": 2, "loss": 0.5, "val_dice": None, "seconds_left": 3.0})

    outcomes, told = run(f"print('a library says hello')\nprint('''{line}''')\n")

    assert outcomes == [{"outcome": "finished"}]
    assert told == [(0, None), (0, Progress(1, 2, 0.5, None, 3.0))]


def test_one_that_the_system_kills_does_not_stop_the_others(run):
    outcomes, _ = run("if task['seed'] == 1: os.kill(os.getpid(), 9)\n", count=3)

    assert [outcome["outcome"] for outcome in outcomes] == ["finished", "killed", "finished"]
    assert "SIGKILL" in outcomes[1]["message"]
    assert "memory" in outcomes[1]["message"]


def test_one_that_dies_without_a_word_is_reported_with_its_last_line(run):
    outcomes, _ = run("sys.exit('cannot open shared object file')\n")

    assert outcomes == [
        {"outcome": "failed", "message": "the process ended with exit code 1: cannot open shared object file"}
    ]


def test_one_that_dies_before_it_reads_its_task_is_reported_too(tmp_path, monkeypatch):
    """A task is longer than the pipe holds where the case names are many, so that writing it fails."""
    monkeypatch.setattr(processes, "COMMAND", (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"))
    (make,) = tasks(tmp_path, 1)

    run_tasks([lambda: replace(make(), train=("case",) * 100_000)], 1, lambda *_words: None)

    assert json.loads((tmp_path / "0" / "outcome.json").read_text())["outcome"] == "killed"


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


def test_ctrl_c_reaches_the_child_and_starts_no_other(run, tmp_path):
    wait = """
        import signal, time
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored in the background
        try:
            print(json.dumps({"step": 1, "steps": 2, "loss": 0.5, "val_dice": None, "seconds_left": 3.0}), flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            open(os.path.join(task["home"], "saved"), "w").close()
            sys.exit(130)
    """

    def press(_number, progress):
        if progress:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(wait, count=2, tell=press)

    assert (tmp_path / "0" / "saved").exists()
    assert not (tmp_path / "0" / "outcome.json").exists()
    assert not (tmp_path / "1").exists() or not list((tmp_path / "1").glob("saved"))
