"""Patients on both sides of a split."""

from focalis.dataset import Case, Split
from focalis.quality.leaks import find_leaks, find_left_out


def cases(**patients: str) -> list[Case]:
    return [Case(name, (), None, patient) for name, patient in patients.items()]


def test_a_patient_on_both_sides_is_named_once_with_all_splits() -> None:
    parts = [Split(("a", "c"), ("b",)), Split(("a", "b"), ("c",)), Split(("b", "c"), ("a",))]
    splits = dict(zip((0, 1, 4), parts, strict=True))
    (finding,) = find_leaks(cases(a="P", b="P", c="Q"), splits)
    assert finding.cases == ("a", "b")
    assert finding.message == (
        "are cases of patient P, and splits 0 and 4 train on some and validate on others"
    )


def test_a_patient_on_one_side_is_not_a_leak() -> None:
    splits = {0: Split(("a", "b"), ("c",)), 1: Split(("c",), ("a", "b"))}
    assert list(find_leaks(cases(a="P", b="P", c="Q"), splits)) == []


def test_a_case_that_a_split_leaves_out_is_not_a_leak() -> None:
    assert list(find_leaks(cases(a="P", b="P", c="Q"), {0: Split(("a",), ("c",))})) == []


def test_cases_on_neither_side_are_one_line_for_all_splits_alike() -> None:
    splits = {
        2: Split(("a",), ("c",)),
        3: Split(("c",), ("a",)),
        5: Split(("a", "b"), ("c", "d")),
        6: Split(("a", "b", "c"), ("d", "e")),
    }
    first, second = find_left_out(cases(a="P", b="P", c="Q", d="R", e="S"), splits)
    assert first.message == "3 of 5 cases (b, d, e) neither train nor validate in split 2 and 3"
    assert second.message == "1 of 5 cases (e) neither train nor validate in split 5"
