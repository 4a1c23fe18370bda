"""What a training is asked for, checked when it is made: how long, which folds, and with what to compute."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from focalis.errors import UsageError

DEFAULT_MINUTES = 30.0
DEFAULT_MEMORY_GB = 8.0


class Frozen(BaseModel):
    """A base for values from files and plug-ins: checked when they are made, never changed, no unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def first_fault(error: ValidationError) -> tuple[str, str]:
    """Where the first fault lies, its names with dots between, and what it is, without pydantic's words around it."""
    first = error.errors()[0]
    return ".".join(map(str, first["loc"])), str(first.get("ctx", {}).get("error") or first["msg"])


def at_least(name: str, value: float | None, least: int) -> None:
    """UsageError if a number was given and is too small."""
    if value is not None and value < least:
        raise UsageError(f"{name} is {value}; give {least} or more")


@dataclass(frozen=True)
class Length:
    """How long to train.

    Attributes:
        minutes: training time, turned into a number of steps once by measuring; 30 if neither is given.
        steps: optimiser steps instead.

    Raises:
        UsageError: both are given, or one is not above 0.
    """

    minutes: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.minutes is not None and self.steps is not None:
            raise UsageError("give minutes or steps, not both")
        at_least("steps", self.steps, 1)
        if self.minutes is None and self.steps is None:
            object.__setattr__(self, "minutes", DEFAULT_MINUTES)
        if self.minutes is not None and not 0 < self.minutes < float("inf"):
            raise UsageError(f"minutes is {self.minutes:g}; give more than 0")


@dataclass(frozen=True)
class Folds:
    """Which cases to hold out; none if neither `fold` nor `folds` is given.

    Attributes:
        fold: the one fold to hold out, from 0.
        folds: the number of folds to train.
        splits: JSON file of splits; otherwise the one splits*.json in the data set, otherwise made by patient.

    Raises:
        UsageError: both are given, splits without either, or one is too small.
    """

    fold: int | None = None
    folds: int | None = None
    splits: Path | None = None

    def __post_init__(self) -> None:
        if self.fold is not None and self.folds is not None:
            raise UsageError("give fold or folds, not both")
        if self.splits is not None and self.fold is None and self.folds is None:
            raise UsageError("splits say which cases a fold holds out; give fold or folds too")
        at_least("fold", self.fold, 0)
        at_least("folds", self.folds, 1)


@dataclass(frozen=True)
class Compute:
    """With what to compute.

    Attributes:
        device: auto, cpu, cuda, cuda:N or mps.
        precision: auto, float32, bfloat16 or float16. Whether the machine has device and precision is seen when they
            are chosen, by `focalis.prediction.choose_runtime`.
        threads: processor threads; as many as PyTorch takes if None.
        memory_gb: memory in 10^9 bytes; the plan's budget if None.

    Raises:
        UsageError: numbers that no machine has.
    """

    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    memory_gb: float | None = None

    def __post_init__(self) -> None:
        at_least("threads", self.threads, 1)
        if self.memory_gb is not None and not (self.memory_gb > 0 and isfinite(self.memory_gb)):
            raise UsageError(f"a memory budget of {self.memory_gb} GB is not possible; give a number above 0")
