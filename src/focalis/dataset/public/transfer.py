"""Fetch one file over HTTP; what an earlier attempt brought is kept and gone on from."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import pooch
import requests

from focalis.errors import DataError, one_line

CHUNK_BYTES = 1 << 16  # what a broken connection may lose
TIMEOUT_SECONDS = 30.0
PAUSE_SECONDS = 1.0
PARTIAL_CONTENT, RANGE_NOT_SATISFIABLE = 206, 416

Progress = Callable[[str, int, int | None], None]
"""Called with a stage, the bytes that are done, and their total (None if it is not known)."""

Reserve = Callable[[int, int], None]
"""Called before the first byte with the bytes still missing and the size of the whole; may raise to stop."""


def download(url: str, part: Path, reserve: Reserve, progress: Progress) -> None:
    """Bring the file `part` to the whole of what the address holds.

    If `part` holds bytes already, only the rest is asked for (HTTP Range, RFC 9110 section 14); a server without
    ranges sends everything, and the file is begun anew. A connection that breaks is taken up again as long as each
    attempt brings the file further. The content is not verified here.

    Args:
        part: the file to write; it is kept when the transfer fails.
        reserve: see `Reserve`; not called if nothing is missing or the server does not tell the size.

    Raises:
        DataError: the address cannot be reached, refuses, or breaks off without progress.
        OSError: the file cannot be written.
    """
    while True:
        before = _size(part)
        try:
            with part.open("ab") as file:
                _bring(url, file, reserve, progress)
                os.fsync(file.fileno())
            return
        except requests.HTTPError as error:
            answer = error.response
            assert answer is not None
            raise DataError.at(
                url,
                f"the server answers {answer.status_code} {answer.reason}",
                "try again later, or look whether the set has moved",
            ) from error
        except requests.RequestException as error:
            if not _dropped(error) or _size(part) <= before:
                kept = f"{_size(part) / 1e6:.1f} MB are kept, and it goes on from there"
                raise DataError.at(
                    url,
                    f"cannot be downloaded ({_gist(error)})",
                    "check the network and the proxy (HTTPS_PROXY), then run it "
                    f"again{(f': {kept}' if _size(part) else '')}",
                ) from error
        time.sleep(PAUSE_SECONDS)


def _bring(url: str, file: BinaryIO, reserve: Reserve, progress: Progress) -> None:
    """Ask for what lies behind the end of the file, and append it."""
    start = file.tell()
    try:
        _request(url, file, reserve, progress)
    except requests.HTTPError as error:
        answer = error.response
        if answer is None or not start or answer.status_code != RANGE_NOT_SATISFIABLE:
            raise
        # Nothing lies behind the last byte: the file is whole, or no part of what is there now.
        if answer.headers.get("Content-Range") != f"bytes */{start}":
            file.seek(0)
            file.truncate()
            _request(url, file, reserve, progress)


def _request(url: str, file: BinaryIO, reserve: Reserve, progress: Progress) -> None:
    """One request, from the file's end on; a server that answers with the whole makes it begin anew."""
    bar = _Bar(file, progress)
    answers: list[requests.Response] = []

    def begin(response: requests.Response, **_options: object) -> None:
        answers.append(response)
        if not response.ok or response.is_redirect:
            return
        if response.status_code != PARTIAL_CONTENT:
            file.seek(0)
            file.truncate()
        if "Content-Length" in response.headers:
            missing = int(response.headers["Content-Length"])
            bar.whole = file.tell() + missing
            reserve(missing, bar.whole)

    # The length on the wire must be the length of the file, so nothing may be compressed on the way.
    headers = {"Accept-Encoding": "identity"}
    if file.tell():
        headers["Range"] = f"bytes={file.tell()}-"
    transfer = pooch.HTTPDownloader(
        progressbar=bar,
        chunk_size=CHUNK_BYTES,
        timeout=TIMEOUT_SECONDS,
        headers=headers,
        hooks={"response": begin},
    )
    try:
        transfer(url, file, None)
    finally:
        for answer in answers:
            answer.close()


class _Bar:
    """What pooch takes for a progress bar; it tells the place in the file, whatever pooch counts."""

    def __init__(self, file: BinaryIO, progress: Progress) -> None:
        self.file, self.progress = file, progress
        self.whole: int | None = None
        self.total = 0  # pooch sets it to the length of the one answer

    def update(self, _count: int) -> None:
        self.progress("download", self.file.tell(), self.whole)

    def reset(self) -> None:
        """Called by pooch at the end; there is nothing to reset."""

    def close(self) -> None:
        """Called by pooch at the end; there is nothing to close."""


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _dropped(error: requests.RequestException) -> bool:
    return isinstance(
        error, requests.ConnectionError | requests.Timeout | requests.exceptions.ChunkedEncodingError
    )


def _gist(error: requests.RequestException) -> str:
    """What happened, in a few words; the exception's own text is a paragraph."""
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy does not answer or refuses"
    if isinstance(error, requests.exceptions.SSLError):
        return "the certificate is not accepted"
    if isinstance(error, requests.Timeout):
        return "no answer"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return one_line(error)
