"""Files appear whole or not at all; one process at a time works in a folder."""

import errno
import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from focalis.errors import DataError, UsageError
from focalis.files import (
    ABANDONED_AFTER_S,
    KnownFiles,
    PermissionsWarning,
    is_free,
    only_process_in,
    restrict,
    whole_file,
    whole_folder,
    write_bytes,
    write_text,
)


def test_text_and_bytes_are_written_as_they_are_and_replace_what_was_there(tmp_path):
    write_text(tmp_path / "new" / "a.txt", "one\r\n")
    write_text(tmp_path / "new" / "a.txt", "zwei \N{LATIN SMALL LETTER U WITH DIAERESIS}\n")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"zwei \xc3\xbc\n"
    write_bytes(tmp_path / "b", b"\x00\xff")
    assert (tmp_path / "b").read_bytes() == b"\x00\xff"
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(("write", "content"), [(write_text, "a" * 51), (write_bytes, b"a" * 5000)])
def test_what_the_system_cuts_short_leaves_the_earlier_file(tmp_path, write, content):
    (tmp_path / "a").write_text("earlier")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, before[1]))
    try:  # no longer than this: pytest writes too
        with pytest.raises(DataError) as caught:
            write(tmp_path / "a", content)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(caught.value).endswith("/a: cannot be written (File too large); check folder and disk")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "earlier")]


def test_a_file_of_an_unfinished_folder_is_named_by_its_place(tmp_path, monkeypatch):
    def refused(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", refused)
    with pytest.raises(DataError) as caught, whole_folder(tmp_path / "out") as unfinished:
        write_text(unfinished / "masks" / "a.txt", "content")
    monkeypatch.undo()
    assert str(caught.value).startswith(
        f"{tmp_path / 'out' / 'masks' / 'a.txt'}: cannot be written (No space left"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EDQUOT, errno.ENOSPC, errno.ESTALE])
@pytest.mark.parametrize("where", ["open", "fsync"])
def test_what_the_system_refuses_is_named(tmp_path, monkeypatch, number, where):
    def refused(*_arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, where, refused)
    with pytest.raises(DataError) as caught:
        write_bytes(tmp_path / "a", b"content")
    monkeypatch.undo()
    assert str(caught.value).startswith(f"{tmp_path / 'a'}: cannot be written ({os.strerror(number)})")
    assert list(tmp_path.iterdir()) == []


def write_half(path):
    with whole_file(path) as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("half")
        raise KeyError


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.nii.gz", "old")
    with pytest.raises(KeyError):
        write_half(tmp_path / "a.nii.gz")
    assert (tmp_path / "a.nii.gz").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "taken" / "x").mkdir(parents=True)
    with pytest.raises(DataError, match=r"taken: cannot be written \(.*\); check folder and disk"):
        write_text(tmp_path / "taken", "text")
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match="cannot be written"):
        write_text(tmp_path / "a.txt" / "below", "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "taken"]


def fill(path, text, **options):
    with whole_folder(path, **options) as folder:
        (folder / "below").mkdir()
        (folder / "below" / "a.txt").write_text(text)
        return folder


def test_a_folder_appears_when_it_is_complete_and_replaces_an_earlier_one(tmp_path):
    with whole_folder(tmp_path / "new" / "set") as folder:
        (folder / "a.txt").write_text("a")
        assert not (tmp_path / "new" / "set").exists()
    assert (tmp_path / "new" / "set" / "a.txt").read_text() == "a"
    fill(tmp_path / "new" / "set", "b")
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "set", "below", "a.txt"]


def test_a_folder_that_cannot_be_completed_leaves_the_old_one_and_nothing_else(tmp_path):
    fill(tmp_path / "set", "old")
    with pytest.raises(TypeError):
        fill(tmp_path / "set", None)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert (tmp_path / "set" / "below" / "a.txt").read_text() == "old"


def test_a_file_in_the_place_of_a_folder_stays_and_is_named(tmp_path):
    (tmp_path / "set").write_text("a file")
    with pytest.raises(DataError, match=r"set: cannot be written \(.*\); check folder and disk"):
        fill(tmp_path / "set", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("set", "a file")]


def test_what_another_process_made_meanwhile_stays_if_it_is_good(tmp_path):
    fill(tmp_path / "set", "first")
    fill(tmp_path / "set", "second", keep=lambda path: (path / "below" / "a.txt").exists())
    assert (tmp_path / "set" / "below" / "a.txt").read_text() == "first"
    fill(tmp_path / "set", "third", keep=lambda _: False, within=tmp_path / "shop")
    assert (tmp_path / "set" / "below" / "a.txt").read_text() == "third"
    assert not list((tmp_path / "shop").iterdir())


def test_an_empty_folder_stays_the_same_folder(tmp_path):
    (tmp_path / "here").mkdir()
    number = (tmp_path / "here").stat().st_ino
    fill(tmp_path / "here", "text")
    assert (tmp_path / "here").stat().st_ino == number
    assert (tmp_path / "here" / "below" / "a.txt").read_text() == "text"


def test_what_a_killed_process_left_of_the_same_folder_goes_after_a_day(tmp_path):
    ages = {".unfinished-1.set": 2, ".unfinished-2.set": 0.5, ".unfinished-3.other": 2}
    for name, days in ages.items():
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - days * ABANDONED_AFTER_S,) * 2)
    fill(tmp_path / "set", "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".unfinished-2.set",
        ".unfinished-3.other",
        "set",
    ]


HOLD = """
import sys
from pathlib import Path
from focalis.files import only_process_in
with only_process_in(Path(sys.argv[1]), "fit"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_that_a_process_works_in_is_refused_until_it_dies(tmp_path):
    folder = tmp_path / "new" / "run"
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(UsageError, match=r"run: another fit is running in it; wait"),
            only_process_in(folder, "fit"),
        ):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with only_process_in(folder, "fit"):
        pass
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_held_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(DataError, match=r"cannot be written"),
        only_process_in(tmp_path / "file" / "run", "fit"),
    ):
        pass


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_of_a_file_follows_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == mode


def test_a_share_that_refuses_chmod_takes_files(tmp_path, monkeypatch):
    def refused(*_arguments, **_more):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refused)
    write_text(tmp_path / "a", "text")
    assert (tmp_path / "a").read_text() == "text"


def test_permissions_are_set(tmp_path):
    restrict(tmp_path, 0o750)
    assert tmp_path.stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EROFS])
def test_a_share_that_refuses_permissions_is_worth_a_warning(tmp_path, monkeypatch, number):
    def refused(*_arguments, **_more):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "chmod", refused)
    with pytest.warns(PermissionsWarning, match=rf"{tmp_path}: .* 700 \({os.strerror(number)}\)"):
        restrict(tmp_path, 0o700)


def test_permissions_of_what_is_missing_are_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        restrict(tmp_path / "missing", 0o700)


@pytest.fixture
def settled(tmp_path, monkeypatch):
    """A file that lies there for long, by the clock of the code."""
    path = tmp_path / "image.nii"
    path.write_bytes(b"one")
    monkeypatch.setattr(time, "time_ns", lambda: path.stat().st_ctime_ns + 10**10)
    return path


@pytest.fixture
def reads(monkeypatch):
    """The files that are read to be hashed."""
    seen = []
    real = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, kind: seen.append(file.name) or real(file, kind))
    return seen


def known(tmp_path, path):
    """The hash by a new run that shares the store of those before."""
    hashes = KnownFiles(tmp_path / "store.sqlite")
    found = hashes.sha256_of(path)
    hashes.save()
    return found


def test_a_file_is_read_once_for_its_hash_from_run_to_run(tmp_path, settled, reads):
    expected = hashlib.sha256(b"one").hexdigest()
    assert [known(tmp_path, settled) for _ in range(3)] == [expected] * 3
    assert len(reads) == 1


def test_a_file_of_the_same_size_and_time_is_noticed_by_its_inode_or_its_change_time(tmp_path, settled):
    before, stamp = known(tmp_path, settled), settled.stat()
    time.sleep(0.02)
    settled.write_bytes(b"two")
    os.utime(settled, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert settled.stat().st_mtime_ns == stamp.st_mtime_ns
    assert known(tmp_path, settled) == hashlib.sha256(b"two").hexdigest() != before
    (tmp_path / "other").write_bytes(b"six")
    os.utime(tmp_path / "other", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    (tmp_path / "other").rename(settled)
    assert known(tmp_path, settled) == hashlib.sha256(b"six").hexdigest()


def test_a_file_that_was_just_written_is_read_every_time(tmp_path, reads):
    path = tmp_path / "image.nii"
    path.write_bytes(b"one")
    assert known(tmp_path, path) == known(tmp_path, path)
    assert len(reads) == 2


@pytest.mark.parametrize("damage", ["cut", "edited", "other", "empty"])
def test_a_damaged_store_of_hashes_counts_for_nothing_and_is_made_again(tmp_path, settled, reads, damage):
    right = known(tmp_path, settled)
    store = tmp_path / "store.sqlite"
    content = store.read_bytes()
    assert right.encode() in content
    changed = {
        "cut": content[: len(content) // 2],
        "edited": content.replace(right.encode(), b"0" * 64),
        "other": b'{"a": 1}',
        "empty": b"",
    }
    store.write_bytes(changed[damage])
    assert [known(tmp_path, settled) for _ in range(2)] == [right] * 2
    assert len(reads) == 2


def test_stores_of_several_processes_are_added_up(tmp_path, settled, reads):
    (tmp_path / "second").write_bytes(b"two")
    one, other = (KnownFiles(tmp_path / "store.sqlite") for _ in range(2))
    one.sha256_of(settled)
    other.sha256_of(tmp_path / "second")
    for each in (one, other):
        each.save()
    reads.clear()
    third = KnownFiles(tmp_path / "store.sqlite")
    for path in (settled, tmp_path / "second"):
        third.sha256_of(path)
    assert reads == []


def test_to_verify_reads_all_files_again(tmp_path, settled, reads):
    known(tmp_path, settled)
    KnownFiles(tmp_path / "store.sqlite", verify=True).sha256_of(settled)
    assert len(reads) == 2


def test_a_store_that_cannot_be_written_costs_time_only(tmp_path, settled):
    (tmp_path / "file").write_text("")
    hashes = KnownFiles(tmp_path / "file" / "store.sqlite")
    assert hashes.sha256_of(settled) == hashlib.sha256(b"one").hexdigest()
    hashes.save()


@pytest.mark.parametrize(
    ("make", "free"),
    [
        (lambda _path: None, True),
        (lambda path: path.mkdir(), True),
        (lambda path: path.touch(), False),
        (lambda path: (path.mkdir(), (path / ".hidden").touch()), False),
    ],
)
def test_a_path_is_free_where_nothing_is_there_or_an_empty_folder(tmp_path, make, free):
    make(tmp_path / "out")
    assert is_free(tmp_path / "out") is free
