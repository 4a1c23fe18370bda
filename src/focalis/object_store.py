"""Object stores such as S3, opened by their address. They need the extra `s3`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from focalis.errors import DataError, UsageError

if TYPE_CHECKING:
    from obstore.store import ObjectStore


class UnreachableError(DataError):
    """An object store, or the disk of its copies, cannot be used now; it may be later."""


_PATIENCE = timedelta(seconds=20)


def open_object_store(address: str, seconds: int = 300) -> ObjectStore:
    """The object store of an address: `s3://BUCKET/PREFIX`, `file:///FOLDER` or `memory://`.

    S3's credentials, endpoint and region come from where its other programs have them: `AWS_ACCESS_KEY_ID`,
    `AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT_URL`, `AWS_REGION`, or the machine's role. Nothing is asked of it yet.

    Args:
        seconds: the longest that one request may take.

    Raises:
        UsageError: it is not such an address, or obstore is not installed.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ModuleNotFoundError as error:
        raise UsageError.at(address, "obstore is not installed", "pip install 'focalis[s3]'") from error
    try:
        if not address.startswith("s3://"):
            return from_url(address)
        return from_url(
            address,
            client_options={
                "allow_http": True,
                "connect_timeout": "5s",
                "timeout": f"{seconds}s",
            },  # HTTP if the endpoint says so
            retry_config={"max_retries": 3, "retry_timeout": _PATIENCE},
        )
    except (BaseError, ValueError) as error:
        raise UsageError.at(
            address, f"is not an address such as s3://BUCKET/PREFIX ({_reason(error)})"
        ) from error


@contextmanager
def store_errors(address: object, fault: str = "cannot be read") -> Iterator[None]:
    """What an object store refuses in the block becomes an `UnreachableError` of one line.

    `FileNotFoundError` and obstore's `AlreadyExistsError` pass: they are answers.
    """
    from obstore.exceptions import AlreadyExistsError, BaseError

    try:
        yield
    except (AlreadyExistsError, FileNotFoundError):
        raise
    except (BaseError, OSError) as error:
        raise UnreachableError.at(address, f"{fault} ({_reason(error)})", "check the object store") from error


def _reason(error: Exception) -> str:
    text = str(error)
    code = re.search(r"<Code>(\w+)</Code>", text)
    said = (text.split("<", 1)[0].strip().splitlines() or [type(error).__name__])[0].rstrip(": ")[:300]
    return f"{said}, {code[1]}" if code else said
