"""The download: whole files only, taken up where they broke off, one line for every way it can fail."""

import socket
from pathlib import Path

import pytest

from focalis.dataset.public import transfer
from focalis.dataset.public.transfer import download
from focalis.errors import DataError

CONTENT = bytes(range(256)) * 40


def silent(*_arguments: object) -> None:
    """A progress, or a reservation, that does nothing."""


@pytest.fixture
def part(tmp_path: Path, server) -> Path:
    """Where the download of CONTENT goes."""
    server.content = CONTENT
    return tmp_path / "part"


def test_a_file_is_downloaded_whole(server, part: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    reserved: list[tuple[int, int]] = []

    download(server.url, part, lambda *sizes: reserved.append(sizes), lambda *what: told.append(what))

    assert part.read_bytes() == CONTENT
    assert server.asked == [None]
    assert reserved == [(len(CONTENT), len(CONTENT))]
    assert told[0] == ("download", 1000, len(CONTENT))
    assert told[-1] == ("download", len(CONTENT), len(CONTENT))


def test_the_rest_of_a_part_is_asked_for(server, part: Path) -> None:
    part.write_bytes(CONTENT[:3000])
    reserved: list[tuple[int, int]] = []

    download(server.url, part, lambda *sizes: reserved.append(sizes), silent)

    assert part.read_bytes() == CONTENT
    assert server.asked == ["bytes=3000-"]
    assert reserved == [(len(CONTENT) - 3000, len(CONTENT))]


def test_a_server_without_ranges_makes_it_begin_again(server, part: Path) -> None:
    server.ranges = False
    part.write_bytes(b"x" * 3000)

    download(server.url, part, silent, silent)

    assert part.read_bytes() == CONTENT


def test_a_whole_part_needs_nothing_more(server, part: Path) -> None:
    part.write_bytes(CONTENT)

    download(server.url, part, silent, silent)

    assert part.read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_a_part_longer_than_the_file_is_begun_again(server, part: Path) -> None:
    part.write_bytes(CONTENT + b"more")

    download(server.url, part, silent, silent)

    assert part.read_bytes() == CONTENT


def test_a_connection_that_breaks_is_taken_up_again(server, part: Path) -> None:
    server.cuts = [4000, 2500]

    download(server.url, part, silent, silent)

    assert part.read_bytes() == CONTENT
    assert server.asked[0] is None
    assert len(server.asked) == 3
    assert all(asked is not None for asked in server.asked[1:])


def test_breaks_without_progress_end_it_and_keep_the_part(server, part: Path) -> None:
    server.cuts = [4000, 0]

    with pytest.raises(DataError, match=r"cannot be downloaded \(.*\); check .* are kept") as failed:
        download(server.url, part, silent, silent)

    assert "\n" not in str(failed.value)
    kept = part.read_bytes()
    assert 0 < len(kept) <= 4000
    assert CONTENT.startswith(kept)


def test_without_ranges_a_server_that_always_breaks_ends_it(server, part: Path) -> None:
    server.ranges = False
    server.cuts = [4000] * 5

    with pytest.raises(DataError, match="cannot be downloaded"):
        download(server.url, part, silent, silent)

    assert len(server.asked) == 2


def test_a_slow_server_is_waited_for(server, part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "TIMEOUT_SECONDS", 0.3)
    server.chunk_seconds = 0.05  # 0.5 s in all, longer than the time-out for a single piece

    download(server.url, part, silent, silent)

    assert part.read_bytes() == CONTENT


def test_a_server_that_falls_silent_is_left(server, part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "TIMEOUT_SECONDS", 0.2)
    server.stalls = [0, 0]

    with pytest.raises(DataError, match="cannot be downloaded"):
        download(server.url, part, silent, silent)


def test_a_size_that_is_not_told_is_not_reserved(server, part: Path) -> None:
    server.sized = False
    reserved: list[tuple[int, int]] = []
    told: list[tuple[str, int, int | None]] = []

    download(server.url, part, lambda *sizes: reserved.append(sizes), lambda *what: told.append(what))

    assert part.read_bytes() == CONTENT
    assert reserved == []
    assert told[0] == ("download", 1000, None)


@pytest.mark.parametrize(("status", "answer"), [(404, "404 .*Not Found"), (503, "503 .*Unavailable")])
def test_a_refusal_is_one_line(server, part: Path, status: int, answer: str) -> None:
    server.status = status

    with pytest.raises(
        DataError, match=rf"^http://\S+/Task99_Test.tar: the server answers {answer}; "
    ) as failed:
        download(server.url, part, silent, silent)

    assert "\n" not in str(failed.value)
    assert len(server.asked) == 1


def test_what_the_reservation_raises_stops_it(server, part: Path) -> None:
    def refuse(_missing: int, _whole: int) -> None:
        raise OSError(28, "full")

    with pytest.raises(OSError, match="full"):
        download(server.url, part, refuse, silent)

    assert part.read_bytes() == b""


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_no_network_is_one_line(part: Path) -> None:
    with pytest.raises(DataError, match=r"\(no connection\); check the network and the proxy") as failed:
        download(f"http://127.0.0.1:{closed_port()}/a.tar", part, silent, silent)

    assert "\n" not in str(failed.value)
    assert "kept" not in str(failed.value)


def test_a_dead_proxy_is_one_line(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_PROXY", "no_proxy", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{closed_port()}")

    with pytest.raises(DataError, match=r"\(the proxy does not answer or refuses\)"):
        download("http://data.example/a.tar", part, silent, silent)
