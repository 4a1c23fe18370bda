"""From a model and a case to probabilities and labels, within a memory budget."""

from focalis.prediction.case import Prediction, RefinementWarning, check_volumes, predict_case
from focalis.prediction.decision import decide, drop_lesions
from focalis.prediction.memory import forward_bytes, peak_forward_bytes
from focalis.prediction.predictor import (
    DEFAULT_BUDGET_BYTES,
    Passes,
    plan_passes,
    predict_probabilities,
    predict_with_deviation,
)
from focalis.prediction.refine import Refined, refine_probabilities
from focalis.prediction.runtime import (
    Runtime,
    choose_device,
    choose_precision,
    choose_runtime,
    cpu_has_bfloat16,
)
from focalis.prediction.tiles import Tile, tile_starts, tiles

__all__ = [
    "DEFAULT_BUDGET_BYTES",
    "Passes",
    "Prediction",
    "Refined",
    "RefinementWarning",
    "Runtime",
    "Tile",
    "check_volumes",
    "choose_device",
    "choose_precision",
    "choose_runtime",
    "cpu_has_bfloat16",
    "decide",
    "drop_lesions",
    "forward_bytes",
    "peak_forward_bytes",
    "plan_passes",
    "predict_case",
    "predict_probabilities",
    "predict_with_deviation",
    "refine_probabilities",
    "tile_starts",
    "tiles",
]
