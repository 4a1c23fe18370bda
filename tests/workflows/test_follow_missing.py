"""`follow` with a model of several channels, of which some scans lack one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
import torch
from follow_scenes import Ball, grid_of, scan, turned
from torch import Tensor, nn

import focalis
from focalis.errors import DataError
from focalis.lesions import OperatingPoint
from focalis.model import Model
from focalis.planning import NetworkSettings, Normalisation, Plan
from focalis.volume import read_volume, write_volume

GRID = grid_of((4, 4, 4))
STAYS, GOES = (20.0, 10.0, 16.0), (-25.0, -8.0, -20.0)
BRIGHT = 400.0
MOVED = turned((3, -2, 5), (10, -8, 12))


class Brightest(nn.Module):
    """Foreground where a channel is bright."""

    def forward(self, x: Tensor) -> Tensor:
        most = x.amax(dim=1, keepdim=True)
        return torch.cat([-most, most], dim=1) * 5


def model(*may_miss: str) -> Model:
    plan = Plan(
        channels=("flair", "t1"),
        channels_may_miss=may_miss,
        labels={1: "lesion"},
        use="detector",
        spacing_zyx_mm=GRID.spacing_zyx_mm,
        normalisation=(Normalisation(kind="window", low=-1000, high=1000, mean=300, std=100),) * 2,
        patch_zyx=(16, 16, 16),
        batch=1,
        network=NetworkSettings(strides_zyx=((2, 2, 2),)),
    )
    # both are alike where zeros stand for a channel: without it nothing is bright
    return Model(plan, (Brightest(),), OperatingPoint(0.6))


def write(folder: Path, channels: str, *balls: Ball, moved: Any = None) -> Path:
    """A scan with these channels; both show the same, with noise of their own."""
    for channel in channels.split():
        image, _ = scan(balls, GRID, moved, seed=len(folder.name + channel))
        write_volume(image, folder / f"p_{channel}.nii.gz")
    return folder


@pytest.mark.parametrize("lost", ["flair", "t1"])
def test_a_lesion_is_followed_to_a_scan_that_lacks_a_channel(tmp_path: Path, lost: str) -> None:
    there = "t1" if lost == "flair" else "flair"
    first = write(tmp_path / "first", "flair t1", Ball(STAYS, 9, BRIGHT), Ball(GOES, 9, BRIGHT))
    later = write(tmp_path / "later", there, Ball(STAYS, 11, BRIGHT), moved=MOVED)
    found = focalis.follow([first, later], tmp_path / "out", model=model(lost))

    assert sorted(each.sightings[1].status for each in found.tracks) == ["gone", "persistent"]
    assert found.placements[1].registration is not None
    assert found.placements[1].registration.similarity > 0.8
    assert found.error.repeated == 3
    truth = scan([Ball(STAYS, 11, BRIGHT)], GRID, MOVED)[1].array > 0
    mask = read_volume(tmp_path / "out" / "masks" / "2_p.nii.gz").array > 0
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.9
    assert any(f"{later} lacks the channel {lost}" in note for note in found.notes)
    assert found.targets is None
    assert any(
        note.startswith("No response is told") and note.endswith(f"lacks {lost}.") for note in found.notes
    )
    np.testing.assert_array_equal(
        found.studies[1].image.array, read_volume(later / f"p_{there}.nii.gz").array
    )


def test_a_channel_that_may_not_miss_is_still_asked_for(tmp_path: Path) -> None:
    first = write(tmp_path / "first", "flair t1", Ball(STAYS, 9, BRIGHT))
    later = write(tmp_path / "later", "t1", Ball(STAYS, 9, BRIGHT))
    with pytest.raises(DataError, match="case p lacks channel flair"):
        focalis.follow([first, later], tmp_path / "out", model=model("t1"))


def test_the_objects_of_a_scan_that_lacks_a_channel_say_so_and_call_no_lesion_absent(
    tmp_path: Path, write_series: Callable[..., Any]
) -> None:
    for name, channels, balls in (
        ("first", ("flair", "t1"), (STAYS, GOES)),
        ("later", ("t1",), (STAYS,)),
    ):
        for number, channel in enumerate(channels):
            image, _ = scan([Ball(centre, 9, BRIGHT) for centre in balls], GRID, seed=number)
            day = "20260105" if name == "first" else "20260405"
            tags = {"PatientID": "17", "AcquisitionDate": day, "StudyDate": day, "Modality": "MR"}
            stored = np.round(image.array).astype(np.int16)
            write_series(tmp_path / name / f"p_{channel}", stored, GRID, **tags)
    focalis.follow([tmp_path / "first", tmp_path / "later"], tmp_path / "out", model=model("flair"))

    said = {}
    for number in (1, 2):
        report: Any = highdicom.sr.srread(tmp_path / "out" / "dicom" / f"{number}_p_sr.dcm")
        said[number] = "WITHOUT CHANNEL: made without flair" in report.to_json()
        groups = report.content.get_image_measurement_groups()
        told = [each.value.meaning for group in groups for each in group.get_qualitative_evaluations()]
        assert "Absent" not in told
    assert said == {1: False, 2: True}
    assert told.count("Indeterminate") == 1
