"""The child process that segments: reads jobs from stdin, one JSON line each, answers on stdout.

It alone of the device loads torch, and it segments by torch, so that a result does not hang on which run time a machine
measured as the fastest. It ends when its stdin does, so it never outlives the device, however that one
ends. Each answer is a line {"state": ...} for a step begun, or {"outcome": ...} at the end.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focalis.children import requests, silence_parsers, take_over_output
from focalis.device.config import OutsidePolicy
from focalis.device.job_settings import settings_within
from focalis.device.mask_job import MaskJob, mask
from focalis.errors import DataError, FileWarning, FocalisError, ModelError, disk_is_full

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from focalis.device.following import FollowUp
    from focalis.dicom import Series
    from focalis.model import Model
    from focalis.prediction import Settings
    from focalis.volume import Outline

_OUTSIDE_ADVICE = "send it to a model for such images, or release it"


@dataclass(frozen=True)
class SeriesJob:
    """One series to segment.

    Attributes:
        files: file to Instance Number, None without one.
        folder: an empty folder for the results.
        supersedes: kind of result to the file of the earlier one that is replaced.
        created: when the task was made, in ISO 8601; the results have this time, so that a repetition makes the same
            bytes. Empty for the time of the images.
        edition: which results of the series these are, from 1.
        by: the model's name where several segment the series, for the descriptions of the results.
        partial: why the series is not whole; empty if it is.
        other_modality: what to do with a series of another modality than the model's.
        outside: what to do with one that lies outside of what the model was trained on otherwise.
        leave_out: leave out images of another orientation or size than nearly all others.
        beside: the Segmentation with which the findings are compared, for a model on trial.
        earlier: studies that may be of the same person, each as `focalis.device.records.EarlierStudy`.
    """

    files: dict[str, int | None]
    model: str
    model_sha256: str
    folder: str
    version: str
    memory_gb: float
    supersedes: dict[str, str]
    created: str = ""
    edition: int = 1
    by: str = ""
    partial: str = ""
    other_modality: OutsidePolicy = "refuse"
    outside: OutsidePolicy = "mark"
    charset: str = "latin-1"
    leave_out: bool = False
    beside: str = ""
    earlier: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class PointJob:
    """A lesion to segment at a point of a study that a person looks at.

    Attributes:
        image, dtype: the uncompressed NIfTI file of the study's view, and the type of its values.
        point_zyx: the voxel that was clicked.
        model, model_sha256, memory_gb: as in `SeriesJob`.
    """

    image: str
    dtype: str
    point_zyx: tuple[int, int, int]
    model: str
    model_sha256: str
    memory_gb: float


def point(job: PointJob, models: dict[str, Model]) -> dict[str, Any]:
    """Segment the lesion at a point, from the image that the page shows.

    Returns:
        {"outcome": "done", "said": what became of the point, "label": the name of the lesion's label, "voxels_zyx": its
        voxels, none if there is no lesion}, or {"outcome": "refused" | "failed", "reason": ...}.
    """
    import numpy as np

    from focalis.device.models import loaded_model
    from focalis.prediction import Place, segment_at
    from focalis.volume import NIFTI_HEADER_BYTES, Volume, read_outlines

    try:
        model = loaded_model(job.model, job.model_sha256, models)
        place = Place((tuple(job.point_zyx[::-1]),), voxel=True)
        settings = settings_within(job.memory_gb)
        grid = read_outlines([Path(job.image)])[0].grid
        values = np.memmap(job.image, job.dtype, "r", NIFTI_HEADER_BYTES, grid.shape_zyx)
        found = segment_at(model, [Volume(values, grid)], [place], settings)
    except FocalisError as error:
        return {"outcome": "refused", "reason": str(error)}
    except Exception as error:
        return {"outcome": "failed", "reason": f"unexpected {type(error).__name__}: {error}"}
    voxels = np.argwhere(found.mask)
    counts = np.bincount(found.mask[tuple(voxels.T)], minlength=1)
    label = model.plan.labels[int(counts.argmax())] if len(voxels) else ""
    return {"outcome": "done", "said": found.pointed[0].said, "label": label, "voxels_zyx": voxels.tolist()}


def segment(job: SeriesJob, tell: Callable[[str], None], models: dict[str, Model]) -> dict[str, Any]:
    """Do one job.

    Args:
        job: what to do.
        tell: called with the name of each state that begins.
        models: models that were loaded before, by SHA-256; holds one.

    Returns:
        {"outcome": "done", "results": [...], "outside": in what the series lies outside of what the model was trained
        on, one line, or "", "left_out": what of the images' headers the results do not copy, one line, or "",
        "doubts": what may be wrong with the images, one line, or "", "cautions": what the model file says against it,
        "left_out_files": files that were left out,
        "follow_up": what became of the lesions of an earlier study, or why that is not known, one line, or "",
        "compared": whether it is known},
        {"outcome": "refused" | "held", "reason": ..., "outside": the same}, or
        {"outcome": "failed" | "no space", "reason": ...}.
    """
    try:
        with tempfile.TemporaryDirectory(dir=job.folder) as links:
            return _segment(job, tell, models, Path(links))
    except _RefusedError as error:
        return {"outcome": "refused", "reason": str(error), "outside": error.outside}
    except (FocalisError, OSError) as error:
        return {"outcome": "no space" if disk_is_full(error) else "failed", "reason": str(error)}
    except MemoryError:
        return {"outcome": "killed", "reason": "ran out of memory"}
    except Exception as error:
        return {"outcome": "failed", "reason": f"unexpected {type(error).__name__}: {error}"}


class _RefusedError(Exception):
    """The series cannot be segmented, through no fault of the device.

    Attributes:
        outside: in what it lies outside of what the model was trained on, one line; empty if that is not known.
    """

    def __init__(self, reason: str, outside: str) -> None:
        super().__init__(reason)
        self.outside = outside


def _segment(
    job: SeriesJob, tell: Callable[[str], None], models: dict[str, Model], links: Path
) -> dict[str, Any]:
    from focalis.device.models import loaded_model
    from focalis.device.named_images import link_slices, told_without
    from focalis.device.odd_images import odd_ones
    from focalis.device.results import make_results
    from focalis.device.trial import compare_findings
    from focalis.device.written import BESIDE, FIGURES
    from focalis.dicom import Origin, read_series
    from focalis.dicom.source_identity import AttributeWarning
    from focalis.files import write_text
    from focalis.planning import other_modalities
    from focalis.prediction import require_crop, require_memory
    from focalis.prediction import segment as segment_volumes
    from focalis.workflows.cautions import cautions_of
    from focalis.workflows.model_record import collapse_alert
    from focalis.workflows.scope import check_scope, outside_line, scope_positions
    from focalis.workflows.training_cases import SeenCases

    tell("checking")
    model = loaded_model(job.model, job.model_sha256, models)
    outside = ""
    settings = settings_within(job.memory_gb)

    whole = ""

    def admit(outline: Outline, modality: str) -> None:
        nonlocal outside, whole
        strange = other_modalities(model.plan, [modality])
        outside = outside_line(strange) if strange else ""
        if outside and job.other_modality == "refuse":
            raise DataError(f"the series {outside}; {_OUTSIDE_ADVICE}")
        try:
            require_crop(model, outline.grid)
        except ModelError:
            whole = "the model takes points: open the study and click on each lesion"
            raise
        require_memory(model, [outline], settings)

    try:
        files = link_slices(job.files, links / "series")
        left = odd_ones(tuple(files)) if job.leave_out else []
        left_out = {"left_out_files": [str(files[link]) for link in left]}
        series = read_series([file for file in files if file not in left], admit, job.charset)
        strange = check_scope(model, [series.volume], [series.modality])
        outside = outside_line(strange) if strange else ""
        policy = job.other_modality if other_modalities(model.plan, [series.modality]) else job.outside
        if outside and policy == "hold":
            return {"outcome": "held", "reason": f"the series {outside}", "outside": outside, **left_out}
        if outside and policy == "refuse":
            raise DataError(f"the series {outside}; {_OUTSIDE_ADVICE}")
        tell("segmenting")
        found = segment_volumes(model, [series.volume], settings)
    except FocalisError as error:
        if disk_is_full(error):
            raise
        if whole:
            return {"outcome": "held", "reason": whole, "outside": outside, **left_out}
        raise _RefusedError(told_without(links / "series", error), outside) from error
    followed, told_of_it = _follow(job, series, found.mask, model, settings, links / "earlier")
    tell("writing")
    seen = SeenCases.of(model).find("", [series.volume])
    of_the_model = cautions_of(seen=seen, collapse=collapse_alert(model))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", AttributeWarning)
        made = make_results(
            found.mask,
            model.plan.labels,
            series,
            Path(job.folder),
            Origin(
                model.identity,
                job.version,
                created=datetime.fromisoformat(job.created) if job.created else None,
                edition=job.edition,
                by=job.by,
                cautions=(*cautions_of(partial=job.partial, outside=strange), *of_the_model),
            ),
            supersedes={kind: Path(path) for kind, path in job.supersedes.items()},  # type: ignore[misc]
            promise=model.operating_point.promise,
            follow_up=followed,
        )
    folder = Path(job.folder)
    if model.scope is not None:
        write_text(folder / FIGURES, json.dumps(scope_positions(model, [series.volume])))
    if job.beside:
        compared = compare_findings(found.mask, model.plan.labels, series, Path(job.beside))
        write_text(folder / BESIDE, json.dumps(compared))
    return {
        "outcome": "done",
        "results": [asdict(each) for each in made],
        "outside": outside,
        "doubts": "; ".join(series.doubts),
        "cautions": [each.text for each in of_the_model],
        **left_out,
        "follow_up": told_of_it,
        "compared": followed is not None and followed.content["registered"],
        "left_out": next((_without_path(each.message) for each in told), ""),
    }


def _follow(
    job: SeriesJob, series: Series, mask: NDArray[np.integer], model: Model, settings: Settings, links: Path
) -> tuple[FollowUp | None, str]:
    """The follow-up, if there is an earlier study, and a line on it. No failure of it may cost the result."""
    from focalis.device.following import choose_earlier, follow_up
    from focalis.device.named_images import link_slices, told_without
    from focalis.device.records import EarlierStudy

    try:
        candidates = [EarlierStudy(**each) for each in job.earlier]
        earlier = choose_earlier(series, candidates, job.charset)
        if not earlier:
            return None, ""
        links.mkdir()
        linked = [
            replace(each, files=dict.fromkeys(map(str, link_slices(each.files, links / f"study {number}"))))
            for number, each in enumerate(earlier, start=1)
        ]
        found = follow_up(series, mask, linked, model, settings, job.charset)
    except FocalisError as error:
        return None, f"an earlier study could not be compared: {told_without(links, error)}"
    except Exception as error:
        said = type(error).__name__
        return None, f"an earlier study could not be compared: {said}"
    return found, found.summary


def _without_path(warning: Warning | str) -> str:
    """What a warning says, without the path, which is the store's own."""
    assert isinstance(warning, FileWarning)
    return "; ".join(filter(None, (warning.fault, warning.advice)))


def main() -> None:
    """Work until the device is gone."""
    answer = take_over_output()
    silence_parsers()
    models: dict[str, Model] = {}
    for job in requests():
        if "point_zyx" in job:
            answer(point(PointJob(**job), models))
        elif "images" in job:
            answer(mask(MaskJob(**job), models))
        else:
            answer(segment(SeriesJob(**job), lambda state: answer({"state": state}), models))


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, DataError):
        os._exit(1)
