"""Predict many cases with one model; a bad file is refused with its reason and does not stop the rest."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from focalis.display import Shown
from focalis.errors import UsageError, about, refusal
from focalis.files import write_text
from focalis.lesions import OperatingPoint
from focalis.model import Model, open_model, weights_sha256
from focalis.models import card_of, model_file
from focalis.planning import other_modalities
from focalis.prediction import (
    DEFAULT_MEMORY_GB,
    Pointed,
    Segmentation,
    Settings,
    engines_for,
    require_crop,
    require_memory,
    segment,
    segment_at,
)
from focalis.volume import Outline, Volume, itksnap_labels, placement_lacks, write_volume
from focalis.workflows.finished import finished_table, part_of
from focalis.workflows.inputs import CaseImages, CaseInput, codec_given, find_cases, read_images
from focalis.workflows.lesion_tables import (
    MISSING,
    OUTSIDE,
    read_seen,
    table_paths,
    tabled_cases,
    write_lesions,
)
from focalis.workflows.model_record import collapse_alert
from focalis.workflows.points import Given, on_series, places_given
from focalis.workflows.scope import check_scope
from focalis.workflows.training_cases import Seen, SeenCases

if TYPE_CHECKING:
    from focalis.dicom import Series

Format = Literal["nifti", "nrrd", "seg", "rtstruct"]
"""What results are written as: NIfTI label maps, 3D Slicer's segmentations, DICOM Segmentations, RT Structure Sets."""

Progress = Callable[[int, int, str], None]
"""Called before each case with the cases finished, their number, and the case's name; with what is done before the
first one in place of a name, if that takes a while."""


@dataclass(frozen=True, repr=False)
class PredictRow(Shown):
    """What became of one case.

    Attributes:
        case: its name.
        status: done, kept (an earlier run had finished it, see `resume` of `predict`), or refused.
        reason: why it was refused, one line that names the file; empty otherwise.
        output: the file written; None when refused, and for an RT Structure Set with nothing in it.
        foreground_voxels: how many voxels bear a label; 0 if nothing was found.
        seconds: wall time, reading and writing included.
        lesions: how many lesions the table holds.
        outside: in what the images lie outside of what the model was trained on, a phrase each; empty inside, where the
            model does not know, and when refused for that or before that was looked at.
        tiles: in how many pieces the networks saw it; 0 when refused.
        blended: whether these were blended, see `Prediction`.
        float32_because: why the networks computed in float32, see `Prediction`.
        doubts: what may be wrong with its DICOM series, a line each that names the folder.
        seen: what the case was used for when the model was made; None for nothing, when refused, and where the model
            does not know.
        missing: the channels that it was predicted without.
        pointed: what became of the places that a person pointed at.
    """

    shows = ("case", "status", "reason", "output", "lesions", "tiles", "outside")

    case: str
    status: Literal["done", "kept", "refused"]
    reason: str
    output: Path | None
    foreground_voxels: int
    seconds: float
    lesions: int = 0
    outside: tuple[str, ...] = ()
    tiles: int = 0
    blended: bool = False
    float32_because: str = ""
    doubts: tuple[str, ...] = ()
    seen: Seen | None = None
    missing: tuple[str, ...] = ()
    pointed: tuple[Pointed, ...] = ()


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
    inputs: Sequence[Path | str | CaseInput],
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
    progress: Progress | None = None,
    at: Sequence[Given] = (),
    at_voxel: Sequence[Given] = (),
) -> PredictReport:
    """Segment images and write OUT/CASE.nii.gz for each, on the image's own grid; or a DICOM object.

    The lesions of every case are measured: OUT/lesions/CASE.csv and CASE.json.

    A model of several channels looks for files CASE_CHANNEL.nii.gz, or takes a 4D file; or give it the files or DICOM
    folders of a single case, in the order of its channels, under names that end in no channel.

    Args:
        model: a model file, the name of a model that comes with Focalis, or a loaded model.
        inputs: image files, folders of images, DICOM folders; of a data set folder, its `images/`. Or cases that were
            found before.
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
        charset: what text of a DICOM header is read by, if its character set is missing or wrong and it is no UTF-8:
            ISO_IR 144, say, or a Python codec; Latin-1 by default.
        part: `I/N` takes every N-th case from the I-th on, so that N calls divide the cases among them.
        resume: keep cases that an earlier call finished with the same model and settings, if their images have not
            changed since; refuse those of another model or other settings.
        progress: see `Progress`.
        at: of one scan, for a guided model: a point in each lesion, or the two ends of a line across it, x, y, z in mm
            in the patient (LPS); or files of points, see `focalis.workflows.points`.
        at_voxel: the same as indices x, y, z of voxels from 0.

    Raises:
        UsageError: an option's value is wrong, no image was given, or the model holds no refinement to refine by.
        ModelError: the model file cannot be used.
    """
    settings = Settings(
        threshold=threshold,
        minimum_mm3=min_size_mm3,
        minimum_confidence=min_confidence,
        mirror=mirror,
        uncertainty=uncertainty,
        refine=refine,
        memory_gb=memory_gb,
        runtime=runtime,
        device=device,
        precision=precision,
        threads=threads,
    )
    if output_format not in _ENDINGS:
        raise UsageError(f"format {output_format!r} is not known; take one of {', '.join(_ENDINGS)}")
    codec = codec_given(charset)
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; give a folder for the results")
    if isinstance(model, Model):
        loaded, card = model, None
    else:
        file = model_file(model)
        loaded, card = open_model(file), card_of(file)
    if strict and loaded.scope is None:
        raise UsageError(
            "--strict: the model does not know what it was trained on (fewer than five training cases, or an older "
            "file), so nothing can be refused for lying outside; leave --strict out"
        )
    places = places_given(at, at_voxel)
    named = "MODEL" if isinstance(model, Model) else str(model)
    if places and not loaded.guided:
        raise UsageError(
            "--at: the model is a detector, which takes whole scans and no points; run: "
            f"focalis predict {named} {' '.join(map(str, inputs))} -o {out}"
        )
    asked, settings = settings, settings.for_model(loaded)
    settings = settings.for_places() if places else settings
    point = settings.point_of(loaded)
    plan = loaded.plan
    found_before = [each for each in inputs if isinstance(each, CaseInput)]
    paths = [Path(each) for each in inputs if not isinstance(each, CaseInput)]
    cases = found_before or find_cases(paths, plan.channels, plan.channels_may_miss)
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
    alert, seen_cases = collapse_alert(loaded), SeenCases.of(loaded)
    document = {
        **point.numbers(),
        "model_sha256": weights_sha256(loaded),
        "mirrored": settings.mirror,
        "settings": replace(settings, threads=None).record(),
        **({"model_alert": alert} if alert else {}),
    }
    strange: dict[str, tuple[str, ...]] = {}
    taken = {os.path.realpath(file) for case in cases for file in case.all_files}

    def files_of(case: CaseInput) -> tuple[Path, Path, Path, Path]:
        output, report = (folder / f"{case.name}{end}" for end in (_ENDINGS[output_format], "_sr.dcm"))
        extra, spread = (folder / name / f"{case.name}.nii.gz" for name in ("probabilities", "uncertainty"))
        return output, report, extra, spread

    def run(case: CaseInput) -> PredictRow:
        """The row of a case that is done, but for its time."""
        output, report, extra, spread = files_of(case)
        beside = [*([extra] if probabilities else []), *([spread] if uncertainty else [])]
        for path in [output, *([report] if places else []), *table_paths(folder, case.name), *beside]:
            if os.path.realpath(path) in taken:
                raise UsageError(f"{path}: the result would overwrite an input; choose another output folder")
        # no lesion is no RT Structure Set
        wanted = beside if output_format == "rtstruct" and not output.exists() else [output, *beside]
        before = (
            finished_table(folder, case.name, case.all_files, wanted, {**document, "pointed": None})
            if resume
            else None
        )
        if before and not (strict and before[OUTSIDE]) and (output.exists() or not before["lesions"]):
            return _kept(folder, case.name, output, before)

        def admit(outlines: Sequence[Outline], modalities: Sequence[str]) -> None:
            strange[case.name] = other_modalities(loaded.plan, modalities)
            if places:
                return
            scan = case.files[0].parent if case.series else case.files[0]
            with about(case.files[0]):
                for outline in outlines[:1]:
                    require_crop(loaded, outline.grid, f"focalis predict {named} {scan} -o {out}")
                require_memory(loaded, outlines, settings)

        images = read_images(case, admit, codec)
        of_dicom = output_format in ("seg", "rtstruct")
        if of_dicom and images.source is None:
            raise UsageError(
                f"{case.files[0]}: is no DICOM series, so {output_format} has no images to refer to; "
                "give the DICOM folder, or leave --format out"
            )
        if of_dicom and images.source is not None:
            _require_uids(images.source)
        with about(case.files[0]):
            return finished(case, images)

    def finished(case: CaseInput, images: CaseImages) -> PredictRow:
        output, report, extra, spread = files_of(case)
        here = on_series(places, images.source)
        strange[case.name] = check_scope(
            loaded, images.volumes, images.modalities, strict=strict, places=here
        )
        for lack in () if case.series else dict.fromkeys(map(placement_lacks, case.files)):
            if lack:
                strange[case.name] += (f"its header does not say how it lies ({lack})",)
        seen = seen_cases.find(case.name, images.volumes)
        found = (
            segment_at(loaded, images.volumes, here, settings)
            if here
            else segment(loaded, images.volumes, settings)
        )
        if probabilities:
            write_volume(Volume(found.probability, found.grid), extra)
        if found.uncertainty is not None:
            write_volume(Volume(found.uncertainty, found.grid), spread)
        label = Volume(found.mask, found.grid)
        there = _write(output_format, label, images.source, loaded, output, strange[case.name], seen)
        if here and output_format == "seg" and images.source is not None:
            _report(found, images.source, loaded, output, report, strange[case.name], seen)
        missing = tuple(plan.channels[place] for place in sorted(case.lacks))
        pointed = {"pointed": [asdict(each) for each in found.pointed]} if found.pointed else {}
        told = {**document, **found.way(), **seen_cases.document(seen), MISSING: missing, **pointed}
        told[OUTSIDE] = strange[case.name]
        if point.promise and strange[case.name]:
            told["promise"] = "none: the case lies outside of what the model was trained on"
        write_lesions(folder, case.name, found.lesions, told)
        return PredictRow(
            case.name,
            "done",
            "",
            output if there else None,
            int(np.count_nonzero(found.mask)),
            0.0,
            len(found.lesions),
            strange[case.name],
            found.tiles,
            found.blended,
            found.float32_because,
            images.doubts,
            seen,
            missing,
            found.pointed,
        )

    rows: list[PredictRow] = []
    for case in given:
        if progress is not None:
            progress(len(rows), len(given), case.name)
        started = time.perf_counter()
        row = PredictRow(case.name, "refused", case.problem, None, 0, 0.0)
        if not case.problem:
            try:
                row = run(case)
            except Exception as error:  # whatever a library raises concerns this case alone
                row = replace(row, reason=refusal(error, case.files[0]), outside=strange.get(case.name, ()))
        rows.append(replace(row, seconds=time.perf_counter() - started))
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
        asked.mirror and not settings.mirror,
    )


def _kept(folder: Path, case: str, output: Path, table: Mapping[str, Any]) -> PredictRow:
    """The row of a case that an earlier run finished, from its table."""
    return PredictRow(
        case,
        "kept",
        "",
        output if output.exists() else None,
        sum(lesion["voxels"] for lesion in table["lesions"]),
        0.0,
        len(table["lesions"]),
        tuple(table[OUTSIDE]),
        table["tiles"],
        table["blended"],
        table["float32_because"],
        seen=read_seen(folder, case),
        missing=tuple(table[MISSING]),
    )


def older_masks(folder: Path, written: Set[Path | None], others: Set[str]) -> int:
    """How many masks with a table of lesions lie in a folder that were not written now, and are not of `others`."""
    masks = {
        folder / f"{case}{ending}"
        for case in {*tabled_cases(folder)} - others
        for ending in _ENDINGS.values()
    } - written
    return sum(mask.is_file() for mask in masks)


_ENDINGS: dict[Format, str] = {
    "nifti": ".nii.gz",
    "nrrd": ".seg.nrrd",
    "seg": "_seg.dcm",
    "rtstruct": "_rtstruct.dcm",
}
ITKSNAP = "itksnap_labels.txt"
"""Beside NIfTI masks: names and colours of the labels, as ITK-SNAP reads them."""


def _require_uids(source: Series) -> None:
    """Refuse before the work what cannot be written after it."""
    from focalis.dicom.source_identity import require_uids

    require_uids(source)


def _report(
    found: Segmentation,
    source: Series,
    model: Model,
    segmentation: Path,
    path: Path,
    outside: Sequence[str],
    seen: Seen | None,
) -> None:
    """Write the Structured Report to a Segmentation."""
    from focalis.dicom import ReportedLesion, write_report
    from focalis.workflows.cautions import cautions_of

    segments = {value: number for number, value in enumerate(model.plan.label_values, start=1)}
    lesions = [
        ReportedLesion(
            number=lesion.number,
            segment=segments[lesion.label],
            volume_mm3=lesion.volume_mm3,
            longest_axial_mm=lesion.longest_axial.length_mm,
            centroid_xyz_mm=lesion.centroid_lps_mm,
        )
        for lesion in found.lesions
    ]
    write_report(
        lesions,
        found.mask,
        model.plan.labels,
        source,
        segmentation,
        path,
        model=weights_sha256(model),
        version=version("focalis"),
        cautions=cautions_of(outside=outside, seen=seen, collapse=collapse_alert(model)),
        remarks=["Each lesion was pointed at by a person."],
    )


def _write(
    output_format: Format,
    label: Volume,
    source: Series | None,
    model: Model,
    path: Path,
    outside: Sequence[str],
    seen: Seen | None,
) -> bool:
    """Write a result; returns whether there is a file."""
    if output_format == "nifti":
        write_volume(label, path)
        write_text(path.with_name(ITKSNAP), itksnap_labels(model.plan.labels))
        return True
    if output_format == "nrrd":
        write_volume(label, path, model.plan.labels)
        return True
    from focalis.dicom import write_segmentation, write_structures
    from focalis.workflows.cautions import cautions_of

    assert source is not None
    write = write_segmentation if output_format == "seg" else write_structures
    written = write(
        label.array,
        model.plan.labels,
        source,
        path,
        model=weights_sha256(model),
        version=version("focalis"),
        cautions=cautions_of(outside=outside, seen=seen, collapse=collapse_alert(model)),
    )
    return written is not False
