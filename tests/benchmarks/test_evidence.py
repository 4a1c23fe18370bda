"""The evidence: its plan, what a row is judged by, and the page made from results alone, on small made ones."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import evidence
import evidence_page
import numpy as np
import pytest
import same_person
from evidence_coding import packed, unpacked
from evidence_data import Task, inner_of
from evidence_figures import (
    Line,
    dice_of,
    gap_of,
    line_of,
    mean_over_cases,
    rows_above,
    sensitivity_of,
    share,
    sign_test,
    usual,
    usual_difference,
    usual_of,
)
from evidence_networks import CHANGES, register, times_as_long, with_variant
from evidence_plan import DEFAULT, EXPONENTIAL, FOCAL, FitRow, Row, chosen, experiments, loss_name
from evidence_rows import false_positives_mm, lacks_start
from evidence_tables import revisions, text
from small_plan import small_plan

from focalis.dataset import Case, Dataset, Split, inner_split
from focalis.evaluation import Figure
from focalis.losses import LOSSES, DistanceFocal, build_loss, distance_to_foreground
from focalis.networks import NETWORKS
from focalis.planning import NetworkSettings
from focalis.planning.parts import network_of

DOCS = Path(__file__).parents[2] / "docs"
CASES = [f"case{number:02}" for number in range(12)]


def write_row(row, results, dice, found=1, outcome="finished", **more):
    """A result as training would leave it: two windows per case, whose Dice is that of `dice` less a little."""
    entries = [
        {
            "case": case,
            "part": part,
            "dice": round(dice + 0.01 * number, 3),
            "dice_at_half": round(dice / 2, 3),
            "hd95_mm": 4.0,
            "truth_voxels": 100,
            "truth_lesions": 1,
            "predicted_lesions": found + 1,
            "detected_lesions": found,
            "false_positives_mm": [30.0] if found else [None],
            "predicted_voxels": 90,
            "predicted_voxels_at_half": 80 * found,
            "far_voxels": 12,
            "far_voxels_at_half": 7,
        }
        for number, case in enumerate(CASES)
        for part in (0, 1)
    ]
    content = {
        "revision": "abcdef0123",
        "outcome": outcome,
        "steps": row.steps,
        "parameters": 1_690_978,
        "scores": {
            "held_out": entries,
            "dice_inner": dict.fromkeys(CASES, dice),
            "dice_train": dict.fromkeys(CASES, dice + 0.2),
        },
        **more,
    }
    if outcome != "finished":
        del content["scores"]
    path = row.path(results)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture(autouse=True)
def _one_picture_less(request, monkeypatch):
    """The picture of the weights takes seconds and is the same on every page: one test draws it."""
    if "weights" not in request.node.name:
        monkeypatch.setattr(evidence_page, "weights_picture", lambda: b"")


@pytest.fixture
def docs(tmp_path):
    folder = tmp_path / "docs"
    folder.mkdir()
    shutil.copy(DOCS / "evidence-tables.md", folder)
    return folder


def page(results, docs):
    evidence_page.write_page(results, docs)
    return (docs / "evidence-tables.md").read_text(encoding="utf-8")


def section(written, name):
    return written.split(f"<!-- evidence: {name} -->")[1].split("<!-- /evidence -->")[0]


def test_rows_have_one_name_each_and_a_loss_that_exists():
    rows = {row.name: row for listed in experiments().values() for row in listed}
    for listed in experiments().values():
        assert len({row.name for row in listed}) == len(listed)
        assert all(rows[row.name].steps == row.steps for row in listed)
    losses = [row.loss.name for row in rows.values() if isinstance(row, Row)]
    assert set(losses) <= set(LOSSES)


def test_every_loss_of_the_plan_is_scored_by_its_own_parameters():
    names = {loss_name(row.loss) for row in experiments()["loss-grid"]}
    assert {"distance_focal_exponential", "distance_focal_exponential,r2"} <= names
    assert build_loss("distance_focal_growth", {"k_per_mm": 0.3}) == DistanceFocal(
        weight="growth", k_per_mm=0.3
    )


def test_accuracy_rows_are_the_files_that_accuracy_py_writes():
    assert FitRow("lidc_nodules", 0).name == "lidc_nodules-12min-fold0-seed0"
    assert FitRow("lidc_nodules", 2, "nnunet").name == "lidc_nodules-nnunet-12min-fold2-seed0"
    assert FitRow("lidc_nodules", 1, start="shapes").name == "lidc_nodules-12min-from-shapes-fold1-seed0"


def test_a_beginning_names_several_experiments_and_an_unknown_one_is_refused(capsys):
    names = ["phantoms", "phantoms-long", "nodules", "start"]
    assert list(chosen(["success"])) == [f"success-{name}" for name in names]
    assert list(chosen(["loss-phantoms"])) == ["loss-phantoms"]  # a whole name is that experiment alone
    with pytest.raises(SystemExit) as stopped:
        evidence.main(["los"])
    assert stopped.value.code == 2
    assert "'los' is no experiment" in capsys.readouterr().err


def test_the_whole_plan_takes_no_more_than_a_night_and_a_morning_of_two_cores(tmp_path):
    together = evidence.listing(experiments(), tmp_path).splitlines()[-1]
    assert 5 < float(together.split()[1]) < 14  # on a processor with bfloat16 the lower end


def test_the_listing_counts_a_row_that_is_there_once(tmp_path):
    row = experiments()["network"][0]
    write_row(row, tmp_path, 0.5)
    lines = evidence.listing({"network": [row], "few-cases": [row]}, tmp_path).splitlines()
    assert lines[1].split()[:3] == ["network", "1", "0"]
    assert "1 more are rows of experiments above" in lines[2]
    assert lines[-1].split()[1] == "0.0"


def test_without_results_every_section_says_that_it_was_not_measured(tmp_path, docs):
    written = page(tmp_path / "none", docs)
    for name in evidence_page.SECTIONS:
        if name != "state":
            assert "Not measured yet" in section(written, name), name
    assert page(tmp_path / "none", docs) == written


def test_the_weights_are_drawn(tmp_path, docs):
    page(tmp_path / "none", docs)
    assert (docs / "images" / "weights.png").read_bytes()[:4] == b"\x89PNG"


def test_a_difference_is_taken_on_common_rows_and_bold_where_it_leaves_out_zero(tmp_path, docs):
    rows = experiments()["loss-nodules"]
    for row in rows:
        if row.fold == 0 and row.loss in (DEFAULT, EXPONENTIAL):
            write_row(row, tmp_path, 0.5 if row.loss == DEFAULT else 0.4)
        elif row.fold == 1 and row.loss == DEFAULT:  # a fold that the other has not: it must not count
            write_row(row, tmp_path, 0.9)
    written = section(page(tmp_path, docs), "loss-nodules")
    assert "Not all measured yet**: 6 of 140" in written
    assert "**-0.100 (-0.100 to -0.100)**" in written
    assert "Below it: `distance_focal_exponential`" in written
    assert "| 0 of 2 |" in written  # of the two rows that both have, how many lie above
    assert "| `distance_focal_exponential` |  |  |" in written  # its rivals have no rows here
    assert (docs / "images" / "evidence-loss-nodules.png").exists()


def test_where_no_loss_weighs_by_distance_no_table_of_them_stands_empty(tmp_path, docs):
    for row in experiments()["loss-ventricle-long"]:
        write_row(row, tmp_path, 0.5)
    lines = section(page(tmp_path, docs), "loss-ventricle-long").splitlines()
    heads = [number for number, line in enumerate(lines) if line.startswith("|---|")]
    assert heads
    assert all(lines[number + 1].startswith("| ") for number in heads)


def test_a_pooled_figure_is_the_mean_over_cases_of_the_mean_over_rows(tmp_path):
    rows = [row for row in experiments()["loss-nodules"] if row.fold == 0 and row.loss == DEFAULT]
    write_row(rows[0], tmp_path, 0.4)
    write_row(rows[1], tmp_path, 0.6)
    line = line_of("default", rows, tmp_path)
    assert usual(line, "dice").value == pytest.approx(0.5 + 0.055)
    assert usual_difference(line, Line("empty", 2, {}), "dice") is None


@pytest.mark.slow
def test_far_false_positives_are_counted_and_pictures_drawn(tmp_path, docs):
    for row in experiments()["loss-phantoms"]:
        picture = {"case": "p", "probability": packed(np.eye(8)), "truth": packed(np.eye(8) > 0)}
        write_row(row, tmp_path, 0.3, found=0 if row.loss == EXPONENTIAL else 1, picture=picture)
    written = section(page(tmp_path, docs), "loss-phantoms")
    assert "Not all" not in written
    lines = {line.split("|")[1].strip(): line for line in written.splitlines() if "10 of 10 |" in line}
    assert set(lines) >= {"`distance_focal_growth`", "balanced focal"}
    assert "| 7 (7 to 7) | +0 (+0 to +0) |" in written  # far voxels at one half
    # Per lesion found, overlapping, of empty scans there are none here, far.
    assert "| 1.0 | 0.00 (0.00 to 0.00) |  | 1.00 (1.00 to 1.00) |" in written
    assert "| none found |" in written  # the exponential's
    assert "30 mm, 12 scans" in written
    few = next(
        line for line in written.splitlines() if line.startswith("| `distance_focal_gaussian` | 2 of 2")
    )
    assert few.count("(") == 4  # of two seeds there are figures, but no differences to ten
    assert (docs / "images" / "evidence-loss-phantoms.png").exists()


def test_rows_above_counts_the_rows_of_both(tmp_path):
    rows = [
        row for row in experiments()["loss-nodules"] if row.fold == 0 and row.loss in (DEFAULT, EXPONENTIAL)
    ]
    for row in rows:
        write_row(row, tmp_path, 0.5 if row.loss == DEFAULT else 0.4 + 0.2 * row.seed)
    first, second = (
        line_of("", [row for row in rows if row.loss == loss], tmp_path) for loss in (EXPONENTIAL, DEFAULT)
    )
    assert rows_above(first, second, mean_over_cases(dice_of)) == "1 of 2"
    assert rows_above(first, Line("empty", 2, {}), mean_over_cases(dice_of)) == ""


def test_rows_above_by_f1_sees_false_positives(tmp_path):
    rows = [row for row in experiments()["loss-nodules"] if row.fold == row.seed == 0]
    first, second = (row for row in rows if row.loss in (DEFAULT, EXPONENTIAL))
    for row in (first, second):
        write_row(row, tmp_path, 0.5)
    content = json.loads(second.path(tmp_path).read_text())
    for entry in content["scores"]["held_out"]:  # as many lesions found, and more that are none
        entry |= {"predicted_lesions": 9, "false_positives_mm": [30.0] * 8}
    second.path(tmp_path).write_text(json.dumps(content))
    quiet, noisy = (line_of("", [row], tmp_path) for row in (first, second))
    assert rows_above(quiet, noisy, usual_of("lesion_f1")) == "1 of 1"
    assert rows_above(quiet, noisy, mean_over_cases(sensitivity_of)) == "0 of 1, 1 equal"


def test_a_run_without_any_lesion_and_one_that_diverged_have_collapsed(tmp_path, docs):
    for row in experiments()["success-nodules"]:
        if row.seed < 4 and row.loss == DEFAULT:
            write_row(row, tmp_path, 0.3, found=int(row.seed > 0))
        if row.seed < 4 and row.loss == EXPONENTIAL:
            write_row(row, tmp_path, 0.3, outcome="diverged" if row.seed == 0 else "finished")
    written = section(page(tmp_path, docs), "success")
    assert "| `dice_cross_entropy` | 3 of 4 | 0.75 (" in written
    assert "| `distance_focal_exponential` | 3 of 4 | 0.75 (" in written
    assert "| 1.000, 4 seeds |  | 3 of 4 | 3 of 4 | 1.00 (" in written


def test_the_learning_curve_has_a_gap_and_a_difference(tmp_path, docs):
    for row in experiments()["few-cases"]:
        if row.cases == 10:
            write_row(row, tmp_path, 0.5 if row.network == "dense" else 0.45)
    written = section(page(tmp_path, docs), "few-cases")
    line = next(line for line in written.splitlines() if line.startswith("| 10 | dense, 350 steps"))
    assert "| 0.700 (0.700 to 0.700) | 0.145 (" in line  # 0.5 + 0.2 on training cases, less 0.555
    assert line.endswith("| +0.000 (+0.000 to +0.000) |")  # both gaps are alike
    assert "**+0.050 (+0.050 to +0.050)**" in line
    assert (docs / "images" / "evidence-few-cases.png").exists()


def test_another_network_starts_from_its_own_shapes(tmp_path, docs):
    for row in experiments()["few-cases-start"]:
        if row.cases == 10 and row.data == "lidc_nodules" and row.steps == 350:
            write_row(row, tmp_path, {"scratch": 0.3, "shapes": 0.5, "own-shapes": 0.4}[row.start])
    lines = section(page(tmp_path, docs), "few-cases-start").splitlines()
    (default,) = (line for line in lines if line.startswith("| lidc_nodules | 10 |"))
    (unet,) = (line for line in lines if line.startswith("| lidc_nodules, `nnunet` | 10 |"))
    assert "**+0.200 (+0.200 to +0.200)**" in default
    assert "**+0.100 (+0.100 to +0.100)**" in unet


def test_a_start_that_is_not_made_yet_is_told_with_the_command_for_it(tmp_path):
    row = Row("lidc_nodules", network="nnunet", start="own-shapes")
    command = f"python benchmarks/pretrain_shapes.py --network nnunet --out {tmp_path / 'own-shapes-nnunet'}"
    assert lacks_start(row, tmp_path).endswith(f"holds no start; make it with: {command}")
    (tmp_path / "own-shapes-nnunet").mkdir()
    (tmp_path / "own-shapes-nnunet" / "start.safetensors").touch()
    assert lacks_start(row, tmp_path) == ""
    assert lacks_start(Row("lidc_nodules", start="shapes"), tmp_path) == ""


def test_the_networks_stand_with_their_steps(tmp_path, docs):
    for row in experiments()["network"]:
        if row.fold == 0:
            write_row(row, tmp_path, 0.5 + 0.1 * (row.network == "dense-pyramid"), steps=77)
    written = section(page(tmp_path, docs), "network")
    assert "Dice: above `dense` with an interval that leaves out zero: `dense-pyramid`" in written
    assert "| `dense-no-skips` | 1 of 3 | 1.69 M | 77 |" in written


def test_accuracy_stands_by_thirds_and_beside_readers_and_rivals(tmp_path, docs):
    nodules = {
        case: {"volume_mm3": 10.0 * number, "readers": 2, "readers_dice": 0.8, "texture": 5}
        for number, case in enumerate(CASES, start=1)
    }
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "nodules.json").write_text(json.dumps({"nodules": nodules}))
    for network, start, dice in ((None, "scratch", 0.7), ("nnunet", "scratch", 0.6), (None, "shapes", 0.72)):
        scores = dict.fromkeys(CASES, dice)
        seconds = 0.02 if network is None else 0.11
        row = FitRow("lidc_nodules", 0, network, start)
        row.path(tmp_path).parent.mkdir(exist_ok=True)
        content = {
            "scores": {"dice labels": scores, "dice readers": scores, "seconds per window": seconds},
            "plan": PLAN.model_dump(mode="json"),
            "parameters": 1e6,
            "steps": 3000,
            "revision": "abcdef012345",
        }
        row.path(tmp_path).write_text(json.dumps(content))
    written = section(page(tmp_path, docs), "accuracy")
    assert "Not all measured yet**: 3 of 32" in written
    assert "| lidc_nodules | dense from shapes | 1 of 1 |" in written
    assert "| windows; other: `dense from shapes` | 0.700" in written
    assert "| smallest third, 10 to 40 mm3 | 4 | 0.700 (0.700 to 0.700) |  |  | 0.600" in written
    assert "**-0.100 (-0.100 to -0.100)** | 12 |  |" in written
    assert "**+0.100 (+0.100 to +0.100)** | 12 | 0.02, 0.11 |" in written
    assert "| windows; other: `monai-unet` |  | not measured yet |" in written
    assert "| sts_pet | dense | 0 of 5 |" in written


def test_parameters_are_chosen_on_the_inner_split_of_each_fold(tmp_path, docs):
    better = {0: "distance_focal_constant", 1: "distance_focal_constant,r2"}
    for row in experiments()["loss-grid"]:
        if row.fold in better and row.loss.name == FOCAL.name:
            write_row(row, tmp_path, 0.6 if loss_name(row.loss) == better[row.fold] else 0.4)
        elif row.fold in better and row.loss == DEFAULT:
            write_row(row, tmp_path, 0.5)
    written = section(page(tmp_path, docs), "loss-grid")
    line = next(
        line for line in written.splitlines() if line.startswith("| `distance_focal_constant`, chosen")
    )
    assert (
        "(fold 0: `distance_focal_constant`; fold 1: `distance_focal_constant,r2`) | 2 of 3 | 0.600 (" in line
    )
    assert line.endswith("| **+0.100 (+0.100 to +0.100)** |")  # beside the default on the same folds
    assert "chosen in each fold (nothing yet)" in written
    assert "`dice_cross_entropy`, chosen" not in written  # nothing to choose


def test_the_sign_test_is_the_binomials():
    assert sign_test(0, 0) == 1
    assert sign_test(4, 0) == sign_test(0, 4) == pytest.approx(2 / 2**4)
    assert sign_test(7, 2) == pytest.approx(2 * (1 + 9 + 36) / 2**9)


def test_scans_with_and_without_lesions_are_set_aside_apart():
    names = [f"c{number:02}" for number in range(30)]
    data = Dataset(Path(), tuple(Case(name, (Path(name),), Path(name)) for name in names), ("image",))
    task = Task(data, Split(tuple(names), ()), None, 0.25, None, frozenset(names[15:]))
    inner = inner_of(task, 0)
    assert sorted((*inner.train, *inner.val)) == names
    assert (len(set(inner.val) & task.empty), len(set(inner.val) - task.empty)) == (4, 4)
    assert inner_of(replace(task, empty=frozenset()), 0) == inner_split(data.cases, 0.25, 3, 0)


def test_shares_have_wilsons_interval():
    assert share(10, 10).low == pytest.approx(
        0.722, abs=1e-3
    )  # Wilson's score at 10 of 10, in any table of it
    assert share(0, 10).high == pytest.approx(0.278, abs=1e-3)


def test_a_gap_is_that_of_the_means_and_draws_patients_with_both_of_their_parts():
    trained, held_out = {"a": 0.9, "b": 0.7}, {"b": 0.5, "c": 0.3}
    gap = gap_of(trained, held_out)
    assert gap.value == pytest.approx(0.8 - 0.4)
    assert gap.low <= gap.value <= gap.high
    assert gap_of(trained, {}).value is None


def test_only_a_difference_of_patients_enough_is_bold():
    assert text(Figure(0.5, 0.4, 0.6, 10)) == "0.500 (0.400 to 0.600)"
    assert text(Figure(0.5, 0.4, 0.6, 10), sign=True) == "**+0.500 (+0.400 to +0.600)**"
    assert text(Figure(0.1, -0.1, 0.3, 10), sign=True) == "+0.100 (-0.100 to +0.300)"
    assert text(Figure(0.5, 0.4, 0.6, 9), sign=True) == "+0.500 (+0.400 to +0.600)"


def test_code_that_was_changed_is_seen_in_the_revisions():
    found = revisions([{"revision": "b" * 40}, {"revision": "a" * 40 + "+"}, {"revision": "a" * 40}])
    assert found == "aaaaaaaa, aaaaaaaa+, bbbbbbbb"


def test_rows_that_are_all_there_or_that_nobody_planned_are_said(tmp_path, capsys):
    row = Row("lidc_nodules")
    write_row(row, tmp_path, 0.5)
    evidence.train_missing([row], SimpleNamespace(threads=1, runs=tmp_path / "runs", results=tmp_path))
    assert "nothing to do: all 1 rows are in" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        evidence.main(["all", "--rows", "no such row"])
    assert stopped.value.code == 2
    assert "no row's name holds no such row" in capsys.readouterr().err


def test_false_positives_have_their_distance_in_mm():
    truth, predicted = np.zeros((2, 10, 10, 10), bool)
    truth[2, 2, 2] = predicted[2, 2, 2] = predicted[5, 6, 2] = True
    distance = distance_to_foreground(truth, (2.0, 1.0, 1.0))
    assert false_positives_mm(truth, predicted, distance) == [pytest.approx(np.hypot(6, 4), abs=0.01)]
    assert false_positives_mm(np.zeros_like(truth), predicted, distance) == [None, None]
    assert false_positives_mm(truth, truth, distance) == []


def test_neighbours_of_one_scan_are_known_by_their_step():
    steps = {1: 5.95897, 2: 5.95886, 3: 1.0, 4: 1.0, 5: 2.5, 6: 7.1, 8: 5.95897}
    assert same_person.neighbours(steps, first=1) == [(1, 2), (5, 6)]
    assert same_person.neighbours(steps, first=2) == [(2, 3), (4, 5)]
    assert [same_person.same(steps, pair) for pair in ((1, 2), (5, 6))] == [True, False]


def test_held_out_cases_are_set_apart_by_whose_other_side_was_trained_on(tmp_path, monkeypatch):
    monkeypatch.setattr(same_person, "RESULTS", tmp_path)
    (tmp_path / "accuracy").mkdir()
    scores = {"hippocampus_001": 0.8, "hippocampus_003": 0.6, "hippocampus_007": 0.7}
    path = tmp_path / "accuracy" / "msd_hippocampus-40min-fold0-seed0.json"
    path.write_text(json.dumps({"scores": dict.fromkeys(same_person.FIGURES, scores)}))
    found = same_person.held_out({"known": {1, 3, 5}, "not": {7}})
    assert found["folds"] == 1
    known = found["dice label 1"]["known"]
    assert (known["value"], known["cases"]) == (pytest.approx(0.7), 2)
    assert known["low"] < 0.7 < known["high"]
    assert found["dice label 2"]["not"]["cases"] == 1


def test_a_small_picture_survives_as_text():
    values = np.random.default_rng(0).random((5, 7))
    assert np.abs(unpacked(packed(values)) - values).max() < 1 / 255


PLAN = small_plan(patch_zyx=(16, 16, 16), network=NetworkSettings(strides_zyx=((2, 2, 2),) * 3))


@pytest.mark.parametrize("name", CHANGES)
def test_a_variant_is_built_and_its_change_is_there(name, monkeypatch):
    monkeypatch.setattr("focalis.networks.catalogue.NETWORKS", dict(NETWORKS))
    monkeypatch.setattr(
        "evidence_networks.NETWORKS", __import__("focalis.networks.catalogue", fromlist=["x"]).NETWORKS
    )
    register()
    usual_config = network_of(PLAN).config
    config = network_of(with_variant(PLAN, name)).config
    assert asdict(config) != asdict(usual_config)


def test_the_time_of_a_step_is_measured_once_and_read_afterwards(tmp_path):
    other = PLAN.model_copy(update={"batch": 1})
    asked = []

    def measure(plan, _cases, _runtime, _measured):
        asked.append(plan.batch)
        return 3.0 if plan is other else 2.0

    for _ in range(2):
        ratio = times_as_long("x", (PLAN, other), None, None, tmp_path, tmp_path / "claims", measure)
        assert ratio == 1.5
    assert asked == [2, 1] * 3
