"""There is one way from images to a mask: the masks that a run is judged by are those that its user then gets."""

import json

import numpy as np
import pytest

from focalis.dataset import PhantomSettings, Split, open_dataset, write_phantoms
from focalis.model import load_model
from focalis.planning import read_plan
from focalis.prediction import PROGRAM_BYTES, Runtime, Settings, require_memory, segment
from focalis.settings import Compute, Length
from focalis.volume import read_volume
from focalis.workflows.fit import fit
from focalis.workflows.fit_figures import pool_folds
from focalis.workflows.judge import judge
from focalis.workflows.predict import predict
from focalis.workflows.run import Run, Task


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("one way")
    write_phantoms(
        root / "data", 5, PhantomSettings(shape_zyx=(20, 24, 28), foreground_share=0.02, lesions=2), 0
    )
    made = fit(root / "data", root / "run", steps=3, fold=0)
    (case,) = json.loads((made.run / "record.json").read_text())["cases"]["held_out"]
    return root / "data", made, case


def test_predict_with_defaults_gives_the_mask_that_was_judged_bit_for_bit(run, tmp_path):
    data, made, case = run
    report = predict(made.model, [data / "images" / f"{case}.nii.gz"], tmp_path)
    judged, predicted = (
        read_volume(folder / f"{case}.nii.gz") for folder in (made.run / "predictions", tmp_path)
    )
    assert judged.grid == predicted.grid
    assert judged.array.dtype == predicted.array.dtype
    np.testing.assert_array_equal(judged.array, predicted.array)
    tables = [
        json.loads((folder / "lesions" / f"{case}.json").read_text())
        for folder in (made.run / "predictions", tmp_path)
    ]
    for name in ("lesions", "runtime", "tiles", "settings", "threshold", "minimum_mm3", "temperature"):
        assert tables[0][name] == tables[1][name]
    assert report.runtime == tables[0]["runtime"]


def test_segmenting_in_memory_gives_the_same_mask(run):
    data, made, case = run
    found = segment(load_model(made.model), [read_volume(data / "images" / f"{case}.nii.gz")])
    judged = read_volume(made.run / "predictions" / f"{case}.nii.gz")
    np.testing.assert_array_equal(found.mask, judged.array)


def test_the_record_and_the_report_say_how_the_figures_were_made(run):
    _, made, _ = run
    way = json.loads((made.run / "record.json").read_text())["judged_with"]
    assert way["runtime"].startswith("cpu, ")
    assert (way["tiles"], way["blended"]) == (1, 0)
    assert way["settings"] == Settings().record()
    assert way["threshold"] == load_model(made.model).operating_point.threshold
    page = made.report.read_text(encoding="utf-8")
    assert "judged_with.runtime" in page
    assert way["runtime"] in page


@pytest.fixture(scope="module")
def scarce(tmp_path_factory):
    """A run whose judged case goes through in one pass by default, and in tiles within a little less memory (GB)."""
    root = tmp_path_factory.mktemp("scarce")
    write_phantoms(
        root / "data", 5, PhantomSettings(shape_zyx=(80, 96, 96), foreground_share=0.02, lesions=2), 0
    )
    made = fit(root / "data", root / "run", steps=2, fold=0, eight_bit=False)
    (case,) = json.loads((made.run / "record.json").read_text())["cases"]["held_out"]
    image = root / "data" / "images" / f"{case}.nii.gz"
    model = load_model(made.model)
    need = require_memory(model, [read_volume(image)], Settings()) + PROGRAM_BYTES
    return root / "data", made, image, int(need / 1e7 - 2) / 100


def judged_within(data, made, memory_gb, sharing):
    """Judge the run again, as if its training had had so much memory: mask, record, caveats and the table."""
    record = json.loads((made.run / "record.json").read_text())
    opened, plan = open_dataset(data), read_plan(made.run / "plan.yaml")
    (held_out,) = record["cases"]["held_out"]
    task = Task(
        name="again",
        dataset=data,
        labels=plan.labels,
        holds={},
        home=made.run,
        prepared=made.run / "prepared",
        fold=0,
        split=Split(tuple(c.name for c in opened.cases if c.name != held_out), (held_out,)),
        plan=plan.model_copy(update={"memory_budget_gb": memory_gb / sharing}),
        seed=0,
        length=Length(steps=2),
        compute=Compute(),
        record=record,
        sharing=sharing,
    )
    judged = judge(Run(task, opened, Runtime()), load_model(made.model), "the held-out case")
    pooled = pool_folds(made.run, [task], [judged], opened, record).caveats
    caveats = [line for line in (*judged.caveats, *pooled) if "memory" in line]
    folder = made.run / "predictions"
    mask = read_volume(folder / f"{held_out}.nii.gz").array
    table = json.loads((folder / "lesions" / f"{held_out}.json").read_text())
    return mask, json.loads((made.run / "record.json").read_text())["judged_with"], caveats, table


def test_a_training_that_shares_the_memory_is_judged_by_the_mask_that_predict_gives(scarce, tmp_path):
    data, made, image, less_gb = scarce
    mask, way, caveats, table = judged_within(data, made, 2 * less_gb, sharing=2)
    predict(made.model, [image], tmp_path)
    np.testing.assert_array_equal(mask, read_volume(tmp_path / image.name).array)
    assert (way["tiles"], way["within_less"]) == (1, None)
    assert way["settings"] == table["settings"] == Settings().record()
    assert caveats == []


def test_a_run_without_the_memory_for_that_mask_says_so_and_how_to_get_its_own(scarce, tmp_path):
    data, made, image, less_gb = scarce
    mask, way, caveats, table = judged_within(data, made, less_gb, sharing=1)
    predict(made.model, [image], tmp_path, memory_gb=less_gb)
    np.testing.assert_array_equal(mask, read_volume(tmp_path / image.name).array)
    assert way["tiles"] > 1
    assert way["within_less"] == {"memory_gb": less_gb, "cases": [image.name.removesuffix(".nii.gz")]}
    assert table["settings"] == Settings(memory_gb=less_gb).record()
    line, of_folds = caveats
    assert line == of_folds
    assert f"`--memory-gb {less_gb:g}` gives the same masks" in line
    assert line.split("`")[1] in (made.run / "report.html").read_text(encoding="utf-8")
