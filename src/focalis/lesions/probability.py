"""Temperature scaling of the foreground probability."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Float = TypeVar("Float", bound=np.floating)


def temper(probability: NDArray[Float], temperature: float) -> NDArray[Float]:
    """Divide the log odds of a probability by a temperature: sigmoid(logit(p) / T).

    Temperature scaling (Guo et al., On Calibration of Modern Neural Networks, ICML 2017) of two classes. It keeps
    the order of probabilities, so that a threshold tempered alike gives the same mask; 1 / T undoes T.

    Args:
        probability: in [0, 1], any shape; returned as it is for a temperature of 1.
        temperature: above 1 towards a half, below 1 away from it.
    """
    if temperature == 1:
        return probability
    power = probability.dtype.type(1 / temperature)
    yes, no = probability**power, (1 - probability) ** power
    result: NDArray[Float] = yes / (yes + no)
    return result


def untempered(threshold: float, temperature: float) -> float:
    """The threshold on untempered probabilities that decides as `threshold` does on tempered ones."""
    return float(temper(np.asarray(threshold), 1 / temperature))
