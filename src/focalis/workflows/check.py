"""Check a data set: read every file once, write what was found for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from focalis.colours import label_colour
from focalis.dataset import Dataset, Split, empty_side, find_splits, lost_labels, open_dataset, read_splits
from focalis.display import CaseProgress
from focalis.errors import DataError, UsageError
from focalis.files import write_text
from focalis.planning import target_spacing
from focalis.quality import CaseFacts, PlannedSpacing, Problem, Survey, measure, survey
from focalis.report import strip, write_quality_report

REPORT, RECORD = "report.html", "check.json"
MOST_PICTURES = 100
"""Cases that the page shows; each is read once more."""


def check(
    dataset: Path | str,
    out: Path | str | None = None,
    *,
    splits: Path | str | None = None,
    channels_may_miss: Sequence[str] = (),
    progress: CaseProgress | None = None,
) -> Survey:
    """Look for everything in a data set that stops training, and for what a person should look at.

    Args:
        dataset: the data set.
        out: folder for `report.html` and `check.json`, written at the end; None writes nothing.
        splits: JSON file of splits; otherwise the one splits*.json in the data set, if there is one.
        channels_may_miss: channels that cases may lack, as for `fit`.
        progress: called before each case with the cases finished, their number, and the case's name.

    Returns:
        Problems, findings, and what was measured; `result.problems` is empty if the data set can be used.

    Raises:
        UsageError: `out` is a file, a channel that may miss is none of the set's, or it is not clear which splits file
            counts.
        DataError: there is no data set, or the files cannot be written.
    """
    folder = None if out is None else Path(out)
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UsageError.at(folder, "is a file", "give a folder for the report")
    data = open_dataset(Path(dataset), channels_may_miss)
    path = find_splits(data.root, None if splits is None else Path(splits))
    divisions, problems = _splits(data, path)
    measured = measure(data, progress)
    looked_at = data.holding(measured.result.holds)
    if path is not None:
        lost = [lost_labels(path, number, split, looked_at) for number, split in enumerate(divisions)]
        problems += [Problem("", str(fault)) for fault in lost if fault]
    result = replace(measured.result, problems=(*measured.result.problems, *problems))
    found = survey(
        data, replace(measured, result=result), _planned(measured.facts), dict(enumerate(divisions)), path
    )
    if folder is not None:
        write_quality_report(folder / REPORT, found, _pictures(found))
        document = json.dumps(found.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
        write_text(folder / RECORD, document + "\n")
    return found


def _pictures(found: Survey) -> list[tuple[str, bytes]]:
    """Each case with its contours, those with warnings first; what cannot be drawn was reported as a problem."""
    odd = {name for finding in found.findings for name in finding.cases}
    colours = {value: label_colour(place) for place, value in enumerate(sorted(found.labels))}
    pictures: list[tuple[str, bytes]] = []
    for case in sorted(found.dataset.cases, key=lambda case: case.name not in odd):
        if len(pictures) == MOST_PICTURES:
            break
        with suppress(DataError, OSError):
            image, label = case.read_first_image(), case.read_label()
            pictures.append((case.name, strip(image, [(label, colours)], case.name)))
    return pictures


def _splits(data: Dataset, path: Path | None) -> tuple[tuple[Split, ...], list[Problem]]:
    """The splits, and what would stop training on them."""
    if path is None:
        return (), []
    try:
        splits = read_splits(path, [case.name for case in data.cases])
    except DataError as error:
        return (), [Problem("", str(error))]
    empty = [empty_side(path, number, split) for number, split in enumerate(splits)]
    return splits, [Problem("", str(fault)) for fault in empty if fault]


def _planned(facts: Sequence[CaseFacts]) -> PlannedSpacing | None:
    """The spacing that a plan from all cases would have."""
    spacings = tuple(case.label.spacing_zyx_mm for case in facts if case.label is not None)
    if not spacings:
        return None
    reasons: dict[str, str] = {}
    spacing = target_spacing(spacings, reasons)
    return PlannedSpacing(spacing, reasons["spacing_zyx_mm"])
