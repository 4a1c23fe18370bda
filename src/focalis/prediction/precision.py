"""Whether a processor's bfloat16 (or float16) can be trusted with a network's convolutions.

PyTorch 2.13 (oneDNN) on AVX512-BF16 reads memory that nobody has written: the result of a convolution of one channel
whose map is one slice deep, and the weight gradient of one whose map is two slices deep, are infinite, or anything.
Which shapes are wrong depends on the kernels that the library has for a processor, so two rules hold:

- maps of one or two voxels along any axis are computed in float32;
- every other convolution is tried beforehand, on random numbers, against float32; one that is wrong means float32 for
  the whole network at that size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import starmap

import torch
from torch import Tensor
from torch.nn import functional

from focalis.networks import Convolution
from focalis.prediction.engine import THIN, THIN_MAPS

TRIES = 3
TOLERANCE = 0.05
"""Relative to the greatest value. Inputs are rounded beforehand, so what is left is the rounding of sums: 0.003 where
they are float32, and up to 0.03 in gradients where a processor without instructions for bfloat16 sums in bfloat16."""
LONGEST = 8
"""Maps are no longer than this along an axis when a convolution is tried; shorter axes keep their length."""
MOST_CHANNELS = 48


def float32_because(
    found: Sequence[Convolution] | None,
    dtype: torch.dtype,
    memory_format: torch.memory_format,
    *,
    backward: bool,
) -> str:
    """Why a processor should compute these convolutions in float32, one phrase; empty if `dtype` is right for them.

    Each is tried once per process, in milliseconds.

    Args:
        found: the convolutions of a network, see `convolutions`.
        dtype: the number format that is to be used.
        memory_format: the layout of inputs and weights.
        backward: also look at the gradients.
    """
    if dtype == torch.float32:
        return ""
    if found is None:
        return "which convolutions the network runs cannot be known before it runs"
    if any(each.least_length <= THIN for each in found):
        return THIN_MAPS
    for each in dict.fromkeys(map(_reduced, found)):
        if not is_right(each, dtype, memory_format, backward):
            name, channels = str(dtype).removeprefix("torch."), each.input_shape[1]
            maps = " x ".join(map(str, each.input_shape[2:]))
            return (
                f"{name} is wrong on this processor for a convolution of {channels} channels on {maps} voxels"
            )
    return ""


def _reduced(convolution: Convolution) -> Convolution:
    """The same for two images at most, on a smaller map and with fewer channels; kernels go by what is left over."""
    lengths = []
    for axis, length in enumerate(convolution.input_shape[2:]):
        stride = 1 if convolution.transposed else convolution.stride[axis]
        reach = convolution.dilation[axis] * (convolution.weight_shape[2 + axis] - 1) + 1
        least = max(LONGEST, reach - 2 * convolution.padding[axis])
        lengths.append(length if length <= least else least + (length - least) % stride)
    batch, inputs = convolution.input_shape[:2]
    channels = convolution.weight_shape[:2]
    if convolution.groups == 1:
        inputs, channels = _fewer(inputs), (_fewer(channels[0]), _fewer(channels[1]))
    return replace(
        convolution,
        input_shape=(min(batch, 2), inputs, *lengths),
        weight_shape=(*channels, *convolution.weight_shape[2:]),
        output_zyx=(),
    )


def _fewer(channels: int) -> int:
    """Two full vectors of 16 and the remainder stand for any number more."""
    return channels if channels <= MOST_CHANNELS else 32 + channels % 16


@cache
def is_right(
    convolution: Convolution, dtype: torch.dtype, memory_format: torch.memory_format, backward: bool
) -> bool:
    """Whether a convolution in low precision gives what float32 does, on memory that holds rubbish before."""
    generator = torch.Generator().manual_seed(0)

    def draw(shape: Sequence[int]) -> Tensor:
        values = torch.randn(tuple(shape), generator=generator)
        return values.to(dtype).float().contiguous(memory_format=memory_format)

    with torch.inference_mode(False), torch.set_grad_enabled(backward):
        image, weight = draw(convolution.input_shape), draw(convolution.weight_shape)
        wanted = list(_results(convolution, image, weight, None, backward))
        for _ in range(TRIES):
            _fill_free_memory(*wanted)
            found = list(_results(convolution, image, weight, dtype, backward))
            if not all(starmap(_agree, zip(wanted, found, strict=True))):
                return False
    return True


def _results(
    convolution: Convolution, image: Tensor, weight: Tensor, dtype: torch.dtype | None, backward: bool
) -> Iterator[Tensor]:
    """The output and, if asked for, the gradients of input and weight for a gradient of the output of 1 and -1."""
    image, weight = (each.detach().requires_grad_(backward) for each in (image, weight))
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        output = _apply(convolution, image, weight).float()
    yield output.detach()
    if backward:
        signs = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).sign()
        yield from torch.autograd.grad((output * signs).sum(), (image, weight))


def _apply(convolution: Convolution, image: Tensor, weight: Tensor) -> Tensor:
    """The convolution by the functions that networks call and that autocast knows."""
    stride, padding, dilation = convolution.stride, convolution.padding, convolution.dilation
    if convolution.transposed:
        return functional.conv_transpose3d(
            image, weight, None, stride, padding, convolution.output_padding, convolution.groups, dilation
        )
    return functional.conv3d(image, weight, None, stride, padding, dilation, convolution.groups)


def _agree(wanted: Tensor, found: Tensor) -> bool:
    """Whether two results differ by no more than rounding; NaN and infinity differ from everything."""
    return bool((found - wanted).abs().max() <= TOLERANCE * wanted.abs().max())


def _fill_free_memory(*like: Tensor) -> None:
    """Leave rubbish in the memory that the next tensors are likely to get: some as large as these, some of any size."""
    sizes = [each.numel() for each in like] + [each.numel() // 2 for each in like]
    sizes += [side * side for side in (50, 100, 300, 1000)]
    rubbish = [torch.full((size,), value) for size in sizes for value in (torch.nan, 1e30)]
    rubbish.clear()
