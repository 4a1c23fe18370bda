"""Patches: geometry against plain indexing and scipy, and what a centred lesion can teach."""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
import torch

from focalis.dataset import IGNORED
from focalis.lesions import label_components
from focalis.losses import INFINITE_FROM_MM, distance_to_foreground, nearest_lesion
from focalis.planning import Plan
from focalis.training import patches
from focalis.training.patches import _draw_matrix, draw_patch, reader_shares
from focalis.training.prepared import TrainingCase


def case_of(label, image=None, spacing=(1.0, 1.0, 1.0)):
    image = np.random.default_rng(0).normal(size=label.shape) if image is None else image
    distance = distance_to_foreground(label, spacing).astype(np.float16)
    voxels = (np.argwhere(label).astype(np.int32),) if label.any() else ()
    return TrainingCase("case", image[None].astype(np.float32), label, distance, voxels)


def resample(case, centre, matrix, scale, patch):
    """A patch with the case's one label map."""
    made = patches._resample(case, centre, matrix, scale, patch, case.label[None])
    return replace(made, label=made.label[0])


def blob(shape=(20, 22, 24)):
    label = np.zeros(shape, np.uint8)
    label[8:12, 9:11, 14:19] = 1
    label[12:14, 9:11, 17:19] = 2
    return label


def test_without_turning_a_patch_is_a_slice_of_the_arrays():
    case = case_of(blob())
    patch = resample(case, np.array([9.5, 10.5, 12.5]), np.eye(3), 1.0, (8, 8, 8))
    np.testing.assert_allclose(patch.image[0], case.image[0, 6:14, 7:15, 9:17], atol=1e-5)
    np.testing.assert_array_equal(patch.label, case.label[6:14, 7:15, 9:17])
    np.testing.assert_allclose(patch.distance_mm, case.distance_mm[6:14, 7:15, 9:17], atol=1e-3)


def test_a_flip_mirrors_image_label_and_distance_alike():
    case = case_of(blob())
    patch = resample(case, np.array([9.5, 10.5, 12.5]), np.diag([1.0, -1.0, 1.0]), 1.0, (8, 8, 8))
    np.testing.assert_allclose(patch.image[0], case.image[0, 6:14, 14:6:-1, 9:17], atol=1e-5)
    np.testing.assert_array_equal(patch.label, case.label[6:14, 14:6:-1, 9:17])


def two_lesions():
    label = np.zeros((20, 22, 24), np.uint8)
    label[3:6, 4:9, 5:9], label[13:17, 15:17, 14:20] = 1, 1
    nearest = nearest_lesion(*label_components(label > 0), (1, 1, 1))
    return replace(case_of(label), nearest=nearest)


@pytest.mark.parametrize("matrix", [np.diag([1.0, -1.0, 1.0]), np.eye(3)[[0, 2, 1]]])
def test_the_nearest_lesion_is_mirrored_and_turned_with_the_label(matrix):
    case = two_lesions()
    patch = resample(case, np.array([9.5, 10.5, 12.5]), matrix, 1.0, (8, 8, 8))
    expected = (
        case.nearest[6:14, 14:6:-1, 9:17] if matrix[1, 1] else case.nearest[6:14, 7:15, 9:17].swapaxes(1, 2)
    )
    np.testing.assert_array_equal(patch.nearest, expected)
    assert patch.nearest.dtype == torch.int64


def test_between_voxels_each_lesion_keeps_its_number(plan):
    case = two_lesions()
    for seed in range(20):
        patch = draw_patch(case, plan, np.random.default_rng(seed))
        assert set(patch.nearest.unique().tolist()) <= {1, 2}
        for part in range(1, (found := label_components(patch.label.numpy() > 0))[1] + 1):
            assert len(patch.nearest[torch.from_numpy(found[0] == part)].unique()) == 1


def test_a_case_that_is_not_numbered_has_no_nearest_lesion(plan):
    assert draw_patch(case_of(blob()), plan, np.random.default_rng(0)).nearest is None


def test_a_quarter_turn_agrees_with_numpy():
    label = blob((16, 16, 16))
    case = case_of(label)
    quarter = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    patch = resample(case, np.full(3, 7.5), quarter, 1.0, (16, 16, 16))
    expected = np.rot90(case.image[0], 1, axes=(2, 1))
    np.testing.assert_allclose(patch.image[0], expected, atol=1e-4)


def test_past_the_border_the_image_is_reflected():
    case = case_of(blob())
    patch = resample(case, np.array([1.5, 10.5, 12.5]), np.eye(3), 1.0, (8, 8, 8))  # planes -2 to 5
    expected = np.pad(case.image[0], ((2, 0), (0, 0), (0, 0)), mode="reflect")[0:8, 7:15, 9:17]
    np.testing.assert_allclose(patch.image[0], expected, atol=1e-5)


def test_distances_stay_distances_when_the_patch_is_magnified():
    label = np.zeros((32, 32, 32), np.uint8)
    label[14:18, 14:18, 14:18] = 1
    scale = 0.8  # the patch steps 0.8 voxels in the image, so the lesion appears 1.25 times as large
    patch = resample(case_of(label), np.full(3, 15.5), np.eye(3) * scale, scale, (24, 24, 24))
    expected = distance_to_foreground(patch.label.numpy(), (1, 1, 1))
    assert (
        np.abs(patch.distance_mm.numpy() - expected).max() < 1.5
    )  # the nearest voxel's label is up to that far off


def test_without_foreground_the_distance_stays_infinite():
    case = case_of(np.zeros((20, 20, 20), np.uint8))
    patch = resample(case, np.full(3, 9.5), np.eye(3) * 1.25, 1.25, (8, 8, 8))
    assert (patch.distance_mm > INFINITE_FROM_MM).all()


def test_a_turn_keeps_millimetres_on_an_anisotropic_grid(plan):
    thick = plan.model_copy(update={"spacing_zyx_mm": (4.0, 1.0, 1.0)})
    for seed in range(50):
        matrix, scale = _draw_matrix(thick, np.random.default_rng(seed))
        spacing = np.diag(thick.spacing_zyx_mm)
        in_mm = spacing @ matrix @ np.linalg.inv(spacing) / scale
        np.testing.assert_allclose(in_mm @ in_mm.T, np.eye(3), atol=1e-9)
        assert abs(matrix[0, 0]) == pytest.approx(scale)  # thick slices are only turned in their plane


def turned_by_quarters(plan, spacing=(1.0, 1.0, 1.0)):
    """The plan with flips and quarter turns and no other turns."""
    training = plan.training.model_copy(update={"quarter_turns": True, "turn_share": 0.0})
    return plan.model_copy(update={"training": training, "spacing_zyx_mm": spacing})


@pytest.mark.parametrize(("spacing", "orientations"), [((1.0, 1.0, 1.0), 48), ((0.7, 0.7031, 0.7), 48)])
def test_quarter_turns_and_flips_reach_every_orientation(plan, spacing, orientations):
    quarters = turned_by_quarters(plan, spacing)
    drawn = [_draw_matrix(quarters, np.random.default_rng(seed)) for seed in range(1000)]
    found = {tuple(np.round(matrix).astype(int).ravel()) for matrix, scale in drawn if scale == 1.0}
    assert len(found) == orientations


def test_a_patch_that_is_not_turned_or_scaled_falls_onto_voxels(plan):
    # Whole numbers in the image: a value in between was interpolated, which blurs noise and fine structures.
    image = np.random.default_rng(0).integers(0, 1000, (40, 44, 48))
    case = case_of(blob(image.shape), image)
    drawn = [draw_patch(case, turned_by_quarters(plan), np.random.default_rng(seed)) for seed in range(100)]
    sharp = [bool(((patch.image - patch.image.round()).abs() < 1e-2).all()) for patch in drawn]
    assert np.mean(sharp) == pytest.approx(1 - patches.SCALE_SHARE, abs=0.15)


def test_what_is_cut_from_voxels_is_what_interpolation_would_find():
    # Every orientation of a patch of unequal sides, also where it reaches past the border.
    case = case_of(blob())
    patch = (8, 11, 14)
    corners = [np.array(corner) for corner in ((5, 6, 7), (-2, 15, 3), (0, -3, 18))]
    for order, signs in product(permutations(range(3)), product((-1.0, 1.0), repeat=3)):
        matrix = np.eye(3)[list(order)] @ np.diag(signs)
        half = (np.array(patch) - 1) / 2
        for corner in corners:
            centre = corner + np.abs(matrix) @ half
            cut, interpolated = (
                make(case, centre, matrix, patch, case.label[None])
                for make in (patches._cut, patches._interpolate)
            )
            finite = interpolated[0] < INFINITE_FROM_MM
            torch.testing.assert_close(cut[0][finite], interpolated[0][finite], atol=1e-3, rtol=0)
            assert torch.equal(cut[1], interpolated[1].to(torch.uint8))


@pytest.mark.parametrize(
    "change", [{"spacing_zyx_mm": (3.0, 1.0, 1.0)}, {"flip_axes_zyx": (True, True, False)}]
)
def test_quarter_turns_want_cubes_that_are_mirrored_along_every_axis(plan, change):
    content = turned_by_quarters(plan).model_dump()
    (content if "spacing_zyx_mm" in change else content["training"]).update(change)
    with pytest.raises(ValueError, match="quarter_turns needs"):
        Plan.model_validate(content)


@pytest.mark.parametrize("patch", [(16, 16, 16), (8, 24, 24), (24, 24, 8)])
@pytest.mark.parametrize("quarters", [False, True])
def test_a_patch_of_any_sides_holds_the_lesion_that_it_was_drawn_for(plan, patch, quarters):
    label = np.zeros((32, 64, 64), np.uint8)
    label[15:18, 30:33, 30:33] = 1
    case = case_of(label, image=np.zeros(label.shape))
    plan = turned_by_quarters(plan) if quarters else plan
    training = plan.training.model_copy(update={"foreground_share": 1.0, "turn_share": 0.0})
    wanted = plan.model_copy(update={"patch_zyx": patch, "training": training})
    hits = [bool(draw_patch(case, wanted, np.random.default_rng(seed)).label.any()) for seed in range(60)]
    assert np.mean(hits) > 0.95


def test_an_axis_that_tells_labels_apart_is_not_mirrored(plan):
    training = plan.training.model_copy(update={"flip_axes_zyx": (True, True, False)})
    one_sided = plan.model_copy(update={"training": training})
    signs = np.array(
        [np.sign(np.diag(_draw_matrix(one_sided, np.random.default_rng(seed))[0])) for seed in range(60)]
    )
    assert (signs[:, 2] > 0).all()
    assert 0.2 < (signs[:, 0] < 0).mean() < 0.8


def test_a_centred_lesion_is_met_all_over_the_patch(plan):
    # A crop of 51 with the lesion in its middle, patches of 40: without reaching past the border, the lesion would
    # never be more than 5.5 voxels from the patch's middle, and a network could learn its place.
    label = np.zeros((51, 51, 51), np.uint8)
    label[24:27, 24:27, 24:27] = 1
    case = case_of(label, image=np.zeros(label.shape))
    crops = plan.model_copy(update={"patch_zyx": (40, 40, 40)})
    patches = [draw_patch(case, crops, np.random.default_rng(seed)).label for seed in range(120)]
    places = np.array([torch.nonzero(p).double().mean(0).numpy() for p in patches if p.any()])
    # The standard deviation of a uniform distribution over the patch would be 40 / sqrt(12) = 11.5.
    assert (places.std(axis=0) > 7).all()
    assert (np.abs(places - 19.5).max(axis=0) > 13).all()


def test_the_share_of_patches_with_foreground(plan):
    label = np.zeros((64, 64, 64), np.uint8)
    label[30, 30, 30] = 1
    case = case_of(label, image=np.zeros(label.shape))
    hits = [bool(draw_patch(case, plan, np.random.default_rng(seed)).label.any()) for seed in range(300)]
    # Rotation, scale and the nearest neighbour can lose a lesion of one voxel, so the bounds are wide.
    assert 0.5 < np.mean(hits) < 0.75


def test_a_small_lesion_is_met_as_often_as_a_large_one(plan):
    label = np.zeros((64, 64, 64), np.uint8)
    label[8:10, 8:10, 8:10] = 1
    label[40:56, 40:56, 40:56] = 2
    case = TrainingCase(
        "two",
        label[None].astype(np.float32),
        label,
        distance_to_foreground(label, (1, 1, 1)).astype(np.float16),
        tuple(np.argwhere(label == value).astype(np.int32) for value in (1, 2)),
    )
    patches = [draw_patch(case, plan, np.random.default_rng(seed)).label for seed in range(300)]
    small, large = (
        np.mean([bool((p == 1).any()) for p in patches]),
        np.mean([bool((p == 2).any()) for p in patches]),
    )
    assert small > 0.25
    assert large > 0.25


def test_the_same_generator_gives_the_same_patch(cases, plan):
    one, two = (draw_patch(cases[0], plan, np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(one.image, two.image)
    assert torch.equal(one.label, two.label)


def three_readers():
    """Three label maps that differ by a plane each, one of which did not judge the first plane."""
    drawn = np.stack([blob(), blob(), blob()])
    drawn[1, 7, 9:11, 14:19] = 1
    drawn[2, 12:14] = 0
    drawn[2, 0] = IGNORED
    return replace(case_of(blob()), readers=drawn)


def test_random_draws_a_reader_from_the_generator_and_meets_all_of_them(plan):
    case = three_readers()
    still = plan.model_copy(update={"readers": "random", "patch_zyx": (16, 16, 16)})
    fixed = plan.model_copy(update={"patch_zyx": (16, 16, 16)})
    seen = set()
    for seed in range(30):
        label = draw_patch(case, still, np.random.default_rng(seed)).label
        alone = [
            draw_patch(replace(case, label=one, readers=None), fixed, np.random.default_rng(seed)).label
            for one in case.readers
        ]
        same = [number for number, one in enumerate(alone) if torch.equal(label, one)]
        assert same
        seen |= set(same) if len(same) == 1 else set()
        assert torch.equal(label, draw_patch(case, still, np.random.default_rng(seed)).label)
    assert seen == {0, 1, 2}


def test_mean_is_the_share_of_the_readers_who_judged(plan):
    case = three_readers()
    soft = plan.model_copy(update={"readers": "mean", "labels": {1: "core", 2: "rim"}})
    hard = plan.model_copy(update={"labels": {1: "core", 2: "rim"}})
    for seed in range(8):
        shares = draw_patch(case, soft, np.random.default_rng(seed)).label
        drawn = np.stack(
            [
                draw_patch(replace(case, label=one, readers=None), hard, np.random.default_rng(seed)).label
                for one in case.readers
            ]
        )
        for place in np.ndindex(*shares.shape[1:]):
            votes = [value for value in drawn[(slice(None), *place)] if value != IGNORED]
            expected = [votes.count(value) / len(votes) for value in range(3)]
            if not np.allclose(shares[(slice(None), *place)], expected):
                raise AssertionError(place)


def test_what_no_reader_judged_has_no_share():
    drawn = torch.tensor([IGNORED, IGNORED, 1, IGNORED]).reshape(2, 1, 1, 2)
    assert reader_shares(drawn, 2)[:, 0, 0].T.tolist() == [[0, 1], [0, 0]]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_patch_of_a_whole_scan_takes_the_memory_of_a_patch(plan, tmp_path, share):
    """512 x 512 x 400 voxels lie on the disk as holes; what is read of them counts, also past the border."""
    import tracemalloc

    shape = (400, 512, 512)

    def mapped(name, kind, *extra):
        return np.lib.format.open_memmap(tmp_path / name, mode="w+", dtype=kind, shape=(*extra, *shape))

    lesion = np.asarray([[2, 3, 4]], np.int32)  # in a corner, so that patches reach past three borders
    case = TrainingCase(
        "whole",
        mapped("i.npy", np.float32, 1),
        mapped("l.npy", np.uint8),
        mapped("d.npy", np.float16),
        (lesion,),
    )
    training = plan.training.model_copy(update={"foreground_share": share, "turn_share": 0.5})
    plan = plan.model_copy(update={"training": training, "patch_zyx": (32, 32, 32)})
    tracemalloc.start()
    for seed in range(12):
        draw_patch(case, plan, np.random.default_rng(seed))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 * 4 * np.prod(plan.patch_zyx)


def naive_patch(case, plan, rng):
    """A patch of a case with one label: a lesion, then one of its voxels, anywhere in the patch."""
    matrix, scale = _draw_matrix(plan, rng)
    patch, half = np.array(plan.patch_zyx), (np.array(plan.patch_zyx) - 1) / 2
    middle, extent = (np.array(case.label.shape) - 1) / 2, np.abs(matrix) @ patch
    reach = np.maximum(np.array(case.label.shape) - extent, 0) / 2 + extent / 4
    if rng.random() < plan.training.foreground_share:
        components, count = label_components(case.label > 0)
        voxels = np.argwhere(components == 1 + rng.integers(count))
        place = rng.uniform(-0.85 * half, 0.85 * half)
        centre = np.clip(voxels[rng.integers(len(voxels))] - matrix @ place, middle - reach, middle + reach)
    else:
        centre = middle + rng.uniform(-reach, reach)
    return resample(case, patches._onto_voxels(centre, matrix, half), matrix, scale, plan.patch_zyx)


@pytest.mark.parametrize("labels", [(), (1, 1), (2, 2)])
def test_where_a_case_holds_one_label_no_label_is_drawn(plan, labels):
    case = two_lesions()
    components, _ = label_components(case.label > 0)
    voxels = tuple(np.argwhere(components == number).astype(np.int32) for number in (1, 2))
    case = replace(case, lesions=voxels, lesion_labels=labels, nearest=None)
    for seed in range(40):
        made = draw_patch(case, plan, np.random.default_rng(seed))
        expected = naive_patch(case, plan, np.random.default_rng(seed))
        assert torch.equal(made.image, expected.image)
        assert torch.equal(made.label, expected.label)
