"""Reviewed studies as a data set that `focalis fit` takes. Runs in the worker."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from focalis.dicom import list_segments, read_segmentation, read_series
from focalis.dicom.headers import text
from focalis.errors import DataError
from focalis.files import restrict, whole_folder, write_text
from focalis.patterns import without_spelling
from focalis.volume import Volume, write_volume

UNNAMED = "study_"


def export(
    studies: Sequence[dict[str, Any]],
    out: str,
    labels: Mapping[int, str] | None = None,
    regions: Mapping[str, Sequence[int]] | None = None,
) -> int:
    """Write images/, labels/, dataset.json and cases.csv from corrected Segmentations.

    The cases are named by their number, and `cases.csv` tells patients apart by a hash of the Patient ID, however it
    is spelled, so that neither names nor IDs leave the device; what is burned into the pixels stays. Without a Patient
    ID, each study is a patient of its own, whose name begins with `UNNAMED`. The folder appears when it is complete.

    Args:
        studies: each with "files" (the series), "correction" (its Segmentation) and "case" (its name).
        out: the folder to make.
        labels: label value to name; by default those of the corrections are numbered in the order of their names.
        regions: name to label values of nested regions, from the outermost to the innermost.

    Returns:
        The number of cases: a study that was removed after the export began is left out.

    Raises:
        DataError: there is nothing to export, or a file cannot be read or written.
    """
    if not studies:
        raise DataError("no study has been reviewed; accept or reject lesions and send the correction first")
    studies = list(filter(_is_there, studies))
    with whole_folder(Path(out)) as folder:
        names = sorted({s.name for study in studies for s in list_segments(Path(study["correction"]))})
        values = {name: value for value, name in (labels or dict(enumerate(names, start=1))).items()}
        if strange := [name for name in names if name not in values]:
            raise DataError(
                f"corrections hold {strange[0]!r}, which the model does not know; export them by hand"
            )
        rows = []
        for study in studies:
            try:
                series = read_series([Path(file) for file in study["files"]])
                label = np.zeros(series.volume.array.shape, dtype=np.uint8)
                for name, mask in read_segmentation(Path(study["correction"]), series).items():
                    label[mask] = values[name]
            except DataError:
                if _is_there(study):
                    raise
                continue
            write_volume(series.volume, folder / "images" / f"{study['case']}.nii.gz")
            write_volume(Volume(label, series.volume.grid), folder / "labels" / f"{study['case']}.nii.gz")
            patient = without_spelling(text(series.header, "PatientID"))
            known = patient or text(series.header, "StudyInstanceUID")
            prefix = "patient_" if patient else UNNAMED
            rows.append((study["case"], prefix + hashlib.sha256(known.encode()).hexdigest()[:12]))
        if not rows:
            raise DataError("every reviewed study was removed meanwhile; raise store.retain_days")
        description: dict[str, Any] = {"labels": {"background": 0, **values}}
        if regions:
            nested = list(regions.values())
            own = [set(outer) - set(inner) for outer, inner in zip(nested, [*nested[1:], ()], strict=True)]
            description = {
                "labels": {"background": 0, **regions},
                "regions_class_order": [min(each) for each in own],
            }
        write_text(folder / "dataset.json", json.dumps(description) + "\n")
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows([("case", "patient"), *rows])
        write_text(folder / "cases.csv", table.getvalue())
        restrict(folder, 0o750)
    return len(rows)


def _is_there(study: Mapping[str, Any]) -> bool:
    """Whether retention has not removed it."""
    return all(Path(file).is_file() for file in (study["correction"], *study["files"]))
