"""Images that do not belong to the stack of their series, above all localizers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from focalis.dicom.headers import numbers, read_header, text
from focalis.errors import DataError

MOST, MOST_SHARE = 3, 0.1
"""So many images of a series, or such a share of them, may be left out; more are another stack, which is refused."""
_TAGS = ("Rows", "Columns", "ImageOrientationPatient", "NumberOfFrames")


def odd_ones(files: Sequence[Path]) -> list[Path]:
    """The files of another orientation or size than nearly all others; none if there are too many of them."""
    try:
        kinds = [_kind(file) for file in files]
    except DataError:  # reading the series says what is wrong
        return []
    usual = Counter(kinds).most_common(1)[0][0] if kinds else None
    odd = [file for file, kind in zip(files, kinds, strict=True) if kind != usual]
    few = len(odd) <= MOST_SHARE * len(files) or (len(odd) <= MOST and len(odd) < len(files) / 2)
    return odd if few else []


def _kind(file: Path) -> tuple[str, ...]:
    header = read_header(file, _TAGS)
    across: tuple[float, ...] = ()
    if "ImageOrientationPatient" in header:
        across = numbers(header, "ImageOrientationPatient", 6, str(file))
    size = (text(header, keyword) for keyword in ("Rows", "Columns", "NumberOfFrames"))
    return (*size, *(f"{round(value, 2) + 0.0:g}" for value in across))
