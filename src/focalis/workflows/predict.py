"""Predict many cases with one model; a bad file is refused with its reason and does not stop the rest."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from focalis.display import CaseProgress, Shown
from focalis.errors import UsageError
from focalis.lesions import OperatingPoint
from focalis.model import Model
from focalis.models import card_of
from focalis.prediction import DEFAULT_MEMORY_GB, PROGRAM_BYTES, Settings, engines_for, lanes_for
from focalis.workflows.case_images import CaseInput
from focalis.workflows.finished import part_of
from focalis.workflows.inputs import find_cases
from focalis.workflows.model_record import collapse_alert
from focalis.workflows.overlap import overlapped
from focalis.workflows.points import Given, places_given
from focalis.workflows.predict_case import Predicting, PredictRow
from focalis.workflows.predict_options import check_options, require_dicom
from focalis.workflows.result_files import Format, older_masks
from focalis.workflows.training_cases import SeenCases


@dataclass(frozen=True, repr=False)
class PredictReport(Shown):
    """What `predict` did.

    Attributes:
        rows: one per case in the order of the work.
        operating_point: what was reported as a lesion.
        scope_known: whether the model knows what it was trained on, so that images could be checked against it.
        runtime: what ran the networks, e.g. "cpu, openvino bf16".
        older_masks: how many masks of earlier runs lie in the folder of the results; they are left alone.
        card: the card of a model that comes with Focalis; None of any other.
        seen_known: whether the model knows which cases it has seen.
        alert: that the model found nothing, or marked everything, when it was trained; empty if neither.
        idle_mirror: whether mirror images were asked for of a model whose plan mirrors along no axis: there are none.
    """

    shows = ("cases", "refused", "runtime", "operating_point", "alert")

    rows: tuple[PredictRow, ...]
    operating_point: OperatingPoint
    scope_known: bool
    runtime: str
    older_masks: int = 0
    card: Path | None = None
    alert: str = ""
    seen_known: bool = True
    idle_mirror: bool = False

    @property
    def cases(self) -> tuple[str, ...]:
        """The names of all cases."""
        return tuple(row.case for row in self.rows)

    @property
    def refused(self) -> tuple[PredictRow, ...]:
        """The cases without a result."""
        return tuple(row for row in self.rows if row.status == "refused")

    @property
    def seconds_per_case(self) -> float:
        """Mean wall time of the finished cases; 0 if there is none."""
        seconds = [row.seconds for row in self.rows if row.status == "done"]
        return sum(seconds) / len(seconds) if seconds else 0.0


def predict(
    model: Path | str | Model,
    inputs: Path | str | Sequence[Path | str | CaseInput],
    out: Path | str,
    *,
    threshold: float | None = None,
    min_size_mm3: float | None = None,
    min_confidence: float | None = None,
    mirror: bool = False,
    uncertainty: bool = False,
    refine: bool | None = None,
    strict: bool = False,
    memory_gb: float = DEFAULT_MEMORY_GB,
    device: str = "auto",
    precision: str = "auto",
    runtime: str = "auto",
    threads: int | None = None,
    probabilities: bool = False,
    output_format: Format = "nifti",
    charset: str | None = None,
    part: str | None = None,
    resume: bool = False,
    progress: CaseProgress | None = None,
    at: Given | Sequence[Given] = (),
    at_voxel: Given | Sequence[Given] = (),
    settings: Settings | Mapping[str, Any] | None = None,
) -> PredictReport:
    """Segment images and write OUT/CASE.nii.gz for each, on the image's own grid; or a DICOM object.

    The lesions of every case are measured: OUT/lesions/CASE.csv and CASE.json.

    A model of several channels looks for files CASE_CHANNEL.nii.gz, or takes a 4D file; or give it the files or DICOM
    folders of a single case, in the order of its channels, under names that end in no channel.

    Args:
        model: a model file, the name of a model that comes with Focalis, or a loaded model.
        inputs: image files, folders of images, DICOM folders, or one of them; of a data set folder, its `images/`. Or
            cases that were found before.
        out: the folder for the results; made if it is not there.
        threshold: on the foreground probability, in (0, 1); the model's operating point by default.
        min_size_mm3: smaller lesions are dropped; the model's by default.
        min_confidence: lesions whose highest probability stays below are dropped, 0 to 1; the model's by default.
        mirror: average over the mirror images of every case, up to eight.
        uncertainty: also write the standard deviation of the foreground probability over the members and mirror images
            to OUT/uncertainty/CASE.nii.gz, and each lesion's uncertainty into the table.
        refine: refine by the model's fully connected CRF; by default if it was trained as NAME+crf.
        strict: refuse images that lie outside of what the model was trained on, instead of saying so in the row.
        memory_gb: the most memory that the program may take, in 10^9 bytes; a case that needs more is cut into tiles.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, float32, bfloat16 or float16.
        runtime: auto, torch, openvino or openvino-int8; see `focalis.prediction.runtime_for`.
        threads: of the processor; as many as there are by default.
        probabilities: also write the foreground probability to OUT/probabilities/CASE.nii.gz.
        output_format: nifti, OUT/CASE.nii.gz; nrrd, OUT/CASE.seg.nrrd; for DICOM input also seg, OUT/CASE_seg.dcm, or
            rtstruct, OUT/CASE_rtstruct.dcm. Nothing found is a Segmentation whose frames are empty, and no RT Structure
            Set. With points, seg writes a Structured Report too, OUT/CASE_sr.dcm.
        charset: what text of a DICOM header is read by, if its character set is missing or wrong and it is not UTF-8:
            ISO_IR 144, say, or a Python codec; Latin-1 by default.
        part: `I/N` takes every N-th case from the I-th on, so that N calls divide the cases among them.
        resume: keep cases that an earlier call finished with the same model and settings, if their images have not
            changed since; refuse those of another model or other settings.
        progress: see `focalis.display.CaseProgress`.
        at: of one scan, for a guided model: a point in each lesion, or the two ends of a line across it, x, y, z in mm
            in the patient (LPS); or files of points, see `focalis.workflows.points`.
        at_voxel: the same as indices x, y, z of voxels from 0.
        settings: how to segment, in place of the arguments from `threshold` to `threads` that it holds.

    Raises:
        UsageError: an option's value is wrong or given beside `settings`, no image was given, or the model holds no
            refinement to refine by.
        ModelError: the model file cannot be used.
    """
    inputs = [inputs] if isinstance(inputs, Path | str) else inputs
    folder = Path(out)
    asked = check_options(
        model,
        folder,
        output_format=output_format,
        charset=charset,
        strict=strict,
        settings=settings,
        threshold=threshold,
        min_size_mm3=min_size_mm3,
        min_confidence=min_confidence,
        mirror=mirror,
        uncertainty=uncertainty,
        refine=refine,
        memory_gb=memory_gb,
        runtime=runtime,
        device=device,
        precision=precision,
        threads=threads,
    )
    loaded, card = asked.model, card_of(asked.file) if asked.file else None
    places = places_given(at, at_voxel)
    named = "MODEL" if isinstance(model, Model) else str(model)
    if places and not loaded.guided:
        fault = "the model is a detector, which takes whole scans and no points"
        raise UsageError.of_option(
            f"at: {fault}; leave at and at_voxel out",
            f"--at: {fault}; run: focalis predict {named} {' '.join(map(str, inputs))} -o {out}",
        )
    settings = asked.settings.for_model(loaded)
    point = settings.point_of(loaded, pointed=bool(places))
    plan = loaded.plan
    found_before = [each for each in inputs if isinstance(each, CaseInput)]
    paths = [Path(each) for each in inputs if not isinstance(each, CaseInput)]
    cases = found_before or find_cases(paths, plan.channels, plan.channels_may_miss)
    if not found_before:  # whoever found them has looked at all of them, of which these may be a part
        require_dicom(asked.codec, cases)
    if places and len(cases) != 1:
        listed = ", ".join(case.name for case in cases[:3])
        raise UsageError(
            f"points belong to one scan, and {len(cases)} are given ({listed} ...); give one at a time"
        )
    if places and (part or resume):
        raise UsageError(
            "points belong to one scan, which has no parts and is made anew; leave part and resume out"
        )
    given = part_of(cases, part)
    say = None if progress is None else partial(progress, 0, len(given))
    ran = str(engines_for(loaded, settings, say))
    lanes, settings_beside = lanes_for(loaded, settings) if len(given) > 1 else (1, settings)
    alert, seen_cases = collapse_alert(loaded), SeenCases.of(loaded)
    document = {
        **point.numbers(),
        **loaded.identity.record(),
        "mirrored": settings.mirror,
        "settings": replace(settings, threads=None).record(),
        **({"model_alert": alert} if alert else {}),
    }
    work = Predicting(
        loaded,
        settings,
        settings_beside,
        folder,
        output_format,
        document,
        seen_cases,
        frozenset(os.path.realpath(file) for case in cases for file in case.all_files),
        f"focalis predict {named} {{scan}} -o {out}",
        places,
        asked.codec,
        probabilities=probabilities,
        strict=strict,
        resume=resume,
    )

    def began(finished: int, case: CaseInput) -> None:
        if progress is not None:
            progress(finished, len(given), case.name)

    rows = overlapped(given, work, settings.memory_gb * 1e9 - PROGRAM_BYTES, began, lanes)
    if progress is not None:
        progress(len(rows), len(given), "")
    return PredictReport(
        tuple(rows),
        point,
        loaded.scope is not None,
        ran,
        older_masks(
            folder, {row.output for row in rows}, {case.name for case in cases} - {row.case for row in rows}
        ),
        card,
        alert,
        seen_cases.known,
        asked.settings.mirror and not settings.mirror,
    )
