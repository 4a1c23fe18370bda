"""The segmenting child's keeper: each answer goes to its own job, and a stop waits for nobody."""

import sys
import threading
import time

import pytest

from focalis.device import segmenter
from focalis.device.config import Limits
from focalis.device.segment import SeriesJob
from focalis.errors import DataError

SLOW_CHILD = """
import json, sys, time
for line in sys.stdin:
    print(json.dumps({"state": "checking"}), flush=True)
    time.sleep(0.3)
    print(json.dumps({"outcome": "done", "results": [json.loads(line)["folder"]]}), flush=True)
"""


def job(folder):
    return SeriesJob(
        files={}, model="m", model_sha256="0" * 64, folder=folder, version="1", memory_gb=1, supersedes={}
    )


@pytest.fixture
def keeper(monkeypatch):
    """A keeper of a child that answers after a moment, without torch."""
    monkeypatch.setattr(segmenter, "COMMAND", (sys.executable, "-c", SLOW_CHILD))
    found = segmenter.Segmenter(Limits())
    yield found
    found.stop()


def test_after_a_fault_of_the_device_the_next_job_is_not_given_the_answer_to_the_last(keeper):
    def full(_state):
        raise DataError("store.sqlite: database or disk is full")

    with pytest.raises(DataError):
        keeper.run(job("first"), full)

    assert keeper.run(job("second"), lambda _state: None)["results"] == ["second"]
    assert keeper.run(job("third"), lambda _state: None)["results"] == ["third"]


def test_a_stop_while_the_child_starts_ends_the_job(keeper, monkeypatch):
    start, reached, answers = keeper._start, threading.Event(), []

    def slowly():
        reached.set()
        time.sleep(0.3)
        return start()

    monkeypatch.setattr(keeper, "_start", slowly)
    thread = threading.Thread(target=lambda: answers.append(keeper.run(job("x"), lambda _state: None)))
    thread.start()
    reached.wait()

    keeper.stop()

    thread.join()
    assert [answer["outcome"] for answer in answers] == ["stopped"]


def test_what_a_dying_child_says_last_is_reported(monkeypatch):
    dying = "import sys; sys.stdin.readline(); sys.exit('no such thing')"
    monkeypatch.setattr(segmenter, "COMMAND", (sys.executable, "-c", dying))

    answer = segmenter.Segmenter(Limits()).run(job("x"), lambda _state: None)

    assert answer["outcome"] == "killed"
    assert answer["reason"] == "ended with exit code 1: no such thing"
