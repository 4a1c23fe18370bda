"""Trainings beside each other that differ in one thing: the options that they share, and a row of figures for each."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from focalis.workflows.record import write_json


def options_of(text: str | None) -> argparse.ArgumentParser:
    """The options of such a benchmark; `text` describes it."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", "-o", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def print_rows(
    arms: Iterable[str], options: argparse.Namespace, trained: Callable[[str, Path], dict[str, Any]]
) -> None:
    """Print the row of each arm; `trained` makes one that is not there yet, by a run in the folder that it is given."""
    for arm in arms:
        run = options.out / f"{arm}-{options.steps}-seed{options.seed}"
        row = run.with_suffix(".json")
        if not row.exists():
            write_json(row, trained(arm, run))
        print(row.read_text(encoding="utf-8"))
