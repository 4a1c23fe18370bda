"""Nested regions, from nnU-Net's notation to the label map: each is learned, painted and judged as a whole."""

import json

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss
from small_plan import small_plan
from torch.nn import functional

from focalis.dataset import IGNORED
from focalis.errors import ModelError, PlanError
from focalis.evaluation import views
from focalis.export import export_model
from focalis.lesions import decide
from focalis.losses import build_loss, by_region, distance_to_foreground
from focalis.model import load_model
from focalis.networks import Nested, build_network
from focalis.planning import LossSettings, NetworkSettings, Plan, read_plan, write_plan
from focalis.planning.parts import loss_of, network_of
from focalis.prediction import Runtime
from focalis.training.loop import train
from focalis.training.prepared import TrainingCase
from focalis.training.start import first_network
from focalis.training.validation import mean_dice, watch
from focalis.volume import Grid, Volume, read_volume, write_volume
from focalis.workflows.compare import compare
from focalis.workflows.evaluate import evaluate
from focalis.workflows.fit import fit
from focalis.workflows.predict import predict

REGIONS = {"whole": (1, 2, 4), "core": (1, 4), "enhancing": (4,)}
NAMES = {2: "whole without core", 1: "core without enhancing", 4: "enhancing"}
GRID = Grid((20, 18, 16))


def nested_plan(**changes):
    return small_plan(labels=NAMES, regions=REGIONS, **changes)


def test_the_order_of_outputs_is_that_of_the_regions():
    assert nested_plan().label_values == (2, 1, 4)


@pytest.mark.parametrize(
    "regions",
    [
        {"core": (1, 4), "whole": (1, 2, 4), "enhancing": (4,)},
        {"whole": (1, 2, 4), "enhancing": (4,)},
        {"whole": (1, 2), "core": (1,)},
    ],
)
def test_regions_of_a_plan_are_nested_and_hold_all_labels(regions):
    with pytest.raises(ValueError, match="regions must be nested"):
        small_plan(labels=NAMES, regions=regions)


def test_masks_of_regions_are_not_refined():
    content = nested_plan().model_dump() | {"network": {"name": "dense+crf", "strides_zyx": [[2, 2, 2]]}}
    with pytest.raises(ValueError, match=r"leave \+crf out"):
        Plan.model_validate(content)


def test_a_plan_file_keeps_the_order(tmp_path):
    write_plan(nested_plan(), tmp_path / "plan.yaml")
    assert list(read_plan(tmp_path / "plan.yaml").regions) == list(REGIONS)
    assert Plan.model_validate_json(nested_plan().model_dump_json()) == nested_plan()


def test_sigmoids_make_a_distribution_in_which_no_inner_region_is_likelier():
    network = Nested(build_network("unet", ((2, 2, 2),), 1, 3)).eval()
    x = torch.randn(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0)) * 5
    with torch.no_grad():
        sigmoids = network.network(x).sigmoid()
        p = network(x).softmax(1)
    torch.testing.assert_close(p, network(x).exp().detach())
    torch.testing.assert_close(p[:, 1:].sum(1), sigmoids[:, 0])
    torch.testing.assert_close(p[:, 2:].sum(1), sigmoids[:, 0] * sigmoids[:, 1])
    torch.testing.assert_close(p[:, 3], sigmoids.prod(1))


def test_the_loss_is_the_mean_over_regions_of_monais_dice_and_pytorchs_entropy():
    generator = torch.Generator().manual_seed(0)
    log_q = torch.randn(2, 4, 4, 5, 6, generator=generator).log_softmax(1)
    target = torch.randint(0, 4, (2, 4, 5, 6), generator=generator)
    inside = torch.stack([log_q[:, r:].logsumexp(1).exp() for r in (1, 2, 3)], 1)
    truth = torch.stack([(target >= r).float() for r in (1, 2, 3)], 1)
    dice = DiceLoss(smooth_nr=1.0, smooth_dr=1.0, reduction="mean")(inside, truth)
    entropy = functional.binary_cross_entropy(inside, truth)
    found = by_region(build_loss("dice_cross_entropy"))(log_q, target, torch.zeros(2, 4, 5, 6))
    torch.testing.assert_close(found, dice + entropy)


def test_shares_of_readers_and_ignored_voxels_go_by_region_too():
    log_q = torch.randn(1, 4, 2, 2, 2, generator=torch.Generator().manual_seed(1)).log_softmax(1)
    target = torch.tensor([0, 1, 2, 3, 0, 1, IGNORED, IGNORED]).reshape(1, 2, 2, 2)
    shares = functional.one_hot(target * (target != IGNORED), 4) * (target != IGNORED)[..., None]
    loss, distance = by_region(build_loss("dice_cross_entropy")), torch.zeros(1, 2, 2, 2)
    hard = loss(log_q, target, distance)
    torch.testing.assert_close(loss(log_q, shares.movedim(-1, 1).float(), distance), hard)
    other = log_q.clone()
    other[:, :, 1, 1] = log_q[:, :, 0, 0]
    torch.testing.assert_close(loss(other, target, distance), hard)


def test_the_label_is_that_of_the_last_region_painted():
    """nnU-Net paints the regions in their order where their sigmoid exceeds one half."""
    p = np.random.default_rng(0).dirichlet([0.4] * 4, 500).T.reshape(4, 5, 10, 10).astype(np.float32)
    painted = np.zeros(p.shape[1:], np.uint8)
    for number in (1, 2, 3):
        painted[p[number:].sum(0) >= 0.5] = number
    np.testing.assert_array_equal(decide(p, 0.5, nested=True), painted)
    wider = decide(p, 0.2, nested=True)
    np.testing.assert_array_equal(wider > 0, 1 - p[0] >= 0.2)
    np.testing.assert_array_equal(np.maximum(wider, 1)[wider > 1], painted[wider > 1])


def test_the_dice_of_a_region_holds_its_inner_ones():
    truth, predicted = np.array([0, 1, 2, 3, IGNORED]), np.array([0, 2, 2, 3, 0])
    assert mean_dice(truth, predicted, [1], nested=True) == 1
    assert mean_dice(truth, predicted, [2], nested=True) == pytest.approx(4 / 5)


def test_views_are_a_map_per_region():
    volume = Volume(np.array([0, 1, 2, 4, 9], np.uint8).reshape(1, 1, 5), Grid((5, 1, 1)))
    found = {}
    for names, (each,) in views(NAMES, REGIONS, 9, volume):
        found |= dict.fromkeys(names.items(), each.array.ravel().tolist())
    assert found == {
        (2, "whole"): [0, 2, 2, 2, 9],
        (1, "core"): [0, 1, 0, 1, 9],
        (4, "enhancing"): [0, 0, 0, 4, 9],
    }


def test_fresh_heads_predict_little_foreground_and_a_plain_start_fits():
    plan = nested_plan()
    network, _ = first_network(plan, None)
    network.eval()
    assert 0 < 1 - network(torch.zeros(1, 1, 8, 8, 8)).softmax(1)[0, 0].mean().item() < 0.3
    plain = network_of(plan.model_copy(update={"regions": {}}))
    from focalis.training.start import Start

    _, taken = first_network(plan, Start("plain", "0", plain.state_dict()))
    assert taken is not None


@pytest.fixture(scope="module")
def nested_set(tmp_path_factory):
    """Six cases with a shell of 2 around one of 1 around one of 4."""
    root = tmp_path_factory.mktemp("regions") / "d"
    away = np.abs(np.moveaxis(np.indices(GRID.shape_zyx), 0, -1) - (8, 9, 10)).max(-1)
    label = np.select([away < 1, away < 3, away < 5], [4, 1, 2], 0).astype(np.uint8)
    for number in range(6):
        rng = np.random.default_rng(number)
        image = rng.normal(0, 0.3, GRID.shape_zyx) + np.select(
            [label == 4, label == 1, label == 2], [6, 4, 2], 0
        )
        write_volume(Volume(image.astype(np.float32), GRID), root / "images" / f"c{number}.nii.gz")
        write_volume(Volume(label, GRID), root / "labels" / f"c{number}.nii.gz")
    labels = {"background": 0, **{name: list(values) for name, values in REGIONS.items()}}
    (root / "dataset.json").write_text(json.dumps({"labels": labels, "regions_class_order": [2, 1, 4]}))
    return root


@pytest.fixture(scope="module")
def fitted(nested_set):
    return nested_set, fit(nested_set, nested_set.parent / "run", steps=1, eight_bit=False)


def test_a_refined_network_is_refused_in_a_line_also_without_a_plan(nested_set, tmp_path):
    said = r"the masks of nested regions are not refined; leave \+crf out"
    with pytest.raises(PlanError, match=f"^{said}$"):
        fit(nested_set, tmp_path / "run", network="unet+crf", plan_only=True)
    with pytest.raises(PlanError, match=rf"^unet\+crf: {said}; or leave the network out$"):
        compare(nested_set, tmp_path / "rows", networks=["unet", "unet+crf"], steps=1)


@pytest.mark.slow
def test_figures_are_by_region_and_the_mask_holds_the_labels(fitted, tmp_path):
    root, result = fitted
    assert {label.name for label in result.summary.labels} == set(REGIONS)
    predict(result.model, [root], tmp_path / "masks")
    mask = read_volume(tmp_path / "masks" / "c0.nii.gz").array
    assert set(np.unique(mask)) <= {0, 1, 2, 4}
    found = evaluate(tmp_path / "masks", root / "labels")
    assert [label.name for label in found.summary.labels] == ["core", "whole", "enhancing"]
    truth = read_volume(root / "labels" / "c0.nii.gz").array
    (score,) = (each for each in found.scores if (each.case, each.name) == ("c0", "core"))
    assert score.truth_voxels == np.isin(truth, (1, 4)).sum()
    assert score.predicted_voxels == np.isin(mask, (1, 4)).sum()


@pytest.mark.slow
def test_all_regions_are_learned(tmp_path):
    plan = nested_plan(patch_zyx=(16, 16, 16), network=NetworkSettings(strides_zyx=((2, 2, 2), (2, 2, 2))))
    cases = []
    for seed in range(4):
        shape = (20, 20, 20)
        centre = np.random.default_rng(seed).integers(8, 12, 3)
        away = np.abs(np.moveaxis(np.indices(shape), 0, -1) - centre).max(-1)
        label = np.select([away < 2, away < 4, away < 6], [3, 2, 1], 0).astype(np.uint8)
        image = np.random.default_rng(seed).normal(0, 0.3, shape) + 1.5 * label
        distance = distance_to_foreground(label, (1, 1, 1)).astype(np.float16)
        voxels = (np.argwhere(label).astype(np.int32),)
        cases.append(TrainingCase(f"c{seed}", image[None].astype(np.float32), label, distance, voxels))
    network = train(plan, cases[:3], [], tmp_path, steps=240, seed=0, runtime=Runtime())
    assert watch(plan, network, cases[3:], Runtime()).dice > 0.6


def test_a_comparison_shows_each_region_by_its_name(fitted, tmp_path):
    root, _ = fitted
    made = compare(root, tmp_path / "out", losses=("dice_cross_entropy", "tversky"), steps=1).content
    assert set(made["labels"].values()) == set(REGIONS)
    (row, _) = made["rows"]
    assert set(row["figures"]) == {"overall", *made["labels"]}
    (path,) = (tmp_path / "out").glob("*-tversky/**/evaluation.json")
    judged = {
        each["name"]: next(figure["mean"] for figure in each["statistics"] if figure["metric"] == "dice")
        for each in json.loads(path.read_text())["summary"]["labels"]
    }
    row = next(row for row in made["rows"] if row["loss"] == "tversky")
    assert judged == pytest.approx(
        {name: row["figures"][value]["dice"]["value"] for value, name in made["labels"].items()}
    )


@pytest.mark.slow
def test_a_plan_of_labels_is_not_taken_for_regions_and_regions_are_not_exported(fitted, tmp_path):
    root, result = fitted
    plan = read_plan(result.plan)
    write_plan(plan.model_copy(update={"regions": {}}), tmp_path / "plan.yaml")
    with pytest.raises(PlanError, match="make a new plan"):
        fit(root, tmp_path / "run", plan=tmp_path / "plan.yaml", steps=2)
    with pytest.raises(ModelError, match="regions lie inside each other"):
        export_model(load_model(result.model), tmp_path / "out", "torch")


@pytest.mark.parametrize("loss", ["distance_focal", "two_way_dice_cross_entropy", "tversky"])
def test_every_loss_trains_regions(loss):
    plan = nested_plan(loss=LossSettings(name=loss))
    logits = torch.randn(1, 4, 4, 4, 4, requires_grad=True)
    others = [torch.ones(1, 4, 4, 4)] + [torch.ones(1, 4, 4, 4, dtype=torch.int64)] * loss.startswith(
        "two_way"
    )
    value = loss_of(plan)(logits, torch.randint(0, 4, (1, 4, 4, 4)), *others)
    value.backward()
    assert torch.isfinite(logits.grad).all()
