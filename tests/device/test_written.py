"""Results are written once, whichever attempt makes them first."""

import pytest

from focalis.device.records import Header
from focalis.device.store import Store
from focalis.device.written import keep_results, making_folder
from focalis.files import sha256_of


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store") as store:
        store.keep(
            b"image", Header("1.2.1", "1.2.840.10008.5.1.4.1.1.2", "1.2", "1", "1.2.840.10008.1.2.1"), "CT1"
        )
        store.add_task("t", "1.2", "tiny", "a" * 64, "b" * 64)
        yield store


def attempt(store, content, maker="one"):
    folder = making_folder(store, "t", maker)
    (folder / "seg.dcm").write_text(content)
    made = {"kind": "seg", "file": "seg.dcm", "sop_uid": "1.3", "sha256": sha256_of(folder / "seg.dcm")}
    return folder.name, [made]


def test_what_is_moved_into_place_first_stays(store):
    slow, fast = attempt(store, "slow"), attempt(store, "fast", "two")
    assert slow[0] != fast[0]
    assert keep_results(store, "t", *fast)
    assert keep_results(store, "t", *slow)
    (result,) = store.results("t")
    assert result.path.read_text() == "fast"
    assert not list((store.folder / "making").iterdir())


def test_an_attempt_removes_what_the_earlier_one_of_its_process_left(store):
    attempt(store, "half")
    folder = making_folder(store, "t", "one")
    assert list((store.folder / "making").iterdir()) == [folder]
    assert not list(folder.iterdir())


def test_a_damaged_result_is_made_again(store):
    first = attempt(store, "first")
    assert keep_results(store, "t", *first)
    (result,) = store.results("t")
    result.path.unlink()
    assert keep_results(store, "t", *attempt(store, "first"))
    assert result.path.read_text() == "first"
