"""From a model and a case to probabilities and labels, within a memory budget.

What needs PyTorch is imported when it is first used: other run times start without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from focalis.prediction.choice import RUNTIMES, runtime_for
from focalis.prediction.engine import PrecisionWarning
from focalis.prediction.guided import segment_at
from focalis.prediction.places import Place, Pointed, cut, surroundings
from focalis.prediction.predictor import PROGRAM_BYTES, plan_passes, run_passes
from focalis.prediction.segmentation import (
    POINTS,
    RefinementWarning,
    Segmentation,
    check_volumes,
    engines_for,
    infer,
    lanes_for,
    reported_by,
    require_crop,
    require_memory,
    segment,
)
from focalis.prediction.settings import DEFAULT_MEMORY_GB, Settings
from focalis.prediction.tiles import Axis, tiles

if TYPE_CHECKING:
    from focalis.prediction.eight_bit import input_ranges, rounded
    from focalis.prediction.precision import float32_because
    from focalis.prediction.refine import refine_probabilities
    from focalis.prediction.runtime import (
        Runtime,
        choose_device,
        choose_precision,
        choose_runtime,
        missing_operations_told,
        peak_forward_bytes,
    )

__all__ = [
    "DEFAULT_MEMORY_GB",
    "POINTS",
    "PROGRAM_BYTES",
    "RUNTIMES",
    "Axis",
    "Place",
    "Pointed",
    "PrecisionWarning",
    "RefinementWarning",
    "Runtime",
    "Segmentation",
    "Settings",
    "check_volumes",
    "choose_device",
    "choose_precision",
    "choose_runtime",
    "cut",
    "engines_for",
    "float32_because",
    "infer",
    "input_ranges",
    "lanes_for",
    "missing_operations_told",
    "peak_forward_bytes",
    "plan_passes",
    "refine_probabilities",
    "reported_by",
    "require_crop",
    "require_memory",
    "rounded",
    "run_passes",
    "runtime_for",
    "segment",
    "segment_at",
    "surroundings",
    "tiles",
]

_WITH_TORCH = {
    "eight_bit": ("input_ranges", "rounded"),
    "precision": ("float32_because",),
    "refine": ("Refined", "refine_probabilities"),
    "runtime": (
        "Runtime",
        "choose_device",
        "choose_precision",
        "choose_runtime",
        "missing_operations_told",
        "peak_forward_bytes",
    ),
}


def __getattr__(name: str) -> object:
    """Import a name that needs PyTorch when it is first asked for."""
    for module, names in _WITH_TORCH.items():
        if name in names:
            value: object = getattr(import_module(f"{__name__}.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
