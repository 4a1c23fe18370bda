"""A local server of one archive, with the faults that networks have; no test leaves this machine."""

import hashlib
import io
import re
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from focalis.dataset.public import PublicSet, transfer

NAME = "Task99_Test"


class Server(ThreadingHTTPServer):
    """Serves `content` at every path.

    Attributes:
        content: the bytes.
        ranges: whether a Range is honoured.
        sized: whether the size is told.
        status: sent instead of the content if it is not 200.
        cuts: after how many bytes each answer breaks off, first answer first; later answers are whole.
        stalls: after how many bytes each answer falls silent.
        chunk_seconds: pause before every tenth of an answer.
        asked: the Range header of each request, None without one.
    """

    daemon_threads = False
    block_on_close = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = b""
        self.ranges = True
        self.sized = True
        self.status = 200
        self.cuts: list[int] = []
        self.stalls: list[int] = []
        self.chunk_seconds = 0.0
        self.asked: list[str | None] = []
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{NAME}.tar"

    def handle_error(self, *_arguments: object) -> None:
        """A client that goes away is not an event here."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_arguments: object) -> None:
        """Silence."""

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        whole = len(self.server.content)
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        start = 0
        if wanted is not None and self.server.ranges:
            match = re.fullmatch(r"bytes=(\d+)-", wanted)
            assert match is not None
            start = int(match[1])
            if start >= whole:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{whole}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        else:
            self.send_response(200)
        if self.server.sized:
            self.send_header("Content-Length", str(whole - start))
        self.end_headers()
        self._send(self.server.content[start:])

    def _send(self, body: bytes) -> None:
        if self.server.cuts:
            body = body[: self.server.cuts.pop(0)]
        stall = self.server.stalls.pop(0) if self.server.stalls else None
        body = body if stall is None else body[:stall]
        step = max(1, len(body) // 10)
        for first in range(0, len(body), step):
            time.sleep(self.server.chunk_seconds)
            self.wfile.write(body[first : first + step])
        if stall is not None:
            self.wfile.flush()
            self.server.over.wait(10)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server; its answers are read in pieces of 1,000 bytes, and no proxy of this machine is in the way."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(transfer, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(transfer, "CHUNK_BYTES", 1000)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def packed(files: dict[str, bytes]) -> bytes:
    """A tar archive of the files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def offer(server: Server):
    """Serve the files as an archive; the set that describes it."""

    def make(files: dict[str, bytes], name: str = NAME) -> PublicSet:
        server.content = packed(files)
        return PublicSet(
            name=name,
            aliases=("test_alias",),
            title="a test",
            url=server.url,
            checksum=f"md5:{hashlib.md5(server.content).hexdigest()}",
            megabytes=1,
            licence="CC0 1.0",
            licence_url="https://creativecommons.org/publicdomain/zero/1.0/",
            channels=("CT",),
            labels={1: "lesion"},
            cases=1,
            layout="imagesTr/, labelsTr/, dataset.json",
            citation="nobody",
        )

    return make
