"""The run record: what a run was made from, so that another person can make it again."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from focalis.dataset import Case
from focalis.errors import DataError
from focalis.files import sha256_of, write_text

PACKAGES = ("focalis", "torch", "numpy", "scipy", "SimpleITK", "safetensors", "pydantic")


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What of `now` was otherwise before, by name, with both values where they are short: `steps (400, now 800)`."""
    shown = []
    for name, value in now.items():
        earlier = before.get(name)
        if earlier != value:
            plain = all(isinstance(each, str | int | float | None) for each in (earlier, value))
            both = f" ({earlier}, now {value})"
            shown.append(name + (both if plain and len(both) < 60 else ""))
    return ", ".join(shown)


def data_hash(cases: Sequence[Case], sha256_of: Callable[[Path], str] = sha256_of) -> str:
    """SHA-256 over names and contents of the cases' images and labels, in order of the names, and what was drawn."""
    total = hashlib.sha256()
    for case in sorted(cases, key=lambda case: case.name):
        for path in case.files():
            with DataError.of_system(path):
                content = sha256_of(path)
            total.update(f"{case.name} {content}\n".encode())
        if case.lacks:
            total.update(f"{case.name} lacks {sorted(case.lacks)}\n".encode())
        if case.drawn is not None:
            total.update(f"{case.name} drawn {sorted(case.drawn)}\n".encode())
    return total.hexdigest()


def provenance() -> dict[str, Any]:
    """Command, time, code revision, packages and machine of this process; no user or host name."""
    return {
        "command": _command(),
        "started": now(),
        "revision": _revision(),
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()},
    }


def _command() -> str:
    script, *words = (Path(word).name if Path(word).is_absolute() else word for word in sys.argv)
    if script == "__main__.py":
        script = f"python -m {Path(sys.argv[0]).parent.name}"
    elif script.endswith(".py"):
        script = f"python {script}"
    return " ".join([script, *words])


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def peak_memory_gb() -> float | None:
    """The largest resident memory of this process so far; None where the system does not tell."""
    try:  # Linux: getrusage answers with the parent's peak if that is larger, because it outlives fork and exec
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) * 1024 / 1e9, 3)
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e9, 3)


def write_json(path: Path, content: object) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; DataError names the file if it is missing or malformed."""
    try:
        with DataError.of_system(path):
            return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError.at(path, f"is not valid JSON ({error})") from error


def to_plain(value: Any) -> Any:
    """A value as JSON has it: dataclasses become objects, tuples and arrays lists."""
    if is_dataclass(value):
        return {each.name: to_plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [to_plain(each) for each in value]
    return value


def from_plain(kind: Any, value: Any) -> Any:
    """What `to_plain` was given.

    Args:
        kind: its type: a dataclass, tuple, array, union with None, or a plain type.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if value is None:
        return None
    if origin in (typing.Union, types.UnionType):
        return from_plain(next(each for each in arguments if each is not types.NoneType), value)
    if origin is np.ndarray:
        return np.asarray(value, dtype=typing.get_args(arguments[1])[0])
    if origin is tuple:
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(from_plain(each, item) for each, item in zip(kinds, value, strict=True))
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, Mapping):
        hints = typing.get_type_hints(kind)
        return kind(**{name: from_plain(hints[name], item) for name, item in value.items()})
    return value


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _revision() -> str | None:
    """The git revision of the source tree that this module lies in, with a plus if code was changed; None outside."""
    here = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        tracked = subprocess.run(
            ["git", "-C", str(here), "ls-files", "."], capture_output=True, text=True, check=True
        )
        if not tracked.stdout:
            return None
        dirty = subprocess.run(
            ["git", "-C", str(here), "diff", "--quiet", "HEAD", "--", ":/*.py", ":/*.toml"], check=False
        ).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if dirty else "")


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
