"""Who the cases are of, from cases.csv."""

from pathlib import Path

import pytest

from focalis.dataset.layouts.tables import patients_of
from focalis.errors import DataError


def patients(root: Path, text: str, cases: set[str]) -> dict[str, str]:
    (root / "cases.csv").write_text(text)
    return patients_of(root, cases)


def test_the_column_patient_comes_first(tmp_path: Path) -> None:
    text = "case,x_patient,patient\na,1,P\nb,2,P\nother,3,Q\n"
    assert patients(tmp_path, text, {"a", "b"}) == {"a": "P", "b": "P"}


def test_a_column_that_ends_in_patient_counts_if_it_is_the_only_one(tmp_path: Path) -> None:
    assert patients(tmp_path, "case,lidc_patient\na,P\nb,\n", {"a", "b"}) == {"a": "P", "b": "b"}
    assert patients(tmp_path, "case,x_patient,y_patient\na,P,Q\n", {"a"}) == {}


def test_a_table_about_something_else_and_no_table(tmp_path: Path) -> None:
    assert patients_of(tmp_path, {"a"}) == {}
    assert patients(tmp_path, "case,volume\na,3\n", {"a"}) == {}
    assert patients(tmp_path, "id,patient\na,P\n", {"a"}) == {}


def test_a_table_that_lacks_a_case_or_contradicts_itself(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cases\.csv: lacks case b, c, d and 1 more; add the rows"):
        patients(tmp_path, "case,patient\na,P\n", set("abcde"))
    with pytest.raises(DataError, match="names two patients for case a"):
        patients(tmp_path, "case,patient\na,P\na,Q\n", {"a"})
