"""A real S3 server for tests, and a way to it that can be cut."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import peers
import requests

SECRET = "wJalrXUtnFEMIK7MDENG"


@contextlib.contextmanager
def server() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """An S3 server with a bucket of the name `bucket`: its process and its address."""
    port = peers.free_port()
    endpoint = f"http://127.0.0.1:{port}"
    words = [sys.executable, "-m", "moto.server", "-p", str(port)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + 60
            while True:
                try:
                    requests.put(f"{endpoint}/bucket", timeout=5).raise_for_status()
                    break
                except requests.ConnectionError:
                    assert time.monotonic() < end
                    time.sleep(0.2)
            yield process, endpoint
        finally:
            process.kill()


def environment(endpoint: str) -> dict[str, str]:
    """What a client of the server is told by its environment."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }


class Way:
    """A port that leads to a server until it is cut; `endpoint` is its address."""

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.removeprefix("http://").partition(":")
        self._there, self._port = (host, int(port)), peers.free_port()
        self.endpoint = f"http://127.0.0.1:{self._port}"
        self._open: list[socket.socket] = []
        self._listening: socket.socket | None = None
        self.mend()

    def mend(self) -> None:
        """Let connections through."""
        self._listening = socket.create_server(("127.0.0.1", self._port))
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def cut(self) -> None:
        """End all connections and refuse more."""
        listening, self._listening = self._listening, None
        for each in [*([listening] if listening else []), *self._open]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._open.clear()

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listening.accept()
                far = socket.create_connection(self._there)
                self._open += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=_copy, args=ends, daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(1 << 16):
            target.sendall(chunk)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
