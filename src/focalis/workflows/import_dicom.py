"""Clinical contours become a data set: image series with their DICOM Segmentations and RT Structure Sets."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from focalis.charsets import DEFAULT_CHARSET, guesses_told
from focalis.dataset import is_reserved, read_table
from focalis.dicom import (
    DrawnObject,
    Series,
    SeriesFiles,
    find_drawn,
    find_series,
    list_segments,
    list_structures,
    read_segmentation,
    read_series,
    read_structures,
    series_of,
)
from focalis.display import Shown
from focalis.errors import DataError, UsageError, refusal
from focalis.files import is_free, whole_folder, write_text
from focalis.patterns import fits, without_spelling
from focalis.volume import Volume, write_volume
from focalis.workflows.case_images import codec_given

_MODALITIES = {"CT": "CT", "MR": "MR", "PT": "PT", "PET": "PT"}

Progress = Callable[[int, int, str], None]
"""Called before each study with the studies finished, their number, and the case's name."""


@dataclass(frozen=True)
class ImportRow:
    """What became of one study.

    Attributes:
        status: imported; skipped, if nothing that is wanted was drawn in it; or refused.
        reason: why it was not imported, one line; empty if it was.
        series_uid: the series that became the image; empty if none did.
        structures: name of every structure that was taken, to its label's name.
        voxels: label name to number of voxels.
        doubts: what may be wrong with it, a line each that names folder or file.
    """

    case: str
    patient: str
    study_uid: str
    status: Literal["imported", "skipped", "refused"]
    reason: str
    series_uid: str
    modality: str
    structures: Mapping[str, str]
    voxels: Mapping[str, int]
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class ImportReport(Shown):
    """What `import_dicom` made.

    Attributes:
        rows: one per study, and one per file that could not be used.
        unused: the structures and rows of the renaming table that nothing fits.
    """

    shows = ("dataset", "imported", "rows")

    dataset: Path
    labels: Mapping[int, str]
    rows: tuple[ImportRow, ...]
    unused: tuple[str, ...]

    @property
    def imported(self) -> tuple[ImportRow, ...]:
        """The studies that became cases."""
        return tuple(row for row in self.rows if row.status == "imported")


@dataclass(frozen=True)
class _Study:
    """A study: the series that was drawn on, in which file which structure becomes which label, and all names there.

    Structures that were wanted, but have no outlines, are `undrawn`.
    """

    case: str
    patient: str
    uid: str
    series: SeriesFiles | None
    wanted: tuple[tuple[DrawnObject, str, str], ...]
    problem: str
    status: Literal["skipped", "refused"] = "refused"
    names: tuple[str, ...] = ()
    undrawn: tuple[str, ...] = ()


def import_dicom(
    folder: Path | str,
    out: Path | str,
    *,
    structures: Sequence[str] = (),
    rename: Path | str | None = None,
    modality: str | None = None,
    charset: str | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Make a data set of the contoured studies below a folder, one case per study.

    The series that was drawn on becomes OUT/images/CASE.nii.gz, its structures OUT/labels/CASE.nii.gz; dataset.json
    names the labels, cases.csv says where each case comes from. CASE is the Patient ID, with the study's date where a
    patient has several studies. The folder appears when it is complete.

    Args:
        folder: searched to the bottom.
        out: the data set's folder; it must not exist, or be empty.
        structures: the names of the structures to take, or patterns such as GTV*; case does not count. All by default.
        rename: a CSV file with the columns `structure` (a name or pattern) and `label`; the first row that fits counts.
            Structures of one label are united. Without it a structure's name is its label's.
        modality: take only what was drawn on CT, MR or PT.
        charset: what text of a header is read by, if its character set is missing or wrong and it is not UTF-8:
            ISO_IR 144, say, or a Python codec; Latin-1 by default.
        progress: see `Progress`.

    Returns:
        The report; studies that could not be imported are in it with the reason.

    Raises:
        UsageError: `out` holds something, or an option's value is wrong.
        DataError: the folder or a DICOM file cannot be read, or no study could be imported.
    """
    root = Path(out)
    if root.exists() and not root.is_dir():
        raise UsageError.at(root, "is a file", "give a new folder for the data set")
    if not is_free(root):
        raise UsageError.at(root, "is not empty", "give a new folder for the data set")
    if modality is not None and modality.upper() not in _MODALITIES:
        raise UsageError(f"modality {modality!r} is not known; take one of {', '.join(_MODALITIES)}")
    wanted = None if modality is None else _MODALITIES[modality.upper()]
    codec = codec_given(charset) or DEFAULT_CHARSET
    table = _renaming(Path(rename)) if rename is not None else ()
    studies = _studies(Path(folder), tuple(structures), table, wanted, codec)
    names = {label for study in studies for *_, label in study.wanted}
    labels = dict(enumerate(sorted(names, key=_natural), start=1))
    rows: list[ImportRow] = []
    with whole_folder(root.resolve()) as unfinished:
        for study in studies:
            if progress is not None:
                progress(len(rows), len(studies), study.case)
            row = _import(study, labels, unfinished, codec)
            patients = [other.patient for other in studies]
            rows.append(replace(row, doubts=(*row.doubts, *_spelt_alike(row.patient, patients))))
        if not any(row.status == "imported" for row in rows):
            reasons = [row.reason for row in rows]
            raise DataError.of_lines(reasons or [f"{folder}: holds no CT, MR or PET image"])
        used = {label for row in rows for label in row.voxels}
        labels = {value: label for value, label in labels.items() if label in used}
        _describe(unfinished, labels, rows)
    if progress is not None:
        progress(len(rows), len(studies), "")
    there = [name for study in studies for name in study.names]
    patterns = (*structures, *(pattern for pattern, _ in table))
    unused = tuple(pattern for pattern in patterns if not any(_fits(name, [pattern]) for name in there))
    return ImportReport(root, labels, tuple(rows), unused)


def _renaming(path: Path) -> tuple[tuple[str, str], ...]:
    table = read_table(path)
    if missing := {"structure", "label"} - {column.casefold() for column in table.columns}:
        raise DataError.at(path, f"lacks the column {min(missing)!r}", "it needs `structure` and `label`")
    rows = [{column.casefold(): value for column, value in row.items()} for row in table.rows]
    for number, row in enumerate(rows, start=1):
        if not row["structure"] or not row["label"]:
            raise DataError.at(path, f"entry {number} lacks a structure or a label", "fill both in")
        if is_reserved(row["label"]):
            raise DataError.at(
                path, f"entry {number}: no label can be called {row['label']!r}", "take another name"
            )
    return tuple((row["structure"], row["label"]) for row in rows)


def _studies(
    folder: Path,
    structures: tuple[str, ...],
    table: tuple[tuple[str, str], ...],
    modality: str | None,
    codec: str,
) -> list[_Study]:
    """The studies below a folder, by patient and date; no pixel data are read."""
    useless: dict[Path, str] = {}
    series = find_series(folder, useless, codec)
    drawn = find_drawn(folder, useless, codec)
    known = {each.study_uid: (each.patient_id, each.study_date) for each in series}
    found: dict[str, list[tuple[DrawnObject, SeriesFiles]]] = {uid: [] for uid in known}
    for each in drawn:
        try:
            on = series_of(each, series)
        except Exception as error:
            useless[each.path] = refusal(error, each.path)
            continue
        if modality is None or on.modality == modality:
            found[on.study_uid].append((each, on))
    study_in = {file.parent: each.study_uid for each in series for file in each.files}
    harmed = {study_in[path.parent]: why for path, why in useless.items() if path.parent in study_in}
    names = _case_names(known)
    studies = []
    for uid in sorted(names, key=lambda uid: names[uid]):
        study = _study(names[uid], known[uid][0], uid, found[uid], structures, table, codec)
        if uid in harmed:  # a damaged file in its folder may be a slice of it
            study = replace(study, problem=harmed[uid], status="refused", wanted=())
        studies.append(study)
    alone = [why for path, why in useless.items() if path.parent not in study_in]
    return [*studies, *(_Study("", "", "", None, (), why) for why in alone)]


def _study(
    case: str,
    patient: str,
    uid: str,
    found: Sequence[tuple[DrawnObject, SeriesFiles]],
    structures: tuple[str, ...],
    table: tuple[tuple[str, str], ...],
    codec: str,
) -> _Study:
    """Choose series and structures of one study, or say why it cannot be imported."""
    study = _Study(case, patient, uid, None, (), "")
    series = {on.uid: on for _, on in found}
    if not series:
        return replace(study, problem=f"{case}: has no contours on the wanted images", status="skipped")
    if len(series) > 1:
        listed = ", ".join(sorted(f"{on.modality} {on.description}".strip() for on in series.values()))
        return replace(
            study,
            problem=f"{case}: was drawn on {len(series)} series ({listed}); choose with --modality, or take some away",
        )
    wanted: list[tuple[DrawnObject, str, str]] = []
    there: list[str] = []
    undrawn: list[str] = []
    for drawn, _ in found:
        try:
            listed_there = _LIST[drawn.kind](drawn.path, codec)
        except Exception as error:
            return replace(study, problem=refusal(error, drawn.path))
        there += [name for name, outlined in listed_there if outlined]
        fitting = [each for each in listed_there if not structures or _fits(each[0], structures)]
        chosen = [name for name, outlined in fitting if outlined]
        undrawn += [name for name, outlined in fitting if not outlined]
        wanted += [(drawn, name, _label_of(name, table)) for name in chosen]
    study = replace(study, names=tuple(there), undrawn=tuple(undrawn))
    if reserved := [name for _, name, label in wanted if is_reserved(label)]:
        return replace(
            study,
            problem=f"{case}: the structure {reserved[0]!r} cannot keep its name as a label; see --rename",
        )
    twice = [name for name, count in Counter(name for _, name, _ in wanted).items() if count > 1]
    if twice:
        return replace(study, problem=f"{case}: {twice[0]!r} is in two files; take one of them away")
    (only,) = series.values()
    if not wanted:
        listed = ", ".join(there) or "none"
        return replace(
            study,
            series=only,
            problem=f"{case}: has none of the wanted structures; it has {listed}",
            status="skipped",
        )
    return replace(study, series=only, wanted=tuple(wanted))


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts numbers within names by value: #2 before #10."""
    return [(int(part), "") if part.isdigit() else (-1, part.casefold()) for part in re.split(r"(\d+)", name)]


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fits(pattern, name) for pattern in patterns)


def _label_of(name: str, table: Sequence[tuple[str, str]]) -> str:
    return next((label for pattern, label in table if _fits(name, [pattern])), name)


def _case_names(studies: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Study UID to a name for files: the patient, with the date where there are several studies, all different."""
    per_patient = Counter(patient for patient, _ in studies.values())
    names: dict[str, str] = {}
    taken: set[str] = set()
    for uid, (patient, date) in sorted(studies.items(), key=lambda item: (item[1], item[0])):
        several = per_patient[patient] > 1 and date
        stem = re.sub(r"[^A-Za-z0-9]+", "-", f"{patient or 'patient'}{f'-{date}' if several else ''}").strip(
            "-"
        )
        name, number = stem or "patient", 2
        while name.casefold() in taken:  # some file systems take both spellings for one
            name, number = f"{stem}-{number}", number + 1
        names[uid] = name
        taken.add(name.casefold())
    return names


def _spelt_alike(patient: str, others: Collection[str]) -> tuple[str, ...]:
    """A doubt where another Patient ID differs in spelling alone; none otherwise."""
    plain = without_spelling(patient)
    alike = sorted(
        {repr(other) for other in others if plain and other != patient and without_spelling(other) == plain}
    )
    advice = "give both one name in cases.csv then, or a split may part them"
    return (f"patient {patient!r} and {', '.join(alike[:4])} may be one: {advice}",) if alike else ()


def _import(study: _Study, labels: Mapping[int, str], root: Path, codec: str) -> ImportRow:
    row = ImportRow(study.case, study.patient, study.uid, study.status, study.problem, "", "", {}, {})
    if study.series is not None:
        row = replace(row, series_uid=study.series.uid, modality=study.series.modality)
    if study.problem or study.series is None:
        return row
    try:
        series = read_series(study.series, charset=codec)
        doubts = [f"{series.folder}: {doubt}" for doubt in series.doubts]
        if study.undrawn:
            doubts.append(f"{series.folder}: has no outlines of {', '.join(map(repr, study.undrawn[:6]))}")
        label, voxels = _label_map(study, labels, series, doubts, codec)
        for kind, volume in (("images", series.volume), ("labels", Volume(label, series.volume.grid))):
            write_volume(volume, root / kind / f"{study.case}.nii.gz")
    except Exception as error:  # whatever a library raises concerns this study alone
        (root / "images" / f"{study.case}.nii.gz").unlink(missing_ok=True)
        return replace(row, status="refused", reason=refusal(error, study.series.files[0]))
    taken = {name: name_of_label for _, name, name_of_label in study.wanted}
    return replace(row, status="imported", structures=taken, voxels=voxels, doubts=tuple(doubts))


def _label_map(
    study: _Study, labels: Mapping[int, str], series: Series, doubts: list[str], codec: str
) -> tuple[NDArray[np.uint8], dict[str, int]]:
    """The structures as one label map, z, y, x; DataError if two labels claim a voxel. `doubts` takes up theirs."""
    masks: dict[str, NDArray[np.bool_]] = {}
    for drawn in dict.fromkeys(drawn for drawn, _, _ in study.wanted):
        names = {name: label for each, name, label in study.wanted if each == drawn}
        if drawn.guessed:
            doubts.append(f"{drawn.path}: {guesses_told(drawn.guessed)}")
        for name, mask in _READ[drawn.kind](drawn.path, series, set(names), doubts, codec).items():
            label = names[name]
            masks[label] = masks[label] | mask if label in masks else mask
    for one, other in combinations(masks, 2):
        if shared := int(np.count_nonzero(masks[one] & masks[other])):
            raise DataError.at(
                study.case,
                f"{one!r} and {other!r} share {shared} voxels",
                "choose one with --structure, or give both one label with --rename",
            )
    result = np.zeros(series.volume.array.shape, np.uint8 if len(labels) < 256 else np.uint16)
    for value, label in labels.items():
        if label in masks:
            result[masks[label]] = value
    return result, {label: int(np.count_nonzero(mask)) for label, mask in masks.items()}


def _describe(root: Path, labels: Mapping[int, str], rows: Sequence[ImportRow]) -> None:
    """Write dataset.json and cases.csv."""
    names = {"background": 0} | {name: value for value, name in labels.items()}
    write_text(root / "dataset.json", json.dumps({"labels": names}, indent=1, ensure_ascii=False) + "\n")
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["case", "patient", "study_uid", "series_uid", "modality", "structures"])
    for row in rows:
        if row.status == "imported":
            taken = "; ".join(
                name if name == label else f"{name} = {label}" for name, label in row.structures.items()
            )
            writer.writerow([row.case, row.patient, row.study_uid, row.series_uid, row.modality, taken])
    write_text(root / "cases.csv", table.getvalue())


# the names of structures, and whether they have outlines
_LIST: Mapping[str, Callable[[Path, str], Sequence[tuple[str, bool]]]] = {
    "SEG": lambda path, codec: [(segment.name, True) for segment in list_segments(path, codec)],
    "RTSTRUCT": lambda path, codec: [(each.name, each.has_outlines) for each in list_structures(path, codec)],
}
_Read = Callable[[Path, Series, set[str], list[str], str], Mapping[str, NDArray[np.bool_]]]
_READ: Mapping[str, _Read] = {
    "SEG": read_segmentation,
    "RTSTRUCT": read_structures,
}
