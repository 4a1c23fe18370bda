"""What the predictor asks of a network that is ready to run, whatever runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from focalis.errors import MEMORY_WORDS, FocalisError
from focalis.model import Model

Triple = tuple[int, int, int]

THIN = 2
THIN_MAPS = "low precision on a processor is not reliable for maps of 1 or 2 voxels along an axis"
"""Networks that make maps no longer than `THIN` along any axis compute in float32, and this says why."""


Array = Any
"""A NumPy array, or a tensor on a device: what both can do is asked of it."""


class PrecisionWarning(UserWarning):
    """Passes in low precision were not finite, and were computed again in float32."""


class Engine(Protocol):
    """One network, ready to run. What is held between calls is held by thread."""

    @property
    def patchwise(self) -> bool:
        """Whether the network must be given tiles of the training patch's size; see `Network.patchwise`."""

    def __call__(self, x: Array) -> Array:
        """Softmax probabilities (1, label, z, y, x) of an image (1, channel, z, y, x), both float32, where it computes.

        The caller may change them; the next call may write over them.
        """

    def exactly(self, x: Array) -> Array:
        """The same as a call, in float32 as PyTorch computes it: for an image whose result was not finite."""

    def float32_because(self, shape_bczyx: Sequence[int]) -> str:
        """Why a call with such an image computes in float32 though a lower precision is meant; empty if it does not."""

    def release(self) -> None:
        """Give back the memory that is held between calls; the next call takes it again."""

    def forward_bytes(self, shape_bczyx: Sequence[int]) -> int:
        """Memory that a call adds to the process, input and output included."""

    def reach_zyx(self) -> Triple | None:
        """How many voxels away, along each axis, an input voxel can still change an output; None without bound."""


class Memory(Protocol):
    """Where arrays live: in the host's memory, or in a device's."""

    def put(self, array: NDArray[np.float32]) -> Array:
        """An array of the host, there; itself if it is there already."""

    def fetch(self, array: Array) -> NDArray[np.float32]:
        """An array from there, on the host."""

    def flip(self, array: Array, axes: tuple[int, ...]) -> Array:
        """The mirror image along some axes."""


class Host:
    """NumPy arrays in the host's memory; see `Memory`."""

    def put(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        return array

    def fetch(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        return array

    def flip(self, array: NDArray[np.float32], axes: tuple[int, ...]) -> NDArray[np.float32]:
        return np.flip(array, axes)

    def free_bytes(self) -> float | None:
        """See `Engines.free_bytes`: the host's own."""
        return None


class Engines(Memory, Protocol):
    """A way to run networks; see `Runtime` and `OpenVino`."""

    def free_bytes(self) -> float | None:
        """What a device of its own has left; None where engines compute in the host's memory."""

    def engines(self, model: Model) -> Sequence[Engine]:
        """The model's members, ready to run."""

    def on_threads(self, threads: int) -> Engines:
        """The same on so many threads of the processor."""

    def lanes(self) -> tuple[int, int]:
        """How many cases can be computed at once, each called by a thread of its own, and on how many threads each.

        It is one case where several would not be faster. The results on one and on two threads were compared on one
        processor, and agreed bit for bit; other numbers of threads and other processors were not.
        """


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was not there; PyTorch has an exception of its own for a GPU alone.

    An error of Focalis about a file is so if the error that it was made of is.
    """
    if isinstance(error, FocalisError) and error.__cause__ is not None:
        return is_out_of_memory(error.__cause__)
    words = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (type(error).__name__ == "OutOfMemoryError" or any(word in words for word in MEMORY_WORDS))
    )
