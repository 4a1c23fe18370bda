"""Parts that other packages offer: the example package, which the tests' environment has installed, and MONAI."""

import json
from importlib.metadata import EntryPoint, version

import pytest
import torch
from small_plan import small_plan

from focalis import plugins
from focalis.augmentations import build_augmentation
from focalis.dataset import PhantomSettings, write_phantoms
from focalis.errors import ModelError, PlanError
from focalis.losses import build_loss, loss_names
from focalis.model import Model, load_model, open_model, save_model
from focalis.networks import all_outputs, build_network, network_names, network_spec
from focalis.networks.foreign import ForeignNetwork
from focalis.planning import (
    AugmentationSettings,
    LossSettings,
    NetworkSettings,
    write_plan,
)
from focalis.planning.parts import augmentations_of, network_of
from focalis.plugins import Plugin
from focalis.workflows.fit import fit
from focalis.workflows.predict import predict

SETTINGS = PhantomSettings(shape_zyx=(20, 24, 28), foreground_share=0.01, lesions=1)
PLAN = small_plan(
    patch_zyx=(16, 16, 16),
    network=NetworkSettings(name="example-plain", strides_zyx=((2, 2, 2), (2, 2, 2)), width=4),
    loss=LossSettings(name="example-power", exponent=2.0),
    augmentation=(AugmentationSettings(name="example-ramp", share=1.0),),
)
OFFERED = Plugin("network", "example-plain", "focalis-example", "0.1.0")


def install(monkeypatch, *entries):
    """Let these be all entry points that are installed."""
    monkeypatch.setattr(plugins, "offered", lambda _kind: {entry.name: entry for entry in entries})


def test_installed_parts_are_known_by_name():
    assert "example-plain" in network_names()
    assert "example-power" in loss_names()
    assert plugins.plugin_of("network", "example-plain") == OFFERED
    assert plugins.plugin_of("network", "dense") is None


def test_a_plain_module_trains_and_predicts_with_its_own_parameters():
    network = network_of(PLAN)
    assert next(network.parameters()).shape[0] == 4
    logits = all_outputs(network.train()(torch.randn(2, 1, 16, 16, 16)))
    assert [tuple(each.shape) for each in logits] == [(2, 2, 16, 16, 16)]
    assert network.heads()[0].out_channels == 2


def test_a_loss_has_its_own_parameters():
    logits, target = (
        torch.tensor([[2.0, 0.0]]).reshape(1, 2, 1, 1, 1),
        torch.ones(1, 1, 1, 1, dtype=torch.int64),
    )
    cost = float(torch.nn.functional.cross_entropy(logits, target))
    loss = build_loss("example-power", {"exponent": 2.0})
    assert float(loss(logits, target, torch.zeros(1, 1, 1, 1))) == pytest.approx(cost**2)
    with pytest.raises(PlanError, match=r"loss example-power: power: .*its parameters are: exponent"):
        build_loss("example-power", {"power": 2.0})


def test_an_augmentation_is_an_entry_of_the_plan():
    (ramp,) = augmentations_of(PLAN)
    changed = ramp.apply(torch.zeros(1, 3, 3, 3), torch.tensor([[1.0, 0.2, 0.0]]))
    assert changed[0, :, 1, 0].tolist() == pytest.approx([-0.5, 0, 0.5])
    assert changed[0, 1, :, 2].tolist() == pytest.approx([-0.1, 0, 0.1])


def test_fit_and_predict_with_installed_parts(tmp_path):
    write_phantoms(tmp_path / "data", 6, SETTINGS, 0)
    write_plan(PLAN, tmp_path / "plan.yaml")
    run = fit(tmp_path / "data", tmp_path / "run", plan=tmp_path / "plan.yaml", steps=2, loss="example-power")
    header = open_model(run.model)
    others = {("loss", "example-power"), ("augmentation", "example-ramp")}
    assert set(header.plugins) == {OFFERED, *(Plugin(*each, "focalis-example", "0.1.0") for each in others)}
    assert header.plan.loss.parameters == {"exponent": 1.5}
    image = next((tmp_path / "data" / "images").iterdir())
    report = predict(run.model, [image], tmp_path / "masks")
    assert [row.status for row in report.rows] == ["done"]


@pytest.fixture
def offered(tmp_path):
    _saved(tmp_path / "model.safetensors", OFFERED)
    return tmp_path / "model.safetensors"


def test_a_model_that_needs_a_missing_package_says_which(offered, monkeypatch):
    install(monkeypatch)
    assert open_model(offered).plan.network.name == "example-plain"
    with pytest.raises(
        ModelError, match=r"focalis-example 0\.1\.0, which is not installed.*pip install focalis-example"
    ):
        load_model(offered)


def test_a_package_of_another_version_is_warned_of(tmp_path):
    path = tmp_path / "model.safetensors"
    _saved(path, Plugin("network", "example-plain", "focalis-example", "0.0.9"))
    with pytest.warns(UserWarning, match=r"trained with focalis-example 0\.0\.9, and 0\.1\.0 is installed"):
        load_model(path)


def test_a_package_may_not_take_a_name_of_focalis(monkeypatch):
    entry = EntryPoint("dense", "focalis_example.network:PLAIN", "focalis.networks")
    install(monkeypatch, entry)
    with pytest.raises(PlanError, match="offers a network 'dense', which Focalis has itself"):
        network_spec("dense")


@pytest.mark.parametrize("place", ["focalis_example.nothing:PLAIN", "focalis_example.network:plain"])
def test_a_package_that_offers_no_such_part_is_named(monkeypatch, place):
    entry = EntryPoint("broken", place, "focalis.networks")
    install(monkeypatch, entry)
    with pytest.raises(
        PlanError, match=r"network 'broken' of the package .*(cannot be imported|is no NetworkSpec)"
    ):
        network_spec("broken")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (torch.nn.Conv3d(1, 3, 1), "gives 3 channels; it must give logits of 2 classes"),
        (torch.nn.Conv3d(1, 2, 3), r"turns \(8, 8, 8\) voxels into \(6, 6, 6\)"),
        (torch.nn.ModuleDict(), "returns a dict"),
    ],
)
def test_a_module_that_gives_no_such_logits_is_refused(module, message):
    if isinstance(module, torch.nn.ModuleDict):
        module.forward = lambda x: {"logits": x}
    with pytest.raises(PlanError, match=message):
        ForeignNetwork(module, 2)(torch.zeros(1, 1, 8, 8, 8))


def test_a_module_that_pools_over_all_it_is_given_predicts_in_patches():
    plain = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 3, padding=1), torch.nn.BatchNorm3d(2))
    assert not ForeignNetwork(plain, 2).patchwise
    assert ForeignNetwork(torch.nn.Sequential(*plain, torch.nn.AdaptiveAvgPool3d(1)), 2).patchwise


def test_a_part_that_cannot_be_built_is_named(monkeypatch):
    entry = EntryPoint("narrow", "focalis_example.network:PLAIN", "focalis.networks")
    install(monkeypatch, entry)
    with pytest.raises(PlanError, match=r"network narrow: cannot be built \(RuntimeError: .*negative"):
        build_network("narrow", ((2, 2, 2),), -1, 2)


def test_an_error_in_the_code_of_a_package_is_laid_at_its_door():
    with pytest.raises(NotImplementedError) as failed:
        build_loss("example-power")(torch.zeros(1, 2, 1, 1, 1), torch.zeros(1, 2, 1, 1, 1), None)
    assert plugins.at_fault(failed.value).package == "focalis-example"
    assert plugins.at_fault(ValueError("mine")) is None


@pytest.mark.parametrize("place", ["focalis_example.augmentation:np", "focalis_example.network:Width"])
def test_an_augmentation_must_be_one(monkeypatch, place):
    entry = EntryPoint("broken", place, "focalis.augmentations")
    install(monkeypatch, entry)
    with pytest.raises(PlanError, match=r"augmentation 'broken' of .* is no Augmentation"):
        build_augmentation("broken")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("monai:SegResNet", {"init_filters": 8}),
        ("monai:UNet", {}),
        ("monai:DynUNet", {}),
        ("monai:BasicUNet", {"features": [4, 4, 8, 8, 8, 4]}),
    ],
)
def test_monais_networks_are_built_by_their_class(name, parameters):
    network = build_network(name, ((2, 2, 2),) * 4, 2, 3, parameters)
    with torch.inference_mode():
        assert network.eval()(torch.randn(1, 2, 16, 16, 32)).shape == (1, 3, 16, 16, 32)


def test_a_model_with_a_network_of_monai_is_read_back(tmp_path):
    settings = NetworkSettings(name="monai:SegResNet", strides_zyx=((2, 2, 2),) * 3, init_filters=8)
    plan = PLAN.model_copy(update={"network": settings})
    torch.manual_seed(0)
    save_model(Model(plan, (network_of(plan),)), tmp_path / "model.safetensors")
    model = load_model(tmp_path / "model.safetensors")
    assert open_model(tmp_path / "model.safetensors").plugins[0].package == "monai"
    assert open_model(tmp_path / "model.safetensors").plugins[0].version == version("monai")
    assert model.members[0].patchwise


def test_what_monai_does_not_have_or_lacks_is_named():
    with pytest.raises(PlanError, match=r"monai\.networks\.nets has no such class"):
        network_spec("monai:NoNet")
    with pytest.raises(PlanError, match=r"network monai:UNETR: give img_size in the plan"):
        build_network("monai:UNETR", ((2, 2, 2),) * 4, 1, 2)


def _saved(path, plugin):
    """A model of the example's network whose header names a package."""
    save_model(Model(PLAN, (network_of(PLAN),)), path)
    blob = path.read_bytes()
    length = int.from_bytes(blob[:8], "little")
    head = json.loads(blob[8 : 8 + length])
    content = json.loads(head["__metadata__"]["focalis"]) | {"plugins": [vars(plugin)]}
    head["__metadata__"]["focalis"] = json.dumps(content)
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + blob[8 + length :])
