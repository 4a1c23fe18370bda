"""Who the cases are of, from cases.csv."""

from pathlib import Path

import pytest

from focalis.dataset.layouts.tables import patients_of, read_patients, read_table
from focalis.errors import DataError


def patients(root: Path, text: str, cases: set[str], name: str = "cases.csv") -> dict[str, str]:
    (root / name).write_text(text)
    return dict(patients_of(root, cases).of)


def note(root: Path, text: str, cases: set[str]) -> str:
    (root / "cases.csv").write_text(text)
    return patients_of(root, cases).note


def test_the_column_patient_comes_first(tmp_path: Path) -> None:
    text = "case,x_patient,patient\na,1,P\nb,2,P\nother,3,Q\n"
    assert patients(tmp_path, text, {"a", "b"}) == {"a": "P", "b": "P"}


@pytest.mark.parametrize(
    "column",
    [
        "Patient",
        "PATIENT ID",
        "PatientID",
        "patient-id",
        "patient.number",
        "subject",
        "Subject_ID",
        "participant_id",
        "lidc_patient",
        "site_patient_id",
        "Patient's Name",
        "pid",
        "Patientennummer",
        "Sujet",
        "ID_paciente",
        "Pseudonym",
        "MRN",
    ],
)
def test_usual_names_of_the_patients_column(tmp_path: Path, column: str) -> None:
    text = f"case,{column},age\na,P,60\nb,P,61\nc,,7\n"
    assert patients(tmp_path, text, {"a", "b", "c"}) == {"a": "P", "b": "P", "c": "c"}


@pytest.mark.parametrize(
    "column", ["patient_age", "lesions_per_patient", "n_patients", "solid", "spacing", "weight"]
)
def test_a_column_about_patients_that_does_not_name_them(tmp_path: Path, column: str) -> None:
    assert note(tmp_path, f"case,{column}\na,1\nb,1\n", {"a", "b"}).startswith(
        "cases.csv has no column patient (case, "
    )


@pytest.mark.parametrize("column", ["Case", "case_id", "CaseID", "Case Name", "scan", "id", "file"])
def test_usual_names_of_the_cases_column(tmp_path: Path, column: str) -> None:
    assert patients(tmp_path, f"{column},patient\na,P\nb,P\n", {"a", "b"}) == {"a": "P", "b": "P"}


def test_cases_may_be_named_by_their_files(tmp_path: Path) -> None:
    text = "filename,patient\na.nii.gz,P\nimages/b.nrrd,P\n"
    assert patients(tmp_path, text, {"a", "b"}) == {"a": "P", "b": "P"}


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffCase;Patient ID\na;P\nb;P\n",
        " case \t patient_id \na\tP\nb\tP\n",
        "sep=;\ncase;patient\na;P\nb;P\n",
        "\n\ncase,patient\na,P\nb,P\n",
    ],
)
def test_tables_as_spreadsheets_write_them(tmp_path: Path, text: str) -> None:
    assert patients(tmp_path, text, {"a", "b"}) == {"a": "P", "b": "P"}


@pytest.mark.parametrize("name", ["cases.csv", "Cases.CSV", "cases.tsv"])
def test_the_tables_name_in_any_case(tmp_path: Path, name: str) -> None:
    assert patients(tmp_path, "case,patient\na,P\n", {"a"}, name) == {"a": "P"}


@pytest.mark.parametrize("missing", ["", "NaN", "n/a", "None"])
def test_a_missing_patient_is_a_patient_of_its_own(tmp_path: Path, missing: str) -> None:
    assert patients(tmp_path, f"case,patient\na,{missing}\nb,{missing}\n", {"a", "b"}) == {"a": "a", "b": "b"}


@pytest.mark.parametrize(("one", "other"), [("P7", "p7"), ("007", "7"), ("12", "12.0"), ("sub-03", "sub-3")])
def test_two_spellings_of_what_may_be_one_patient_are_reported(tmp_path: Path, one: str, other: str) -> None:
    assert f"{one} and {other} count as two patients" in note(
        tmp_path, f"case,patient\na,{one}\nb,{other}\n", {"a", "b"}
    )
    assert note(tmp_path, f"case,patient\na,{one}\nb,{one}0\nc,{one}00\n", {"a", "b", "c"}) == ""


def test_a_column_of_patients_that_is_empty_is_reported(tmp_path: Path) -> None:
    assert "column patient is empty: each case" in note(tmp_path, "case,patient\na,\nb,n/a\n", {"a", "b"})


def test_two_columns_of_patients_must_agree(tmp_path: Path) -> None:
    same = "case,subject_id,x_patient\na,1,P\nb,1,P\nc,2,Q\n"
    assert patients(tmp_path, same, set("abc")) == {"a": "1", "b": "1", "c": "2"}
    with pytest.raises(DataError, match="the columns subject_id and x_patient group the cases differently"):
        patients(tmp_path, same.replace("b,1,P", "b,1,Q"), set("abc"))


def test_a_table_about_something_else_is_reported_and_no_table_is_not(tmp_path: Path) -> None:
    assert patients_of(tmp_path, {"a"}).note == ""
    assert "has no column patient (case, volume)" in note(tmp_path, "case,volume\na,3\n", {"a"})
    assert "has no column case (row, patient)" in note(tmp_path, "row,patient\n1,P\n", {"a"})


def test_a_table_that_a_person_names_must_hold_patients(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("case,volume\na,3\n")
    with pytest.raises(DataError, match="needs the columns case and patient, it has case, volume"):
        read_patients(tmp_path / "t.csv", {"a"})


def test_a_table_that_lacks_a_case_or_contradicts_itself(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cases\.csv: lacks case b, c, d and 1 more; add the rows"):
        patients(tmp_path, "case,patient\na,P\n", set("abcde"))
    with pytest.raises(DataError, match="names two patients for case a"):
        patients(tmp_path, "case,patient\na,P\na,Q\n", {"a"})


def test_a_row_is_known_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("sep=,\ncase,patient\na,P\nb,Q,3\n")
    with pytest.raises(DataError, match="row 4 has more values"):
        read_table(tmp_path / "t.csv")
