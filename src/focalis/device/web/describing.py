"""What DICOM files say of themselves, as DICOM JSON without bulk data. Runs in the worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydicom import Dataset

_BULK = ("OB", "OD", "OF", "OL", "OV", "OW", "UN")
_MOST_BYTES = 1024


def describe(files: list[str], charset: str) -> list[dict[str, Any]]:
    """The headers of files in DICOM JSON (PS3.18 F), text decoded; empty for a file that cannot be read.

    Args:
        files: paths.
        charset: the Python codec for text of no or a wrong character set.
    """
    return [_described(Path(file), charset) for file in files]


def _described(path: Path, charset: str) -> dict[str, Any]:
    from focalis.dicom.headers import read_header
    from focalis.errors import FocalisError

    try:
        header = read_header(path, charset=charset)
        _without_bulk(header)
        found: dict[str, Any] = header.to_json_dict(suppress_invalid_tags=True)
    except (FocalisError, ValueError, TypeError):
        return {}
    return found


def _without_bulk(dataset: Dataset) -> None:
    for element in list(dataset):
        if element.VR == "SQ":
            for item in element.value:
                _without_bulk(item)
        elif element.VR in _BULK and len(element.value or b"") > _MOST_BYTES:
            del dataset[element.tag]
