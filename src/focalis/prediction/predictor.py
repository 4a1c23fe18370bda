"""Probabilities of a whole volume: in one pass if the memory budget allows it, else tile by tile."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from focalis.errors import ModelError, one_line
from focalis.model import Model
from focalis.planning import Plan
from focalis.prediction.engine import Array, Engine, Engines, Host, Memory, PrecisionWarning, is_out_of_memory
from focalis.prediction.tiles import Axis, Triple, tiles
from focalis.volume import Outline, Volume

FLOAT_BYTES = 4
PROGRAM_BYTES = 600_000_000
"""Resident memory of the program with its libraries before it reads an image: measured 0.25 GB, 0.55 with PyTorch."""
HELD_SHARE = 0.25
"""Members keep their memory for the next case of the same size if all together take no more than this of the budget;
otherwise each gives it back for the next member, and for what comes after the passes."""

Progress = Callable[[int, int], None]
"""Called with the passes done and their total."""


@dataclass(frozen=True, eq=False)
class Passed:
    """What the networks make of a prepared case.

    Attributes:
        probabilities: mean softmax over members and mirror images, float32 (label, z, y, x), on the case's voxels.
        deviation: the standard deviation of the foreground probability over them, float32 (z, y, x), between 0 and 0.5,
            where that was asked for. Where tiles overlap their difference counts in it too.
        passes: how the volume was cut up.
    """

    probabilities: NDArray[np.float32]
    deviation: NDArray[np.float32] | None
    passes: Passes


def run_passes(
    model: Model,
    array: NDArray[np.float32],
    *,
    runtime: Engines | None = None,
    budget_bytes: float = math.inf,
    mirror: bool = False,
    spread: bool = False,
    progress: Progress | None = None,
) -> Passed:
    """Run the model's networks over a prepared case.

    The array is padded to a multiple of the network's total stride by reflection, as evenly as possible on
    both sides, and the result is cropped.

    Args:
        model: the model; its members are put into eval mode.
        array: a prepared case, float32 (channel, z, y, x).
        runtime: what runs the networks; PyTorch on the CPU in float32 by default.
        budget_bytes: what the passes may allocate: padded copy, accumulator, activations, work space.
        mirror: average over the mirror images too; up to eight times the time, hardly more memory.
        spread: also compute the deviation.
        progress: called with the passes done and their total.

    Raises:
        ModelError: not even a tile of the training patch's size fits the budget, or the network's output is not finite.
    """
    runtime = runtime or _default()
    free = runtime.free_bytes()
    while True:
        layout = plan_passes(
            model,
            array.shape[1:],
            budget_bytes=budget_bytes,
            mirror=mirror,
            runtime=runtime,
            spread=spread,
            free_bytes=free,
        )
        try:
            return _run(model, array, layout, runtime, budget_bytes, mirror, spread, progress)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            said = one_line(error, 120)
        # Outside of the handler, whose error keeps the failed pass's memory: the next smaller tile.
        for engine in runtime.engines(model):
            engine.release()
        if free is None:
            budget_bytes = layout.bytes - 1
        else:
            free = layout.bytes - 1
        if layout.is_least and (free is None or not layout.sums_there):
            raise ModelError(
                "there is not enough memory, not even for the smallest tile; close other programs, or take a machine "
                f"with more ({said or 'out of memory'})"
            )


def _run(
    model: Model,
    array: NDArray[np.float32],
    layout: Passes,
    runtime: Engines,
    budget_bytes: float,
    mirror: bool,
    spread: bool,
    progress: Progress | None,
) -> Passed:
    """All passes; image and sum live where the engines compute, unless only a tile fits there."""
    engines = runtime.engines(model)
    home: Memory = runtime if layout.sums_there else Host()
    padded = home.put(layout.pad(array))
    flips = mirror_flips(model.plan.training.flip_axes_zyx) if mirror else [()]
    parts = tiles(layout.padded_zyx, layout.tile_zyx, layout.axes_zyx)
    total, done, repaired = len(parts) * len(engines) * len(flips), 0, 0
    result = home.put(np.zeros((model.plan.outputs, *layout.padded_zyx), dtype=np.float32))
    squares = home.put(np.zeros(layout.padded_zyx, dtype=np.float32)) if spread else None
    share = 1 / (len(engines) * len(flips))
    held = layout.bytes * len(engines) <= HELD_SHARE * budget_bytes
    for engine in engines:
        for part in parts:
            x = padded[(None, slice(None), *part.where)]
            for flip in flips:
                values, again = _probabilities(engine, home.flip(x, flip), runtime, home)
                values = home.flip(values, flip)[0]
                repaired += again
                if squares is not None:
                    square = (1 - values[0]) ** 2
                    part.weigh(square, home.put)
                    square *= share
                    squares[part.where] += square
                part.weigh(values, home.put)
                values *= share
                result[(slice(None), *part.where)] += values
                done += 1
                if progress is not None:
                    progress(done, total)
        if not held:
            engine.release()
    if repaired:
        warnings.warn(
            f"{repaired} of {total} passes by {runtime} were not finite and were computed again in float32",
            PrecisionWarning,
            stacklevel=3,
        )
    found = home.fetch(result)
    np.clip(found, 0, 1, out=found)  # rounding may put it outside, where the log odds are undefined
    found = layout.crop(found)
    if squares is None:
        return Passed(found, None, layout)
    deviation = layout.crop(home.fetch(squares)[None])[0]
    deviation -= np.square(1 - found[0])
    return Passed(found, np.sqrt(np.maximum(deviation, 0, out=deviation), out=deviation), layout)


def budget_beside(memory_bytes: float, volumes: Sequence[Volume | Outline], plan: Plan) -> int:
    """What is left of a program's memory for `run_passes`: less the program, its images and their copy.

    The copy is the prepared one, float32 on the plan's spacing. Nothing is measured: the same image is cut into the
    same tiles everywhere. Zero or less if the memory does not even hold those.
    """
    grid = volumes[0].grid
    voxels = grid.voxel_volume_mm3 * np.prod(grid.size_xyz, dtype=np.float64) / np.prod(plan.spacing_zyx_mm)
    images = sum(each.nbytes if isinstance(each, Outline) else each.array.nbytes for each in volumes)
    return int(memory_bytes - PROGRAM_BYTES - images - FLOAT_BYTES * len(volumes) * voxels)


@dataclass(frozen=True)
class Passes:
    """How a volume is cut up.

    Attributes:
        padded_zyx: the volume's size after padding, a multiple of the total stride.
        padding_zyx: voxels added before and behind, per axis.
        tile_zyx: the size of a pass; equal to `padded_zyx` for a whole volume in one.
        axes_zyx: how tiles lie.
        bytes: the estimated need, at most the budget.
        float32_because: see `Engine.float32_because`.
        sums_there: whether image and sum live where the engines compute; the same place as the host's on a CPU.
        is_least: whether no smaller tile is possible.
    """

    padded_zyx: Triple
    padding_zyx: tuple[tuple[int, int], ...]
    tile_zyx: Triple
    axes_zyx: tuple[Axis, Axis, Axis]
    bytes: int
    float32_because: str = ""
    sums_there: bool = True
    is_least: bool = False

    def pad(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """The array (channel, z, y, x) with reflected borders; the array itself where none are needed."""
        return np.pad(array, ((0, 0), *self.padding_zyx), mode="reflect") if self.is_padded else array

    def crop(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """The array (label, z, y, x) without the borders; a view."""
        inner = (
            slice(before, size - behind)
            for (before, behind), size in zip(self.padding_zyx, self.padded_zyx, strict=True)
        )
        return array[(slice(None), *inner)]

    @property
    def tiles(self) -> int:
        """How many tiles there are; 1 where the whole volume goes through in one pass."""
        return math.prod(
            len(axis.starts(*sizes))
            for axis, *sizes in zip(self.axes_zyx, self.padded_zyx, self.tile_zyx, strict=True)
        )

    @property
    def is_blended(self) -> bool:
        """Whether tiles are blended; if not, the result is that of the whole volume."""
        return any(
            tile != size and not axis.is_exact(tile)
            for axis, tile, size in zip(self.axes_zyx, self.tile_zyx, self.padded_zyx, strict=True)
        )

    @property
    def is_padded(self) -> bool:
        """Whether any border is added."""
        return any(map(any, self.padding_zyx))


def plan_passes(
    model: Model,
    shape_zyx: Sequence[int],
    *,
    budget_bytes: float,
    mirror: bool = False,
    runtime: Engines | None = None,
    spread: bool = False,
    free_bytes: float | None = None,
) -> Passes:
    """Choose a tile that fits the budget: the whole volume, or its longest axis cut in two, and again.

    A tile smaller than the training patch would see less context than in training; if one of the patch's size
    does not fit, ModelError says the budget and the need. Networks that normalise by the statistics of what they see
    (`Engine.patchwise`) get tiles of the patch's size, as in training; a smaller volume is padded to it.

    Where a device has a memory of its own the budget must hold what lies on the host, and the device's free memory the
    passes: with image and sum if these leave room for a tile, else they stay on the host.

    Args:
        model: the model.
        shape_zyx: the size of a prepared case.
        budget_bytes: the host's.
        mirror, runtime, spread: see `run_passes`.
        free_bytes: the device's; by default what it has left.
    """
    plan, runtime = model.plan, runtime or _default()
    engine = runtime.engines(model)[0]
    free = runtime.free_bytes() if free_bytes is None else free_bytes
    stride = plan.network.total_stride_zyx
    padded = _triple(-(-size // s) * s for size, s in zip(shape_zyx, stride, strict=True))
    if engine.patchwise:
        padded = _triple(max(p, size) for p, size in zip(padded, plan.patch_zyx, strict=True))
    missing = [p - size for p, size in zip(padded, shape_zyx, strict=True)]
    padding = tuple((lack // 2, lack - lack // 2) for lack in missing)
    least = _triple(min(p, size) for p, size in zip(padded, plan.patch_zyx, strict=True))
    voxels = math.prod(padded)
    copy = len(plan.channels) if any(missing) else 0
    # The mean square, and two arrays of its size while it becomes a deviation.
    fixed = FLOAT_BYTES * voxels * (plan.outputs + copy + (3 if spread else 0))
    if free is None:
        return _cut(engine, plan, shape_zyx, padded, padding, least, fixed, budget_bytes, mirror)
    if fixed > budget_bytes:
        raise _too_small(shape_zyx, padded, fixed, budget_bytes)
    with suppress(ModelError):
        return _cut(engine, plan, shape_zyx, padded, padding, least, fixed, free, mirror)
    return replace(_cut(engine, plan, shape_zyx, padded, padding, least, 0, free, mirror), sums_there=False)


def _cut(
    engine: Engine,
    plan: Plan,
    shape_zyx: Sequence[int],
    padded: Triple,
    padding: tuple[tuple[int, int], ...],
    least: Triple,
    fixed: int,
    budget_bytes: float,
    mirror: bool,
) -> Passes:
    """The largest tile that fits beside what is fixed; `ModelError` if none does."""
    stride = plan.network.total_stride_zyx
    z, y, x = (Axis(s) for s in stride)
    axes = z, y, x
    # where not even what stays beside the passes fits, no tile does, and the least one says what is needed
    lengths = [[size] for size in (least if engine.patchwise or fixed > budget_bytes else padded)]
    while True:
        tile = _triple(axis[0] for axis in lengths)
        need = fixed + _pass_bytes(engine, plan, tile, mirror)
        if need <= budget_bytes:
            why = engine.float32_because((1, len(plan.channels), *tile))
            return Passes(padded, padding, tile, axes, need, why, is_least=tile == least)
        if (
            tile == padded and not engine.patchwise and fixed <= budget_bytes
        ):  # how far the network sees matters only where the volume is cut
            reach = engine.reach_zyx() or (None,) * 3
            z, y, x = (Axis(s, far) for s, far in zip(stride, reach, strict=True))
            axes = z, y, x
            lengths = [axis.lengths(*sizes) for axis, *sizes in zip(axes, padded, least, strict=True)]
        shrinkable = [axis for axis in lengths if len(axis) > 1]
        if not shrinkable:
            raise _too_small(shape_zyx, tile, need, budget_bytes)
        max(shrinkable, key=lambda axis: axis[0]).pop(0)


def _too_small(shape_zyx: Sequence[int], tile: Triple, need: int, budget_bytes: float) -> ModelError:
    volume, part = (" x ".join(map(str, size)) for size in (shape_zyx, tile))
    return ModelError(
        f"the memory budget is too small: {volume} voxels (z, y, x) in tiles of {part} need "
        f"{need / 1e9:.2f} GB, and {max(budget_bytes, 0) / 1e9:.2f} GB are left for them; "
        f"raise the budget by {math.ceil((need - budget_bytes) / 1e7) / 100:.2f} GB"
    )


def mirror_flips(allowed_zyx: tuple[bool, bool, bool]) -> list[tuple[int, ...]]:
    """The sets of axes to flip, of a tensor (batch, channel, z, y, x), the empty one first; eight if all may be.

    An axis along which patches were not mirrored in training is not mirrored here: it tells labels apart.
    """
    axes = [axis for axis, allowed in enumerate(allowed_zyx, start=2) if allowed]
    return [flips for count in range(len(axes) + 1) for flips in combinations(axes, count)]


def _default() -> Engines:
    from focalis.prediction.runtime import Runtime

    return Runtime()


def _probabilities(engine: Engine, x: Array, runtime: Engines, home: Memory) -> tuple[Array, bool]:
    """Those of one pass, float32 (1, label, z, y, x) at `home`, and whether it took two tries.

    What is not finite is computed again in float32.

    Raises:
        ModelError: it is not finite in float32 either.
    """
    given = x if home is runtime else runtime.put(x)
    values = engine(given)
    again = not math.isfinite(float(values.sum()))
    if again:
        values = engine.exactly(given)
        if not math.isfinite(float(values.sum())):
            raise ModelError(
                "the network's probabilities are not finite, not even in float32; check the image's values, and "
                "whether the model was trained on such images"
            )
    return values if home is runtime else runtime.fetch(values), again


def _pass_bytes(engine: Engine, plan: Plan, tile: Triple, mirror: bool) -> int:
    """One pass: the tile and its mirror image beside the forward, or the outputs after it if that is more."""
    inputs, outputs = len(plan.channels), plan.outputs
    voxels = int(np.prod(tile)) * FLOAT_BYTES
    forward = engine.forward_bytes((1, inputs, *tile))
    forward += voxels * inputs * (2 if mirror else 1)
    after = voxels * (inputs * (3 if mirror else 2) + outputs * 4)
    return max(forward, after)


def _triple(values: Iterable[int]) -> Triple:
    z, y, x = values
    return z, y, x
