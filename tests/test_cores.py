"""How many cores of the processor are ours."""

import os

import pytest

from focalis.cores import usable_cores


@pytest.fixture
def four_of_eight(monkeypatch):
    """A machine of eight cores, four of which this process may use."""
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 2, 4, 6}, raising=False)


@pytest.mark.usefixtures("four_of_eight")
def test_cores_of_others_do_not_count():
    assert usable_cores() == 4


@pytest.mark.parametrize(("counted", "cores"), [(8, 8), (None, 1)])
def test_all_cores_count_where_the_system_does_not_tell_which_are_ours(monkeypatch, counted, cores):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: counted)
    assert usable_cores() == cores
