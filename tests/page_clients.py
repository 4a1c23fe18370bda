"""Clients of the device's page, for its tests."""

import re
import time
import warnings

from focalis.device.web.app import create_app

with warnings.catch_warnings():  # Starlette recommends another client than httpx, with which it works as well
    warnings.simplefilter("ignore")
    from fastapi.testclient import TestClient

PASSWORD = "correct horse"
SECRET = "token-of-the-scanner"


def local_client(phantom):
    """A browser on the device's own machine."""
    return TestClient(
        create_app(phantom.device()),
        client=("127.0.0.1", 50000),
        base_url="http://127.0.0.1:8080",
        follow_redirects=False,
    )


def remote_client(app, scheme="http", address="10.1.2.3"):
    """A browser on another machine."""
    return TestClient(
        app, client=(address, 4000), base_url=f"{scheme}://device.example", follow_redirects=False
    )


def log_in(client, role):
    answer = client.post("/login", data={"name": role, "password": PASSWORD})
    assert answer.status_code == 303, answer.text
    return client


def csrf_of(client, address="/"):
    return re.search(r'name="csrf" content="([^"]+)"', client.get(address).text)[1]


def opened(client, task_id):
    """The study's page, once its images have been read."""
    for _ in range(400):
        page = client.get(f"/studies/{task_id}")
        if "refresh" not in page.headers:
            return page
        time.sleep(0.05)
    raise AssertionError("the view was not made")
