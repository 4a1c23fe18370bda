"""From the address to a data set on disk: found, resumed, verified, and never half there."""

import dataclasses
import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from filelock import FileLock

from focalis.dataset import open_dataset
from focalis.dataset.public import default_folder, fetch, find_copy
from focalis.errors import DataError

NAME = "Task99_Test"
FILES = {
    f"{NAME}/dataset.json": b'{"labels": {"0": "background", "1": "lesion"}}',
    f"{NAME}/imagesTr/a.nii.gz": bytes(20_000),
    f"./{NAME}/imagesTr/._a.nii.gz": b"litter",
    f"{NAME}/labelsTr/a.nii.gz": bytes(10_000),
}
UNPACKED = ["dataset.json", "imagesTr", "imagesTr/a.nii.gz", "labelsTr", "labelsTr/a.nii.gz"]
Usage = namedtuple("Usage", "total used free")


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def refused(public, folder: Path, reason: str) -> str:
    """Fetching is refused for that reason, in one line."""
    with pytest.raises(DataError, match=reason) as failed:
        fetch(public, folder)
    assert "\n" not in str(failed.value)
    return str(failed.value)


def test_a_set_is_downloaded_verified_and_unpacked(offer, tmp_path: Path) -> None:
    told: list[str] = []
    folder = tmp_path / "new" / "data"

    path = fetch(offer(FILES), folder, lambda stage, _done, _total: told.append(stage))

    assert path == folder / NAME
    assert tree(path) == UNPACKED
    assert [entry.name for entry in folder.iterdir()] == [NAME]
    assert list(dict.fromkeys(told)) == ["download", "check", "unpack"]


def test_a_second_call_does_nothing(offer, server, tmp_path: Path) -> None:
    public = offer(FILES)
    fetch(public, tmp_path)
    (tmp_path / NAME / "notes.txt").write_text("mine")

    assert fetch(public, tmp_path) == tmp_path / NAME
    assert len(server.asked) == 1
    assert (tmp_path / NAME / "notes.txt").read_text() == "mine"


def test_a_broken_download_leaves_no_set_and_is_gone_on_with(offer, server, tmp_path: Path) -> None:
    public = offer(FILES)
    server.cuts = [15_000, 0]
    refused(public, tmp_path, "cannot be downloaded .* are kept")
    assert tree(tmp_path) == [f".{NAME}.part", f".{NAME}.part/download", f".{NAME}.part/lock"]
    kept = (tmp_path / f".{NAME}.part" / "download").stat().st_size

    path = fetch(public, tmp_path)

    assert server.asked[-1] == f"bytes={kept}-"
    assert tree(path) == UNPACKED
    assert [entry.name for entry in tmp_path.iterdir()] == [NAME]


def test_ctrl_c_keeps_what_was_downloaded(offer, server, tmp_path: Path) -> None:
    public = offer(FILES)

    def interrupt(_stage: str, done: int, _total: int | None) -> None:
        if done >= 5000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(public, tmp_path, interrupt)

    assert not (tmp_path / NAME).exists()
    fetch(public, tmp_path)
    assert server.asked == [None, "bytes=5000-"]


def test_ctrl_c_while_unpacking_needs_no_second_download(offer, server, tmp_path: Path) -> None:
    public = offer(FILES)

    def interrupt(stage: str, _done: int, _total: int | None) -> None:
        if stage == "unpack":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(public, tmp_path, interrupt)

    assert not (tmp_path / NAME).exists()
    assert tree(fetch(public, tmp_path)) == UNPACKED
    assert len(server.asked) == 1


def test_a_killed_process_leaves_no_set_and_no_lock(offer, server, tmp_path: Path) -> None:
    public = offer(FILES)
    server.stalls = [15_000]
    code = f"""
from pathlib import Path
from focalis.dataset.public import PublicSet, fetch, transfer
transfer.CHUNK_BYTES = 1000
fetch({public!r}, Path({str(tmp_path)!r}))
"""
    download = tmp_path / f".{NAME}.part" / "download"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        until = time.monotonic() + 20
        while not (download.is_file() and download.stat().st_size >= 10_000) and time.monotonic() < until:
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    kept = download.stat().st_size
    assert kept >= 10_000
    assert not (tmp_path / NAME).exists()

    assert tree(fetch(public, tmp_path)) == UNPACKED
    assert server.asked == [None, f"bytes={kept}-"]


def test_a_wrong_checksum_says_both_and_leaves_nothing(offer, server, tmp_path: Path) -> None:
    public = offer(FILES)
    expected = hashlib.md5(server.content).hexdigest()
    server.content = server.content[:-1] + b"x"
    found = hashlib.md5(server.content).hexdigest()

    message = refused(public, tmp_path, "checksum is wrong")

    assert f"expected {expected}, found {found}" in message
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_other_content_is_caught_by_the_checksum(offer, tmp_path: Path) -> None:
    public = offer(FILES)
    (tmp_path / f".{NAME}.part").mkdir()
    (tmp_path / f".{NAME}.part" / "download").write_bytes(b"x" * 1000)

    refused(public, tmp_path, "checksum is wrong")

    assert tree(fetch(public, tmp_path)) == UNPACKED


def test_sha256_is_understood(offer, server, tmp_path: Path) -> None:
    public = offer(FILES)
    checksum = f"sha256:{hashlib.sha256(server.content).hexdigest().upper()}"

    assert tree(fetch(dataclasses.replace(public, checksum=checksum), tmp_path)) == UNPACKED


def test_a_missing_archive_leaves_nothing(offer, server, tmp_path: Path) -> None:
    public = offer(FILES)
    server.status = 404

    refused(public, tmp_path, "the server answers 404")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({**FILES, "../evil": b"evil"}, "leads out of its folder"),
        ({"other/dataset.json": b"{}"}, f"holds no data set in a folder {NAME}"),
        ({f"{NAME}/readme.txt": b"moved"}, f"holds no data set in a folder {NAME}"),
    ],
)
def test_an_archive_that_cannot_be_used_leaves_nothing(offer, tmp_path: Path, files, reason: str) -> None:
    refused(offer(files), tmp_path, reason)

    assert list(tmp_path.iterdir()) == []


def test_space_is_asked_for_before_the_download(offer, server, tmp_path: Path, monkeypatch) -> None:
    public = offer(FILES)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: Usage(0, 0, 2 * len(server.content) - 1))

    message = refused(public, tmp_path, r"cannot be written \(0 MB are needed, 0 MB are free\)")

    assert message.startswith(f"{tmp_path}: ")
    assert list(tmp_path.iterdir()) == []


def test_space_for_a_well_compressed_archive_is_asked_for_before_unpacking(
    offer, server, tmp_path: Path, monkeypatch
) -> None:
    public = offer({**FILES, f"{NAME}/imagesTr/b.nii": bytes(3_000_000)})
    server.content = gzip.compress(server.content)
    public = dataclasses.replace(
        public,
        url=f"{public.url}.gz",
        checksum=f"md5:{hashlib.md5(server.content).hexdigest()}",
    )
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _folder: Usage(0, 0, 1_000_000))
        refused(public, tmp_path, r"3 MB are needed, 1 MB are free")
        assert not (tmp_path / NAME).exists()

    assert fetch(public, tmp_path) == tmp_path / NAME
    assert len(server.asked) == 1


def test_something_else_in_its_place_is_left_alone(offer, server, tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "thesis.txt").write_text("irreplaceable")

    refused(offer(FILES), tmp_path, "is in the way and is not a data set; move it away")

    assert tree(tmp_path) == [NAME, f"{NAME}/thesis.txt"]
    assert server.asked == []


def test_two_at_once_do_not_meet(offer, server, tmp_path: Path) -> None:
    public = offer(FILES)
    work = tmp_path / f".{NAME}.part"
    work.mkdir()

    with FileLock(work / "lock"):
        refused(public, tmp_path, "another process is at work on")
        assert (work / "lock").is_file()

    assert server.asked == []
    assert tree(fetch(public, tmp_path)) == UNPACKED


def test_a_folder_that_cannot_be_made_is_named(offer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")

    message = refused(offer(FILES), tmp_path / "file" / "data", "cannot be written")

    assert message.startswith(f"{tmp_path / 'file' / 'data'}: ")


def nifti(path: Path, *channels: int) -> bytes:
    """A NIfTI file of 4 x 4 x 4 voxels; with several channels it has four dimensions, as the Decathlon's."""
    volumes = [sitk.GetImageFromArray(np.full((4, 4, 4), value, np.int16)) for value in channels]
    sitk.WriteImage(volumes[0] if len(volumes) == 1 else sitk.JoinSeries(volumes), str(path))
    return path.read_bytes()


@pytest.mark.parametrize("channels", [("MRI",), ("FLAIR", "T1w", "T1gd")])
def test_the_unpacked_decathlon_layout_opens_as_a_data_set(offer, tmp_path: Path, channels) -> None:
    image = nifti(tmp_path / "image.nii.gz", *range(len(channels)))
    label = nifti(tmp_path / "label.nii.gz", 1)
    description = {
        "name": "Test",
        "licence": "CC-BY-SA 4.0",
        "tensorImageSize": "3D" if len(channels) == 1 else "4D",
        "modality": {str(number): name for number, name in enumerate(channels)},
        "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
        "numTraining": 2,
        "numTest": 1,
        "training": [
            {"image": f"./imagesTr/case_{case}.nii.gz", "label": f"./labelsTr/case_{case}.nii.gz"}
            for case in ("007", "003")
        ],
        "test": ["./imagesTs/case_001.nii.gz"],
    }
    files = {f"./{NAME}/dataset.json": json.dumps(description).encode()}
    for case in ("003", "007"):
        files[f"./{NAME}/imagesTr/case_{case}.nii.gz"] = image
        files[f"./{NAME}/imagesTr/._case_{case}.nii.gz"] = b"litter"
        files[f"./{NAME}/labelsTr/case_{case}.nii.gz"] = label
    files[f"./{NAME}/imagesTs/case_001.nii.gz"] = image

    dataset = open_dataset(fetch(offer(files), tmp_path / "data"))

    assert [case.name for case in dataset.cases] == ["case_003", "case_007"]
    assert all(case.label is not None for case in dataset.cases)
    assert dataset.channels == channels
    assert dataset.labels == {1: "Anterior", 2: "Posterior"}


@pytest.mark.parametrize("name", [NAME, "test_alias"])
@pytest.mark.parametrize("content", ["dataset.json", "images/a.nii.gz"])
def test_a_local_copy_is_found_by_name_or_alias(offer, tmp_path: Path, name: str, content: str) -> None:
    file = tmp_path / name / content
    file.parent.mkdir(parents=True)
    file.touch()

    assert find_copy(offer(FILES), tmp_path) == tmp_path / name


def test_an_empty_folder_is_not_a_copy(offer, tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()

    assert find_copy(offer(FILES), tmp_path) is None
    assert find_copy(offer(FILES), tmp_path / "nowhere") is None


def test_the_default_folder_is_the_users_cache(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # read on Linux

    assert default_folder().parts[-2:] == ("focalis", "data")
