"""What every test shares: one thread, so that tests are quick on small arrays and equal on every machine."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator

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
    """The folders with the longest files come first, so that no worker is left alone with one at the end."""
    first = ("workflows", "device")
    items.sort(
        key=lambda item: next((n for n, name in enumerate(first) if name in item.path.parts), len(first))
    )


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
