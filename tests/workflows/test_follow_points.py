"""`follow` with a guided model: points on the first date, and what is found there on the later ones."""

from pathlib import Path

import pytest
import torch
from follow_scenes import Ball, grid_of, scan, turned
from torch import Tensor, nn

import focalis
from focalis.errors import UsageError
from focalis.lesions import OperatingPoint
from focalis.model import Model
from focalis.planning import NetworkSettings, Normalisation, Plan
from focalis.volume import read_volume, write_volume

GRID = grid_of((4, 4, 4))
POINTED, OTHER = (20.0, 10.0, 16.0), (-25.0, -8.0, -20.0)
BRIGHT = 400.0
MOVED = turned((3, -2, 5), (10, -8, 12))


class Bright(nn.Module):
    """Foreground where the image is bright."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([-x, x], dim=1) * 5


def model(use: str = "guided") -> Model:
    plan = Plan(
        channels=("image",),
        labels={1: "nodule"},
        use=use,
        spacing_zyx_mm=GRID.spacing_zyx_mm,
        normalisation=(Normalisation(kind="window", low=-1000, high=1000, mean=300, std=100),),
        patch_zyx=(16, 16, 16),
        batch=1,
        network=NetworkSettings(strides_zyx=((2, 2, 2),)),
    )
    return Model(plan, (Bright(),), OperatingPoint(0.5))


def write(path: Path, radii_mm: tuple[float, float], **options: object) -> Path:
    """A scan with both lesions; a radius of 0 leaves one out."""
    balls = [Ball(centre, mm, BRIGHT) for centre, mm in zip((POINTED, OTHER), radii_mm, strict=True) if mm]
    write_volume(scan(balls, GRID, seed=len(path.name), **options)[0], path)
    return path


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("first") / "first.nii.gz", (9, 9))


def test_the_lesion_at_the_point_is_found_again_where_the_person_moved(first: Path, tmp_path: Path) -> None:
    later = write(tmp_path / "later.nii.gz", (12, 9), moved=MOVED)
    (tmp_path / "points.csv").write_text("x,y,z\n20,10,16\n")
    found = focalis.follow([first, later], tmp_path / "out", model=model(), at=[tmp_path / "points.csv"])

    (lesion,) = found.tracks
    assert [each.status for each in lesion.sightings] == ["baseline", "persistent"]
    assert lesion.sightings[0].centre_lps_mm == pytest.approx(POINTED, abs=1.5)
    assert lesion.sightings[1].centre_lps_mm == pytest.approx(MOVED.apply(POINTED).tolist(), abs=1.5)
    truth = scan([Ball(POINTED, 12, BRIGHT)], GRID, MOVED)[1].array > 0
    mask = read_volume(tmp_path / "out" / "masks" / "2_later.nii.gz").array > 0
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.9
    assert found.error.repeated == 2


def test_one_that_is_gone_or_outside_of_a_scan_is_reported(first: Path, tmp_path: Path) -> None:
    gone = write(tmp_path / "gone.nii.gz", (0, 9))
    image = read_volume(first)
    write_volume(
        type(image)(image.array[:22], image.grid.part((0, 0, 0), (36, 30, 22))), tmp_path / "low.nii.gz"
    )
    found = focalis.follow(
        [first, gone, tmp_path / "low.nii.gz"], tmp_path / "out", model=model(), at=["20,10,16", "-25,-8,-20"]
    )
    by_place = {round(each.sightings[0].centre_lps_mm[0] / 5) * 5: each for each in found.tracks}  # type: ignore[index]
    assert [each.status for each in by_place[20].sightings] == ["baseline", "gone", "outside"]
    assert [each.status for each in by_place[-25].sightings] == ["baseline", "persistent", "persistent"]
    assert any("shows no lesion to the model" in note for note in found.notes)


@pytest.mark.slow
def test_a_scan_that_cannot_be_registered_is_not_searched(first: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.nii.gz", (9, 9), body_seed=4)
    found = focalis.follow([first, other], tmp_path / "out", model=model(), at=[POINTED])
    assert [each.status for each in found.tracks[0].sightings] == ["baseline", "unknown"]
    assert not read_volume(tmp_path / "out" / "masks" / "2_other.nii.gz").array.any()
    assert any("could not be registered" in note for note in found.notes)


def test_points_that_nothing_can_use_are_refused(first: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the model is a detector"):
        focalis.follow([first, first], tmp_path / "out", model=model("detector"), at=[POINTED])
    with pytest.raises(UsageError, match=r"^at: masks are given"):
        focalis.follow([first, first], tmp_path / "out", masks=[first, first], at=[POINTED])
    with pytest.raises(UsageError, match="is neither a point nor a file"):
        focalis.follow([first, first], tmp_path / "out", model=model(), at=["20;10;16"])
    assert not (tmp_path / "out").exists()
