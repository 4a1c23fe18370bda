"""Which cases of a prediction an earlier run has finished, and which of them this run is given."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from focalis.errors import UsageError
from focalis.lesions import promised_of
from focalis.workflows.case_images import CaseInput
from focalis.workflows.lesion_tables import MISSING, ORIGINS, OUTSIDE, table_paths
from focalis.workflows.record import read_json

T = TypeVar("T")
_NAMING = ("model", "model_file_sha256")
"""What a table says of the model that no mask depends on: those of one file under two names are the same."""


def part_of(cases: Sequence[T], part: str | None) -> list[T]:
    """Every n-th of the cases from the i-th on, for a part `i/n`; all without one.

    Raises:
        UsageError: it is no such part.
    """
    if part is None:
        return list(cases)
    given = re.fullmatch(r"(\d+)/(\d+)", part)
    number, parts = (int(each) for each in given.groups()) if given else (0, 0)
    if not 1 <= number <= parts:
        raise UsageError(f"part is {part!r}; give I/N, from 1/N to N/N")
    return list(cases[number - 1 :: parts])


def finished_table(
    out: Path, case: CaseInput, results: Sequence[Path], document: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """The table of a case that need not be predicted again; None if it must be.

    It must if a result is missing, if an image was changed after the table was written or a channel came or went, and
    by a table of an older version, which does not say what is outside of the model's scope, or of which images it is.

    Args:
        results: the files that there must be.
        document: what the table is to say of model and settings.

    Raises:
        UsageError: the table is of another model, of other settings, or of other images.
    """
    table = table_paths(out, case.name)[1]
    if not all(path.is_file() for path in (table, *results)):
        return None
    content: Mapping[str, Any] = read_json(table)
    if OUTSIDE not in content or ORIGINS not in content:
        return None
    if any(
        before and now and before != now for before, now in zip(content[ORIGINS], case.origins, strict=False)
    ):
        raise UsageError.at(
            table,
            "is of other images of the same name, and is left as it is",
            "give another folder for these, or leave --resume out to predict them in its place",
        )
    written = table.stat().st_mtime_ns
    states = map(Path.stat, case.all_files)
    if content[ORIGINS] != case.origins or any(
        max(state.st_mtime_ns, state.st_ctime_ns) >= written for state in states
    ):
        return None
    expected = json.loads(json.dumps(document))
    if promise := expected.get("promise"):
        expected["promise"] = promised_of(
            promise, outside=bool(content[OUTSIDE]), missing=bool(content.get(MISSING))
        )
    changed = [name for name, value in expected.items() if name not in _NAMING and content.get(name) != value]
    if changed:
        what = "model" if "model_sha256" in changed else _differing(content, document, changed)
        raise UsageError.at(
            table,
            f"is of another {what}, and is left as it is",
            "give another folder, or leave --resume out to predict it again",
        )
    return content


def _differing(content: Mapping[str, Any], document: Mapping[str, Any], changed: Sequence[str]) -> str:
    """The settings that differ, by name."""
    before, now = content.get("settings") or {}, document["settings"]
    settings = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    return " and ".join(settings or changed)
