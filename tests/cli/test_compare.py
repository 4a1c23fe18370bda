"""What `focalis compare` passes on and prints; the workflow itself is tested elsewhere."""

import json
from functools import partial

import pytest


@pytest.fixture
def run(run):
    return partial(run, "compare")


@pytest.fixture
def given(monkeypatch):
    """What the command hands to the workflow, which answers with a table of two rows."""
    options = {}
    dice = {"value": 0.6, "low": 0.5, "high": 0.7, "cases": 9}
    rows = [
        {
            "network": network,
            "loss": "tversky",
            "runs": [{"outcome": outcome, "steps": 9}, {"outcome": outcome, "steps": 12}],
            "few_steps": outcome == "finished",
            "figures": {"overall": {"dice": dice}} if outcome == "finished" else None,
            "difference_to_first_row": None,
        }
        for network, outcome in (("dense", "finished"), ("unet", "diverged"))
    ]

    def compare(dataset, out, **given):
        from focalis.workflows.compare import Comparison

        options.update(given, dataset=dataset, out=out)
        return Comparison(out, out / "compare.json", out / "compare.html", {"rows": rows})

    monkeypatch.setattr("focalis.workflows.compare.compare", compare)
    return options


def test_lists_are_divided_at_their_commas(run, given, tmp_path):
    code, out, _ = run(
        "data", "-o", tmp_path, "--networks", "dense, unet", "--seeds", "0,3", "--steps", 5, "--parallel", 2
    )

    assert code == 0
    assert (given["networks"], given["losses"], given["seeds"]) == (["dense", "unet"], [], [0, 3])
    assert (given["steps"], given["parallel"], given["minutes"]) == (5, 2, None)
    assert "dense, tversky: Dice 0.600 [0.500, 0.700]" in out
    assert "9 to 12 steps, too few to judge by" in out
    assert "unet, tversky: 2 of 2 runs diverged" in out
    assert str(tmp_path / "compare.html") in out


@pytest.mark.usefixtures("given")
def test_json_is_the_content_of_the_table(run, tmp_path):
    _, out, _ = run("data", "-o", tmp_path, "--json")

    assert [row["network"] for row in json.loads(out)["rows"]] == ["dense", "unet"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--networks", "dense,nonsense"), "unknown network 'nonsense'; known are"),
        (("--losses", "nonsense"), "unknown loss 'nonsense'; known are"),
        (("--seeds", "one"), "--seeds one: must be whole numbers"),
    ],
)
def test_wrong_names_are_wrong_usage(run, tmp_path, words, message):
    code, _, err = run(tmp_path, "-o", tmp_path / "out", *words)

    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_collapsed_row_is_marked_and_both_dice_are_counted(run, tmp_path, monkeypatch):
    from focalis.workflows.compare import Comparison

    figures = {
        "dice": {"value": 0.3, "low": 0.1, "high": 0.5, "cases": 9},
        "dice_with_lesion": {"value": 0.0, "low": 0.0, "high": 0.0, "cases": 6},
    }
    row = {
        "network": "dense",
        "loss": "tversky",
        "runs": [
            {"outcome": "finished", "collapse": None},
            {"outcome": "finished", "collapse": "none of the 6"},
        ],
        "collapsed_runs": 1,
        "figures": {"overall": figures},
        "difference_to_first_row": None,
    }
    monkeypatch.setattr(
        "focalis.workflows.compare.compare",
        lambda _data, out, **_: Comparison(out, out / "c.json", out / "c.html", {"rows": [row]}),
    )
    _, out, _ = run("data", "-o", tmp_path, "--losses", "tversky,dice_cross_entropy", "--steps", 5)
    assert (
        "dense, tversky: COLLAPSED in 1 of 2 runs (none of the 6); Dice 0.300 [0.100, 0.500] of 9 cases"
        in out
    )
    assert "0.000 [0.000, 0.000] of the 6 with a lesion" in out


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_if_nothing_was_learned_that_is_said_first_and_fails(run, tmp_path, monkeypatch, options):
    from focalis.workflows.compare import Comparison

    content = {"rows": [], "alert": "nothing was learned in all 4 runs"}
    monkeypatch.setattr(
        "focalis.workflows.compare.compare",
        lambda _data, out, **_: Comparison(out, out / "c.json", out / "c.html", content),
    )
    code, out, err = run("data", "-o", tmp_path, "--steps", 5, *options)
    assert code == 1
    assert (err if options else out).startswith("WARNING: nothing was learned in all 4 runs")
    if options:
        assert json.loads(out) == content
