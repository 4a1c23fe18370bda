"""What the page's tests share: phantom studies, clients of every role, and jobs without their process."""

import hashlib
from importlib import import_module

import pytest
from page_clients import PASSWORD, SECRET, local_client
from phantom_device import PACS, ROUTE, PhantomDevice

from focalis.device.config import Config, Token, User
from focalis.device.web import held_headers, study, study_identity, system, views
from focalis.device.web.auth import hash_password
from focalis.device.web.worker import JOBS


@pytest.fixture(scope="session")
def users():
    """One user per role; hashing takes a while on purpose."""
    hashed = hash_password(PASSWORD)
    return tuple(User(name=role, password_hash=hashed, role=role) for role in ("viewer", "reviewer", "admin"))


@pytest.fixture(autouse=True)
def _jobs_in_this_process(monkeypatch):
    """A child process takes seconds to start; `test_children.py` has the real one."""
    for module in (study_identity, study, system, views, held_headers):
        monkeypatch.setattr(module, "run_job", run_here)


def run_here(name, arguments, _limits):
    return getattr(import_module(JOBS[name]), name)(**arguments)


@pytest.fixture
def phantom(tmp_path):
    """A device that is open to this machine, with a destination and without studies."""
    device = PhantomDevice(
        tmp_path, Config(destinations=(PACS,), routes=(ROUTE,), store={"least_free_gb": 0})
    )
    yield device
    device.close()


@pytest.fixture
def locked(tmp_path, users):
    """A device with users and a token."""
    token = Token(name="ct1", sha256=hashlib.sha256(SECRET.encode()).hexdigest())
    device = PhantomDevice(
        tmp_path, Config(destinations=(PACS,), users=users, tokens=(token,), store={"least_free_gb": 0})
    )
    yield device
    device.close()


@pytest.fixture
def client(phantom):
    """A browser on the device's own machine."""
    with local_client(phantom) as client:
        yield client
