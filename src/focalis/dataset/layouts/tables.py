"""Tables of cases, as people export them from a spreadsheet."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from focalis.dataset.layouts.names import entry
from focalis.display import listed
from focalis.errors import DataError
from focalis.patterns import without_spelling
from focalis.volume import image_stem

PATIENTS = ("cases.csv", "cases.tsv")

_IDENTIFIER = re.compile(r"(id|ids|identifier|uid|no|nr|num|number|nummer|numero|code|name)$")
_CASES = frozenset({"case", "cases", "scan", "scans", "exam", "examination"})
_PEOPLE = frozenset(
    {
        "patient",
        "patients",
        "patienten",
        "subject",
        "subjects",
        "participant",
        "participants",
        "sujet",
        "sujets",
    }
    | {"paciente", "pacientes", "paziente", "pazienti", "volunteer", "donor", "animal"}
)
_SHORT = frozenset({"pat", "pid", "sub", "subj", "mrn", "proband", "person", "individual", "pseudonym"})
_COUNTING = frozenset({"n", "of", "per"})
_MISSING = frozenset({"", "nan", "na", "n/a", "none", "null"})


@dataclass(frozen=True)
class Table:
    """A CSV file: its columns, and its rows as column to value; values are stripped, missing ones empty."""

    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]


@dataclass(frozen=True)
class Patients:
    """Who the cases are of.

    Attributes:
        of: case to patient; a case that is not in it is a patient of its own.
        note: why a table gives no patients, or which of them may be one person; empty as a rule.
    """

    of: Mapping[str, str]
    note: str = ""


def read_table(path: Path) -> Table:
    """Read a CSV file, UTF-8, whose columns are separated by commas, semicolons or tabs (the header decides).

    Empty lines before the header are passed over, and so is the line `sep=;` that spreadsheets know.

    Raises:
        DataError: the file cannot be read, names a column twice, or has a row of more values than columns.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets put a mark in front
            header, before = file.readline(), 1
            while header and (not header.strip() or header.lower().startswith("sep=")):
                header, before = file.readline(), before + 1
            separator = max(",;\t", key=header.count)
            columns = tuple(name.strip() for name in next(csv.reader([header], delimiter=separator), []))
            lines = [[value.strip() for value in line] for line in csv.reader(file, delimiter=separator)]
    except OSError as error:
        raise DataError.at(path, f"cannot be read ({error.strerror})", "check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError.at(path, f"is not a CSV file in UTF-8 ({error})", "save it as one") from error
    named = [name for name in columns if name]
    if twice := [name for name in dict.fromkeys(named) if named.count(name) > 1]:
        raise DataError.at(path, f"has the column {twice[0]} twice", "rename one")
    rows = []
    for number, line in enumerate(lines, start=before + 1):
        if len(line) > len(columns) and any(line[len(columns) :]):
            raise DataError.at(path, f"row {number} has more values than there are columns", "correct it")
        if any(line):
            padded = line + [""] * (len(columns) - len(line))
            rows.append({name: value for name, value in zip(columns, padded, strict=False) if name})
    return Table(columns, tuple(rows))


def patients_of(root: Path, cases: set[str]) -> Patients:
    """Who the cases are of, from `cases.csv` (or `.tsv`) in a data set's folder.

    The table needs a column of cases and one of patients, see `case_column` and `patient_column`; a table without them
    is about something else, and the note says so. An empty cell stands for a patient of its own.

    Raises:
        DataError: the table lacks a case, or names one twice with two patients, or has two columns of patients.
    """
    path = entry(root, *PATIENTS)
    if path is None:
        return Patients({})
    table = read_table(path)
    case, patient = case_column(table, cases), patient_column(path, table)
    if case is None or patient is None:
        lacking = "case" if case is None else "patient"
        return Patients({}, f"{path.name} has no column {lacking} ({_columns(table)}): {NO_PATIENTS}")
    of = _patients(path, table, case, patient, cases)
    return Patients(of, doubt_about(path.name, patient, [patient_name(row[patient]) for row in table.rows]))


def doubt_about(table: str, column: str, patients: Iterable[str]) -> str:
    """What to say of patients whose column is empty, or some of whom may be one person; empty as a rule."""
    known = sorted(set(patients) - {""})
    if not known:
        return f"{table}: the column {column} is empty: {NO_PATIENTS}"
    alike: dict[str, str] = {}
    for name in known:
        other = alike.setdefault(without_spelling(name), name)
        if other != name:
            return (
                f"{table}: {other} and {name} count as two patients; spell them alike if they are one person, "
                "or splits may part the scans"
            )
    return ""


NO_PATIENTS = "each case counts as a patient of its own, so splits may part the scans of one person"


def read_patients(path: Path, cases: set[str]) -> dict[str, str]:
    """Who the cases are of, from a table as `patients_of` finds it, here named by a person.

    Raises:
        DataError: the table cannot be read, is about something else, lacks a case, or names two patients for one.
    """
    table = read_table(path)
    case, patient = case_column(table, cases), patient_column(path, table)
    if case is None or patient is None:
        raise DataError.at(path, f"needs the columns case and patient, it has {_columns(table)}", "add them")
    return _patients(path, table, case, patient, cases)


def case_column(table: Table, cases: set[str] | None = None) -> str | None:
    """The column of cases: `case`, else one that means it (Case, case_id, scan), else the one that names all."""
    if "case" in table.columns:
        return "case"
    alike = [name for name in table.columns if _meaning(name) in _CASES]
    if not alike and cases:
        alike = [
            name for name in table.columns if name and cases <= {case_name(row[name]) for row in table.rows}
        ]
    return alike[0] if len(alike) == 1 else None


def patient_column(path: Path, table: Table) -> str | None:
    """The column that names the patients: `patient`, else one that means it (Patient ID, subject, participant_id).

    Raises:
        DataError: several columns mean it, and they do not say the same.
    """
    if "patient" in table.columns:
        return "patient"
    alike = [name for name in table.columns if _means_patient(name)]
    groupings = {tuple(_grouping(row[name] for row in table.rows)) for name in alike}
    if len(groupings) > 1:
        raise DataError.at(
            path,
            f"the columns {alike[0]} and {alike[1]} group the cases differently",
            "name the right one patient",
        )
    return alike[0] if alike else None


def patient_name(value: str) -> str:
    """What a cell says of the patient; empty if nothing."""
    return "" if value.casefold() in _MISSING else value


def case_name(value: str) -> str:
    """The case that a cell names: itself, or the name of an image file without its suffix."""
    return image_stem(Path(value)) or value


def _patients(path: Path, table: Table, case_in: str, patient_in: str, cases: set[str]) -> dict[str, str]:
    patients: dict[str, str] = {}
    for row in table.rows:
        case = row[case_in] if row[case_in] in cases else case_name(row[case_in])
        patient = patient_name(row[patient_in]) or case
        if patients.setdefault(case, patient) != patient:
            raise DataError.at(path, f"names two patients for case {case}", "keep one")
    if lacking := sorted(cases - patients.keys()):
        raise DataError.at(path, f"lacks case {listed(lacking)}", "add the rows")
    return {case: patients[case] for case in cases}


def _meaning(name: str) -> str:
    """A column's name in lower case without separators and without what says that it is an identifier."""
    plain = re.sub(r"[\W_]+", "", name.casefold())
    return _IDENTIFIER.sub("", plain) or plain


def _means_patient(name: str) -> bool:
    words = [word for word in re.split(r"[\W_]+", name.casefold()) if word]
    if _COUNTING & set(words):
        return False
    last = [word for word in words if not _IDENTIFIER.fullmatch(word)][-1:]
    return _meaning(name) in _PEOPLE | _SHORT or "".join(words) in _SHORT or bool(_PEOPLE & set(last))


def _grouping(values: Iterable[str]) -> list[int]:
    """The group of each value, numbered as they come; a missing one is a group of its own."""
    seen: dict[object, int] = {}
    return [seen.setdefault(patient_name(value) or row, len(seen)) for row, value in enumerate(values)]


def _columns(table: Table) -> str:
    return ", ".join(name for name in table.columns if name)
