"""The start that comes with Focalis: weights of the default network that has seen shapes, and no patient."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from focalis.errors import ModelError
from focalis.files import sha256_of
from focalis.models import published_file

START = "shapes"
_OTHERWISE = "train from random weights, or give the file of a start"


@dataclass(frozen=True)
class Start:
    """Weights that a training may start from.

    Attributes:
        name: the file's name without its suffix.
        sha256: of the file.
        state: tensors by the names of the network's state dict; for `focalis.networks.transfer`.
        recipe: how they were made, by the file's own words.
    """

    name: str
    sha256: str
    state: dict[str, Tensor]
    recipe: dict[str, str]


def read_start(path: Path | None = None) -> Start:
    """Read a start, the one that comes with Focalis if none is named.

    Raises:
        ModelError: the file cannot be read or holds no weights; or this installation has none, or another than the
            one that was published.
    """
    path = path or published_file(START, _OTHERWISE)
    try:
        digest = sha256_of(path)
        with safe_open(path, framework="pt") as file:
            recipe = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path}: cannot be read as weights ({' '.join(str(error).split())}); {_OTHERWISE}"
        ) from error
    return Start(path.stem, digest, state, recipe)
