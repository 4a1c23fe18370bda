"""The child's answer: what is the series' fault is refused, what is the device's fault has failed."""

import errno
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from device_work import GRID, block
from pydicom import dcmread
from small_plan import small_plan
from structured_reports import read_report
from torch import nn

from focalis.device import results
from focalis.device.segment import PointJob, SeriesJob, point, segment
from focalis.dicom import read_series
from focalis.errors import DataError
from focalis.files import sha256_of
from focalis.lesions import OperatingPoint
from focalis.model import Model, load_model, save_model
from focalis.planning import NetworkSettings, Normalisation
from focalis.volume import Grid, Volume, content_digest, write_volume
from focalis.workflows.training_cases import CHOSE, TRAINED


@pytest.fixture
def own_model(model, tmp_path):
    return Path(shutil.copy(model, tmp_path / "own.safetensors"))


@pytest.fixture
def answer(model, write_series, tmp_path):
    """The answer for a series, and the states that were told."""

    def call(file=model, without=None, digest=None, memory_gb=2, settings=None, name=b"", **attributes):
        files = write_series(tmp_path / "scan", block(), GRID, **attributes)
        files = [path for number, path in enumerate(files) if number != without]
        for path in files if name else ():
            path.write_bytes(path.read_bytes().replace(b"X" * len(name), name))
        (tmp_path / "made").mkdir()
        told = []
        job = SeriesJob(
            files={str(path): number for number, path in enumerate(files)},
            model=str(file),
            model_sha256=digest or sha256_of(file),
            folder=str(tmp_path / "made"),
            version="1",
            memory_gb=memory_gb,
            supersedes={},
            **(settings or {}),
        )
        return segment(job, told.append, {}), told

    return call


def test_a_series_with_a_gap_is_refused_and_its_slices_are_named(answer, tmp_path):
    found, told = answer(without=2)
    assert (found["outcome"], told) == ("refused", ["checking"])
    assert re.search(r"slice \d+ at ", found["reason"])
    assert ".dcm" not in found["reason"]
    assert not list((tmp_path / "made").iterdir())


OTHER = "lies outside of what the model was trained on: it is a PT series, and the model is for CT"


def test_another_modality_is_refused(answer):
    found, told = answer(modality="PT")
    assert (found["outcome"], told) == ("refused", ["checking"])
    assert found["outside"].startswith(OTHER)
    assert OTHER in found["reason"]


def test_another_modality_is_segmented_where_the_route_says_so(answer):
    found, _ = answer(modality="PT", settings={"other_modality": "mark"})
    assert (found["outcome"], found["outside"].startswith(OTHER)) == ("done", True)


def test_another_modality_waits_for_a_person_where_the_route_says_so(answer):
    found, told = answer(modality="PT", settings={"other_modality": "hold"})
    assert (found["outcome"], told) == ("held", ["checking"])
    assert OTHER in found["reason"]


def test_a_series_that_is_refused_for_memory_is_said_to_be_of_another_modality(answer):
    found, _ = answer(modality="PT", memory_gb=0.1, settings={"other_modality": "mark"})
    assert found["outcome"] == "refused"
    assert "raise the budget" in found["reason"]
    assert "it is a PT series, and the model is for CT" in found["outside"]


def test_another_model_file_has_failed(answer):
    found, _ = answer(digest="0" * 64)
    assert found["outcome"] == "failed"
    assert "changed" in found["reason"]


@pytest.mark.parametrize(("number", "outcome"), [(errno.ENOSPC, "no space"), (errno.EIO, "failed")])
def test_results_that_cannot_be_written_are_not_the_series_fault(answer, monkeypatch, number, outcome):
    def broken(*_given, **_options):
        try:
            raise OSError(number, "no")
        except OSError as error:
            raise DataError("seg-1.dcm: cannot be written") from error

    monkeypatch.setattr(results, "write_segmentation", broken)
    found, told = answer()
    assert found["outcome"] == outcome
    assert told == ["checking", "segmenting", "writing"]


def test_a_series_that_the_memory_cannot_hold_is_refused_before_its_pixels_are_read(answer, monkeypatch):
    def never(_slices):
        raise AssertionError("pixel data were read")

    monkeypatch.setattr("focalis.dicom.series.read_values", never)
    found, told = answer(memory_gb=0.1)
    assert (found["outcome"], told) == ("refused", ["checking"])
    assert "raise the budget" in found["reason"]


def test_names_without_a_character_set_are_read_by_the_chosen_one(answer, tmp_path):
    name = "Иванов".encode("iso8859_5")
    answer(name=name, settings={"charset": "iso8859_5"}, PatientName="XXXXXX")
    written = {str(dcmread(path).PatientName) for path in (tmp_path / "made").rglob("*.dcm")}
    assert written == {"Иванов"}


def told_in(folder):
    report = read_report(folder / "sr-1.dcm")
    capture = dcmread(folder / "capture-1.dcm")
    return report.cautions, capture.DerivationDescription


def remember(model, **provenance):
    """Have the model file remember something of its training."""
    save_model(replace(load_model(model), provenance=provenance), model)


def test_a_series_that_trained_the_model_is_marked_in_every_result(answer, own_model, write_series, tmp_path):
    volume = read_series(write_series(tmp_path / "same", block(), GRID)).volume
    remember(own_model, images={TRAINED: {"p7": [content_digest(volume.array)]}, CHOSE: {}})
    found, _ = answer(file=own_model)
    assert found["cautions"] == ["the series trained the model (case p7), so the result flatters it"]
    (caution,), derivation = told_in(tmp_path / "made")
    assert caution == f"TRAINING CASE: {found['cautions'][0]}"
    assert caution in derivation


def test_a_model_that_learned_nothing_says_so_in_every_result(answer, own_model, tmp_path):
    remember(own_model, collapse="it found no lesion")
    found, _ = answer(file=own_model)
    assert found["cautions"] == ["this model did not learn what it should: it found no lesion"]
    assert told_in(tmp_path / "made")[0] == (f"FAILED TRAINING: {found['cautions'][0]}",)


def test_another_series_is_not_marked(answer, own_model):
    remember(own_model, images={TRAINED: {"p7": ["0" * 32]}, CHOSE: {}})
    assert answer(file=own_model)[0]["cautions"] == []


def guided(tmp_path):
    """The file of a model that is guided, as its hash, and the model that stands for it."""
    file = tmp_path / "guided.safetensors"
    file.write_bytes(b"a model")
    plan = small_plan(
        labels={1: "nodule"},
        use="guided",
        normalisation=(Normalisation(kind="window", low=-1000, high=3000, std=100),),
        batch=1,
        network=NetworkSettings(strides_zyx=((2, 2, 2),)),
    )
    return file, sha256_of(file), Model(plan, (Bright(),), OperatingPoint(0.5))


class Bright(nn.Module):
    """Foreground where the image is bright."""

    def forward(self, x):
        return torch.cat([-x, x], dim=1)


def test_the_lesion_at_a_point_of_the_pages_image_is_segmented(tmp_path):
    file, digest, model = guided(tmp_path)
    array = np.random.default_rng(0).normal(-300, 20, (20, 24, 28)).astype(np.int16)
    array[4:7, 10:14, 16:20] = 800
    grid = Grid(array.shape[::-1], (1.0, 1.0, 1.0), (-5.0, 3.0, 40.0))
    write_volume(Volume(array, grid), tmp_path / "image.nii")
    job = PointJob(str(tmp_path / "image.nii"), "int16", (5, 12, 18), str(file), digest, 4.0)
    found = point(job, {digest: model})
    assert (found["outcome"], found["label"]) == ("done", "nodule")
    np.testing.assert_array_equal(found["voxels_zyx"], np.argwhere(array > 400))
    assert "lesion of 48 mm3" in found["said"]
    nothing = point(replace(job, point_zyx=(15, 20, 5)), {digest: model})
    assert (nothing["outcome"], nothing["voxels_zyx"]) == ("done", [])
    gone = point(replace(job, model_sha256="0" * 64), {})
    assert (gone["outcome"], "was changed" in gone["reason"]) == ("refused", True)


def test_a_whole_scan_waits_for_points_if_the_model_is_guided(write_series, tmp_path):
    file, digest, model = guided(tmp_path)
    files = write_series(tmp_path / "scan", np.resize(block(), (20, 24, 28)), Grid((28, 24, 20)))
    job = SeriesJob(dict.fromkeys(map(str, files)), str(file), digest, str(tmp_path), "1", 4.0, {})
    found = segment(job, lambda _state: None, {digest: model})
    assert (found["outcome"], found["outside"]) == ("held", "")
    assert "click on each lesion" in found["reason"]
