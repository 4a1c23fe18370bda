"""nnU-Net's raw folders and the Decathlon's."""

import json
from pathlib import Path
from typing import Any

import pytest

from focalis.dataset import open_dataset
from focalis.errors import DataError

V2 = {
    "channel_names": {"0": "T2", "1": "ADC"},
    "labels": {"background": 0, "edge": 1, "core": 2},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
V1 = {
    "name": "Prostate",
    "tensorImageSize": "4D",
    "modality": {"0": "T2", "1": "ADC"},
    "labels": {"0": "background", "1": "edge", "2": "core"},
    "numTraining": 2,
    "training": [
        {"image": "./imagesTr/p_00.nii.gz", "label": "./labelsTr/p_00.nii.gz"},
        {"image": "./imagesTr/p_04.nii.gz", "label": "./labelsTr/p_04.nii.gz"},
    ],
    "test": ["./imagesTs/p_05.nii.gz"],
}
NUMBERED = ["p_00_0000", "p_00_0001", "p_04_0000", "p_04_0001"]
WHOLE = ["p_00", "p_04"]


def layout(
    root: Path, description: dict[str, Any], images: list[str], labels: list[str], ending: str = ".nii.gz"
) -> Path:
    """Empty files: listing a data set reads no image."""
    for name, stems in (("imagesTr", images), ("labelsTr", labels), ("imagesTs", [])):
        (root / name).mkdir(exist_ok=True)
        for stem in stems:
            (root / name / f"{stem}{ending}").touch()
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def changed(description: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {name: value for name, value in (description | fields).items() if value is not None}


def test_version_2_with_numbered_channels(tmp_path: Path) -> None:
    dataset = open_dataset(layout(tmp_path, V2, NUMBERED, WHOLE))
    assert dataset.root == tmp_path
    assert dataset.channels == ("T2", "ADC")
    assert dataset.labels == {1: "edge", 2: "core"}
    assert dataset.ignore is None
    first, second = dataset.cases
    assert (first.name, first.patient, second.name) == ("p_00", "p_00", "p_04")
    images = tmp_path / "imagesTr"
    assert first.images == (images / "p_00_0000.nii.gz", images / "p_00_0001.nii.gz")
    assert first.label == tmp_path / "labelsTr/p_00.nii.gz"


@pytest.mark.parametrize("numbered", [NUMBERED, ["p_00_0000", "p_04_0000"]])
def test_folders_in_each_others_place_are_one_line(tmp_path: Path, numbered: list[str]) -> None:
    with pytest.raises(DataError, match="imagesTr/ and labelsTr/ stand in each other's place"):
        open_dataset(layout(tmp_path, V2, WHOLE, numbered))


def test_label_maps_that_all_bear_other_names_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="labelsTr: no label map is named like an image"):
        open_dataset(layout(tmp_path, V2, NUMBERED, [f"{name}_mask" for name in WHOLE]))


def test_the_decathlon_names_a_4d_file_once_per_channel(tmp_path: Path) -> None:
    dataset = open_dataset(layout(tmp_path, V1, [*WHOLE, "p_99"], [*WHOLE, "p_99"]))
    assert dataset.channels == ("T2", "ADC")
    assert dataset.labels == {1: "edge", 2: "core"}
    assert [case.name for case in dataset.cases] == ["p_00", "p_04"]  # what is listed, no more
    assert dataset.cases[1].images == (tmp_path / "imagesTr/p_04.nii.gz",) * 2


def test_version_1_of_nnunet_lists_names_without_numbers(tmp_path: Path) -> None:
    dataset = open_dataset(layout(tmp_path, V1, NUMBERED, WHOLE))
    assert [path.name for path in dataset.cases[0].images] == ["p_00_0000.nii.gz", "p_00_0001.nii.gz"]


def test_version_2_may_list_files_anywhere(tmp_path: Path) -> None:
    listed = {
        "left": {"images": ["imagesTr/a.nii.gz", "imagesTr/b.nii.gz"], "label": "labelsTr/x.nii.gz"},
        "both": {"images": ["imagesTr/c.nii.gz"], "label": "labelsTr/y.nii.gz"},
    }
    layout(tmp_path, changed(V2, dataset=listed), ["a", "b", "c"], ["x", "y"])
    both, left = open_dataset(tmp_path).cases
    assert [path.name for path in left.images] == ["a.nii.gz", "b.nii.gz"]
    assert [path.name for path in both.images] == ["c.nii.gz", "c.nii.gz"]
    assert left.label_files == (tmp_path / "labelsTr/x.nii.gz",)


def test_a_4d_file_without_a_list_and_names_that_end_in_four_digits(tmp_path: Path) -> None:
    dataset = open_dataset(layout(tmp_path, V2, ["case_0012", "case_0013"], ["case_0012", "case_0013"]))
    assert [case.name for case in dataset.cases] == ["case_0012", "case_0013"]
    assert len(dataset.cases[0].images) == 2


def test_ignored_value_and_repeated_channel_names(tmp_path: Path) -> None:
    labels = {"background": 0, "edge": 1, "core": 2, "ignore": 3}
    description = changed(V2, labels=labels, channel_names={"1": "noNorm", "0": "noNorm"})
    dataset = open_dataset(layout(tmp_path, description, NUMBERED, WHOLE))
    assert dataset.ignore == 3
    assert dataset.labels == {1: "edge", 2: "core"}
    assert dataset.channels == ("noNorm_0000", "noNorm_0001")


def test_the_file_ending_is_respected_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    description = changed(V2, file_ending=".nrrd")
    layout(tmp_path, description, NUMBERED, WHOLE, ".nrrd")
    layout(tmp_path, description, ["._p_00_0000", "q_0000"], ["._p_00"], ".nii.gz")
    layout(tmp_path, description, ["._p_00_0000"], ["._p_00"], ".nrrd")
    dataset = open_dataset(tmp_path)
    assert [case.images[0].name for case in dataset.cases] == ["p_00_0000.nrrd", "p_04_0000.nrrd"]


def test_hidden_files_that_are_listed_are_passed_over(tmp_path: Path) -> None:
    hidden = {"image": "./imagesTr/._p_00.nii.gz", "label": "./labelsTr/._p_00.nii.gz"}
    layout(tmp_path, changed(V1, training=[hidden, *V1["training"]]), WHOLE, WHOLE)
    assert len(open_dataset(tmp_path).cases) == 2


def test_image_without_label_and_label_without_image(tmp_path: Path) -> None:
    layout(tmp_path, changed(V2, numTraining=3), ["a_0000", "a_0001", "c_0000", "c_0001"], ["b", "c"])
    a, b, _ = open_dataset(tmp_path).cases
    assert a.label is None
    assert b.images == ()


def test_patients_from_a_table(tmp_path: Path) -> None:
    layout(tmp_path, V2, NUMBERED, WHOLE)
    (tmp_path / "cases.csv").write_text("case;patient\np_00;X\np_04;X\n")
    assert {case.patient for case in open_dataset(tmp_path).cases} == {"X"}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        (
            {"labels": {"background": 0, "left": [1, 2], "right": [2, 3]}},
            "the regions left and right overlap",
        ),
        ({"channel_names": None}, "names no channel"),
        ({"channel_names": {"1": "T2", "2": "ADC"}}, r"numbered from 0 without a gap, not \[1, 2\]"),
        ({"channel_names": {"x": "T2"}}, '"channel_names x .*" is wrong'),
        ({"channel_names": ["T2"]}, '"channel_names" is wrong'),
        ({"file_ending": ".png"}, r"files end in \.png; Focalis reads \.nii\.gz"),
        ({"numTraining": 260}, '"numTraining" is 260, but 2 cases are there'),
        ({"numTraining": "many"}, '"numTraining" is wrong'),
        ({"training": [{"image": "a.nii.gz"}]}, '"training 0 label" is wrong'),
        ({"dataset": {"a": {"images": ["x.nii.gz"] * 3, "label": "y.nii.gz"}}}, "3 images of case a, for 2"),
        ({"training": V1["training"][:1] * 2}, "names a case twice"),
        ({"training": [{"image": "a.nii.gz", "label": "a.txt"}]}, "lists a label that is not an image file"),
    ],
)
def test_malformed_descriptions(tmp_path: Path, fields: dict[str, Any], complaint: str) -> None:
    layout(tmp_path, changed(V2, **fields), NUMBERED, WHOLE)
    with pytest.raises(DataError, match=rf"dataset\.json: .*{complaint}") as caught:
        open_dataset(tmp_path)
    assert "\n" not in str(caught.value)


def test_listed_files_that_are_missing_are_named(tmp_path: Path) -> None:
    layout(tmp_path, V1, ["p_00"], ["p_04"])
    with pytest.raises(
        DataError, match=r"not there, labelsTr/p_00\.nii\.gz, imagesTr/p_04\.nii\.gz; complete the copy"
    ):
        open_dataset(tmp_path)
    layout(tmp_path, V1, ["p_00", "p_04_0001"], ["p_00"])
    with pytest.raises(DataError, match=r"not there, imagesTr/p_04_0000\.nii\.gz"):
        open_dataset(tmp_path)


def test_channels_that_are_missing_or_too_many(tmp_path: Path) -> None:
    layout(tmp_path, V2, NUMBERED[:3], WHOLE)
    with pytest.raises(
        DataError, match=r"p_04_0000\.nii\.gz: case p_04 has no channel 0001; every case needs 2"
    ):
        open_dataset(tmp_path)
    layout(tmp_path, V2, [*NUMBERED, "p_04_0002"], WHOLE)
    with pytest.raises(DataError, match=r"p_04_0002\.nii\.gz: is channel 0002, but dataset\.json names 2"):
        open_dataset(tmp_path)


def test_two_files_for_one_case(tmp_path: Path) -> None:
    layout(tmp_path, V2, [*NUMBERED, "p_00"], WHOLE)
    with pytest.raises(DataError, match=r"p_00\.nii\.gz: stands beside p_00_0000\.nii\.gz"):
        open_dataset(tmp_path)


def test_incomplete_folders(tmp_path: Path) -> None:
    (tmp_path / "imagesTr").mkdir()
    with pytest.raises(DataError, match=r"dataset\.json: is not there"):
        open_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps(changed(V2, numTraining=None)))
    with pytest.raises(DataError, match="labelsTr: is not a folder"):
        open_dataset(tmp_path)
    (tmp_path / "labelsTr").mkdir()
    with pytest.raises(DataError, match="holds no training case"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("description", [V1, V2])
def test_what_was_drawn_in_which_case(tmp_path: Path, description: dict[str, Any]) -> None:
    images = WHOLE if description is V1 else NUMBERED
    layout(tmp_path, description | {"drawn": {"p_04": ["core"]}}, images, WHOLE)
    assert [case.drawn for case in open_dataset(tmp_path).cases] == [None, {2}]
