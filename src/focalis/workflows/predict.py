"""Predict many cases with one model; a bad file is refused with its reason and does not stop the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from focalis.dataset import group_channels
from focalis.errors import FocalisError, UsageError
from focalis.model import Model, load_model
from focalis.prediction import choose_runtime, predict_case
from focalis.volume import image_stem, read_volume, write_volume

Progress = Callable[[int, int, str], None]
"""Called before each case with the cases finished, their number, and the case's name."""


@dataclass(frozen=True)
class PredictRow:
    """What became of one case.

    Attributes:
        case: its name.
        status: done, or refused.
        reason: why it was refused, one line that names the file; empty when done.
        output: the label map written; None when refused.
        seconds: wall time, reading and writing included.
    """

    case: str
    status: Literal["done", "refused"]
    reason: str
    output: Path | None
    seconds: float


@dataclass(frozen=True)
class PredictReport:
    """What `predict` did, one row per case in the order of the work."""

    rows: tuple[PredictRow, ...]

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
    inputs: Sequence[Path | str],
    out: Path | str,
    *,
    threshold: float | None = None,
    mirror: bool = False,
    memory_gb: float = 4.0,
    device: str = "auto",
    precision: str = "auto",
    probabilities: bool = False,
    progress: Progress | None = None,
) -> PredictReport:
    """Segment images and write OUT/CASE.nii.gz for each, on the image's own grid.

    A model of several channels looks for files CASE_CHANNEL.nii.gz; or give it the files of a single case, in
    the order of its channels, under names that end in no channel.

    Args:
        model: a model file, or a loaded model.
        inputs: image files and folders of images; of a data set folder, its `images/`.
        out: the folder for the results; made if it is not there.
        threshold: on the foreground probability, in (0, 1); the model's operating point by default.
        mirror: average over the mirror images of every case, up to eight.
        memory_gb: the most memory that the prediction of a case may take beside its image, in 10^9 bytes.
        device: auto, cpu, cuda or cuda:N.
        precision: auto, float32, bfloat16 or float16.
        probabilities: also write the foreground probability to OUT/probabilities/CASE.nii.gz.
        progress: see `Progress`.

    Raises:
        UsageError: an option's value is wrong, or no image was given.
        ModelError: the model file cannot be used.
    """
    if threshold is not None and not 0 < threshold < 1:
        raise UsageError(f"threshold {threshold} does not lie between 0 and 1; give one that does")
    if memory_gb <= 0:
        raise UsageError(f"a memory budget of {memory_gb} GB is not positive; give one that is")
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; give a folder for the results")
    runtime = choose_runtime(device, precision)
    loaded = model if isinstance(model, Model) else load_model(Path(model))
    given = [Path(path) for path in inputs]
    files = _files(given)
    channels = loaded.plan.channels
    cases = _single_case(given, channels) or _cases(files, channels)
    taken = {file.resolve() for file in files}

    def run(case: str, paths: tuple[Path, ...]) -> Path:
        output = folder / f"{case}.nii.gz"
        extra = folder / "probabilities" / output.name
        for path in (output, extra) if probabilities else (output,):
            if path.resolve() in taken:
                raise UsageError(f"{path}: the result would overwrite an input; choose another output folder")
        prediction = predict_case(
            loaded,
            [read_volume(path) for path in paths],
            runtime=runtime,
            budget_bytes=int(memory_gb * 1e9),
            threshold=threshold,
            mirror=mirror,
            keep_probability=probabilities,
        )
        if prediction.foreground_probability is not None:
            write_volume(prediction.foreground_probability, extra)
        write_volume(prediction.label, output)
        return output

    rows: list[PredictRow] = []
    for case, paths, problem in cases:
        if progress is not None:
            progress(len(rows), len(cases), case)
        started = time.perf_counter()
        output = None
        if not problem:
            try:
                output = run(case, paths)
            except FocalisError as error:
                problem = _located(str(error), paths[0])
        seconds = time.perf_counter() - started
        rows.append(PredictRow(case, "refused" if problem else "done", problem, output, seconds))
    if progress is not None:
        progress(len(rows), len(cases), "")
    return PredictReport(tuple(rows))


CaseInput = tuple[str, tuple[Path, ...], str]
"""A case's name, its files in channel order, and why it cannot be predicted (empty if it can)."""


def _files(inputs: Sequence[Path]) -> list[Path]:
    """The image files, folders opened; a path that is not there stays, to be refused by name."""
    files: list[Path] = []
    for path in inputs:
        if path.is_dir():
            folder = path / "images" if (path / "images").is_dir() else path
            found = sorted(file for file in folder.iterdir() if image_stem(file) is not None)
            if not found:
                raise UsageError(f"{folder}: holds no image; give a folder with .nii or .nii.gz files")
            files += found
        else:
            files.append(path)
    if not files:
        raise UsageError("no image given; name files or folders")
    return list(dict.fromkeys(files))


def _single_case(inputs: Sequence[Path], channels: tuple[str, ...]) -> list[CaseInput]:
    """One case, if the inputs are as many files as there are channels and no name says which is which."""
    stems = [image_stem(path) for path in inputs if not path.is_dir()]
    if not len(stems) == len(inputs) == len(channels) > 1:
        return []
    if any(stem is None or stem.endswith(tuple(f"_{channel}" for channel in channels)) for stem in stems):
        return []
    return [(stems[0] or "", tuple(inputs), "")]


def _cases(files: Sequence[Path], channels: tuple[str, ...]) -> list[CaseInput]:
    cases: list[CaseInput] = []
    groups: dict[Path, list[Path]] = {}
    for file in files:
        if image_stem(file) is None:
            cases.append((file.name, (file,), f"{file}: is not named .nii or .nii.gz; give a NIfTI file"))
        else:
            groups.setdefault(file.parent, []).append(file)
    grouped = [case for group in groups.values() for case in _group(group, channels)]
    seen: set[str] = set()
    for name, paths, problem in grouped:
        clash = f"{paths[0]}: a second case named {name}; give one folder at a time" if name in seen else ""
        cases.append((name, paths, problem or clash))
        seen.add(name)
    return cases


def _group(files: list[Path], channels: tuple[str, ...]) -> list[CaseInput]:
    """The cases among the files of one folder; with a single channel, a name without it is a case too."""
    if len(channels) == 1:
        ending = f"_{channels[0]}"
        stems = {file: image_stem(file) or file.name for file in files}
        return [(stem.removesuffix(ending) or stem, (file,), "") for file, stem in stems.items()]
    cases: list[CaseInput] = []
    for name, found in sorted(group_channels(files, channels=channels).items()):
        missing = [channel for channel in channels if channel not in found]
        if not missing:
            cases.append((name, tuple(found[channel] for channel in channels), ""))
            continue
        first = next(iter(found.values()))
        wanted = f"{name}_{missing[0]}.nii.gz"
        lack = f"{first}: case {name} lacks channel {', '.join(missing)}; put {wanted} beside it"
        cases.append((name, tuple(found.values()), lack))
    return cases


def _located(message: str, path: Path) -> str:
    """The message with the file in front, unless it names one already."""
    return message if ".nii" in message.split(": ")[0] else f"{path}: {message}"
