"""The segments that 3D Slicer names in the header of a .seg.nrrd file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_KEY = re.compile(r"Segment(\d+)_(?:LabelValue|Name|Layer)")


@dataclass(frozen=True)
class Segment:
    """A named structure of a segmentation file.

    Attributes:
        value: its label value.
        name: its name, one line; empty if the file gives none.
        layer: the volume of the file that holds it, from 0; segments of two layers may overlap.
    """

    value: int
    name: str
    layer: int = 0


def segments_in(fields: Mapping[str, str]) -> tuple[Segment, ...]:
    """The segments in a NRRD header's key/value pairs, in the file's order; those without a whole value are left out.

    Source: 3D Slicer's documentation of the segmentation file format, "SegmentN_LabelValue", "_Name" and "_Layer".
    """
    numbers = sorted({int(found[1]) for key in fields if (found := _KEY.fullmatch(key))})
    segments = []
    for number in numbers:
        value, layer = (_whole(fields.get(f"Segment{number}_{key}", "")) for key in ("LabelValue", "Layer"))
        name = " ".join(fields.get(f"Segment{number}_Name", "").encode(errors="replace").decode().split())
        if value is not None:
            segments.append(Segment(value, name, layer or 0))
    return tuple(segments)


def _whole(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
