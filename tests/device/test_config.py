"""The device's settings: defaults, paths, and errors that name the key."""

from pathlib import Path

import pytest

from focalis.device.config import Config, load_config
from focalis.errors import UsageError

DICOM = "[[destinations]]\nname = 'pacs'\nae_title = 'PACS'\nhost = 'h'\nport = 1\n"
STOW = "[[destinations]]\nname = 'web'\nkind = 'stow'\nurl = 'https://x'\n"
MAIL = "[[notify]]\nname = 'team'\nkind = 'email'\nhost = 'h'\nsender = 'a@b'\nto = ['c@d']\n"


def load(tmp_path, text):
    path = tmp_path / "focalis.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def test_without_a_file_everything_has_a_default_on_loopback():
    config = load_config()

    assert config == Config()
    assert (config.node.host, config.node.port, config.node.ae_title) == ("127.0.0.1", 11112, "FOCALIS")
    assert config.web.host == "127.0.0.1"
    assert config.peers == ()


def test_every_section_is_read(tmp_path):
    config = load(
        tmp_path,
        """
        [node]
        ae_title = "SEGMENT"
        tls_certificate = "node.pem"
        tls_key = "/etc/focalis/node.key"
        [[peers]]
        ae_title = "CT1"
        addresses = ["10.0.0.7", "10.1.0.0/16"]
        [[models]]
        name = "lung"
        file = "lung.safetensors"
        [[routes]]
        model = "lung"
        modality = "CT"
        description = "*lung*"
        [[destinations]]
        name = "pacs"
        ae_title = "PACS"
        host = "pacs.example"
        port = 104
        objects = ["seg", "sr"]
        [[destinations]]
        name = "archive"
        kind = "stow"
        url = "https://archive.example/dicom-web"
        [[users]]
        name = "ada"
        password_hash = "scrypt$32768$8$1$AAAAAAAAAAAAAAAAAAAAAA==$AAAA"
        role = "reviewer"
        [watch]
        folder = "inbox"
        [store]
        folder = "data"
        [limits]
        instance_mb = 64
        """,
    )

    assert config.node.tls_certificate == tmp_path / "node.pem"
    assert config.node.tls_key == Path("/etc/focalis/node.key")
    assert config.peers[0].addresses == ("10.0.0.7/32", "10.1.0.0/16")
    assert config.models[0].file == tmp_path / "lung.safetensors"
    assert config.destinations[0].objects == ("seg", "sr")
    assert config.watch.folder == tmp_path / "inbox"
    assert config.store.folder == tmp_path / "data"
    assert config.limits.instance_mb == 64


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[node]\naetitle = 'X'", "node.aetitle is not a setting"),
        ("[nodes]\n", "nodes is not a setting"),
        ("[[peers]]\nae_title = 'CT'\naddresses = ['10.0.0']", "peers.1.addresses.1 is wrong"),
        ("[node]\nae_title = 'LONGER THAN SIXTEEN'", "node.ae_title is wrong"),
        ("[node]\nport = 70000", "node.port is wrong"),
        ("[limits]\ninstance_mb = -1", "limits.instance_mb is wrong"),
        ("[node]\ntls_key = 'k'", "node needs both tls_certificate and tls_key"),
        ("[node]\ntls_ca = 'k'", "node.tls_ca asks peers for certificates"),
        ("[[destinations]]\nname = 'pacs'\nhost = 'h'\nport = 1", "destination pacs (dicom) lacks ae_title"),
        ("[[destinations]]\nname = 'pacs'\nkind = 'stow'", "destination pacs (stow) lacks url"),
        ("[[models]]\nname='a'\nfile='x'\n[[models]]\nname='a'\nfile='y'", "model 'a' is there twice"),
        ("node = ", "is not TOML"),
        (
            "[[users]]\nname='a'\npassword_hash='secret'",
            "users.1.password_hash is wrong (it is not a password hash",
        ),
        ("store = 1", "store is wrong (write [store])"),
        ("[[node]]\nport = 1", "node is wrong (write [node])"),
        ("[peers]\nae_title = 'CT'", "peers is wrong (write [[peers]])"),
        ("[[peers]]\nae_title = 'CT'\naddresses = '10.0.0.7'", "peers.1.addresses is wrong (it is a list"),
        ("[[peers]]\nae_title = 'CT'", "peers.1.addresses is missing"),
        ("[[routes]]\nmodel = 3", "routes.1.model is wrong"),
        ("[[models]]\nname = 'a b'\nfile = 'x'", "models.1.name is wrong ('a b' is not 1 to 64 letters"),
        ("[[tokens]]\nname = 'a'\nsha256 = 'geheim'", "tokens.1.sha256 is wrong (it is not a SHA-256"),
        ("[node]\nquiet_seconds = inf", "node.quiet_seconds is wrong"),
        ("[store]\nretain_days = inf", "store.retain_days is wrong"),
        ("[store]\nretain_days = 1e7", "store.retain_days is wrong"),
        ("[store]\nobjects = 's3://b/p'", "store.objects needs store.database"),
        ("[[routes]]\nmodel = 'a'\n[[routes]]\nmodel = 'b'\nmodality = 'CT'", "routes.1 takes every series"),
        (
            "[[routes]]\nmodel = 'a'\nwhere = [{tag = 'SliceThickness', min = 3, max = 1}]",
            "routes.1: SliceThickness has a min above its max",
        ),
        (DICOM + "objects = []", "destination pacs: objects is empty"),
        (DICOM + "url = 'https://pacs'", "destination pacs (dicom) has url"),
        (DICOM + "tls_ca = 'ca.pem'", "destination pacs: tls_ca is there, but nothing would be encrypted"),
        (DICOM.replace("'h'", "'http://h'"), "destinations.1.host is wrong ('http://h' is not a host"),
        (DICOM.replace("port = 1", "port = 0"), "destinations.1.port is wrong"),
        (STOW + "commit = true", "destination web (stow) has commit"),
        (STOW.replace("https", "http") + "tls_ca = 'ca.pem'", "destination web: tls_ca is there"),
        (STOW.replace("//x", "//x:99999"), "destinations.1.url is wrong"),
        (STOW.replace("//x", "//"), "destinations.1.url is wrong"),
        (MAIL + "secret = 'sixteen letters.'", "notify team (email) has secret"),
        (MAIL + "user = 'focalis'", "notify team needs both user and password"),
        (MAIL + "tls = 'none'\ntls_ca = 'ca.pem'", "notify team: tls_ca is there"),
        (MAIL + "events = []", "notify team: events is empty"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, text, named):
    with pytest.raises(UsageError, match=r"focalis.toml: ") as error:
        load(tmp_path, text)

    assert named in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", [DICOM + "tls = true\ntls_ca = 'ca.pem'", STOW + "commit = false", MAIL])
def test_what_fits_its_kind_is_taken(tmp_path, text):
    load(tmp_path, text)


def test_a_file_of_a_windows_editor_is_read(tmp_path):
    assert load(tmp_path, "\ufeff[node]\r\nport = 104\r\n").node.port == 104


def test_a_hash_in_capitals_is_the_same_hash(tmp_path):
    (model,) = load(tmp_path, f"[[models]]\nname = 'a'\nfile = 'x'\nsha256 = '{'AB' * 32}'").models
    assert model.sha256 == "ab" * 32


def test_the_store_lies_beside_the_file_wherever_the_command_is_given(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    assert load(tmp_path, "").store.folder == tmp_path / "focalis-device"
    assert load(tmp_path, "[store]\nretain_days = 3").store.folder == tmp_path / "focalis-device"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        load_config(tmp_path / "nowhere.toml")


def test_secrets_are_not_shown(tmp_path):
    config = load(
        tmp_path, "[[destinations]]\nname='a'\nkind='stow'\nurl='https://x'\ntoken='geheim'\n[store]\n"
    )

    assert "geheim" not in repr(config)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://focalis:very/secret@db/focalis",
        "postgresql://focalis:very#secret@db/focalis",
        "postgresql://focalis:very?secret@db/focalis",
        "postgresql://focalis:12/very-secret@db/focalis",
        "postgresql://focalis:very-secret@db",
        "postgres://focalis:very-secret@db/focalis",
        "mysql://focalis:very-secret@db/focalis",
        "postgresql://focalis:very-secret@db/focalis?options=-csearch_path%3Dother",
    ],
)
def test_what_is_not_an_address_of_a_database_is_refused_without_its_password(tmp_path, address):
    with pytest.raises(UsageError, match=r"store.database is wrong") as refused:
        load(tmp_path, f'[store]\ndatabase = "{address}"')
    assert "secret" not in str(refused.value)


def test_the_address_of_a_database_is_read_and_not_shown(tmp_path):
    address = "postgresql://focalis:very-secret@db:5433/focalis?sslmode=verify-full"
    config = load(tmp_path, f'[store]\ndatabase = "{address}"')
    assert config.store.database == address
    assert "very-secret" not in repr(config)


def test_the_character_set_is_named_as_in_dicom(tmp_path):
    file = tmp_path / "focalis.toml"
    file.write_text('[node]\ncharset = "ISO_IR 144"\n')
    assert "Иванов".encode("iso8859_5").decode(load_config(file).node.charset) == "Иванов"
    file.write_text('[node]\ncharset = "ISO_IR 999"\n')
    with pytest.raises(UsageError, match=r"node\.charset is wrong .*ISO_IR 999"):
        load_config(file)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('name = "a"\nurl = "https://a.example"', "notify a (webhook) lacks secret"),
        (
            'name = "a"\nkind = "email"\nhost = "b.example"\nto = ["c@b.example"]',
            "notify a (email) lacks sender",
        ),
        ('name = "a"\nkind = "email"\nto = ["nobody"]', "notify.1.to.1 is wrong"),
        ('name = "a"\nurl = "https://a.example"\nsecret = "short"', "notify.1.secret is wrong"),
        ('name = "a"\nevents = ["everything"]', "notify.1.events.1 is wrong"),
    ],
)
def test_a_recipient_that_cannot_be_told_is_refused(tmp_path, text, fault):
    with pytest.raises(UsageError) as caught:
        load(tmp_path, f"[[notify]]\n{text}\n")
    assert fault in str(caught.value)


OIDC = """
[[users]]
name = "anna"
role = "admin"
password_hash = "scrypt$1024$8$16$TmFDbA==$AAAA"
[oidc]
issuer = "http://localhost:9000"
client_id = "focalis"
client_secret_file = "oidc.secret"
public_address = "http://localhost:8080"
[oidc.roles]
reviewer = ["radiology"]
"""


def test_single_sign_on_is_read_with_its_secret_beside_the_file(tmp_path):
    found = load(tmp_path, OIDC).oidc

    assert found.client_secret_file == tmp_path / "oidc.secret"
    assert (found.roles, found.roles_claim) == ({"reviewer": ("radiology",)}, "groups")


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            "http://localhost:9000",
            "http://sso.example",
            "oidc.issuer is wrong ('http://sso.example' is not an address",
        ),
        ("http://localhost:8080", "focalis.example", "oidc.public_address is wrong"),
        (
            "http://localhost:8080",
            "https://focalis.example",
            "oidc: public_address and [web] disagree about HTTPS",
        ),
        (
            "http://localhost:8080",
            "http://localhost:8080/page",
            "oidc: public_address is the page's address without",
        ),
        ('role = "admin"', 'role = "reviewer"', "oidc: an administrator must get in without it"),
        ('client_id = "focalis"', "", "oidc.client_id is missing"),
        ('client_secret_file = "oidc.secret"', "", "oidc.client_secret_file is missing"),
        ('client_id = "focalis"', 'client_id = "focalis"\nsecret = "x"', "oidc.secret is not a setting"),
        ("reviewer =", "radiologist =", "oidc.roles.radiologist"),
        ('reviewer = ["radiology"]', "", "oidc.roles is wrong"),
        ("[oidc.roles]", "scopes = ['profile']\n[oidc.roles]", 'oidc: scopes lacks "openid"'),
        ("[oidc.roles]", "name = 'a^b'\n[oidc.roles]", "oidc.name is wrong"),
    ],
)
def test_wrong_settings_of_single_sign_on_are_named(tmp_path, old, new, fault):
    with pytest.raises(UsageError, match=r"focalis\.toml: ") as error:
        load(tmp_path, OIDC.replace(old, new))

    assert fault in str(error.value)
    assert "\n" not in str(error.value)
