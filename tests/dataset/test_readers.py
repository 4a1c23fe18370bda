"""Who contoured which case: by the names of the files in `raters/`."""

import shutil

import pytest

from focalis.dataset import PhantomSettings, ReaderWarning, find_readers, with_readers, write_phantoms
from focalis.errors import DataError

SETTINGS = PhantomSettings(shape_zyx=(12, 16, 20), foreground_share=0.01, readers=3)


@pytest.fixture
def data(tmp_path):
    return write_phantoms(tmp_path, 2, SETTINGS, 0)


def test_a_case_knows_its_readers_and_their_files(data):
    for case in with_readers(data).cases:
        assert list(case.readers) == ["r1", "r2", "r3"]
        assert case.readers["r2"] == data.root / "raters" / f"{case.name}_r2.nii.gz"
        assert set(case.readers.values()) <= set(case.files())


def test_a_missing_reader_is_normal(data):
    first, second = data.cases
    (data.root / "raters" / f"{first.name}_r2.nii.gz").unlink()
    for path in (data.root / "raters").glob(f"{second.name}_*"):
        path.unlink()
    assert [list(case.readers) for case in with_readers(data).cases] == [["r1", "r3"], []]
    shutil.rmtree(data.root / "raters")
    assert with_readers(data).cases == data.cases


def test_files_of_no_case_or_no_reader_are_named(data):
    folder = data.root / "raters"
    mask = folder / f"{data.cases[0].name}_r1.nii.gz"
    for name in ("another_r1.nii.gz", f"{data.cases[1].name}.nii.gz"):
        shutil.copy(mask, folder / name)
    found = find_readers(folder, {case.name for case in data.cases})
    assert [path.name for path in found.strangers] == ["another_r1.nii.gz", f"{data.cases[1].name}.nii.gz"]
    with pytest.warns(ReaderWarning, match=r"another_r1\.nii\.gz and 1 more: no reader's mask"):
        with_readers(data)
    assert sorted(found.of) == [case.name for case in data.cases]


def test_two_files_of_one_reader_are_refused(data):
    mask = data.root / "raters" / f"{data.cases[0].name}_r1.nii.gz"
    shutil.copy(mask, mask.with_name(f"{data.cases[0].name}_r1.nii"))
    with pytest.raises(DataError, match="keep one of the two"):
        with_readers(data)


@pytest.mark.parametrize("name", ["Raters", "readers", "rater"])
def test_the_folder_may_be_called_otherwise(data, name):
    (data.root / "raters").rename(data.root / name)
    assert all(list(case.readers) == ["r1", "r2", "r3"] for case in with_readers(data).cases)
