"""Patterns in which `*` and `?` alone are special: for names that hold brackets as often as not."""

from __future__ import annotations

import re
import unicodedata


def fits(pattern: str, text: str) -> bool:
    """Whether a pattern matches the whole of a text.

    `*` stands for any text, also for none, and `?` for one character; every other character stands for itself.
    Capitals, spaces around the text and the number of spaces in it do not count, nor does how Unicode composes a
    letter.
    """
    wanted = "".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in _plain(pattern))
    return re.fullmatch(wanted, _plain(text), re.DOTALL) is not None


def _plain(text: str) -> str:
    """Text normalised for matching: composed characters, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower()).split())
