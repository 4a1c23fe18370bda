"""One case, from its volumes to a label map on its own grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from focalis.errors import ModelError
from focalis.model import Model
from focalis.planning import Plan, prepare_image
from focalis.prediction.decision import decide
from focalis.prediction.engine import Engines
from focalis.prediction.predictor import DEFAULT_BUDGET_BYTES, Progress, predict_probabilities
from focalis.prediction.restore import restore
from focalis.volume import Volume


@dataclass(frozen=True)
class Prediction:
    """What a model says about a case, on the case's own grid.

    Attributes:
        label: the label values, uint8 (uint16 if a value exceeds 255).
        foreground_probability: float32, 1 - p(background); None unless asked for.
    """

    label: Volume
    foreground_probability: Volume | None


def predict_case(
    model: Model,
    volumes: Sequence[Volume],
    *,
    runtime: Engines | None = None,
    budget_bytes: int = DEFAULT_BUDGET_BYTES,
    threshold: float | None = None,
    mirror: bool = False,
    keep_probability: bool = False,
    progress: Progress | None = None,
) -> Prediction:
    """Segment one case.

    Args:
        model: the model.
        volumes: one per channel, in the order of the plan's channels, on one grid.
        runtime: what runs the networks; PyTorch on the CPU in float32 by default.
        budget_bytes: see `predict_probabilities`.
        threshold: on 1 - p(background); the model's operating point by default.
        mirror: average over the mirror images, up to eight.
        keep_probability: return the foreground probability too.
        progress: called with the passes done and their total.

    Raises:
        ModelError: the model cannot take these volumes (their number, NaN, a constant image), or the budget
            is too small.
        DataError: the channels lie on different grids.
    """
    check_volumes(volumes, model.plan)
    threshold = model.operating_point.threshold if threshold is None else threshold
    prepared = prepare_image(volumes, model.plan)
    probabilities = predict_probabilities(
        model, prepared.array, budget_bytes=budget_bytes, mirror=mirror, runtime=runtime, progress=progress
    )
    grid = prepared.input_grid
    values = np.asarray((0, *model.plan.label_values))
    values = values.astype(np.uint8 if values.max() <= np.iinfo(np.uint8).max else np.uint16)
    label = np.empty(grid.shape_zyx, dtype=values.dtype)
    foreground = np.empty(grid.shape_zyx, dtype=np.float32) if keep_probability else None
    for where, slab in restore(probabilities, prepared.grid, grid):
        label[where] = values[decide(slab, threshold)]
        if foreground is not None:
            np.subtract(1, slab[0], out=foreground[where])
    return Prediction(Volume(label, grid), None if foreground is None else Volume(foreground, grid))


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
