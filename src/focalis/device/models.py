"""The models of the device: opened once, checked by hash, never loaded in the process that talks to the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from focalis.device.config import ModelEntry
from focalis.errors import ModelError, UsageError
from focalis.files import sha256_of
from focalis.model import Model, load_model, open_model
from focalis.models import model_file


@dataclass(frozen=True)
class ServedModel:
    """A model that the device may use.

    Attributes:
        name: its name in routes and on the page.
        header: the model, its networks not read; the file is refused once it is another.
    """

    name: str
    file: Path
    header: Model


def open_models(entries: Sequence[ModelEntry]) -> dict[str, ServedModel]:
    """Read the headers of the models and check the files; by name.

    Raises:
        ModelError: a file cannot be used, has other content than `sha256` says, or wants several channels.
        UsageError: there is no model, two share a name, or no model of a name comes with Focalis.
    """
    if not entries:
        raise UsageError("no model given; name a model file, or add [[models]] to focalis.toml")
    found: dict[str, ServedModel] = {}
    for entry in entries:
        if entry.name in found:
            raise UsageError(f"two models are called {entry.name!r}; give one another name in [[models]]")
        file = model_file(entry.file)
        header = open_model(file)
        digest = header.identity.file_sha256
        if entry.sha256 not in (None, digest):
            raise ModelError.at(
                file,
                f"has the SHA-256 {digest}, focalis.toml names {entry.sha256}",
                "the file was changed: restore it, or name the new hash after checking the model",
            )
        if len(header.plan.channels) != 1:
            wanted = ", ".join(header.plan.channels)
            raise ModelError.at(
                file,
                f"wants {wanted} together, and the device segments single series",
                "give a model of one channel",
            )
        found[entry.name] = ServedModel(entry.name, file.absolute(), header)
    return found


def loaded_model(file: str, sha256: str, models: dict[str, Model]) -> Model:
    """A model with its networks, in the process that segments.

    Args:
        models: the model that was loaded before, by the SHA-256 of its file; holds one.

    Raises:
        ModelError: the file was changed, or cannot be read.
    """
    with ModelError.of_system(file, "give a model file"):
        found = sha256_of(Path(file))
    changed = ModelError.at(
        file, "the file was changed since the device started", "restore it, restart, and try again"
    )
    if found != sha256:
        raise changed
    if sha256 not in models:
        models.clear()
        model = load_model(Path(file))
        if model.identity.file_sha256 != sha256:
            raise changed
        models[sha256] = model
    return models[sha256]
