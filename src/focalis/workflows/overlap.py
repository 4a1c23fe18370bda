"""Read the next case and write the last one while one is computed, within the memory that they may take.

Networks run in the caller's thread alone, and so does the look at whether a case may be read. Warnings come case by
case, in the order of the cases.
"""

from __future__ import annotations

import queue
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

from focalis.volume import Outline
from focalis.workflows.case_images import Admit

Case = TypeVar("Case", contravariant=True)
Row = TypeVar("Row", covariant=True)
Ask = tuple[Sequence[Outline], Sequence[str]]


class Stages(Protocol[Case, Row]):
    """What is done with each case. Whatever `Exception` a stage raises refuses the case."""

    def admit(self, case: Case, outlines: Sequence[Outline], modalities: Sequence[str]) -> float:
        """How many bytes the program takes until the case is computed; told before any value is read, see `Admit`."""

    def read(self, case: Case, admit: Admit) -> Row | Any:
        """Read a case, in a thread; or its row if there is nothing to compute."""

    def compute(self, case: Case, read: Any) -> Any:
        """Make the result, in the caller's thread."""

    def write(self, case: Case, made: Any) -> Row:
        """Write the result, in another thread."""

    def held(self, made: Any) -> float:
        """How many bytes a result takes until it is written."""

    def is_row(self, read: Any) -> bool:
        """Whether `read` found a row."""

    def refused(self, case: Case, error: Exception) -> Row:
        """The row of a case that raised an error."""


def overlapped(
    cases: Sequence[Case], stages: Stages[Case, Row], room_bytes: float, began: Callable[[int, Case], None]
) -> list[Row]:
    """The row of each case, in their order.

    Ctrl-C, or any other error of `began`, leaves the case that is being written whole.

    Args:
        room_bytes: what a case that is computed, the next one's images and the last one's results may take together;
            where they do not fit, one waits for the other.
        began: called before a case is computed, with its place.
    """
    rows: list[Row] = []
    written: Callable[[], Row] | None = None
    waiting, following = 0.0, None
    with _in_order() as heard, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:

        def finish() -> None:
            nonlocal written, waiting
            if written is not None:
                last, written, waiting = written, None, 0.0
                rows.append(last())
                heard.tell(len(rows) - 1)

        try:
            for place, case in enumerate(cases):
                began(place, case)
                reading = following or _Reading(reader, stages, case, heard.of(place))
                following = None
                found = reading.result()
                if place + 1 < len(cases):
                    following = _Reading(reader, stages, cases[place + 1], heard.of(place + 1))
                    following.begin(room_bytes - reading.need - waiting)
                made = found
                if not isinstance(found, Exception) and not stages.is_row(found):
                    if waiting + reading.need > room_bytes:
                        finish()
                    with heard.of(place):
                        made = _caught(stages.compute, case, found)
                finish()
                if isinstance(made, Exception) or stages.is_row(made):
                    rows.append(stages.refused(case, made) if isinstance(made, Exception) else made)
                    heard.tell(place)
                else:
                    waiting = stages.held(made)
                    written = writer.submit(_written, stages, case, made, heard.of(place)).result
                del found, made, reading
        finally:
            if following is not None:
                following.drop()
            finish()
    return rows


def _caught(stage: Callable[..., Any], *given: Any) -> Any:
    """What a stage returns, or the error that it raises."""
    try:
        return stage(*given)
    except Exception as error:  # whatever a library raises concerns this case alone
        return error


def _written(stages: Stages[Case, Row], case: Case, made: Any, heard: Any) -> Row:
    with heard:
        row = _caught(stages.write, case, made)
    return stages.refused(case, row) if isinstance(row, Exception) else row


class _DroppedError(Exception):
    """Nobody wants the case any more."""


class _Reading(Generic[Case]):
    """A case that is read in a thread, which waits for leave before it takes memory.

    Attributes:
        need: what `Stages.admit` said that it takes, in bytes.
    """

    def __init__(self, pool: Executor, stages: Stages[Case, Any], case: Case, heard: Any) -> None:
        self._asks: queue.Queue[Ask | None] = queue.Queue()
        self._answers: queue.Queue[Exception | None] = queue.Queue()
        self._stages, self._case = stages, case
        self._held_back: Ask | None = None
        self.need = 0.0
        self._future = pool.submit(self._read, heard)

    def begin(self, room_bytes: float) -> None:
        """Wait until its headers are read; let it go on if its images fit."""
        ask = self._asks.get()
        if ask is None:
            self._asks.put(None)
        elif ask[0] and sum(outline.nbytes for outline in ask[0]) <= room_bytes:
            self._answer(ask)
        else:
            self._held_back = ask

    def result(self) -> Any:
        """What was read, or the error."""
        ask = self._held_back or self._asks.get()
        while ask is not None:
            self._answer(ask)
            ask = self._asks.get()
        return self._future.result()

    def drop(self) -> None:
        """Have it end, read or not."""
        self._answers.put(_DroppedError())

    def _read(self, heard: Any) -> Any:
        try:
            with heard:
                return _caught(self._stages.read, self._case, self._ask)
        finally:
            self._asks.put(None)

    def _ask(self, outlines: Sequence[Outline], modalities: Sequence[str]) -> None:
        self._asks.put((outlines, modalities))
        if (error := self._answers.get()) is not None:
            raise error

    def _answer(self, ask: Ask) -> None:
        need = _caught(self._stages.admit, self._case, *ask)
        refused = isinstance(need, Exception)
        self.need = 0.0 if refused else need
        self._answers.put(need if refused else None)


class _Heard:
    """Warnings by the case that they are about: told when it is done, so that they come in the order of the cases."""

    def __init__(self) -> None:
        self._show = warnings.showwarning
        self._place_of: dict[int, int] = {}
        self._kept: dict[int, list[tuple[Any, ...]]] = {}

    @contextmanager
    def of(self, place: int) -> Iterator[None]:
        """Warnings of this thread in the block are about that case."""
        self._place_of[threading.get_ident()] = place
        try:
            yield
        finally:
            del self._place_of[threading.get_ident()]

    def hear(self, *warning: Any, **more: Any) -> None:
        """In place of `warnings.showwarning`."""
        place = self._place_of.get(threading.get_ident())
        if place is None:
            self._show(*warning, **more)
        else:
            self._kept.setdefault(place, []).append(warning)

    def tell(self, place: int) -> None:
        """Show what was heard of a case."""
        for warning in self._kept.pop(place, []):
            self._show(*warning)


@contextmanager
def _in_order() -> Iterator[_Heard]:
    heard = _Heard()
    warnings.showwarning = heard.hear
    try:
        yield heard
    finally:
        warnings.showwarning = heard._show
