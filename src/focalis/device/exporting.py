"""Reviewed studies as a data set that `focalis fit` takes. Runs in the worker."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from focalis.dicom import list_segments, read_segmentation, read_series
from focalis.dicom.headers import text
from focalis.errors import DataError
from focalis.files import restrict, whole_folder, write_text
from focalis.patterns import without_spelling
from focalis.volume import Volume, write_volume

if TYPE_CHECKING:
    from focalis.planning import Plan

UNNAMED = "study_"


def export(studies: Sequence[dict[str, Any]], out: str, plan: Plan | None = None) -> int:
    """Write images/, labels/, dataset.json and cases.csv from corrected Segmentations.

    With a plan it is the data set of a model that follows that plan: its channel, labels, regions and ignored value. As
    a channel's name may be no file's name, these stand in dataset.json, and the files in imagesTr/ and labelsTr/.

    The cases are named by their number, and `cases.csv` tells patients apart by a hash of the Patient ID, however it
    is spelled, so that neither names nor IDs leave the device; what is burned into the pixels stays. Without a Patient
    ID, each study is a patient of its own, whose name begins with `UNNAMED`. The folder appears when it is complete.

    Args:
        studies: each with "files" (the series), "correction" (its Segmentation) and "case" (its name).
        out: the folder to make.
        plan: of a model of one channel; by default the channel has no name, and the labels of the corrections are
            numbered in the order of their names.

    Returns:
        The number of cases: a study that was removed after the export began is left out.

    Raises:
        DataError: there is nothing to export, or a file cannot be read or written.
    """
    if not studies:
        raise DataError("no study has been reviewed; accept or reject lesions and send the correction first")
    studies = list(filter(_is_there, studies))
    images, labels, channel = ("imagesTr", "labelsTr", "_0000") if plan else ("images", "labels", "")
    with whole_folder(Path(out)) as folder:
        names = sorted({s.name for study in studies for s in list_segments(Path(study["correction"]))})
        named = plan.labels if plan else dict(enumerate(names, start=1))
        values = {name: value for value, name in named.items()}
        if strange := [name for name in names if name not in values]:
            raise DataError(
                f"corrections hold {strange[0]!r}, which the model does not know; export them by hand"
            )
        rows = []
        for study in studies:
            try:
                series = read_series([Path(file) for file in study["files"]])
                label = np.zeros(series.volume.array.shape, dtype=np.min_scalar_type(max(named, default=1)))
                for name, mask in read_segmentation(Path(study["correction"]), series).items():
                    label[mask] = values[name]
            except DataError:
                if _is_there(study):
                    raise
                continue
            write_volume(series.volume, folder / images / f"{study['case']}{channel}.nii.gz")
            write_volume(Volume(label, series.volume.grid), folder / labels / f"{study['case']}.nii.gz")
            patient = without_spelling(text(series.header, "PatientID"))
            known = patient or text(series.header, "StudyInstanceUID")
            prefix = "patient_" if patient else UNNAMED
            rows.append((study["case"], prefix + hashlib.sha256(known.encode()).hexdigest()[:12]))
        if not rows:
            raise DataError("every reviewed study was removed meanwhile; raise store.retain_days")
        write_text(folder / "dataset.json", json.dumps(_description(values, plan)) + "\n")
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows([("case", "patient"), *rows])
        write_text(folder / "cases.csv", table.getvalue())
        restrict(folder, 0o750)
    return len(rows)


def _description(values: Mapping[str, int], plan: Plan | None) -> dict[str, Any]:
    """dataset.json: the values of the labels by their names, and what else a plan says of its data set."""
    if plan is None:
        return {"labels": {"background": 0, **values}}
    told: dict[str, Any] = {"channel_names": {str(n): name for n, name in enumerate(plan.channels)}}
    ignored = {} if plan.ignore is None else {"ignore": plan.ignore}
    told["labels"] = {"background": 0, **(plan.regions or values), **ignored}
    if plan.regions:
        told["regions_class_order"] = list(plan.label_values)
    return told


def _is_there(study: Mapping[str, Any]) -> bool:
    """Whether retention has not removed it."""
    return all(Path(file).is_file() for file in (study["correction"], *study["files"]))
