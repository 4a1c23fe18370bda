"""Single sign-on, against a provider on this machine."""

import base64
import hashlib
import json
import logging
import shutil
import socket
import time
from dataclasses import replace
from itertools import count
from urllib.parse import parse_qs, urlsplit

import pytest
from openid_provider import SECRET, OpenIdProvider
from page_clients import PASSWORD, csrf_of, log_in, remote_client
from phantom_device import PhantomDevice

from focalis.device.config import Config, OidcSettings, WebSettings
from focalis.device.web.app import create_app
from focalis.device.web.oidc import Provider
from focalis.device.web.server import WebServer
from focalis.errors import UsageError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PUBLIC = "http://127.0.0.1:8080"
ROLES = {"reviewer": ("radiology",), "admin": ("it", "chief")}


@pytest.fixture(scope="module")
def people():
    found = OpenIdProvider()
    yield found
    found.stop()


@pytest.fixture
def provider(people):
    people.tell_the_truth()
    return people


@pytest.fixture(scope="module")
def device(people, users, tmp_path_factory):
    """A device with users of its own, whose other users come from the provider."""
    secret = tmp_path_factory.mktemp("secrets") / "oidc.secret"
    secret.write_text(f"{SECRET}\n")
    oidc = {
        "client_secret_file": secret,
        "name": "Hospital",
        "issuer": people.issuer,
        "client_id": "focalis",
        "public_address": PUBLIC,
        "roles": ROLES,
    }
    config = Config(users=users, oidc=oidc, store={"least_free_gb": 0})
    phantom = PhantomDevice(tmp_path_factory.mktemp("device"), config)
    yield phantom
    phantom.close()


@pytest.fixture(scope="module")
def serve(device):
    """Make the device's page, with other settings."""

    def serve(**settings):
        oidc = device.config.oidc.model_copy(update=settings)
        config = device.config.model_copy(update={"oidc": oidc})
        return create_app(replace(device.device(), config=config))

    return serve


@pytest.fixture(scope="module")
def app(serve):
    return serve()


@pytest.fixture
def visitor(app):
    """Make a browser, each with an address of its own: attempts are counted by address."""
    return lambda app=app: remote_client(app, address=f"10.1.{next(_numbers)}.3")


@pytest.fixture
def browser(visitor):
    return visitor()


_numbers = count(1)


def sign_on(client, provider, subject, **instead):
    target = client.get("/login/oidc").headers["location"]
    sent_back = {**provider.consent(target, subject), **instead}
    return client.get("/login/oidc/callback", params=sent_back)


def address_of(browser):
    return browser._transport.client[0]


def trail(device):
    return [(each.who, each.did) for each in device.store.audited()]


def test_who_has_a_role_is_logged_in_and_the_trail_names_user_and_provider(browser, provider, device):
    answer = sign_on(browser, provider, "s-anna")

    assert answer.headers["refresh"] == "0; url=/"
    assert "anna (Hospital) · reviewer" in browser.get("/").text
    assert browser.get("/users").status_code == 403
    assert ("anna (Hospital)", f"logged in from {address_of(browser)}, as reviewer") in trail(device)
    browser.post("/logout", data={"csrf": csrf_of(browser)})
    assert browser.get("/").status_code == 401
    assert ("anna (Hospital)", "logged out") in trail(device)


def test_the_provider_is_asked_with_pkce_and_sent_to_the_address_of_the_settings(browser, provider):
    sign_on(browser, provider, "s-anna")

    asked = {path: (fields, headers) for path, fields, headers in provider.asked}
    wanted, (traded, headers) = asked["/oauth2/authorize"][0], asked["/oauth2/token"]
    challenge = base64.urlsafe_b64encode(hashlib.sha256(traded["code_verifier"].encode()).digest())
    assert (wanted["response_type"], wanted["code_challenge_method"]) == ("code", "S256")
    assert wanted["code_challenge"] == challenge.decode().rstrip("=")
    assert wanted["redirect_uri"] == traded["redirect_uri"] == f"{PUBLIC}/login/oidc/callback"
    assert base64.b64decode(headers["Authorization"].split()[1]).decode() == f"focalis:{SECRET}"


def test_neither_host_nor_parameters_lead_elsewhere(browser, provider):
    answer = browser.get(
        "/login/oidc?next=https://evil.example&redirect_uri=https://evil.example",
        headers={"host": "evil.example"},
    )

    target = urlsplit(answer.headers["location"])
    assert f"{target.scheme}://{target.netloc}" == provider.issuer
    assert parse_qs(target.query)["redirect_uri"] == [f"{PUBLIC}/login/oidc/callback"]
    assert "evil" not in answer.headers["location"]
    assert sign_on(browser, provider, "s-anna", next="https://evil.example").headers["refresh"] == "0; url=/"


@pytest.mark.parametrize(
    ("settings", "claims", "role"),
    [
        ({}, {"groups": "radiology"}, "reviewer"),
        ({}, {"groups": ["radiology", "chief"]}, "admin"),
        ({"roles_claim": "realm_access.roles"}, {"realm_access": {"roles": ["it"]}}, "admin"),
        ({"roles_claim": "https://h.example/role"}, {"https://h.example/role": "radiology"}, "reviewer"),
        ({"user_claim": "email"}, {"groups": ["it"], "email": "b.o'neil@h.example"}, "admin"),
    ],
)
def test_the_role_comes_from_the_claim_of_the_settings(serve, visitor, provider, settings, claims, role):
    subject = f"person{next(_numbers)}"
    provider.know(subject, **{"preferred_username": subject, **claims})
    client = visitor(serve(scopes=("openid", "profile", "email"), **settings))

    sign_on(client, provider, subject)

    assert f"(Hospital) · {role}" in client.get("/").text.replace("&#39;", "'")


@pytest.mark.parametrize(
    "groups", [["visitors"], [], "radiology it", ["RADIOLOGY"], {"radiology": 1}, 7, None]
)
def test_who_has_no_role_is_told_so_and_stays_out(browser, provider, device, groups):
    provider.know("s-c", preferred_username="carl", groups=groups)

    answer = sign_on(browser, provider, "s-c")

    assert answer.status_code == 403
    assert "knows you as carl, but you have no role on this device" in answer.text
    assert browser.get("/").status_code == 401
    assert trail(device)[-1][0] == "carl (Hospital)"
    assert "no role" in trail(device)[-1][1]


@pytest.mark.parametrize("name", ["", "<b>carl</b>", "carl\nadmin", "a^b", 7, None, "x" * 60])
def test_a_name_that_no_report_may_bear_is_refused(browser, provider, name):
    provider.know("s-c", preferred_username=name, groups=["it"])

    answer = sign_on(browser, provider, "s-c")

    assert answer.status_code == 403
    assert "preferred_username" in answer.text
    assert "<b>carl" not in answer.text


@pytest.mark.parametrize("lacking", ["preferred_username", "groups"])
def test_a_claim_that_the_id_token_lacks_comes_from_user_info(browser, provider, lacking):
    sign_on(browser, provider, "s-anna")
    assert "/userinfo" not in [path for path, *_ in provider.asked]

    provider.lies = {lacking: None}
    assert sign_on(browser, provider, "s-anna").status_code == 200
    assert "anna (Hospital) · reviewer" in browser.get("/").text


@pytest.mark.parametrize(
    ("told", "discovery", "status", "text"),
    [
        ({"sub": "s-admin"}, {}, 401, "told of another person"),
        (["s-anna"], {}, 401, "is not good"),
        ({"groups": None}, {}, 403, "you have no role"),
        ({}, {"userinfo_endpoint": None}, 403, "you have no role"),
        ({}, {"userinfo_endpoint": "http://127.0.0.1:1/"}, 503, "cannot be reached"),
    ],
)
def test_user_info_that_does_not_help_opens_nothing(browser, provider, told, discovery, status, text):
    provider.lies, provider.told, provider.discovery = {"groups": None}, told, discovery

    answer = sign_on(browser, provider, "s-anna")

    assert (answer.status_code, text in answer.text) == (status, True)
    assert browser.get("/").status_code == 401


def test_claims_of_the_id_token_count_more_than_those_of_user_info(browser, provider):
    provider.lies, provider.told = {"preferred_username": None}, {"groups": ["it"]}

    sign_on(browser, provider, "s-anna")

    assert "anna (Hospital) · reviewer" in browser.get("/").text


def test_another_state_opens_nothing(browser, provider):
    assert sign_on(browser, provider, "s-anna", state="another").status_code == 401
    assert browser.get("/").status_code == 401
    assert not any(path == "/oauth2/token" for path, *_ in provider.asked)


def test_a_login_that_began_in_another_browser_opens_nothing(browser, provider, visitor):
    victim = visitor()
    sent_back = provider.consent(browser.get("/login/oidc").headers["location"], "s-anna")

    assert victim.get("/login/oidc/callback", params=sent_back).status_code == 401
    victim.get("/login/oidc")
    assert victim.get("/login/oidc/callback", params=sent_back).status_code == 401


def test_what_was_sent_back_opens_one_session_only(browser, provider, visitor):
    target = browser.get("/login/oidc")
    key = browser.cookies["focalis-sign-on"]
    sent_back = provider.consent(target.headers["location"], "s-anna")
    assert browser.get("/login/oidc/callback", params=sent_back).status_code == 200

    again = visitor()
    again.cookies.set("focalis-sign-on", key)
    assert again.get("/login/oidc/callback", params=sent_back).status_code == 401
    assert again.get("/").status_code == 401


@pytest.mark.parametrize(
    "lies",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another"},
        {"aud": ["another"], "azp": "focalis"},
        {"aud": ["focalis", "another"]},
        {"aud": None},
        {"exp": -600},
        {"exp": None},
        {"iat": 3600},
        {"iss": "http://127.0.0.1:1"},
        {"sub": None},
        {"at_hash": "AAAA"},
    ],
    ids=str,
)
def test_a_token_that_states_something_else_opens_nothing(browser, provider, lies):
    """A number is a time, in seconds from now."""
    now = int(time.time())
    provider.lies = {name: now + lie if isinstance(lie, int) else lie for name, lie in lies.items()}

    answer = sign_on(browser, provider, "s-anna")

    assert answer.status_code == 401
    assert "The ID token of Hospital is not good" in answer.text
    assert browser.get("/").status_code == 401


@pytest.mark.parametrize("forged", ["none", "shared", "stranger"])
def test_a_token_that_the_provider_did_not_sign_opens_nothing(browser, provider, forged):
    provider.forged = forged

    assert sign_on(browser, provider, "s-admin").status_code == 401
    assert browser.get("/").status_code == 401


def test_a_token_with_true_claims_under_another_key_of_the_provider_is_good(browser, provider):
    provider.lies = {"acr": "1"}

    assert sign_on(browser, provider, "s-anna").status_code == 200


@pytest.fixture
def failing(serve, visitor):
    """A provider that a test may stop, and a browser of a device that knows it."""
    found = OpenIdProvider()
    yield found, visitor(serve(issuer=found.issuer))
    found.stop()


def test_while_the_provider_is_down_users_of_the_device_log_in(failing):
    provider, browser = failing
    provider.stop()

    answer = browser.get("/login/oidc", headers={"accept": "text/html"})

    assert answer.status_code == 503
    assert "Hospital cannot be reached. Users of this device log in below" in answer.text
    assert 'name="password"' in answer.text
    assert "admin · admin" in log_in(browser, "admin").get("/").text


def test_a_provider_that_goes_down_in_between_is_reported(failing):
    provider, browser = failing
    sent_back = provider.consent(browser.get("/login/oidc").headers["location"], "s-anna")
    provider.stop()

    assert browser.get("/login/oidc/callback", params=sent_back).status_code == 503
    assert browser.get("/login/oidc/end").status_code == 503


def test_a_provider_of_another_name_is_not_gone_to(serve, visitor, provider):
    answer = visitor(serve(issuer=provider.issuer + "/")).get("/login/oidc")

    assert (answer.status_code, "in another way than focalis.toml says" in answer.text) == (502, True)


@pytest.mark.parametrize("algorithms", [None, 5, ["HS256", "none"]])
def test_a_provider_that_names_no_usable_algorithm_is_not_gone_to(browser, provider, algorithms):
    provider.discovery = {"id_token_signing_alg_values_supported": algorithms}

    assert browser.get("/login/oidc").status_code == 502


def test_what_the_provider_refuses_is_reported_by_its_code_alone(browser, provider):
    said = sign_on(browser, provider, "s-anna", code="", error="access_denied")
    assert (said.status_code, "access_denied" in said.text) == (401, True)

    said = sign_on(browser, provider, "s-anna", code="", error="<script>mail@x</script>")
    assert "mail@x" not in said.text
    assert sign_on(browser, provider, "s-anna", code="stolen").status_code == 401


def test_who_is_disabled_here_is_out_at_once_until_enabled(browser, provider, device, visitor):
    provider.know("s-dora", preferred_username="dora", groups=["radiology"])
    sign_on(browser, provider, "s-dora")
    admin = log_in(visitor(), "admin")
    page = admin.get("/users").text
    assert "dora (Hospital)" in page
    assert "by single sign-on" in page

    def change(what, **data):
        return admin.post(f"/users/dora (Hospital)/{what}", data={"csrf": csrf_of(admin), **data}).status_code

    assert change("role", role="admin") == change("password", password="a long enough password") == 409
    assert change("disable") == 303
    assert browser.get("/").status_code == 401
    refused = sign_on(browser, provider, "s-dora")
    assert (refused.status_code, "disabled on this device" in refused.text) == (403, True)
    who, did = trail(device)[-1]
    assert (who, "disabled on this device" in did) == ("dora (Hospital)", True)
    assert change("enable") == 303
    assert sign_on(browser, provider, "s-dora").status_code == 200


def test_a_disabled_person_does_not_come_back_under_another_name(browser, provider, device):
    provider.know("s-emil", preferred_username="emil", groups=["radiology"])
    sign_on(browser, provider, "s-emil")
    (account,) = [each for each in device.store.accounts() if each.name == "emil (Hospital)"]
    device.store.keep_account(replace(account, disabled=True))
    provider.know("s-emil", preferred_username="emil2", groups=["radiology"])

    assert sign_on(browser, provider, "s-emil").status_code == 403


def test_nobody_takes_the_name_of_somebody_else(browser, provider):
    sign_on(browser, provider, "s-anna")
    provider.know("s-other", preferred_username="anna", groups=["it"])

    refused = sign_on(browser, provider, "s-other")

    assert (refused.status_code, "Somebody else had your name" in refused.text) == (403, True)


def test_the_role_is_that_of_the_last_login(browser, provider):
    provider.know("s-fritz", preferred_username="fritz", groups=["radiology"])
    sign_on(browser, provider, "s-fritz")
    provider.know("s-fritz", preferred_username="fritz", groups=["it"])
    sign_on(browser, provider, "s-fritz")
    assert "fritz (Hospital) · admin" in browser.get("/").text

    provider.know("s-fritz", preferred_username="fritz", groups=[])
    assert sign_on(browser, provider, "s-fritz").status_code == 403


def test_a_login_under_another_role_ends_the_sessions_of_the_former_one(browser, provider, visitor):
    other, same = visitor(), visitor()
    provider.know("s-hans", preferred_username="hans", groups=["it"])
    sign_on(other, provider, "s-hans")
    provider.know("s-hans", preferred_username="hans", groups=["radiology"])
    sign_on(same, provider, "s-hans")
    sign_on(browser, provider, "s-hans")

    assert [each.get("/").status_code for each in (other, same, browser)] == [401, 200, 200]


def test_who_is_disabled_during_a_login_stays_so_and_out(browser, provider, device, monkeypatch):
    provider.know("s-ida", preferred_username="ida", groups=["radiology"])
    sign_on(browser, provider, "s-ida")
    provider.know("s-ida", preferred_username="ida", groups=["it"])
    accounts = device.store.accounts

    def ida():
        return next(each for each in accounts() if each.name == "ida (Hospital)")

    def disabled_since():
        found = accounts()
        device.store.keep_account(replace(ida(), disabled=True))
        return found

    monkeypatch.setattr(device.store, "accounts", disabled_since)

    assert sign_on(browser, provider, "s-ida").status_code == 403
    assert ida().disabled


def test_of_two_first_logins_under_one_name_the_former_has_it(device):
    first = device.store.keep_person("karl (Hospital)", "issuer one", "viewer")

    assert device.store.keep_person("karl (Hospital)", "issuer two", "admin") is None
    assert first in device.store.accounts()


def test_an_account_of_single_sign_on_has_no_password_here(browser, provider, visitor):
    sign_on(browser, provider, "s-admin")
    other = visitor()

    for name in ("admin (Hospital)", "s-admin"):
        assert other.post("/login", data={"name": name, "password": ""}).status_code in (401, 422)
    assert other.post("/login", data={"name": "admin", "password": PASSWORD}).status_code == 303


def test_nothing_secret_stands_in_logs_or_trail(browser, provider, device, caplog):
    caplog.set_level(logging.INFO)
    sent_back = provider.consent(browser.get("/login/oidc").headers["location"], "s-anna")
    browser.get("/login/oidc/callback", params=sent_back)
    provider.lies = {"nonce": "another"}
    sign_on(browser, provider, "s-anna")

    ours = [each.getMessage() for each in caplog.records if each.name.startswith("focalis")]
    told = json.dumps(
        [trail(device), [each.text for each in device.store.events()], ours, repr(device.config)]
    )
    for secret in (SECRET, sent_back["code"], sent_back["state"]):
        assert secret not in told


def test_many_attempts_close_single_sign_on_and_nothing_else(browser):
    answers = [browser.get("/login/oidc").status_code for _ in range(21)]

    assert (answers[19], answers[20]) == (303, 429)
    assert "admin · admin" in log_in(browser, "admin").get("/").text


def test_the_providers_own_session_is_ended_there_after_a_restart_too(serve, visitor, provider):
    browser = visitor(serve())
    assert "end your session at Hospital" in browser.get("/login").text

    target = browser.get("/login/oidc/end").headers["location"]

    assert target == f"{provider.issuer}/oauth2/end_session?client_id=focalis"


def test_without_settings_there_is_no_single_sign_on(device, visitor):
    config = device.config.model_copy(update={"oidc": None})
    client = visitor(create_app(replace(device.device(), config=config)))

    assert client.get("/login/oidc").status_code == 404
    assert "/login/oidc" not in client.get("/login").text


def settings(**given):
    return OidcSettings(
        issuer="https://sso.example", client_id="f", public_address="https://f.example", roles=ROLES, **given
    )


def test_the_secret_comes_from_a_file(tmp_path):
    with pytest.raises(UsageError, match=r"oidc\.secret: cannot be read"):
        Provider(settings(client_secret_file=tmp_path / "oidc.secret"))
    (tmp_path / "oidc.secret").write_text("\n")
    with pytest.raises(UsageError, match=r"oidc\.secret: is empty"):
        Provider(settings(client_secret_file=tmp_path / "oidc.secret"))
    (tmp_path / "oidc.secret").write_text(SECRET + "\n")
    assert SECRET not in repr(Provider(settings(client_secret_file=tmp_path / "oidc.secret")).settings)


@pytest.mark.slow
def test_a_real_browser_comes_back_from_another_site_with_its_session(users, tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("not installed: chromium (apt-get install chromium)")
    (tmp_path / "oidc.secret").write_text(SECRET)
    provider = OpenIdProvider("localhost")  # to a browser another site than 127.0.0.1
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    oidc = {
        "issuer": provider.issuer,
        "client_id": "focalis",
        "client_secret_file": tmp_path / "oidc.secret",
        "public_address": f"http://127.0.0.1:{port}",
        "roles": ROLES,
    }
    phantom = PhantomDevice(tmp_path, Config(users=users, oidc=oidc, store={"least_free_gb": 0}))
    web = WebServer(create_app(phantom.device()), WebSettings(port=port))
    web.start()
    address = web.url.rstrip("/")
    try:
        with sync_api.sync_playwright() as running:
            page = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"]).new_page()
            page.goto(f"{address}/login")
            page.click("text=Log in with single sign-on")
            page.click("button:has-text('s-anna')")
            page.wait_for_url(f"{address}/")
            assert "anna (single sign-on) · reviewer" in page.inner_text("header")
            page.click("text=Log out")
            page.wait_for_url(f"{address}/login")
            page.click("text=end your session at single sign-on")
            page.wait_for_url(f"{provider.issuer}/oauth2/end_session*")
    finally:
        web.stop()
        phantom.close()
        provider.stop()
