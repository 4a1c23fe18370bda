"""Self-contained HTML pages: one file, no script, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from focalis.display import templates_of

DASH = "\N{EN DASH}"


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table, or a dash where it is undefined."""
    return DASH if value is None else f"{value:,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def signed(value: float, digits: int) -> str:
    """A change for a table, with its sign."""
    return f"{value:+,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def data_uri(picture: bytes) -> str:
    """A PNG or JPEG image as the address of an `img` element."""
    kind = "jpeg" if picture.startswith(b"\xff\xd8") else "png"
    return f"data:image/{kind};base64," + base64.b64encode(picture).decode("ascii")


def render(template: str, **context: object) -> str:
    """Render a template of this package; every value is escaped."""
    environment = templates_of("focalis.report")
    environment.filters["number"] = number
    environment.filters["data_uri"] = data_uri
    made = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return environment.get_template(template).render(version=version("focalis"), made=made, **context)


def figures(overlays: Sequence[tuple[str, bytes]]) -> list[dict[str, object]]:
    """Captions and pictures in the form that the templates take."""
    return [{"caption": caption, "png": png} for caption, png in overlays]
