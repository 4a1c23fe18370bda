import hashlib
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_plan import small_plan
from torch import nn

from focalis import models
from focalis.errors import ModelError, PlanError, UsageError
from focalis.model import Model, save_model
from focalis.networks import DenseNetwork, build_network
from focalis.planning import SHAPES_OF, NetworkSettings, Normalisation
from focalis.planning.parts import network_of
from focalis.prediction import Runtime
from focalis.training import train
from focalis.training.start import Start, first_network, read_start, start_of

RUNTIME = Runtime(torch.device("cpu"), torch.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of an installation with a start, and its hash beside it."""
    file = tmp_path / "shapes.safetensors"
    save_file({"stem.weight": torch.ones(2, 3)}, file, metadata={"task": "classes"})
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    (tmp_path / "shapes.sha256").write_text(f"{digest}  {file.name}\n")
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    return tmp_path


def written(plan, path, members=1):
    save_model(Model(plan, tuple(network_of(plan) for _ in range(members))), path)
    return path


def frozen(network) -> set[str]:
    return {name for name, parameter in network.named_parameters() if not parameter.requires_grad}


def test_random_weights_are_not_a_start():
    assert read_start("scratch") is None


def test_the_start_that_comes_with_focalis(folder):
    start = read_start("shapes")

    assert start.name == "shapes"
    assert start.sha256 == (folder / "shapes.sha256").read_text().split()[0]
    assert start.recipe == {"task": "classes"}
    assert torch.equal(start.state["stem.weight"], torch.ones(2, 3))


@pytest.mark.parametrize("network", SHAPES_OF)
def test_the_starts_of_this_installation(network):
    """Small, as published, and made for their network; their cards name them."""
    start = read_start("shapes", network)
    name = SHAPES_OF[network]

    plan = small_plan(patch_zyx=(40, 40, 40), network=NetworkSettings(name=network))
    _, taken = first_network(plan, start)
    assert (taken.taken, taken.fresh) == (taken.total, ())
    assert (models.FOLDER / f"{name}.safetensors").stat().st_size < 4e6
    card = (models.FOLDER / f"{name}.md").read_text(encoding="utf-8")
    assert start.sha256 in card
    assert "Apache-2.0" in card
    assert f"`{network}`" in card
    assert re.search(r"^\| lidc_nodules.* shapes .* 0\.\d{3} ", card, re.MULTILINE)  # what it is worth


@pytest.mark.parametrize("network", SHAPES_OF)
def test_a_plan_s_shapes_are_those_of_its_network(network):
    plan = small_plan(patch_zyx=(40, 40, 40), network=NetworkSettings(name=f"{network}+crf"), start="shapes")
    assert start_of(plan).sha256 == read_start("shapes", network).sha256


@pytest.mark.parametrize("strides", [((1, 2, 2),) * 2 + ((2, 2, 2),), ((2, 2, 2),) * 3])
def test_the_small_unet_finds_blobs_from_its_start_whatever_the_strides(strides):
    """Before any training of its own: a ball in noise is found, and nothing else."""
    plan = small_plan(
        patch_zyx=(24, 40, 40),
        network=NetworkSettings(name="small-unet", strides_zyx=strides),
        start="shapes",
    )
    network, taken = first_network(plan, start_of(plan))
    z, y, x = np.ogrid[-12:12, -20:20, -20:20]
    ball = z**2 + (y - 3) ** 2 + (x + 4) ** 2 < 25
    image = torch.from_numpy(np.random.default_rng(0).normal(ball * 4.0 - 1, 0.3).astype(np.float32))
    found = network.eval()(image[None, None]).argmax(1)[0].bool().numpy()

    assert taken.fresh == ()
    assert 2 * (found & ball).sum() / (found.sum() + ball.sum()) > 0.5


def test_shapes_for_a_network_that_has_none_are_refused_by_name():
    plan = small_plan(patch_zyx=(40, 40, 40), network=NetworkSettings(name="unet"), start="shapes")
    with pytest.raises(ModelError, match="shapes: does not fit the plan's network unet"):
        first_network(plan, start_of(plan))


def test_another_start_by_its_path(tmp_path):
    file = tmp_path / "mine.safetensors"
    save_file({"a": torch.zeros(1)}, file)

    start = read_start(file)

    assert (start.name, list(start.state), start.recipe) == ("mine", ["a"], {})


def test_a_start_that_was_changed_is_refused(folder):
    file = folder / "shapes.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")

    with pytest.raises(ModelError, match=r"shapes\.safetensors: has the SHA-256 .*install Focalis again"):
        read_start("shapes")


def test_an_installation_without_a_start_says_what_to_do(folder):
    (folder / "shapes.safetensors").unlink()

    with pytest.raises(ModelError, match=r"random weights \(--start scratch\), or give a model's file"):
        read_start("shapes")


def test_a_file_that_holds_no_weights_is_refused_by_name(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("no weights here")

    with pytest.raises(ModelError, match=r"notes\.txt: cannot be read as weights"):
        read_start(file)
    with pytest.raises(ModelError, match=r"missing\.safetensors: cannot be read as weights"):
        read_start(tmp_path / "missing.safetensors")


@pytest.mark.parametrize("name", ["shape", "Scratch", "imagenet"])
def test_an_unknown_word_lists_the_starts(name):
    with pytest.raises(UsageError, match=rf"{name}: is not a file.* scratch, shapes, lidc-nodule"):
        read_start(name)


def test_a_model_of_the_same_labels_gives_its_output_layer_too(plan, tmp_path):
    start = read_start(written(plan, tmp_path / "model.safetensors"))

    network, taken = first_network(plan, start)

    assert taken.taken == taken.total
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, start.state[name])


def test_the_folder_of_a_run_stands_for_its_model(plan, tmp_path, monkeypatch):
    (tmp_path / "earlier").mkdir()
    written(plan, tmp_path / "earlier" / "model.safetensors")
    monkeypatch.chdir(tmp_path)

    assert read_start("earlier").plan == plan


@pytest.mark.parametrize("labels", [{1: "cyst"}, {2: "ball"}, {1: "ball", 2: "rod"}])
def test_a_model_of_other_labels_keeps_its_output_layer(plan, tmp_path, labels):
    start = read_start(written(plan, tmp_path / "model.safetensors"))

    network, taken = first_network(plan.model_copy(update={"labels": labels}), start)

    assert taken.fresh == ("output.2.weight", "output.2.bias")
    assert torch.allclose(torch.softmax(network.heads()[0].bias, 0)[0], torch.tensor(0.99))
    assert not network.heads()[0].weight.any()


def test_random_weights_have_a_random_output_layer(plan):
    network, _ = first_network(plan, None)

    assert network.heads()[0].weight.std() > 0.01


@pytest.mark.parametrize(
    ("recipe", "regions", "fresh"),
    [({"output": "any lesion"}, False, False), ({}, False, True), ({"output": "any lesion"}, True, True)],
)
def test_an_output_layer_for_any_lesion_is_taken_for_every_label_but_not_for_regions(
    plan, recipe, regions, fresh
):
    state = build_network("dense", plan.network.strides_zyx, 1, 2).state_dict()
    changes = {"regions": {"whole": (1, 2), "core": (2,)}} if regions else {}
    plan = plan.model_copy(update={"labels": {1: "edge", 2: "core"}, **changes})

    network, taken = first_network(plan, Start("mine", "", state, recipe))

    assert bool(taken.fresh) == fresh
    (head,) = network.heads()
    assert head.weight.any() != fresh
    if regions:
        torch.testing.assert_close(head.bias.sigmoid(), torch.tensor([0.01, 0.5]))


REGIONS = {"labels": {1: "edge", 2: "core"}, "regions": {"whole": (1, 2), "core": (2,)}}


@pytest.mark.parametrize(
    "onto", [{}, {"labels": REGIONS["labels"]}, {"regions": {"whole": (1, 2), "edge": (1,)}}]
)
def test_a_model_of_regions_gives_all_but_its_output_layer(plan, tmp_path, onto):
    """Onto one label, onto the same labels without regions, and onto other regions of the same labels."""
    start = read_start(written(plan.model_copy(update=REGIONS), tmp_path / "model.safetensors"))
    changes = {"labels": REGIONS["labels"], **onto} if onto else {}

    network, taken = first_network(plan.model_copy(update=changes), start)

    assert taken.fresh == ("output.2.weight", "output.2.bias")
    inner = getattr(network, "network", network)
    assert torch.equal(inner.stem.weight, start.state["network.stem.weight"])
    assert not inner.heads()[0].weight.any()


def test_a_model_of_the_same_regions_gives_its_output_layer_too(plan, tmp_path):
    plan = plan.model_copy(update=REGIONS)
    start = read_start(written(plan, tmp_path / "model.safetensors"))

    network, taken = first_network(plan, start)

    assert taken.taken == taken.total
    assert all(torch.equal(tensor, start.state[name]) for name, tensor in network.state_dict().items())


def of_channels(plan, *names, **changes):
    return plan.model_copy(
        update={"channels": names, "normalisation": (Normalisation(),) * len(names), **changes}
    )


@pytest.mark.parametrize(("names", "order"), [(("T1", "FLAIR"), [1, 0]), (("T1",), [1]), (("FLAIR",), [0])])
@pytest.mark.parametrize("network", ["dense", "unet"])
def test_channels_of_a_model_are_known_by_name(plan, tmp_path, names, order, network):
    plan = plan.model_copy(update={"network": NetworkSettings(name=network, strides_zyx=((2, 2, 2),) * 2)})
    start = read_start(written(of_channels(plan, "FLAIR", "T1"), tmp_path / "model.safetensors"))
    first = "stem.weight" if network == "dense" else "downs.0.0.weight"

    found, taken = first_network(of_channels(plan, *names), start)

    assert torch.equal(found.state_dict()[first], start.state[first][:, order])
    assert "; channels by name" in str(taken)
    assert "there" not in str(taken)


def test_the_same_channels_in_the_same_order_are_nothing_to_speak_of(plan, tmp_path):
    plan = of_channels(plan, "FLAIR", "T1")
    start = read_start(written(plan, tmp_path / "model.safetensors"))

    _, taken = first_network(plan, start)

    assert str(taken) == f"{taken.total} of {taken.total} tensors"


def test_channels_that_the_model_does_not_know_are_named_and_take_what_is_left_over(plan, tmp_path):
    start = read_start(written(of_channels(plan, "FLAIR", "T1"), tmp_path / "model.safetensors"))
    flair, t1 = start.state["stem.weight"].unbind(1)
    nothing = torch.zeros_like(t1)

    for channels, kernels in {
        ("T1", "T2"): (t1, flair),
        ("T2", "T1", "PD"): (flair / 2, t1, flair / 2),
        ("FLAIR", "T1", "T2"): (flair, t1, nothing),
        ("T2", "PD"): (flair, t1),  # none is known: as they stand
    }.items():
        network, taken = first_network(of_channels(plan, *channels), start)

        assert f"; channels FLAIR, T1 there, {', '.join(channels)} here" in str(taken)
        assert ("channels by name" in str(taken)) == bool({"T1", "FLAIR"} & {*channels})
        torch.testing.assert_close(network.stem.weight, torch.stack(kernels, 1))


def test_a_channel_that_the_model_does_not_know_is_not_frozen(plan, tmp_path):
    start = read_start(written(of_channels(plan, "FLAIR", "T1"), tmp_path / "model.safetensors"))
    frozen = of_channels(plan, "T1", "T2").model_copy(update={"freeze": "encoder", "start": "model"})

    network, taken = first_network(frozen, start)

    assert network.stem.weight.requires_grad
    assert "not frozen: stem.weight" in str(taken)


def test_a_network_whose_image_goes_more_than_one_way_takes_channels_as_they_stand(plan, tmp_path):
    """Its first layer alone in another order would mix two images."""
    settings = NetworkSettings(name="monai:UNet", num_res_units=2, strides_zyx=((2, 2, 2),) * 2)
    plan = plan.model_copy(update={"network": settings})
    start = read_start(written(of_channels(plan, "FLAIR", "T1"), tmp_path / "model.safetensors"))

    network, taken = first_network(of_channels(plan, "T1", "FLAIR"), start)

    assert "; channels FLAIR, T1 there, T1, FLAIR here" in str(taken)
    assert all(torch.equal(tensor, start.state[name]) for name, tensor in network.state_dict().items())


def test_other_spacing_and_normalisation_are_said(plan, tmp_path):
    window = (Normalisation(kind="window", low=-1000, high=200),)
    model = plan.model_copy(update={"spacing_zyx_mm": (0.7, 0.7, 0.7), "normalisation": window})
    start = read_start(written(model, tmp_path / "model.safetensors"))

    said = str(first_network(plan.model_copy(update={"spacing_zyx_mm": (3.0, 3.0, 3.0)}), start)[1])
    assert said.endswith("tensors; spacing 0.7 there, 3 here; window there, zscore here")
    said = str(first_network(plan.model_copy(update={"spacing_zyx_mm": (6.0, 0.7, 0.7)}), start)[1])
    assert "; spacing 0.7 there, 6 x 0.7 x 0.7 here; " in said


def test_a_model_of_several_networks_is_not_a_start(plan, tmp_path):
    with pytest.raises(ModelError, match="holds 2 networks; start from one of them"):
        read_start(written(plan, tmp_path / "model.safetensors", members=2))


def test_a_model_of_another_network_is_refused_by_both_names(plan, tmp_path):
    unet = plan.model_copy(update={"network": NetworkSettings(name="unet")})
    start = read_start(written(unet, tmp_path / "mine.safetensors"))

    with pytest.raises(
        ModelError, match=r"mine \(unet\): does not fit the plan's network dense: .*stem\.weight"
    ):
        first_network(plan, start)


def test_a_frozen_encoder_learns_nothing_and_the_rest_does(plan):
    state = network_of(plan).state_dict()
    plan = plan.model_copy(update={"start": "mine.safetensors", "freeze": "encoder"})

    network, _ = first_network(plan, Start("mine", "", state))

    assert frozen(network) == {
        name for name, _ in network.named_parameters() if name.startswith(("stem.", "downs.", "blocks."))
    }


@pytest.mark.parametrize("freeze", ["encoder", "all-but-head"])
def test_what_is_frozen_ends_as_it_started(plan, cases, tmp_path, freeze):
    """Weights and statistics, through the whole training: no decay, no batch statistics move them."""
    state = network_of(plan).state_dict()
    plan = plan.model_copy(update={"start": "mine.safetensors", "freeze": freeze})

    after = train(
        plan, cases[:2], cases[2:], tmp_path, steps=6, seed=0, runtime=RUNTIME, start=Start("mine", "", state)
    ).state_dict()

    same = {name for name in state if torch.equal(state[name], after[name])}
    moved = set(state) - same
    if freeze == "encoder":
        assert all(name.startswith(("ups.", "merges.", "output.")) for name in moved)
        assert any(name.startswith("ups.") for name in moved)
    else:
        assert moved == {"output.2.weight", "output.2.bias"}


@pytest.mark.parametrize("freeze", ["encoder", "all-but-head"])
def test_a_first_layer_for_more_channels_is_not_frozen(plan, freeze):
    """From one channel both have the same kernel: frozen so, the network could never tell them apart."""
    state = network_of(plan).state_dict()
    plan = of_channels(plan, "FLAIR", "T1", start="mine.safetensors", freeze=freeze)

    network, taken = first_network(plan, Start("mine", "", state))

    assert network.stem.weight.requires_grad
    assert {"downs.1.2.weight", "blocks.0.units.0.2.weight"} <= frozen(network)
    assert str(taken).endswith("; not frozen: stem.weight")


def test_a_first_layer_whose_channels_only_change_places_is_frozen(plan, tmp_path):
    start = read_start(written(of_channels(plan, "FLAIR", "T1"), tmp_path / "model.safetensors"))

    network, taken = first_network(
        of_channels(plan, "T1", "FLAIR", start="mine.safetensors", freeze="encoder"), start
    )

    assert "stem.weight" in frozen(network)
    assert "not frozen" not in str(taken)


def test_what_the_start_did_not_give_is_not_frozen(plan):
    """A wider encoder of a plain U-Net has layers that stay random, with statistics of nothing."""
    plan = plan.model_copy(update={"network": NetworkSettings(name="unet", strides_zyx=((2, 2, 2),) * 2)})
    state = network_of(plan).state_dict()
    lost = {
        name: state[name][:8] for name in ("downs.2.3.weight", "downs.2.4.weight", "downs.2.4.running_mean")
    }
    plan = plan.model_copy(update={"start": "mine.safetensors", "freeze": "encoder"})

    network, taken = first_network(plan, Start("mine", "", {**state, **lost}))

    layers = dict(network.named_modules())
    assert "not frozen: downs.2.3.weight, downs.2.4.weight, downs.2.4.running_mean" in str(taken)
    assert layers["downs.2.3"].weight.requires_grad
    assert layers["downs.2.4"].training
    assert not layers["downs.1.4"].training
    assert not layers["downs.1.3"].weight.requires_grad


def test_auxiliary_outputs_are_heads_and_are_not_frozen(plan):
    config = replace(build_network("dense", plan.network.strides_zyx, 1, 2).config, auxiliary=(0,))
    network = DenseNetwork(config, plan.network.strides_zyx, 1, 2)
    assert len(network.heads()) == 2
    plan = plan.model_copy(update={"start": "mine.safetensors", "freeze": "all-but-head"})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("focalis.training.start.network_of", lambda _plan: network)
        first_network(plan, Start("mine", "", network.state_dict()))

    assert len(network(torch.zeros(1, 1, 16, 16, 16))) == 2  # still in training mode
    assert not any(layer.training for layer in network.modules() if isinstance(layer, nn.BatchNorm3d))
    assert len(set(dict(network.named_parameters())) - frozen(network)) == 4


def test_a_network_without_an_encoder_says_so(plan):
    plan = plan.model_copy(
        update={
            "start": "mine.safetensors",
            "freeze": "encoder",
            "network": NetworkSettings(name="deeplab", strides_zyx=((2, 2, 2),) * 4),
        }
    )

    with pytest.raises(PlanError, match=r"freeze is encoder, and the network deeplab does not say"):
        first_network(plan, Start("mine", "", network_of(plan).state_dict()))
