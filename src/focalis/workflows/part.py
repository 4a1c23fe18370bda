"""A part of a prediction as a job: some of its cases, and the report on them."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import TypeAdapter

from focalis.files import write_bytes
from focalis.workflows.case_images import CaseInput
from focalis.workflows.predict import PredictReport, predict
from focalis.workflows.run import Job, Needs

_REPORT = "report.json"
_AS_JSON = TypeAdapter(PredictReport)


class Part(Job):
    """A part of a prediction. Cases that were finished before stay, so it may be carried out again.

    Attributes:
        model: the model file, or the name of one that comes with Focalis.
        inputs: its cases, see `plain`.
        threads: of the processor; None for as many as PyTorch takes.
        options: the other options of `predict`.
    """

    kind: ClassVar[str] = "parts"

    model: str
    inputs: tuple[dict[str, Any], ...]
    out: Path
    threads: int | None
    options: dict[str, Any]

    @property
    def shared(self) -> Path:
        return self.out

    @property
    def needs(self) -> Needs:
        """See `Job`; a gigabyte more than the budget, because what goes beyond it is killed."""
        return Needs(self.threads, math.ceil(self.options["memory_gb"]) + 1, self.options["device"])

    def placed(self) -> Part:
        """See `Job`: it was made with absolute paths."""
        return self

    @property
    def report(self) -> PredictReport:
        """What became of its cases, once it is finished."""
        return _AS_JSON.validate_json((self.home / _REPORT).read_bytes())


def predict_part(part: Part) -> None:
    """Predict the cases of a part, and write the report on them into its folder."""
    threads = part.threads or torch.get_num_threads()  # which goes by OMP_NUM_THREADS; OpenVINO does not
    cases = [_case(each) for each in part.inputs]
    report = predict(part.model, cases, part.out, threads=threads, resume=True, **part.options)
    write_bytes(part.home / _REPORT, _AS_JSON.dump_json(report))


def plain(case: CaseInput) -> dict[str, Any]:
    """A case as JSON has it, with absolute paths."""
    series = [{**vars(each), "files": _absolute(each.files)} for each in case.series]
    for each in series:
        del each["listed"]  # it is another moment when the part reads its cases
    changes = {"files": _absolute(case.files), "series": series, "lacks": sorted(case.lacks)}
    return {"name": case.name, "problem": case.problem, **changes}


def _case(of: dict[str, Any]) -> CaseInput:
    series: list[Any] = []
    if of["series"]:
        from focalis.dicom import SeriesFiles

        series = [SeriesFiles(**{**each, "files": tuple(map(Path, each["files"]))}) for each in of["series"]]
    files = tuple(map(Path, of["files"]))
    return CaseInput(of["name"], files, of["problem"], tuple(series), frozenset(of["lacks"]))


def _absolute(files: tuple[Path, ...]) -> list[str]:
    return [os.path.abspath(file) for file in files]  # noqa: PTH100 - a link stays a link
