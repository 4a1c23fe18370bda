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


def without_spelling(identifier: str) -> str:
    """An identifier without what spellings of one differ in: capitals, separators beside letters, leading zeros.

    `PAT-007`, `pat 7` and, from a spreadsheet, `Pat7.0` come to the same; `1-12` and `11-2` do not.
    """
    plain = re.sub(r"\s+", "", unicodedata.normalize("NFKC", identifier).casefold())
    plain = re.sub(r"(?<![.\d])(\d+)\.0+$", r"\1", plain)
    return re.sub(r"(?<=[^\W\d_])[-_.]+|[-_.]+(?=[^\W\d_])|(?<!\d)0+(?=\d)", "", plain)


def _plain(text: str) -> str:
    """Text normalised for matching: composed characters, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower()).split())
