"""The charts: they draw whatever a run may have recorded."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from focalis.evaluation import evaluate_case
from focalis.report import DARK, LIGHT, curves_figure, spread_figure
from focalis.report.curves import _smooth, course
from focalis.volume import Grid, Volume

STEPS = [{"step": s, "loss": 1 / s, "learning_rate": 1e-3} for s in range(1, 50)]


@pytest.mark.parametrize(
    "metrics",
    [
        [],
        STEPS,
        [*STEPS, {"step": 20, "val_dice": 0.4}, {"step": 40, "val_dice": 0.6}],
        [*STEPS, {"step": 50, "loss": float("nan"), "learning_rate": 1e-3}],
        [{"step": 1, "loss": 0.5, "learning_rate": 0.0, "val_dice": None}],
        [{"step": 10, "val_dice": 0.0}],
    ],
)
def test_curves_of_any_run(metrics: list[dict[str, Any]]) -> None:
    assert curves_figure(metrics).startswith(b"\x89PNG")


def test_themes_differ() -> None:
    assert curves_figure(STEPS, LIGHT) != curves_figure(STEPS, DARK)


def test_smoothing_keeps_a_constant_and_skips_gaps() -> None:
    values = np.full(200, 3.0)
    values[50] = np.nan
    np.testing.assert_allclose(_smooth(values), 3.0)


def test_smoothing_is_a_centred_mean() -> None:
    values = np.random.default_rng(0).random(180)
    assert _smooth(values)[90] == pytest.approx(values[87:94].mean())
    assert _smooth(values)[0] == pytest.approx(values[:4].mean())


def test_spread_with_and_without_truth() -> None:
    array = np.zeros((4, 4, 4), np.uint8)
    array[1:3, 1:3, 1:3] = 1
    full, empty = Volume(array, Grid((4, 4, 4))), Volume(array * 0, Grid((4, 4, 4)))
    scores = [*evaluate_case(full, full, {1: "a", 2: "b"}), *evaluate_case(empty, full, {1: "a", 2: "b"})]
    assert spread_figure(scores).startswith(b"\x89PNG")
    assert spread_figure([replace(s, truth_voxels=0) for s in scores], DARK).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("dice", "said"),
    [
        ([0.2, 0.5, 0.505, 0.5, 0.509, 0.4], "flat since step 200"),
        ([0.5] * 5, "flat since step 100"),
        ([0.0] * 6, ""),
        ([0.0, 0.004, 0.0, 0.008, 0.009], ""),
        ([0.2, 0.3, 0.4, 0.5, 0.6], "still rose at the end"),
        ([0.2, 0.6], ""),
    ],
)
def test_it_is_said_whether_the_dice_of_cases_with_a_lesion_is_flat(dice: list[float], said: str) -> None:
    looks = [
        {"step": 100 * (place + 1), "val_dice": 0.75, "val_dice_with_lesion": each}
        for place, each in enumerate(dice)
    ]
    told = course(looks)
    assert said in told
    assert ("flat" in told, "minutes" in told or "more time" in told) == ("flat" in said, bool(said))
    none_found = course([look | {"val_lesions": 3, "val_found": 0} for look in looks])
    assert "more time" not in none_found
