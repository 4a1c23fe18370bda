"""What MR scanners put into attributes of their own: b-values, and a second scale of the values."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from contextlib import suppress

from pydicom import Dataset

from focalis.dicom.headers import quiet, text

# group, element in the private block, the block's creator (PS3.5 7.8.1), how its bytes are packed
_SIEMENS = (0x0019, 0x0C, "SIEMENS MR HEADER", "")
_GE = (0x0043, 0x39, "GEMS_PARM_01", "")
_PHILIPS = (0x2001, 0x03, "Philips Imaging DD 001", "<f")
_UNITED_IMAGING = (0x0065, 0x09, "Image Private Header", "<d")
_PHILIPS_SCALE = (0x2005, 0x0E, "Philips MR Imaging DD 001", "<f")

_GE_OFFSET = 1e9
"""GE adds this to the b-values of newer sequences."""
_LEAST_B_VALUE, _GREATEST_B_VALUE = 50, 20000

TAGS = tuple(
    f"{group:04x}{tag}"
    for group, element, _, _ in (_SIEMENS, _GE, _PHILIPS, _UNITED_IMAGING, _PHILIPS_SCALE)
    for block in range(0x10, 0x20)
    for tag in (f"00{block:x}", f"{block:x}{element:02x}")
)
"""The elements that are read here, and the creators of their blocks, as hexadecimal numbers."""

WORDS = ("ScanningSequence", "SeriesDescription", "ProtocolName", "SequenceName")
"""Where a series says that it is diffusion-weighted."""


def groups_of(*groups: Dataset | None) -> tuple[Dataset, ...]:
    """Where a frame of a multi-frame image may have private elements: its functional groups, and sequences in them.

    Args:
        groups: the functional groups of the frame, then those that all frames share; None of a single-frame file.
    """
    found = []
    for group in groups:
        if group is None:
            continue
        found.append(group)
        for tag in [tag for tag in group.keys() if tag.is_private]:  # noqa: SIM118 (a data set iterates over elements)
            with suppress(Exception), quiet():
                if group[tag].VR == "SQ":
                    found += list(group[tag].value)[:1]
    return tuple(found)


def b_value(header: Dataset, groups: Sequence[Dataset] = ()) -> str:
    """The b-value where vendors put it, or in the sequence's name; "" if it is not there."""
    if text(header, "Modality") != "MR":
        return ""
    for place in (_SIEMENS, _PHILIPS, _UNITED_IMAGING):
        if (value := _first(header, groups, place)) is not None:
            return f"{value:g}"
    value = _first(header, groups, _GE)
    if value is not None and (value >= _GE_OFFSET or _says_diffusion(header)):
        return f"{value % _GE_OFFSET:g}"
    named = re.search(r"_b(\d+)", text(header, "SequenceName"))
    return named[1] if named else ""


def possible_b_value(header: Dataset, groups: Sequence[Dataset] = ()) -> str:
    """What is a b-value if a GE series is diffusion-weighted, and anything else if not; "" if it cannot be one."""
    value = _first(header, groups, _GE) if text(header, "Modality") == "MR" else None
    if value is None or not (value == 0 or _LEAST_B_VALUE <= value <= _GREATEST_B_VALUE):
        return ""
    return f"{value:g}"


def philips_scale(header: Dataset, slope: str, groups: Sequence[Dataset] = ()) -> str:
    """By what Philips divides rescaled values to compare them, Rescale Slope times Scale Slope; "" if unknown."""
    value = _first(header, groups, _PHILIPS_SCALE) if text(header, "Modality") == "MR" else None
    with suppress(ValueError):
        return f"{value * float(slope or 1):.3g}" if value is not None else ""
    return ""


def _says_diffusion(header: Dataset) -> bool:
    said = " ".join(text(header, keyword) for keyword in WORDS).upper()
    return re.search(r"DWI|DW_|DIFF|DTI|TRACE|ADC|\bEP\b|\bB ?=?\d{2,}", said) is not None


def _first(header: Dataset, groups: Sequence[Dataset], place: tuple[int, int, str, str]) -> float | None:
    """The number of a private element of a frame, else of its file; None if it is nowhere."""
    found = (_number(each, place) for each in (*groups, header))
    return next((value for value in found if value is not None), None)


def _number(header: Dataset, place: tuple[int, int, str, str]) -> float | None:
    """The first number of a private element; None if it is not there, or is not a number."""
    group, element, creator, packed = place
    with suppress(Exception), quiet():
        if (group, 0x10) in header:
            value = header.private_block(group, creator)[element].value
        else:  # the creator was stripped
            value = header[group, 0x1000 + element].value
        if isinstance(value, bytes):
            value = struct.unpack_from(packed, value) if packed else value.decode("ascii").split("\\")
        return float(value if isinstance(value, int | float | str) else value[0])
    return None
