"""The results that a person's verdicts leave: Segmentation, RT Structure Set and report. Runs in the worker."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from focalis.device.results import listed, superseded, tracked
from focalis.device.web.preparing import Edits, lesions_of
from focalis.dicom import (
    Origin,
    as_reported,
    list_segments,
    read_origin,
    read_series,
    write_report,
    write_segmentation,
    write_structures,
)
from focalis.dicom.headers import read_header, text
from focalis.files import sha256_of
from focalis.identity import ModelIdentity
from focalis.workflows.cautions import cautions_of


def correct(
    files: list[str],
    segmentation: str,
    earlier: dict[str, str],
    keep: list[int],
    folder: str,
    number: int,
    version: str,
    reviewer: str,
    at: str,
    charset: str = "latin-1",
    follow_up: dict[str, Any] | None = None,
    pointed: Sequence[str] = (),
    edits: Edits = (),
    labels: Mapping[str, str] | None = None,
    model: Mapping[str, str] | None = None,
    partial: str = "",
    by: str = "",
) -> list[dict[str, str]]:
    """Write the accepted lesions as new objects that refer to those that they replace, and repeat their cautions.

    Args:
        files: the series that was segmented.
        segmentation: the Segmentation that was reviewed; empty if there are only lesions that persons pointed at.
        earlier: the files that are replaced, by kind (seg, rtstruct, sr).
        keep: the numbers of the accepted lesions; the report keeps these numbers. If a lesion is in several parts, the
            largest keeps it, and the others get numbers after the last lesion's.
        folder: where to write.
        number: which correction of the study this is, from 1.
        version: the version of Focalis.
        reviewer: who decided.
        at: when, in ISO 8601 with its zone; the objects have this time.
        charset: the Python codec for text of no or a wrong character set.
        follow_up: of the results that were reviewed; None if there is none.
        pointed: the lesions that persons pointed at, see `focalis.device.web.pointing`.
        edits: what persons changed of the lesions' outlines, see `focalis.device.web.preparing`.
        labels, model, partial: without a Segmentation, label value to name, the fields of the model's identity, and
            why the series is not whole, if it is not.
        by: the model's name, if the descriptions are to tell it.

    Returns:
        "kind", "file", "sop_uid" and "sha256" of each object; without lesions there is an RT Structure Set only if
        one is to be replaced.

    Raises:
        DataError: a file cannot be read or written.
    """
    origin = replace(
        read_origin(Path(segmentation))
        if segmentation
        else Origin(ModelIdentity(**(model or {})), version, cautions=cautions_of(partial=partial)),
        version=version,
        created=datetime.fromisoformat(at),
        reviewer=reviewer,
        edition=number + 1,
        by=by,
    )
    series = read_series([Path(file) for file in files], charset=charset)
    names = (
        {segment.number: segment.name for segment in list_segments(Path(segmentation))}
        if segmentation
        else {int(value): name for value, name in (labels or {}).items()}
    )
    values = {name: value for value, name in names.items()}
    found, numbered = lesions_of(series, segmentation, pointed, edits)
    accepted = [lesion for lesion in found if lesion.measured.number in keep]
    meaning = np.zeros(len(found) + 1, dtype=np.uint8)
    for lesion in accepted:
        meaning[lesion.measured.number] = values[lesion.measured.name]
    label = meaning[numbered]
    seg, rtstruct, sr = (
        Path(folder) / f"{kind}-{number}.dcm"
        for kind in ("correction", "correction-rtstruct", "correction-sr")
    )
    replaced = {kind: superseded(Path(path)) for kind, path in earlier.items()}
    mask = (label, names, series)
    write_segmentation(*mask, seg, origin, supersedes=replaced.get("seg"))
    drawn = write_structures(*mask, rtstruct, origin, supersedes=replaced.get("rtstruct"))
    followed: dict[str, Any] = follow_up or {"tracking": {}, "remarks": {}}
    uids, remarks = (
        {int(number): told for number, told in followed[part].items()} for part in ("tracking", "remarks")
    )
    for clicked, file in enumerate(pointed, start=len(found) - len(pointed) + 1):
        if by_model := json.loads(Path(file).read_text(encoding="utf-8")).get("model"):
            remarks[clicked] = f"segmented by {by_model} where the reviewer pointed"
    edited = {lesion for lesion, _ in edits}
    for each in edited:
        told = "outline edited by the reviewer"
        remarks[each] = f"{told}; before that: {remarks[each]}" if each in remarks else told
    # each component of the Segmentation is a lesion of the report
    listing = [(each.measured.number, each.parts[0]) for each in accepted]
    others = [(each.measured.number, part) for each in accepted for part in each.parts[1:]]
    for further, (whole, part) in enumerate(others, start=len(found) + 1):
        listing.append((further, part))
        by = (
            ", which the reviewer divided"
            if whole in edited
            else f"; {remarks[whole]}"
            if whole in remarks
            else ""
        )
        remarks[further] = f"a part of lesion {whole}{by}"
    reported = tracked(listed(as_reported(listing, names)), uids, remarks)
    write_report(reported, *mask, seg, sr, origin, total=len(listing), supersedes=replaced.get("sr"))
    made = [seg, *([rtstruct] if drawn else []), sr]
    return [_made(path) for path in made]


def _made(path: Path) -> dict[str, str]:
    uid = text(read_header(path, ("SOPInstanceUID",)), "SOPInstanceUID")
    kind = path.stem.rpartition("-")[0]
    return {"kind": kind, "file": path.name, "sop_uid": uid, "sha256": sha256_of(path)}
