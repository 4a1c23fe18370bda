"""What the container's files say fits together and fits the device; its steps run in CI, see `container/install.sh`."""

import json
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml

from focalis.device.config import load_config
from focalis.device.serve import settings_for
from focalis.device.web.auth import hash_password
from focalis.errors import UsageError

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
RECIPE = (ROOT / "Containerfile").read_text()


@pytest.fixture
def settings(tmp_path):
    """focalis.toml of the container with a hash and a token filled in."""
    text = (ROOT / "container" / "focalis.toml").read_text()
    filled = text.replace('"HASH"', f'"{hash_password("a long password")}"').replace(
        'SHA256"', "0" * 64 + '"'
    )
    (tmp_path / "focalis.toml").write_text(filled)
    return settings_for(None, tmp_path / "focalis.toml", None, None, None)


def test_the_settings_are_refused_until_the_password_is_filled_in():
    with pytest.raises(UsageError, match="make one with focalis serve --hash-password"):
        load_config(ROOT / "container" / "focalis.toml")


def test_settings_archive_and_compose_file_agree(settings):
    archive = json.loads((ROOT / "container" / "orthanc.json").read_text())
    (destination,) = settings.destinations
    assert destination.host in COMPOSE["services"]
    assert (destination.ae_title, destination.port) == (archive["DicomAet"], archive["DicomPort"])
    device = archive["DicomModalities"]["focalis"]
    assert device["Host"] in COMPOSE["services"]
    assert (device["AET"], device["Port"]) == (settings.node.ae_title, settings.node.port)
    (peer,) = settings.peers
    (network,) = COMPOSE["networks"]["default"]["ipam"]["config"]
    assert peer.addresses == (network["subnet"],)
    (store,) = (each for each in COMPOSE["services"]["focalis"]["volumes"] if each.startswith("studies:"))
    assert store == f"studies:{settings.store.folder}"
    ports = [each.rsplit(":", 1)[1] for each in COMPOSE["services"]["focalis"]["ports"]]
    assert ports == [str(settings.node.port), str(settings.web.port)]
    index = json.loads((ROOT / "container" / "postgresql.json").read_text())["PostgreSQL"]
    assert COMPOSE["services"][index["Host"]]["environment"]["POSTGRES_USER"] == index["Username"]


def test_files_that_are_mounted_and_stages_that_are_built_are_there():
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).exists(), source
        if "build" in service:
            assert f" AS {service['build']['target']}\n" in RECIPE
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", RECIPE, re.MULTILINE):
        assert all((ROOT / each).exists() for each in source.split())


def test_the_image_runs_as_nobody_with_rights_and_checks_its_health():
    device = RECIPE[RECIPE.index(" AS device\n") :]
    assert device.index("USER focalis") < device.index("ENTRYPOINT")
    assert "HEALTHCHECK" in device


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_follows_the_devices_answer(status, code):
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.handle_request, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/healthz"
        done = subprocess.run(
            [sys.executable, ROOT / "container" / "health.py", url], capture_output=True, text=True
        )
    assert (done.returncode, url in done.stderr) == (code, code == 1)
