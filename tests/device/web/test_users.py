"""Users without a restart, and the audit trail."""

import json

import pytest
from page_clients import PASSWORD, csrf_of, local_client, log_in, opened, remote_client

from focalis.device.web.app import create_app

NEW = "a long enough password"


@pytest.fixture
def app(locked):
    return create_app(locked.device())


@pytest.fixture
def admin(app):
    with remote_client(app) as client:
        yield log_in(client, "admin")


def change(admin, path, **data):
    return admin.post(path, data={**data, "csrf": csrf_of(admin)})


def add(admin, name="berta", role="reviewer", password=NEW):
    return change(admin, "/users", name=name, role=role, password=password)


def enters(app, name, password):
    client = remote_client(app)
    answer = client.post("/login", data={"name": name, "password": password})
    return client if answer.status_code == 303 else None


def test_a_user_is_added_and_logs_in_at_once(app, admin):
    assert add(admin).status_code == 303

    berta = enters(app, "berta", NEW)

    assert "berta · reviewer" in berta.get("/").text
    assert berta.get("/users").status_code == 403
    assert enters(app, "berta", PASSWORD) is None


@pytest.mark.parametrize(
    ("data", "status"),
    [
        ({"name": "carl", "password": "short"}, 422),
        ({"name": "<b>"}, 422),
        ({"name": "carl", "role": "god"}, 422),
        ({"name": "viewer"}, 409),
        ({"name": "berta"}, 409),
    ],
)
def test_a_user_that_cannot_be_is_refused(admin, data, status):
    add(admin)

    assert add(admin, **data).status_code == status


def test_a_disabled_user_is_out_at_once_and_comes_back(app, admin):
    add(admin)
    berta = enters(app, "berta", NEW)
    change(admin, "/users/berta/disable")

    assert berta.get("/").status_code == 401
    assert enters(app, "berta", NEW) is None
    change(admin, "/users/berta/enable")
    assert enters(app, "berta", NEW) is not None


def test_role_and_password_are_changed(app, admin):
    add(admin)
    berta = enters(app, "berta", NEW)
    change(admin, "/users/berta/role", role="admin")
    change(admin, "/users/berta/password", password="another long password")

    assert berta.get("/").status_code == 401
    assert enters(app, "berta", NEW) is None
    assert enters(app, "berta", "another long password").get("/users").status_code == 200


def test_users_of_the_file_and_oneself_are_not_changed_here(app, admin):
    assert change(admin, "/users/viewer/disable").status_code == 404
    add(admin, role="admin")
    berta = enters(app, "berta", NEW)

    assert change(berta, "/users/berta/role", role="viewer").status_code == 409


def test_users_outlive_a_restart(locked, admin):
    add(admin)

    assert enters(create_app(locked.device()), "berta", NEW) is not None


def test_without_users_in_the_file_none_are_added(phantom):
    client = local_client(phantom)

    assert add(client).status_code == 409
    assert "focalis.toml" in client.get("/users").text


def test_the_trail_says_who_saw_decided_and_changed_what(app, locked, admin):
    task_id = locked.study("Lindqvist^Maja", seed=1)
    add(admin)
    berta = enters(app, "berta", NEW)
    opened(berta, task_id)
    judged = {"lesion": "1", "verdict": "accepted", "csrf": csrf_of(berta)}
    berta.post(f"/studies/{task_id}/verdicts", data=judged)
    result = locked.store.results(task_id)[0].sop_uid
    berta.get(f"/studies/{task_id}/results/{result}")

    lines = [json.loads(line) for line in admin.get("/audit.jsonl").text.splitlines()]

    told = [(each["who"], each["did"]) for each in lines]
    for line in (
        ("admin", "added the user berta as reviewer"),
        ("berta", "logged in from 10.1.2.3"),
        ("berta", "opened the study"),
        ("berta", "accepted lesion 1"),
        ("berta", "downloaded the seg"),
    ):
        assert line in told
    (seen,) = [each for each in lines if each["did"] == "opened the study"]
    assert (seen["task_id"], seen["address"]) == (task_id, "10.1.2.3")
    assert seen["series_uid"] == locked.store.task(task_id).series_uid
    assert "Lindqvist" not in json.dumps(lines)
    later = admin.get("/audit.jsonl?since=2999-01-01").text
    assert later == ""
