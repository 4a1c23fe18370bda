"""`focalis data`: what is listed, what is asked before a download, and where a set ends up; one local server."""

import hashlib
import io
import json
import sys
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from focalis.dataset.public import PUBLIC_SETS, PublicSet

NAME, ALIAS = "Task99_Test", "test_alias"
pytestmark = pytest.mark.usefixtures("public")
LICENCE = "https://creativecommons.org/publicdomain/zero/1.0/"


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and writes no log."""

    def log_message(self, *_arguments: object) -> None:
        """Silence."""


@pytest.fixture
def run(run):
    return partial(run, "data")


@pytest.fixture
def cache(tmp_path):
    """The folder that takes the place of the user's cache."""
    return tmp_path / "cache"


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """The folder that FOCALIS_DATA names."""
    folder = tmp_path / "copies"
    folder.mkdir()
    monkeypatch.setenv("FOCALIS_DATA", str(folder))
    return folder


@pytest.fixture
def public(tmp_path, monkeypatch):
    """The only set that is known, on a local server; no variable names copies, a folder is the user's cache."""
    served = tmp_path / "served"
    served.mkdir()
    with tarfile.open(served / f"{NAME}.tar", "w") as tar:
        info = tarfile.TarInfo(f"{NAME}/dataset.json")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"{}"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    known = PublicSet(
        name=NAME,
        aliases=(ALIAS,),
        title="two specks",
        url=f"http://127.0.0.1:{server.server_port}/{NAME}.tar",
        checksum=f"md5:{hashlib.md5((served / f'{NAME}.tar').read_bytes()).hexdigest()}",
        megabytes=1600,
        licence="CC0 1.0",
        licence_url=LICENCE,
        channels=("CT",),
        labels={1: "speck", 2: "mote"},
        cases=7,
        layout="dataset.json",
        citation="Nobody et al.",
    )
    monkeypatch.delenv("FOCALIS_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("focalis.workflows.data.default_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr("focalis.dataset.public.registry.PUBLIC_SETS", (known,))
    monkeypatch.setattr("focalis.workflows.data.PUBLIC_SETS", (known,))
    yield known
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def terminal(monkeypatch):
    """Let a person sit there and answer."""

    def answer(text: str) -> None:
        stdin = io.StringIO(text)
        stdin.isatty = lambda: True
        monkeypatch.setattr(sys, "stdin", stdin)

    return answer


def copy_at(folder: Path) -> Path:
    (folder / "images").mkdir(parents=True)
    return folder


def test_the_list_shows_name_licence_size_title_and_copy(run, copies):
    missing = run("list")
    path = copy_at(copies / ALIAS)
    there = run("list")

    assert missing[0] == there[0] == 0
    assert missing[1].split() == [NAME, "CC0", "1.0", "1.6", "GB", "two", "specks", "-"]
    assert there[1].split()[-1] == str(path)


def test_the_list_as_json(run, copies):
    path = copy_at(copies / ALIAS)

    code, out, _ = run("list", "--json")

    (row,) = json.loads(out)
    assert code == 0
    assert row["name"] == NAME
    assert row["labels"] == {"1": "speck", "2": "mote"}
    assert row["licence_url"] == LICENCE
    assert row["path"] == str(path)


def test_the_list_of_real_sets_needs_no_network(run, monkeypatch):
    monkeypatch.setattr("focalis.workflows.data.PUBLIC_SETS", PUBLIC_SETS)

    code, out, _ = run("list")

    assert code == 0
    assert len(out.splitlines()) == 10
    assert "Task04_Hippocampus" in out


def test_yes_downloads_after_showing_the_licence(run, tmp_path):
    code, out, err = run("get", NAME, "-o", tmp_path / "data", "--yes")

    assert code == 0
    assert out == f"{tmp_path / 'data' / NAME}\n"
    assert (tmp_path / "data" / NAME / "dataset.json").is_file()
    assert f"licence: CC0 1.0, {LICENCE}" in err
    assert "labels: 1 speck, 2 mote" in err
    assert "cite: Nobody et al." in err
    assert err.index("licence") < err.index("download (MB): ")


def test_a_person_is_asked(run, terminal, tmp_path):
    terminal("y\n")

    code, out, err = run("get", NAME, "-o", tmp_path / "data")

    assert code == 0
    assert out == f"{tmp_path / 'data' / NAME}\n"
    assert err.index(LICENCE) < err.index("Accept the licence and download?")


@pytest.mark.parametrize("answer", ["n\n", "\n"])
def test_a_person_declines(run, terminal, tmp_path, answer):
    terminal(answer)

    code, out, err = run("get", NAME, "-o", tmp_path / "data")

    assert code == 1
    assert out == ""
    assert err.endswith("nothing was downloaded\n")
    assert not (tmp_path / "data").exists()


def test_without_a_terminal_and_yes_it_is_wrong_usage(run, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))

    code, out, err = run("get", NAME, "-o", tmp_path / "data")

    assert code == 2
    assert out == ""
    assert err.splitlines()[-1].startswith(f"error: {NAME}: its licence has to be accepted")
    assert "--yes" in err
    assert not (tmp_path / "data").exists()


def test_a_second_get_asks_nothing_and_downloads_nothing(run, tmp_path):
    run("get", NAME, "-o", tmp_path / "data", "--yes")

    code, out, err = run("get", NAME, "-o", tmp_path / "data")

    assert (code, out) == (0, f"{tmp_path / 'data' / NAME}\n")
    assert err == f"{NAME} is there already; nothing was downloaded\n"


def test_get_as_json(run, tmp_path):
    first = json.loads(run("get", NAME, "-o", tmp_path / "data", "--yes", "--json")[1])
    second = json.loads(run("get", NAME, "-o", tmp_path / "data", "--json")[1])

    assert first["path"] == second["path"] == str(tmp_path / "data" / NAME)
    assert (first["downloaded"], second["downloaded"]) == (True, False)
    assert first["licence"] == "CC0 1.0"


@pytest.mark.parametrize("lies_as", [NAME, ALIAS])
@pytest.mark.parametrize("asked_as", [NAME, ALIAS])
def test_a_local_copy_is_used_as_it_lies(run, copies, tmp_path, lies_as, asked_as):
    path = copy_at(copies / lies_as)

    code, out, _ = run("get", asked_as, "-o", tmp_path / "data")

    assert (code, out) == (0, f"{path}\n")
    assert not (tmp_path / "data").exists()


def test_without_out_it_goes_to_the_folder_of_copies(run, copies, cache):
    code, out, _ = run("get", NAME, "--yes")

    assert (code, out) == (0, f"{copies / NAME}\n")
    assert not cache.exists()


def test_without_out_and_variable_it_goes_to_the_users_cache(run, cache):
    assert run("get", NAME, "--yes")[1] == f"{cache / NAME}\n"
    assert run("list")[1].split()[-1] == str(cache / NAME)


@pytest.mark.usefixtures("copies")
def test_a_set_in_the_cache_is_found_when_the_variable_is_set(run, cache):
    path = copy_at(cache / NAME)

    assert run("get", NAME)[:2] == (0, f"{path}\n")


@pytest.mark.parametrize("command", [["list"], ["get", NAME]])
def test_a_variable_that_names_no_folder_is_wrong_usage(run, monkeypatch, tmp_path, command):
    monkeypatch.setenv("FOCALIS_DATA", str(tmp_path / "nowhere"))

    code, _, err = run(*command)

    assert code == 2
    assert (
        err
        == f"error: FOCALIS_DATA: names {tmp_path / 'nowhere'}, which is not a folder; correct it or unset it\n"
    )


def test_an_unknown_name_is_wrong_usage(run):
    code, _, err = run("get", "nodules")

    assert code == 2
    assert err == f"error: nodules: is not a public data set that is known here; take one of {NAME}\n"


def test_a_file_as_the_folder_is_wrong_usage(run, tmp_path):
    (tmp_path / "file").touch()

    code, _, err = run("get", NAME, "-o", tmp_path / "file", "--yes")

    assert code == 2
    assert err == f"error: {tmp_path / 'file'}: is a file; name a folder for data sets\n"


def test_a_failed_download_is_one_line_and_exit_code_1(run, public, tmp_path):
    Path(tmp_path / "served" / f"{NAME}.tar").unlink()

    code, out, err = run("get", NAME, "-o", tmp_path / "data", "--yes")

    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith(f"error: {public.url}: the server answers 404")


def test_ctrl_c_says_that_the_part_is_kept(run, tmp_path, monkeypatch):
    def interrupt(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("focalis.workflows.data.fetch", interrupt)

    code, _, err = run("get", NAME, "-o", tmp_path / "data", "--yes")

    assert code == 130
    assert err.splitlines()[-1] == (
        "interrupted: what was downloaded is kept; the same command goes on with it"
    )


@pytest.mark.parametrize("words", [["--help"], ["list", "--help"], ["get", "--help"]])
def test_help_shows_an_example(run, words):
    code, out, _ = run(*words)

    assert code == 0
    assert "Example: focalis data" in out
