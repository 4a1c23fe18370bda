"""Text that is not encoded as its Specific Character Set says (PS3.3 C.12.1.1.2): read by the likeliest other one."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

from pydicom import Dataset
from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.datadict import dictionary_description, dictionary_has_tag, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.tag import BaseTag
from pydicom.valuerep import TEXT_VR_DELIMS

DEFAULT_CHARSET = "latin-1"
"""What text of no or a wrong character set is read by, if it is not UTF-8."""

_MULTI_BYTE = frozenset({"euc_kr", "GB18030", "GBK", "GB2312", "shift_jis"})
_WESTERN = frozenset({"latin_1", "iso8859"})
_TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_SHOWN = ("PatientName", "PatientID")
_NAMING = ("SegmentSequence", "StructureSetROISequence", "DeidentificationMethodCodeSequence")
"""The sequences whose text names what was drawn or is copied. Others are not looked into: parsing them takes long."""


def codec_of(charset: str) -> str:
    """The Python codec of a character set, named as DICOM does (ISO_IR 144) or as Python does (iso8859_5).

    Raises:
        ValueError: no such character set is known, or it does not contain ASCII.
    """
    codec = python_encoding.get(charset, charset)
    try:
        if b"A^9".decode(codec) == "A^9":
            return codec
    except (LookupError, ValueError):
        pass
    raise ValueError(
        f"{charset!r} is not a character set that is known; give one such as ISO_IR 144 or cp1251"
    )


def settle_text(dataset: Dataset, charset: str = DEFAULT_CHARSET) -> tuple[str, ...]:
    """Decode, in place, text that does not decode as announced: as UTF-8 if it can be that, else by `charset`.

    Returns:
        The names of the attributes that had to be guessed, patient's first.
    """
    guessed = _settle(dataset, [], charset)
    first = [dictionary_description(keyword) for keyword in _SHOWN]
    return tuple(sorted(guessed, key=lambda name: (name not in first, name)))


def guesses_told(guessed: Sequence[str]) -> str:
    """What to say of guessed attributes, a phrase."""
    return f"the character set of {', '.join(guessed[:4])} is missing or wrong, and was guessed"


def _settle(dataset: Dataset, around: list[str], charset: str) -> set[str]:
    """As `settle_text`, of a data set or of a sequence's item; `around` are the codecs that hold around an item."""
    announced = _announced(dataset) if "SpecificCharacterSet" in dataset else around
    guessed = set()
    for tag, vr, value in list(_beyond_ascii(dataset)):
        if _decoded(value, announced) is None:
            dataset[tag] = DataElement(tag, vr, _guess(value, charset).rstrip(" \0"))
            guessed.add(dictionary_description(tag) if dictionary_has_tag(tag) else str(tag))
    for keyword in _NAMING:
        for item in dataset.get(keyword) or ():
            guessed |= _settle(item, announced, charset)
    return guessed


def _beyond_ascii(dataset: Dataset) -> Iterator[tuple[BaseTag, str, bytes]]:
    for tag in dataset.keys():  # noqa: SIM118  (a data set yields its elements, decoded)
        element = dataset.get_item(tag)
        value = getattr(element, "value", None)
        if isinstance(value, bytes) and not value.isascii():
            vr = getattr(element, "VR", None) or (dictionary_VR(tag) if dictionary_has_tag(tag) else "UN")
            if vr in _TEXT_VRS:
                yield BaseTag(tag), vr, value


def _announced(dataset: Dataset) -> list[str]:
    """The Python codecs of the Specific Character Set; none if it is missing, ASCII, or unknown."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            named = dataset.get("SpecificCharacterSet")
            listed = [named] if isinstance(named, str) else list(named or [])
            if [each for each in listed if each] in ([], ["ISO_IR 6"]):
                return []
            return convert_encodings(listed)
        except Exception:  # a misspelt or unknown set
            return []


def _decoded(value: bytes, announced: list[str]) -> str | None:
    if not announced or _is_rather_utf_8(value, announced[0]):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return decode_bytes(value, announced, TEXT_VR_DELIMS)
        except Exception:  # a warning of replaced characters, or an error
            return None


def _is_rather_utf_8(value: bytes, announced: str) -> bool:
    """Whether bytes beyond ASCII, announced as another character set, are UTF-8.

    Latin-1 is never UTF-8 by accident: it would pair accents with signs. Text of other single-byte sets can be
    ("RÓŻA" in Latin-2): it counts as UTF-8 if it would else hold control characters, or if the set has the letters
    that it shows as UTF-8. Text of East Asian sets must show East Asian letters.
    """
    if announced == "UTF8" or b"\x1b" in value:
        return False
    try:
        letters = [letter for letter in value.decode("utf-8") if not letter.isascii()]
    except UnicodeError:
        return False
    if announced in _MULTI_BYTE:
        return all("\u3040" <= letter <= "\ud7a3" for letter in letters)
    if announced in _WESTERN or any(0x80 <= byte < 0xA0 for byte in value):
        return True
    return all(len(letter.encode(announced, "ignore")) == 1 for letter in letters)


def _guess(value: bytes, charset: str) -> str:
    for codec in ("utf-8", charset):
        try:
            return value.decode(codec)
        except UnicodeError:
            continue
    return value.decode(DEFAULT_CHARSET)
