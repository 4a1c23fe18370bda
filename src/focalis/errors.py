"""The exceptions that Focalis raises on purpose and its warnings about files; each message is a line for a person."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Self

_log = logging.getLogger(__name__)

MOST_NAMES = 1000
"""So many names beside a path that leads nowhere are compared with its own."""


class FocalisError(Exception):
    """Something a person can mend: the message says what is wrong, where, and what to do next.

    Attributes:
        path: the file, folder or case that it is about; None if it is about none.
        fault: what is wrong with that; empty if it is about none.
        advice: what to do about it; empty if the fault says it.
    """

    path: object = None
    fault: str = ""
    advice: str = ""
    _several: tuple[str, ...] = ()
    _command_line: str = ""

    @property
    def lines(self) -> tuple[str, ...]:
        """The message, one line per fault."""
        return self._several or (str(self),)

    @property
    def command_lines(self) -> tuple[str, ...]:
        """The message as the command line tells it, with its options in place of Python's keywords."""
        return (self._command_line,) if self._command_line else self.lines

    @classmethod
    def of_option(cls, python: str, command_line: str) -> Self:
        """An error about an option: the line in words of Python, and in those of the command line."""
        error = cls(python)
        error._command_line = command_line
        return error

    @classmethod
    def of_keyword(cls, line: str) -> Self:
        """An error whose line begins with a keyword, which on the command line is the option of that name."""
        return cls.of_option(line, f"--{line}")

    @classmethod
    def of_lines(cls, lines: Iterable[str]) -> Self:
        """An error of several faults, a line each; the same line once."""
        several = tuple(dict.fromkeys(lines))
        error = cls("\n".join(several))
        error._several = several
        return error

    @classmethod
    def at(cls, path: object, fault: str, advice: str = "") -> Self:
        """An error about a file, a folder or a case; its line is `path: fault; advice`."""
        error = cls(_line(path, fault, advice))
        error.path, error.fault, error.advice = path, fault, advice
        return error

    @classmethod
    @contextmanager
    def of_system(cls, path: object, advice: str = "", fault: str = "cannot be read") -> Iterator[None]:
        """What the system refuses in the block becomes an error about a file or folder, with the system's reason."""
        try:
            yield
        except OSError as error:
            raise cls.at(path, f"{fault} ({error.strerror or error})", advice) from error


class UsageError(FocalisError):
    """The call itself is wrong: an unknown option value, a path that is not there."""


class DataError(FocalisError):
    """A file or a data set cannot be used; the message names the file."""


class PlanError(FocalisError):
    """A plan file is malformed or does not fit the data."""


class ModelError(FocalisError):
    """A model file is malformed, or the model cannot take this input."""


class TrainingError(FocalisError):
    """Training cannot start, cannot continue, or diverged."""


class FileWarning(UserWarning):
    """Something about a file or folder that a person should know; its line is `path: fault; advice`.

    Attributes:
        fault: what is wrong, or what was done about it.
        advice: what to do; empty if nothing need be done.
    """

    def __init__(self, path: object, fault: str, advice: str = "") -> None:
        super().__init__(_line(path, fault, advice))
        self.path, self.fault, self.advice = path, fault, advice


class DivergedError(TrainingError):
    """The loss or its gradient is no longer finite."""


class CollapsedError(TrainingError):
    """Well into a training, the network finds no lesion."""


def _line(path: object, fault: str, advice: str) -> str:
    return f"{path}: {fault}" + (f"; {advice}" if advice else "")


@contextmanager
def about(path: object) -> Iterator[None]:
    """Errors of the block that are about no file are about this one."""
    try:
        yield
    except FocalisError as error:
        if error.path is not None:
            raise
        if len(error.lines) > 1:
            raise type(error).of_lines(_line(path, line, "") for line in error.lines) from error
        told = type(error).at(path, str(error))
        told._command_line = error._command_line and _line(path, error._command_line, "")
        raise told from error


@contextmanager
def refused(file: object) -> Iterator[None]:
    """Whatever a library raises in the block refuses this file: it becomes a `DataError` of one line."""
    try:
        yield
    except FocalisError:
        raise
    except Exception as error:
        _log.debug("%s: refused", file, exc_info=error)
        raise DataError.at(file, *_why(error)) from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'unet'?` for a name that is nearly a known one, else nothing: the end of a message."""
    names = {each.lower(): each for each in known}
    close = get_close_matches(name.lower(), names, n=1)
    return f"; did you mean {names[close[0]]!r}?" if close else ""


def near(path: Path) -> str:
    """`did_you_mean` for a path that leads nowhere, beside which something has nearly its name."""
    return did_you_mean(path.name, (each.name for each in some_of(path.parent, MOST_NAMES)))


def some_of(folder: Path, most: int) -> list[Path]:
    """As many entries of a folder as a hint may look at, sorted; none if it is not a folder, or cannot be read."""
    with suppress(OSError):
        return sorted(islice(folder.iterdir(), most))
    return []


def not_there(path: Path, ask: str) -> UsageError:
    """What to say of a path that leads nowhere; `ask` says what to give."""
    return UsageError.at(path, "is not there", f"{ask}{near(path)}")


def one_line(error: object, most: int = 300) -> str:
    """What an error says, on one line of at most so many characters; its type if it says nothing."""
    return " ".join(str(error).split())[:most] or type(error).__name__


MEMORY_WORDS = ("out of memory", "bad_alloc", "allocate memory", "not enough memory", "alloc_failed")
"""What libraries say where memory was not there, in small letters."""


def refusal(error: Exception, file: object) -> str:
    """What a batch says of a case that raised `error`, one line; the traceback is logged (`--debug` shows it).

    A batch catches `Exception`, so that no library's error in one case ends the others, and says this. The line of a
    `FocalisError` is its own; that of any other error names the file and the type of the error.
    """
    _log.debug("%s: refused", file, exc_info=error)
    return str(error) if isinstance(error, FocalisError) else _line(file, *_why(error))


def _why(error: Exception) -> tuple[str, str]:
    """Fault and advice of a library's error."""
    said = " ".join(str(error).split())[:300]
    what = type(error).__name__ + (f": {said}" if said else "")
    if isinstance(error, MemoryError) or any(word in said.lower() for word in MEMORY_WORDS):
        return f"there is not enough memory for it ({what})", "free some, or leave the case out"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read or written ({error.strerror})", "check the file, the disk and the permissions"
    return f"cannot be processed ({what})", "export it again or leave it out, --debug shows where it failed"


def disk_is_full(error: BaseException | None) -> bool:
    """Whether an error came of a disk or quota without room."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False
