"""A model segments what lies in memory as `focalis predict` segments files."""

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage

import focalis
from focalis.errors import ModelError, UsageError
from focalis.volume import content_digest, read_volume
from focalis.workflows.in_memory import TrainingCaseWarning

FILE = Path(__file__).parent.parent / "prediction" / "written_before.safetensors"
SPACING = (2.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def model():
    return focalis.load(FILE)


@pytest.fixture(scope="module")
def array():
    noise = np.random.default_rng(5).normal(size=(12, 20, 24)).astype(np.float32)
    smooth = ndimage.gaussian_filter(noise, 1.5)
    return (2 * smooth / smooth.std()).astype(np.float32)


@pytest.fixture(scope="module")
def found(model, array):
    return model.segment(array, SPACING)


def test_arrays_tensors_and_images_give_the_mask_that_predict_writes(model, array, found, tmp_path):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING[::-1])
    sitk.WriteImage(image, tmp_path / "a.nii.gz")
    focalis.predict(FILE, str(tmp_path / "a.nii.gz"), tmp_path / "out")
    written = read_volume(tmp_path / "out" / "a.nii.gz").array
    for given, spacing in ((array, SPACING), (torch.from_numpy(array), SPACING), (image, None)):
        ours = model.segment(given, spacing)
        np.testing.assert_array_equal(ours.mask, written)
        np.testing.assert_array_equal(ours.probability, found.probability)


def test_an_image_that_made_the_model_is_reported(model, array):
    images = {"trained the model": {"case7": [content_digest(array)]}}
    seeing = replace(model, provenance={**model.provenance, "images": images})
    with pytest.warns(TrainingCaseWarning, match="the image is case7, which trained the model"):
        seeing.segment(array[:, ::-1].copy(), SPACING)


def test_a_nibabel_image_gets_its_arrays_in_its_own_order(model, array, found, tmp_path):
    image = nibabel.Nifti1Image(array.T, np.diag([-1.0, -1.0, 2.0, 1.0]))
    ours = model.segment(image)
    assert ours.mask.shape == image.shape
    np.testing.assert_array_equal(ours.mask, found.mask.T)
    assert ours.lesions == found.lesions
    for result in (ours, found):
        result.save(tmp_path / "mask.nii.gz")
        np.testing.assert_array_equal(read_volume(tmp_path / "mask.nii.gz").array, found.mask)


def test_an_array_without_spacing_and_one_with_too_many_channels_are_refused(model, array):
    with pytest.raises(UsageError, match="no spacing"):
        model.segment(array)
    with pytest.raises(ModelError, match="2 channels given"):
        model.segment(np.stack([array, array]), SPACING)


def test_settings_are_those_of_predict(model, array, found):
    strict = model.segment(array, SPACING, settings=focalis.Settings(threshold=0.999))
    assert np.count_nonzero(strict.mask) < np.count_nonzero(found.mask)
    assert "threshold given" in strict.point.how
    for wrong in ({"threshold": 1.5}, {"memory_gb": 0}, {"runtime": "abacus"}, {"threads": 0}):
        with pytest.raises(UsageError):
            focalis.Settings(**wrong)


def test_lesions_are_a_table(found):
    assert len(found.lesions) > 1
    assert found.lesions.to_csv().splitlines()[0].startswith("lesion,label,name")
    assert "<td>core</td>" in found.lesions._repr_html_()
    try:
        import pandas
    except ImportError:
        with pytest.raises(UsageError, match="pip install pandas"):
            found.lesions.to_pandas()
    else:
        frame = found.lesions.to_pandas()
        assert isinstance(frame, pandas.DataFrame)
        assert frame["volume_mm3"].tolist() == [round(each.volume_mm3, 3) for each in found.lesions]


def test_what_a_person_prints_is_short(model, found):
    evaluation = focalis.evaluate(found, found.mask, spacing_mm=SPACING)
    shown = (
        model,
        model.plan,
        found,
        found.lesions,
        found.point,
        evaluation,
        evaluation.summary,
        focalis.Settings(),
    )
    for each in shown:
        assert 10 < len(repr(each)) < 300
        assert "<table>" in each._repr_html_()
    assert "core" in repr(model)
    assert "lesions=" in repr(found)


def test_label_maps_in_memory_are_scored_like_files(found, tmp_path):
    truth = np.where(np.roll(found.mask, 2, axis=1) > 0, 1, 0).astype(np.uint8)
    mask = (found.mask > 0).astype(np.uint8)
    ours = focalis.evaluate(mask, truth, spacing_mm=SPACING)
    for name, array in (("mask", mask), ("truth", truth)):
        (tmp_path / name).mkdir()
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(SPACING[::-1])
        sitk.WriteImage(image, tmp_path / name / "case.nii.gz")
    files = focalis.evaluate(tmp_path / "mask", tmp_path / "truth", None)
    assert ours.scores == files.scores
    assert ours.lesions == files.lesions
    tensors = focalis.evaluate({"case": torch.from_numpy(mask)}, {"case": truth > 0}, spacing_mm=SPACING)
    assert tensors.scores == ours.scores


def test_a_segmentation_brings_its_confidence_along(found):
    evaluation = focalis.evaluate({"a": found}, {"a": found.mask}, spacing_mm=SPACING)
    assert evaluation.detection is not None
    assert evaluation.summary.dice == 1


@pytest.mark.parametrize(
    ("predictions", "labels", "reason"),
    [
        (np.ones((3, 3, 3), int), np.ones((3, 3, 3), int), "no spacing"),
        ({"a": 1}, np.ones((3, 3, 3), int), "two mappings"),
        ({"a": 1}, {"b": 1}, "a prediction or a truth only"),
        ("masks", np.ones((3, 3, 3), int), "is a file"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(predictions, labels, reason):
    with pytest.raises(UsageError, match=reason):
        focalis.evaluate(predictions, labels)


def test_the_folder_of_a_run_stands_for_its_model(tmp_path, array):
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.safetensors").write_bytes(FILE.read_bytes())
    assert focalis.load(run).plan == focalis.load(FILE).plan
    image = sitk.GetImageFromArray(array)
    sitk.WriteImage(image, tmp_path / "a.nrrd")
    report = focalis.predict(run, [tmp_path / "a.nrrd"], tmp_path / "out")
    assert [row.status for row in report.rows] == ["done"]
    assert len(repr(report)) < 300
    assert len(repr(report.rows[0])) < 300


def test_settings_may_be_a_mapping(model, array):
    given = model.segment(array, SPACING, settings={"threshold": 0.5})
    np.testing.assert_array_equal(
        given.mask, model.segment(array, SPACING, settings=focalis.Settings(threshold=0.5)).mask
    )
    with pytest.raises(UsageError, match=r"threshold is '0\.5'"):
        model.segment(array, SPACING, settings={"threshold": "0.5"})


def test_one_object_of_settings_goes_into_a_batch(array, tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(array), tmp_path / "a.nii.gz")
    settings = focalis.Settings(threshold=0.4, minimum_mm3=0.0)
    given = focalis.predict(FILE, tmp_path / "a.nii.gz", tmp_path / "one", settings=settings)
    loose = focalis.predict(FILE, tmp_path / "a.nii.gz", tmp_path / "two", threshold=0.4, min_size_mm3=0.0)
    assert given.operating_point == loose.operating_point
    with pytest.raises(UsageError, match="settings are given, and threshold, mirror beside them"):
        focalis.predict(
            FILE, tmp_path / "a.nii.gz", tmp_path / "o", settings=settings, threshold=0.5, mirror=True
        )


def test_advice_names_the_keyword_and_the_command_line_its_option(model, array):
    with pytest.raises(UsageError, match=r"add mirror=True$") as refused:
        model.segment(array, SPACING, settings=focalis.Settings(uncertainty=True))
    assert refused.value.command_lines[0].endswith("; add --mirror")
    with pytest.raises(UsageError, match=r"network='\w+\+crf', or leave refine out$") as refused:
        model.segment(array, SPACING, settings=focalis.Settings(refine=True))
    assert refused.value.command_lines[0].endswith("or leave --refine out")


def test_a_spacing_is_that_of_the_arrays_alone():
    truth = np.zeros((6, 8, 10), np.uint8)
    truth[2:4, 2:5, 3:6] = 1
    image = sitk.GetImageFromArray(truth)
    image.SetSpacing(SPACING[::-1])
    assert focalis.evaluate(truth, image, spacing_mm=SPACING).scores[0].dice == 1
    with pytest.raises(UsageError, match="leave spacing_mm and orientation out"):
        focalis.evaluate(image, image, spacing_mm=SPACING)
