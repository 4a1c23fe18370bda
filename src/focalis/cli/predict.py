"""`focalis predict`: masks for new images."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from focalis.cli.console import print_json, progress_bar, show_training
from focalis.cli.options import Charset, Device, Precision
from focalis.errors import UsageError
from focalis.models import SHIPPED, card_line

if TYPE_CHECKING:
    from focalis.workflows.predict import PredictReport


def predict(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help=f"A run folder, a model file, or a shipped model: {', '.join(SHIPPED)}."
        ),
    ],
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT", help="Images, folders of images, or DICOM folders.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")],
    at: Annotated[
        list[str] | None,
        typer.Option(
            "--at",
            metavar="X,Y,Z|FILE",
            help="A point in a lesion of one scan, in mm (LPS); X,Y,Z:X,Y,Z for a line across it; or a file of points "
            "(.csv, .mrk.json, .fcsv, DICOM SR or RTSTRUCT). Repeat for more.",
        ),
    ] = None,
    at_voxel: Annotated[
        list[str] | None,
        typer.Option("--at-voxel", metavar="I,J,K", help="The same point as voxel indices x, y, z, from 0."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Threshold on the foreground probability, from 0 to 1; default: the model's."),
    ] = None,
    min_size: Annotated[
        float | None,
        typer.Option("--min-size", min=0, help="Drop lesions of fewer mm3; default: the model's."),
    ] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            "--min-confidence", help="Drop lesions whose highest probability is lower; default: the model's."
        ),
    ] = None,
    mirror: Annotated[
        bool,
        typer.Option(
            "--mirror", help="Average over up to eight mirror images; takes up to eight times as long."
        ),
    ] = False,
    refine: Annotated[
        bool | None,
        typer.Option(
            "--refine/--no-refine",
            help="Refine masks with the model's CRF; default: on if it was trained as NAME+crf.",
        ),
    ] = None,
    memory_gb: Annotated[float, typer.Option(help="Memory that the program may use, in 10^9 bytes.")] = 4.0,
    device: Device = "auto",
    precision: Precision = "auto",
    runtime: Annotated[
        Literal["auto", "torch", "openvino", "openvino-int8"],
        typer.Option(help="What runs the network; auto measures once which is fastest here."),
    ] = "auto",
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities", help="Also write the foreground probability, OUT/probabilities/CASE.nii.gz."
        ),
    ] = False,
    uncertainty: Annotated[
        bool,
        typer.Option(
            "--uncertainty",
            help="Also write OUT/uncertainty/CASE.nii.gz: how far members and mirror images disagree.",
        ),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse images unlike those of the training.")
    ] = False,
    output_format: Annotated[
        Literal["nifti", "nrrd", "seg", "rtstruct"],
        typer.Option("--format", help="nifti, or nrrd for 3D Slicer; for DICOM input also seg or rtstruct."),
    ] = "nifti",
    charset: Charset = None,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="I/N", help="Take every N-th case from the I-th on; N calls may share one folder."
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Keep cases that are finished with this model and these settings."),
    ] = False,
    on: Annotated[
        str | None,
        typer.Option(
            help="Predict in parts: in processes, on slurm, on ray, or on an executor that a package adds; resumes."
        ),
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, help="Parts at a time; alone it means --on processes.")] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Processor threads, shared with --on processes; default all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what became of each case as JSON.")] = False,
) -> None:
    """Make masks for new images, each on the image's own grid.

    Images that the model cannot take are refused with the reason; the others go on.
    Exit code 1 means that an image was refused, or that a point lies outside of its image.
    """
    from focalis.workflows.predict import predict as run_predict

    if on is None and parallel > 1:
        on = "processes"
    if on and (at or at_voxel or part):
        raise UsageError(
            "--on makes the parts, and points belong to one scan; leave --part, --at or --on out"
        )
    options: dict[str, Any] = {
        "threshold": threshold,
        "min_size_mm3": min_size,
        "min_confidence": min_confidence,
        "mirror": mirror,
        "refine": refine,
        "memory_gb": memory_gb,
        "device": device,
        "precision": precision,
        "runtime": runtime,
        "probabilities": probabilities,
        "uncertainty": uncertainty,
        "strict": strict,
        "output_format": output_format,
        "charset": charset,
    }
    try:
        with progress_bar() as advance:
            if on:
                from focalis.workflows.predict_on import predict_on

                report, left = predict_on(
                    on,
                    model,
                    inputs,
                    out,
                    parallel=parallel,
                    threads=threads,
                    tell=show_training(advance),
                    **options,
                )
                if report is None:
                    print(left)
                    return
            else:
                report = run_predict(
                    model,
                    inputs,
                    out,
                    at=at or (),
                    at_voxel=at_voxel or (),
                    part=part,
                    resume=resume,
                    threads=threads,
                    progress=partial(advance, "predict"),
                    **options,
                )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{out} holds the masks that were finished") from None
    if as_json:
        print_json(report)
    for line in _remarks(report, out):
        print(line, file=sys.stderr)
    if not as_json:
        _print(report, out, runtime)
    if report.refused or any(each.status == "outside" for row in report.rows for each in row.pointed):
        raise typer.Exit(1)


def _remarks(report: PredictReport, out: Path) -> Iterator[str]:
    """What a person should know of the masks, a line each."""
    from focalis.workflows.scope import outside_line
    from focalis.workflows.training_cases import seen_line

    rows = report.rows
    if report.alert:
        yield f"warning: {report.alert}"
    if line := seen_line({row.case: row.seen for row in rows if row.seen}, len(rows), "figures on them"):
        yield f"warning: {line}"
    if report.card:
        yield card_line(report.card)
    for row in rows:
        if row.outside:
            yield f"warning: {row.case} {outside_line(row.outside)}"
        if row.missing:
            yield f"note: {row.case} was predicted without {', '.join(row.missing)}"
        for each in row.pointed:
            grade = "note" if each.status == "lesion" else "warning"
            yield f"{grade}: {row.case}: point {each.place} {each.said}"
        for doubt in row.doubts:
            yield f"warning: {doubt}"
    for row in report.refused:
        yield f"refused: {row.reason}"
    if blended := [row for row in rows if row.blended]:
        yield (
            f"note: {len(blended)} of {len(rows)} images went through the network in tiles that are blended "
            f"({blended[0].case} in {blended[0].tiles}); a larger --memory-gb makes them larger or unnecessary, if the "
            "network does not always take tiles of the training patch"
        )
    if exact := [row for row in rows if row.float32_because]:
        yield f"note: {len(exact)} of {len(rows)} images were computed in float32: {exact[0].float32_because}"
    if report.older_masks:
        some = "1 older mask is" if report.older_masks == 1 else f"{report.older_masks} older masks are"
        yield f"note: {some} in {out} too, and not of this run; give another folder to keep runs apart"
    if report.idle_mirror:
        yield "note: --mirror changed nothing: the model's plan mirrors along no axis, so there are no mirror images"
    if not report.scope_known:
        yield "note: the model does not know its training images; no image was compared with them"
    if not report.seen_known:
        yield "note: the model file does not list its training cases, so whether these are among them is not known"


def _print(report: PredictReport, out: Path, runtime: str) -> None:
    """What was made, and how."""
    for row in report.rows:
        if row.status == "done" and not row.foreground_voxels:
            what = (
                f"{row.output.name} holds no foreground" if row.output else "no RT Structure Set was written"
            )
            print(f"{row.case}: nothing found; {what}")
    if done := len(report.rows) - len(report.refused):
        print(f"{done} of {len(report.rows)} cases in {out}, {report.seconds_per_case:.1f} s per case")
        if kept := sum(row.status == "kept" for row in report.rows):
            print(f"{kept} of them were finished before")
        print(f"operating point: {report.operating_point}")
        if report.operating_point.promise:
            print(f"promise: {report.operating_point.promise}")
        timed = runtime == "auto" and "int8" in report.runtime
        same = "; chosen by timing, for the same mask everywhere: --runtime torch --precision float32"
        print(f"run time: {report.runtime}{same if timed else ''}")
