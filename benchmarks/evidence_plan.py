"""What the evidence rests on: every row of every experiment, in one place.

A row is one training and its scores. Rows that two experiments share are one row and one file.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from focalis.planning.plan import SCRATCH, SHAPES, LossSettings

RESULTS = Path(__file__).parent / "results"
FOLDS = range(5)
STEPS = {
    "lidc_nodules": 350,
    "lidc_small": 150,
    "oasis_inferior_ventricle": 250,
    "phantoms": 300,
}
"""Steps of a row by data: short, and equal for all that is compared."""
SECONDS = {
    "lidc_nodules": (0.16, 15.0),
    "lidc_small": (0.16, 10.0),
    "oasis_inferior_ventricle": (0.3, 60.0),
    "phantoms": (0.21, 15.0),
    "msd_hippocampus": (0.16, 100.0),
    "sts_pet": (0.16, 60.0),
}
"""About how long a step of the default network takes, and all that is not training: one thread of a processor with
bfloat16, two rows at a time."""
TIMES_AS_LONG = {"nnunet": 10.0, "small-unet": 2.0}
"""About how long a step of a network takes, in steps of the default one: for the estimate of an hour, nothing else."""
MINUTES_OF_STEPS = {
    "lidc_nodules": (12, 6000),
    "msd_hippocampus": (40, 6000),
    "sts_pet": (20, 4000),
    "oasis_inferior_ventricle": (8, 500),
}
"""Accuracy: the time on two threads that a row stands for, and its steps, which take no longer than that."""


class RowLoss(BaseModel):
    """The loss of a row, with the focal parameters whether it takes them or not, as the results state it."""

    model_config = ConfigDict(frozen=True)

    name: str = "dice_cross_entropy"
    r: float = 0.5
    weight: str = "exponential"
    k_per_mm: float = 0.1
    floor: float = 0.1
    cap_mm: float = 50.0

    @property
    def settings(self) -> LossSettings:
        """The loss as a plan states it, with the parameters that it takes."""
        return LossSettings.model_validate(self.model_dump())


@dataclass(frozen=True)
class Row:
    """A short training, judged on the held-out cases of its fold.

    Attributes:
        data: a key of `STEPS`.
        network: a name of `focalis.networks.NETWORKS`, a variant of `evidence_networks`, or a name of `rivals`.
        loss: the loss and its parameters.
        cases: how many training cases it gets; all if None.
        fold, seed: the fold held out, and the seed of everything else.
        steps: optimiser steps of the default network.
        equal_time: another network gets as many steps as fit into the default's time, instead of as many.
        start: the weights that it starts from, as a plan names them.
    """

    data: str
    network: str = "dense"
    loss: RowLoss = field(default_factory=RowLoss)
    cases: int | None = None
    fold: int = 0
    seed: int = 0
    steps: int = 0
    equal_time: bool = False
    start: str = SCRATCH

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", self.steps or STEPS[self.data])

    @property
    def setting(self) -> str:
        """The row without its fold and seed: what a line of a table pools."""
        budget = f"{self.steps}steps" + ("-in-time" if self.equal_time and self.network != "dense" else "")
        cases = "all" if self.cases is None else f"{self.cases}cases"
        start = "" if self.start == SCRATCH else f"-from-{self.start}"
        return f"{self.data}-{self.network}-{loss_name(self.loss)}-{cases}-{budget}{start}"

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.setting}-fold{self.fold}-seed{self.seed}"

    def path(self, results: Path = RESULTS) -> Path:
        """Where its result lies."""
        return results / "evidence" / f"{self.name}.json"

    @property
    def seconds(self) -> float:
        """About how long it takes."""
        step, rest = SECONDS[self.data]
        slower = TIMES_AS_LONG.get(self.network, 1.0)
        return step * self.steps * (1 if self.equal_time else slower) + rest * slower


@dataclass(frozen=True)
class FitRow:
    """A row of `accuracy.py`: `focalis fit` without any option but the fold, the time and the start."""

    data: str
    fold: int
    network: str | None = None
    start: str = SCRATCH

    @property
    def title(self) -> str:
        """The network and, unless it is random weights, the start."""
        return (self.network or "dense") + ("" if self.start == SCRATCH else f" from {self.start}")

    @property
    def minutes(self) -> float:
        """The time that the row stands for."""
        return MINUTES_OF_STEPS[self.data][0]

    @property
    def steps(self) -> int:
        """Steps of the default network; another one gets as many as fit into the same time."""
        return MINUTES_OF_STEPS[self.data][1]

    @property
    def setting(self) -> str:
        """The row without its fold."""
        start = [] if self.start == SCRATCH else [f"from-{self.start}"]
        return "-".join(
            [self.data, *([self.network] if self.network else []), f"{self.minutes:g}min", *start]
        )

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.setting}-fold{self.fold}-seed0"

    def path(self, results: Path = RESULTS) -> Path:
        """Where its result lies."""
        return results / "accuracy" / f"{self.name}.json"

    @property
    def seconds(self) -> float:
        """About how long it takes."""
        step, rest = SECONDS[self.data]
        # A patch of accuracy's plan of whole heads is (40 / 48)^3 as large as the one that STEPS is for.
        large = 0.6 if self.data == "oasis_inferior_ventricle" else 1.0
        return step * large * self.steps + rest


def loss_name(loss: RowLoss) -> str:
    """A loss and those of its parameters that are not the defaults."""
    usual = RowLoss()
    changed = [
        f"{letter}{getattr(loss, name):g}"
        for letter, name in (("r", "r"), ("k", "k_per_mm"), ("f", "floor"))
        if getattr(loss, name) != getattr(usual, name)
    ]
    return ",".join([loss.name, *changed])


CLAIMED = tuple(
    RowLoss(name=f"distance_focal_{weight}")
    for weight in ("exponential", "gaussian", "reciprocal", "growth", "constant")
)
"""The loss as claimed with each background weight; `constant` is the plain focal loss."""
DEFAULT = RowLoss()
TOGETHER = RowLoss(name="distance_focal_dice")
WEIGHTED = RowLoss(name="weighted_cross_entropy")
OTHERS = (TOGETHER, WEIGHTED, RowLoss(name="tversky"))
HARDER = TOGETHER.model_copy(update={"r": 2.0})
"""The sum with the other r of the grid, where taking the better one in each fold was ahead of the default."""
EXPONENTIAL, GROWTH, FOCAL = CLAIMED[0], CLAIMED[3], CLAIMED[4]
DECAYING = CLAIMED[:3]
BALANCED = EXPONENTIAL.model_copy(update={"k_per_mm": 100.0, "floor": 0.2})
"""The focal loss with the weight 0.2 on all background, whatever its distance: about the mean of the exponential's over
a training patch with a lesion on phantoms and ventricles (`mean_weights.py`: 0.16 and 0.21), less than that on nodules
(0.27)."""
FASTER = EXPONENTIAL.model_copy(update={"k_per_mm": 0.3})
"""The exponential with the decay that is the best of its parameters on the inner splits of the grid."""
LIGHTER = BALANCED.model_copy(update={"floor": 0.13})
"""The control for `FASTER`, whose mean weight over a training patch of the nodules is 0.13."""
PRESENT = RowLoss(name="present_dice_cross_entropy")
TRIED = (DEFAULT, PRESENT, EXPONENTIAL, BALANCED, GROWTH, FOCAL, WEIGHTED)
"""The losses whose success is counted."""
TRIED_LONG = (DEFAULT, PRESENT, EXPONENTIAL, WEIGHTED)
GRID: tuple[RowLoss, ...] = (
    *(
        loss.model_copy(update=change)
        for loss in DECAYING
        for change in ({"r": 2.0}, {"k_per_mm": 0.3}, {"floor": 0.0})
    ),
    *(GROWTH.model_copy(update=change) for change in ({"r": 2.0}, {"k_per_mm": 0.03})),
    FOCAL.model_copy(update={"r": 2.0}),
    HARDER,
)
"""One parameter changed at a time: chosen on the inner split, reported on the held-out cases."""
VARIANTS = (
    "dense-growth-half",
    "dense-growth-double",
    "dense-two-stages",
    "dense-four-stages",
    "dense-no-skips",
    "dense-pyramid",
    "dense-auxiliary",
    "dense-sees-less",
    "dense-sees-more",
    "dense-full-stem",
)
RIVALS = ("monai-unet", "nnunet")
"""Networks measured in the same loop and time: the fastest of the others, and the one of nnU-Net's size."""
SMALLER = "dense-sees-less"
"""A variant of fewer than 1.5 million parameters, which short rows could not tell from the default."""
FEW = (10, 20, 40, None)
FEW_FOLDS = range(2)
FEW_SEEDS = (1, 2)
"""Seeds of the rows that compare starts: not 0, whose rows from scratch are of an earlier revision."""
FEW_STEPS_IN_TIME = 2700
"""Steps of the default in the time of the rival's 350: 7.7 times as many by `time-nnunet.json`."""
FEW_START: tuple[tuple[str, int, tuple[int | None, ...]], ...] = (
    ("lidc_nodules", 350, (10, 20, None, 5, 40)),
    ("lidc_nodules", FEW_STEPS_IN_TIME, (10,)),
    ("msd_hippocampus", 350, (10,)),
    ("sts_pet", 350, (10,)),
    ("oasis_inferior_ventricle", 350, (6,)),
    ("msd_hippocampus", 350, (20,)),
    ("oasis_inferior_ventricle", 350, (None, 3)),
)
"""Data, steps and numbers of cases with which starts are compared."""
SMALL_UNET = "small-unet"
FEW_NETWORK: tuple[tuple[str, tuple[int | None, ...]], ...] = (
    ("lidc_nodules", (10, 20)),
    ("msd_hippocampus", (10,)),
    ("sts_pet", (10,)),
    ("lidc_nodules", (40, None)),
    ("oasis_inferior_ventricle", (6,)),
)
"""Data and numbers of cases with which the small U-Net is held against the default network, both from shapes."""
OWN_SHAPES = "own-shapes"
"""The start of a row whose network is not the default: its own weights from generated shapes, which
`pretrain_shapes.py --network NETWORK --out RUNS/own-shapes-NETWORK` makes; Focalis has none."""
SEVEN = 7
"""Cases with which the success of a start is counted."""
LONG_STEPS = 1000
"""Steps of a second look: after the usual ones hardly a loss finds the phantoms' lesions, and on ventricles a loss is
ahead that is behind elsewhere."""
SHORT_FOLDS = range(3)
"""Folds of the networks and of a loss's parameters."""


def experiments() -> dict[str, list[Row | FitRow]]:
    """The rows of every experiment by its name, in the order of importance: an early end leaves whole comparisons."""
    long_phantoms: list[Row | FitRow] = [
        Row("phantoms", loss=loss, seed=seed, steps=LONG_STEPS) for seed in range(6) for loss in TRIED_LONG
    ]
    return {
        "accuracy": [
            *(FitRow("lidc_nodules", fold) for fold in FOLDS),
            *(FitRow("lidc_nodules", fold, rival) for rival in RIVALS for fold in FOLDS),
            *(FitRow("oasis_inferior_ventricle", fold) for fold in FOLDS),
            *(FitRow("sts_pet", fold) for fold in FOLDS),
            *(FitRow("msd_hippocampus", fold) for fold in FOLDS),
            FitRow("msd_hippocampus", 0, SMALLER),
        ],
        "accuracy-start": [FitRow("lidc_nodules", fold, start=SHAPES) for fold in FOLDS],
        "loss-nodules": [
            Row("lidc_nodules", loss=loss, fold=fold, seed=seed)
            for seed in (0, 1)
            for fold in FOLDS
            for loss in (DEFAULT, PRESENT, *CLAIMED, FASTER, BALANCED, LIGHTER, *OTHERS, HARDER)
        ],
        "loss-phantoms": [
            *(Row("phantoms", loss=loss, seed=seed) for seed in range(10) for loss in TRIED),
            *(Row("phantoms", loss=loss, seed=seed) for seed in (0, 1) for loss in DECAYING[1:]),
        ],
        "loss-ventricle": [
            Row("oasis_inferior_ventricle", loss=loss, fold=fold)
            for fold in FOLDS
            for loss in (DEFAULT, PRESENT, EXPONENTIAL, GROWTH, FOCAL)
        ],
        "loss-phantoms-long": long_phantoms,
        "loss-ventricle-long": [
            Row("oasis_inferior_ventricle", loss=loss, fold=fold, steps=LONG_STEPS)
            for fold in FOLDS
            for loss in (DEFAULT, FOCAL, PRESENT)
        ],
        "success-phantoms": [Row("phantoms", loss=loss, seed=seed) for seed in range(10) for loss in TRIED],
        "success-phantoms-long": long_phantoms,
        "success-nodules": [
            Row("lidc_small", loss=loss, fold=seed % 5, seed=seed) for seed in range(10) for loss in TRIED
        ],
        "success-start": [
            Row("lidc_nodules", cases=SEVEN, fold=seed % 5, seed=seed, start=start)
            for seed in range(10)
            for start in (SCRATCH, SHAPES)
        ],
        "few-cases": [
            row
            for fold in FEW_FOLDS
            for cases in FEW
            for row in (
                Row("lidc_nodules", cases=cases, fold=fold),
                Row("lidc_nodules", cases=cases, fold=fold, steps=FEW_STEPS_IN_TIME),
                Row("lidc_nodules", network="nnunet", cases=cases, fold=fold),
            )
        ],
        "few-cases-start": [
            Row(data, cases=cases, fold=fold, seed=seed, steps=steps, start=start)
            for data, steps, numbers in FEW_START
            for cases in numbers
            for seed in FEW_SEEDS
            for fold in FEW_FOLDS
            for start in (SCRATCH, SHAPES)
        ]
        + [
            Row("lidc_nodules", network="nnunet", cases=10, fold=fold, seed=seed, start=start)
            for seed, start in ((0, SCRATCH), (0, OWN_SHAPES), (1, OWN_SHAPES))
            for fold in FEW_FOLDS
        ],
        "few-cases-network": [
            Row(data, network=network, cases=cases, fold=fold, seed=seed, steps=350, start=SHAPES)
            for data, numbers in FEW_NETWORK
            for cases in numbers
            for seed in FEW_SEEDS
            for fold in FEW_FOLDS
            for network in ("dense", SMALL_UNET)
        ],
        "network": [
            Row("lidc_nodules", network=network, fold=fold, equal_time=True)
            for fold in SHORT_FOLDS
            for network in ("dense", *VARIANTS)
        ],
        "loss-grid": [
            Row("lidc_nodules", loss=loss, fold=fold)
            for fold in SHORT_FOLDS
            for loss in (DEFAULT, WEIGHTED, *CLAIMED, BALANCED, TOGETHER, *GRID)
        ],
    }


def chosen(words: Iterable[str]) -> dict[str, list[Row | FitRow]]:
    """The experiments that the words name: one, all that begin with it (`loss`), or `all`; KeyError for others."""
    known = experiments()
    found: dict[str, list[Row | FitRow]] = {}
    for word in words:
        names = [word] if word in known else [n for n in known if word == "all" or n.startswith(f"{word}-")]
        if not names:
            raise KeyError(word)
        found |= {name: known[name] for name in names}
    return found


def with_steps(rows: Iterable[Row | FitRow], steps: int) -> list[Row | FitRow]:
    """The rows with another number of steps, for a trial; rows of accuracy are left out, theirs is their name."""
    return [replace(row, steps=steps) for row in rows if isinstance(row, Row)]
