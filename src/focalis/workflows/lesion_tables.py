"""The tables of lesions that prediction writes beside its masks, and evaluation reads again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focalis.errors import DataError
from focalis.evaluation import CaseLesions, VoxelCounts, count_voxels, judge_lesions
from focalis.files import write_text
from focalis.lesions import CONNECTIVITY, MEASURING_RULE, Lesion, LesionTable, Line, label_components, temper
from focalis.volume import Volume, read_volume
from focalis.workflows.record import read_json, write_json
from focalis.workflows.training_cases import SEEN, Seen, as_seen

MISSING = "channels_missing"
"""In a table of lesions: the channels that the case was predicted without."""
OUTSIDE = "outside"
"""In a table of lesions: in what the images lie outside of what the model was trained on, a phrase each."""
ORIGINS = "images_sha256"
"""In a table of lesions: per channel the hash of the series' UID or the file's place, see `CaseInput.origins`."""
FOLDER = "lesions"


def table_paths(out: Path, case: str) -> tuple[Path, Path]:
    """The CSV and the JSON file of a case whose mask lies in `out`."""
    return out / FOLDER / f"{case}.csv", out / FOLDER / f"{case}.json"


def tabled_cases(out: Path) -> list[str]:
    """The cases that have a table beside their masks in `out`."""
    return sorted(path.stem for path in (out / FOLDER).glob("*.json"))


def write_lesions(out: Path, case: str, lesions: Sequence[Lesion], how: Mapping[str, Any]) -> None:
    """Write the table of a case as CSV and JSON, each whole or not at all.

    Args:
        how: what was reported as a lesion, and by which model; goes into the JSON file as it is.
    """
    table, document = table_paths(out, case)
    write_text(table, LesionTable(lesions).to_csv())
    write_json(
        document,
        {
            "version": 1,
            "focalis": version("focalis"),
            "case": case,
            "connectivity": CONNECTIVITY,
            "measuring": MEASURING_RULE,
            "coordinates": "x, y, z in mm in the patient (LPS); slice_index counts from 0",
            **how,
            "lesions": [asdict(lesion) for lesion in lesions],
        },
    )


def read_lesions(out: Path, case: str) -> tuple[tuple[Lesion, ...], float] | None:
    """The lesions of a case and the temperature of their probabilities; None if there is no table.

    Raises:
        DataError: the JSON file cannot be read, or holds something else.
    """
    path = table_paths(out, case)[1]
    if not path.exists():
        return None
    content = read_json(path)
    try:
        lesions = tuple(_lesion(row) for row in content["lesions"])
        return lesions, float(content["temperature"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError.at(
            path, f"is not a table of lesions ({error!r})", "predict again, or move it away"
        ) from error


def read_missing(out: Path, case: str) -> tuple[str, ...]:
    """The channels that a case was predicted without, as its table says.

    Raises:
        DataError: the JSON file cannot be read.
    """
    path = table_paths(out, case)[1]
    content = read_json(path) if path.exists() else None
    missing = content.get(MISSING) if isinstance(content, Mapping) else None
    return tuple(str(name) for name in missing) if isinstance(missing, list) else ()


def read_seen(out: Path, case: str) -> Seen | None:
    """What a case was used for when the model of its mask was made; None if for nothing, or if that is not known.

    Raises:
        DataError: the JSON file cannot be read.
    """
    path = table_paths(out, case)[1]
    if not path.exists():
        return None
    content = read_json(path)
    return as_seen(content.get(SEEN) if isinstance(content, Mapping) else None)


def case_lesions(
    case: str,
    truth: Volume,
    prediction: Volume,
    folder: Path,
    names: Mapping[int, str],
    ignore: int | None = None,
    minimum_mm3: float = 0.0,
) -> CaseLesions:
    """The lesions of a case, with their confidence if its table lies in the folder of the predictions.

    With OUT/probabilities/CASE.nii.gz the voxels near the boundary are counted too.

    Raises:
        DataError: the table or the probabilities belong to another mask.
    """
    found = read_lesions(folder, case)
    known, temperature = found if found is not None else (None, 1.0)
    if known is not None and not _belongs(known, prediction, names):
        raise DataError.at(
            table_paths(folder, case)[1],
            f"does not belong to {case}'s mask",
            "predict again, or move it away",
        )
    judged, candidates = judge_lesions(
        case, truth, prediction, names, known=known, ignore=ignore, minimum_mm3=minimum_mm3
    )
    counts = None
    path = folder / "probabilities" / f"{case}.nii.gz"
    if known is not None and path.exists():
        probability = read_volume(path)
        if differences := probability.grid.differences(truth.grid):
            raise DataError.at(
                path, f"lies on another grid than the mask ({'; '.join(differences)})", "predict again"
            )
        raw = temper(probability.array.astype(np.float32), 1 / temperature)
        counts = boundary_counts(truth, raw, names, ignore)
    return CaseLesions(judged, None if known is None else candidates, counts, temperature)


def boundary_counts(
    truth: Volume, probability: NDArray[np.float32], names: Mapping[int, str], ignore: int | None
) -> VoxelCounts:
    """The voxels near the boundary of all labels together, by their foreground probability."""
    judged = None if ignore is None else np.asarray(truth.array != ignore)
    return count_voxels(np.isin(truth.array, list(names)), probability, truth.grid.spacing_zyx_mm, judged)


def _belongs(known: Sequence[Lesion], prediction: Volume, names: Mapping[int, str]) -> bool:
    """Whether these are the lesions of the mask: as many of each label, of the same sizes in the same order."""
    for value in names:
        components, count = label_components(prediction.array == value)
        sizes = np.bincount(components.ravel(), minlength=count + 1)[1:].tolist()
        if [lesion.voxels for lesion in known if lesion.label == value] != sizes:
            return False
    return True


def _lesion(row: Mapping[str, Any]) -> Lesion:
    lines = {}
    for name in ("longest_axial", "perpendicular", "longest_3d"):
        first, second = (tuple(end) for end in row[name]["ends_lps_mm"])
        lines[name] = Line(float(row[name]["length_mm"]), (first, second))
    return Lesion(**{**row, **lines, "centroid_lps_mm": tuple(row["centroid_lps_mm"])})
