"""Child processes: what they are asked, what they answer, and the ways in which they do not."""

import subprocess
import sys
import time

import pytest

from focalis.children import Child, LostError

REQUESTS = """
from focalis.children import requests, take_over_output
answer = take_over_output()
for request in requests():
    print("a library says hello")
    answer({"twice": 2 * request})
"""


@pytest.fixture
def start():
    children = []

    def call(code, **options):
        children.append(Child((sys.executable, "-c", code), **options))
        return children[-1]

    yield call
    for child in children:
        child.stop()


def test_it_answers_what_it_is_asked_and_prints_elsewhere(start):
    child = start(REQUESTS)
    for number in (3, 4):
        child.send(number)
        assert child.receive(60) == {"twice": 2 * number}


def test_it_ends_with_its_parent():
    with subprocess.Popen(
        (sys.executable, "-c", REQUESTS.replace("answer({", "import time; time.sleep(600); answer({")),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        process.stdin.write(b"1\n")
        process.stdin.close()
        assert process.wait(timeout=60) == 1


def test_one_that_takes_too_long_is_lost_and_can_be_stopped(start):
    child = start("import time; time.sleep(600)")
    begin = time.monotonic()
    with pytest.raises(LostError, match="late"):
        child.receive(0.2)
    child.stop()
    assert time.monotonic() - begin < 20
    assert not child.running


def test_one_that_takes_too_much_memory_is_lost(start):
    child = start("x = bytearray(300_000_000); import time; time.sleep(600)")
    with pytest.raises(LostError, match="large"):
        child.receive(60, memory_bytes=200e6)
    assert child.peak_bytes > 200e6


@pytest.mark.parametrize("said", ["no JSON", "[1, 2]"])
def test_something_else_than_an_answer_is_unreadable(start, said):
    with pytest.raises(LostError, match="unreadable"):
        start(f"print({said!r})").receive(60)


def test_an_answer_without_end_is_cut_and_unreadable(start):
    with pytest.raises(LostError, match="unreadable"):
        start("print('{' * 100_000)", answer_bytes=1000).receive(60)


def test_the_last_lines_of_one_that_dies_are_reported(start, tmp_path):
    child = start(
        "import sys\nfor n in range(9): print(n, file=sys.stderr)\nsys.exit(3)", log=tmp_path / "log.txt"
    )
    with pytest.raises(LostError, match="ended"):
        child.receive(60)
    assert child.ending() == "ended with exit code 3: 4 5 6 7 8"
    assert child.ending(1) == "ended with exit code 3: 8"
    assert (tmp_path / "log.txt").read_text().split() == [str(n) for n in range(9)]


def test_an_unexpected_error_is_told_by_kind_and_place_and_the_log_has_its_way(start, caplog):
    child = start(
        "import sys\nfrom focalis.children import take_over_output\ntake_over_output()\n"
        "def name(row): return row['Lindqvist^Maja']\nname({})"
    )

    assert child.ending() == "ended with exit code 1: unexpected KeyError at <string>:4"
    assert "unexpected KeyError at <string>:4 < <string>:5" in caplog.text
    assert "Lindqvist" not in caplog.text


def test_one_that_the_system_kills_is_reported_as_such(start):
    child = start("import os; os.kill(os.getpid(), 9)")
    assert "was ended by SIGKILL" in child.ending()
    assert child.killed
    with pytest.raises(LostError, match="ended"):
        child.send("x" * 1_000_000)


def test_one_that_is_quiet_drops_its_errors(start):
    child = start("import sys; sys.exit('Müller^Jörg')", quiet=True)
    assert child.ending() == "ended with exit code 1: it left no message"
