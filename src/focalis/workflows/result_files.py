"""What `predict` writes of a case: masks in every format, DICOM objects, and what lies in the folder already."""

from __future__ import annotations

from collections.abc import Sequence, Set
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from focalis.files import write_text
from focalis.model import Model
from focalis.prediction import Segmentation
from focalis.volume import Volume, itksnap_labels, write_volume
from focalis.workflows.lesion_tables import tabled_cases
from focalis.workflows.model_record import collapse_alert
from focalis.workflows.training_cases import Seen

if TYPE_CHECKING:
    from focalis.dicom import Origin, Series

Format = Literal["nifti", "nrrd", "seg", "rtstruct"]
"""What results are written as: NIfTI label maps, 3D Slicer's segmentations, DICOM Segmentations, RT Structure Sets."""

ENDINGS: dict[Format, str] = {
    "nifti": ".nii.gz",
    "nrrd": ".seg.nrrd",
    "seg": "_seg.dcm",
    "rtstruct": "_rtstruct.dcm",
}
ITKSNAP = "itksnap_labels.txt"
"""Beside NIfTI masks: names and colours of the labels, as ITK-SNAP reads them."""


def older_masks(folder: Path, written: Set[Path | None], others: Set[str]) -> int:
    """How many masks with a table of lesions lie in a folder that were not written now, and are not of `others`."""
    masks = {
        folder / f"{case}{ending}" for case in {*tabled_cases(folder)} - others for ending in ENDINGS.values()
    } - written
    return sum(mask.is_file() for mask in masks)


def require_dicom_uids(source: Series) -> None:
    """Refuse before the work what cannot be written after it."""
    from focalis.dicom.source_identity import require_uids

    require_uids(source)


def _origin(
    model: Model, outside: Sequence[str], seen: Seen | None, missing: Sequence[str], *, pointed: bool
) -> Origin:
    from focalis.dicom import Origin
    from focalis.workflows.cautions import cautions_of

    cautions = cautions_of(outside=outside, seen=seen, collapse=collapse_alert(model), missing=missing)
    return Origin(model.identity, version("focalis"), cautions=cautions, pointed=pointed)


def write_points_report(
    found: Segmentation,
    source: Series,
    model: Model,
    segmentation: Path,
    path: Path,
    outside: Sequence[str],
    seen: Seen | None,
    missing: Sequence[str],
) -> None:
    """Write the Structured Report to a Segmentation."""
    from focalis.dicom import as_reported, write_report

    write_report(
        as_reported(enumerate(found.lesions, start=1), model.plan.labels),
        found.mask,
        model.plan.labels,
        source,
        segmentation,
        path,
        _origin(model, outside, seen, missing, pointed=True),
        remarks=["Each lesion was pointed at by a person."],
    )


def write_result(
    output_format: Format,
    label: Volume,
    source: Series | None,
    model: Model,
    path: Path,
    outside: Sequence[str],
    seen: Seen | None,
    missing: Sequence[str],
    *,
    pointed: bool,
) -> bool:
    """Write a result; returns whether there is a file. `pointed`: whether a person pointed at each lesion."""
    if output_format == "nifti":
        write_volume(label, path)
        write_text(path.with_name(ITKSNAP), itksnap_labels(model.plan.labels))
        return True
    if output_format == "nrrd":
        write_volume(label, path, model.plan.labels)
        return True
    from focalis.dicom import write_segmentation, write_structures

    assert source is not None
    write = write_segmentation if output_format == "seg" else write_structures
    origin = _origin(model, outside, seen, missing, pointed=pointed)
    written = write(label.array, model.plan.labels, source, path, origin)
    return written is not False
