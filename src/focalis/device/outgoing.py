"""The files that go out for a delivery: the objects themselves, or de-identified copies of them."""

from __future__ import annotations

import hashlib
import hmac
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from focalis.device.config import Destination, Limits
from focalis.device.deidentify import Pseudonyms
from focalis.device.records import Delivery
from focalis.device.store import Store
from focalis.device.web.children import run_job
from focalis.errors import DataError, FocalisError, disk_is_full
from focalis.object_store import UnreachableError

FOLDER = "deidentified"

Outgoing = Mapping[str, list[Path] | str]
"""The `sop_uid` of each delivery to its files, or to why there are none."""


@contextmanager
def outgoing(
    store: Store, deliveries: Sequence[Delivery], destination: Destination, limits: Limits
) -> Iterator[Outgoing]:
    """The files of the deliveries of one task; copies live as long as the context.

    A destination with `deidentify` is given copies or nothing, whatever fails.

    Raises:
        DataError: the bucket with the objects, or the disk for copies of them, cannot be used now.
    """
    originals: dict[str, list[Path] | str] = {}
    for each in deliveries:
        try:
            originals[each.sop_uid] = _originals(store, each)
        except DataError as error:
            if isinstance(error, UnreachableError) or disk_is_full(error):
                raise
            originals[each.sop_uid] = f"is sent nothing: {error}"
    if not destination.deidentify:
        yield originals
        return
    folder = store.folder / FOLDER / destination.name
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield _copies(store, deliveries, originals, folder, destination, limits)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sent_uids(store: Store, each: Delivery, destination: Destination) -> list[str]:
    """The SOP Instance UIDs under which a destination knows what it was sent."""
    uids = [each.sop_uid]
    if each.kind == "images":
        uids = [image.sop_uid for image in store.images(each.sop_uid)]
    if destination.deidentify:
        pseudonyms = Pseudonyms(_key(store, destination))
        uids = [pseudonyms.uid(uid) for uid in uids]
    return uids


def _originals(store: Store, each: Delivery) -> list[Path]:
    if each.kind == "images":
        return store.at_hand(store.images(each.sop_uid))
    return store.at_hand(one for one in store.results(each.task_id) if one.sop_uid == each.sop_uid)


def _copies(
    store: Store,
    deliveries: Sequence[Delivery],
    originals: Outgoing,
    folder: Path,
    destination: Destination,
    limits: Limits,
) -> Outgoing:
    kinds = {each.sop_uid: each.kind for each in deliveries}
    jobs = [
        (sop_uid, path, folder / f"{kinds[sop_uid]}-{number}.dcm")
        for sop_uid, paths in originals.items()
        if isinstance(paths, list)
        for number, path in enumerate(paths)
    ]
    told: dict[str, object] = {
        "files": [(str(path), str(copy), kinds[sop_uid] != "images") for sop_uid, path, copy in jobs],
        "key": _key(store, destination).hex(),
        "dates": destination.dates,
    }
    try:
        said = run_job("copies", told, limits)
    except FocalisError as error:
        return dict.fromkeys(originals, f"is sent nothing: {error}")
    found: dict[str, list[Path] | str] = {}
    found |= {sop_uid: each if isinstance(each, str) else [] for sop_uid, each in originals.items()}
    for (sop_uid, _, copy), fault in zip(jobs, said, strict=True):
        before = found[sop_uid]
        if fault:
            found[sop_uid] = f"is sent nothing: an object {fault}"
        elif isinstance(before, list):
            before.append(copy)
    return found


def _key(store: Store, destination: Destination) -> bytes:
    """One key per destination, so that two of them cannot tell that they have the same patient."""
    secret = bytes.fromhex(store.secret("deidentify"))
    return hmac.digest(secret, destination.name.encode(), hashlib.sha256)
