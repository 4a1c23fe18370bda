"""The way from the images of a case to its mask: the only one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focalis.display import Shown
from focalis.errors import ModelError
from focalis.lesions import LesionTable, OperatingPoint, measure_lesions, report_lesions
from focalis.model import Model
from focalis.planning import Plan, prepare_image
from focalis.prediction.choice import Say, runtime_for
from focalis.prediction.engine import Engines
from focalis.prediction.places import Pointed
from focalis.prediction.predictor import (
    FLOAT_BYTES,
    PROGRAM_BYTES,
    Passed,
    Progress,
    budget_beside,
    plan_passes,
    run_passes,
)
from focalis.prediction.restore import restore
from focalis.prediction.settings import Settings
from focalis.volume import (
    Absent,
    Axes,
    Grid,
    Outline,
    Volume,
    canonical_grid,
    grid_with_spacing,
    why_unusable,
    write_volume,
)


class RefinementWarning(UserWarning):
    """The refinement of a case was cut short."""


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation(Shown):
    """What a model says about a case, on the case's own grid. Arrays are z, y, x, unless `axes` says otherwise.

    Attributes:
        mask: the label values, in the smallest of uint8, uint16 and uint32 that holds the plan's greatest one.
        candidates: the same before small and unsure lesions are dropped; the mask itself if the point drops none.
        probability: float32, 1 - p(background), tempered.
        grid: where the voxels lie.
        point: what was reported as a lesion.
        runtime: what ran the networks, e.g. "cpu, openvino bf16".
        uncertainty: float32, the standard deviation of the foreground probability over the passes, before it is
            tempered; None unless asked for.
        tiles: in how many pieces the networks saw it.
        blended: whether these overlap so little that they are blended: near their borders the result is not that of
            the whole volume.
        float32_because: why the networks computed in float32 though a lower precision was meant; empty if they did not.
        outside: in what the images lie outside of what the model was trained on, a phrase each; empty if nobody looked.
        axes: the order of the arrays' axes.
        pointed: what became of the places that a person pointed at; empty if nobody did.
    """

    shows = (
        "shape",
        "axes",
        "spacing_mm",
        "lesions",
        "volume_ml",
        "runtime",
        "tiles",
        "threshold",
        "outside",
    )

    mask: NDArray[np.integer]
    candidates: NDArray[np.integer]
    probability: NDArray[np.float32]
    grid: Grid
    labels: Mapping[int, str]
    point: OperatingPoint
    runtime: str
    uncertainty: NDArray[np.float32] | None = None
    tiles: int = 1
    blended: bool = False
    float32_because: str = ""
    outside: tuple[str, ...] = ()
    axes: Axes = "zyx"
    pointed: tuple[Pointed, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of the mask, in the order of `axes`."""
        return self.mask.shape

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """The distance between voxel centres, in the order of `axes`."""
        return self.grid.spacing_zyx_mm if self.axes == "zyx" else self.grid.spacing_xyz_mm

    @property
    def volume_ml(self) -> float:
        """The volume of all that is marked."""
        return float(np.count_nonzero(self.mask) * self.grid.voxel_volume_mm3 / 1000)

    @property
    def threshold(self) -> float:
        """See `OperatingPoint`."""
        return self.point.threshold

    def along(self, axes: Axes) -> Segmentation:
        """The same with the axes of its arrays in that order; views."""
        if axes == self.axes:
            return self
        turned: dict[str, Any] = {
            name: None if (array := getattr(self, name)) is None else array.T
            for name in ("mask", "candidates", "probability", "uncertainty")
        }
        return replace(self, axes=axes, **turned)

    def save(self, path: Path | str) -> None:
        """Write the mask as an image file on the case's grid, by the suffix: .nii.gz, .nii, .nrrd or .mha.

        With .seg.nrrd it is a segmentation of 3D Slicer, whose segments have the labels' names and colours.
        """
        mask = Volume(np.ascontiguousarray(self.along("zyx").mask), self.grid)
        write_volume(mask, Path(path), self.labels)

    def way(self) -> dict[str, Any]:
        """For records: what ran the networks, in how many pieces, and in which precision."""
        return {
            "runtime": self.runtime,
            "tiles": self.tiles,
            "blended": self.blended,
            "float32_because": self.float32_because,
        }

    @cached_property
    def lesions(self) -> LesionTable:
        """Every lesion of the mask, measured, with its confidence and, if it was asked for, its uncertainty."""
        on = self.along("zyx")
        found = measure_lesions(
            on.mask, self.grid, self.labels, on.probability, on.uncertainty, self.point.temperature
        )
        return LesionTable(found)


def segment(
    model: Model,
    volumes: Sequence[Volume],
    settings: Settings | None = None,
    progress: Progress | None = None,
    *,
    checked: bool = False,
) -> Segmentation:
    """Segment one case.

    Args:
        volumes: one per channel, in the order of the plan's channels, on one grid.
        settings: how; the defaults are those of `focalis predict`.
        progress: called with the passes done and their total.
        checked: whether the volumes have passed `check_volumes`.

    Raises:
        ModelError: the model cannot take these volumes (their number, NaN, a constant image), the memory is too small,
            or a probability is not finite.
        UsageError: an uncertainty is asked of a single pass, or there is nothing to refine by.
        DataError: the channels lie on different grids.
    """
    settings = (settings or Settings()).for_model(model)
    if not checked:
        check_volumes(volumes, model.plan)
    point, budget = settings.point_of(model), budget_beside(settings.memory_gb * 1e9, volumes, model.plan)
    prepared = prepare_image(volumes, model.plan)
    inferred = infer(model, prepared.array, settings, budget_bytes=budget, progress=progress)
    prepared_grid, grid = prepared.grid, prepared.input_grid
    del prepared  # its array is as large as the image in float32
    passes, deviation = inferred.passes, inferred.deviation
    single = len(model.plan.label_values) == 1  # then the background's probability decides
    slabs = restore(inferred.probabilities[: 1 if single else None], prepared_grid, grid)
    del inferred
    reported = report_lesions(
        slabs,
        grid.shape_zyx,
        point,
        grid.spacing_zyx_mm,
        (0, *model.plan.label_values),
        nested=bool(model.plan.regions),
    )
    del slabs
    spread = None
    if deviation is not None:
        spread = np.empty(grid.shape_zyx, dtype=np.float32)
        # Outside the prepared grid channel 0 becomes 1 and the others 0, so the deviation is not channel 0.
        for where, slab in restore(np.stack([1 - deviation, deviation]), prepared_grid, grid):
            spread[where] = slab[1]
    return Segmentation(
        reported.mask,
        reported.candidates,
        reported.foreground,
        grid,
        model.plan.labels,
        point,
        str(engines_for(model, settings)),
        spread,
        passes.tiles,
        passes.is_blended,
        passes.float32_because,
    )


POINTS = "at=[(x, y, z), ...]"
"""How Python is given points."""


def require_crop(model: Model, grid: Grid, how: str = POINTS) -> None:
    """Refuse a whole scan to a guided model: it would mark much that is not a lesion.

    Args:
        how: how the caller takes points.

    Raises:
        ModelError: the image is larger than what the model looks at; the line says how to point.
    """
    most = model.most_zyx_mm
    if most is None:
        return
    size = np.multiply(canonical_grid(grid).shape_zyx, canonical_grid(grid).spacing_zyx_mm)
    if (size > np.multiply(most, 1.0 + 1e-4)).any():
        limits, sides = (" x ".join(f"{side:.0f}" for side in sides) for sides in (most, size))
        raise ModelError(
            f"the model is guided: it outlines one lesion in a crop of at most {limits} mm (z, y, x), and the image "
            f"has {sides} mm; point at each lesion: {how} (mm, LPS)"
        )


def infer(
    model: Model,
    array: NDArray[np.float32],
    settings: Settings,
    *,
    budget_bytes: float | None = None,
    progress: Progress | None = None,
) -> Passed:
    """Probabilities of a prepared case, refined if the model does that; the part of `segment` on the plan's own grid.

    Args:
        array: float32 (channel, z, y, x), see `prepare_image`.
        budget_bytes: what the passes may take; by default what the settings leave beside the array.
        progress: called with the passes done and their total.
    """
    engines = engines_for(model, settings)
    if budget_bytes is None:
        budget_bytes = settings.memory_gb * 1e9 - PROGRAM_BYTES - array.nbytes
    passed = run_passes(
        model,
        array,
        runtime=engines,
        budget_bytes=budget_bytes,
        mirror=settings.mirror,
        spread=settings.uncertainty,
        progress=progress,
    )
    if model.refinement is None or settings.refine is False:
        return passed
    from focalis.prediction.refine import SECONDS, refine_probabilities
    from focalis.prediction.runtime import Runtime

    refined = refine_probabilities(
        passed.probabilities,
        array,
        model.plan.spacing_zyx_mm,
        model.refinement,
        settings.point_of(model).untempered,
        device=engines.device if isinstance(engines, Runtime) else None,
    )
    if not refined.complete:
        warnings.warn(
            f"the refinement was cut short after {SECONDS:g} s; a part of the case is as the network left it",
            RefinementWarning,
            stacklevel=3,
        )
    return replace(passed, probabilities=refined.probabilities)


def engines_for(model: Model, settings: Settings, say: Say | None = None) -> Engines:
    """The run time that the settings mean for a model; it stays ready for the model's next case.

    Args:
        say: called with a line before something that takes a while.
    """
    key = settings.runtime, settings.device, settings.precision, settings.threads
    if key not in model.ready:
        if settings.threads is None:
            model.ready[key] = runtime_for(
                model, settings.runtime, settings.device, settings.precision, say=say
            )
        else:
            own = engines_for(model, replace(settings, threads=None), say)
            model.ready[key] = own.on_threads(settings.threads)
    ready: Engines = model.ready[key]
    return ready


def lanes_for(model: Model, settings: Settings) -> tuple[int, Settings]:
    """How many cases can be segmented at once, each in a thread of its own, and the settings for each.

    It is one case where several would not be faster. See `Engines.lanes` for how the results compare.
    """
    count, threads = engines_for(model, settings).lanes()
    if count == 1 or (model.refinement is not None and settings.refine is not False):
        return 1, settings
    settings = replace(settings, threads=threads)
    engines_for(model, settings)  # ready before the first thread asks
    return count, settings


def require_memory(model: Model, outlines: Sequence[Volume | Outline], settings: Settings) -> float:
    """Refuse a case that the memory cannot hold, before it is read; ModelError says what it needs.

    Args:
        outlines: one per channel, or the images themselves; nothing is refused without any.
        settings: how it would be segmented.

    Returns:
        The bytes of the host's memory that it takes beside the program itself; infinite without outlines.
    """
    if not outlines:
        return math.inf
    settings, plan, runtime = settings.for_model(model), model.plan, engines_for(model, settings)
    memory = settings.memory_gb * 1e9
    budget = budget_beside(memory, outlines, plan)
    passes = plan_passes(
        model,
        grid_with_spacing(canonical_grid(outlines[0].grid), plan.spacing_zyx_mm).shape_zyx,
        budget_bytes=budget,
        mirror=settings.mirror,
        runtime=runtime,
        spread=settings.uncertainty,
    )
    beside = memory - PROGRAM_BYTES - budget
    if runtime.free_bytes() is None:
        return beside + passes.bytes
    # the passes lie in the device's memory, copy and sum on both sides
    return beside + FLOAT_BYTES * math.prod(passes.padded_zyx) * (plan.outputs + len(plan.channels))


def reported_by(model: Model, array: NDArray[np.float32], settings: Settings) -> NDArray[np.integer]:
    """Class indices (z, y, x) of what a model reports on a prepared case, decided on its grid."""
    probabilities = infer(model, array, settings).probabilities
    point = settings.point_of(model)
    slabs, nested = [(slice(None), probabilities)], bool(model.plan.regions)
    return report_lesions(slabs, array.shape[1:], point, model.plan.spacing_zyx_mm, nested=nested).mask


def check_volumes(volumes: Sequence[Volume], plan: Plan) -> None:
    """Refuse with a reason what the model cannot take; ModelError."""
    if len(volumes) != len(plan.channels):
        wanted = ", ".join(plan.channels)
        raise ModelError(
            f"{len(volumes)} channels given, the model wants {len(plan.channels)} ({wanted}); give those"
        )
    for name, volume in zip(plan.channels, volumes, strict=True):
        if isinstance(volume, Absent):
            if name not in plan.channels_may_miss:
                raise ModelError(
                    f"channel {name} is missing, and the model was not trained to go without it; give it"
                )
            continue
        which = f"channel {name} " if len(volumes) > 1 else ""
        bad = int(np.count_nonzero(~np.isfinite(volume.array)))
        if bad:
            raise ModelError(
                f"{which}holds {bad} voxels that are NaN or infinite; repair or export the image again"
            )
        if volume.array.size == 0 or volume.array.min() == volume.array.max():
            raise ModelError(f"{which}has one value everywhere, nothing to segment; check the export")
        if why := why_unusable(volume.array):
            raise ModelError(f"{which}cannot be used: {why}")
