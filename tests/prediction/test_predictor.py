"""Probabilities of a whole volume, in one pass or in tiles."""

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from torch import nn

from focalis.errors import ModelError
from focalis.model import Model
from focalis.networks import build_network
from focalis.planning import NetworkSettings, Normalisation, Plan
from focalis.prediction import (
    Runtime,
    Settings,
    plan_passes,
    run_passes,
    segment,
)
from focalis.prediction.predictor import budget_beside
from focalis.volume import Grid, Volume


def plan(patch=(8, 8, 8), strides=((2, 2, 2),), channels=("image",)):
    return Plan(
        channels=channels,
        labels={1: "lesion"},
        spacing_zyx_mm=(1, 1, 1),
        normalisation=(Normalisation(),) * len(channels),
        patch_zyx=patch,
        batch=1,
        network=NetworkSettings(strides_zyx=strides),
    )


class Voxelwise(nn.Module):
    """The foreground's probability is sigmoid(x): each voxel on its own."""

    def forward(self, x):
        assert all(size % 2 == 0 for size in x.shape[2:])
        return torch.cat([torch.zeros_like(x[:, :1]), x[:, :1]], dim=1)


def blur(seed=0):
    """A network that sees one voxel around each."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv3d(4, 2, 1))


class SeesAll(nn.Module):
    """A network whose every output depends on every input."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x) + 0 * x.mean()


class Certain(nn.Module):
    """Background everywhere, with a probability of 1."""

    patchwise = True

    def forward(self, x):
        return torch.cat([torch.full_like(x[:, :1], 200.0), torch.zeros_like(x[:, :1])], dim=1)


def image(shape=(19, 32, 26), seed=0):
    return np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def need(model, shape, **options):
    return plan_passes(model, shape, budget_bytes=10**12, **options).bytes


@pytest.mark.parametrize("shape", [(16, 16, 16), (19, 32, 26), (1, 5, 40), (3, 3, 3)])
def test_every_shape_comes_back_in_place(shape):
    array = image(shape)
    result = run_passes(Model(plan(), (Voxelwise(),)), array).probabilities
    assert result.dtype == np.float32
    assert result.shape == (2, *shape)
    np.testing.assert_allclose(result[1], sigmoid(array[0]), atol=1e-6)
    np.testing.assert_allclose(result.sum(axis=0), 1, atol=1e-6)


@pytest.mark.parametrize("cuts", [1, 2, 3, 6])
def test_tiles_agree_with_the_whole_where_each_voxel_stands_alone(cuts):
    model, array = Model(plan(patch=(4, 4, 4)), (Voxelwise(),)), image()
    budget = need(model, array.shape[1:])
    for _ in range(cuts):
        budget = plan_passes(model, array.shape[1:], budget_bytes=budget - 1).bytes
    calls = []
    result = run_passes(
        model, array, budget_bytes=budget, progress=lambda *call: calls.append(call)
    ).probabilities
    assert len(calls) > cuts
    assert calls[-1] == (len(calls), len(calls))
    np.testing.assert_allclose(result[1], sigmoid(array[0]), atol=1e-5)


def test_large_tiles_give_the_result_of_the_whole():
    torch.manual_seed(0)
    strides = ((2, 2, 2), (1, 2, 2))
    network = build_network("dense", strides, 1, 2).eval()
    model, array = Model(plan((16, 16, 16), strides), (network,)), image((22, 17, 250))
    whole = run_passes(model, array).probabilities
    passes = plan_passes(model, array.shape[1:], budget_bytes=need(model, array.shape[1:]) - 1)
    calls = 0

    def count(_done, total):
        nonlocal calls
        calls = total

    tiled = run_passes(model, array, budget_bytes=passes.bytes, progress=count).probabilities
    assert passes.tile_zyx[2] < passes.padded_zyx[2]
    assert passes.axes_zyx[2].is_exact(passes.tile_zyx[2])
    assert (passes.tiles, passes.is_blended) == (calls, False)
    np.testing.assert_allclose(tiled, whole, atol=2e-5)


def test_tiles_that_cannot_be_exact_are_blended():
    model, array = Model(plan(), (SeesAll(blur()),)), image((32, 32, 48))
    whole = run_passes(model, array).probabilities
    budget = need(model, array.shape[1:]) - 1
    tiled = run_passes(model, array, budget_bytes=budget).probabilities
    assert plan_passes(model, array.shape[1:], budget_bytes=budget).is_blended
    assert not plan_passes(model, array.shape[1:], budget_bytes=budget + 1).is_blended
    assert np.abs(tiled - whole).max() < 2e-3
    np.testing.assert_allclose(tiled[..., :20], whole[..., :20], atol=1e-6)
    np.testing.assert_allclose(tiled[..., 28:], whole[..., 28:], atol=1e-6)


@pytest.mark.parametrize(("options", "flips"), [({}, 1), ({"uncertainty": True, "mirror": True}, 8)])
def test_a_prediction_says_in_how_many_tiles_the_case_went(options, flips):
    model, array = Model(plan(), (SeesAll(blur()),)), image((32, 32, 48))
    settings = {"mirror": flips > 1, "spread": flips > 1}
    whole = plan_passes(model, array.shape[1:], budget_bytes=10**12, **settings).bytes
    volume = Volume(array[0], Grid((48, 32, 32)))
    needed = whole - budget_beside(0, [volume], model.plan)
    passes = []
    found = segment(
        model,
        [volume],
        Settings(runtime="torch", precision="float32", memory_gb=(needed - 1) / 1e9, **options),
        progress=lambda _, total: passes.append(total),
    )
    assert passes[-1] == found.tiles * flips > flips
    assert found.blended
    enough = Settings(runtime="torch", precision="float32", memory_gb=(needed + 1) / 1e9, **options)
    assert segment(model, [volume], enough).tiles == 1


@pytest.mark.filterwarnings("ignore::UserWarning:monai.*", "ignore::DeprecationWarning")
@pytest.mark.parametrize(("network", "tolerance"), [(SeesAll(Voxelwise()), 1e-5), (SeesAll(blur()), 2e-2)])
def test_tiles_agree_with_monai_in_the_interior(network, tolerance):
    """Interior only: MONAI's weights have a floor, so that near the volume's border its seams are harder."""
    model, array = Model(plan(), (network,)), image((32, 32, 48))
    budget = need(model, array.shape[1:]) - 1
    passes = plan_passes(model, array.shape[1:], budget_bytes=budget)
    ours = run_passes(model, array, budget_bytes=budget).probabilities
    peer = SlidingWindowInferer(roi_size=passes.tile_zyx, overlap=0.25, mode="gaussian", sigma_scale=0.125)
    with torch.inference_mode():
        theirs = peer(torch.from_numpy(array[None]), lambda x: torch.softmax(model.members[0](x), dim=1))[
            0
        ].numpy()
    inner = (slice(None), *[slice(8, -8)] * 3)
    np.testing.assert_allclose(ours[inner], theirs[inner], atol=tolerance)


def test_members_are_averaged():
    members, array = (blur(0), blur(1), blur(2)), image((8, 8, 8))
    single = [run_passes(Model(plan(), (member,)), array).probabilities for member in members]
    together = run_passes(Model(plan(), members), array).probabilities
    np.testing.assert_allclose(together, np.mean(single, axis=0), atol=1e-6)


def test_mirroring_averages_the_eight_mirror_images():
    model, array = Model(plan(), (blur(),)), image((8, 10, 12))
    expected = np.zeros((2, 8, 10, 12))
    for number in range(8):
        axes = [axis + 1 for axis in range(3) if number >> axis & 1]
        expected += np.flip(run_passes(model, np.flip(array, axes).copy()).probabilities, axes) / 8
    np.testing.assert_allclose(run_passes(model, array, mirror=True).probabilities, expected, atol=1e-6)


def test_a_real_network_in_bfloat16_stays_near_float32():
    torch.manual_seed(0)
    strides = ((2, 2, 2), (2, 2, 2))
    model = Model(plan((16, 16, 16), strides), (build_network("dense", strides, 1, 2),))
    array = image((18, 20, 17))
    full = run_passes(model, array).probabilities
    low = run_passes(model, array, runtime=Runtime(dtype=torch.bfloat16)).probabilities
    assert low.dtype == np.float32
    assert np.abs(low - full).max() < 0.1


def test_every_plan_fits_its_budget_and_a_larger_budget_never_means_a_smaller_tile():
    strides = ((2, 2, 2), (2, 2, 2))
    model = Model(plan((16, 16, 16), strides, ("T1", "T2")), (build_network("dense", strides, 2, 2),))
    shape = (150, 61, 90)
    largest, last = need(model, shape), 0
    for budget in np.linspace(0.65 * largest, largest, 12).astype(int):
        passes = plan_passes(model, shape, budget_bytes=int(budget))
        assert passes.bytes <= budget
        assert all(size % 4 == 0 and size >= 16 for size in passes.tile_zyx)
        assert np.prod(passes.tile_zyx) >= last
        last = np.prod(passes.tile_zyx)
    assert passes.tile_zyx == passes.padded_zyx == (152, 64, 92)
    assert passes.padding_zyx == ((1, 1), (1, 2), (1, 1))


def test_the_result_itself_counts_towards_the_budget():
    model = Model(plan(), (Voxelwise(),))
    with pytest.raises(ModelError, match="4000 x 1000 x 1000 voxels"):
        plan_passes(model, (4000, 1000, 1000), budget_bytes=4 * 10**9)


def test_certain_background_in_blended_tiles_stays_a_probability():
    """Shares of 1 add up to a little more than 1 somewhere; the foreground would be below 0."""
    found = run_passes(Model(plan(patch=(16, 16, 16)), (Certain(),)), image((51, 51, 51))).probabilities
    assert found.min() >= 0
    assert found.max() <= 1
    np.testing.assert_allclose(found[0], 1, atol=1e-6)


def test_the_program_its_images_and_their_copy_are_taken_from_its_memory():
    grid = Grid((20, 30, 10), (0.5, 0.5, 2.0))
    images = [Volume(np.zeros(grid.shape_zyx, np.int16), grid)] * 2
    copy = 4 * 2 * (10 * 15 * 20)  # float32, two channels, at 1 mm
    left = budget_beside(10**9, images, plan(channels=("a", "b")))
    assert left == 10**9 - 600_000_000 - 2 * 2 * 20 * 30 * 10 - copy


def test_a_budget_below_the_smallest_tile_is_refused_with_the_need():
    model = Model(plan(), (Voxelwise(),))
    said = r"budget is too small: .* in tiles of 8 x 8 x 8 need 0\.25 GB, and 0\.00 GB are"
    with pytest.raises(ModelError, match=said):
        run_passes(model, image(), budget_bytes=10**6)


def test_tiles_never_fall_below_the_training_patch():
    model = Model(plan(patch=(4, 16, 8)), (Voxelwise(),))
    floor = plan_passes(model, (64, 64, 64), budget_bytes=need(model, (4, 16, 8)) + 2 * 4 * 64**3)
    assert floor.tile_zyx == (4, 16, 8)


def test_members_left_in_training_mode_predict_as_in_eval_mode():
    member = nn.Sequential(nn.Dropout(0.9), Voxelwise())
    model = Model(plan(), (member,))
    member.train()
    array = image((8, 8, 8))
    np.testing.assert_allclose(run_passes(model, array).probabilities[1], sigmoid(array[0]), atol=1e-6)


def test_an_axis_that_was_not_mirrored_in_training_is_not_mirrored_here():
    from focalis.prediction.predictor import mirror_flips

    assert len(mirror_flips((True, True, True))) == 8
    assert mirror_flips((True, False, False)) == [(), (2,)]
