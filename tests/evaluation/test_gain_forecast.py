"""A forecast from points of a known learning curve."""

import re

import numpy as np
import pytest

from focalis.errors import UsageError
from focalis.evaluation import forecast


def law(n, ceiling=0.9, b=0.5):
    return ceiling - 1.5 * n**-b


def judged(mean, cases=40, spread=0.0, seed=0):
    """Dice of each case around a mean."""
    rng = np.random.default_rng(seed)
    return {f"case_{i}": float(value) for i, value in enumerate(mean + spread * rng.normal(size=cases))}


@pytest.mark.parametrize("sizes", [(12, 24, 36), (20, 40)])
@pytest.mark.parametrize("ceiling", [0.8, 0.9, 1.0])
def test_the_interval_holds_the_gain_of_a_known_curve(sizes, ceiling):
    found = forecast(sizes, [judged(law(n, ceiling)) for n in sizes])

    assert found.low < law(sizes[-1] + 20, ceiling) - law(sizes[-1], ceiling) < found.high
    assert found.low < found.gain < found.high
    assert found.dice == pytest.approx([law(n, ceiling) for n in sizes])


def test_the_law_is_that_of_the_cases_that_train():
    """In (6, 12, 18) three of each number choose: counted as training cases they make the curve look too steep."""
    rows = [judged(0.9 - n**-0.5) for n in (3, 9, 15)]
    found, counted = forecast((6, 12, 18), rows, trained=(3, 9, 15)), forecast((6, 12, 18), rows)

    assert found.gain < counted.gain
    assert found.line.endswith("0.642 with 18 training cases")
    # The law knows no unit: what counts is the ratio of the numbers that train, and of what is added.
    assert forecast((6, 12, 18), rows, trained=(2, 4, 6)).gain == pytest.approx(counted.gain)
    one, other = forecast((5, 10, 15), rows, trained=(3, 9, 15)), forecast((3, 9, 15), rows)
    assert one.gain == pytest.approx(other.gain, abs=0.005)  # fewer cases are noisier
    with pytest.raises(UsageError, match="a learning curve needs two numbers"):
        forecast((6, 12, 18), rows, trained=(3, 3, 3))


def test_a_steep_curve_promises_more_than_a_flat_one():
    steep, flat = (
        forecast((12, 24, 36), [judged(mean) for mean in means])
        for means in ((0.3, 0.5, 0.6), (0.58, 0.59, 0.60))
    )
    assert steep.gain > 2 * flat.gain


def test_the_order_of_the_sizes_does_not_matter():
    rows = {n: judged(law(n), spread=0.1, seed=n) for n in (12, 24, 36)}
    assert forecast((36, 12, 24), [rows[36], rows[12], rows[24]]) == forecast(
        (12, 24, 36), list(rows.values())
    )


@pytest.mark.parametrize(("sizes", "more"), [((15, 30, 45), 20), ((5, 10), 10), ((20, 40), 60)])
def test_the_interval_holds_what_another_training_shows_in_most_trainings(sizes, more):
    cases, within, width, trials = 30, 0, [], 60
    beyond = sizes[-1] + more
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        level = rng.normal(0, 0.1, cases)  # a hard case is hard for every training
        *means, reached = (law(n, b=0.7) + rng.normal(0, 0.18 / n**0.5) for n in (*sizes, beyond))
        dice = [{f"c{i}": float(mean + level[i]) for i in range(cases)} for mean in means]
        found = forecast(sizes, dice, more=more)
        within += found.low <= reached - means[-1] <= found.high
        width.append(found.high - found.low)
    assert 0.88 * trials <= within
    assert np.mean(width) < 10 * 0.18 / sizes[-1] ** 0.5  # and it is not held by saying nothing


def test_where_more_cases_did_not_help_no_gain_is_forecast_and_no_harm():
    found = forecast((10, 20, 30), [judged(mean) for mean in (0.62, 0.60, 0.58)])
    assert found.gain == 0
    assert found.low < -0.02 < 0.02 < found.high  # but a training with another seed may show either


def test_scans_of_one_patient_do_not_count_as_many():
    sizes = (10, 20, 30)
    rows = [judged(law(n), cases=40, spread=0.3 if n == 10 else 0.05, seed=n) for n in sizes]
    alone = forecast(sizes, rows)
    patients = {name: str(int(name.removeprefix("case_")) // 10) for name in rows[0]}
    together = forecast(sizes, rows, patients=patients)
    assert together.dice == alone.dice
    assert (together.low, together.high) != (alone.low, alone.high)


def test_the_sentence_names_gain_interval_and_points():
    line = forecast((12, 24, 36), [judged(mean) for mean in (0.5, 0.6, 0.65)]).line
    assert line.startswith("20 more training cases are likely to raise the mean Dice by 0.0")
    assert re.search(r"may show [-+]0\.\d{3} to \+0\.\d{3} \(95 %\)", line)
    assert "so far it was 0.500 with 12, 0.600 with 24, 0.650 with 36 training cases" in line


@pytest.mark.parametrize(
    ("sizes", "dice"),
    [
        ((10,), [{"a": 0.5}]),
        ((10, 10), [{"a": 0.5}] * 2),
        ((10, 20), [{"a": 0.5}, {"b": 0.5}]),
        ((10, 20), [{}, {}]),
    ],
)
def test_too_little_is_refused(sizes, dice):
    with pytest.raises(UsageError, match="a learning curve needs"):
        forecast(sizes, dice)
