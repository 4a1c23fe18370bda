"""What the predictor asks of a network that is ready to run, whatever runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from focalis.model import Model

Triple = tuple[int, int, int]


class Engine(Protocol):
    """One network, ready to run."""

    @property
    def patchwise(self) -> bool:
        """Whether the network must be given tiles of the training patch's size; see `Network.patchwise`."""

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Softmax probabilities (1, label, z, y, x) of an image (1, channel, z, y, x), both float32.

        The caller may change them; the next call may write over them.
        """

    def release(self) -> None:
        """Give back the memory that is held between calls; the next call takes it again."""

    def forward_bytes(self, shape_bczyx: Sequence[int]) -> int:
        """Memory that a call adds to the process, input and output included."""

    def reach_zyx(self) -> Triple | None:
        """How many voxels away, along each axis, an input voxel can still change an output; None without bound."""


class Engines(Protocol):
    """A way to run networks; see `Runtime` and `OpenVino`."""

    def engines(self, model: Model) -> Sequence[Engine]:
        """The model's members, ready to run."""
