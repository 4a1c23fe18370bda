"""Make a study ready to be looked at: two NIfTI files and a table. Runs in the worker."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from focalis.device.study_lesions import StudyLesion, lesion_at, list_lesions, voxels_of
from focalis.dicom import Series, read_segmentation, read_series
from focalis.dicom.headers import numbers
from focalis.errors import DataError
from focalis.files import restrict, whole_folder, write_text
from focalis.volume import Grid, Volume, to_canonical, write_volume

IMAGE, LESIONS, TABLE = "image.nii", "lesions.nii", "view.json"

# the usual window of each tissue in HU: lowest, highest
_CT_WINDOWS = {"Soft tissue": (-160, 240), "Lung": (-1350, 150), "Bone": (-450, 1050), "Brain": (0, 80)}
_SAMPLED = 2_000_000

Edits = Sequence[tuple[int, list[list[float]]]]
"""Lesions' numbers, each with the voxels that an edit adds or removes (x, y, z in mm, LPS), in their order."""


def prepare(
    files: list[str],
    segmentation: str,
    out: str,
    pointed: Sequence[str] = (),
    edits: Edits = (),
    state: Sequence[int] = (),
) -> None:
    """Read a series and its Segmentation and write OUT/image.nii, OUT/lesions.nii and OUT/view.json.

    The volumes are uncompressed, in the order that runs closest to the patient's left, posterior and superior;
    `lesions.nii` holds the lesions' numbers: those of the Segmentation, where there is one, then those that persons
    pointed at, all as persons edited them. The folder appears when it is complete; the table repeats `state`.

    Raises:
        DataError: a file cannot be read or written, or the Segmentation is of another series.
    """
    series = read_series([Path(file) for file in files])
    lesions, numbered = lesions_of(series, segmentation, pointed, edits)
    image = to_canonical(series.volume)
    marks = to_canonical(Volume(numbered, series.volume.grid))
    with whole_folder(Path(out)) as folder:
        write_volume(image, folder / IMAGE)
        write_volume(marks, folder / LESIONS)
        table = {
            "shape_zyx": image.grid.shape_zyx,
            "spacing_zyx_mm": image.grid.spacing_zyx_mm,
            "dtype": str(image.array.dtype),
            "state": state,
            "frame": str(series.header.get("FrameOfReferenceUID") or ""),
            "modality": str(series.header.get("Modality", "")),
            "windows": _windows(image.array, str(series.header.get("Modality", "")), series.header),
            "lesions": [lesion_row(lesion, series.volume.grid, image.grid) for lesion in lesions],
        }
        write_text(folder / TABLE, json.dumps(table))
        restrict(folder, 0o700)


def lesions_of(
    series: Series, segmentation: str, pointed: Sequence[str] = (), edits: Edits = ()
) -> tuple[tuple[StudyLesion, ...], NDArray[np.uint16]]:
    """The lesions of a study, numbered as everywhere on the page, and the map of their numbers.

    Args:
        series: the series.
        segmentation: its Segmentation; empty for none.
        pointed: the lesions that persons pointed at, see `focalis.device.web.pointing`; they come last.
        edits: what persons changed of them; an edited lesion is measured again.
    """
    masks: Mapping[str, NDArray[np.bool_]] = (
        read_segmentation(Path(segmentation), series) if segmentation else {}
    )
    found, numbered = list_lesions(masks, series.volume)
    flat = numbered.reshape(-1)
    lesions = {each.measured.number: each for each in found}
    labels = {number: each.measured.name for number, each in lesions.items()}
    places = {
        number: _flat(voxels_of(numbered, number, lesions[number].box_zyx), series.volume.grid)
        for number in {number for number, _ in edits} & set(lesions)
    }
    for each in places.values():
        flat[each] = 0
    for number, file in enumerate(pointed, start=len(found) + 1):
        content = json.loads(Path(file).read_text(encoding="utf-8"))
        labels[number] = content["label"]
        places[number] = _indices(content["voxels_lps_mm"], series.volume.grid)
    for number, changed in edits:
        places[number] = np.setxor1d(places[number], _indices(changed, series.volume.grid))
    for number, each in places.items():  # painted last: one may lie where another one was before its edits
        flat[each] = number
        voxels = np.stack(np.unravel_index(each, numbered.shape), axis=1)
        lesions[number] = lesion_at(voxels, labels[number], series.volume, number)
    return tuple(lesions.values()), numbered


def _indices(places_lps_mm: list[list[float]], grid: Grid) -> NDArray[np.int_]:
    """The voxels at places x, y, z, each as its index in the flattened array."""
    return _flat(np.rint(grid.to_indices(places_lps_mm)).astype(np.int64)[:, ::-1], grid)


def _flat(voxels_zyx: NDArray[np.int_], grid: Grid) -> NDArray[np.int_]:
    found: NDArray[np.int_] = np.ravel_multi_index(tuple(voxels_zyx.T), grid.shape_zyx)
    return found


def lesion_row(lesion: StudyLesion, source: Grid, shown: Grid) -> dict[str, Any]:
    """A lesion for the page: its place and box on the grid that is shown, and its place for the viewer."""
    place = source.to_patient(lesion.centre_zyx[::-1])
    x, y, z = (round(value) for value in shown.to_indices(place).tolist())
    left, posterior, superior = place.tolist()
    first, after = np.array(lesion.box_zyx)
    ends = np.rint(shown.to_indices(source.to_patient(np.stack([first, after - 1])[:, ::-1])))[:, ::-1]
    measured = lesion.measured
    return {
        "number": measured.number,
        "label": measured.name,
        "voxels": measured.voxels,
        "volume_mm3": measured.volume_mm3,
        "longest_mm": measured.longest_axial.length_mm,
        "across_mm": measured.perpendicular.length_mm,
        "centroid_lps_mm": measured.centroid_lps_mm,
        "centre_zyx": (z, y, x),
        "centre_ras_mm": (-left, -posterior, superior),
        "box_zyx": (ends.min(axis=0).astype(int).tolist(), (ends.max(axis=0) + 1).astype(int).tolist()),
        "parts": len(lesion.parts),
        "mean": lesion.mean,
        "maximum": lesion.maximum,
    }


def _windows(values: NDArray[Any], modality: str, header: Dataset) -> dict[str, tuple[float, float]]:
    """Names of windows to their lowest and highest value, the first one to begin with.

    MR and PET have no common scale: their windows are parts of the automatic one, which holds nearly all values.
    """
    sample = values.reshape(-1)[:: max(1, values.size // _SAMPLED)].astype(np.float64)
    sample = sample[np.isfinite(sample)]
    low, high = np.percentile(sample, [1, 99.5]) if sample.size else (0.0, 1.0)
    if modality == "PT" and sample.size:
        low, high = 0.0, float(np.percentile(sample, 99.8))
    if high <= low:
        high = low + 1
    found = {"Automatic": (float(low), float(high))}
    try:
        (centre,), (width,) = (
            numbers(header, keyword, 1, "image") for keyword in ("WindowCenter", "WindowWidth")
        )
        if width >= 1:
            found["As sent"] = (centre - width / 2, centre + width / 2)
    except DataError:  # none, or several
        pass
    if modality == "CT":
        return found | _CT_WINDOWS
    quarter = 0.0 if modality == "PT" else (high - low) / 4
    whole = (float(sample.min()), float(sample.max())) if sample.size else found["Automatic"]
    return found | {
        "Narrow": (float(low + quarter), float((low + high) / 2 + quarter)),
        "Wide": whole if whole[1] > whole[0] else found["Automatic"],
    }
