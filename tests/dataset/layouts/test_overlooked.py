"""What lies in a data set's folder and is not read."""

import json
from pathlib import Path

import pytest

from focalis.dataset import find_splits, open_dataset


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set of two cases; empty files, for listing a data set reads no image."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        for case in ("a", "b"):
            (tmp_path / folder / f"{case}.nii.gz").touch()
    return tmp_path


def test_a_clean_folder_is_passed_without_a_note(root: Path) -> None:
    (root / "README.md").touch()
    (root / "labels" / "notes.txt").touch()
    (root / "splits.json").write_text("[]")
    (root / "cases.csv").write_text("case,patient\na,P\nb,Q\n")
    (root / "volumes.csv").write_text("case,volume\na,1\nb,2\n")
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "lesion": 1}}))
    assert open_dataset(root).notes == ()


@pytest.mark.parametrize("name", ["c.mgz", "c.hdr", "c.NPY", "c.dcm"])
def test_images_of_other_formats_are_reported(root: Path, name: str) -> None:
    (root / "images" / name).touch()
    (note,) = open_dataset(root).notes
    assert note.startswith(f"images/ holds files that are passed over, {name}: Focalis reads .nii.gz")


@pytest.mark.parametrize("name", ["folds.json", "my_split.json"])
def test_splits_of_another_name_are_reported(root: Path, name: str) -> None:
    (root / name).write_text(json.dumps([{"train": ["a"], "val": ["b"]}]))
    (note,) = open_dataset(root).notes
    assert note.startswith(f"{name} holds splits and is passed over")


def test_pickled_splits_are_reported(root: Path) -> None:
    (root / "splits_final.pkl").touch()
    assert "splits_final.pkl is passed over" in open_dataset(root).notes[0]


@pytest.mark.parametrize("name", ["splits.json", "Splits_final.json", "split.json"])
def test_splits_are_found_in_any_case(root: Path, name: str) -> None:
    (root / name).touch()
    assert find_splits(root) == root / name


def test_patients_in_a_table_of_another_name_are_reported(root: Path) -> None:
    (root / "clinical.csv").write_text("Scan;Subject ID;age\na;P;3\nb;P;4\n")
    assert "clinical.csv names patients and is passed over" in open_dataset(root).notes[0]


@pytest.mark.parametrize("name", ["cases.xlsx", "Patients.XLS", "clinical.ods"])
def test_a_spreadsheet_is_reported(root: Path, name: str) -> None:
    (root / name).touch()
    assert open_dataset(root).notes == (
        f"{name} is a spreadsheet and is passed over; save it as cases.csv if it names the patients",
    )


def test_a_table_of_patients_after_whom_the_cases_are_named_is_reported(root: Path) -> None:
    (root / "labels" / "sub-1_ses-1.nii.gz").touch()
    (root / "participants.tsv").write_text("participant_id\tage\nsub-1\t3\nsub-2\t4\n")
    assert any(note.startswith("participants.tsv names patients") for note in open_dataset(root).notes)


def test_a_description_without_labels_is_reported(root: Path) -> None:
    (root / "dataset.json").write_text(json.dumps({"classes": {"lesion": 1}}))
    assert "dataset.json names no labels (its keys: classes)" in open_dataset(root).notes[0]


@pytest.mark.parametrize("name", ["dataset.json", "Dataset.json"])
@pytest.mark.parametrize("key", ["labels", "Labels", "label"])
@pytest.mark.parametrize("ignore", ["ignore", "Ignore", "ignore_label", "ignored"])
def test_labels_and_what_to_ignore_are_found_under_usual_spellings(
    root: Path, name: str, key: str, ignore: str
) -> None:
    (root / name).write_text(json.dumps({key: {"Background": 0, "lesion": 1, ignore: 2}}))
    dataset = open_dataset(root)
    assert dataset.labels == {1: "lesion"}
    assert dataset.ignore == 2
    assert dataset.notes == ()
