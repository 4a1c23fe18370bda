"""What the device's tests share: a device that takes in, and a node on a free port."""

import contextlib
import uuid

import buckets
import peers
import postgresql
import pytest
from device_work import GRID, block, save_tiny_model

from focalis.device.config import Config, Limits
from focalis.device.intake import Intake
from focalis.device.parsing import Parser
from focalis.device.store import Store


@pytest.fixture(scope="session")
def parser():
    """A parser with the default limits, whose children live through all tests: they take seconds to start."""
    limits = Limits()
    parser = Parser(
        int(limits.parse_memory_mb * 1e6), limits.parse_seconds, int(limits.series_gb * 1e9), "latin-1"
    )
    yield parser
    parser.close()


@pytest.fixture(scope="session")
def database_server():
    """A PostgreSQL server."""
    if postgresql.programs() is None:
        lacking = "not installed: postgresql (apt-get install postgresql)"
        pytest.fail(lacking) if peers.required() else pytest.skip(lacking)
    with postgresql.server() as server:
        yield server


@pytest.fixture(scope="session")
def object_server():
    """The address of an S3 server."""
    with buckets.server() as (_, endpoint):
        yield endpoint


@pytest.fixture
def objects_address(object_server, monkeypatch):
    """The address of objects that no other test has."""
    for name, value in buckets.environment(object_server).items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket/{uuid.uuid4().hex}"


@pytest.fixture
def make_intake(tmp_path, parser):
    """Make an intake with its own store; settings by section."""
    with contextlib.ExitStack() as stack:

        def make(folder="device", **sections):
            sections.setdefault("store", {"least_free_gb": 0})
            config = Config.model_validate(sections)
            store = stack.enter_context(Store(tmp_path / folder, objects=config.store.objects))
            intake = Intake(store, config)
            intake._parser = parser
            return intake

        yield make


@pytest.fixture
def intake(make_intake):
    return make_intake()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The file of an untrained model of one channel."""
    return save_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def series(write_series, tmp_path):
    """The files of a CT series."""
    return write_series(tmp_path / "in" / "scan", block(), GRID)
