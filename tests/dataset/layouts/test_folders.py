"""images/ and labels/."""

import json
from pathlib import Path

import pytest

from focalis.dataset import open_dataset
from focalis.errors import DataError


def folder(root: Path, images: list[str], labels: list[str], suffix: str = ".nii.gz") -> Path:
    """Empty files: listing a data set reads no image."""
    for name, stems in (("images", images), ("labels", labels)):
        (root / name).mkdir(exist_ok=True)
        for stem in stems:
            (root / name / f"{stem}{suffix}").touch()
    return root


def test_one_image_per_case(tmp_path: Path) -> None:
    dataset = open_dataset(folder(tmp_path, ["b", "a", "c_1"], ["c_1", "a", "b"]))
    assert [case.name for case in dataset.cases] == ["a", "b", "c_1"]
    assert dataset.channels == ("image",)
    assert dataset.labels == {}
    first = dataset.cases[0]
    assert first.images == (tmp_path / "images/a.nii.gz",)
    assert first.label == tmp_path / "labels/a.nii.gz"
    assert first.patient == "a"
    assert [case.name for case in dataset.select(["c_1", "a"])] == ["c_1", "a"]


def test_several_channels_in_sorted_order(tmp_path: Path) -> None:
    dataset = open_dataset(folder(tmp_path, ["p_1_T1", "p_1_FLAIR", "p_2_FLAIR", "p_2_T1"], ["p_1", "p_2"]))
    assert dataset.channels == ("FLAIR", "T1")
    assert [path.name for path in dataset.cases[1].images] == ["p_2_FLAIR.nii.gz", "p_2_T1.nii.gz"]


def test_a_case_name_that_begins_another(tmp_path: Path) -> None:
    plain = open_dataset(folder(tmp_path, ["a", "a_b"], ["a", "a_b"]))
    assert [(case.name, case.images[0].name) for case in plain.cases] == [
        ("a", "a.nii.gz"),
        ("a_b", "a_b.nii.gz"),
    ]


def test_folders_in_each_others_place_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="images/ and labels/ stand in each other's place"):
        open_dataset(folder(tmp_path, ["a", "b"], ["a_0000", "a_0001", "b_0000"]))
    (tmp_path / "other").mkdir()
    open_dataset(folder(tmp_path / "other", ["a", "a_0001"], ["a", "a_0001"]))


@pytest.mark.parametrize("images", [["a", "b"], ["a_FLAIR", "a_T1", "b_FLAIR", "b_T1"]])
@pytest.mark.parametrize("labels", [["a_mask", "b_mask"], ["seg_a", "seg_b"]])
def test_label_maps_that_all_bear_other_names_are_one_line(tmp_path: Path, images, labels) -> None:
    with pytest.raises(DataError) as refused:
        open_dataset(folder(tmp_path, images, labels))
    said = str(refused.value)
    assert said.startswith(f"{tmp_path / 'labels'}: no label map is named like an image")
    assert f"{labels[0]}.nii.gz" in said
    assert f"{images[0]}.nii.gz" in said
    assert "manifest.csv" in said


def test_no_label_map_at_all_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="labels: holds no label map; put CASE"):
        open_dataset(folder(tmp_path, ["a", "b"], []))


def test_the_longest_case_name_takes_a_channel(tmp_path: Path) -> None:
    dataset = open_dataset(folder(tmp_path, ["a_T1", "a_b_T1"], ["a", "a_b"]))
    assert [(case.name, case.images[0].name) for case in dataset.cases] == [
        ("a", "a_T1.nii.gz"),
        ("a_b", "a_b_T1.nii.gz"),
    ]
    assert dataset.channels == ("T1",)


def test_an_unlabelled_image_beside_a_case_of_similar_name(tmp_path: Path) -> None:
    dataset = open_dataset(folder(tmp_path, ["a", "a_b"], ["a"]))
    assert [(case.name, case.label is None) for case in dataset.cases] == [("a", False), ("a_b", True)]


def test_image_without_label_and_label_without_image(tmp_path: Path) -> None:
    dataset = open_dataset(folder(tmp_path, ["a_T1", "a_T2", "b_T2", "b_T1"], ["a", "c"]))
    a, b, c = dataset.cases
    assert a.label is not None
    assert b.label is None
    assert [path.name for path in b.images] == ["b_T1.nii.gz", "b_T2.nii.gz"]
    assert c.images == ()
    assert c.label == tmp_path / "labels/c.nii.gz"


def test_a_missing_channel_is_named(tmp_path: Path) -> None:
    folder(tmp_path, ["a_T1", "a_T2", "b_T1"], ["a", "b"])
    with pytest.raises(DataError, match=r"images: case b has no channel T2; .* T1, T2"):
        open_dataset(tmp_path)


def test_readers_hidden_files_and_other_files_are_passed_over(tmp_path: Path) -> None:
    folder(tmp_path, ["a", ".a.nii.gz.123"], ["a", ".b"])
    folder(tmp_path, ["a"], ["notes"], suffix=".txt")
    (tmp_path / "raters").mkdir()
    (tmp_path / "raters" / "a_r1.nii.gz").touch()
    assert [case.name for case in open_dataset(tmp_path).cases] == ["a"]


def test_two_files_for_one_place(tmp_path: Path) -> None:
    folder(tmp_path, ["a"], ["a"])
    folder(tmp_path, ["a"], [], suffix=".nii")
    with pytest.raises(DataError, match=r"a\.nii\.gz: stands beside a\.nii"):
        open_dataset(tmp_path)


def test_label_names(tmp_path: Path) -> None:
    folder(tmp_path, ["a"], ["a"])
    names = {"labels": {"edge": 2, "background": 0, "core": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(names))
    assert open_dataset(tmp_path).labels == {1: "core", 2: "edge"}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "not readable JSON"),
        ("[]", "must be an object"),
        ('{"labels": []}', "must map names"),
        ('{"labels": {"0": "background", "x": "lesion"}}', "must map names"),
        ('{"labels": {"0": "background", "1": "lesion", "2": "lesion"}}', "each name once"),
        ('{"labels": {"lesion": 1.5}}', "must map names"),
        ('{"labels": {"lesion": -1}}', "must map names"),
        ('{"labels": {"background": 1, "lesion": 2}}', "must be 0"),
        ('{"labels": {"ignore": 0, "lesion": 1}}', "must be 0"),
        (
            '{"labels": {"whole": [1, 2], "other": [2, 3]}}',
            "whole and other overlap, and neither holds the other",
        ),
        ('{"labels": {"left": [1], "right": [2]}}', "left and right overlap, and neither"),
        (
            '{"labels": {"whole": [1, 2, 3], "core": 3}}',
            "the values 1, 2 lie in region whole and in no inner one",
        ),
        ('{"labels": {"whole": [1, 2], "all": [1, 2]}}', "no value lies in region"),
        ('{"labels": {"whole": [0, 1]}}', "regions hold the background"),
        ('{"labels": {"whole": [1, 4], "core": 4, "ignore": 4}}', "hold the background or the ignored value"),
        ('{"labels": {"whole": [1, "2"]}}', "region whole must list whole numbers"),
        (
            '{"labels": {"whole": [1, 2], "core": 2}, "regions_class_order": [2, 1]}',
            "it must be .1, 2., the value",
        ),
        ('{"labels": {"whole": [1, 2], "core": 2}, "drawn": {"a": ["core"]}}', "not with regions"),
        ('{"labels": {"lesion": true}}', "must map names"),
        ('{"labels": {"a": 1, "b": 1}}', "share a value"),
    ],
)
def test_malformed_label_names(tmp_path: Path, content: str, complaint: str) -> None:
    folder(tmp_path, ["a"], ["a"])
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DataError, match=rf"dataset\.json: .*{complaint}"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    "content", [{"0": "background", "1": "core", "2": "edge"}, {"1": "core", "2": "edge"}]
)
def test_label_names_the_other_way_round(tmp_path: Path, content: dict[str, str]) -> None:
    folder(tmp_path, ["a"], ["a"])
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": content}))
    assert open_dataset(tmp_path).labels == {1: "core", 2: "edge"}


def test_an_ignored_value(tmp_path: Path) -> None:
    folder(tmp_path, ["a"], ["a"])
    names = {"labels": {"background": 0, "lesion": 1, "ignore": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps(names))
    dataset = open_dataset(tmp_path)
    assert (dict(dataset.labels), dataset.ignore) == ({1: "lesion"}, 2)
    (tmp_path / "dataset.json").unlink()
    assert open_dataset(tmp_path).ignore is None


def test_every_format_may_stand_in_a_folder(tmp_path: Path) -> None:
    for stem, suffix in (("a", ".nii"), ("b", ".nrrd"), ("c", ".nhdr"), ("d", ".mha"), ("e", ".mhd")):
        folder(tmp_path, [stem], [stem], suffix)
    for data in ("c.raw.gz", "e.zraw"):
        (tmp_path / "images" / data).touch()
    dataset = open_dataset(tmp_path)
    assert [case.images[0].suffix for case in dataset.cases] == [".nii", ".nrrd", ".nhdr", ".mha", ".mhd"]


def test_patients_from_a_table(tmp_path: Path) -> None:
    folder(tmp_path, ["a", "b", "c"], ["a", "b", "c"])
    (tmp_path / "cases.csv").write_text("case,patient\na,P1\nb,P1\nc,\n")
    assert [case.patient for case in open_dataset(tmp_path).cases] == ["P1", "P1", "c"]


def test_a_folder_that_is_missing_or_empty(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="labels: is not a folder"):
        open_dataset(tmp_path)
    (tmp_path / "labels").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("name", ["a.seg.nrrd", "a.SEG.nrrd", "a.seg.nhdr"])
def test_a_segmentation_of_slicer_belongs_to_the_image_beside_it(tmp_path: Path, name: str) -> None:
    root = folder(tmp_path, ["a"], [], ".nrrd")
    (root / "labels" / name).touch()
    assert [(case.name, case.label) for case in open_dataset(root).cases] == [("a", root / "labels" / name)]


def test_what_was_drawn_in_which_case(tmp_path: Path) -> None:
    folder(tmp_path, ["a", "b"], ["a", "b"])
    said = {"Labels": {"background": 0, "edge": 2, "core": 5}, "Drawn": {"b": ["core"]}}
    (tmp_path / "dataset.json").write_text(json.dumps(said))
    assert [case.drawn for case in open_dataset(tmp_path).cases] == [None, {5}]


@pytest.mark.parametrize(
    ("drawn", "complaint"),
    [
        ({"bb": ["core"]}, "names case bb, which is not there; did you mean 'b'"),
        ({"b": ["coer"]}, "'coer' is not a label; those are edge, core; did you mean 'core'"),
        ({"b": [3]}, "3 is not a label"),
        ({"b": [True]}, "True is not a label"),
        ({"b": []}, "no label was drawn"),
        ({"b": "core"}, '"drawn" must map cases to the labels'),
        (["b"], '"drawn" must map cases to the labels'),
    ],
)
def test_what_was_drawn_must_be_cases_and_labels(tmp_path: Path, drawn: object, complaint: str) -> None:
    folder(tmp_path, ["a", "b"], ["a", "b"])
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"edge": 2, "core": 5}, "drawn": drawn}))
    with pytest.raises(DataError, match=complaint):
        open_dataset(tmp_path)


def test_nested_regions_are_labels_between_them(tmp_path: Path) -> None:
    """In the order of BraTS: the enhancing tumour is 4, the necrosis 1, the oedema 2."""
    folder(tmp_path, ["a"], ["a"])
    labels = {"background": 0, "core": [1, 4], "whole": [1, 2, 4], "enhancing": 4, "ignore": 5}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels, "regions_class_order": [1, 2, 4]}))
    data = open_dataset(tmp_path)
    assert data.labels == {1: "core without enhancing", 2: "whole without core", 4: "enhancing"}
    assert list(data.regions.items()) == [("whole", (1, 2, 4)), ("core", (1, 4)), ("enhancing", (4,))]
    assert data.ignore == 5
