"""Prepared cases in a folder: a safetensors file each, mapped into memory where it is read."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from focalis.errors import DataError
from focalis.files import ABANDONED_AFTER_S, age_s, whole_file

SUFFIX = ".safetensors"
ENTRIES_PER_CASE = 2
"""How many versions of a case stay on disk, those in use included: the others are those used last. More stay as long
as another run may use them: a run marks all its cases every hour."""
UNUSED_AFTER_S = 24 * 3600.0
LONGEST_NAME = 160
"""Names of files end at 255 bytes; a longer name of a case is replaced by its hash."""
DTYPES = {
    name: np.dtype(kind)
    for name, kind in {
        "F32": "<f4",
        "F16": "<f2",
        "U8": "u1",
        "U16": "<u2",
        "U32": "<u4",
        "I32": "<i4",
    }.items()
}

Entry = tuple[str, str]
"""A prepared case: the case's name, and the hash of all that its preparation depends on."""
Content = tuple[dict[str, NDArray[Any]], dict[str, Any]]
"""The arrays of a prepared case by name, and what is known of it, as JSON has it."""
DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError)
"""What `unpack` and NumPy raise for a file that is missing, cut short or something else."""


def gone(place: object, why: str = "") -> DataError:
    """The error of a prepared case that cannot be read."""
    told = f"the prepared case is gone or damaged{f' ({why})' if why else ''}"
    return DataError.at(place, told, "start again, it will be made anew")


class PreparedFolder:
    """Prepared cases in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for abandoned in folder.glob(f".*.tmp.*{SUFFIX}"):
            if age_s(abandoned) > ABANDONED_AFTER_S:
                abandoned.unlink(missing_ok=True)

    def place(self, entry: Entry) -> Path:
        """The file of a case."""
        name, key = entry
        if len(name.encode()) > LONGEST_NAME:
            name = hashlib.sha256(name.encode()).hexdigest()
        return self._folder / f"{name}.{key}{SUFFIX}"

    def has(self, entry: Entry) -> bool:
        """Whether a case lies there, whole."""
        with suppress(*DAMAGED):
            self.read(entry)
            return True
        return False

    def missing(self, entries: Iterable[Entry]) -> list[Entry]:
        """Those that do not lie there, whole."""
        return [entry for entry in entries if not self.has(entry)]

    def read(self, entry: Entry) -> Content:
        """What was added, the arrays mapped into memory; one of `DAMAGED` if it is gone or damaged."""
        return unpack(np.memmap(self.place(entry), np.uint8, mode="r"))

    def add(self, entry: Entry, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
        """Keep a case, whole or not at all; DataError if the folder cannot be written."""
        with whole_file(self.place(entry)) as unfinished, unfinished.open("wb") as file:
            pack(arrays, facts, file)

    def mark(self, entries: Iterable[Entry]) -> None:
        """Have it seen that cases are in use."""
        for entry in entries:
            with suppress(OSError):  # gone, or somebody else's
                os.utime(self.place(entry))

    def tidy(self, used: Iterable[Entry]) -> None:
        """Remove older versions of the cases in use, but for those used last and those that another run may be using.

        What earlier versions of Focalis prepared, a folder for each version of a case, goes likewise.
        """
        mine = {self.place(entry) for entry in used}
        names = {_case(path) for path in mine}
        others: dict[str, list[tuple[float, Path]]] = defaultdict(list)
        for path in self._folder.glob(f"*{SUFFIX}"):
            if path not in mine and _case(path) in names:
                others[_case(path)].append((age_s(path), path))
        old = [path for found in others.values() for _, path in sorted(found)[ENTRIES_PER_CASE - 1 :]]
        for path in (*old, *(each for name in names for each in (self._folder / name).glob("*/image.npy"))):
            folder = path.parent if path.suffix == ".npy" else path
            if age_s(folder) <= UNUSED_AFTER_S:
                continue
            if folder == path:
                path.unlink(missing_ok=True)
            else:
                shutil.rmtree(folder, ignore_errors=True)
                with suppress(OSError):  # not empty
                    folder.parent.rmdir()


def _case(path: Path) -> str:
    """The name of the case that a file is of."""
    return path.stem.rpartition(".")[0]


def pack(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any], file: IO[bytes]) -> None:
    """Write arrays and what is known of them as safetensors, array by array: nothing is copied in memory."""
    names = {kind: name for name, kind in DTYPES.items()}
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0]))  # so that all are aligned
    header: dict[str, Any] = {"__metadata__": {"focalis": json.dumps(facts)}}
    end = 0
    for name, array in ordered:
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": names[array.dtype], "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for _, array in ordered:
        file.write(np.ascontiguousarray(array).data)


def unpack(content: NDArray[np.uint8]) -> Content:
    """What `pack` wrote, the arrays as views; one of `DAMAGED` if it is cut short or something else."""
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    header = json.loads(content[8:start].tobytes())
    facts = json.loads(header.pop("__metadata__")["focalis"])
    body = content[start:]
    if max(each["data_offsets"][1] for each in header.values()) != len(body):
        raise ValueError("the file is cut short")
    arrays = {
        name: body[slice(*each["data_offsets"])].view(DTYPES[each["dtype"]]).reshape(each["shape"])
        for name, each in header.items()
    }
    return arrays, facts
