"""One case of `predict`: read, segmented and written, and the row that says what became of it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from focalis.display import Shown
from focalis.errors import DataError, UsageError, about, refusal
from focalis.files import states_of
from focalis.lesions import promised_of
from focalis.model import Model
from focalis.planning import other_modalities
from focalis.prediction import (
    Place,
    Pointed,
    Segmentation,
    Settings,
    require_crop,
    require_memory,
    segment,
    segment_at,
)
from focalis.volume import Outline, Volume, placement_lacks, write_volume
from focalis.workflows.case_images import Admit, CaseImages, CaseInput, read_images
from focalis.workflows.finished import finished_table
from focalis.workflows.lesion_tables import MISSING, ORIGINS, OUTSIDE, read_seen, table_paths, write_lesions
from focalis.workflows.points import on_series
from focalis.workflows.result_files import (
    ENDINGS,
    Format,
    require_dicom_uids,
    write_points_report,
    write_result,
)
from focalis.workflows.scope import check_scope
from focalis.workflows.training_cases import Seen, SeenCases


@dataclass(frozen=True, repr=False)
class PredictRow(Shown):
    """What became of one case.

    Attributes:
        status: done, kept (an earlier run had finished it, see `resume` of `predict`), or refused.
        reason: why it was refused, one line that names the file; empty otherwise.
        output: the file written; None when refused, and for an RT Structure Set with nothing in it.
        foreground_voxels: how many voxels have a label; 0 if nothing was found.
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


@dataclass(frozen=True)
class Read:
    """A case that is ready to be segmented: its images, the points on it, in what it lies outside, who has seen it.

    Attributes:
        states: of its files before they were read, see `focalis.files.states_of`.
    """

    states: Sequence[int]
    images: CaseImages
    places: Sequence[Place]
    outside: tuple[str, ...]
    seen: Seen | None


@dataclass(frozen=True)
class Predicting:
    """What `predict` does with each case, stage by stage, see `focalis.workflows.overlap.Stages`.

    Attributes:
        output_format: what masks are written as.
        settings_beside: of a case that is computed beside others.
        document: what every table says of model and settings.
        inputs: the real paths of all inputs, none of which is overwritten.
        places: the points, of one scan.
        codec: see `read_images`.
    """

    model: Model
    settings: Settings
    settings_beside: Settings
    folder: Path
    output_format: Format
    document: Mapping[str, Any]
    seen_cases: SeenCases
    inputs: frozenset[str]
    command: str
    places: Sequence[Place]
    codec: str | None
    probabilities: bool
    strict: bool
    resume: bool
    _outside: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _seconds: dict[str, float] = field(default_factory=dict)

    def admit(self, case: CaseInput, outlines: Sequence[Outline], modalities: Sequence[str]) -> float:
        self._outside[case.name] = other_modalities(self.model.plan, modalities)
        if self.places:
            return 0.0
        scan = case.files[0].parent if case.series else case.files[0]
        with about(case.files[0]):
            for outline in outlines[:1]:
                require_crop(self.model, outline.grid, f"{self.command.format(scan=scan)} --at X,Y,Z")
            return require_memory(self.model, outlines, self.settings)

    def read(self, case: CaseInput, admit: Admit) -> Read | PredictRow:
        if case.problem:
            return PredictRow(case.name, "refused", case.problem, None, 0, 0.0)
        output, report, *_ = self._files(case)
        beside = self._beside(case)
        for path in [
            output,
            *([report] if self.places else []),
            *table_paths(self.folder, case.name),
            *beside,
        ]:
            if os.path.realpath(path) in self.inputs:
                raise UsageError.at(
                    path, "the result would overwrite an input", "choose another output folder"
                )
        if self.resume and (kept := self._kept(case, output, beside)):
            return kept
        began, waited = time.perf_counter(), 0.0
        states = states_of(case.all_files)

        def admitted(outlines: Sequence[Outline], modalities: Sequence[str]) -> None:
            nonlocal waited
            asked = time.perf_counter()
            admit(outlines, modalities)
            waited += time.perf_counter() - asked

        images = read_images(case, admitted, self.codec)
        if self.output_format in ("seg", "rtstruct"):
            if images.source is None:
                raise UsageError.at(
                    case.files[0],
                    f"is not a DICOM series, so {self.output_format} has no images to refer to",
                    "give the DICOM folder, or leave --format out",
                )
            require_dicom_uids(images.source)
        with about(case.files[0]):
            here = on_series(self.places, images.source)
            outside = check_scope(
                self.model, images.volumes, images.modalities, strict=self.strict, places=here
            )
            for lack in () if case.series else dict.fromkeys(map(placement_lacks, case.files)):
                if lack:
                    outside += (f"its header does not say how it lies ({lack})",)
            self._outside[case.name] = outside
            seen = self.seen_cases.find(case.name, images.volumes)
        self._seconds[case.name] = time.perf_counter() - began - waited
        return Read(states, images, here, outside, seen)

    def compute(
        self, case: CaseInput, read: Read, stopped: threading.Event | None
    ) -> tuple[Read, Segmentation]:
        began, volumes = time.perf_counter(), read.images.volumes
        settings = self.settings if stopped is None else self.settings_beside

        def go_on(_done: int, _total: int) -> None:
            if stopped is not None and stopped.is_set():
                raise CancelledError

        with about(case.files[0]):
            if read.places:
                found = segment_at(self.model, volumes, read.places, settings)
            else:
                found = segment(self.model, volumes, settings, go_on, checked=True)
        self._seconds[case.name] += time.perf_counter() - began
        return replace(read, images=replace(read.images, volumes=[])), found

    def held(self, made: tuple[Read, Segmentation]) -> float:
        read, found = made
        arrays = (found.mask, found.candidates, found.probability, found.uncertainty)
        source = read.images.source.volume.array.nbytes if read.images.source else 0
        return float(source + sum(each.nbytes for each in arrays if each is not None))

    def write(self, case: CaseInput, made: tuple[Read, Segmentation]) -> PredictRow:
        began = time.perf_counter()
        try:
            with about(case.files[0]):
                row = self._written(case, *made)
        except BaseException:  # a mask without its table would lack its warnings
            for path in (*self._files(case), *table_paths(self.folder, case.name)):
                path.unlink(missing_ok=True)
            raise
        return replace(row, seconds=self._seconds[case.name] + time.perf_counter() - began)

    def is_row(self, read: object) -> bool:
        return isinstance(read, PredictRow)

    def refused(self, case: CaseInput, error: Exception) -> PredictRow:
        reason, outside = refusal(error, case.files[0]), self._outside.get(case.name, ())
        return PredictRow(
            case.name, "refused", reason, None, 0, self._seconds.get(case.name, 0.0), outside=outside
        )

    def _written(self, case: CaseInput, read: Read, found: Segmentation) -> PredictRow:
        output, report, extra, spread = self._files(case)
        source, outside, seen = read.images.source, read.outside, read.seen
        if (
            states_of(case.all_files) != read.states
        ):  # `resume` would take the mask for that of the new images
            raise DataError.at(case.files[0], "changed after it was read", "start again")
        # a stop from here on leaves no table, which would vouch for a mask of other settings
        table_paths(self.folder, case.name)[1].unlink(missing_ok=True)
        if self.probabilities:
            write_volume(Volume(found.probability, found.grid), extra)
        if found.uncertainty is not None:
            write_volume(Volume(found.uncertainty, found.grid), spread)
        label = Volume(found.mask, found.grid)
        missing = tuple(self.model.plan.channels[place] for place in sorted(case.lacks))
        where = source, self.model, output, outside, seen, missing
        there = write_result(self.output_format, label, *where, pointed=bool(read.places))
        if read.places and self.output_format == "seg" and source is not None:
            write_points_report(found, source, self.model, output, report, outside, seen, missing)
        pointed = {"pointed": [asdict(each) for each in found.pointed]} if found.pointed else {}
        told = {**self.document, **found.way(), **self.seen_cases.document(seen), MISSING: missing, **pointed}
        told |= {OUTSIDE: outside, ORIGINS: case.origins}
        if promise := told.get("promise"):
            told["promise"] = promised_of(promise, outside=bool(outside), missing=bool(missing))
        write_lesions(self.folder, case.name, found.lesions, told)
        return PredictRow(
            case.name,
            "done",
            "",
            output if there else None,
            int(np.count_nonzero(found.mask)),
            0.0,
            len(found.lesions),
            outside,
            found.tiles,
            found.blended,
            found.float32_because,
            read.images.doubts,
            seen,
            missing,
            found.pointed,
        )

    def _files(self, case: CaseInput) -> tuple[Path, Path, Path, Path]:
        """Where mask, Structured Report, probabilities and uncertainty of a case go."""
        output, report = (
            self.folder / f"{case.name}{end}" for end in (ENDINGS[self.output_format], "_sr.dcm")
        )
        extra, spread = (
            self.folder / name / f"{case.name}.nii.gz" for name in ("probabilities", "uncertainty")
        )
        return output, report, extra, spread

    def _beside(self, case: CaseInput) -> list[Path]:
        """The files that are asked for beside the mask."""
        *_, extra, spread = self._files(case)
        return [*([extra] if self.probabilities else []), *([spread] if self.settings.uncertainty else [])]

    def _kept(self, case: CaseInput, output: Path, beside: Sequence[Path]) -> PredictRow | None:
        """The row of a case that an earlier run finished, from its table; None if it must be predicted."""
        # without a lesion there is no RT Structure Set
        wanted = beside if self.output_format == "rtstruct" and not output.exists() else [output, *beside]
        document = {**self.document, "pointed": None}
        table = finished_table(self.folder, case, wanted, document)
        if table is None or (self.strict and table[OUTSIDE]) or (table["lesions"] and not output.exists()):
            return None
        return PredictRow(
            case.name,
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
            seen=read_seen(self.folder, case.name),
            missing=tuple(table[MISSING]),
        )
