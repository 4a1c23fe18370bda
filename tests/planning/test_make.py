"""Decisions from a fingerprint, on data of known spacing, shape and intensity."""

import dataclasses

import numpy as np
import pytest

from focalis.dataset import PhantomSettings, open_dataset, write_phantoms
from focalis.errors import DataError, PlanError
from focalis.networks import NETWORKS
from focalis.planning import Fingerprint, fingerprint, make_plan, usual_network, usual_start
from focalis.planning.parts import network_of
from focalis.planning.step_memory import training_bytes
from focalis.quality import measure
from focalis.volume import Grid, Volume, read_volume, write_volume


def found(**changes) -> Fingerprint:
    settings = {
        "shapes_zyx": ((51, 51, 51),) * 3,
        "spacings_zyx_mm": ((1.0, 1.0, 1.0),) * 3,
        "foreground_share": (0.004, 0.002, 0.01),
        "lesion_volumes_mm3": (120.0, 500.0, 900.0),
        "first_percentile": (0.0,),
        "foreground_low": (10.0,),
        "foreground_high": (90.0,),
        "foreground_mean": (50.0,),
        "foreground_std": (20.0,),
    }
    return Fingerprint(**(settings | changes))


def plan_of(figures, **options):
    return make_plan(figures, ("image",), {1: "lesion"}, **options)


@pytest.mark.parametrize(
    ("network", "start"),
    [
        ("dense", "shapes"),
        ("dense+crf", "shapes"),
        ("small-unet", "shapes"),
        ("unet", "scratch"),
        ("segnet", "scratch"),
    ],
)
def test_networks_that_have_them_start_from_shapes_and_others_from_random_weights(network, start):
    plan = plan_of(found(), network=network)

    assert plan.start == start
    assert plan.reasons["start"].startswith("shapes" if start == "shapes" else "random weights")


@pytest.mark.parametrize(
    ("channels", "start"), [(("T1", "FLAIR"), "shapes"), (("T1", "FLAIR", "T2"), "scratch")]
)
def test_two_channels_start_from_shapes_and_more_from_random_weights(channels, start):
    names = ("first_percentile", "foreground_low", "foreground_high", "foreground_mean", "foreground_std")
    figures = found(**{name: getattr(found(), name) * len(channels) for name in names})
    assert make_plan(figures, channels, {1: "lesion"}).start == start


def test_the_reason_of_two_channels_is_what_was_measured_with_two():
    one, two = (usual_start("dense", 3, channels, nested=False)[1] for channels in (1, 2))
    assert "350 steps" in one
    assert "two channels, ten nodules and 100 steps" in two
    assert "350" not in two
    assert "not measured with two" in usual_start("small-unet", 3, 2, nested=False)[1]


@pytest.mark.parametrize("side", [12, 20, 48])
def test_networks_with_a_start_have_its_stages_however_small_the_images_are(side):
    for network in ("dense", "small-unet"):
        plan = plan_of(found(shapes_zyx=((side,) * 3,) * 3), network=network)
        assert (len(plan.network.strides_zyx), plan.start) == (3, "shapes")


def test_nested_regions_start_from_random_weights():
    nested = make_plan(found(), ("image",), {1: "edge", 2: "core"}, regions={"whole": (1, 2), "core": (2,)})
    assert nested.start == "scratch"


def test_a_network_of_other_stages_than_the_shapes_starts_from_random_weights():
    assert usual_start("dense", 3, 1, nested=False)[0] == "shapes"
    assert usual_start("dense", 4, 1, nested=False)[0] == "scratch"


@pytest.mark.parametrize(
    ("cases", "channels", "nested", "network"),
    [
        (1, 1, False, "small-unet"),
        (40, 1, False, "small-unet"),
        (41, 1, False, "dense"),
        (10, 2, False, "dense"),
        (10, 1, True, "dense"),
    ],
)
def test_few_cases_of_one_channel_have_the_small_unet_and_the_plan_says_why(cases, channels, nested, network):
    name, why = usual_network(cases, channels, nested=nested)
    assert name == network
    assert why.startswith(f"{network}: ")


def test_the_patch_leaves_room_for_crops_to_shift():
    plan = plan_of(found())
    assert plan.patch_zyx == (40, 40, 40)
    assert plan.batch == 2


def test_a_large_image_gets_a_patch_of_bounded_size():
    plan = plan_of(found(shapes_zyx=((300, 512, 512),) * 3))
    assert 0.7 * 40**3 < np.prod(plan.patch_zyx) < 1.1 * 40**3
    assert plan.batch == 2


def maps(plan) -> float:
    """Voxels of the feature maps of a step, each stage's."""
    strides = np.cumprod(np.prod(plan.network.strides_zyx, axis=1))
    return plan.batch * np.prod(plan.patch_zyx) * float(np.sum(1 / strides))


@pytest.mark.parametrize(
    ("slices", "side", "thick"),
    [(4, 256, 10.0), (8, 256, 10.0), (12, 320, 6.0), (30, 512, 5.0), (60, 240, 3.5)],
)
def test_two_patches_of_thick_slices_are_a_step_like_any_other(slices, side, thick):
    shapes, spacings = ((slices, side, side),) * 3, ((thick, 1.5, 1.5),) * 3
    plan = plan_of(found(shapes_zyx=shapes, spacings_zyx_mm=spacings))
    assert plan.batch == 2
    assert 0.6 < maps(plan) / maps(plan_of(found())) < 1.4


def test_a_patch_of_thick_slices_sees_as_far_in_the_plane_as_across_it():
    plan = plan_of(found(shapes_zyx=((40, 512, 512),) * 3, spacings_zyx_mm=((5.0, 0.8, 0.8),) * 3))
    z, y, x = np.multiply(plan.patch_zyx, plan.spacing_zyx_mm)
    assert y == x
    assert 0.8 < z / y < 1.25


def test_where_scans_are_empty_more_patches_of_the_others_hold_a_lesion():
    def share(*foreground):
        return plan_of(found(foreground_share=foreground)).training.foreground_share

    assert share(0.1, 0.2, 0.01) == 0.67
    assert share(0.1, 0.2, 0.01, 0.0) == pytest.approx(0.67 / 0.75, abs=0.01)
    assert share(0.1, 0.0, 0.0) == 0.9


@pytest.mark.parametrize(
    ("foreground", "said"),
    [
        ((0.1, 0.2, 0.01), None),
        ((0.1, 0.2, 0.0), "33% of the cases hold no lesion, so 90% of the other cases' patches hold one"),
        (
            (0.1, 0.0, 0.0, 0.0),
            "75% of the cases hold no lesion, so the others give two thirds of the patches, and 90% of those hold one",
        ),
    ],
)
def test_the_plan_says_how_cases_without_a_lesion_are_drawn(foreground, said):
    reason = plan_of(found(foreground_share=foreground)).reasons["training"]
    assert said in reason if said else "hold no lesion" not in reason


def test_a_flat_image_keeps_its_short_axis_and_spends_the_room_on_the_others():
    plan = plan_of(found(shapes_zyx=((24, 512, 512),) * 3))
    assert plan.patch_zyx[0] <= 24
    assert plan.patch_zyx[1] > 50


def test_thick_slices_are_halved_only_once_the_plane_is_as_coarse():
    plan = plan_of(found(spacings_zyx_mm=((5.0, 1.0, 1.0),) * 3, shapes_zyx=((30, 200, 200),) * 3))
    assert plan.network.strides_zyx == ((1, 2, 2), (1, 2, 2), (2, 2, 2))


def test_spacing_is_the_median_and_the_10th_percentile_of_a_coarse_axis():
    even = plan_of(found(spacings_zyx_mm=((1.0, 1, 1), (1.2, 1, 1), (2.0, 1, 1))))
    assert even.spacing_zyx_mm == (1.2, 1.0, 1.0)
    coarse = plan_of(found(spacings_zyx_mm=((3.0, 1, 1), (5.0, 1, 1), (6.0, 1, 1))))
    assert coarse.spacing_zyx_mm[0] == pytest.approx(3.4)


def test_hounsfield_units_get_a_window_and_the_rest_a_z_score():
    assert plan_of(found()).normalisation[0].kind == "zscore"
    window = plan_of(found(first_percentile=(-980.0,), foreground_low=(-700.0,))).normalisation[0]
    assert (window.kind, window.low, window.high, window.mean, window.std) == ("window", -700, 90, 50, 20)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("image", "window"),
        ("CT", "window"),
        ("MR_PSIR", "zscore"),
        ("subtraction T1", "zscore"),
        ("PET", "zscore"),
    ],
)
def test_signed_values_are_hounsfield_units_unless_the_name_says_otherwise(name, kind):
    plan = make_plan(found(first_percentile=(-900.0,)), (name,), {1: "lesion"})
    assert plan.normalisation[0].kind == kind
    assert ("by its name" in plan.reasons["normalisation"]) is (kind == "zscore")


def test_labels_named_left_and_right_are_not_mirrored_into_each_other():
    sides = make_plan(found(), ("image",), {1: "hippocampus left", 2: "hippocampus right"})
    assert sides.training.flip_axes_zyx == (True, True, False)
    assert plan_of(found()).training.flip_axes_zyx == (True, True, True)


def test_every_decision_has_a_reason_on_one_line():
    reasons = plan_of(found()).reasons
    for name in (
        "spacing_zyx_mm",
        "patch_zyx",
        "batch",
        "normalisation",
        "labels",
        "channels",
        "ignore",
        "readers",
        "loss",
        "training",
        "network",
        "memory_budget_gb",
    ):
        assert reasons[name]
        assert "\n" not in reasons[name]


def test_a_batch_that_does_not_fit_the_budget_is_reduced_or_refused():
    plenty = plan_of(found())
    need_gb = training_bytes(plenty) / 1e9
    assert plan_of(found(), memory_budget_gb=0.99 * need_gb).batch == plenty.batch - 1
    with pytest.raises(PlanError, match="memory"):
        plan_of(found(), memory_budget_gb=0.01)


@pytest.mark.parametrize(
    "network", [*sorted(NETWORKS.keys() - {"dense", "small-unet", "densevoxnet", "ddnet"}), "deeplab+crf"]
)
def test_every_network_gets_strides_that_it_can_be_built_with(network):
    plan = plan_of(found(), network=network)
    assert plan.network.name == network
    assert network_of(plan).output_weights()


def test_a_deep_network_steps_down_while_the_patch_has_voxels_left_as_nnunets_plan_does():
    small = plan_of(found(), network="nnunet", memory_budget_gb=50)
    assert small.network.strides_zyx == ((2, 2, 2),) * 3
    assert small.patch_zyx == plan_of(found()).patch_zyx
    large = plan_of(found(shapes_zyx=((300, 512, 512),) * 3), network="nnunet", memory_budget_gb=50)
    assert large.network.strides_zyx == ((2, 2, 2),) * 3  # down to 5 voxels of 40
    thick = found(spacings_zyx_mm=((5.0, 1.0, 1.0),) * 3, shapes_zyx=((20, 300, 300),) * 3)
    flat = plan_of(thick, network="nnunet", memory_budget_gb=50)
    assert flat.network.strides_zyx == ((1, 2, 2), (1, 2, 2), (2, 2, 2))  # down to 5 slices of 10


def test_an_unknown_network_lists_the_known_ones():
    with pytest.raises(PlanError, match=r"known are .*densevoxnet"):
        plan_of(found(), network="resnet")


def test_a_fingerprint_knows_what_the_phantoms_hold(tmp_path):
    settings = PhantomSettings(
        shape_zyx=(24, 28, 32), spacing_zyx_mm=(2.0, 1.0, 1.0), foreground_share=0.01, lesions=2
    )
    data = write_phantoms(tmp_path, 3, settings, 1)
    figures = fingerprint(data.cases)
    assert set(figures.shapes_zyx) == {(24, 28, 32)}
    assert set(figures.spacings_zyx_mm) == {(2.0, 1.0, 1.0)}
    for case, share in zip(data.cases, figures.foreground_share, strict=True):
        assert share == (read_volume(case.label).array > 0).mean()
    total = sum((read_volume(case.label).array > 0).sum() for case in data.cases)
    assert sum(figures.lesion_volumes_mm3) == pytest.approx(2.0 * total)


def test_lesions_of_two_labels_that_touch_count_as_the_check_counts_them(tmp_path):
    data = write_phantoms(
        tmp_path, 1, PhantomSettings(shape_zyx=(16, 16, 16), foreground_share=0.01, lesions=1), 0
    )
    label = read_volume(data.cases[0].label)
    values = np.zeros_like(label.array)
    values[2:5, 2:5, 2:5], values[2:5, 2:5, 5:7], values[10:12, 10:12, 10:12] = 1, 2, 1
    values[5, 2:5, 2:5] = 3  # nobody has judged it
    write_volume(Volume(values, label.grid), data.cases[0].label)
    data = dataclasses.replace(data, labels={1: "core", 2: "rim"}, ignore=3)
    checked = measure(data).facts[0].label
    figures = fingerprint(data.cases, ignore=3)
    volumes = [lesion.volume_mm3 for one in checked.labels for lesion in one.lesions]
    assert sorted(figures.lesion_volumes_mm3) == sorted(volumes)
    assert len(volumes) == 3
    assert "3 lesions (components of a label) in 1 cases" in plan_of(figures).reasons["labels"]


def test_nothing_to_learn_is_an_error(tmp_path):
    data = write_phantoms(
        tmp_path, 1, PhantomSettings(shape_zyx=(16, 16, 16), foreground_share=0.01, lesions=1), 0
    )
    label = read_volume(data.cases[0].label)
    write_volume(Volume(np.zeros_like(label.array), label.grid), data.cases[0].label)
    with pytest.raises(DataError, match="nothing to learn"):
        fingerprint(data.cases)


def test_figures_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        found().foreground_share = ()


BOX = (slice(14, 19), slice(13, 18), slice(14, 19))


@pytest.mark.parametrize(
    ("shape", "spacing", "boxes", "cases", "use"),
    [
        ((32, 32, 32), 1.6, [BOX], 5, "guided"),
        ((32, 32, 32), 1.6, [BOX], 4, "detector"),  # too few to say
        ((32, 32, 32), 4.0, [BOX], 5, "detector"),  # a whole scan
        ((32, 32, 32), 1.6, [(slice(2, 7), *BOX[1:])], 5, "detector"),
        (
            (32, 32, 32),
            1.6,
            [(slice(2, 6),) * 3, (slice(26, 30),) * 3],
            5,
            "detector",
        ),  # spread about the middle
        ((32, 32, 32), 1.6, [], 6, "detector"),  # half of the scans are empty
    ],
)
def test_crops_around_a_lesion_make_a_guided_model(tmp_path, shape, spacing, boxes, cases, use):
    grid = Grid(shape[::-1], (spacing,) * 3)
    for number in range(cases):
        label = np.zeros(shape, np.uint8)
        for box in boxes or [BOX] * (number % 2):
            label[box] = 1
        image = np.random.default_rng(number).normal(size=shape).astype(np.float32)
        write_volume(Volume(image, grid), tmp_path / "images" / f"{number}.nii")
        write_volume(Volume(label, grid), tmp_path / "labels" / f"{number}.nii")
    plan = plan_of(fingerprint(open_dataset(tmp_path).cases))
    assert plan.use == use
    assert "predict takes" in plan.reasons["use"]
