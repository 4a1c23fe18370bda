"""What the commands print: results on stdout, progress on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from focalis.display import counted
from focalis.models import card_line, card_of, model_file

if TYPE_CHECKING:
    from focalis.evaluation import Summary
    from focalis.evaluation.beside_readers import StructureBesideReaders
    from focalis.training import Progress

SECONDS_BETWEEN_LINES = 30.0


class Advance(Protocol):
    """Shows where the work stands: the stage, the part of it that is done, of how many, and a short text."""

    def __call__(self, stage: str, done: float = 0, total: float | None = None, text: str = "") -> None: ...


@contextmanager
def progress_bar() -> Iterator[Advance]:
    """A progress bar on stderr while the context lasts; where stderr is not a terminal, a line now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    said, last = 0.0, ""
    with Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bars:
        task = bars.add_task("", total=None, text="")

        def advance(stage: str, done: float = 0, total: float | None = None, text: str = "") -> None:
            nonlocal said, last
            bars.update(task, description=stage, completed=done, total=total, text=text)
            now = time.monotonic()
            if not console.is_terminal and (stage != last or now - said >= SECONDS_BETWEEN_LINES):
                said, last = now, stage
                part = "" if total is None else f": {done:g} of {total:g}{text and ', ' + text}"
                print(f"{stage}{part}", file=sys.stderr, flush=True)

        yield advance


def show_training(advance: Advance) -> Callable[[str, Progress | None], None]:
    """Show what `fit` tells of its progress on a progress bar."""

    def show(stage: str, progress: Progress | None) -> None:
        if progress is None:
            advance(stage)
        else:
            dice = "" if progress.val_dice is None else f", validation Dice {progress.val_dice:.3f}"
            if progress.val_dice_with_lesion is not None:
                dice += f" ({progress.val_dice_with_lesion:.3f} with a lesion"
                dice += f", {progress.val_found} of {progress.val_lesions} lesions found)"
            left = f"{progress.seconds_left / 60:.1f} min left"
            advance(stage, progress.step, progress.steps, f"loss {progress.loss:.4f}{dice}, {left}")

    return show


def print_warning(line: str) -> None:
    """Print what a person should know."""
    print(f"warning: {line}", file=sys.stderr, flush=True)


def print_card(model: Path) -> None:
    """Name the card of a model that comes with Focalis; nothing of any other."""
    if card := card_of(model_file(model)):
        print(card_line(card), file=sys.stderr)


def print_summary(summary: Summary) -> None:
    """Print the main figures of an evaluation, one line per label, with their 95 % intervals."""
    for label in summary.labels:
        dice, filled, found = label["dice"], label["dice_with_lesion"], label.lesions.sensitivity
        false = label.lesions.false_positives_per_scan
        print(
            f"  {label.name}: {counted(label.cases)}, Dice {figure_with_interval(dice.mean, dice.low, dice.high)}, "
            f"over the {filled.n} with a lesion {figure_with_interval(filled.mean, filled.low, filled.high)}, "
            f"lesion sensitivity {figure_with_interval(found.value, found.low, found.high)} "
            f"({label.lesions.detected_lesions} of {label.lesions.truth_lesions}), "
            f"false positives per scan {figure_with_interval(false.value, false.low, false.high)}"
        )


def print_readers(structures: Sequence[StructureBesideReaders], seen: int = 0) -> None:
    """Print how a model stands beside the readers, a line per label, with 95 % intervals; nothing without readers.

    With the number of cases that the model has seen when it was made: there it stands too well.
    """
    doubt = f", but {seen} of the cases were seen when the model was made" if seen else ""
    for structure in structures:
        ours, theirs, index = (
            figure_with_interval(pooled.value, pooled.low, pooled.high)
            for pooled in (structure.model_dice, structure.readers_dice, structure.index)
        )
        spread = (
            "too few patients to say" if structure.verdict is None else f"{structure.verdict} their spread"
        )
        print(
            f"  {structure.structure}, {counted(structure.cases)} of two readers or more: model with readers {ours}, "
            f"readers among themselves {theirs}, agreement index {index}: {spread}{doubt}"
        )


def figure_with_interval(value: float | None, low: float | None, high: float | None) -> str:
    """A figure with its interval in brackets, as far as they are defined."""
    if value is None:
        return "undefined"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def print_json(value: object) -> None:
    """Print a result as one JSON document on stdout, for programs."""
    json.dump(as_plain(value), sys.stdout, indent=2)
    sys.stdout.write("\n")


def as_plain(value: Any) -> Any:
    """A result as what JSON knows: dataclasses become objects, paths become text."""
    if is_dataclass(value) and not isinstance(value, type):
        return as_plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
