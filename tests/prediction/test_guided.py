"""A person points at lesions in a whole scan: one mask, a word for each point."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from focalis.errors import ModelError, UsageError
from focalis.lesions import OperatingPoint
from focalis.model import Model, open_model, save_model
from focalis.networks import build_network
from focalis.planning import NetworkSettings, Normalisation, Plan
from focalis.prediction import Place, Settings, require_crop, segment, segment_at, surroundings
from focalis.volume import Absent, Grid, Volume
from focalis.volume.resample import grid_with_spacing

OBLIQUE = (0.0, 0.0, 1.0, -1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
GRIDS = {
    "axial": Grid((60, 50, 40), (1.0, 1.0, 1.0), (-20.0, 30.0, 100.0)),
    "sagittal": Grid((60, 50, 40), (1.0, 1.0, 1.0), (-20.0, 30.0, 100.0), OBLIQUE),
    "thick": Grid((60, 50, 20), (0.8, 0.8, 2.0), (-20.0, 30.0, 100.0)),
}
LESION = (slice(8, 12), slice(20, 25), slice(30, 36))


class Bright(nn.Module):
    """Foreground where the image is bright."""

    def forward(self, x):
        return torch.cat([-x, x], dim=1) * 5


def model(use="guided", point=None, kind="window"):
    plan = Plan(
        channels=("image",),
        labels={2: "nodule"},
        use=use,
        spacing_zyx_mm=(1.0, 1.0, 1.0),
        normalisation=(Normalisation(kind=kind, low=-1000, high=1000, mean=0, std=100),),
        patch_zyx=(16, 16, 16),
        batch=1,
        network=NetworkSettings(strides_zyx=((2, 2, 2),)),
    )
    return Model(plan, (Bright(),), point or OperatingPoint(0.5))


def scan(grid=GRIDS["axial"], *lesions):
    array = np.random.default_rng(0).normal(-300, 20, grid.shape_zyx).astype(np.int16)
    for lesion in lesions or (LESION,):
        array[lesion] = 500
    return Volume(array, grid)


def at(grid, x, y, z):
    place = grid.direction_matrix @ np.multiply((x, y, z), grid.spacing_xyz_mm) + grid.origin_xyz_mm
    return Place((tuple(place.tolist()),))


def only(volume, where=LESION):
    mask = np.zeros(volume.array.shape, bool)
    mask[where] = True
    return mask


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_the_lesion_at_a_point_is_marked_on_the_scans_own_grid(grid):
    volume = scan(grid)
    found = segment_at(model(), [volume], [at(grid, 32, 22, 10)])
    if grid is not GRIDS["thick"]:  # resampled: the border moves
        np.testing.assert_array_equal(found.mask == 2, only(volume))
    assert found.mask[10, 22, 32] == 2
    assert found.grid == grid
    assert [each.status for each in found.pointed] == ["lesion"]
    assert len(found.lesions) == 1


def test_it_is_what_the_crop_cut_by_hand_gives():
    volume, network = scan(GRIDS["thick"]), model()
    box = surroundings(network, volume.grid, at(volume.grid, 32, 22, 10))
    start = [side.start for side in box[::-1]]
    crop = np.ascontiguousarray(volume.array[box])
    by_hand = segment(network, [Volume(crop, volume.grid.part(start, crop.shape[::-1]))])
    found = segment_at(network, [volume], [at(volume.grid, 32, 22, 10)])
    np.testing.assert_array_equal(found.mask[box], by_hand.mask)
    np.testing.assert_array_equal(
        found.probability[box][by_hand.mask > 0], by_hand.probability[by_hand.mask > 0]
    )


@pytest.mark.parametrize("point", [(0, 0, 0), (59, 49, 39), (30, 49, 0)])
def test_the_surroundings_are_as_large_at_the_border_as_anywhere(point):
    box = surroundings(model(), GRIDS["axial"], Place((point,), voxel=True))
    assert [side.stop - side.start for side in box] == [16, 16, 16]
    assert all(side.start <= at < side.stop for side, at in zip(box, point[::-1], strict=True))


def test_an_image_smaller_than_the_surroundings_is_taken_whole():
    grid = Grid((10, 30, 12), (1.0, 1.0, 1.0))
    assert surroundings(model(), grid, Place(((5, 15, 6),), voxel=True)) == (
        slice(0, 12),
        slice(8, 24),
        slice(0, 10),
    )


def test_other_lesions_in_the_surroundings_are_left_out_and_two_points_give_two():
    other = (slice(14, 17), slice(20, 24), slice(30, 33))
    volume = scan(GRIDS["axial"], LESION, other)
    one = segment_at(model(), [volume], [Place(((32, 22, 10),), voxel=True)])
    np.testing.assert_array_equal(one.mask > 0, only(volume))
    both = segment_at(model(), [volume], [Place(((x, 22, z),), voxel=True) for x, z in ((32, 10), (31, 15))])
    np.testing.assert_array_equal(both.mask > 0, only(volume) | only(volume, other))
    assert len(both.lesions) == 2


def test_a_line_keeps_every_piece_that_it_crosses():
    other = (slice(8, 12), slice(20, 25), slice(38, 42))
    volume = scan(GRIDS["axial"], LESION, other)
    line = Place(((30, 22, 10), (41, 22, 10)), voxel=True)
    found = segment_at(model(), [volume], [line])
    np.testing.assert_array_equal(found.mask > 0, only(volume) | only(volume, other))
    assert len(found.pointed) == 1


def test_a_point_beside_a_lesion_means_it_and_says_how_far_it_is():
    volume = scan()
    near = segment_at(model(), [volume], [Place(((32, 27, 10),), voxel=True)])
    np.testing.assert_array_equal(near.mask > 0, only(volume))
    assert "begins 3.0 mm away" in near.pointed[0].said


@pytest.mark.parametrize(
    ("place", "status", "words"),
    [
        (Place(((40, 22, 10),), voxel=True), "nothing", "no lesion.*begins 5 mm away"),
        (Place(((10, 40, 30),), voxel=True), "nothing", "no lesion to the model$"),
        (Place(((32, 22, 40.6),), voxel=True), "outside", r"60 x 50 x 40 voxels"),
        (Place(((500, 0, 0),)), "outside", r"spans x -20 to 39, y 30 to 79, z 100 to 139 mm \(LPS\)$"),
        (Place(((-12.0, -52.0, 110.0),)), "outside", "looks like RAS"),
        (Place(((32, 22, 10),)), "outside", "looks like voxels"),
        (Place(((32, 22, 10), (90, 22, 10)), voxel=True), "outside", "outside"),
    ],
)
def test_a_point_without_a_lesion_is_said_and_the_others_go_on(place, status, words):
    found = segment_at(model(), [scan()], [place, Place(((32, 22, 10),), voxel=True)])
    assert [each.status for each in found.pointed] == [status, "lesion"]
    assert re.search(words, found.pointed[0].said)
    assert len(found.lesions) == 1


@pytest.mark.parametrize("kind", ["window", "zscore"])
def test_a_point_in_air_says_so(kind):
    volume = scan()
    volume.array[30:, :, :] = -1000
    volume.array[30:, ::2, :] = -1024
    found = segment_at(
        model(kind=kind),
        [volume],
        [Place(((10, 10, 37),), voxel=True), Place(((32, 22, 10),), voxel=True)],
    )
    assert "air or empty there (-1024)" in found.pointed[0].said


def test_a_channel_that_is_not_there_is_no_air():
    volume, one = scan(), model()
    both = one.plan.model_copy(
        update={
            "channels": ("pet", "image"),
            "channels_may_miss": ("pet",),
            "normalisation": (Normalisation(), one.plan.normalisation[0]),
        }
    )

    class Second(nn.Module):
        def forward(self, x):
            return torch.cat([-x[:, 1:], x[:, 1:]], dim=1) * 5

    found = segment_at(
        Model(both, (Second(),), OperatingPoint(0.5)),
        [Absent.on(volume.grid), volume],
        [Place(((10, 40, 30),), voxel=True)],
    )
    assert found.pointed[0].status == "nothing"
    assert "air" not in found.pointed[0].said


def test_padding_of_one_value_is_not_an_error_of_the_other_points():
    volume = scan()
    volume.array[:, :, :20] = -2000
    found = segment_at(
        model(), [volume], [Place(((5, 20, 10),), voxel=True), Place(((32, 22, 10),), voxel=True)]
    )
    assert [each.status for each in found.pointed] == ["nothing", "lesion"]
    assert "one value everywhere" in found.pointed[0].said


def test_points_that_all_lie_outside_are_refused_each_with_its_word():
    with pytest.raises(ModelError, match=r"point A \(500,0,0\) lies outside.*point 600,0,0 lies outside"):
        segment_at(model(), [scan()], [Place(((500, 0, 0),), name="A"), Place(((600, 0, 0),))])


def test_a_lesion_larger_than_the_surroundings_is_said_to_be_cut_off():
    volume = scan(GRIDS["axial"], (slice(5, 35), slice(20, 25), slice(30, 36)))
    found = segment_at(model(), [volume], [Place(((32, 22, 20),), voxel=True)])
    assert "cut off" in found.pointed[0].said


def test_nothing_is_dropped_that_was_pointed_at_unless_that_is_asked_for():
    volume, network = scan(), model(point=OperatingPoint(0.5, minimum_mm3=500.0))
    place = [Place(((32, 22, 10),), voxel=True)]
    assert not segment(network, [volume]).mask.any()
    found = segment_at(network, [volume], place)
    assert found.pointed[0].status == "lesion"
    assert "smaller or less sure" in found.pointed[0].said
    assert not segment_at(network, [volume], place, Settings(minimum_mm3=200.0)).mask.any()


def test_a_detector_takes_no_points_and_a_guided_model_no_whole_scan():
    with pytest.raises(ModelError, match=r"is a detector.*leave at and at_voxel out"):
        segment_at(model("detector"), [scan()], [Place(((32, 22, 10),), voxel=True)])
    with pytest.raises(
        ModelError, match=r"at most 24 x 24 x 24 mm.*40 x 50 x 60 mm.*each lesion: at=\[\(x, y, z\)"
    ):
        require_crop(model(), GRIDS["axial"])
    require_crop(model("detector"), GRIDS["axial"])
    require_crop(model(), grid_with_spacing(Grid((24, 24, 24)), (1.0, 1.0, 1.0)))


@pytest.mark.parametrize("ends", [(), ((1, 2),), ((1, 2, float("nan")),), ((1, 2, 3),) * 3])
def test_a_place_is_one_or_two_points_of_three_numbers(ends):
    with pytest.raises(UsageError, match="three numbers"):
        Place(ends)


def test_files_from_before_there_was_a_choice_are_guided_if_they_were_trained_on_crops_of_ct():
    shipped = open_model("lidc-nodule")
    shipped = replace(shipped, plan=shipped.plan.model_copy(update={"use": None}))
    assert shipped.guided
    assert shipped.crop_zyx_mm == pytest.approx((51, 51, 51), abs=0.01)
    assert not model(use=None).guided  # it knows nothing of its images
    set_by_a_person = replace(shipped, plan=shipped.plan.model_copy(update={"use": "detector"}))
    assert not set_by_a_person.guided


def test_the_use_stays_in_the_model_file(tmp_path):
    network = build_network("dense", ((2, 2, 2),), 1, 2)
    for use in ("guided", "detector"):
        save_model(replace(model(use), members=(network,)), tmp_path / "m.safetensors")
        assert open_model(tmp_path / "m.safetensors").guided == (use == "guided")


@pytest.mark.parametrize(
    ("ends", "wanted"),
    [
        ([(35, 22, 10)], [0]),
        ([(38, 22, 10)], [1]),
        ([(31, 22, 10), (34, 23, 10)], [0]),
        ([(34, 22, 10), (39, 22, 10)], [0, 1]),
        ([(36, 22, 10)], [0]),  # beside the first, which is the nearest
    ],
)
def test_on_thick_slices_a_point_takes_the_lesion_that_it_lies_in_and_a_line_those_on_its_way(ends, wanted):
    grid = Grid((60, 50, 20), (0.7, 0.7, 5.0))
    lesions = [(slice(10, 11), slice(20, 25), slice(30, 36)), (slice(10, 11), slice(20, 25), slice(38, 44))]
    guided = model()
    plan = guided.plan.model_copy(update={"spacing_zyx_mm": (5.0, 0.7, 0.7)})
    found = segment_at(replace(guided, plan=plan), [scan(grid, *lesions)], [Place(tuple(ends), voxel=True)])
    expected = np.zeros(grid.shape_zyx, bool)
    for number in wanted:
        expected[lesions[number]] = True
    np.testing.assert_array_equal(found.mask > 0, expected)
