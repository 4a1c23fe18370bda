"""One case, from its volumes to a label map on its own grid."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from focalis.errors import ModelError
from focalis.lesions import temper, untempered
from focalis.model import Model, OperatingPoint
from focalis.planning import Plan, prepare_image
from focalis.prediction.decision import decide, drop_lesions
from focalis.prediction.engine import Engines
from focalis.prediction.predictor import (
    DEFAULT_BUDGET_BYTES,
    Progress,
    plan_passes,
    predict_probabilities,
    predict_with_deviation,
)
from focalis.prediction.restore import restore
from focalis.volume import Volume, why_unusable


class RefinementWarning(UserWarning):
    """The refinement of a case was cut short."""


@dataclass(frozen=True)
class Prediction:
    """What a model says about a case, on the case's own grid.

    Attributes:
        label: the label values, in the smallest of uint8, uint16 and uint32 that holds the plan's greatest one.
        foreground_probability: float32, 1 - p(background), tempered.
        uncertainty: float32, the standard deviation of the foreground probability over the passes, before it is
            tempered; None unless asked for.
        tiles: in how many pieces the networks saw it.
        blended: whether these overlap so little that they are blended: near their borders the result is not that of
            the whole volume.
        float32_because: why the networks computed in float32 though a lower precision was meant; empty if they did not.
    """

    label: Volume
    foreground_probability: Volume
    uncertainty: Volume | None = None
    tiles: int = 1
    blended: bool = False
    float32_because: str = ""


def predict_case(
    model: Model,
    volumes: Sequence[Volume],
    *,
    runtime: Engines | None = None,
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
    operating_point: OperatingPoint | None = None,
    mirror: bool = False,
    uncertainty: bool = False,
    refine: bool | None = None,
    progress: Progress | None = None,
) -> Prediction:
    """Segment one case.

    Args:
        model: the model.
        volumes: one per channel, in the order of the plan's channels, on one grid.
        runtime: what runs the networks; PyTorch on the CPU in float32 by default.
        budget_bytes: see `predict_probabilities`.
        operating_point: what is reported as a lesion; the model's own by default.
        mirror: average over the mirror images, up to eight.
        uncertainty: also say how far the passes disagree, those of the members and of the mirror images.
        refine: refine the probabilities by the model's fully connected CRF; by default if it has one.
        progress: called with the passes done and their total.

    Raises:
        ModelError: the model cannot take these volumes (their number, NaN, a constant image), the budget is
            too small, an uncertainty is asked of a single pass, there is nothing to refine by, or a probability is not
            finite.
        DataError: the channels lie on different grids.
    """
    check_volumes(volumes, model.plan)
    point = operating_point or model.operating_point
    prepared = prepare_image(volumes, model.plan)
    settings: dict[str, Any] = {
        "budget_bytes": budget_bytes,
        "mirror": mirror,
        "runtime": runtime,
        "progress": progress,
    }
    if refine and model.refinement is None:
        raise ModelError(
            "the model holds no refinement; train it as --network NAME+crf, or do not ask for one"
        )
    passes = plan_passes(
        model,
        prepared.array.shape[1:],
        budget_bytes=budget_bytes,
        mirror=mirror,
        runtime=runtime,
        spread=uncertainty,
    )
    deviation = None
    if uncertainty:
        probabilities, deviation = predict_with_deviation(model, prepared.array, **settings)
    else:
        probabilities = predict_probabilities(model, prepared.array, **settings)
    if model.refinement is not None and refine is not False:
        from focalis.prediction.refine import SECONDS, refine_probabilities
        from focalis.prediction.runtime import Runtime

        refined = refine_probabilities(
            probabilities,
            prepared.array,
            model.plan.spacing_zyx_mm,
            model.refinement,
            untempered(point.threshold, model.temperature),
            device=runtime.device if isinstance(runtime, Runtime) else None,
        )
        probabilities = refined.probabilities
        if not refined.complete:
            warnings.warn(
                f"the refinement was cut short after {SECONDS:g} s; a part of the case is as the network left it",
                RefinementWarning,
                stacklevel=2,
            )
    prepared_grid, grid = prepared.grid, prepared.input_grid
    del prepared  # its array is as large as the image in float32
    values = np.asarray((0, *model.plan.label_values))
    values = values.astype(np.min_scalar_type(values.max()))
    label = np.empty(grid.shape_zyx, dtype=values.dtype)
    foreground = np.empty(grid.shape_zyx, dtype=np.float32)
    for where, slab in restore(probabilities, prepared_grid, grid):
        foreground[where] = temper(1 - slab[0], model.temperature)
        if not np.isfinite(foreground[where]).all():
            raise ModelError(
                "the probabilities are not finite; check the image's values, and whether the model was trained on such "
                "images"
            )
        label[where] = values[decide(slab, point.threshold, foreground[where])]
    drop_lesions(
        label,
        foreground,
        voxel_mm3=grid.voxel_volume_mm3,
        minimum_mm3=point.minimum_mm3,
        minimum_confidence=point.minimum_confidence,
    )
    spread = None
    if deviation is not None:
        del probabilities, slab
        spread = np.empty(grid.shape_zyx, dtype=np.float32)
        # Outside the prepared grid channel 0 becomes 1 and the others 0, so the deviation is not channel 0.
        for where, slab in restore(np.stack([1 - deviation, deviation]), prepared_grid, grid):
            spread[where] = slab[1]
    return Prediction(
        Volume(label, grid),
        Volume(foreground, grid),
        None if spread is None else Volume(spread, grid),
        passes.tiles,
        passes.is_blended,
        passes.float32_because,
    )


def check_volumes(volumes: Sequence[Volume], plan: Plan) -> None:
    """Refuse with a reason what the model cannot take; ModelError."""
    if len(volumes) != len(plan.channels):
        wanted = ", ".join(plan.channels)
        raise ModelError(
            f"{len(volumes)} channels given, the model wants {len(plan.channels)} ({wanted}); give those"
        )
    for name, volume in zip(plan.channels, volumes, strict=True):
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
