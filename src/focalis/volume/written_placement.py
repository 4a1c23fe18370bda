"""What a NRRD or MetaImage header says of where its voxels lie, and what it says wrong or not at all.

SimpleITK takes a negative spacing for a mirrored axis, one that is not a number for 1, and every length for
millimetres.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from focalis.errors import DataError

_PATIENT = ("right-", "left-", "ras", "las", "lps")
_LENGTHS = {"m", "cm", "um", "µm", "μm", "nm", "in", "inch", "micron", "microns"} | {
    f"{prefix}{unit}{plural}"
    for prefix in ("", "centi", "micro", "nano")
    for unit in ("meter", "metre")
    for plural in ("", "s")
}
"""Units of length other than millimetres, in small letters."""
_META_MATRIX = ("TransformMatrix", "Rotation", "Orientation")
_META_ORIGIN = ("Offset", "Position", "Origin")
_LETTERS = ("RL", "AP", "IS")
_CLEARLY = 0.8
"""Cosine from which an image axis clearly runs along one of the patient's."""


def require_nrrd_placement(path: Path, fields: Mapping[str, str]) -> None:
    """Refuse spacings below 0 or that are not numbers, axes without a direction, and other units of length than mm.

    Source: the NRRD format definition (teem.sourceforge.net/nrrd/format.html), sections 5 and 6.

    Args:
        fields: field to value, field names in small letters.

    Raises:
        DataError: the line names the field.
    """
    spacings = _numbers(path, "spacings", fields.get("spacings", ""))
    missing = sum(math.isnan(spacing) for spacing in spacings)
    if any(spacing <= 0 for spacing in spacings) or missing > max(0, len(spacings) - 3):
        raise _wrong(path, "spacings", fields["spacings"])
    directions = fields.get("space directions", "")
    dimension = int(fields["dimension"])
    if directions.lower().count("none") > max(0, dimension - 3):
        raise _wrong(path, "space directions", directions)
    for old in ("axis mins", "axis maxs", "axismins", "axismaxs"):
        if old in fields:
            raise DataError.at(
                path, f"is placed by {old}, which programs read differently", "give space directions"
            )
    field = "space units" if "space units" in fields else "units"
    _require_mm(path, field, fields.get(field, "").replace('"', " ").split())


def require_meta_placement(path: Path, tags: Mapping[str, str]) -> None:
    """Refuse spacings and origins that are below 0, no number or of another number of axes, and units other than mm.

    Source: the MetaIO documentation, "MetaImage tags".

    Raises:
        DataError: the line names the tag.
    """
    axes = int(tags["NDims"])
    for tag in ("DimSize", "ElementSpacing", "ElementSize", *_META_ORIGIN, *_META_MATRIX):
        if tag not in tags:
            continue
        numbers = _numbers(path, tag, tags[tag])
        wanted = axes * axes if tag in _META_MATRIX else axes
        if len(numbers) != wanted:
            raise DataError.at(
                path,
                f"its {tag} holds {len(numbers)} numbers, and {wanted} are needed for {axes} axes",
                "correct the header or export the image again",
            )
        least = 0 if tag.startswith(("Element", "Dim")) else -math.inf
        if not all(least < number < math.inf for number in numbers):
            raise _wrong(path, tag, tags[tag])
    _require_mm(path, "DistanceUnits", tags.get("DistanceUnits", "").split())


def nrrd_lacks(fields: Mapping[str, str]) -> str:
    """The fields by which a NRRD header would say how the image lies, a phrase; empty if it has them."""
    if "space directions" not in fields:
        return (
            "it has no space directions" if "spacings" in fields else "it has no space directions or spacings"
        )
    return "" if fields.get("space", "").lower().startswith(_PATIENT) else "it names no space of the patient"


def meta_lacks(tags: Mapping[str, str]) -> str:
    """The tags by which a MetaImage header would say how the image lies, a phrase; empty if it has them."""
    if "ElementSpacing" not in tags and "ElementSize" not in tags:
        return "it has no ElementSpacing"
    return "" if any(tag in tags for tag in _META_MATRIX) else "it has no TransformMatrix"


def meta_contradiction(tags: Mapping[str, str]) -> str:
    """How AnatomicalOrientation contradicts the matrix, a phrase; empty if they agree or one says nothing.

    The letters say where each axis comes from, as ITK writes them, or where it leads to, as others do.
    """
    stated = tags.get("AnatomicalOrientation", "").upper()
    tag = next((tag for tag in _META_MATRIX if tag in tags), "")
    matrix = tags.get(tag, "").split()
    if len(matrix) != 9 or len(stated) != 3 or not set(stated) <= set("RLAPIS"):
        return ""
    start = end = ""
    for axis in range(3):
        row = [float(number) for number in matrix[3 * axis : 3 * axis + 3]]
        main = max(range(3), key=lambda place: abs(row[place]))
        if abs(row[main]) < _CLEARLY:
            return ""
        pair = _LETTERS[main][:: 1 if row[main] > 0 else -1]
        start, end = start + pair[0], end + pair[1]
    if stated in (start, end):
        return ""
    return f"its AnatomicalOrientation is {stated}, its {tag} says {start}, which is used"


def _numbers(path: Path, field: str, text: str) -> list[float]:
    try:
        return [float(number) for number in text.split()]
    except ValueError:
        raise _wrong(path, field, text) from None


def _require_mm(path: Path, field: str, units: Sequence[str]) -> None:
    other = next((unit for unit in units if unit.lower() in _LENGTHS), None)
    if other is not None:
        raise DataError.at(path, f"its lengths are in {other} ({field}), not in mm", "export it in mm")


def _wrong(path: Path, field: str, value: str) -> DataError:
    return DataError.at(path, f"its {field} is {value}", "correct the header or export the image again")
