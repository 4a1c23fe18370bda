"""Tables of cases, as people export them from a spreadsheet."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from focalis.errors import DataError

PATIENTS = "cases.csv"


@dataclass(frozen=True)
class Table:
    """A CSV file: its columns, and its rows as column to value; values are stripped, missing ones empty."""

    columns: tuple[str, ...]
    rows: tuple[dict[str, str], ...]


def read_table(path: Path) -> Table:
    """Read a CSV file, UTF-8, whose columns are separated by commas, semicolons or tabs (the header decides).

    Raises:
        DataError: the file cannot be read, names a column twice, or has a row of more values than columns.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets put a mark in front
            header = file.readline()
            separator = max(",;\t", key=header.count)
            columns = tuple(name.strip() for name in next(csv.reader([header], delimiter=separator), []))
            lines = [[value.strip() for value in line] for line in csv.reader(file, delimiter=separator)]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is not a CSV file in UTF-8 ({error}); save it as one") from error
    named = [name for name in columns if name]
    if twice := [name for name in dict.fromkeys(named) if named.count(name) > 1]:
        raise DataError(f"{path}: has the column {twice[0]} twice; rename one")
    rows = []
    for number, line in enumerate(lines, start=2):
        if len(line) > len(columns) and any(line[len(columns) :]):
            raise DataError(f"{path}: row {number} has more values than there are columns; correct it")
        if any(line):
            padded = line + [""] * (len(columns) - len(line))
            rows.append({name: value for name, value in zip(columns, padded, strict=False) if name})
    return Table(columns, tuple(rows))


def patients_of(root: Path, cases: set[str]) -> dict[str, str]:
    """Who the cases are of, from `cases.csv` in a data set's folder.

    The table needs a column `case` and a column `patient`, or a single one whose name ends in `_patient`; a table
    without them is about something else. An empty cell stands for a patient of its own.

    Returns:
        Case to patient; a case that is not in it is a patient of its own.

    Raises:
        DataError: the table lacks a case, or names one twice with two patients.
    """
    path = root / PATIENTS
    if not path.is_file():
        return {}
    table = read_table(path)
    column = _patient_column(table)
    return {} if column is None else _patients(path, table, column, cases)


def read_patients(path: Path, cases: set[str]) -> dict[str, str]:
    """Who the cases are of, from a table as `patients_of` finds it, here named by a person.

    Raises:
        DataError: the table cannot be read, is about something else, lacks a case, or names two patients for one.
    """
    table = read_table(path)
    column = _patient_column(table)
    if column is None:
        raise DataError(
            f"{path}: needs the columns case and patient, it has {', '.join(table.columns)}; add them"
        )
    return _patients(path, table, column, cases)


def _patient_column(table: Table) -> str | None:
    alike = [name for name in table.columns if name.endswith("_patient")]
    column = "patient" if "patient" in table.columns else alike[0] if len(alike) == 1 else None
    return column if "case" in table.columns else None


def _patients(path: Path, table: Table, column: str, cases: set[str]) -> dict[str, str]:
    patients: dict[str, str] = {}
    for row in table.rows:
        case, patient = row["case"], row[column] or row["case"]
        if patients.setdefault(case, patient) != patient:
            raise DataError(f"{path}: names two patients for case {case}; keep one")
    if lacking := sorted(cases - patients.keys()):
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise DataError(f"{path}: lacks case {', '.join(lacking[:3])}{more}; add the rows")
    return {case: patients[case] for case in cases}
