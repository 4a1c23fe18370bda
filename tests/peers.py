"""Real DICOM programs to test against; without them a test is skipped, but not where FOCALIS_REQUIRE_PEERS is 1."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest

PACKAGES = {
    "Orthanc": "orthanc",
    "storescu": "dcmtk",
    "echoscu": "dcmtk",
    "dciodvfy": "dicom3tools",
    "chromium": "chromium",
}
DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def missing():
    """The Debian packages that are not installed."""
    lacking = {package for name, package in PACKAGES.items() if not program(name)}
    return lacking | ({"orthanc-dicomweb"} if not DICOMWEB_PLUGIN.exists() else set())


def require():
    """Skip without the DICOM peers."""
    if lacking := sorted(missing() - {"chromium"}):
        pytest.skip(f"not installed: {', '.join(lacking)} (apt-get install {' '.join(lacking)})")


def required():
    """Whether a missing peer is a failure."""
    return os.environ.get("FOCALIS_REQUIRE_PEERS") == "1"


def monai_label_client():
    """The module of MONAI Label's own client, from the package that `make` lays beside the environment's others."""
    folder = Path(sys.prefix) / "share" / "monailabel"
    if sys.version_info >= (3, 13):
        pytest.skip("MONAI Label's client needs the module cgi, which Python 3.13 has no more")
    if not folder.exists():
        message = f"{folder} is missing; run make test"
        pytest.fail(message) if required() else pytest.skip(message)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        path = folder / "monailabel" / "client" / "client.py"
        spec = importlib.util.spec_from_file_location("monailabel_client", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


@contextmanager
def orthanc(folder, **more):
    """A running Orthanc with DICOMweb and more settings: its DICOM port and the address of its web server."""
    dicom_port, http_port = free_port(), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomAet": "ORTHANC",
        "DicomPort": dicom_port,
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(DICOMWEB_PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        **more,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([program("Orthanc"), str(folder / "orthanc.json")], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{http_port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                get(f"{url}/system")
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError((folder / "orthanc.log").read_text()) from None
                time.sleep(0.2)
        yield dicom_port, url
    finally:
        process.terminate()
        process.wait(timeout=60)


def get(url):
    """The content of a page."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read()


def free_port():
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def program(name):
    """Where a peer's program lies, or None. pynetdicom installs programs of dcmtk's names beside this Python."""
    ours = Path(sys.executable).parent
    folders = [each for each in os.environ.get("PATH", "").split(os.pathsep) if Path(each) != ours]
    return shutil.which(name, path=os.pathsep.join([*folders, "/usr/sbin"]))
