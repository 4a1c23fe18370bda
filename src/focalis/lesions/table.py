"""The table of lesions: one row each, as CSV for people and as JSON for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from focalis.errors import UsageError
from focalis.lesions.measures import Lesion

MOST_SHOWN = 3


def lesion_row(lesion: Lesion) -> dict[str, Any]:
    """A lesion as one flat row: names with units, places as x, y, z in mm (LPS); None where unknown."""
    x, y, z = lesion.centroid_lps_mm
    return {
        "lesion": lesion.number,
        "label": lesion.label,
        "name": lesion.name,
        "voxels": lesion.voxels,
        "volume_mm3": round(lesion.volume_mm3, 3),
        "longest_axial_mm": round(lesion.longest_axial.length_mm, 2),
        "perpendicular_mm": round(lesion.perpendicular.length_mm, 2),
        "longest_3d_mm": round(lesion.longest_3d.length_mm, 2),
        "centroid_x_mm": round(x, 2),
        "centroid_y_mm": round(y, 2),
        "centroid_z_mm": round(z, 2),
        "slice_axis": lesion.slice_axis,
        "slice_index": lesion.slice_index,
        "mean_probability": _rounded(lesion.mean_probability),
        "confidence": _rounded(lesion.confidence),
        "uncertainty": _rounded(lesion.uncertainty),
    }


COLUMNS = (
    "lesion",
    "label",
    "name",
    "voxels",
    "volume_mm3",
    "longest_axial_mm",
    "perpendicular_mm",
    "longest_3d_mm",
    "centroid_x_mm",
    "centroid_y_mm",
    "centroid_z_mm",
    "slice_axis",
    "slice_index",
    "mean_probability",
    "confidence",
    "uncertainty",
)
"""The columns of a lesion, in their order."""


class LesionTable(tuple[Lesion, ...]):
    """The lesions of a mask; in a notebook a table."""

    __slots__ = ()

    def to_pandas(self) -> Any:
        """A pandas DataFrame with a row per lesion and the columns `COLUMNS`.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise UsageError("a data frame needs pandas; install it: pip install pandas") from None
        return pandas.DataFrame([lesion_row(lesion) for lesion in self], columns=list(COLUMNS))

    def to_csv(self) -> str:
        """The table as CSV text."""
        return as_csv([lesion_row(lesion) for lesion in self])

    def __repr__(self) -> str:
        shown = ", ".join(f"{each.name} {each.volume_mm3:.4g} mm3" for each in self[:MOST_SHOWN])
        more = f", and {len(self) - MOST_SHOWN} more" if len(self) > MOST_SHOWN else ""
        return f"<{len(self)} lesions{': ' if self else ''}{shown}{more}>"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in COLUMNS)
        body = "".join(
            "<tr>"
            + "".join(
                f"<td>{escape('' if cell is None else str(cell))}</td>"
                for cell in lesion_row(lesion).values()
            )
            + "</tr>"
            for lesion in self
        )
        return f"<table><tr>{head}</tr>{body}</table>"


def as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = COLUMNS) -> str:
    """Rows as CSV text with a header; None is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _rounded(value: float | None) -> float | None:
    """Six digits: enough to keep the order of confidences near 1."""
    return None if value is None else round(value, 6)
