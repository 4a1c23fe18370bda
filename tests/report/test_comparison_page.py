"""The page of a comparison, the plane of accuracy and time, the slice with everybody's contour."""

import importlib.util
import io
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from focalis.errors import DataError
from focalis.losses import LOSSES
from focalis.networks import NETWORKS
from focalis.report import Point, contours_figure, plane_figure, write_comparison_report
from focalis.report.comparison_page import starts_told, verdict
from focalis.report.contours_figure import COLOURS
from focalis.report.plane import undominated
from focalis.volume import Grid, Volume

_spec = importlib.util.spec_from_file_location("pages", Path(__file__).with_name("test_pages.py"))
_pages = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_pages)
NASTY, PNG, check = _pages.NASTY, _pages.PNG, _pages.check


def figure(value, low, high):
    return {"value": value, "low": low, "high": high, "cases": 21}


def figures(dice):
    return {
        "dice": figure(dice, dice - 0.1, dice + 0.1),
        "hd95_mm": figure(5.25, None, None),
        "lesion_f1": figure(0.5, 0.4, 0.6),
        "false_positives_per_scan": figure(1.5, 1.0, 2.0),
    }


def row(network, dice, outcome="finished", message=None, loss="dice_cross_entropy", seconds=700.0):
    done = outcome == "finished"
    run = {
        "folder": f"{network}-{loss}/fold_0-seed_0",
        "fold": 0,
        "seed": 0,
        "outcome": outcome,
        "message": message,
        "steps": 300,
        "training_seconds": seconds,
        "threshold": 0.4,
    }
    return {
        "network": network,
        "loss": loss,
        "runs": [run],
        "parameters": 1_690_978 if done else None,
        "steps_done": 300.0 if done else None,
        "training_seconds": seconds if done else None,
        "seconds_per_predicted_case": dice if done else None,
        "peak_memory_gb": 1.25 if done else None,
        "peak_gpu_memory_gb": None,
        "figures": {"overall": figures(dice)} if done else None,
        "dice_by_seed": {"0": dice if done else None},
        "difference_to_first_row": None,
    }


@pytest.fixture
def content():
    rows = [
        row("dense", 0.6),
        row("unet", 0.5, seconds=1100.0),
        row("nnunet", 0.4, "out of memory", f"can't allocate memory {NASTY}"),
    ]
    rows[1]["difference_to_first_row"] = figures(-0.2) | {"lesion_f1": figure(0.05, -0.1, 0.2)}
    return {
        "dataset": NASTY,
        "equal": "time",
        "minutes": 12.0,
        "steps": None,
        "folds": [0],
        "seeds": [0],
        "held_out_cases": 21,
        "labels": {"1": "lesion"},
        "shared": {"batch": 2},
        "rules": {"choices": "Choices.", "pooling": "Pooling.", "lesion_matching": "Matching."},
        "command": "focalis compare",
        "started": "2026",
        "revision": None,
        "python": "3.11",
        "machine": {"cores": 2},
        "data_sha256": "0",
        "packages": {"torch": "2.13.0"},
        "rows": rows,
    }


def test_the_page_shows_figures_differences_and_what_went_wrong(content, tmp_path):
    planes = write_comparison_report(tmp_path / "c.html", content, [(NASTY, PNG)])

    text = check(tmp_path / "c.html").text
    for expected in (
        "the same training time (12 min per run)",
        "0.600",
        "0.500 to 0.700",
        "1.69 M",
        "11.7 min",
        "minus dense, dice_cross_entropy",
        "\N{MINUS SIGN}0.200",
        f"out of memory: can't allocate memory {NASTY}",
        "no figures",
    ):
        assert expected in text
    page = (tmp_path / "c.html").read_text()
    assert "<b>\N{MINUS SIGN}0.200</b>" in page  # the interval excludes 0
    assert "<b>0.050</b>" not in page
    assert set(planes) == {"dice-prediction-time"}


def test_the_page_says_what_rows_started_from_and_took_over(content, tmp_path):
    start = {"name": "shapes", "taken": "104 of 104 tensors"}
    assert starts_told(content) == []
    first, *others = content["rows"]
    first["runs"][0]["start"] = start
    assert starts_told(content) == ["Started from shapes (104 of 104 tensors): dense, dice_cross_entropy."]
    others[0]["runs"][0]["start"] = start | {"taken": "102 of 104 tensors; fresh: output.bias, output.weight"}
    assert len(starts_told(content)) == 2
    for each in content["rows"]:
        each["runs"][0]["start"] = start
    write_comparison_report(tmp_path / "page.html", content, [])
    assert "Started from shapes (104 of 104 tensors): all rows." in (tmp_path / "page.html").read_text()


def test_a_row_of_too_few_steps_is_marked_with_the_rule(content, tmp_path):
    content["rules"]["few_steps"] = "Fewer than so many."
    content["rows"][1] |= {"steps_done": 9.0, "few_steps": True}
    content["rows"][1]["runs"][0] |= {"steps": 9, "few_steps": True}
    write_comparison_report(tmp_path / "c.html", content, [])
    text = check(tmp_path / "c.html").text
    assert text.count("9\N{DAGGER}") == 2
    assert "300\N{DAGGER}" not in text
    assert "Too few steps to judge by. Fewer than so many." in text


def test_runs_in_different_number_formats_are_pointed_out(content, tmp_path):
    for row_, runtime in zip(content["rows"][:2], ("cpu, bfloat16", "cpu, float32"), strict=True):
        row_["runs"][0] |= {
            "runtime": runtime,
            "float32_because": "maps are thin" * (runtime == "cpu, float32"),
        }
    write_comparison_report(tmp_path / "c.html", content, [])
    text = check(tmp_path / "c.html").text
    assert "did not all compute in the same number format (cpu, bfloat16, cpu, float32)" in text
    assert "(in float32: maps are thin)" in text


def test_a_row_that_missed_the_time_is_pointed_out(content, tmp_path):
    write_comparison_report(tmp_path / "c.html", content, [])

    text = check(tmp_path / "c.html").text
    assert "18.3 min*" in text
    assert "11.7 min*" not in text
    assert "did not have the same time" in text


def test_equal_steps_are_said_and_drawn_over_training_time_too(content, tmp_path):
    content |= {"equal": "steps", "steps": 1500, "minutes": None}

    planes = write_comparison_report(tmp_path / "c.html", content, [])

    text = check(tmp_path / "c.html").text
    assert "the same number of steps (1,500)" in text
    assert "min*" not in text
    assert set(planes) == {"dice-prediction-time", "dice-training-time"}


def test_learning_curves_of_all_trainings_are_shown(content, tmp_path):
    rows = [{"step": step, "loss": 1.0, "val_dice": step / 100} for step in (10, 50)]
    metrics = {(each["network"], each["loss"]): [rows, rows[:1]] for each in content["rows"]}
    files = write_comparison_report(tmp_path / "c.html", content, [], metrics)
    assert files["learning-curves"].startswith(b"\x89PNG")
    assert "Learning curves" in check(tmp_path / "c.html").text


def test_a_collapsed_row_is_marked(content, tmp_path):
    content["rows"][1]["collapsed_runs"] = 1
    content["rows"][1]["runs"][0]["collapse"] = "none of the 9 lesions was found"
    content["rows"][1]["figures"]["overall"]["dice_with_lesion"] = figure(0.0, 0.0, 0.0)

    write_comparison_report(tmp_path / "c.html", content, [])

    text = check(tmp_path / "c.html").text
    assert "collapsed: 1 of 1 runs found nothing" in text
    assert "none of the 9 lesions was found" in text


def test_without_a_first_row_there_are_no_differences(content, tmp_path):
    content["rows"] = [row("dense", 0.6, "diverged", "at step 3"), row("unet", 0.5)]

    write_comparison_report(tmp_path / "c.html", content, [])

    text = check(tmp_path / "c.html").text
    assert "The first row did not finish" in text
    assert "Differences to the first row" not in text


def test_several_labels_and_seeds_have_their_tables(content, tmp_path):
    content |= {"labels": {"1": "anterior", "2": "posterior"}, "seeds": [0, 1]}
    for one in content["rows"][:2]:
        one["figures"] |= {"1": figures(0.71), "2": figures(0.32)}
        one["dice_by_seed"] = {"0": 0.61, "1": None}

    write_comparison_report(tmp_path / "c.html", content, [])

    text = check(tmp_path / "c.html").text
    assert "Anterior" in text
    assert "0.710" in text
    assert "0.610" in text
    assert "trained with 2 seeds" in text


def test_the_front_holds_the_points_that_none_beats_in_both():
    slow_best = Point("a", 8.0, 0.9, None, None)
    fast = Point("b", 1.0, 0.5, None, None)
    beaten = Point("c", 8.0, 0.7, None, None)
    equal_but_slower = Point("d", 2.0, 0.5, None, None)

    assert undominated([slow_best, beaten, equal_but_slower, fast]) == [fast, slow_best]


def test_the_plane_draws_points_of_one_place():
    points = [Point(name, 1.0, 0.5, 0.4, 0.6, name == "dense") for name in ("dense", "unet", "$nnunet")]

    picture = imread(io.BytesIO(plane_figure(points, "seconds", "Dice")))

    assert picture.shape[1] > picture.shape[0] > 300


def volumes():
    grid = Grid((20, 20, 6), spacing_xyz_mm=(1.0, 1.0, 3.0))
    image, truth, guess = (np.zeros((6, 20, 20), np.uint8) for _ in range(3))
    truth[2:4, 8:12, 8:12] = 1
    guess[2:4, 9:13, 8:12] = 1
    return [Volume(array, grid) for array in (image, truth, guess)]


def test_every_contour_stands_in_the_first_panel_and_in_one_of_its_own():
    image, truth, guess = volumes()

    one = imread(io.BytesIO(contours_figure(image, truth, [("a", 0.7, guess)], "case")))
    five = imread(io.BytesIO(contours_figure(image, truth, [("a", 0.7, guess)] * 5, "$case")))

    assert five.shape[0] > 1.7 * one.shape[0]  # six panels take two rows of four
    blue = np.array([0x35, 0xB6, 0xFF]) / 255
    columns = np.flatnonzero((np.abs(one[..., :3] - blue).max(axis=-1) < 0.02).any(axis=0))
    assert columns.min() < one.shape[1] / 2 < columns.max()


def test_other_grids_are_refused():
    image, truth, guess = volumes()
    moved = Volume(guess.array, Grid((20, 20, 6), spacing_xyz_mm=(1.0, 1.0, 2.0)))

    with pytest.raises(DataError, match="other lie on different grids"):
        contours_figure(image, truth, [("other", 0.7, moved)], "case")


def test_every_network_and_every_loss_has_a_colour_of_its_own():
    assert len(set(COLOURS)) == len(COLOURS) >= max(len(LOSSES), len(NETWORKS) + 1)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.2, "Clearly above dense, dice_cross_entropy: unet, dice_cross_entropy (0.010 to 0.200)."),
        (
            -0.2,
            -0.01,
            "Clearly below dense, dice_cross_entropy: unet, dice_cross_entropy (\N{MINUS SIGN}0.200 to",
        ),
        (-0.1, 0.1, "Not clearly different from dense, dice_cross_entropy: unet"),
    ],
)
def test_the_page_says_first_which_row_is_best_and_which_differ(low, high, said):
    first, other = row("dense", 0.6), row("unet", 0.7)
    first["difference_to_first_row"] = None
    other["difference_to_first_row"] = {"dice": {"value": (low + high) / 2, "low": low, "high": high}}
    told = verdict([first, other])
    assert told.startswith("Highest mean Dice: unet, dice_cross_entropy, 0.700 (0.600 to 0.800).")
    assert said in told
    assert verdict([row("dense", 0.6, outcome="failed")]) == ""
    other["few_steps"] = True
    assert "unet, dice_cross_entropy†" in verdict([first, other])
    assert not re.search("[Cc]learly", verdict([first, other]))
