"""Who may reach which route, and what every answer forbids a browser."""

import re

import pytest
from page_clients import PASSWORD, SECRET, TestClient, csrf_of, local_client, log_in, remote_client

from focalis.device.web.app import create_app

TASK = "0" * 40
# method, address, who may: the lowest role; "open" is for everybody, "token" for programs, "client" for viewers with
# a token
RULES = {
    ("GET", "/login"): "open",
    ("POST", "/login"): "open",
    ("GET", "/healthz"): "open",
    ("GET", "/readyz"): "open",
    ("GET", "/metrics"): "viewer",
    ("GET", "/"): "viewer",
    ("GET", "/work/rows"): "viewer",
    ("GET", "/models"): "viewer",
    ("POST", "/models/promote"): "admin",
    ("POST", "/models/retrain"): "admin",
    ("POST", "/models/retrain/cancel"): "admin",
    ("POST", "/models/retrain/{number}/trial"): "admin",
    ("GET", "/system"): "viewer",
    ("GET", "/quarantine"): "viewer",
    ("GET", "/quarantine/{key}.zip"): "admin",
    ("POST", "/quarantine/{key}/remove"): "admin",
    ("GET", "/studies/{task_id}"): "viewer",
    ("GET", "/studies/{task_id}/slices/{plane}/{index}.png"): "viewer",
    ("GET", "/studies/{task_id}/beside/{series_uid}"): "viewer",
    ("GET", "/studies/{task_id}/beside/{series_uid}/slices/{plane}/{index}.png"): "viewer",
    ("GET", "/studies/{task_id}/image.nii"): "viewer",
    ("GET", "/studies/{task_id}/lesions.nii"): "viewer",
    ("GET", "/studies/{task_id}/results/{sop_uid}"): "viewer",
    ("GET", "/upload"): "reviewer",
    ("POST", "/logout"): "viewer",
    ("POST", "/work/find"): "viewer",
    ("POST", "/upload"): "reviewer",
    ("POST", "/studies/{task_id}/verdicts"): "reviewer",
    ("POST", "/studies/{task_id}/points"): "reviewer",
    ("POST", "/studies/{task_id}/edits"): "reviewer",
    ("POST", "/studies/{task_id}/correction"): "reviewer",
    ("POST", "/studies/{task_id}/release"): "reviewer",
    ("POST", "/series/{series_uid}/release"): "reviewer",
    ("POST", "/system/export"): "reviewer",
    ("POST", "/studies/{task_id}/retry"): "admin",
    ("POST", "/system/resend"): "admin",
    ("POST", "/system/destinations/{name}/test"): "admin",
    ("POST", "/system/notices/{name}/test"): "admin",
    ("GET", "/users"): "admin",
    ("POST", "/users"): "admin",
    ("POST", "/users/{name}/role"): "admin",
    ("POST", "/users/{name}/password"): "admin",
    ("POST", "/users/{name}/disable"): "admin",
    ("POST", "/users/{name}/enable"): "admin",
    ("GET", "/audit.jsonl"): "admin",
    ("GET", "/dicom-web/studies"): "viewer",
    ("GET", "/dicom-web/studies/{study_uid}/series"): "viewer",
    ("GET", "/dicom-web/studies/{study_uid}/instances"): "viewer",
    ("GET", "/dicom-web/studies/{study_uid}/series/{series_uid}/instances"): "viewer",
    ("GET", "/dicom-web/studies/{study_uid}/metadata"): "viewer",
    ("GET", "/dicom-web/studies/{study_uid}/series/{series_uid}/metadata"): "viewer",
    ("GET", "/dicom-web/studies/{study_uid}/series/{series_uid}/instances/{sop_uid}/metadata"): "viewer",
    ("GET", "/dicom-web/studies/{study_uid}"): "viewer",
    ("GET", "/dicom-web/studies/{study_uid}/series/{series_uid}"): "viewer",
    ("GET", "/dicom-web/studies/{study_uid}/series/{series_uid}/instances/{sop_uid}"): "viewer",
    (
        "GET",
        "/dicom-web/studies/{study_uid}/series/{series_uid}/instances/{sop_uid}/frames/{numbers}",
    ): "viewer",
    ("GET", "/auth/"): "open",
    ("POST", "/auth/token"): "open",
    ("GET", "/auth/token/valid"): "client",
    ("GET", "/info/"): "client",
    ("POST", "/infer/{model}"): "client",
    ("PUT", "/session/"): "client",
    ("GET", "/session/{session_id}"): "client",
    ("DELETE", "/session/{session_id}"): "client",
    ("GET", "/datastore/"): "client",
    ("PUT", "/datastore/"): "client",
    ("DELETE", "/datastore/"): "client",
    ("GET", "/datastore/image"): "client",
    ("GET", "/datastore/label"): "client",
    ("PUT", "/datastore/label"): "client",
    ("POST", "/activelearning/{strategy}"): "client",
    ("GET", "/train/"): "client",
    ("POST", "/train/"): "client",
    ("POST", "/train/{model}"): "client",
    ("DELETE", "/train/"): "client",
    ("POST", "/dicom-web/studies"): "token",
    ("POST", "/dicom-web/studies/{study_uid}"): "token",
}
ROLES = ("viewer", "reviewer", "admin")
GUARDED = [(method, path, role) for (method, path), role in RULES.items() if role in ROLES]


def address(path):
    values = {
        "task_id": TASK,
        "plane": "axial",
        "index": "0",
        "name": "pacs",
        "sop_uid": "1.2",
        "study_uid": "1.2",
        "series_uid": "1.2",
        "key": "0" * 16,
        "model": "nodules",
        "session_id": "a",
        "strategy": "random",
        "numbers": "1",
        "number": "1",
    }
    return path.format(**values)


BODY = {
    "find": "a",
    "role": "viewer",
    "password": "p" * 12,
    "verdict": "accepted",
    "lesion": "1",
    "operation": "grow",
    "seen": "0",
    "task_id": TASK,
    "sop_uid": "1.2",
    "destination": "pacs",
    **dict.fromkeys("zyx", "1"),
}


@pytest.fixture
def app(locked):
    return create_app(locked.device())


def routes_of(routes):
    for route in routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from routes_of(inner.routes)
        else:
            yield from (
                (method, route.path) for method in getattr(route, "methods", None) or () if method != "HEAD"
            )


def test_every_route_has_a_rule_here(app):
    assert set(routes_of(app.routes)) == set(RULES)


@pytest.mark.parametrize(("method", "path", "_role"), GUARDED)
def test_nobody_gets_in_without_login(app, method, path, _role):
    client = remote_client(app)

    assert client.request(method, address(path)).status_code == 401
    page = client.request(method, address(path), headers={"accept": "text/html"})
    assert (page.status_code, page.headers.get("location")) in {(303, "/login"), (401, None)}


def test_a_browsers_cookie_does_not_open_what_viewers_call(app):
    client = log_in(remote_client(app), "admin")
    for (method, path), who in RULES.items():
        if who == "client":
            assert client.request(method, address(path)).status_code == 401, (method, path)


def test_a_role_reaches_its_routes_and_no_higher_ones(app):
    for role in ROLES:
        client = log_in(remote_client(app), role)
        token = csrf_of(client)
        for method, path, needed in GUARDED:
            if path == "/logout":
                continue
            answer = client.request(
                method,
                address(path),
                data=BODY if method == "POST" else None,
                headers={"x-csrf-token": token},
            )
            allowed = ROLES.index(role) >= ROLES.index(needed)
            assert (answer.status_code == 403) is not allowed, (role, method, path, answer.text)


def test_no_change_goes_without_the_sessions_own_token(app):
    client = log_in(remote_client(app), "admin")
    other = csrf_of(log_in(remote_client(app), "admin"))
    for method, path, _ in GUARDED:
        if method == "POST":
            for token in (None, "", other):
                headers = {} if token is None else {"x-csrf-token": token}
                answer = client.post(address(path), data=BODY, headers=headers)
                assert answer.status_code == 403, (path, token)
            assert client.post(address(path), data={**BODY, "csrf": other}).status_code == 403


def test_the_token_in_the_form_is_enough(app):
    client = log_in(remote_client(app), "viewer")

    answer = client.post("/logout", data={"csrf": csrf_of(client)})

    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert client.get("/").status_code == 401


def test_a_logged_out_cookie_is_worthless(app):
    client = log_in(remote_client(app), "viewer")
    key = client.cookies["focalis-session"]
    client.post("/logout", data={"csrf": csrf_of(client)})

    client.cookies.set("focalis-session", key)

    assert client.get("/").status_code == 401


@pytest.mark.parametrize("tls", [False, True])
def test_the_cookie_is_out_of_reach(locked, tmp_path, tls):
    if tls:
        web = locked.config.web.model_copy(
            update={"tls_certificate": tmp_path / "c", "tls_key": tmp_path / "k"}
        )
        locked.config = locked.config.model_copy(update={"web": web})
    client = remote_client(create_app(locked.device()), "https" if tls else "http")

    cookie = log_in(client, "viewer").post("/login", data={"name": "viewer", "password": "correct horse"})

    words = {word.strip().lower() for word in cookie.headers["set-cookie"].split(";")}
    assert {"httponly", "samesite=strict", "path=/"} <= words
    assert ("secure" in words) is tls
    assert ("strict-transport-security" in cookie.headers) is tls


def test_wrong_passwords_are_refused_alike_and_then_locked_out(app, locked):
    client = remote_client(app)
    unknown = client.post("/login", data={"name": "nobody", "password": "x"})
    for _ in range(5):
        wrong = client.post("/login", data={"name": "viewer", "password": "x"})
        assert wrong.status_code == 401
    assert unknown.text.replace("nobody", "viewer") == wrong.text

    locked_out = client.post("/login", data={"name": "viewer", "password": "correct horse"})

    assert locked_out.status_code == 429
    assert int(locked_out.headers["retry-after"]) > 60
    assert "set-cookie" not in locked_out.headers
    texts = [event.text for event in locked.store.events()]
    assert "a login as viewer from 10.1.2.3 failed" in texts
    assert (
        "a login as an unknown user from 10.1.2.3 failed" in texts
    )  # a mistyped password must not end in the log


@pytest.mark.parametrize("spoofed", [{}, {"x-forwarded-for": "127.0.0.1"}, {"x-forwarded-for": "10.9.9.9"}])
def test_wrong_passwords_elsewhere_keep_nobody_out(app, spoofed):
    attacker = remote_client(app)
    for _ in range(30):
        attacker.post("/login", data={"name": "admin", "password": "x"}, headers=spoofed)
    assert attacker.post("/login", data={"name": "admin", "password": PASSWORD}).status_code == 429

    for address in ("10.1.2.4", "127.0.0.1"):
        client = TestClient(app, client=(address, 4000), follow_redirects=False)
        assert client.post("/login", data={"name": "admin", "password": PASSWORD}).status_code == 303


def test_wrong_passwords_by_a_proxy_on_this_machine_leave_a_way_in_from_it(app):
    client = TestClient(app, client=("127.0.0.1", 4000), follow_redirects=False)
    for _ in range(30):
        passed_on = {"x-forwarded-for": "10.9.9.9"}
        client.post("/login", data={"name": "admin", "password": "x"}, headers=passed_on)

    assert client.post("/login", data={"name": "admin", "password": PASSWORD}).status_code == 303


def test_behind_an_https_proxy_the_cookie_is_secure(locked):
    web = locked.config.web.model_copy(update={"https_proxies": ("10.1.2.3",)})
    locked.config = locked.config.model_copy(update={"web": web})
    client = remote_client(create_app(locked.device()), "https")

    answer = client.post("/login", data={"name": "viewer", "password": PASSWORD})

    assert "secure" in answer.headers["set-cookie"].lower()
    assert "strict-transport-security" in answer.headers


def test_what_a_proxy_passes_on_in_place_of_an_address_counts_as_one_address(app):
    for number in range(21):
        client = TestClient(app, client=(f"unknown {number}", 4000), follow_redirects=False)
        tried = client.post(
            "/login", data={"name": f"user {number}", "password": "x"}, headers={"x-forwarded-for": "x"}
        )

    assert tried.status_code == 429


@pytest.mark.parametrize(
    "name", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via", "X-Forwarded-Proto", "X-Client-IP"]
)
def test_without_users_nothing_comes_by_a_proxy(client, name):
    assert client.get("/", headers={name: "10.9.9.9"}).status_code == 403


def test_tokens_are_for_programs_only(app):
    client = remote_client(app)
    shown = {"authorization": f"Bearer {SECRET}"}

    assert client.get("/metrics", headers=shown).status_code == 200
    assert client.get("/", headers=shown).status_code == 401
    assert client.get("/metrics", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert client.post("/dicom-web/studies", headers=shown).status_code == 400
    assert client.post("/dicom-web/studies").status_code == 401
    assert log_in(client, "admin").post("/dicom-web/studies").status_code == 401


def test_without_users_only_this_machine_may_connect(phantom):
    app = create_app(phantom.device())

    assert remote_client(app).get("/healthz").status_code == 403
    assert local_client(phantom).get("/healthz").status_code == 200
    assert local_client(phantom).head("/healthz").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8080", "", "[::2]:8080"])
def test_without_users_a_name_bent_to_loopback_is_refused(client, host):
    assert client.get("/", headers={"host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "[::1]:8080", "LOCALHOST"])
def test_without_users_this_machines_own_names_are_taken(client, host):
    assert client.get("/healthz", headers={"host": host}).status_code == 200


def test_without_users_a_page_elsewhere_changes_nothing(client):
    assert client.post("/system/export").status_code == 403
    assert client.post("/dicom-web/studies", headers={"origin": "https://evil.example"}).status_code == 401


@pytest.mark.parametrize(
    "path", ["/", "/login", "/healthz", "/static/style.css", "/nothing", "/studies/none"]
)
def test_every_answer_says_what_a_browser_must_refuse(app, path):
    headers = remote_client(app).get(path).headers

    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


def test_pages_hold_nothing_inline(client, phantom):
    phantom.receive("A^B")
    for path in ("/", "/upload", "/models", "/system"):
        text = client.get(path).text
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text))


def test_a_large_form_is_refused_whether_announced_or_not(app):
    client = remote_client(app)
    body = b"name=x&password=" + b"y" * 70_000
    kind = {"content-type": "application/x-www-form-urlencoded"}

    assert client.post("/login", content=body, headers=kind).status_code == 413
    chunks = (body[start : start + 1000] for start in range(0, len(body), 1000))
    answer = client.post("/login", content=chunks, headers=kind)
    assert answer.status_code == 413
    assert "content-security-policy" in answer.headers


def test_a_large_upload_is_refused(phantom):
    limits = phantom.config.limits.model_copy(update={"series_gb": 1e-5})
    phantom.config = phantom.config.model_copy(update={"limits": limits})

    answer = local_client(phantom).post("/upload", content=b"x" * 10_001)

    assert answer.status_code == 413


def test_health_tells_nothing_but_health(app, locked):
    assert remote_client(app).get("/healthz").json() == {"status": "ok", "problems": []}

    store = locked.config.store.model_copy(update={"least_free_gb": 1e9})
    locked.config = locked.config.model_copy(update={"store": store})
    short = remote_client(create_app(locked.device())).get("/healthz")

    assert (short.status_code, short.json()) == (503, {"status": "failing", "problems": ["disk"]})
