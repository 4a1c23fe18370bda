"""The places that a person points at, as they are given: numbers, and files of points."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from focalis.errors import DataError, UsageError
from focalis.prediction import Place

if TYPE_CHECKING:
    from focalis.dicom import Series

Given: TypeAlias = "str | Path | Place | Sequence[float] | Sequence[Sequence[float]]"
"""A point "X,Y,Z" or (x, y, z), a line "X,Y,Z:X,Y,Z" or two such ends, or a file of points."""

_COLUMNS = {
    ("x", "y", "z"): "LPS",
    ("x_mm", "y_mm", "z_mm"): "LPS",
    ("centroid_x_mm", "centroid_y_mm", "centroid_z_mm"): "LPS",
    ("l", "p", "s"): "LPS",
    ("r", "a", "s"): "RAS",
    ("i", "j", "k"): "voxel",
}
"""Columns of a CSV file, and what their numbers are; a line's second end has the same with a 2 behind."""
_FILES = "a .csv, a .mrk.json or .fcsv of 3D Slicer, a DICOM SR or RTSTRUCT"
_FCSV_COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
_FCSV_SYSTEMS = {"0": "RAS", "1": "LPS", "RAS": "RAS", "LPS": "LPS"}


def places_given(at: Given | Iterable[Given], at_voxel: Given | Iterable[Given] = ()) -> tuple[Place, ...]:
    """The places that are meant.

    Args:
        at: points and lines in mm in the patient (LPS), and files of points; or one point, text or file alone.
        at_voxel: points and lines as indices x, y, z of voxels, from 0; likewise.

    Raises:
        UsageError: something is neither numbers nor a file.
        DataError: a file cannot be used, or holds no point; it is named.
    """
    found = [place for each in _several(at) for place in _places(each, voxel=False)]
    found += [place for each in _several(at_voxel) for place in _places(each, voxel=True)]
    return tuple(found)


def _several(given: Any) -> Iterable[Given]:
    """What is given, or the one thing that is."""
    if isinstance(given, str | Path | Place):
        return [given]
    given = list(given)
    return [given] if len(given) == 3 and all(isinstance(each, Real) for each in given) else given


def on_series(places: Sequence[Place], series: Series | None) -> tuple[Place, ...]:
    """The places in an image: those that were drawn on a slice as its voxels, the others as they are.

    Args:
        series: the DICOM series of the image; None for a file of another format.

    Raises:
        DataError: a place belongs to another frame of reference, or was drawn on another image.
    """
    found = []
    for place in places:
        if series is None and place.image:
            raise DataError(f"point {place}: was drawn on a DICOM image; give its DICOM series, not a copy")
        if series is None:
            found.append(place)
            continue
        own = str(series.header.get("FrameOfReferenceUID") or "")
        if place.frame and own and place.frame != own:
            raise DataError(
                f"point {place}: its mm belong to another frame of reference than the series; give the series that it "
                "was drawn on, or place it anew"
            )
        if place.image:
            slices = {
                key: z for z, key in enumerate(zip(series.instance_uids, series.frame_numbers, strict=True))
            }
            at = [slices.get((place.image, int(frame))) for _, _, frame in place.ends]
            if None in at:
                raise DataError(
                    f"point {place}: was drawn on an image that is not in the series; give that one"
                )
            ends = tuple((x, y, float(z or 0)) for (x, y, _), z in zip(place.ends, at, strict=True))
            place = replace(place, ends=ends, voxel=True, image="")
        found.append(place)
    return tuple(found)


def _places(given: Given, *, voxel: bool) -> Sequence[Place]:
    if isinstance(given, Place):
        return [given]
    if isinstance(given, str | Path):
        ends = _numbers(str(given))
        if ends is None:
            if voxel:
                raise UsageError(f"{given!s}: is not a voxel; give I,J,K: its indices x, y, z from 0")
            return _read(Path(given))
    else:
        try:
            rows = np.atleast_2d(np.asarray(given, dtype=np.float64))
            ends = tuple(tuple(row) for row in rows.tolist())
        except (TypeError, ValueError):
            raise UsageError(f"{given!r}: is not a point; give three numbers x, y, z") from None
    return [Place(ends, voxel=voxel)]


def _numbers(text: str) -> tuple[tuple[float, ...], ...] | None:
    """The ends that a text names; None if it is not a list of numbers."""
    try:
        return tuple(tuple(float(value) for value in end.split(",")) for end in text.split(":"))
    except ValueError:
        return None


def _read(path: Path) -> Sequence[Place]:
    """The places of a file; one without any is an error."""
    if not path.is_file():
        raise UsageError.at(path, "is neither a point nor a file", f"give X,Y,Z in mm (LPS), or {_FILES}")
    name = path.name.lower()
    readers = {".mrk.json": _markups, ".json": _markups, ".fcsv": _fcsv, ".csv": _csv}
    reader = next((read for ending, read in readers.items() if name.endswith(ending)), None)
    if reader is None:
        return _dicom(path)
    try:
        found = reader(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        raise DataError.at(path, f"its points cannot be read ({error})", "export them again") from error
    if not found:
        raise DataError.at(path, "holds no point", "mark at least one lesion")
    return found


def _dicom(path: Path) -> Sequence[Place]:
    from focalis.dicom import is_dicom
    from focalis.dicom.drawn_points import read_points

    if not is_dicom(path):
        raise UsageError.at(path, "is not a file of points", f"give {_FILES}")
    return [
        Place(each.ends, name=each.name, frame=each.frame, image=each.image) for each in read_points(path)
    ]


def _csv(text: str) -> Sequence[Place]:
    """A table with a header row, see `_COLUMNS`; a semicolon or a tab may stand for the comma."""
    header = text.partition("\n")[0]
    delimiter = next((mark for mark in ";\t" if mark in header), ",")
    rows = csv.DictReader(text.splitlines(), delimiter=delimiter)
    names = {str(field).strip().lower(): field for field in rows.fieldnames or ()}
    found = [each for each in _COLUMNS if set(each) <= set(names)]
    if not found:
        raise ValueError("its header names no columns x,y,z (mm, LPS), r,a,s (mm, RAS) or i,j,k (voxels)")
    if len(found) > 1:
        raise ValueError(f"its header names {' and '.join(map(','.join, found))}; keep one of them")
    (columns,) = found
    seconds = tuple(f"{column}2" for column in columns)
    label = names.get("name", names.get("label"))
    places = []
    for row in rows:
        cells = {name: str(row[field] or "").strip() for name, field in names.items()}
        is_placed = cells.get("defined", "1") != "0"  # 3D Slicer says so of a point
        if not any(cells.values()) or not is_placed:
            continue
        ends = [[_number(cells[column], delimiter) for column in columns]]
        if set(seconds) <= set(names) and any(cells[column] for column in seconds):
            ends.append([_number(cells[column], delimiter) for column in seconds])
        places.append(_place(ends, _COLUMNS[columns], str(row[label] or "").strip() if label else ""))
    return places


def _number(text: str, delimiter: str) -> float:
    return float(text if delimiter == "," else text.replace(",", "."))


def _markups(text: str) -> Sequence[Place]:
    """Markups of 3D Slicer: fiducials and lines."""
    content = json.loads(text)
    if not isinstance(content, Mapping) or "markups" not in content:
        raise ValueError("it is not a markups file of 3D Slicer")
    found: list[Place] = []
    for markup in content["markups"]:
        kind, system = markup["type"], markup.get("coordinateSystem", "LPS")
        if system not in ("LPS", "RAS"):
            raise ValueError(f"its coordinate system is {system!r}, neither LPS nor RAS")
        units = markup.get("coordinateUnits", "mm")
        if set([units] if isinstance(units, str) else units) != {"mm"}:
            raise ValueError(f"its coordinates are in {units}, not in mm")
        points = [
            point for point in markup["controlPoints"] if point.get("positionStatus", "defined") == "defined"
        ]
        if kind == "Fiducial":
            found += [_place([each["position"]], system, str(each.get("label") or "")) for each in points]
        elif kind == "Line" and len(points) == 2:
            found.append(
                _place([each["position"] for each in points], system, str(points[0].get("label") or ""))
            )
        else:
            raise ValueError(f"it holds a {kind} of {len(points)} points; use points and lines of two points")
    return found


def _fcsv(text: str) -> Sequence[Place]:
    """Fiducials of 3D Slicer before its version 5."""
    lines = text.splitlines()
    said = dict(line.lstrip("# ").split(" = ", 1) for line in lines if line.startswith("#") and " = " in line)
    system = _FCSV_SYSTEMS.get(said.get("CoordinateSystem", "").strip())
    if system is None:
        raise ValueError("it does not say whether its coordinates are LPS or RAS")
    columns = said.get("columns", _FCSV_COLUMNS).strip().split(",")
    rows = csv.DictReader((line for line in lines if line and not line.startswith("#")), columns)
    return [_place([[float(row[axis]) for axis in "xyz"]], system, row.get("label") or "") for row in rows]


def _place(ends: Sequence[Sequence[Any]], system: str, name: str) -> Place:
    turned = [[float(value) for value in end] for end in ends]
    if system == "RAS":
        turned = [[-end[0], -end[1], *end[2:]] for end in turned]
    return Place(tuple(map(tuple, turned)), voxel=system == "voxel", name=name)
