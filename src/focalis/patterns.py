"""Names that mean the same: patterns in which `*` and `?` alone are special, and identifiers spelt in two ways."""

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


def differ_in_spelling(one: str, other: str) -> bool:
    """Whether two identifiers are the same but for capitals, spaces and leading zeros."""
    return _bare(one) == _bare(other) != ""


def _bare(identifier: str) -> str:
    return re.sub(r"\s+|(?<!\d)0+(?=\d)", "", identifier).casefold()


def _plain(text: str) -> str:
    """Text normalised for matching: composed characters, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower()).split())
