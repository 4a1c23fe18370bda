"""`get_data` from Python: whom it asks, where it looks, what it returns; nothing is downloaded here."""

from pathlib import Path

import pytest

from focalis.dataset.public import PUBLIC_SETS, PublicSet, public_set
from focalis.errors import UsageError
from focalis.workflows.data import DataCopy, get_data, list_data

HIPPOCAMPUS = public_set("Task04_Hippocampus")


@pytest.fixture(autouse=True)
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[PublicSet, Path]]:
    """What would have been downloaded, and whereto; the user's cache is a folder here."""
    calls: list[tuple[PublicSet, Path]] = []

    def fetch(public: PublicSet, folder: Path, _progress: object) -> Path:
        calls.append((public, folder))
        return folder / public.name

    monkeypatch.setattr("focalis.workflows.data.fetch", fetch)
    monkeypatch.setattr("focalis.workflows.data.default_folder", lambda: tmp_path / "cache")
    return calls


def copy_at(folder: Path) -> Path:
    (folder / "images").mkdir(parents=True)
    return folder


def test_it_downloads_into_the_folder_and_says_so(fetched, tmp_path: Path) -> None:
    result = get_data("Task04_Hippocampus", str(tmp_path / "data"))

    assert result == DataCopy(HIPPOCAMPUS, tmp_path / "data" / "Task04_Hippocampus", downloaded=True)
    assert fetched == [(HIPPOCAMPUS, tmp_path / "data")]


def test_a_set_that_is_passed_in_needs_no_name(fetched, tmp_path: Path) -> None:
    get_data(HIPPOCAMPUS, tmp_path)

    assert fetched == [(HIPPOCAMPUS, tmp_path)]


def test_the_places_in_their_order(fetched, tmp_path: Path) -> None:
    (tmp_path / "copies").mkdir()

    def place(**places: Path) -> Path:
        return get_data(HIPPOCAMPUS, **places).path

    in_cache = copy_at(tmp_path / "cache" / "Task04_Hippocampus")
    assert place(copies=tmp_path / "copies") == in_cache
    in_copies = copy_at(tmp_path / "copies" / "msd_hippocampus")
    assert place(copies=tmp_path / "copies") == in_copies
    in_folder = copy_at(tmp_path / "data" / "Task04_Hippocampus")
    assert place(copies=tmp_path / "copies", folder=tmp_path / "data") == in_folder
    assert fetched == []


def test_a_named_folder_takes_the_place_of_the_cache(fetched, tmp_path: Path) -> None:
    copy_at(tmp_path / "cache" / "Task04_Hippocampus")

    assert get_data(HIPPOCAMPUS, tmp_path / "data").downloaded
    assert fetched == [(HIPPOCAMPUS, tmp_path / "data")]


def test_agree_is_asked_before_a_download_and_can_stop_it(fetched, tmp_path: Path) -> None:
    asked: list[tuple[PublicSet, Path]] = []

    def refuse(public: PublicSet, target: Path) -> None:
        asked.append((public, target))
        raise UsageError("no")

    with pytest.raises(UsageError, match="no"):
        get_data(HIPPOCAMPUS, tmp_path, agree=refuse)

    assert asked == [(HIPPOCAMPUS, tmp_path / "Task04_Hippocampus")]
    assert fetched == []


def test_agree_is_not_asked_for_a_copy_that_is_there(tmp_path: Path) -> None:
    def refuse(_public: PublicSet, _target: Path) -> None:
        raise UsageError("no")

    path = copy_at(tmp_path / "Task04_Hippocampus")

    assert get_data(HIPPOCAMPUS, tmp_path, agree=refuse) == DataCopy(HIPPOCAMPUS, path, downloaded=False)


def test_the_list_is_the_registry_with_the_copies(tmp_path: Path) -> None:
    path = copy_at(tmp_path / "copies" / "msd_lung")

    rows = list_data(tmp_path / "copies")

    assert [row.public for row in rows] == list(PUBLIC_SETS)
    assert {row.public.name: row.path for row in rows if row.path is not None} == {"Task06_Lung": path}


def test_copies_that_are_not_a_folder_are_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        get_data(HIPPOCAMPUS, copies=tmp_path / "nowhere")
