"""Unpacking: what a good archive becomes, and what no archive can do."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from focalis.dataset.public.unpack import unpack
from focalis.errors import DataError

FILES = {"set/dataset.json": b"{}", "set/imagesTr/a.nii.gz": bytes(5000)}
Entry = tuple[tarfile.TarInfo, bytes]


def silent(*_arguments: object) -> None:
    """A progress, or a reservation, that does nothing."""


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> Entry:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, link
    return info, content


def tar(path: Path, entries: Iterable[Entry], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return path


def good_tar(path: Path, mode: str = "w") -> Path:
    return tar(path, [entry(name, content) for name, content in FILES.items()], mode)


def good_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("set")
        for name, content in FILES.items():
            archive.writestr(name, content)
    return path


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "room").mkdir()
    return tmp_path / "room" / "unpacked"


def refused(archive: Path, target: Path, reason: str) -> None:
    """Unpacking is refused for that reason, in one line, and nothing is left anywhere."""
    before = set(target.parent.parent.rglob("*"))

    with pytest.raises(DataError, match=reason) as failed:
        unpack(archive, target, silent, silent)

    assert str(failed.value).startswith(f"{archive}: ")
    assert "\n" not in str(failed.value)
    assert set(target.parent.parent.rglob("*")) == before


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:gz")])
def test_a_tar_archive(tmp_path: Path, target: Path, name: str, mode: str) -> None:
    unpack(good_tar(tmp_path / name, mode), target, silent, silent)

    assert files_below(target) == FILES


def test_a_zip_archive(tmp_path: Path, target: Path) -> None:
    unpack(good_zip(tmp_path / "a.zip"), target, silent, silent)

    assert files_below(target) == FILES


def test_size_is_reserved_first_and_progress_is_reported(tmp_path: Path, target: Path) -> None:
    told: list[object] = []

    unpack(good_tar(tmp_path / "a.tar"), target, told.append, lambda *what: told.append(what))

    assert told == [5002, ("unpack", 2, 5002), ("unpack", 5002, 5002)]


def test_what_the_reservation_raises_stops_it(tmp_path: Path, target: Path) -> None:
    def refuse(_size: int) -> None:
        raise OSError(28, "full")

    with pytest.raises(OSError, match="full"):
        unpack(good_tar(tmp_path / "a.tar"), target, refuse, silent)

    assert not target.exists()


def test_an_interruption_leaves_no_half_folder(tmp_path: Path, target: Path) -> None:
    def interrupt(*_what: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(good_tar(tmp_path / "a.tar"), target, silent, interrupt)

    assert not target.exists()


def test_a_leftover_of_a_crash_is_replaced(tmp_path: Path, target: Path) -> None:
    target.mkdir()
    (target / "half.nii.gz").write_bytes(b"half")

    unpack(good_tar(tmp_path / "a.tar"), target, silent, silent)

    assert files_below(target) == FILES


def test_what_macos_adds_is_passed_over(tmp_path: Path, target: Path) -> None:
    names = ("set/._dataset.json", "set/imagesTr/._a.nii.gz", "set/.DS_Store", "__MACOSX/set/a", "./._set")
    added = [entry(name, b"litter") for name in names]
    good = [entry(f"./{name}", content) for name, content in FILES.items()]

    unpack(tar(tmp_path / "a.tar", [*added, *good]), target, silent, silent)

    assert files_below(target) == FILES


def test_modes_and_owners_are_not_taken(tmp_path: Path, target: Path) -> None:
    info, content = entry("set/run.sh", b"#!/bin/sh\n")
    info.mode, info.uid = 0o6777, 4711

    unpack(tar(tmp_path / "a.tar", [(info, content)]), target, silent, silent)

    written = (target / "set" / "run.sh").stat()
    assert not written.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR)
    assert written.st_uid != 4711


OUTSIDE = (
    "../evil",
    "set/../../evil",
    "/evil",
    "C:\\evil",
    "C:evil",
    "..\\evil",
    "\\evil",
    "//host/share/evil",
)


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_tar_member_that_leads_outside(tmp_path: Path, target: Path, name: str) -> None:
    archive = tar(tmp_path / "a.tar", [entry("set/dataset.json", b"{}"), entry(name, b"evil")])

    refused(archive, target, "leads out of its folder")


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_zip_member_that_leads_outside(tmp_path: Path, target: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("set/dataset.json", b"{}")
        archive.writestr(name, b"evil")

    refused(tmp_path / "a.zip", target, "leads out of its folder")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("link", ["/etc/passwd", "../../outside", "set/dataset.json"])
def test_links_in_a_tar(tmp_path: Path, target: Path, kind: bytes, link: str) -> None:
    archive = tar(
        tmp_path / "a.tar", [entry("set/dataset.json", b"{}"), entry("set/link", kind=kind, link=link)]
    )

    refused(archive, target, "holds a link, 'set/link'")


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_in_a_tar(tmp_path: Path, target: Path, kind: bytes) -> None:
    refused(tar(tmp_path / "a.tar", [entry("set/null", kind=kind)]), target, "holds a device or pipe")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR])
def test_links_and_devices_in_a_zip(tmp_path: Path, target: Path, kind: int) -> None:
    info = zipfile.ZipInfo("set/link")
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")

    refused(tmp_path / "a.zip", target, "holds a link or device, 'set/link'")


def test_an_encrypted_zip(tmp_path: Path, target: Path) -> None:
    archive = good_zip(tmp_path / "a.zip")
    content = bytearray(archive.read_bytes())
    directory = content.rindex(b"PK\x01\x02")  # the last member's entry; its flags lie 8 bytes on
    content[directory + 8] |= 1
    archive.write_bytes(content)

    refused(archive, target, "is encrypted")


@pytest.mark.parametrize("second", ["set/dataset.json", "set/dataset.json/inner", "set//./dataset.json"])
def test_a_name_twice(tmp_path: Path, target: Path, second: str) -> None:
    archive = tar(tmp_path / "a.tar", [entry("set/dataset.json", b"1"), entry(second, b"2")])

    refused(archive, target, "more than once")


def test_a_file_in_the_place_of_a_folder(tmp_path: Path, target: Path) -> None:
    archive = tar(tmp_path / "a.tar", [entry("set/a/b", b"1"), entry("set/a", b"2")])

    refused(archive, target, "more than once")


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip"])
@pytest.mark.parametrize("content", [b"", b"<html>Sign in to the hotel's network</html>" * 50])
def test_what_is_not_an_archive(tmp_path: Path, target: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    refused(tmp_path / name, target, "cannot be unpacked .* fetch the archive again")


def test_a_cut_off_tar(tmp_path: Path, target: Path) -> None:
    archive = good_tar(tmp_path / "a.tar")
    archive.write_bytes(archive.read_bytes()[:3000])

    refused(archive, target, "cannot be unpacked")


def test_a_cut_off_tar_gz(tmp_path: Path, target: Path) -> None:
    archive = good_tar(tmp_path / "a.tar.gz", "w:gz")
    archive.write_bytes(archive.read_bytes()[:-20])

    refused(archive, target, "cannot be unpacked")


def test_a_damaged_zip_member(tmp_path: Path, target: Path) -> None:
    archive = good_zip(tmp_path / "a.zip")
    content = bytearray(archive.read_bytes())
    content[content.index(b"dataset.json") + len("dataset.json")] ^= 0xFF
    archive.write_bytes(content)

    refused(archive, target, "cannot be unpacked")
