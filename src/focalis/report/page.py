"""Self-contained HTML pages: one file, no script, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from focalis.errors import DataError

DASH = "\N{EN DASH}"


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table, or a dash where it is undefined."""
    return DASH if value is None else f"{value:,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def data_uri(png: bytes) -> str:
    """A PNG image as the address of an `img` element."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def render(template: str, **context: object) -> str:
    """Render a template of this package; every value is escaped."""
    environment = Environment(
        loader=PackageLoader("focalis.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.filters["data_uri"] = data_uri
    made = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return environment.get_template(template).render(version=version("focalis"), made=made, **context)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all; missing folders are made.

    Raises:
        DataError: if the file cannot be written.
    """
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise DataError(f"{path}: cannot be written ({error.strerror}); check folder and disk") from error


def figures(overlays: Sequence[tuple[str, bytes]]) -> list[dict[str, object]]:
    """Captions and pictures in the form that the templates take."""
    return [{"caption": caption, "png": png} for caption, png in overlays]
