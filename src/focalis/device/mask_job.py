"""A mask of an image that a viewer asks for: nothing of it is kept or sent."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focalis.device.job_settings import settings_within
from focalis.device.named_images import link_slices, told_without
from focalis.errors import DataError, FocalisError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from focalis.model import Model
    from focalis.prediction import Segmentation
    from focalis.volume import Outline, Volume

Voxel = tuple[int, int, int]
"""x, y, z from 0, in the image's own order."""


@dataclass(frozen=True)
class MaskJob:
    """An image to segment.

    Attributes:
        images: an image file, or the files of a DICOM series; file to Instance Number, None without one.
        series: whether they are a DICOM series.
        out: the file to write; its suffix says how.
        points_xyz: for a guided model, the voxels that a person clicked.
        dtype: of the values in a plain .nrrd; empty for uint16, or wider if the labels need it.
    """

    images: dict[str, int | None]
    series: bool
    out: str
    points_xyz: list[Voxel]
    model: str
    model_sha256: str
    memory_gb: float
    charset: str
    dtype: str = ""


def mask(job: MaskJob, models: dict[str, Model]) -> dict[str, Any]:
    """Segment an image and write its mask on the image's own grid.

    Returns:
        {"outcome": "done", "label_names": name to value of the labels that the mask holds, "centroids": name to value
        and centre (x, y, z, voxels from 0) of the same, "lesions": a row each, see `focalis.lesions.lesion_row`,
        "outside": in what the image lies outside of what the model was trained on, one line, or "", "points": what
        became of each point}, or {"outcome": "refused" | "failed", "reason": ...}.
    """
    try:
        with tempfile.TemporaryDirectory(dir=Path(job.out).parent) as folder:
            links = Path(folder, "image")
            try:
                return _mask(job, models, links)
            except FocalisError as error:
                return {"outcome": "refused", "reason": told_without(links, error)}
    except MemoryError:
        return {"outcome": "failed", "reason": "ran out of memory"}
    except Exception as error:
        return {"outcome": "failed", "reason": f"unexpected {type(error).__name__}: {error}"}


def _mask(job: MaskJob, models: dict[str, Model], links: Path) -> dict[str, Any]:
    import numpy as np

    from focalis.device.models import loaded_model
    from focalis.lesions import lesion_row
    from focalis.planning import other_modalities
    from focalis.prediction import Place, require_memory, segment, segment_at
    from focalis.workflows.scope import check_scope, outside_line

    model = loaded_model(job.model, job.model_sha256, models)
    greatest = max(model.plan.labels)
    if job.dtype and greatest > np.iinfo(job.dtype).max:
        raise DataError(f"the model has a label {greatest}, which {job.dtype} cannot hold; ask for uint16")
    settings = settings_within(job.memory_gb)

    def admit(outline: Outline, modality: str) -> None:
        if strange := other_modalities(model.plan, [modality] if modality else []):
            raise DataError(f"the series {outside_line(strange)}; choose a model for such images")
        if not job.points_xyz:
            require_memory(model, [outline], settings)

    volume, modality = _read(job, links, admit)
    places = [Place((tuple(point),), voxel=True) for point in job.points_xyz]
    outside = check_scope(model, [volume], [modality] if modality else [], places=places)
    found = segment_at(model, [volume], places, settings) if places else segment(model, [volume], settings)
    _write(found, Path(job.out), job.dtype)
    return {
        "outcome": "done",
        **_told(found.mask, model.plan.labels),
        "lesions": [lesion_row(each) for each in found.lesions],
        "outside": outside_line(outside) if outside else "",
        "points": [f"point {each.place} {each.said}" for each in found.pointed],
    }


def _read(job: MaskJob, links: Path, admit: Callable[[Outline, str], None]) -> tuple[Volume, str]:
    from focalis.dicom import read_series
    from focalis.volume import read_outlines, read_volume

    if job.series:
        series = read_series(tuple(link_slices(job.images, links)), admit, job.charset)
        return series.volume, series.modality
    (file,) = (Path(file) for file in job.images)
    links.mkdir()
    path = links / f"the image{''.join(file.suffixes)}"
    path.symlink_to(file.absolute())
    for outline in read_outlines([path]):
        admit(outline, "")
    return read_volume(path), ""


def _write(found: Segmentation, out: Path, dtype: str) -> None:
    """Write the mask; a plain .nrrd as it lies in memory, for viewers in the browser that unpack nothing.

    OHIF reads its bytes as the type that it asked for, whatever the header says.
    """
    if out.suffix != ".nrrd" or out.name.endswith(".seg.nrrd"):
        found.save(out)
        return
    import numpy as np
    import SimpleITK as sitk

    from focalis.volume import Volume, to_sitk

    values = found.mask.astype(dtype or np.promote_types(found.mask.dtype, np.uint16))
    image = to_sitk(Volume(values, found.grid))
    sitk.WriteImage(image, str(out), useCompression=False)


def _told(found: NDArray[np.integer], labels: Mapping[int, str]) -> dict[str, Any]:
    """The labels that a mask holds: 3D Slicer names the values that it finds by this list, in its order."""
    import numpy as np

    present = {name: int(value) for value, name in sorted(labels.items()) if (found == value).any()}
    return {
        "label_names": present,
        "centroids": {
            name: [value, *np.argwhere(found == value).mean(axis=0)[::-1].round(2).tolist()]
            for name, value in present.items()
        },
    }
