"""The objects that the device makes of a segmented series: SEG, RTSTRUCT, SR, summary picture."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from focalis.device.picture import draw_summary
from focalis.device.records import ResultKind
from focalis.dicom import (
    ReportedLesion,
    Series,
    Superseded,
    write_capture,
    write_report,
    write_segmentation,
    write_structures,
)
from focalis.lesions import measure_lesions
from focalis.volume import Grid

MOST_LISTED = 500
"""A report lists no more lesions than this, the largest ones: thousands of specks help nobody, and cost minutes."""


@dataclass(frozen=True)
class Made:
    """One file that was made.

    Attributes:
        kind: which object it is.
        file: its name in the folder of results.
        sop_uid: its SOP Instance UID.
        sha256: of the file.
    """

    kind: ResultKind
    file: str
    sop_uid: str
    sha256: str


def make_results(
    label: NDArray[np.integer],
    names: Mapping[int, str],
    series: Series,
    folder: Path,
    *,
    model: str,
    version: str,
    supersedes: Mapping[ResultKind, Path],
) -> list[Made]:
    """Write all results of a segmented series into a folder; nothing found is a result too, without RTSTRUCT.

    UIDs and bytes depend on the images, the label map, the model and the version alone.

    Args:
        label: label values, (z, y, x).
        names: label value to name.
        series: the series that was segmented.
        folder: where to write.
        model: the hash of the model's weights.
        version: the version of Focalis.
        supersedes: the files of the earlier results that these replace, by kind.

    Raises:
        DataError: a file cannot be written, or a label has a name that DICOM does not take.
    """
    earlier = {kind: superseded(path) for kind, path in supersedes.items()}
    paths: dict[ResultKind, Path] = {
        kind: folder / f"{kind}-1.dcm" for kind in ("seg", "rtstruct", "sr", "capture")
    }
    lesions = list_lesions(label, names, series)
    picture = draw_summary(label, names, series, lesions, version)
    write_segmentation(
        label,
        names,
        series,
        paths["seg"],
        model=model,
        version=version,
        supersedes=earlier.get("seg"),
    )
    drawn = write_structures(
        label,
        names,
        series,
        paths["rtstruct"],
        model=model,
        version=version,
        supersedes=earlier.get("rtstruct"),
    )
    listed = sorted(lesions, key=lambda lesion: -lesion.volume_mm3)[:MOST_LISTED]
    write_report(
        sorted(listed, key=lambda lesion: lesion.number),
        label,
        names,
        series,
        paths["seg"],
        paths["sr"],
        total=len(lesions),
        model=model,
        version=version,
        supersedes=earlier.get("sr"),
    )
    write_capture(
        picture,
        label,
        names,
        series,
        paths["capture"],
        model=model,
        version=version,
        supersedes=earlier.get("capture"),
    )
    if not drawn:
        del paths["rtstruct"]
    return [_made(kind, path) for kind, path in paths.items()]


def list_lesions(
    label: NDArray[np.integer], names: Mapping[int, str], series: Series
) -> tuple[ReportedLesion, ...]:
    """The lesions of a label map, numbered as in the page and the report: by label, then by place."""
    named = [(value, name) for value, name in sorted(names.items()) if value != 0]
    grid = series.volume.grid
    segments = {name: number for number, (_, name) in enumerate(named, start=1)}
    masks = {name: label == value for value, name in named}
    found, _ = measure_lesions(masks, series.volume.array, grid.spacing_zyx_mm)
    return tuple(
        ReportedLesion(
            number=lesion.number,
            segment=segments[lesion.label],
            volume_mm3=lesion.volume_mm3,
            longest_axial_mm=lesion.longest_mm,
            centroid_xyz_mm=_patient(lesion.centroid_zyx, grid),
        )
        for lesion in found
    )


def superseded(path: Path) -> Superseded:
    """The UIDs by which an object refers to the one in `path`, which it replaces."""
    header = dcmread(path, specific_tags=["SOPInstanceUID", "SeriesInstanceUID"])
    return Superseded(str(header.SOPInstanceUID), str(header.SeriesInstanceUID))


def _patient(index_zyx: tuple[float, float, float], grid: Grid) -> tuple[float, float, float]:
    along = np.asarray(index_zyx[::-1]) * grid.spacing_xyz_mm
    x, y, z = np.asarray(grid.origin_xyz_mm) + grid.direction_matrix @ along
    return float(x), float(y), float(z)


def _made(kind: ResultKind, path: Path) -> Made:
    header = dcmread(path, specific_tags=["SOPInstanceUID"])
    return Made(kind, path.name, str(header.SOPInstanceUID), hashlib.sha256(path.read_bytes()).hexdigest())
