"""Read the next case and write the last one while others are computed, within the memory that they may take.

A case that is small beside the memory is computed beside others, in a thread; any other alone, in the caller's thread.
That thread also looks whether a case may be read. Warnings come case by case, in the order of the cases.
"""

from __future__ import annotations

import math
import queue
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

from focalis.volume import Outline
from focalis.workflows.case_images import Admit

Case = TypeVar("Case", contravariant=True)
Row = TypeVar("Row", covariant=True)
Found = TypeVar("Found")
Ask = tuple[Sequence[Outline], Sequence[str]]

SHARE = 0.75
"""Cases are computed beside each other if as many of their size take no more than this of the memory. The rest is for
the next one's images, and for what the networks hold between cases that are computed alone."""


class Stages(Protocol[Case, Row]):
    """What is done with each case. Whatever `Exception` a stage raises refuses the case."""

    def admit(self, case: Case, outlines: Sequence[Outline], modalities: Sequence[str]) -> float:
        """How many bytes the program takes until the case is computed; told before any value is read, see `Admit`."""

    def read(self, case: Case, admit: Admit) -> Row | Any:
        """Read a case, in a thread; or its row if there is nothing to compute."""

    def compute(self, case: Case, read: Any, stopped: threading.Event | None) -> Any:
        """Make the result.

        Args:
            stopped: set once nobody wants the result any more; None in the caller's thread, where the case is alone.
        """

    def write(self, case: Case, made: Any) -> Row:
        """Write the result, in a thread; one at a time."""

    def held(self, made: Any) -> float:
        """How many bytes a result takes until it is written."""

    def is_row(self, read: Any) -> bool:
        """Whether `read` found a row."""

    def refused(self, case: Case, error: Exception) -> Row:
        """The row of a case that raised an error."""


def overlapped(
    cases: Sequence[Case],
    stages: Stages[Case, Row],
    room_bytes: float,
    began: Callable[[int, Case], None],
    lanes: int = 1,
) -> list[Row]:
    """The row of each case, in their order.

    Ctrl-C, or any other error of `began`, leaves the case that is being written whole.

    Args:
        room_bytes: what the cases that are computed, the next one's images and the last ones' results may take
            together; where they do not fit, one waits for the other.
        began: called before a case is computed, with how many are finished.
        lanes: how many cases may be computed at once.
    """
    following, beside = None, None
    beside_bytes = 0.0  # what the threads beside each other may take, also between cases: networks stay
    stopped, writing = threading.Event(), threading.Lock()
    with _in_order() as heard, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        rows: _Rows[Row] = _Rows(heard)

        def write(case: Case, place: int, made: Any) -> Row:
            with heard.of(place), writing:
                row = _caught(stages.write, case, made)
            return stages.refused(case, row) if isinstance(row, Exception) else row

        def carry_out(case: Case, place: int, found: Any) -> Row:
            with heard.of(place):
                made = _caught(stages.compute, case, found, stopped)
            return stages.refused(case, made) if isinstance(made, Exception) else write(case, place, made)

        def end_beside() -> None:
            nonlocal beside, beside_bytes
            if beside is not None:
                rows.settle(0)
                beside.shutdown()
            beside, beside_bytes = None, 0.0

        try:
            for place, case in enumerate(cases):
                began(rows.finished, case)
                reading = following = following or _Reading(reader, stages, case, heard.of(place))
                if beside is not None and not reading.begin(room_bytes - beside_bytes - rows.awaited_bytes):
                    end_beside()
                found, need = reading.result(), reading.need
                following = None
                is_small = lanes > 1 and lanes * need <= SHARE * room_bytes
                if is_small:
                    beside_bytes = max(beside_bytes, lanes * need)
                else:
                    end_beside()
                if place + 1 < len(cases):
                    following = _Reading(reader, stages, cases[place + 1], heard.of(place + 1))
                    following.begin(room_bytes - need - beside_bytes - rows.awaited_bytes)
                if isinstance(found, Exception):
                    rows.add(place, stages.refused(case, found))
                elif stages.is_row(found):
                    rows.add(place, found)
                elif is_small:
                    rows.settle(lanes - 1, room_bytes - beside_bytes)
                    beside = beside or ThreadPoolExecutor(lanes)
                    rows.expect(place, beside.submit(carry_out, case, place, found))
                else:
                    rows.settle(1, room_bytes - need)
                    with heard.of(place):
                        made = _caught(stages.compute, case, found, None)
                    rows.settle(0)
                    if isinstance(made, Exception):
                        rows.add(place, stages.refused(case, made))
                    else:
                        rows.expect(place, writer.submit(write, case, place, made), stages.held(made))
                    del made
                del found, reading
        except BaseException:
            stopped.set()
            raise
        finally:
            if following is not None:
                following.drop()
            rows.settle(0)
            end_beside()
    return rows.in_order()


def _caught(stage: Callable[..., Any], *given: Any) -> Any:
    """What a stage returns, or the error that it raises."""
    try:
        return stage(*given)
    except Exception as error:  # whatever a library raises concerns this case alone
        return error


class _Rows(Generic[Found]):
    """The rows of finished cases, and those that threads still work on.

    Attributes:
        awaited_bytes: what the results that are being written take.
    """

    def __init__(self, heard: _Heard) -> None:
        self._heard, self._told = heard, 0
        self._found: dict[int, Found] = {}
        self._awaited: dict[Future[Found], tuple[int, float]] = {}

    @property
    def awaited_bytes(self) -> float:
        return sum(nbytes for _, nbytes in self._awaited.values())

    @property
    def finished(self) -> int:
        """How many cases are finished."""
        return len(self._found) + sum(row.done() for row in self._awaited)

    def add(self, place: int, row: Found) -> None:
        """Add a finished case."""
        self._found[place] = row
        while self._told in self._found:
            self._heard.tell(self._told)
            self._told += 1

    def expect(self, place: int, row: Future[Found], nbytes: float = 0.0) -> None:
        """Add a case that a thread works on; `nbytes` of its result that nobody else counts."""
        self._awaited[row] = place, nbytes

    def settle(self, most: int, room_bytes: float = math.inf) -> None:
        """Wait until threads work on so many cases at most, and their results fit the room."""
        while self._awaited and (len(self._awaited) > most or self.awaited_bytes > room_bytes):
            for row in wait(self._awaited, return_when=FIRST_COMPLETED).done:
                place, _ = self._awaited.pop(row)
                self.add(place, row.result())

    def in_order(self) -> list[Found]:
        """All rows, in the order of the cases."""
        return [self._found[place] for place in range(len(self._found))]


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

    def begin(self, room_bytes: float) -> bool:
        """Wait until its headers are read; let it go on if its images fit. Whether they did."""
        ask = self._held_back or self._asks.get()
        self._held_back = None
        if ask is None:
            self._asks.put(None)
        elif ask[0] and sum(outline.nbytes for outline in ask[0]) <= room_bytes:
            self._answer(ask)
        else:
            self._held_back = ask
        return self._held_back is None

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
