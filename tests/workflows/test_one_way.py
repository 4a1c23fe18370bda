"""There is one way from images to a mask: the masks that a run is judged by are those that its user then gets."""

import json

import numpy as np
import pytest

from focalis.dataset import PhantomSettings, write_phantoms
from focalis.model import load_model
from focalis.prediction import Settings, segment
from focalis.volume import read_volume
from focalis.workflows.fit import fit
from focalis.workflows.predict import predict


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
