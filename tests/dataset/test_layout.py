"""Which layout is taken, and the real sets as they lie."""

import os
from pathlib import Path

import pytest

from focalis.dataset import open_dataset, read_splits
from focalis.errors import DataError

REAL = pytest.mark.skipif(
    "FOCALIS_DATA" not in os.environ, reason="FOCALIS_DATA names no folder of real data"
)


def make(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def test_what_lies_there_decides(tmp_path: Path) -> None:
    make(tmp_path, "images/a.nii.gz", "labels/a.nii.gz")
    assert [case.name for case in open_dataset(tmp_path).cases] == ["a"]

    make(tmp_path, "imagesTr/b.nii.gz", "labelsTr/b.nii.gz")
    description = '{"channel_names": {"0": "CT"}, "labels": {"lesion": 1}, "file_ending": ".nii.gz"}'
    (tmp_path / "dataset.json").write_text(description)
    assert [case.name for case in open_dataset(tmp_path).cases] == ["b"]

    (tmp_path / "manifest.csv").write_text("case,image,label\nc,images/a.nii.gz,labels/a.nii.gz\n")
    assert [case.name for case in open_dataset(str(tmp_path)).cases] == ["c"]

    (tmp_path / "other.csv").write_text("case,image,label\nd,images/a.nii.gz,labels/a.nii.gz\n")
    assert [case.name for case in open_dataset(tmp_path / "other.csv").cases] == ["d"]


def test_what_is_not_a_data_set_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none: is not a folder, nor a CSV manifest"):
        open_dataset(tmp_path / "none")
    make(tmp_path, "image.nii.gz", "scans/a.nii.gz")
    with pytest.raises(DataError, match=r"image\.nii\.gz: is not a folder, nor a CSV manifest"):
        open_dataset(tmp_path / "image.nii.gz")
    with pytest.raises(
        DataError, match=r"images/ and label maps into labels/ .* manifest\.csv, .* imagesTr/"
    ):
        open_dataset(tmp_path)


@REAL
@pytest.mark.parametrize(
    ("name", "cases", "channels", "patients"),
    [
        ("lidc_nodules", 104, ("image",), 104),
        ("msd_hippocampus", 200, ("image",), 200),
        ("oasis_inferior_ventricle", 15, ("image",), 15),
        ("sts_pet", 51, ("image",), 51),
        ("ms_brain", 2, ("FLAIR", "T1"), 2),
    ],
)
def test_real_sets_as_they_lie(name: str, cases: int, channels: tuple[str, ...], patients: int) -> None:
    dataset = open_dataset(Path(os.environ["FOCALIS_DATA"]) / name)
    assert (len(dataset.cases), dataset.channels) == (cases, channels)
    assert len({case.patient for case in dataset.cases}) == patients
    first = dataset.cases[0]
    images, label = first.read_images(), first.read_label()
    assert len(images) == len(channels)
    for image in images:
        assert not image.grid.differences(label.grid)
        assert image.array.std() > 0
    assert label.array.max() >= 1
    for path in dataset.root.glob("splits*.json"):
        assert read_splits(path, [case.name for case in dataset.cases])


@REAL
def test_the_patients_of_lidc_are_known_and_a_random_split_is_what_it_was_without() -> None:
    dataset = open_dataset(Path(os.environ["FOCALIS_DATA"]) / "lidc_nodules")
    assert {case.name: case.patient for case in dataset.cases}["LIDC0002"] == "LIDC-IDRI-0002"
    by_patient = sorted(dataset.cases, key=lambda case: case.patient)
    assert [case.name for case in by_patient] == [case.name for case in dataset.cases]


@REAL
def test_masks_of_two_readers_alone_are_not_a_data_set() -> None:
    with pytest.raises(DataError, match="two_annotators_hn_masks: holds no data set; put images into"):
        open_dataset(Path(os.environ["FOCALIS_DATA"]) / "two_annotators_hn_masks")


@pytest.mark.parametrize("given", ["", "data/images", "masks"])
def test_beside_what_is_not_a_data_set_a_data_set_is_proposed(tmp_path, given):
    for folder in ("data/images", "data/labels", "masks"):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(DataError) as refused:
        open_dataset(tmp_path / given)
    assert str(refused.value).endswith(f"; did you mean {tmp_path / 'data'}?")


def test_no_other_data_set_is_proposed_for_a_folder_of_images(tmp_path):
    make(tmp_path, "other/images/b.nii.gz", "mine/scans/a.nii.gz", "mine/masks/a.nii.gz")
    with pytest.raises(DataError) as refused:
        open_dataset(tmp_path / "mine")
    assert "did you mean" not in str(refused.value)


def test_an_unreadable_folder_beside_what_is_not_a_data_set_is_passed_over(tmp_path, monkeypatch):
    for folder in ("a_private", "data/images", "masks"):
        (tmp_path / folder).mkdir(parents=True)
    is_dir = Path.is_dir

    def refuses(path):
        if path.parent.name == "a_private":
            raise PermissionError(13, "Permission denied", str(path))
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", refuses)
    with pytest.raises(DataError, match=f"did you mean {tmp_path / 'data'}"):
        open_dataset(tmp_path / "masks")
