"""Results are written once: made in a folder of their own, moved into their place whole, then named in the store."""

from __future__ import annotations

import errno
import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from focalis.device.records import ResultKind, ResultObject
from focalis.device.store import Store
from focalis.display import counted
from focalis.errors import DataError
from focalis.files import flush, sha256_of, write_text

MANIFEST = "results.json"
BESIDE = "beside.json"
"""How the findings of a model on trial compare with those of the current one, see `focalis.device.trial`."""
FIGURES = "figures.json"
"""Where the figures of the images lie in the model's usual ranges, see `focalis.workflows.scope.scope_positions`."""
FOLLOW_UP = "followup.json"
"""What became of the lesions of an earlier study, see `focalis.device.following`; only where there is one."""


def making_folder(store: Store, task_id: str, maker: str) -> Path:
    """An empty folder in which a process makes the results of a task; what its earlier attempt left there goes.

    Args:
        maker: the name of the process, so that no two share a folder.

    Raises:
        DataError: it cannot be made.
    """
    folder = store.folder / "making" / f"{task_id} {maker}"
    with DataError.of_system(folder, "check the disk", "cannot be made"):
        clear_making(store, folder.name)
        folder.mkdir(parents=True)
    return folder


def clear_making(store: Store, start: str) -> None:
    """Remove what attempts have left, in the folders whose names start so: with a task, or with task and process."""
    for folder in (store.folder / "making").glob(f"{start}*"):
        shutil.rmtree(folder, ignore_errors=True)


def keep_results(store: Store, task_id: str, making: str, made: list[dict[str, Any]]) -> bool:
    """Move the results of a task into their place and add their rows; a repetition finishes what was begun.

    The move of the whole folder is the one moment at which the task has results. What was moved first counts, whichever
    process did it: results that were made again are removed.

    Args:
        making: the name of the folder in which they were made.
        made: kind, file, sop_uid and sha256 of each result, as `focalis.device.results.Made`.

    Returns:
        False if what was made is not there as it was made, because power was cut before the disk had it, or another
        machine made it; then nothing is kept, and it has to be made again.

    Raises:
        DataError: the disk is full or fails.
    """
    source, place = store.folder / "making" / making, store.results_folder(task_id)
    if store.in_bucket:
        return _keep_in_bucket(store, task_id, source, made)
    with DataError.of_system(place, "check the disk", "cannot be written"):
        if not has_results(store, task_id):
            if not made or not all(_is_whole(source / each["file"], each["sha256"]) for each in made):
                return False
            write_text(source / MANIFEST, json.dumps(made))
            for file in source.iterdir():
                flush(file)
            flush(source)
            _move(source, place, lambda: has_results(store, task_id))
            flush(place.parent)
        clear_making(store, task_id)
        written = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
    for each in written:
        store.add_result(task_id, each["kind"], each["sop_uid"], each["sha256"], place / each["file"])
    return True


def _keep_in_bucket(store: Store, task_id: str, source: Path, made: list[dict[str, Any]]) -> bool:
    if not has_results(store, task_id):
        with DataError.of_system(source, "check the disk"):
            if not made or not all(_is_whole(source / each["file"], each["sha256"]) for each in made):
                return False
            write_text(source / MANIFEST, json.dumps(made))
            notes = [("note", path.name, path) for path in source.glob("*.json")]
        results = [(each["kind"], each["sop_uid"], source / each["file"]) for each in made]
        store.keep_results(task_id, [*results, *notes])
    clear_making(store, task_id)
    return True


@contextmanager
def folder_for_more(store: Store, task_id: str) -> Iterator[Path]:
    """A folder in which more results of a task are made, for `keep_more`."""
    if not store.in_bucket:
        yield store.results_folder(task_id)
        return
    folder = making_folder(store, task_id, f"more {secrets.token_hex(4)}")
    try:
        yield folder
    finally:
        clear_making(store, folder.name)


def keep_more(store: Store, task_id: str, folder: Path, made: list[dict[str, Any]]) -> None:
    """Keep more results of a task, as `keep_results` is told them.

    Raises:
        DataError: they cannot be written, or are there already with other content.
    """
    if store.in_bucket:
        _keep_new(store, task_id, [(each["kind"], each["sop_uid"], folder / each["file"]) for each in made])
        return
    for each in made:
        store.add_result(task_id, each["kind"], each["sop_uid"], each["sha256"], folder / each["file"])


def keep_note(store: Store, task_id: str, name: str, text: str) -> None:
    """Keep a text beside the results of a task.

    Raises:
        DataError: it cannot be written.
    """
    with folder_for_more(store, task_id) as folder:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / name, text)
        if store.in_bucket:
            _keep_new(store, task_id, [("note", name, folder / name)])


def _keep_new(store: Store, task_id: str, made: list[tuple[str, str, Path]]) -> None:
    if not store.keep_results(task_id, made):
        raise DataError.at(made[0][2].name, "was kept before with other content", "load the page again")


def pointed_files(store: Store, task_id: str) -> list[Path]:
    """The lesions that persons pointed at on the page, in their order; each as `focalis.device.web.pointing` writes."""
    if store.in_bucket:
        notes = store.notes(task_id)
        names = (f"pointed-{number}.json" for number in range(1, 1 + len(notes)))
        return store.at_hand(notes[name] for name in names if name in notes)
    folder = store.results_folder(task_id)
    return [
        folder / f"pointed-{number}.json" for number in range(1, 1 + len(list(folder.glob("pointed-*.json"))))
    ]


def has_results(store: Store, task_id: str) -> bool:
    """Whether the results of a task are in their place, all of them."""
    if store.in_bucket:
        return MANIFEST in store.notes(task_id)
    place = store.results_folder(task_id)
    if not (place / MANIFEST).is_file():
        return False
    written = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
    return all((place / each["file"]).is_file() for each in written)


def follow_up_of(store: Store, task_id: str) -> dict[str, Any] | None:
    """The content of a task's follow-up; None if there is none."""
    return note_of(store, task_id, FOLLOW_UP)


def note_of(store: Store, task_id: str, name: str) -> dict[str, Any] | None:
    """What stands beside the results of a task as `FOLLOW_UP`, `BESIDE` or `FIGURES`; None if it is not there."""
    found: dict[str, Any] | None = _note(store, task_id, name)
    return found


def lesions_found(store: Store, task_id: str) -> int | None:
    """How many lesions a task has found; None while there is no result, or one that does not say."""
    written = _note(store, task_id, MANIFEST) or []
    return next((int(each["lesions"]) for each in written if "lesions" in each), None)


def what_was_found(store: Store, task_id: str) -> str:
    """The result of a task in a few words, for the work list; empty while there is none."""
    lesions = lesions_found(store, task_id)
    if lesions is None:
        return ""
    return counted(lesions, "lesion") if lesions else "nothing found"


def earlier_results(store: Store, task_id: str) -> dict[ResultKind, ResultObject]:
    """What the results of a task replace, by kind: the results of the newest task before it that has any."""
    task = store.task(task_id)
    while task is not None and task.supersedes is not None:
        found = {
            result.kind: result
            for result in store.results(task.supersedes)
            if not result.kind.startswith("correction")
        }
        if found:
            return found
        task = store.task(task.supersedes)
    return {}


def _note(store: Store, task_id: str, name: str) -> Any:
    """The content of a JSON file beside the results of a task; None if there is none."""
    path = store.results_folder(task_id) / name
    if store.in_bucket:
        note = store.notes(task_id).get(name)
        if note is None:
            return None
        (path,) = store.at_hand([note])
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return None


def _move(source: Path, place: Path, is_whole: Callable[[], bool]) -> None:
    """Rename a folder, unless another process was faster; a damaged one in the way is moved aside."""
    try:
        source.rename(place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not is_whole():
            place.rename(source.with_name(f"{source.name}-damaged"))
            source.rename(place)


def _is_whole(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256
