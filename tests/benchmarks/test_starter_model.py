"""The starter model: what it takes over from the held-out folds, and a card whose figures come from them."""

import argparse
import json
import sys

import numpy as np
import pytest
import starter_crops
import starter_model
import torch
from evidence_accuracy import contents_of
from evidence_data import read_nodules
from evidence_plan import FOLDS, RESULTS, FitRow
from small_plan import small_plan
from starter_card import card
from starter_crops import HELD_OUT as HELD_OUT_FILE
from starter_crops import TRAINED_ON, of_the_model
from starter_model import calibrated, cost_of_half, mean_point

from focalis.dataset import open_dataset
from focalis.files import sha256_of, write_text
from focalis.lesions import OperatingPoint
from focalis.model import Model, load_model, save_model
from focalis.models import FOLDER
from focalis.networks import build_network
from focalis.planning import SHAPES, NetworkSettings, Normalisation
from focalis.volume import Grid, Volume, write_volume
from focalis.workflows.record import data_hash, read_json, write_json

PLAN = small_plan(channels=("CT",), labels={1: "nodule"}, network=NetworkSettings(strides_zyx=((2, 2, 2),)))


class Bright(torch.nn.Module):
    """Foreground where the image is bright."""

    def forward(self, x):
        score = 20 * (x - 1)
        return torch.cat([-score, score], dim=1)


CASES = [f"case{number}" for number in range(6)]
NODULES = {
    case: {"volume_mm3": 10.0 * number, "readers_dice": 0.8, "texture": 1 if number < 3 else 5}
    for number, case in enumerate(CASES, start=1)
}
ROW = {"steps": 30, "threshold": 0.4, "temperature": 2.0, "minimum_mm3": 10.0, "minimum_confidence": 0.5}
RECORD = {
    "plan": PLAN.model_dump(mode="json"),
    "parameters": 1_690_978,
    "threshold": 0.5,
    "minimum_mm3": 12.0,
    "minimum_confidence": 0.70394,
    "temperature": 2.07551,
    "how": "mean of 2 models",
    "bytes": 3_500_000,
    "sha256": "ab" * 32,
    "cases": 6,
    "steps": 30,
    "seed": 0,
    "revision": "abcdef012345",
    "command": "python benchmarks/starter_model.py",
    "data_sha256": "cd" * 32,
    "half": {
        "windows": 12,
        "dice_float32": 0.7,
        "dice_stored": 0.7001,
        "largest_difference": 0.001,
        "voxels_changed": 5,
        "foreground_voxels": 900,
    },
    "eight_bit": {"dice_loss": 0.001, "how": "Dice 0.7000 as it is, 0.6990 with rounded convolutions"},
}

CROPS = {
    "model_sha256": "ef" * 32,
    "crops": 6,
    "crops_with_false": 2,
    "lesions": 6,
    "lesions_detected": 5,
    "lesions_false": 3,
    "dice": 0.61,
    "dice_without_false": 0.66,
    "cases": {case: {"dice": 0.61} for case in CASES},
}
HELD_OUT = {
    "crops": 4,
    "crops_with_false": 1,
    "lesions": 4,
    "lesions_detected": 3,
    "lesions_false": 1,
    "dice": 0.5,
    "dice_without_false": 0.55,
    "cases": {case: {"dice": 0.5} for case in CASES[:4]},
}
HELD_OUT["at_the_shipped_point"] = HELD_OUT | {
    "lesions_detected": 2,
    "lesions_false": 9,
    "cases": {case: {"dice": 0.4} for case in CASES[:4]},
}


def rows(*dices):
    """Folds of two cases each, all of which have the same Dice."""
    return [
        {
            **ROW,
            "scores": {
                name: dict.fromkeys(CASES[2 * n : 2 * n + 2], dice)
                for name in ("dice labels", "dice readers")
            },
        }
        for n, dice in enumerate(dices)
    ]


def test_the_operating_point_is_the_mean_of_the_folds():
    other = ROW | {"threshold": 0.6, "temperature": 0.5, "minimum_mm3": 0.0, "minimum_confidence": 0.0}
    point = mean_point([ROW, other])
    assert (point.threshold, point.minimum_mm3, point.minimum_confidence) == pytest.approx((0.5, 5.0, 0.25))
    assert point.temperature == pytest.approx(1.0)  # the geometric mean, because it divides log odds
    assert "2 models of the same recipe" in point.how


def test_rows_from_before_there_were_temperatures_count_as_untempered():
    assert mean_point([{"threshold": 0.3, "steps": 30}]).temperature == 1.0


def test_the_card_holds_the_figures_by_size_and_what_the_licence_asks_for():
    text = card(RECORD, rows(0.05, 0.6, 0.8), NODULES, 5, CROPS, HELD_OUT)
    assert "3 of 5 folds were measured" in text
    assert "| smallest third, 10 to 20 mm3 | 2 | 0.050 (0.050 to 0.050) | 2 |" in text
    assert "| largest third, 50 to 60 mm3 | 2 | 0.800 (0.800 to 0.800) | 0 |" in text
    assert "Dice 0.050 (0.050 to 0.050) in 2 cases, 2 missed" in text
    for needed in ("research use only", "CC BY 3.0", "10.1118/1.3528204", "10.7937/K9/TCIA.2015.LO9QL9SX"):
        assert needed in text
    assert "0.6990 with rounded convolutions\n(with nothing dropped" in text
    assert "not those of its recipe" not in text
    assert "$" not in text


def test_the_card_says_when_the_figures_are_of_another_number_of_steps():
    assert "not those of its recipe" in card(
        RECORD | {"steps": 90}, rows(0.5, 0.6, 0.8), NODULES, 5, CROPS, HELD_OUT
    )


def test_the_card_names_its_whole_operating_point_and_both_hashes():
    text = card(RECORD, rows(0.5, 0.6, 0.8), NODULES, 5, CROPS, HELD_OUT)
    assert (
        "threshold 0.5, minimum size 12 mm3, minimum confidence 0.7039, of probabilities at the tempe" in text
    )
    assert f"SHA-256 of the whole file, as in `lidc-nodule.sha256`: `{'ab' * 32}`" in text
    assert f"(`model_sha256` in `lesions/CASE.json`, DICOM objects): `{'ef' * 32}`" in text


def test_the_card_says_which_figure_is_of_which_input_and_counts_false_lesions():
    text = card(RECORD, rows(0.5, 0.6, 0.8), NODULES, 5, CROPS, HELD_OUT)
    for line in (
        "| held out | others of the same recipe, each at its own operating point | windows of 40 mm | 0.633",
        "| trained on | this one | windows of 40 mm | 0.700 |",
        "| trained on | this one | whole crops of 51 mm | 0.610 (0.610 to 0.610) |",
        "detects 5 of 6 nodules",
        "**3 false lesions in 2 of 6 crops**, 0.50 per crop",
        "would be 0.660 without the false lesions",
        "| held out | others of the same recipe, each at its own operating point | whole crops of 51 mm | 0.500 (",
        "| held out | the same at this one's operating point | whole crops of 51 mm | 0.400 (",
        "| each model's own, chosen on its own inner split | 3 of 4 | 1 | 1 | 0.25 | 0.500 (0.500 to 0.500) | 0.550 |",
        "| this model's, the mean of the five | 2 of 4 | 9 | 1 | 2.25 | 0.400 (0.400 to 0.400) | 0.550 |",
        "in held-out crops, at its operating point, 9 of the 11 that models of its recipe marked",
        "did not detect 2 of 4.",
    ):
        assert line in text


def test_false_lesions_of_whole_crops_are_counted(tmp_path):
    """A true block that is found, and a bright block that nobody drew."""
    label = np.zeros((16, 16, 16), np.uint8)
    label[2:6, 2:6, 2:6] = 1
    array = label.astype(np.float32)
    array[10:14, 10:14, 10:14] = 1
    for name, image in (("a", array), ("b", label.astype(np.float32))):
        write_volume(Volume(image, Grid((16, 16, 16))), tmp_path / "images" / f"{name}.nii.gz")
        write_volume(Volume(label, Grid((16, 16, 16))), tmp_path / "labels" / f"{name}.nii.gz")
    window = Normalisation(kind="window", low=0, high=1, mean=0, std=0.5)
    plan = PLAN.model_copy(update={"normalisation": (window,)})
    found = of_the_model(Model(plan, (Bright(),)), open_dataset(tmp_path))
    assert (found["crops"], found["crops_with_false"]) == (2, 1)
    assert (found["lesions"], found["lesions_detected"], found["lesions_false"]) == (2, 2, 1)
    assert found["dice"] == pytest.approx((2 / 3 + 1) / 2, abs=1e-4)
    assert found["dice_without_false"] == 1


@pytest.fixture
def folds(tmp_path, monkeypatch):
    """Five cases, each held out by one fold, whose models are sure of the lesion by 0.6 and by 1.0 elsewhere."""
    label = np.zeros((16, 16, 16), np.uint8)
    label[2:6, 2:6, 2:6] = 1
    image = 0.505 * label
    image[10:14, 10:14, 10:14] = 1
    data, results = tmp_path / "data" / "lidc_nodules", tmp_path / "results"
    for name in "abcde":
        write_volume(Volume(image.astype(np.float32), Grid((16, 16, 16))), data / "images" / f"{name}.nii.gz")
        write_volume(Volume(label, Grid((16, 16, 16))), data / "labels" / f"{name}.nii.gz")
    stamps = {"started": "2026-01-01", "data_sha256": data_hash(open_dataset(data).cases)}
    for fold, name in enumerate("abcde"):
        row, made = FitRow("lidc_nodules", fold, start=SHAPES), stamps | {"finished": f"2026-01-0{fold + 2}"}
        write_json(row.path(results), made | {"scores": {"dice labels": {name: 0.7}}})
        write_json(tmp_path / "runs" / row.name / "record.json", made)
    window = Normalisation(kind="window", low=0, high=1, mean=0, std=0.5)
    plan = PLAN.model_copy(update={"normalisation": (window,)})
    opened = []

    def load(file):
        opened.append(file)
        return Model(plan, (Bright(),), OperatingPoint(0.5 if file.parent.name.startswith("lidc") else 0.9))

    monkeypatch.setattr(starter_crops, "load_model", load)
    monkeypatch.setenv("FOCALIS_DATA", str(data.parent))
    return results, opened


def test_each_fold_is_measured_on_what_it_held_out_at_its_own_point_and_at_the_models(folds, tmp_path):
    results, opened = folds
    starter_crops.main(["--held-out", str(tmp_path / "runs"), "--results", str(results)])
    names = [FitRow("lidc_nodules", fold, start=SHAPES).name for fold in range(5)]
    assert opened[1:] == [tmp_path / "runs" / name / "model.safetensors" for name in names]
    found = read_json(results / HELD_OUT_FILE)
    assert (found["lesions_detected"], found["lesions_false"], list(found["cases"])) == (5, 5, list("abcde"))
    shipped = found["at_the_shipped_point"]
    assert (shipped["lesions_detected"], shipped["lesions_false"], shipped["dice"]) == (0, 5, 0)


def test_a_model_of_another_training_than_its_rows_is_refused(folds, tmp_path):
    results, _ = folds
    row = FitRow("lidc_nodules", 3, start=SHAPES)
    write_json(row.path(results), read_json(row.path(results)) | {"finished": "2026-02-01"})
    with pytest.raises(SystemExit, match=r"fold3-seed0: does not hold the training of .*--results again"):
        starter_crops.main(["--held-out", str(tmp_path / "runs"), "--results", str(results)])
    assert not (results / HELD_OUT_FILE).exists()


def test_rows_without_their_runs_are_refused(folds, tmp_path):
    results, _ = folds
    with pytest.raises(SystemExit, match=r"fold0-seed0: does not hold the training of"):
        starter_crops.main(["--held-out", str(tmp_path / "elsewhere"), "--results", str(results)])


def test_another_copy_of_the_data_is_refused(folds, tmp_path):
    results, _ = folds
    volume = Volume(np.ones((16, 16, 16), np.float32), Grid((16, 16, 16)))
    write_volume(volume, tmp_path / "data" / "lidc_nodules" / "images" / "a.nii.gz")
    with pytest.raises(SystemExit, match=r"is of another copy of lidc_nodules than .*FOCALIS_DATA"):
        starter_crops.main(["--held-out", str(tmp_path / "runs"), "--results", str(results)])


@pytest.mark.parametrize("known", ["ab" * 32, None], ids=["of another model", "none"])
@pytest.mark.parametrize("held_out", [False, True])
def test_a_card_takes_no_crops_of_another_model(tmp_path, known, held_out):
    torch.manual_seed(0)
    file = tmp_path / "lidc-nodule.safetensors"
    save_model(Model(PLAN, (build_network("dense", ((2, 2, 2),), 1, 2),)), file)
    if held_out:
        own = load_model(file).identity.weights_sha256
        write_text(tmp_path / TRAINED_ON, json.dumps({"model_sha256": own}))
        known = known and {"at_the_shipped_point": {"model_sha256": known}}
    else:
        known = known and {"model_sha256": known}
    for row in (starter_model.RESULTS / "accuracy").glob("lidc_nodules-12min-from-shapes-fold*.json"):
        write_text(tmp_path / "accuracy" / row.name, row.read_text())
    if known:
        write_text(tmp_path / (HELD_OUT_FILE if held_out else TRAINED_ON), json.dumps(known))
    with pytest.raises(
        SystemExit, match=r"run benchmarks/starter_crops\.py" + (" --held-out" if held_out else "$")
    ):
        starter_model.main(["--card", "--results", str(tmp_path), "--out", str(tmp_path)])


def test_the_card_of_this_source_tree_is_what_its_results_say():
    rows = next(
        iter(contents_of([FitRow("lidc_nodules", fold, start=SHAPES) for fold in FOLDS], RESULTS).values())
    )
    starter = [RESULTS / "starter" / "lidc-nodule.json", RESULTS / TRAINED_ON, RESULTS / HELD_OUT_FILE]
    record, crops, held_out = map(read_json, starter)
    text = card(record, rows, read_nodules(RESULTS), len(FOLDS), crops, held_out)
    assert text == (FOLDER / "lidc-nodule.md").read_text(encoding="utf-8")
    assert "$" not in text


def test_a_trial_never_goes_into_the_package(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["starter_model.py"])
    with pytest.raises(SystemExit) as stopped:
        starter_model.main(["--steps", "2"])
    assert stopped.value.code == 2
    assert "give --out as well" in capsys.readouterr().err


def test_what_half_precision_changes_is_counted(tmp_path):
    torch.manual_seed(0)
    whole = Model(PLAN, (build_network("dense", PLAN.network.strides_zyx, 1, 2),))
    save_model(whole, tmp_path / "half.safetensors", half=True)
    rng = np.random.default_rng(0)
    grid = Grid((44, 44, 44))
    write_volume(
        Volume(rng.normal(size=(44, 44, 44)).astype(np.float32), grid), tmp_path / "images" / "a.nii.gz"
    )
    label = np.zeros((44, 44, 44), np.uint8)
    label[10:20, 10:20, 10:20] = 1
    write_volume(Volume(label, grid), tmp_path / "labels" / "a.nii.gz")
    (tmp_path / "windows_40.csv").write_text("case,window,z0,y0,x0\na,0,4,3,2\n")
    found = cost_of_half(whole, load_model(tmp_path / "half.safetensors"), tmp_path, ["a"])
    assert found["windows"] == 1
    assert found["voxels_changed"] < 0.02 * 40**3
    assert found["foreground_voxels"] > 0
    assert found["largest_difference"] == pytest.approx(
        abs(found["dice_float32"] - found["dice_stored"]), abs=2e-5
    )


def test_a_model_is_calibrated_afterwards_with_the_same_weights(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        label = np.zeros((16, 16, 16), np.uint8)
        label[5:9, 5:9, 5:9] = 1
        array = (rng.normal(size=label.shape) + 3 * label).astype(np.float32)
        for part, values in (("images", array), ("labels", label)):
            write_volume(
                Volume(values, Grid((16, 16, 16))), tmp_path / "lidc_nodules" / part / f"{name}.nii.gz"
            )
    monkeypatch.setattr(starter_model, "data_folder", lambda: tmp_path)
    torch.manual_seed(0)
    file = tmp_path / "lidc-nodule.safetensors"
    save_model(Model(PLAN, (build_network("dense", ((2, 2, 2),), 1, 2),)), file, half=True)
    before = load_model(file)
    options = argparse.Namespace(out=tmp_path, runs=tmp_path, cases=None)
    record = calibrated(options, {"cases": 2})
    after = load_model(file)
    assert after.eight_bit is not None
    assert after.identity.weights_sha256 == before.identity.weights_sha256
    assert record["cases"] == 2
    assert record["sha256"] == sha256_of(file) == (tmp_path / "lidc-nodule.sha256").read_text().split()[0]
    assert "on 2 cases of the training set" in record["eight_bit"]["how"]
