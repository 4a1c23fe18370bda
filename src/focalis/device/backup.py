"""Back up a store to one file while the device works, and restore it."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path

from focalis.device.store import Store
from focalis.errors import DataError, UsageError
from focalis.files import restrict, sha256_of, whole_file

_DATABASE = "store.sqlite"


def back_up(folder: Path, path: Path, database: str | None = None) -> int:
    """Write everything that a store holds into a tar file that only its owner may read; the device may work meanwhile.

    First the rows are copied, in one moment, then the files that they name; files are written once and never changed,
    so that the two fit. The state of running jobs is not in it: it follows from the rows.

    Args:
        database: the PostgreSQL database of the rows, if they are in one; the backup has them in a file.

    Returns:
        How many files of the store it holds.

    Raises:
        UsageError: there is no store, or the file would lie in it.
        DataError: the file cannot be written, or a file was removed meanwhile: begin again.
    """
    if database is None and not (folder / _DATABASE).is_file():
        raise UsageError.at(folder, "holds no store", "give the folder of the device")
    if path.absolute().is_relative_to(folder.absolute()):
        raise UsageError.at(path, "lies in the store", "write the backup elsewhere")
    with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=".focalis-backup-") as beside:
        copy = Path(beside) / _DATABASE
        with Store(folder, database) as store:
            store.backup_database(copy)
        with Store(Path(beside)) as rows:
            named = [found.relative_to(rows.folder) for found in _named_files(rows)]
            tasks = [task.task_id for task in rows.tasks()]
        # what stands beside results: their list, comparisons, lesions that persons pointed at
        beside_results = (
            path for task in tasks for path in sorted((folder / "results" / task).glob("*.json"))
        )
        named += [path.relative_to(folder) for path in beside_results]
        with whole_file(path) as temporary, tarfile.open(temporary, "w") as archive:
            archive.add(copy, _DATABASE)
            for name in named:
                try:
                    archive.add(folder / name, name.as_posix())
                except FileNotFoundError as error:
                    raise DataError.at(
                        folder / name, "was removed during the backup", "begin it again"
                    ) from error
        restrict(path, 0o600)  # it holds patients' images, as the store does, which is closed to others
    return len(named)


def restore(path: Path, folder: Path, database: str | None = None) -> int:
    """Make a store from a backup, and check every file of it against its hash.

    Args:
        database: the PostgreSQL database that the rows go into; by default they stay in a file.

    Returns:
        How many files were restored.

    Raises:
        UsageError: there is a store already, or a device works with it.
        DataError: the backup is damaged, or cannot be read or written; nothing that is usable stays.
    """
    if database or (folder / _DATABASE).exists():
        with Store(folder, database) as target:
            _require_empty(target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".restoring-") as beside:
            with tarfile.open(path) as archive:
                count = len(archive.getmembers()) - 1  # not counting the database
                archive.extractall(beside, filter="data")
            with Store(Path(beside)) as store:
                _check(store, path)
            (Path(beside) / "models").mkdir(exist_ok=True)
            with Store(Path(beside)) as rows, Store(folder, database) as target:
                target.claim()
                _require_empty(target)  # a device may have worked here meanwhile
                rows.copy_rows(target, lambda: _move_files(Path(beside), folder))
    except (tarfile.TarError, EOFError) as error:
        raise DataError.at(path, f"is not a backup, or is damaged ({error})", "take another one") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError.at(path, f"cannot be restored to {folder} ({reason})", "check both") from error
    return count


def _require_empty(store: Store) -> None:
    if not store.is_empty():
        raise UsageError.at(store.folder, "holds a store already", "restore into another folder")


def _move_files(source: Path, folder: Path) -> None:
    for part in ("objects", "quarantine", "results", "models"):
        target = folder / part
        if target.is_dir():
            target.rmdir()
        (source / part).replace(target)


def _named_files(store: Store) -> list[Path]:
    """The files that the rows name."""
    found = [instance.path for row in store.series() for instance in store.instances(row.series_uid)]
    found += [each.path for each in store.quarantined()]
    found += [result.path for task in store.tasks() for result in store.results(task.task_id)]
    found += [store.model_path(each.name) for each in store.retrainings() if each.sha256]
    return found


def _check(store: Store, backup: Path) -> None:
    wanted = {path: path.stem for path in _named_files(store)}
    for task in store.tasks():
        wanted.update({result.path: result.sha256 for result in store.results(task.task_id)})
    wanted.update({store.model_path(each.name): each.sha256 for each in store.retrainings() if each.sha256})
    for path, sha256 in wanted.items():
        if not path.is_file():
            raise DataError.at(backup, f"lacks {path.relative_to(store.folder)}", "take another backup")
        if sha256_of(path) != sha256:
            raise DataError.at(backup, f"{path.relative_to(store.folder)} is damaged", "take another backup")
