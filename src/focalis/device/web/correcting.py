"""The Segmentation that a person's verdicts leave. Runs in the worker."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from focalis.device.web.preparing import lesions_of
from focalis.dicom import Series, list_segments, read_series, write_segmentation
from focalis.dicom.headers import read_header, text
from focalis.dicom.results import Superseded
from focalis.files import sha256_of


def correct(
    files: list[str],
    segmentation: str,
    keep: list[int],
    out: str,
    model: str,
    version: str,
    reviewer: str,
    at: str,
) -> dict[str, str]:
    """Write a Segmentation with only the accepted lesions as a new object that refers to the first one.

    Args:
        files: the series that was segmented.
        segmentation: the Segmentation that was reviewed.
        keep: the numbers of the accepted lesions.
        out: the file to write.
        model: the hash of the model that found them.
        version: the version of Focalis.
        reviewer: who decided.
        at: when, in ISO 8601; the object bears this time.

    Returns:
        "sop_uid" and "sha256" of the object.

    Raises:
        DataError: a file cannot be read or written.
    """
    series = read_series([Path(file) for file in files])
    label, names = corrected_label(series, Path(segmentation), keep)
    first = read_header(Path(segmentation), ("SOPInstanceUID", "SeriesInstanceUID"))
    write_segmentation(
        label,
        names,
        series,
        Path(out),
        model=model,
        version=version,
        created=datetime.fromisoformat(at),
        supersedes=Superseded(text(first, "SOPInstanceUID"), text(first, "SeriesInstanceUID")),
        reviewer=reviewer,
    )
    written = read_header(Path(out), ("SOPInstanceUID",))
    content = sha256_of(Path(out))
    return {"sop_uid": text(written, "SOPInstanceUID"), "sha256": content}


def corrected_label(
    series: Series, segmentation: Path, keep: list[int]
) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """The label map of the accepted lesions on the series' grid, and the names of its values."""
    names = {segment.number: segment.name for segment in list_segments(segmentation)}
    values = {name: value for value, name in names.items()}
    lesions, numbered = lesions_of(series, segmentation)
    meaning = np.zeros(len(lesions) + 1, dtype=np.uint8)
    for lesion in lesions:
        if lesion.number in keep:
            meaning[lesion.number] = values[lesion.label]
    return meaning[numbered], names
