"""What every network must hold, whatever its name: size, gradients, learning, the model file, tiles."""

import numpy as np
import pytest
import torch
from small_plan import small_plan

from focalis.errors import PlanError
from focalis.losses import build_loss
from focalis.model import Model, load_model, save_model
from focalis.networks import NETWORKS, all_outputs, build_network, split_name
from focalis.planning import NetworkSettings
from focalis.prediction import plan_passes, run_passes

STRIDES = dict.fromkeys(NETWORKS, ((2, 2, 2),) * 2)
FREE = [name for name in NETWORKS if name not in ("densevoxnet", "ddnet")]


def plan_of(name, patch=(16, 16, 16)):
    return small_plan(
        patch_zyx=patch,
        batch=1,
        network=NetworkSettings(name=name, strides_zyx=STRIDES[name.removesuffix("+crf")]),
    )


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 2), (2, 4)])
def test_logits_have_the_size_of_the_image(name, inputs, outputs):
    network = build_network(name, STRIDES[name], inputs, outputs)
    image = torch.randn(2, inputs, 4, 8, 12)
    assert network.eval()(image).shape == (2, outputs, 4, 8, 12)
    assert {tuple(logits.shape) for logits in all_outputs(network.train()(image))} == {(2, outputs, 4, 8, 12)}


@pytest.mark.parametrize("name", FREE)
def test_axes_may_be_halved_at_different_stages(name):
    network = build_network(name, ((1, 2, 2), (1, 2, 2), (2, 2, 2)), 1, 2).eval()
    image = torch.randn(1, 1, 2, 16, 24)
    with torch.inference_mode():
        assert network(image).shape == (1, 2, 2, 16, 24)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_is_trained(name):
    network = build_network(name, STRIDES[name], 1, 2).train()
    sum(logits.square().sum() for logits in all_outputs(network(torch.randn(2, 1, 16, 16, 16)))).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("name", NETWORKS)
def test_there_is_a_weight_for_every_output_and_the_first_counts_most(name):
    network = build_network(name, ((2, 2, 2),) * (2 if name not in FREE else 3), 1, 2).train()
    weights = network.output_weights()
    assert len(weights) == len(network.heads()) == len(all_outputs(network(torch.randn(2, 1, 16, 16, 16))))
    assert weights == sorted(weights, reverse=True)
    assert {head.out_channels for head in network.heads()} == {2}
    assert all(head.bias is not None for head in network.heads())


@pytest.mark.parametrize("name", FREE)
def test_a_few_steps_learn_one_patch(name):
    """The loss of one patch with a ball in it falls to less than two thirds of where it started."""
    z, y, x = torch.meshgrid(*(torch.arange(8.0),) * 3, indexing="ij")
    target = (((z - 3) ** 2 + (y - 4) ** 2 + (x - 4) ** 2) < 9).long()[None]
    image = (2 * target + 0.5 * torch.randn(1, 8, 8, 8))[:, None].float()
    network, loss = build_network(name, ((2, 2, 2),), 1, 2), build_loss("dice_cross_entropy")
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(10):
        outputs = all_outputs(network.train()(image))
        terms = [loss(logits, target, torch.zeros(1, 8, 8, 8)) for logits in outputs]
        total = sum(weight * term for weight, term in zip(network.output_weights(), terms, strict=True))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(float(terms[0].detach()))
    assert min(losses[-3:]) < 0.67 * losses[0]


@pytest.mark.parametrize("name", [*NETWORKS, "deeplab+crf"])
def test_a_model_file_brings_it_back(name, tmp_path):
    plan = plan_of(name)
    network = build_network(name, plan.network.strides_zyx, 1, 2)
    save_model(Model(plan, (network,)), tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors").members[0]
    x = torch.randn(1, 1, 8, 8, 8)
    with torch.inference_mode():
        assert torch.equal(loaded(x), network(x))


@pytest.mark.parametrize(
    "name", ["unet", "segnet", "deeplab", pytest.param("fcdensenet", marks=pytest.mark.slow)]
)
def test_tiles_say_what_the_whole_volume_says(name):
    """Except for what a tile does not see beyond its border, which is blended away."""
    plan = plan_of(name, patch=(8, 8, 32))
    model = Model(plan, (build_network(name, plan.network.strides_zyx, 1, 2),))
    array = np.random.default_rng(0).normal(size=(1, 8, 8, 64)).astype(np.float32)
    whole = plan_passes(model, array.shape[1:], budget_bytes=10**10)
    parts = plan_passes(model, array.shape[1:], budget_bytes=whole.bytes - 1)
    assert (whole.tile_zyx, parts.tile_zyx) == ((8, 8, 64), (8, 8, 40))
    one = run_passes(model, array, budget_bytes=whole.bytes).probabilities[1].ravel()
    tiled = run_passes(model, array, budget_bytes=parts.bytes).probabilities[1].ravel()
    assert np.corrcoef(tiled, one)[0, 1] > 0.9
    assert np.abs(tiled - one).mean() < 0.3 * one.std()


def test_a_network_that_normalises_by_what_it_sees_is_given_patches_however_large_the_budget():
    plan = plan_of("nnunet", patch=(8, 8, 16))
    model = Model(plan, (build_network("nnunet", plan.network.strides_zyx, 1, 2),))
    array = np.random.default_rng(0).normal(size=(1, 8, 6, 28)).astype(np.float32)
    passes = plan_passes(model, array.shape[1:], budget_bytes=10**10)
    assert (passes.padded_zyx, passes.tile_zyx) == ((8, 8, 28), (8, 8, 16))
    found = run_passes(model, array, budget_bytes=passes.bytes).probabilities
    first = torch.from_numpy(passes.pad(array)[None, ..., :16])
    with torch.inference_mode():
        expected = torch.softmax(model.members[0](first), 1)[0, :, :, 1:7].numpy()
    # The first voxels lie in the first tile alone.
    np.testing.assert_allclose(found[..., :12], expected[..., :12], atol=1e-5)


def test_such_a_network_takes_a_volume_of_a_single_voxel_per_coarsest_feature():
    plan = plan_of("nnunet", patch=(8, 8, 16))
    model = Model(plan, (build_network("nnunet", plan.network.strides_zyx, 1, 2),))
    array = np.random.default_rng(0).normal(size=(1, 3, 4, 4)).astype(np.float32)
    assert plan_passes(model, array.shape[1:], budget_bytes=10**10).padded_zyx == (8, 8, 16)
    assert run_passes(model, array).probabilities.shape == (2, 3, 4, 4)


def test_a_name_may_ask_for_refinement():
    assert split_name("deeplab+crf") == ("deeplab", True)
    assert split_name("dense") == ("dense", False)
    assert type(build_network("unet+crf", STRIDES["unet"], 1, 2)) is type(
        build_network("unet", STRIDES["unet"], 1, 2)
    )


@pytest.mark.parametrize("name", ["resnet", "dense+dense", "+crf", "crf"])
def test_an_unknown_name_lists_the_known_ones(name):
    with pytest.raises(PlanError, match=r"unknown network '.*'; known are .*deeplab.*dense.*segnet.*\+crf"):
        build_network(name, ((2, 2, 2),), 1, 2)


@pytest.mark.parametrize(("name", "stages"), [("segnet", 6), ("deeplab", 5), ("deeplab", 0)])
def test_more_stages_than_a_network_has_are_refused(name, stages):
    with pytest.raises(PlanError, match="stages"):
        build_network(name, ((2, 2, 2),) * stages, 1, 2)
