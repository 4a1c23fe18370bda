"""The pages of readers, lesions and comparisons, made from results alone: small made-up ones with known answers."""

import json

import comparison
import lesions
import numpy as np
import pytest
import readers
from accuracy import values_of

from focalis.evaluation import Score

CASES = [f"case{number}" for number in range(4)]
REVISION = "0123456789abcdef"


def reader_row(target, fold, seed, dice, single=None):
    """A result of readers.py: two windows per case; case3 has one reader, who agrees perfectly if `single` says so."""
    windows = []
    for number, case in enumerate(CASES):
        alone = case == "case3"
        windows += [
            {
                "case": f"{case} window {part}",
                "model_dice": single if alone else dice + 0.1 * number + (0.02 if part else -0.02),
                "readers_dice": None if alone else 0.8,
                "not_odd_one_out": None if alone else False,
                "by_reader": {},
            }
            for part in (0, 1)
        ]
    return {
        "target": target,
        "fold": fold,
        "seed": seed,
        "steps": 600,
        "minutes_asked": None,
        "revision": REVISION,
        "windows": windows,
    }


@pytest.fixture
def reader_results(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "RESULTS", tmp_path)
    for target, dice in (("labels", 0.5), ("mean", 0.55)):
        for seed in (0, 1):
            row = reader_row(target, 0, seed, dice, single=1.0)
            path = tmp_path / f"lidc_nodules-{target}-2min-fold0-seed{seed}.json"
            path.write_text(json.dumps(row))
    return tmp_path


@pytest.mark.usefixtures("reader_results")
def test_targets_are_judged_where_readers_can_be():
    lines = readers.table(("labels", "mean", "random"), 2)
    assert lines[0] == "600 steps each; cases with two readers or more; revision `0123456789ab`."
    labels, mean = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[4:])
    assert labels[:3] == ["labels", "1, 2", "3"]  # the case of a single reader is not among them
    assert labels[3].startswith("0.600 [")
    assert labels[5] == ""
    assert mean[5] == "0.050 [0.050, 0.050]"
    assert mean[6] == "0.800"
    assert mean[7].startswith("0.812 [")
    assert mean[8] == "outside their spread"


def test_only_folds_and_seeds_that_both_have_are_paired(reader_results):
    (reader_results / "lidc_nodules-labels-2min-fold0-seed1.json").unlink()
    row = reader_row("mean", 0, 1, 0.9, single=1.0)
    (reader_results / "lidc_nodules-mean-2min-fold0-seed1.json").write_text(json.dumps(row))
    found = {target: readers.measured(target, 2) for target in ("labels", "mean")}
    assert readers.difference(found["mean"], found["labels"]) == "0.050 [0.050, 0.050]"


def test_phantoms_of_a_run_that_was_stopped_are_made_again(tmp_path):
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    whole = lesions.phantoms(root, 2)
    assert len(whole.cases) == 2
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.nii.gz")}
    lesions.phantoms(root, 2)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.nii.gz")} == before


def score(case, dice):
    """All fields of a score: one lesion, found, at this Dice."""
    numbers = dict.fromkeys(Score.__dataclass_fields__, 0)
    counts = dict.fromkeys(("truth_lesions", "predicted_lesions", "detected_lesions", "lesion_f1"), 1)
    numbers |= counts | {"case": case, "label": 1, "name": "nodule", "dice": dice, "hd95_mm": 2.0}
    return values_of(Score(**numbers))


def result_row(network, dice, seconds, outcome="finished", loss="dice_cross_entropy"):
    return {
        "network": network,
        "loss": loss,
        "parameters": 1_000_000,
        "steps_done": 100,
        "training_seconds": 120.0,
        "seconds_per_predicted_case": 9.0,
        "seconds_per_window": seconds,
        "peak_memory_gb": 1.0,
        "runs": [{"outcome": outcome}],
        "repeats": [[score(case, dice + 0.01 * n) for n, case in enumerate(CASES)]] * 2
        if outcome == "finished"
        else [],
    }


def content(*rows):
    return {
        "dataset": "lidc_nodules",
        "fold": 0,
        "minutes": 2.0,
        "equal": "time",
        "threads": 2,
        "runtime": "cpu, float32",
        "revision": REVISION,
        "rows": list(rows),
    }


@pytest.fixture
def places(tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "HERE", tmp_path)
    monkeypatch.setattr(comparison, "IMAGES", tmp_path / "images")
    (tmp_path / "results" / "nnunet").mkdir(parents=True)
    return tmp_path


@pytest.mark.usefixtures("places")
def test_a_faster_and_better_u_net_is_named():
    better = content(
        result_row("dense", 0.6, 0.1), result_row("unet", 0.7, 0.05), result_row("segnet", 0.9, 0.01)
    )
    lines = comparison.section("lidc_nodules-2min-fold0", better)
    assert "At least as accurate and as fast as `dense`: `unet`." in lines
    assert any("| unet | 1.00 M | 100 | 2.0 min | 0.05 |" in line and "0.100" in line for line in lines)
    slower = content(result_row("dense", 0.6, 0.1), result_row("unet", 0.7, 0.2))
    lines = comparison.section("lidc_nodules-2min-fold0", slower)
    assert "None of the 1 U-Nets is at least as accurate and as fast as `dense`." in lines


@pytest.mark.usefixtures("places")
def test_losses_stand_with_their_steps_and_without_a_plane():
    rows = content(result_row("dense", 0.6, 0.1), result_row("dense", 0.5, 0.1, loss="tversky"))
    rows |= {"equal": "steps", "steps": 1200, "minutes": None, "threads": 1}
    lines = comparison.section("lidc_nodules-1200steps-fold0", rows)
    assert lines[0] == "## Losses: lidc_nodules, windows"
    assert "1200 steps each, one thread, two rows at a time" in lines[2]
    assert any(line.startswith("| tversky |") and "-0.100" in line for line in lines)
    assert not any("U-Net" in line or "![" in line for line in lines)


@pytest.mark.usefixtures("places")
def test_a_row_without_figures_says_why():
    rows = content(result_row("dense", 0.6, 0.1), result_row("unet", 0.0, 0.0, outcome="out of memory"))
    assert any(
        line.startswith("| unet | out of memory |")
        for line in comparison.section("lidc_nodules-2min-fold0", rows)
    )
    assert not comparison.has_all(rows, ["dense", "unet"], ["dice_cross_entropy"])
    assert comparison.has_all(rows, ["dense"], ["dice_cross_entropy"])
    assert not comparison.has_all(rows, ["dense"], ["tversky"])


@pytest.mark.parametrize(
    ("threads", "iterations", "shown"), [(2, 250, True), (1, 250, False), (2, 249, False)]
)
def test_the_real_nnunet_stands_beside_rows_of_as_many_threads_once_it_had_an_epoch(
    places, threads, iterations, shown
):
    row = result_row("", 0.5, 3.0) | {
        "threads": 2,
        "threads_in_prediction": threads,
        "iterations": iterations,
        "training_memory_gb": 2.0,
    }
    path = places / "results" / "nnunet" / "lidc_nodules-2min-fold0-seed0.json"
    path.write_text(json.dumps(row))
    lines = comparison.section(
        "lidc_nodules-2min-fold0", content(result_row("dense", 0.6, 0.1), result_row("unet", 0.5, 0.2))
    )
    found = [line for line in lines if line.startswith("| nnU-Net 2.8.1, the package")]
    assert bool(found) is shown
    if shown:
        assert "| 3.00 | 2.00 GB |" in found[0]
        assert np.isclose(float(found[0].split("|")[8].split()[0]), -0.1)
