"""What more training cases are likely to bring, from trainings on parts of those that are there.

The law is the power law of learning curves, Dice = c - a n^-b with n cases that train and b >= 0 (Figueroa et al.,
"Predicting sample size required for classification performance", 2012). The ceiling c, which the readers' agreement and
the time of training set, cannot be seen from few points: it is taken to lie anywhere between the best mean and 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from focalis.errors import UsageError
from focalis.evaluation.intervals import DRAWS, LEVEL, patients_of

TRAINING_NOISE = 0.18
"""Standard deviation of the mean Dice of trainings that differ in their seed alone, times the square root of the number
of training cases, on nodules; benchmarks/forecast.py measures it."""
LEAST_LEFT = 1e-3
MORE = 20
"""Cases more than the largest number that a gain is forecast for, if no other number is asked for."""


@dataclass(frozen=True)
class Forecast:
    """What the mean Dice is likely to gain by more training cases.

    Attributes:
        sizes: numbers of training cases, in ascending order.
        dice: the mean Dice that each reached.
        gain: of the mean Dice that is to be expected, the median of what is likely.
        low, high: the ends of the 95 % interval of the gain that one more training may show, which also varies with
            its seed.
    """

    sizes: tuple[int, ...]
    dice: tuple[float, ...]
    more: int
    gain: float
    low: float
    high: float

    @property
    def line(self) -> str:
        """The forecast in one sentence."""
        curve = ", ".join(f"{dice:.3f} with {n}" for n, dice in zip(self.sizes, self.dice, strict=True))
        return (
            f"{self.more} more training cases are likely to raise the mean Dice by {self.gain:.3f}; a training with "
            f"them may show {self.low:+.3f} to {self.high:+.3f} (95 %); so far it was {curve} training cases"
        )


def forecast(
    sizes: Sequence[int],
    dice: Sequence[Mapping[str, float]],
    patients: Mapping[str, str] | None = None,
    trained: Sequence[int] | None = None,
    more: int = MORE,
) -> Forecast:
    """Forecast the gain from a learning curve.

    Each of many draws takes a bootstrap sample of the patients, judged at every size, adds the noise of a training to
    every mean, draws a ceiling, and fits the law by least squares of the logarithm of what is left to the ceiling. What
    a training with more cases may show is the law there, with noise, less the mean of the largest number.

    Args:
        sizes: numbers of training cases, at least two different ones.
        dice: for each, case to Dice; the same cases for all.
        patients: case name to patient; a case that it does not name is a patient of its own.
        trained: for each number, how many of the cases train, where the others only choose; all if not given. Of
            further cases the share is that of the largest number.
        more: how many cases more than the largest number.

    Raises:
        UsageError: fewer than two sizes, or other cases for one than for another.
    """
    trained = sizes if trained is None else trained
    if min(len(set(sizes)), len(set(trained))) < 2 or not len(sizes) == len(trained) == len(dice):
        raise UsageError(f"a learning curve needs two numbers of training cases or more, not {list(sizes)}")
    cases = sorted(dice[0])
    if not cases or any(sorted(each) != cases for each in dice):
        raise UsageError("a learning curve needs the same judged cases for every number of training cases")
    order = np.argsort(sizes)
    ordered = np.asarray(sizes)[order]
    n = np.asarray(trained, dtype=np.float64)[order]
    beyond = n[-1] * (1 + more / ordered[-1])
    values = np.array([[dice[i][case] for case in cases] for i in order])
    groups = patients_of(cases, patients)
    numbers = [sorted(set(groups)).index(group) for group in groups]
    per_patient = np.zeros((max(numbers) + 1, len(n) + 1))
    for number, column in zip(numbers, values.T, strict=True):
        per_patient[number] += [*column, 1]
    rng = np.random.default_rng(0)
    picks = rng.integers(0, len(per_patient), size=(DRAWS, len(per_patient)))
    sums = per_patient[picks].sum(axis=1)
    seen = sums[:, :-1] / sums[:, -1:]
    means = seen + rng.normal(0, TRAINING_NOISE / np.sqrt(ordered), (DRAWS, len(n)))
    best = means.max(axis=1)
    ceiling = np.maximum(best + (1 - best) * rng.random(DRAWS), best + LEAST_LEFT)
    tail = (1 - LEVEL) / 2
    now, then = _on_the_law(n, beyond, means, ceiling)
    shown = then + rng.normal(0, TRAINING_NOISE / np.sqrt(ordered[-1] + more), DRAWS) - seen[:, -1]
    low, high = np.quantile(shown, [tail, 1 - tail])
    whole = values.mean(axis=1)
    return Forecast(
        tuple(int(size) for size in ordered),
        tuple(float(each) for each in whole),
        more,
        float(np.median(then - now)),
        float(low),
        float(high),
    )


def _on_the_law(
    n: NDArray[np.float64], beyond: float, means: NDArray[np.float64], ceiling: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Dice with the largest n and with `beyond`, by each row of mean Dice (draw, n) with its ceiling; never falling."""
    left = np.log(ceiling[:, None] - means)
    x = np.log(n) - np.log(n).mean()
    slope = np.minimum((left @ x) / (x @ x), 0)
    middle = left.mean(axis=1)
    now, then = (
        ceiling - np.exp(middle + slope * (np.log(size) - np.log(n).mean())) for size in (n[-1], beyond)
    )
    return now, then
