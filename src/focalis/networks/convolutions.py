"""Which convolutions a computation asks for, known before it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from focalis.networks.dry import dry, needs_data


@dataclass(frozen=True)
class Convolution:
    """A 3D convolution as `torch.convolution` takes it.

    Attributes:
        input_shape: batch, channel, z, y, x.
        weight_shape: output channel, input channel of a group (the other way round if transposed), z, y, x.
        stride, padding, dilation, output_padding: one entry per axis, z, y, x.
        transposed: whether it steps up.
        groups: groups of channels that do not see each other.
    """

    input_shape: tuple[int, ...]
    weight_shape: tuple[int, ...]
    output_zyx: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int

    @property
    def least_length(self) -> int:
        """The length in voxels of the shortest axis of its input and output."""
        return min(*self.input_shape[2:], *self.output_zyx)


def convolutions(compute: Callable[[], object]) -> tuple[Convolution, ...] | None:
    """The different 3D convolutions that `compute` runs, in order; None if it cannot run without data.

    Nothing is computed: inside, tensors have a shape and a type but no data.
    """
    record = _Record()
    try:
        with dry(), record:
            compute()
    except Exception as error:
        if needs_data(error):
            return None
        raise
    return tuple(record.found)


class _Record(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every convolution; a dictionary keeps the order."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: dict[Convolution, None] = {}

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.convolution.default and args[0].dim() == 5:
            image, weight, _, *rest = args
            stride, padding, dilation, transposed, output_padding, groups = rest
            self.found[
                Convolution(
                    tuple(image.shape),
                    tuple(weight.shape),
                    tuple(result.shape[2:]),
                    tuple(stride),
                    tuple(padding),
                    tuple(dilation),
                    bool(transposed),
                    tuple(output_padding),
                    int(groups),
                )
            ] = None
        return result
