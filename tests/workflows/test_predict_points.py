"""`predict` with points: one mask of the whole scan, table, Segmentation and report; the wrong use is refused."""

import json

import numpy as np
import pytest
import torch
from pydicom import dcmread
from torch import nn
from typer.testing import CliRunner

from focalis.cli.main import app
from focalis.dicom import find_series, read_segmentation, read_series
from focalis.dicom.drawn_points import read_points
from focalis.errors import UsageError
from focalis.lesions import OperatingPoint
from focalis.model import Model, save_model
from focalis.networks import build_network
from focalis.planning import NetworkSettings, Normalisation, Plan
from focalis.prediction import Place
from focalis.volume import Grid, Volume, read_volume, to_sitk, write_volume
from focalis.workflows.in_memory import LoadedModel as InMemory
from focalis.workflows.predict import predict

GRID = Grid((48, 40, 32), (1.5, 1.5, 2.0), (-30.0, 10.0, -500.0))
LESION = (slice(8, 12), slice(20, 25), slice(30, 36))
POINT = (-30 + 32 * 1.5, 10 + 22 * 1.5, -500 + 10 * 2.0)


class Bright(nn.Module):
    """Foreground where the image is bright."""

    def forward(self, x):
        return torch.cat([-x, x], dim=1) * 5


def model(use="guided", kind=Model):
    plan = Plan(
        channels=("image",),
        labels={1: "nodule"},
        use=use,
        spacing_zyx_mm=GRID.spacing_zyx_mm,
        normalisation=(Normalisation(kind="window", low=-1000, high=1000, mean=0, std=100),),
        patch_zyx=(16, 16, 16),
        batch=1,
        network=NetworkSettings(strides_zyx=((2, 2, 2),)),
    )
    return kind(plan, (Bright(),), OperatingPoint(0.5))


@pytest.fixture
def stored():
    array = np.random.default_rng(0).normal(-300, 20, GRID.shape_zyx).astype(np.int16)
    array[LESION] += 800
    array[20:22, 20:25, 30:36] += 800
    return array


@pytest.fixture
def scan(stored, tmp_path):
    write_volume(Volume(stored, GRID), tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


def only():
    mask = np.zeros(GRID.shape_zyx, bool)
    mask[LESION] = True
    return mask


def test_a_whole_scan_with_a_point_gives_one_mask_and_what_became_of_the_point(scan, tmp_path):
    report = predict(model(), [scan], tmp_path / "out", at=[POINT, (900, 0, 0)], at_voxel=["5,5,5"])
    np.testing.assert_array_equal(read_volume(tmp_path / "out" / "scan.nii.gz").array > 0, only())
    assert [each.status for each in report.rows[0].pointed] == ["lesion", "outside", "nothing"]
    table = json.loads((tmp_path / "out" / "lesions" / "scan.json").read_text())
    assert [each["status"] for each in table["pointed"]] == ["lesion", "outside", "nothing"]
    assert len(table["lesions"]) == 1


@pytest.mark.parametrize(
    ("settings", "how"),
    [
        ({}, "no minimum size or minimum confidence because a person pointed, the rest the model's"),
        (
            {"minimum_mm3": 5},
            "minimum size given, no minimum confidence because a person pointed, the rest the model's",
        ),
        (
            {"minimum_mm3": 0, "minimum_confidence": 0.2, "threshold": 0.3},
            "threshold, minimum size, minimum confidence given",
        ),
    ],
)
def test_only_what_was_given_is_said_to_be_given(scan, tmp_path, settings, how):
    point = predict(model(), [scan], tmp_path / "out", at=[POINT], settings=settings).operating_point
    table = json.loads((tmp_path / "out" / "lesions" / "scan.json").read_text())
    assert point.how == table["how"] == how
    assert point.minimum_mm3 == settings.get("minimum_mm3", 0)
    assert point.minimum_confidence == settings.get("minimum_confidence", 0)
    found = model(kind=InMemory).segment(to_sitk(read_volume(scan)), at=POINT, settings=settings)
    assert found.point == point


def test_of_dicom_the_segmentation_and_the_report_are_written(stored, write_series, tmp_path):
    write_series(tmp_path / "in" / "scan", stored, GRID)
    report = predict(model(), [tmp_path / "in"], tmp_path / "out", output_format="seg", at=[POINT])
    series = read_series(find_series(tmp_path / "in")[0])
    (found,) = read_segmentation(report.rows[0].output, series).values()
    np.testing.assert_array_equal(found, only())
    written = dcmread(tmp_path / "out" / "scan_sr.dcm")
    referred = [
        each.ReferencedSOPInstanceUID
        for study in written.CurrentRequestedProcedureEvidenceSequence
        for inner in study.ReferencedSeriesSequence
        for each in inner.ReferencedSOPSequence
    ]
    drawn = dcmread(report.rows[0].output)
    assert drawn.SOPInstanceUID in referred
    assert [each.SegmentAlgorithmType for each in drawn.SegmentSequence] == ["SEMIAUTOMATIC"]
    (centroid,) = read_points(tmp_path / "out" / "scan_sr.dcm")
    np.testing.assert_allclose(centroid.ends[0], np.add(POINT, (0.75, 0, -1)), atol=1e-3)
    out = tmp_path / "again"
    again = predict(
        model(), [tmp_path / "in"], out, output_format="seg", at=[tmp_path / "out" / "scan_sr.dcm"]
    )
    assert again.rows[0].pointed[0].status == "lesion"


def test_points_of_another_frame_of_reference_or_image_are_refused(stored, write_series, tmp_path):
    write_series(tmp_path / "in" / "scan", stored, GRID)

    def point(place):
        return predict(model(), [tmp_path / "in"], tmp_path / "out", at=[place]).rows[0]

    assert "another frame of reference" in point(Place((POINT,), frame="1.2.3.4")).reason
    assert "not in the series" in point(Place(((1, 1, 1),), image="1.2")).reason
    series = read_series(find_series(tmp_path / "in")[0])
    drawn = point(Place(((32.0, 22.0, 1.0),), image=series.instance_uids[10]))
    assert (drawn.status, drawn.pointed[0].status) == ("done", "lesion")


def test_points_drawn_on_a_dicom_image_are_refused_for_a_copy(scan, tmp_path):
    (row,) = predict(model(), [scan], tmp_path / "out", at=[Place(((1, 1, 1),), image="1.2")]).rows
    assert "drawn on a DICOM image" in row.reason


def test_the_wrong_use_is_refused_with_the_right_command(scan, tmp_path):
    (row,) = predict(model(), [scan], tmp_path / "out").rows
    assert row.reason.endswith(f"focalis predict MODEL {scan} -o {tmp_path / 'out'} --at X,Y,Z (mm, LPS)")
    with pytest.raises(UsageError, match=r"is a detector.*leave at and at_voxel out$") as refused:
        predict(model("detector"), [scan], tmp_path / "out", at=[POINT])
    assert f"; run: focalis predict MODEL {scan} -o" in refused.value.command_lines[0]
    write_volume(read_volume(scan), tmp_path / "other.nii.gz")
    with pytest.raises(UsageError, match="belong to one scan, and 2 are given"):
        predict(model(), [scan, tmp_path / "other.nii.gz"], tmp_path / "out", at=[POINT])


def test_in_memory_points_are_mm_or_voxels_in_the_order_of_the_axes(stored):
    network = model(kind=InMemory)
    by_voxel = network.segment(stored, (2.0, 1.5, 1.5), at_voxel=[(10, 22, 32)])
    by_mm = network.segment(stored, (2.0, 1.5, 1.5), at=[(32 * 1.5, 22 * 1.5, 10 * 2.0)])
    for found in (by_voxel, by_mm):
        np.testing.assert_array_equal(found.mask > 0, only())
        assert [each.status for each in found.pointed] == ["lesion"]


def test_the_command_line_takes_negative_numbers_and_ends_with_1_if_a_point_lies_outside(scan, tmp_path):
    settings = model().plan.network
    network = build_network(settings.name, settings.strides_zyx, 1, 2)
    save_model(Model(model().plan, (network,)), tmp_path / "m.safetensors")
    files = [str(tmp_path / "m.safetensors"), str(scan), "-o", str(tmp_path / "out")]
    told = CliRunner().invoke(
        app, ["predict", *files, "--at", "-29,11,-499", "--at", "900,0,0", "--runtime", "torch"]
    )
    assert told.exit_code == 1
    assert "point -29,11,-499 shows" in told.output
    assert "point 900,0,0 lies outside" in told.output
