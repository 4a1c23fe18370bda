"""Studies made ready to be looked at, kept in FOLDER/views/TASK while the store has them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from focalis.device.config import Limits
from focalis.device.records import ResultObject, SeriesRow
from focalis.device.store import Store
from focalis.device.web.children import run_job
from focalis.device.written import pointed_files
from focalis.errors import FocalisError
from focalis.files import ABANDONED_AFTER_S, UNFINISHED, age_s, write_text
from focalis.volume import NIFTI_HEADER_BYTES, Grid, read_outlines

KEPT_BYTES = 4_000_000_000
"""So much of views stays on the disk; the one not opened for longest goes first."""

IMAGE, LESIONS, TABLE = "image.nii", "lesions.nii", "view.json"
_NIFTI_SFORM = 280
_FORMAT = 1
"""Version of a view's files; views of another version are made anew."""


@dataclass(frozen=True)
class View:
    """A study ready to be looked at; arrays are z, y, x towards the patient's superior, posterior, left.

    Attributes:
        windows: name to lowest and highest value, the first to begin with.
        lesions: the table, as `focalis.device.web.preparing.lesion_row` makes it.
        frame: the Frame of Reference UID; empty if the images name none.
        edition: of the edits that it has, see `focalis.device.edits.Edits`.
    """

    folder: Path
    shape_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float]
    windows: dict[str, tuple[float, float]]
    lesions: list[dict[str, Any]]
    dtype: str
    modality: str
    frame: str = ""
    edition: int = 0

    def image(self) -> NDArray[Any]:
        """The image's values, mapped and not read."""
        return self._map(IMAGE, self.dtype)

    def grid(self) -> Grid:
        """Where its voxels lie."""
        return read_outlines([self.folder / IMAGE])[0].grid

    def marks(self) -> NDArray[np.uint16]:
        """The lesions' numbers, mapped and not read."""
        return self._map(LESIONS, "uint16")

    def affine_zyx(self) -> NDArray[np.float64]:
        """From z, y, x and 1 of a voxel to x, y, z and 1 of its place in the patient (LPS), shape (4, 4)."""
        with (self.folder / IMAGE).open("rb") as file:
            file.seek(_NIFTI_SFORM)
            rows = np.frombuffer(file.read(48), "<f4").reshape(3, 4).astype(np.float64)
        affine = np.eye(4)
        affine[:3] = rows * [[-1.0], [-1.0], [1.0]]  # NIfTI's places are RAS
        return affine[:, [2, 1, 0, 3]]

    def free(
        self, low: NDArray[np.int_], high: NDArray[np.int_], label: str, lesion: int = 0
    ) -> NDArray[np.bool_]:
        """Where a lesion may grow in a box: nowhere in another one, nor next to one of its label.

        Lesions of a label that touch would be one component of the Segmentation.

        Args:
            low: the first voxel z, y, x of the box.
            high: the voxel after its last one.
            label: the lesion's label.
            lesion: its number; 0 for a new one.
        """
        before = np.minimum(low, 1)
        marks = self.marks()[tuple(map(slice, low - before, high + 1))]
        same = [
            each["number"] for each in self.lesions if each["label"] == label and each["number"] != lesion
        ]
        near = ndimage.binary_dilation(np.isin(marks, same), np.ones((3, 3, 3)))
        found: NDArray[np.bool_] = ((marks == 0) & ~near)[tuple(map(slice, before, before + high - low))]
        return found

    def places(self, voxels_zyx: NDArray[np.int_]) -> list[list[float]]:
        """x, y, z of voxels (n, 3) in the patient, mm (LPS)."""
        places: list[list[float]] = np.round(self.grid().to_patient(voxels_zyx[:, ::-1]), 3).tolist()
        return places

    def voxels(self, places: list[list[float]]) -> NDArray[np.int_]:
        """The voxels (n, 3) at such places."""
        return np.rint(self.grid().to_indices(places)).astype(np.int64)[:, ::-1]

    def put(
        self,
        lesion: dict[str, Any],
        state: list[int],
        *,
        added: NDArray[np.int_],
        removed: NDArray[np.int_] | None = None,
    ) -> None:
        """Put a lesion into the table, or in the place of the one of its number, and change the map of the numbers.

        Args:
            lesion: the row.
            state: what the store holds with it, see `Views.state`.
            added: voxels (n, 3) that become the lesion's.
            removed: voxels that belong to no lesion any more.
        """
        marks = np.memmap(
            self.folder / LESIONS, "uint16", mode="r+", offset=NIFTI_HEADER_BYTES, shape=self.shape_zyx
        )
        if removed is not None:
            marks[tuple(removed.T)] = 0
        marks[tuple(added.T)] = lesion["number"]
        marks.flush()
        table = json.loads((self.folder / TABLE).read_text(encoding="utf-8"))
        rows = {each["number"]: each for each in [*table["lesions"], lesion]}
        write_text(self.folder / TABLE, json.dumps({**table, "lesions": list(rows.values()), "state": state}))

    def _map(self, name: str, dtype: str) -> NDArray[Any]:
        return np.memmap(
            self.folder / name, dtype=dtype, mode="r", offset=NIFTI_HEADER_BYTES, shape=self.shape_zyx
        )


class Views:
    """The views of the device's tasks; each is made once, in the background, by a child process.

    Attributes:
        changing: held while store and view are changed together.
    """

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        self._folder = store.folder / "views"
        self.changing = threading.RLock()
        self._lock = threading.Lock()
        self._one_at_a_time = threading.Lock()
        self._working: set[str] = set()
        self._failed: dict[str, str] = {}

    def state(self, task_id: str) -> list[int]:
        """What a current view repeats: its format, whether there is a Segmentation, how many lesions persons pointed
        at, the edition of their edits."""
        segmented = segmentation_of(self._store, task_id) is not None
        return [_FORMAT, segmented, len(pointed_files(self._store, task_id)), self._store.edition(task_id)]

    def get(self, task_id: str) -> View | None:
        """The view of a task; None if it is not made yet, or lacks what a person did before the device was killed."""
        folder = self._folder / task_id
        with self.changing:
            try:
                table = json.loads((folder / TABLE).read_text(encoding="utf-8"))
                os.utime(folder / TABLE)
            except (OSError, ValueError):
                return None
            if table.get("state") != self.state(task_id):
                return None
        return View(
            folder=folder,
            shape_zyx=tuple(table["shape_zyx"]),
            spacing_zyx_mm=tuple(table["spacing_zyx_mm"]),
            windows={name: (low, high) for name, (low, high) in table["windows"].items()},
            lesions=table["lesions"],
            dtype=table["dtype"],
            modality=table["modality"],
            frame=table["frame"],
            edition=table["state"][-1],
        )

    def problem(self, task_id: str) -> str:
        """Why a view could not be made; reported once, so that the next request tries again."""
        with self._lock:
            return self._failed.pop(task_id, "")

    def start(self, key: str, series_uid: str) -> None:
        """Make a view in the background, unless that has begun; without a Segmentation of the images alone.

        Args:
            key: a task's id, or the `series_key` of a series that is shown beside another one.
            series_uid: the series.
        """
        with self._lock:
            if key in self._working:
                return
            self._working.add(key)
        threading.Thread(target=self._make, args=(key, series_uid), daemon=True).start()

    def _make(self, key: str, series_uid: str) -> None:
        try:
            with self._one_at_a_time:
                if self.get(key) is not None:  # it was made between the look of who asks now and the asking
                    return
                self.prune()
                state = self.state(key)  # first: what comes meanwhile makes the view an old one
                files = list(map(str, self._store.at_hand(self._store.images(series_uid))))
                result = segmentation_of(self._store, key)
                run_job(
                    "prepare",
                    {
                        "files": files,
                        "segmentation": "" if result is None else str(*self._store.at_hand([result])),
                        "out": str(self._folder / key),
                        "pointed": [str(path) for path in pointed_files(self._store, key)],
                        "edits": edits_of(self._store, key),
                        "state": state,
                    },
                    self._limits,
                )
        except FocalisError as error:
            with self._lock:
                self._failed[key] = str(error)
        finally:
            with self._lock:
                self._working.discard(key)

    def prune(self) -> None:
        """Remove the views of studies that the store has no more, and the oldest beyond `KEPT_BYTES`."""
        if not self._folder.is_dir():
            return
        found = []
        for path in self._folder.iterdir():
            with suppress(OSError):  # another one removes it, or puts a new one in its place
                if path.name.startswith(UNFINISHED) and age_s(path) < ABANDONED_AFTER_S:
                    continue
                size = sum(file.stat().st_size for file in path.iterdir())
                found.append(((path / TABLE).stat().st_mtime, size, path))
        keys = {series_key(each) for each in self._store.series()}
        kept = 0
        for _, size, path in sorted(found, reverse=True):
            kept += size
            if kept > KEPT_BYTES or (path.name not in keys and self._store.task(path.name) is None):
                shutil.rmtree(path, ignore_errors=True)


def series_key(series: SeriesRow) -> str:
    """What names the view of a series that is shown beside another one, without lesions; more images, another view."""
    return "series-" + hashlib.sha256(f"{series.series_uid} {series.instances}".encode()).hexdigest()[:40]


def linked(view: View, there: NDArray[np.float64] | None) -> dict[str, Any]:
    """A view for the page, to be shown beside another one.

    Args:
        view: the view.
        there: from voxels z, y, x and 1 of the other view to those of this one, shape (4, 4); None if unknown.
    """
    return {
        "shape": view.shape_zyx,
        "spacing": view.spacing_zyx_mm,
        "windows": view.windows,
        "places": dict(
            zip(("axial", "coronal", "sagittal"), (count // 2 for count in view.shape_zyx), strict=True)
        ),
        "there": None if there is None else there[:3].tolist(),
        "back": None if there is None else np.linalg.inv(there)[:3].tolist(),
    }


def edits_of(store: Store, task_id: str) -> list[tuple[int, list[list[float]]]]:
    """The edits of a task's lesions as `focalis.device.web.preparing.lesions_of` takes them."""
    return [(each.lesion, json.loads(each.voxels)) for each in store.edits(task_id)]


def segmentation_of(store: Store, task_id: str) -> ResultObject | None:
    """The Segmentation that the device made for a task."""
    return next((result for result in store.results(task_id) if result.kind == "seg"), None)
