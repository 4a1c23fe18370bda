"""Networks, losses and augmentations that other packages install, by entry points.

A package names its parts in its `pyproject.toml`. They are known by these names wherever Focalis runs, also in child
processes and when a model is loaded:

    [project.entry-points."focalis.networks"]
    wide = "my_package:WIDE"

The entry point is a `NetworkSpec`, a `LossSpec`, or a subclass of `Augmentation`. See docs/plugins.md.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from typing import Literal, TypeVar, get_args

from pydantic import ValidationError

from focalis.errors import FocalisError, PlanError, did_you_mean, one_line
from focalis.settings import Frozen, first_fault

Kind = Literal["network", "loss", "augmentation", "executor"]
Part = TypeVar("Part")
Own = TypeVar("Own", bound="Parameters")


class Parameters(Frozen):
    """The own parameters of a network, a loss or an augmentation; in the plan they stand beside its name."""


class NoParameters(Parameters):
    """For a part that has none."""


@dataclass(frozen=True)
class Plugin:
    """Where a part comes from that is not Focalis's own.

    Attributes:
        package: the installed package, as pip knows it.
    """

    kind: Kind
    name: str
    package: str
    version: str


def installed(kind: Kind) -> tuple[str, ...]:
    """The names of the installed plug-ins of a kind, sorted. Nothing is imported."""
    return tuple(sorted(offered(kind)))


def find_part(kind: Kind, name: str, own: Mapping[str, Part], cls: type, others: str = "") -> Part:
    """A part by its name: Focalis's own, or an installed one.

    Args:
        cls: what the entry point must be an instance or a subclass of.
        others: what other names are known, for the message.

    Raises:
        PlanError: there is no such part; or an installed package takes a name of Focalis's own, cannot be imported, or
            offers something else.
    """
    entry = offered(kind).get(name)
    if entry is None:
        if name in own:
            return own[name]
        known = (*sorted(own), *installed(kind))
        listed = f"{', '.join(known)}{others}{did_you_mean(name, known)}"
        raise PlanError(f"unknown {kind} {name!r}; known are {listed}")
    package = _plugin(kind, entry)
    source = f"the package {package.package} {package.version}"
    if name in own:
        raise PlanError(
            f"{source} offers a {kind} {name!r}, which Focalis has itself; uninstall or rename it"
        )
    try:
        part: Part = entry.load()
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise PlanError(
            f"{kind} {name!r} of {source} cannot be imported ({reason}); install it again"
        ) from error
    if not (issubclass(part, cls) if isinstance(part, type) else isinstance(part, cls)):
        raise PlanError(f"{kind} {name!r} of {source} is no {cls.__name__}; ask its authors to offer one")
    return part


def plugin_of(kind: Kind, name: str) -> Plugin | None:
    """The installed package that offers a part; None for a part of Focalis's own, and for an unknown name."""
    entry = offered(kind).get(name)
    return None if entry is None else _plugin(kind, entry)


def installed_version(plugin: Plugin) -> str | None:
    """The version of a plug-in's package that is installed here; None without the package or without the part."""
    here = plugin_of(plugin.kind, plugin.name)
    if here is not None:
        return here.version
    try:  # MONAI offers its networks by their class names, not by entry points
        return version(plugin.package) if plugin.name.startswith(f"{plugin.package}:") else None
    except PackageNotFoundError:
        return None


def validated(kind: Kind, name: str, cls: type[Own], given: Mapping[str, object]) -> Own:
    """A part's own parameters; PlanError names the part and the parameter that is wrong."""
    try:
        return cls.model_validate(dict(given))
    except ValidationError as error:
        where, what = first_fault(error)
        known = ", ".join(cls.model_fields) or "none"
        raise PlanError(f"{kind} {name}: {where}: {what}; its parameters are: {known}") from error


def built(kind: Kind, name: str, build: Callable[[], Part]) -> Part:
    """What a part's own `build` makes; PlanError names the part that cannot be built, and says why."""
    try:
        return build()
    except FocalisError:
        raise
    except Exception as error:
        raise PlanError(
            f"{kind} {name}: cannot be built ({type(error).__name__}: {one_line(error)})"
        ) from error


def at_fault(error: BaseException) -> Plugin | None:
    """The plug-in through whose code an error came; None if it came through none."""
    names = {frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)}
    packages = {name.partition(".")[0] for name in names}
    for kind in get_args(Kind):
        for entry in offered(kind).values():
            if entry.module.partition(".")[0] in packages:
                return _plugin(kind, entry)
    return None


@cache
def offered(kind: Kind) -> Mapping[str, EntryPoint]:
    """What installed packages offer, by name. Looked for once: it takes a tenth of a second."""
    plural = "losses" if kind == "loss" else f"{kind}s"
    return {entry.name: entry for entry in entry_points(group=f"focalis.{plural}")}


def _plugin(kind: Kind, entry: EntryPoint) -> Plugin:
    package = entry.dist
    return Plugin(
        kind, entry.name, package.name if package else "unknown", package.version if package else ""
    )
