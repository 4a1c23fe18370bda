"""Patients on both sides of a split."""

from focalis.dataset import Case, Split
from focalis.quality.leaks import find_leaks


def cases(**patients: str) -> list[Case]:
    return [Case(name, (), None, patient) for name, patient in patients.items()]


def test_a_patient_on_both_sides_is_named_once_with_all_splits() -> None:
    splits = [Split(("a", "c"), ("b",)), Split(("a", "b"), ("c",)), Split(("b", "c"), ("a",))]
    (finding,) = find_leaks(cases(a="P", b="P", c="Q"), splits)
    assert finding.cases == ("a", "b")
    assert finding.message == (
        "are cases of patient P, and splits 0 and 2 train on some and validate on others"
    )


def test_a_patient_on_one_side_is_no_leak() -> None:
    splits = [Split(("a", "b"), ("c",)), Split(("c",), ("a", "b"))]
    assert list(find_leaks(cases(a="P", b="P", c="Q"), splits)) == []


def test_a_case_that_a_split_leaves_out_is_no_leak() -> None:
    assert list(find_leaks(cases(a="P", b="P", c="Q"), [Split(("a",), ("c",))])) == []
