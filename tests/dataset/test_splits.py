import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from focalis.dataset import Case, Split, inner_split, make_splits, read_splits, write_splits
from focalis.errors import DataError, UsageError


def some_cases(count: int, per_patient: int = 1) -> list[Case]:
    return [Case(f"case{i:02d}", (), None, f"patient{i // per_patient:02d}") for i in range(count)]


def test_round_trip(tmp_path: Path) -> None:
    splits = (Split(("a", "b"), ("c",)), Split(("c",), ("a", "b")))
    write_splits(splits, tmp_path / "splits.json")
    assert read_splits(tmp_path / "splits.json") == splits
    assert read_splits(tmp_path / "splits.json", ["a", "b", "c", "d"]) == splits


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[", "not valid JSON"),
        ("{}", "must be a list of splits"),
        ("[]", "must be a list of splits"),
        ('[{"train": ["a"]}]', "split 0: must be"),
        ('[{"train": ["a"], "val": "b"}]', "split 0: must be"),
        ('[{"train": ["a"], "val": ["b"]}, 3]', "split 1: must be"),
        ('[{"train": ["a", "b"], "val": ["b"]}]', "split 0: b both trains and validates"),
        ('[{"train": ["a", "a"], "val": ["b"]}]', "split 0: names a more than once"),
        ('[{"train": ["a", "y"], "val": ["x"]}]', "split 0: names x, y, not in the data set"),
    ],
)
def test_wrong_splits_are_refused(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "splits.json"
    path.write_text(content)
    with pytest.raises(DataError, match=complaint):
        read_splits(path, ["a", "b"])


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.json: cannot be read"):
        read_splits(tmp_path / "none.json")


def test_folds_validate_each_case_once_and_keep_patients_together() -> None:
    cases = some_cases(23, per_patient=2)
    patient = {case.name: case.patient for case in cases}
    splits = make_splits(cases, 5, seed=3)
    assert len(splits) == 5
    assert sorted(name for split in splits for name in split.val) == sorted(patient)
    for split in splits:
        assert sorted(split.train + split.val) == sorted(patient)
        assert not {patient[name] for name in split.train} & {patient[name] for name in split.val}
        assert 4 <= len(split.val) <= 6


def test_folds_depend_on_the_seed_alone() -> None:
    cases = some_cases(20)
    assert make_splits(cases, 4, seed=1) == make_splits(cases[::-1], 4, seed=1)
    assert make_splits(cases, 4, seed=1) != make_splits(cases, 4, seed=2)


def test_impossible_folds() -> None:
    with pytest.raises(UsageError):
        make_splits(some_cases(5), 1, seed=0)
    with pytest.raises(DataError, match="3 patients cannot make 4 folds"):
        make_splits(some_cases(6, per_patient=2), 4, seed=0)


@pytest.mark.parametrize(
    ("count", "share", "minimum", "expected"),
    [(40, 0.2, 4, 8), (10, 0.1, 3, 3), (2, 0.5, 5, 1), (3, 0.2, 9, 2)],
)
def test_inner_split_sizes(count: int, share: float, minimum: int, expected: int) -> None:
    split = inner_split(some_cases(count), share, minimum, seed=0)
    assert len(split.val) == expected
    assert len(split.train) == count - expected
    assert not set(split.train) & set(split.val)


def test_inner_split_keeps_patients_together_and_depends_on_the_seed_alone() -> None:
    cases = some_cases(30, per_patient=3)
    patient = {case.name: case.patient for case in cases}
    split = inner_split(cases, 0.25, 2, seed=5)
    assert not {patient[name] for name in split.train} & {patient[name] for name in split.val}
    assert split == inner_split(cases[::-1], 0.25, 2, seed=5)
    assert split != inner_split(cases, 0.25, 2, seed=6)
    with pytest.raises(DataError, match="single patient"):
        inner_split(cases[:3], 0.25, 2, seed=5)


def test_reads_the_common_form(tmp_path: Path) -> None:
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps([{"train": ["b", "a"], "val": ["c"]}]))
    assert read_splits(path)[0].train == ("a", "b")


def holding(*labels: Iterable[int]) -> list[Case]:
    """A case, and patient, per set of labels."""
    return [Case(f"c{number:02d}", (), None, holds=frozenset(each)) for number, each in enumerate(labels)]


def held(cases: list[Case], names: tuple[str, ...]) -> list[set[int]]:
    return [set(case.holds or ()) for case in cases if case.name in names]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("lesions", [1, 2, 3, 5, 9])
def test_lesions_lie_on_both_sides_of_an_inner_split(seed: int, lesions: int) -> None:
    cases = holding(*[{1}] * lesions, *[()] * (14 - lesions))
    split = inner_split(cases, 0.12, 3, seed)
    assert len(split.val) == 3
    assert {1} in held(cases, split.train)
    assert ({1} in held(cases, split.val)) == (lesions > 1)


@pytest.mark.parametrize("seed", range(20))
def test_no_label_is_lost_to_an_inner_split(seed: int) -> None:
    cases = holding({1}, {1, 2}, {3}, {1}, {1}, (), {1, 2}, {1, 70_000})
    split = inner_split(cases, 0.3, 3, seed)
    assert set().union(*held(cases, split.train)) == {1, 2, 3, 70_000}


@pytest.mark.parametrize("seed", range(10))
def test_an_inner_split_has_its_share_of_scans_without_a_lesion(seed: int) -> None:
    cases = holding(*[{1}] * 30, *[()] * 30)
    split = inner_split(cases, 0.2, 3, seed)
    assert len(split.val) == 12
    assert 5 <= sum(not labels for labels in held(cases, split.val)) <= 7


def test_where_no_patient_can_be_spared_one_is_set_aside_all_the_same() -> None:
    split = inner_split(holding({1}, {2}), 0.12, 3, 0)
    assert len(split.val) == len(split.train) == 1


def test_splits_of_cases_that_all_hold_the_same_are_those_of_cases_that_nobody_looked_at() -> None:
    alike, unknown = holding(*[{1, 2}] * 23), [Case(f"c{number:02d}", (), None) for number in range(23)]
    for seed in range(5):
        assert make_splits(alike, 5, seed) == make_splits(unknown, 5, seed)
        assert inner_split(alike, 0.12, 3, seed) == inner_split(unknown, 0.12, 3, seed)


@pytest.mark.parametrize("seed", range(10))
def test_labels_and_empty_scans_are_spread_over_the_folds(seed: int) -> None:
    cases = holding(*[{1}] * 11, *[{1, 2}] * 5, *[{3}] * 6, *[()] * 10)
    for split in make_splits(cases, 5, seed):
        found = held(cases, split.val)
        assert sum(2 in labels for labels in found) == 1
        assert 1 <= sum(3 in labels for labels in found) <= 2
        assert sum(not labels for labels in found) == 2
        assert 6 <= len(found) <= 7


def test_who_alone_holds_a_label_trains_in_every_fold() -> None:
    cases = holding(*[{1}] * 7, {1, 9})
    splits = make_splits(cases, 3, 0)
    assert all("c07" in split.train for split in splits)
    assert sorted(name for split in splits for name in split.val) == [f"c{n:02d}" for n in range(7)]
    with pytest.raises(DataError, match="2 patients, besides 1 who must always train, cannot make 3 folds"):
        make_splits(holding({1}, {1}, {1, 2}), 3, 0)


def test_patients_are_kept_together_when_labels_are_spread() -> None:
    cases = [
        Case(f"c{n:02d}", (), None, f"p{n // 2}", holds=frozenset({1} if n % 4 == 0 else ()))
        for n in range(24)
    ]
    for split in (*make_splits(cases, 4, 1), inner_split(cases, 0.3, 3, 1)):
        assert not {c.patient for c in cases if c.name in split.val} & {
            c.patient for c in cases if c.name in split.train
        }
        assert {1} in held(cases, split.val)
