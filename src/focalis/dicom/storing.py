"""Write result files: whole or not at all, and never over an image of the source."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from pydicom import Dataset

from focalis.dicom.headers import quiet
from focalis.dicom.series import Series
from focalis.errors import DataError
from focalis.files import write_bytes


def save(encode: Callable[[], Dataset], path: Path, series: Series) -> None:
    """Write an object; either the whole file appears under its name or none does. Missing folders are made.

    Args:
        encode: makes the object; what pydicom remarks on meanwhile is not shown.

    Raises:
        DataError: the path is a file of the series, or it cannot be written.
    """
    _require_no_image(path, series)
    with quiet():  # pydicom remarks on UIDs with leading zeros, which are kept
        content = BytesIO()  # pydicom's error would hide what the system says of a file
        encode().save_as(content, enforce_file_format=True)
    write_bytes(path, content.getvalue())


def remove(path: Path, series: Series) -> None:
    """Remove an older result, if there is one.

    Raises:
        DataError: the path is a file of the series, or it cannot be removed.
    """
    _require_no_image(path, series)
    with DataError.of_system(path, "remove it by hand", "cannot be removed"):
        path.unlink(missing_ok=True)


def _require_no_image(path: Path, series: Series) -> None:
    if path.exists() and any(path.samefile(file) for file in set(series.files) if file.exists()):
        raise DataError.at(path, "is an image of the series", "give the result another name")
