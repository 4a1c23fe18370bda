"""How public objects show themselves: a short line in a terminal, a small table in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from jinja2 import Environment

CaseProgress = Callable[[int, int, str], None]
"""Called before each case with the cases finished, their number, and the case's name; `predict` tells what it does
before the first one in place of a name, if that takes a while."""

LONGEST_LINE = 280
LONGEST_VALUE = 60
MOST_ENTRIES = 4


def counted(number: int, what: str = "case") -> str:
    """A number of things: "1 case", "3 cases"."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def listed(names: Sequence[object], most: int = 3) -> str:
    """The first names, and how many more there are: "a, b, c and 4 more"."""
    more = len(names) - most
    return ", ".join(map(str, names[:most])) + (f" and {more} more" if more > 0 else "")


class Shown:
    """A base for objects that name the few attributes worth showing, or show all; a dataclass needs `repr=False`."""

    shows: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={_short(value)}" for name, value in self._facts())
        line = f"{type(self).__name__}({facts})"
        return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 2]}…)"

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        cells = [(escape(name.replace("_", " ")), escape(_short(value))) for name, value in self._facts()]
        rows = "".join(
            f"<tr><th style='text-align:left'>{name}</th><td>{value}</td></tr>" for name, value in cells
        )
        return f"<table><caption>{escape(type(self).__name__)}</caption>{rows}</table>"

    def _facts(self) -> list[tuple[str, Any]]:
        """The attributes worth showing, without those that are empty."""
        names = self.shows or getattr(self, "__dataclass_fields__", getattr(self, "__pydantic_fields__", ()))
        facts = [(name, getattr(self, name)) for name in names]
        return [(name, value) for name, value in facts if not (value is None or _is_empty(value))]


def _is_empty(value: object) -> bool:
    return isinstance(value, str | tuple) and not value


def _short(value: object) -> str:
    """A value in a few words: numbers with six digits, large containers by their length, arrays by their shape."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Path):
        text = str(value)
        return text if len(text) <= LONGEST_VALUE else f"…{text[1 - LONGEST_VALUE :]}"
    if isinstance(value, Mapping) and len(value) <= MOST_ENTRIES:
        return f"{{{', '.join(f'{_short(key)}: {_short(each)}' for key, each in value.items())}}}"
    if (
        isinstance(value, tuple)
        and len(value) <= MOST_ENTRIES
        and all(isinstance(each, _PLAIN) for each in value)
    ):
        return f"({', '.join(map(_short, value))})"
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype} {tuple(value.shape)}"
    text = str(len(value)) if isinstance(value, Mapping | tuple | list) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


_PLAIN = (str, int, float)


def templates_of(package: str) -> Environment:
    """The templates of a package; every value is escaped, and an unknown one is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
