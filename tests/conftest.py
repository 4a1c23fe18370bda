"""What every test shares: one thread, so that tests are quick on small arrays and equal on every machine."""

import atexit
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import peers
import pytest
import torch

from focalis.prediction import choice

pytest_plugins = ["dicom_fixtures"]

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
# Choices of a run time and converted networks do not go into the home of whoever runs the tests.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="focalis-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)


def pytest_sessionstart() -> None:
    if peers.required() and (lacking := peers.missing()):
        pytest.exit(
            f"FOCALIS_REQUIRE_PEERS is 1, but these are not installed: {', '.join(sorted(lacking))}", 1
        )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files first, those that wait and those that compute by turns: no worker is left alone with one."""
    here, seen = Path(__file__).parent, Counter[str]()
    turn = {}
    for path in dict.fromkeys(item.path for item in items):
        top = path.relative_to(here).parts[0]
        seen[top] += 1
        turn[path] = (top not in ("device", "workflows"), seen[top])
    items.sort(key=lambda item: turn[item.path])


@pytest.fixture(autouse=True)
def _same_random_start() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def _run_times_are_not_measured(request: pytest.FixtureRequest) -> Iterator[None]:
    """The many tests that only want a mask take the reference; those of the run times say so by their file."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        if request.path.name not in ("test_runtimes.py", "test_one_way.py"):
            monkeypatch.setattr(choice, "_fastest", lambda *_: "torch")
        yield
