"""DICOM in, DICOM out: series become cases, results refer to their images."""

import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydicom import dcmread
from torch import nn

from focalis.dicom import find_series, read_segmentation, read_series, read_structures
from focalis.errors import UsageError
from focalis.lesions import OperatingPoint
from focalis.model import Model
from focalis.planning import NetworkSettings, Normalisation, Plan, describe, learn_scope
from focalis.volume import Grid, Volume, content_digest, read_volume, write_volume
from focalis.workflows.inputs import find_cases
from focalis.workflows.predict import predict
from focalis.workflows.training_cases import CHOSE, TRAINED

GRID = Grid((9, 8, 6), (1.5, 1.5, 3.0), (-4.0, 7.0, 20.0))


class Bright(nn.Module):
    """Foreground where the first channel is bright."""

    def forward(self, x):
        score = 20 * (x[:, :1] - 1)
        return torch.cat([-score, score], dim=1)


def model(channels=("image",), threshold=0.5):
    plan = Plan(
        channels=channels,
        labels={1: "nodule"},
        spacing_zyx_mm=GRID.spacing_zyx_mm,
        normalisation=(Normalisation(kind="window", low=-2000, high=2000, mean=0, std=100),) * len(channels),
        patch_zyx=(4, 4, 4),
        batch=1,
        network=NetworkSettings(strides_zyx=((1, 1, 1),)),
    )
    return Model(plan, (Bright(),), OperatingPoint(threshold))


@pytest.fixture
def series(write_series, tmp_path):
    """A CT series with a bright block; its mask."""

    def write(name="scan", bright=1000, **attributes):
        stored = np.full(GRID.shape_zyx, -900, np.int16)
        stored[0, 0, 0] = -901
        stored[1:3, 2:5, 3:7] = bright
        write_series(tmp_path / "in" / name, stored, GRID, **attributes)
        return stored > 100

    return write


def test_a_series_gives_a_label_map_on_its_own_grid(series, tmp_path):
    mask = series()
    report = predict(model(), [tmp_path / "in" / "scan"], tmp_path / "out")
    assert [(row.case, row.status) for row in report.rows] == [("scan", "done")]
    result = read_volume(tmp_path / "out" / "scan.nii.gz")
    assert result.grid.differences(GRID) == []
    np.testing.assert_array_equal(result.array, mask)


def test_a_segmentation_comes_back_voxel_by_voxel_and_names_its_source(series, tmp_path):
    mask = series()
    report = predict(model(), [tmp_path / "in"], tmp_path / "out", output_format="seg")
    assert report.rows[0].output == tmp_path / "out" / "scan_seg.dcm"
    source = read_series(find_series(tmp_path / "in")[0])
    (found,) = read_segmentation(report.rows[0].output, source).values()
    np.testing.assert_array_equal(found, mask)
    written = dcmread(report.rows[0].output)
    assert written.ReferencedSeriesSequence[0].SeriesInstanceUID == source.header.SeriesInstanceUID
    assert written.StudyInstanceUID == source.header.StudyInstanceUID


def test_a_structure_set_comes_back_voxel_by_voxel(series, tmp_path):
    mask = series()
    report = predict(model(), [tmp_path / "in"], tmp_path / "out", output_format="rtstruct")
    source = read_series(find_series(tmp_path / "in")[0])
    (found,) = read_structures(report.rows[0].output, source).values()
    np.testing.assert_array_equal(found, mask)


@pytest.mark.parametrize(("output_format", "files"), [("seg", ["scan_seg.dcm"]), ("rtstruct", [])])
def test_nothing_found_is_an_empty_segmentation_and_no_structure_set(series, tmp_path, output_format, files):
    series(bright=-900)
    report = predict(model(), [tmp_path / "in"], tmp_path / "out", output_format=output_format)
    assert [(row.status, row.foreground_voxels) for row in report.rows] == [("done", 0)]
    assert [path.name for path in sorted((tmp_path / "out").glob("*.dcm"))] == files
    if files:
        source = read_series(find_series(tmp_path / "in")[0])
        (found,) = read_segmentation(tmp_path / "out" / files[0], source).values()
        assert not found.any()


@pytest.mark.parametrize("output_format", ["seg", "rtstruct"])
@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_what_is_written_is_valid_dicom(series, tmp_path, output_format):
    series()
    (row,) = predict(model(), [tmp_path / "in"], tmp_path / "out", output_format=output_format).rows
    told = subprocess.run(
        ["dciodvfy", "-new", row.output], capture_output=True, text=True, check=False
    ).stderr
    assert [line for line in told.splitlines() if line.startswith("Error")] == []


def scope():
    """Of scans that are like the series in all but their values."""
    rng = np.random.default_rng(0)
    scans = [Volume(rng.normal(-900, 5, GRID.shape_zyx).astype(np.float32), GRID) for _ in range(8)]
    return learn_scope([describe([scan], model().plan.normalisation) for scan in scans])


@pytest.mark.parametrize("known", [True, False], ids=["with a scope", "without"])
def test_another_modality_is_the_first_that_is_said(series, tmp_path, known):
    series(modality="PT")
    ct = replace(model(), scope=scope() if known else None)
    (row,) = predict(ct, [tmp_path / "in"], tmp_path / "out").rows
    assert row.status == "done"
    assert row.outside[0] == "it is a PT series, and the model is for CT"
    assert len(row.outside) > 1 if known else len(row.outside) == 1


def test_a_result_out_of_scope_says_so(series, tmp_path):
    series(modality="PT")
    (row,) = predict(model(), [tmp_path / "in"], tmp_path / "out", output_format="seg").rows
    written = dcmread(row.output)
    assert written.SeriesDescription.startswith("OUT OF SCOPE: ")
    assert "it is a PT series, and the model is for CT" in written.DerivationDescription


@pytest.mark.parametrize("output_format", ["seg", "rtstruct"])
def test_a_result_of_a_training_case_or_a_failed_training_says_so(series, tmp_path, output_format):
    series()
    (source,) = find_series(tmp_path / "in")
    digest = content_digest(read_series(source).volume.array)
    known = {"images": {TRAINED: {"p7": [digest]}, CHOSE: {}}, "collapse": "it found no lesion"}
    told = replace(model(), provenance=known)
    (row,) = predict(told, [tmp_path / "in"], tmp_path / "out", output_format=output_format).rows
    written = dcmread(row.output)
    assert written.SeriesDescription.startswith("TRAINING CASE, FAILED TRAINING: Focalis")
    about = written.DerivationDescription if output_format == "seg" else written.StructureSetDescription
    assert "TRAINING CASE: the series trained the model (case p7)" in about
    assert "FAILED TRAINING: this model did not learn what it should: it found no lesion" in about


def test_another_modality_is_refused_with_strict(series, tmp_path):
    series(modality="MR")
    (row,) = predict(replace(model(), scope=scope()), [tmp_path / "in"], tmp_path / "out", strict=True).rows
    assert row.status == "refused"
    assert "trained on: it is an MR series, and the model is for CT; " in row.reason


def test_another_modality_is_said_of_a_series_that_is_refused_for_memory_too(series, tmp_path):
    series(modality="PT")
    (row,) = predict(model(), [tmp_path / "in"], tmp_path / "out", memory_gb=0.1).rows
    assert row.status == "refused"
    assert "raise the budget" in row.reason
    assert row.outside == ("it is a PT series, and the model is for CT",)


def test_every_channel_is_of_its_own_modality(series, tmp_path):
    series("ct")
    series("pet", SeriesInstanceUID="1.2.3.44")
    (row,) = predict(
        model(("CT", "PET")), [tmp_path / "in" / "ct", tmp_path / "in" / "pet"], tmp_path / "out"
    ).rows
    assert row.outside == ("PET is a CT series, and the model takes there PT",)


def test_every_series_below_a_folder_is_a_case(series, tmp_path):
    series("a")
    series("b", SeriesInstanceUID="1.2.3.44")
    report = predict(model(), [tmp_path / "in"], tmp_path / "out")
    assert [(row.case, row.status) for row in report.rows] == [("a", "done"), ("b", "done")]


def test_two_series_in_one_folder_are_told_apart(series, tmp_path):
    series("both", SeriesInstanceUID="1.2.3.44")
    for path in (tmp_path / "in" / "both").iterdir():
        path.rename(path.with_name(f"first_{path.name}"))
    series("both", SeriesInstanceUID="1.2.3.55")
    report = predict(model(), [tmp_path / "in"], tmp_path / "out")
    assert [(row.case, row.status) for row in report.rows] == [("both_44", "done"), ("both_55", "done")]


def test_the_channels_of_a_case_are_series_in_order(series, tmp_path):
    mask = series("first")
    series("second", bright=-900, SeriesInstanceUID="1.2.3.44")
    folders = [tmp_path / "in" / "first", tmp_path / "in" / "second"]
    report = predict(model(("CT", "PET")), folders, tmp_path / "out")
    assert [(row.case, row.status) for row in report.rows] == [("first", "done")]
    np.testing.assert_array_equal(read_volume(tmp_path / "out" / "first.nii.gz").array, mask)


@pytest.mark.parametrize(
    ("pet", "ct", "case"), [("pet", "ct", "in"), ("p7_PET", "p7_CT", "p7"), ("a_b_Pet", "a_b_Ct", "a_b")]
)
@pytest.mark.parametrize("one_folder", [True, False])
def test_folders_that_name_their_channels_may_come_in_any_order(series, tmp_path, pet, ct, case, one_folder):
    mask = series(ct)
    series(pet, bright=-900, SeriesInstanceUID="1.2.3.44")
    given = [tmp_path / "in"] if one_folder else [tmp_path / "in" / pet, tmp_path / "in" / ct]
    (row,) = predict(model(("CT", "PET")), given, tmp_path / "out").rows
    assert (row.case, row.status, row.missing) == (case, "done", ())
    np.testing.assert_array_equal(read_volume(row.output).array, mask)


@pytest.mark.parametrize(
    ("pet", "ct", "case"),
    [("302_PET", "301_CT", "in"), ("p1_ce_PET", "p1_CT", "p1"), ("P1_pet", "p1_CT", "p1")],
)
@pytest.mark.parametrize("one_folder", [True, False])
def test_what_stands_before_the_channels_may_differ_within_a_study(
    series, tmp_path, pet, ct, case, one_folder
):
    study = {"StudyInstanceUID": "1.2.3"} if one_folder else {}
    series(ct, SeriesInstanceUID="1.2.3.33", **study)
    series(pet, SeriesInstanceUID="1.2.3.44", **study)
    given = [tmp_path / "in"] if one_folder else [tmp_path / "in" / pet, tmp_path / "in" / ct]
    (found,) = find_cases(given, ("CT", "PET"), ("PET",))
    assert (found.name.lower(), found.problem, found.lacks) == (case, "", frozenset())
    assert [file.parent.name for file in found.files] == [ct, pet]


def test_a_case_is_refused_if_several_series_of_its_study_may_be_the_channel_it_lacks(series, tmp_path):
    for number, name in enumerate(("301_CT", "302_PET", "303_PET")):
        series(name, SeriesInstanceUID=f"1.2.3.{number}", StudyInstanceUID="1.2.3")
    series("401_CT", SeriesInstanceUID="1.2.3.9", StudyInstanceUID="1.2.4")
    cases = {case.name: case for case in find_cases([tmp_path / "in"], ("CT", "PET"), ("PET",))}
    assert "lacks channel PET" in cases["301"].problem
    assert "if it is among 302_PET, 303_PET" in cases["301"].problem
    assert (cases["401"].problem, cases["401"].lacks) == ("", {1})


def test_two_patients_are_not_taken_for_one_case(series, tmp_path):
    series("a_CT", PatientID="A")
    series("b_PET", PatientID="B", SeriesInstanceUID="1.2.3.44")
    given = [tmp_path / "in" / "a_CT", tmp_path / "in" / "b_PET"]
    assert [case.name for case in find_cases(given, ("CT", "PET"), ("PET",))] == ["a", "b"]


@pytest.mark.parametrize("torn", ["a_CT/s_CT.dcm", "a_CT/s.dcm", "c_PET/s.dcm"])
def test_a_damaged_file_refuses_the_case_that_its_folder_names(series, tmp_path, torn):
    series("a_CT")
    file = tmp_path / "in" / torn
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"\0" * 128 + b"DICM" + b"\1" * 40)
    (case,) = (each for each in find_cases([tmp_path / "in"], ("CT", "PET"), ("PET",)) if each.name == "a")
    assert torn in case.problem


def may_miss(*names, channels=("CT", "PET"), use=None):
    two = model(channels)
    return replace(two, plan=two.plan.model_copy(update={"channels_may_miss": names, "use": use}))


@pytest.mark.parametrize(
    ("channels", "lost"), [(("CT", "PET"), "PET"), (("PET", "CT"), "PET"), (("CT", "PET", "MR"), "MR")]
)
def test_every_dicom_result_says_which_channel_was_missing(series, tmp_path, channels, lost):
    for channel in channels:
        if channel != lost:
            modality = "PT" if channel == "PET" else channel
            series(f"p7_{channel}", SeriesInstanceUID=f"1.2.3.{len(channel)}", modality=modality)
    two = may_miss(lost, channels=channels)
    (row,) = predict(two, [tmp_path / "in"], tmp_path / "out", output_format="seg").rows
    assert (row.case, row.status, row.missing, row.outside) == ("p7", "done", (lost,), ())
    written = dcmread(row.output)
    assert "WITHOUT CHANNEL" in written.SeriesDescription
    assert f"WITHOUT CHANNEL: made without {lost}" in written.to_json()


def test_a_report_to_points_says_which_channel_was_missing(series, tmp_path):
    series("p7_CT")
    two = may_miss("PET", use="guided")
    predict(two, [tmp_path / "in" / "p7_CT"], tmp_path / "out", output_format="seg", at_voxel=["5,3,2"])
    assert "WITHOUT CHANNEL: made without PET" in dcmread(tmp_path / "out" / "p7_sr.dcm").to_json()


def test_a_channel_that_is_damaged_or_doubled_is_not_taken_for_missing(series, tmp_path):
    series("a_CT")
    series("a_PET", SeriesInstanceUID="1.2.3.44")
    (tmp_path / "in" / "a_PET").joinpath("broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\1" * 40)
    series("b_CT", SeriesInstanceUID="1.2.3.55")
    series("b_ct", SeriesInstanceUID="1.2.3.66")
    series("c_PET", SeriesInstanceUID="1.2.3.77")
    rows = {row.case: row for row in predict(may_miss("PET"), [tmp_path / "in"], tmp_path / "out").rows}
    assert {name: row.status for name, row in rows.items()} == dict.fromkeys("abc", "refused")
    assert "broken.dcm" in rows["a"].reason
    assert "second series of channel CT of b; keep one" in rows["b"].reason
    assert "case c lacks channel CT; give its folder too" in rows["c"].reason
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_a_series_is_not_enough_for_two_channels(series, tmp_path):
    series("ct")
    (row,) = predict(model(("CT", "PET")), [tmp_path / "in"], tmp_path / "out").rows
    assert row.status == "refused"
    assert "case in lacks channel PET; give its folder too" in row.reason


def test_a_series_that_names_no_channel_is_not_guessed(series, tmp_path):
    series("scan")
    (row,) = predict(may_miss("PET"), [tmp_path / "in"], tmp_path / "out").rows
    assert (
        "the model wants 2 (CT, PET); give one folder per channel, in that order, or name each" in row.reason
    )


def test_a_broken_series_is_refused_by_name_and_the_rest_goes_on(series, tmp_path):
    series("a")
    series("b", SeriesInstanceUID="1.2.3.44")
    positions = {dcmread(p).ImagePositionPatient[2]: p for p in (tmp_path / "in" / "a").iterdir()}
    positions[sorted(positions)[2]].unlink()
    report = predict(model(), [tmp_path / "in"], tmp_path / "out", output_format="seg")
    assert [(row.case, row.status) for row in report.rows] == [("a", "refused"), ("b", "done")]
    assert "missing" in report.rows[0].reason


def test_a_nifti_has_no_images_that_a_dicom_object_could_refer_to(tmp_path):
    array = np.random.default_rng(0).normal(size=GRID.shape_zyx).astype(np.float32)
    write_volume(Volume(array, GRID), tmp_path / "a.nii.gz")
    (row,) = predict(model(), [tmp_path / "a.nii.gz"], tmp_path / "out", output_format="seg").rows
    assert row.status == "refused"
    assert "is not a DICOM series" in row.reason


def test_an_unknown_format_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match="take one of nifti, nrrd, seg, rtstruct"):
        predict(model(), [tmp_path], tmp_path / "out", output_format="dcm")


def test_a_4d_file_holds_the_channels(tmp_path):
    import SimpleITK as sitk

    stack = np.random.default_rng(0).normal(size=(2, 6, 8, 9)).astype(np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(stack, isVector=False), tmp_path / "a.nii.gz")
    (row,) = predict(model(("FLAIR", "T1")), [tmp_path / "a.nii.gz"], tmp_path / "out").rows
    assert row.status == "done"
    assert read_volume(tmp_path / "out" / "a.nii.gz").array.shape == (6, 8, 9)


def test_numbers_of_nnunet_are_not_part_of_a_case(tmp_path):
    array = np.random.default_rng(0).normal(size=GRID.shape_zyx).astype(np.float32)
    for name in ("p1_0000", "p2_0000"):
        write_volume(Volume(array, GRID), tmp_path / "set" / "imagesTs" / f"{name}.nii.gz")
    report = predict(model(), [tmp_path / "set"], tmp_path / "out")
    assert [row.case for row in report.rows] == ["p1", "p2"]


def test_a_damaged_slice_refuses_its_series_only(series, tmp_path):
    series("a")
    series("b", SeriesInstanceUID="1.2.3.44")
    torn = next((tmp_path / "in" / "a").iterdir())
    torn.write_bytes(torn.read_bytes()[:400])
    report = predict(model(), [tmp_path / "in"], tmp_path / "out")
    assert [(row.case, row.status) for row in report.rows] == [("a", "refused"), ("b", "done")]
    assert torn.name in report.rows[0].reason


def test_numbered_files_named_one_by_one_keep_their_cases_and_channels(tmp_path):
    array = np.random.default_rng(0).normal(size=GRID.shape_zyx).astype(np.float32)
    for name in ("t_0000", "t_0001", "u_0000"):
        write_volume(Volume(array, GRID), tmp_path / f"{name}.nii.gz")
    two = model(("FLAIR", "T1"))
    report = predict(two, [tmp_path / "t_0001.nii.gz", tmp_path / "t_0000.nii.gz"], tmp_path / "out")
    assert [(row.case, row.status) for row in report.rows] == [("t", "done")]
    report = predict(two, [tmp_path / "t_0000.nii.gz", tmp_path / "u_0000.nii.gz"], tmp_path / "out")
    assert [(row.case, row.status) for row in report.rows] == [("t", "refused"), ("u", "refused")]
    with pytest.raises(UsageError, match="given twice"):
        predict(two, [tmp_path / "t_0000.nii.gz"] * 2, tmp_path / "out")


def test_names_without_a_character_set_are_read_by_the_chosen_one(series, tmp_path):
    series(PatientName="XXXXXX")
    for file in (tmp_path / "in" / "scan").iterdir():
        file.write_bytes(file.read_bytes().replace(b"XXXXXX", "Иванов".encode("iso8859_5")))
    inputs, out = [tmp_path / "in" / "scan"], tmp_path / "out"
    predict(model(), inputs, out, output_format="seg", charset="ISO_IR 144")
    assert str(dcmread(out / "scan_seg.dcm").PatientName) == "Иванов"
    write_volume(Volume(np.zeros((3, 4, 5), np.float32), Grid((5, 4, 3))), out / "plain.mha")
    with pytest.raises(UsageError, match="no DICOM image is given"):
        predict(model(), [out / "plain.mha"], out, charset="ISO_IR 144")
    with pytest.raises(UsageError, match="--charset: 'ISO_IR 999' is not a character set"):
        predict(model(), inputs, out, charset="ISO_IR 999")
