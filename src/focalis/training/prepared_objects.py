"""Prepared cases in an object store: Zarr arrays in compressed chunks, so that a patch reads its own chunks only.

Of each case there is a small object, `cases/KEY.safetensors`, with what is no large array; it is written last and says
where the arrays lie. A case without it is not there. Names of cases are in no object's name.
"""

from __future__ import annotations

import io
import json
import math
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy as np
from numpy.typing import NDArray

from focalis.errors import DataError, UsageError
from focalis.object_store import open_object_store, store_errors
from focalis.training.prepared_folder import DAMAGED, SUFFIX, Content, Entry, gone, pack, unpack

if TYPE_CHECKING:
    import zarr
    from obstore.store import ObjectStore

CHUNK = 64
"""Voxels along each side of a chunk; a case's chunks of a channel lie in one object, a shard."""
CASES, ARRAYS = "cases", "arrays"
METADATA = "zarr.json"
DECOMPRESSION = "blosc decompression"
"""In the message of the RuntimeError that Blosc raises for bytes that are not its own."""


class PreparedObjects:
    """Prepared cases in an object store, see `focalis.object_store`. Focalis removes none but damaged ones.

    Raises:
        UsageError: the address is none, or what it needs is not installed.
        DataError: the store cannot be reached.
    """

    def __init__(self, address: str) -> None:
        if set("@?#") & set(address):
            raise UsageError(
                "the address of prepared cases has @, ? or # in it; give s3://bucket/prefix or file:///folder without "
                "them, and credentials by the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
            )
        if address.startswith("file://"):
            with DataError.of_system(address, "check the folder", "cannot be written"):
                Path(url2pathname(urlsplit(address).path)).mkdir(parents=True, exist_ok=True)
        self._address, self._store = address, open_object_store(address)
        try:
            import zarr  # noqa: F401 - what reads and writes arrays needs it
        except ModuleNotFoundError as error:
            raise UsageError(f"{address}: needs Zarr; pip install 'focalis[zarr]'") from error
        with store_errors(address):
            self._listed = {each["path"] for some in self._store.list(f"{CASES}/") for each in some}

    def place(self, entry: Entry) -> str:
        """The address of a case."""
        return f"{self._address.rstrip('/')}/{_marker(entry)}"

    def has(self, entry: Entry) -> bool:
        """Whether a case lies there, whole."""
        if _marker(entry) in self._listed:
            return True
        with store_errors(self.place(entry)), suppress(FileNotFoundError):
            self._store.head(_marker(entry))
            return True
        return False

    def missing(self, entries: Iterable[Entry]) -> list[Entry]:
        """Those that did not lie there when the store was opened: nothing is asked for each."""
        return [entry for entry in entries if _marker(entry) not in self._listed]

    def read(self, entry: Entry) -> Content:
        """What was added; large arrays are `StoredArray`. One of `DAMAGED` if it is gone or damaged.

        A damaged case is removed.
        """
        content = self._content(entry)
        remove = partial(self._remove, entry, content)
        try:
            arrays, facts = unpack(np.frombuffer(content, np.uint8))
            documents = {f"{name}/{METADATA}": json.dumps(text) for name, text in facts["arrays"].items()}
        except DAMAGED:
            remove()
            raise
        source = _source(self._store, documents)
        large = {
            name.rpartition("/")[2]: StoredArray(source, name, self.place(entry), remove)
            for name in facts["arrays"]
        }
        return arrays | cast("dict[str, NDArray[Any]]", large), facts

    def add(self, entry: Entry, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
        """Keep a case, whole or not at all; if another process was faster, what it kept stays.

        Raises:
            DataError: the store cannot be written.
        """
        from obstore.exceptions import AlreadyExistsError

        attempt = f"{ARRAYS}/{entry[1]}-{secrets.token_hex(8)}"
        large = {f"{attempt}/{name}": array for name, array in arrays.items() if array.ndim > 2}
        small = {name: array for name, array in arrays.items() if array.ndim <= 2}
        with store_errors(self.place(entry), "cannot be written"):
            try:
                written = {name: _write(self._store, name, array) for name, array in large.items()}
                marker = io.BytesIO()
                pack(small, {**facts, "arrays": written}, marker)
            except BaseException:
                self._remove_all(attempt)
                raise
            # However else this ends, the marker may have arrived: then the arrays must stay.
            try:
                self._store.put(_marker(entry), marker.getvalue(), mode="create")
            except AlreadyExistsError:  # of another process, or of this put, repeated
                with suppress(FileNotFoundError):
                    if attempt.encode() not in self._content(entry):
                        self._remove_all(attempt)

    def mark(self, entries: Iterable[Entry]) -> None:
        """Nothing: no case is ever removed for its age."""

    def tidy(self, used: Iterable[Entry]) -> None:
        """Nothing: others may use what this run does not, and only they know."""

    def _content(self, entry: Entry) -> bytes:
        with store_errors(self.place(entry)):
            return bytes(self._store.get(_marker(entry)).bytes())

    def _remove(self, entry: Entry, content: bytes) -> None:
        """Have a damaged case be made again by whoever wants it next, unless another run has made it again already."""
        self._listed.discard(_marker(entry))
        with store_errors(self.place(entry), "is damaged and cannot be removed"), suppress(FileNotFoundError):
            if self._content(entry) == content:
                self._store.delete(_marker(entry))

    def _remove_all(self, prefix: str) -> None:
        from obstore.exceptions import BaseError

        with suppress(BaseError, OSError):
            found = [each["path"] for some in self._store.list(f"{prefix}/") for each in some]
            if found:
                self._store.delete(found)


class StoredArray:
    """An array (z, y, x), or several of them, of which each read fetches the chunks that it needs.

    It has no arithmetic: `np.asarray` reads all of it.
    """

    def __init__(
        self, source: Any, name: str, case: str, remove: Callable[[], None], index: int | None = None
    ) -> None:
        self._source, self._name, self._case, self._remove, self._index = source, name, case, remove, index
        self._opened: zarr.Array[Any] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        shape = tuple(self._array.shape)
        return shape if self._index is None else shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self._array.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[StoredArray]:
        """Its parts (z, y, x), none of which is read."""
        for index in range(len(self)):
            yield StoredArray(self._source, self._name, self._case, self._remove, index)

    def __getitem__(self, box: tuple[slice, ...]) -> NDArray[Any]:
        """The voxels of a box.

        Raises:
            DataError: the store cannot be reached, or the case in it is damaged; then it is to be made again.
        """
        where: Any = box if self._index is None else (self._index, *box)
        try:
            with store_errors(self._case):
                return np.asarray(self._array[where])
        except (FileNotFoundError, ValueError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and DECOMPRESSION not in str(error):
                raise  # it says nothing of the bytes: no memory, no thread
            self._remove()
            raise gone(self._case, type(error).__name__) from error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[(slice(None),) * len(self.shape)], dtype)

    def __eq__(self, other: object) -> bool:
        raise TypeError("a stored array is compared by np.asarray")  # Python would call any two unequal

    __hash__ = None  # type: ignore[assignment]

    @property
    def _array(self) -> zarr.Array[Any]:
        if self._opened is None:
            import zarr

            self._opened = zarr.open_array(self._source, path=self._name, mode="r", zarr_format=3)
        return self._opened


def _marker(entry: Entry) -> str:
    return f"{CASES}/{entry[1]}{SUFFIX}"


def _write(store: ObjectStore, name: str, array: NDArray[Any]) -> dict[str, Any]:
    """Write an array; returns its Zarr metadata."""
    import zarr
    from zarr.codecs import BloscCodec
    from zarr.storage import ObjectStore as ZarrStore

    shape = array.shape[-3:]
    leading = (1,) * (array.ndim - 3)
    written = zarr.create_array(
        ZarrStore(store),
        name=name,
        shape=array.shape,
        dtype=array.dtype,
        chunks=(*leading, *(CHUNK,) * 3),
        shards=(*leading, *(CHUNK * math.ceil(size / CHUNK) for size in shape)),
        compressors=BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),
        fill_value=0,
        config={"write_empty_chunks": True},  # an object that is missing then is a fault, and no empty array
    )
    written[:] = array
    return cast("dict[str, Any]", written.metadata.to_dict())


def _source(store: ObjectStore, documents: Mapping[str, str]) -> Any:
    """The store as Zarr reads it; the arrays' metadata are known, and a missing or empty object is an error.

    Zarr itself would take it for an array of zeros.
    """
    from zarr.storage import ObjectStore as ZarrStore

    class Source(ZarrStore[Any]):
        async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
            if key in documents:
                return prototype.buffer.from_bytes(documents[key].encode())
            found = await super().get(key, prototype, byte_range)
            if not found:
                raise FileNotFoundError(key)
            return found

    return Source(store, read_only=True)
