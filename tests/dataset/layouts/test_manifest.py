"""CSV manifests."""

from pathlib import Path

import pytest

from focalis.dataset import make_splits, open_dataset
from focalis.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the files that the manifests name; empty, listing a data set reads no image."""
    for name in ("a_t1", "a_t2", "b_t1", "b_t2", "a_core", "a_edge", "b_core", "b_edge"):
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / f"{name}.nii.gz").touch()
    return tmp_path


def manifest(root: Path, text: str, name: str = "manifest.csv", encoding: str = "utf-8") -> Path:
    (root / name).write_text(text.replace("@", "files/"), encoding=encoding)
    return root / name


def test_one_image_and_one_label_map(root: Path) -> None:
    path = manifest(root, "case,patient,image,label\nb,P,@b_t1.nii.gz,@b_core.nii.gz\na,P,@a_t1.nii.gz,\n")
    dataset = open_dataset(path)
    assert dataset == open_dataset(root)
    assert dataset.root == root
    assert dataset.channels == ("image",)
    assert dataset.labels == {}
    a, b = dataset.cases
    assert (a.name, a.patient, a.images, a.label) == ("a", "P", (root / "files/a_t1.nii.gz",), None)
    assert b.label == root / "files/b_core.nii.gz"


def test_channels_and_structures_in_the_order_of_the_columns(root: Path) -> None:
    text = "label_edge,image_T2,case,image_T1,label_core,age\n"
    text += "@a_edge.nii.gz,@a_t2.nii.gz,a,@a_t1.nii.gz,@a_core.nii.gz,63\n"
    dataset = open_dataset(manifest(root, text))
    assert dataset.channels == ("T2", "T1")
    assert dataset.labels == {1: "edge", 2: "core"}
    (case,) = dataset.cases
    assert [path.name for path in case.images] == ["a_t2.nii.gz", "a_t1.nii.gz"]
    assert case.label == (root / "files/a_edge.nii.gz", root / "files/a_core.nii.gz")
    assert case.patient == "a"


def test_a_single_named_structure_is_a_mask_and_absolute_paths_hold(root: Path, tmp_path: Path) -> None:
    text = f"case,image,label_core\na,{root}/files/a_t1.nii.gz,@a_core.nii.gz\n"
    (tmp_path / "elsewhere").mkdir()
    (case,) = open_dataset(manifest(root, text, "set.csv")).cases
    assert case.images == (root / "files/a_t1.nii.gz",)
    assert case.label == (root / "files/a_core.nii.gz",)


def test_patients_are_kept_together_and_an_empty_cell_is_a_patient(root: Path) -> None:
    rows = [f"c{number},{'P' if number < 3 else ''},@a_t1.nii.gz,@a_core.nii.gz" for number in range(6)]
    cases = open_dataset(manifest(root, "\n".join(["case,patient,image,label", *rows]))).cases
    assert [case.patient for case in cases] == ["P", "P", "P", "c3", "c4", "c5"]
    for split in make_splits(cases, 2, seed=0):
        assert len({"c0", "c1", "c2"} & set(split.val)) in (0, 3)


@pytest.mark.parametrize(("separator", "encoding"), [(";", "utf-8-sig"), ("\t", "utf-8"), (",", "utf-8-sig")])
def test_tables_as_spreadsheets_write_them(root: Path, separator: str, encoding: str) -> None:
    text = "case,image,label\r\n a ,@a_t1.nii.gz,@a_core.nii.gz\r\n,,\r\n\r\n".replace(",", separator)
    assert [case.name for case in open_dataset(manifest(root, text, encoding=encoding)).cases] == ["a"]


def test_a_4d_file_stands_in_the_column_of_each_channel(root: Path) -> None:
    text = "case,image_T1,image_T2,label\na,@a_t1.nii.gz,@a_t1.nii.gz,@a_core.nii.gz\n"
    (case,) = open_dataset(manifest(root, text)).cases
    assert case.images == (root / "files/a_t1.nii.gz",) * 2


HEAD = "case,image,label_core,label_edge\n"
GOOD = "a,@a_t1.nii.gz,@a_core.nii.gz,@a_edge.nii.gz\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "has no column image"),
        ("case,label\na,@a_core.nii.gz\n", "has no column image; add it, or image_NAME"),
        ("case,image\na,@a_t1.nii.gz\n", "has no column label"),
        ("image,label\n@a_t1.nii.gz,@a_core.nii.gz\n", "has no column case"),
        ("case,image,image_T1,label\n", "has columns image and image_T1"),
        ("case,image,label,label\n", "has the column label twice"),
        (HEAD, "has no row"),
        (HEAD + GOOD + GOOD, "names case a twice"),
        (HEAD + GOOD.replace("a,", ",", 1), "'' cannot be a case's name"),
        (HEAD + GOOD.replace("a,", "../a,", 1), "'../a' cannot be a case's name"),
        (HEAD + "a,,@a_core.nii.gz,@a_edge.nii.gz\n", "image of case a is empty"),
        (HEAD + "a,@a_t1.nii.gz,@a_core.nii.gz,\n", "label_edge of case a is empty; .* an empty mask"),
        (
            HEAD + GOOD.replace("a_edge", "none"),
            "label_edge of case a is files/none.nii.gz, which is not there",
        ),
        (
            HEAD + GOOD.replace("@a_t1.nii.gz", "@a_t1.png"),
            "image of case a is files/a_t1.png, no image file",
        ),
        (HEAD + GOOD.replace("\n", ",x\n"), "row 2 has more values than there are columns"),
    ],
)
def test_malformed_manifests(root: Path, text: str, complaint: str) -> None:
    with pytest.raises(DataError, match=rf"manifest\.csv: {complaint}") as caught:
        open_dataset(manifest(root, text))
    assert "\n" not in str(caught.value)


def test_another_encoding_is_refused(root: Path) -> None:
    (root / "manifest.csv").write_bytes("case,image,label\nä,x.nii,y.nii\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"manifest\.csv: is not a CSV file in UTF-8"):
        open_dataset(root)


@pytest.mark.parametrize(
    "header",
    [
        "Case,Patient,Image,Label",
        "case_id;PatientID;images;labels",
        " scan , subject_id , IMAGE , Mask ",
        "case name\tparticipant\timg\tsegmentation",
    ],
)
def test_usual_spellings_of_the_columns(root: Path, header: str) -> None:
    separator = next(mark for mark in ",;\t" if mark in header)
    row = separator.join(["a", "P", "@a_t1.nii.gz", "@a_core.nii.gz"])
    dataset = open_dataset(manifest(root, f"{header}\n{row}\n"))
    (case,) = dataset.cases
    assert (case.name, case.patient) == ("a", "P")
    assert (case.images, case.label) == ((root / "files/a_t1.nii.gz",), root / "files/a_core.nii.gz")
    assert dataset.notes == ()


def test_no_channel_or_structure_is_lost_by_its_spelling(root: Path) -> None:
    header = "case,patient,image_T1,Image T2,label_core,LABEL-edge"
    row = "a,P,@a_t1.nii.gz,@a_t2.nii.gz,@a_core.nii.gz,@a_edge.nii.gz"
    dataset = open_dataset(manifest(root, f"{header}\n{row}\n"))
    assert dataset.channels == ("T1", "T2")
    assert dataset.labels == {1: "core", 2: "edge"}


def test_a_mask_beside_a_label_is_something_else_and_is_reported(root: Path) -> None:
    row = "a,P,@a_t1.nii.gz,@a_core.nii.gz,@a_edge.nii.gz"
    dataset = open_dataset(manifest(root, f"case,patient,image,label,mask\n{row}\n"))
    assert dataset.cases[0].label == root / "files/a_core.nii.gz"
    assert [note.split(":")[1] for note in dataset.notes] == [
        " the column mask names image files and is passed over; rename it to image_mask or label_mask to use it"
    ]


def test_a_manifest_without_patients_is_reported(root: Path) -> None:
    dataset = open_dataset(manifest(root, "case,image,label\na,@a_t1.nii.gz,@a_core.nii.gz\n"))
    assert dataset.notes[0].startswith(
        "manifest.csv has no column patient (case, image, label): each case counts"
    )


def test_a_manifest_may_be_separated_by_tabs_and_called_so(root: Path) -> None:
    path = manifest(root, "case\timage\tlabel\na\t@a_t1.nii.gz\t@a_core.nii.gz\n", "set.tsv")
    assert [case.name for case in open_dataset(path).cases] == ["a"]


def test_a_column_says_which_structures_were_drawn_in_a_case(root: Path) -> None:
    text = "case,image,label_core,label_edge,drawn\n"
    text += "a,@a_t1.nii.gz,@a_core.nii.gz,@a_edge.nii.gz,\n"
    text += 'b,@b_t1.nii.gz,,@b_edge.nii.gz,edge\nc,@b_t2.nii.gz,@b_core.nii.gz,@b_edge.nii.gz,"edge; core"\n'
    a, b, c = open_dataset(manifest(root, text)).cases
    assert (a.drawn, b.drawn, c.drawn) == (None, {2}, {1, 2})
    assert b.label == (root / "files/b_edge.nii.gz",)
    assert b.drawn_of({1: "core", 2: "edge"}) == {2: "edge"}


def test_values_say_what_was_drawn_in_a_label_map(root: Path) -> None:
    text = "case;image;label;drawn\na;@a_t1.nii.gz;@a_core.nii.gz;2, 5\n"
    (case,) = open_dataset(manifest(root, text)).cases
    assert case.drawn == {2, 5}


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (
            "@a_core.nii.gz,@a_edge.nii.gz,core",
            "label_edge of case a names a mask, and drawn says that it was not",
        ),
        ("@a_core.nii.gz,,core;egde", "'egde' is not a label; those are core, edge; did you mean 'edge'"),
        ("@a_core.nii.gz,,", "label_edge of case a is empty.*left out of the column drawn"),
        ("@a_core.nii.gz,,background", "drawn of case a: no label was drawn"),
    ],
)
def test_what_was_drawn_must_fit_the_masks(root: Path, cells: str, said: str) -> None:
    path = manifest(root, f"case,image,label_core,label_edge,drawn\na,@a_t1.nii.gz,{cells}\n")
    with pytest.raises(DataError, match=said):
        open_dataset(path)


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (("k_01,L1", "k_02,L2", "k_03,L3"), ""),
        (("k_01,L2", "k_02,L3", "k_03,L1"), "3 of 3 rows name files of different cases (1: image is "),
        (("k_01,L1", "k_02,L3", "k_03,L2"), "2 of 3 rows name files of different cases (2: image is "),
        (("k_01,x7", "k_02,x8", "k_03,x2"), ""),
    ],
    ids=["in order", "a row too low", "two exchanged", "other names"],
)
def test_a_row_that_names_the_files_of_two_cases_is_reported(
    tmp_path: Path, cells: tuple[str, ...], said: str
) -> None:
    rows = [f"{number},{cell.replace(',', '.nii,')}.nii" for number, cell in enumerate(cells, start=1)]
    for row in rows:
        for name in row.split(",")[1:]:
            (tmp_path / name).touch()
    (tmp_path / "set.csv").write_text("\n".join(["case,image,label", *rows]))
    notes = [note for note in open_dataset(tmp_path / "set.csv").notes if "patient" not in note]
    assert (notes == []) if not said else (said in notes[0] and len(notes) == 1)
    assert all(note.endswith("or are the files numbered separately?") for note in notes)
