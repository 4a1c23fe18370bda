"""The start from shapes: it learns, goes on where it was stopped, and its trial leaves the held-out cases alone."""

import json

import numpy as np
import pretrain_shapes
import publish_shapes
import pytest
import shapes_trial
import torch
from pretrain_shapes import Run, Volumes, make_batch, pretrain
from safetensors.torch import load_file

from focalis import models
from focalis.dataset import Case, Dataset, Split, write_splits
from focalis.networks import build_network, transfer
from focalis.planning import SHAPES_OF
from focalis.prediction import Runtime
from focalis.training.start import first_network, read_start
from focalis.workflows.record import write_json

RUNTIME = Runtime(torch.device("cpu"), torch.float32)


@pytest.fixture(autouse=True)
def _small_volumes(monkeypatch):
    monkeypatch.setattr(pretrain_shapes, "SIDE", 32)
    monkeypatch.setattr(pretrain_shapes, "PATCH", (16, 16, 16))
    monkeypatch.setattr(pretrain_shapes, "BATCH", 2)
    monkeypatch.setattr(pretrain_shapes, "JUDGED_VOLUMES", 2)
    monkeypatch.setattr(pretrain_shapes, "JUDGED_PATCHES", 2)


def test_a_batch_is_a_function_of_seed_and_step():
    volumes = Volumes.make(0, 3)
    (image, label), again, other = (make_batch(volumes, 0, step, 2) for step in (3, 3, 4))

    assert (image.shape, label.shape) == ((2, 1, 16, 16, 16), (2, 16, 16, 16))
    assert torch.equal(image, again[0])
    assert torch.equal(label, again[1])
    assert not torch.equal(image, other[0])


def test_patches_are_parts_of_the_volumes_turned_and_flipped():
    numbers = np.arange(32**3).reshape(1, 32, 32, 32) % 7
    volumes = Volumes(numbers.astype(np.float16), numbers.astype(np.uint8))

    image, label = make_batch(volumes, 0, 1, 8)

    assert torch.equal(image[:, 0], label.float())
    assert len({tuple(patch[0, 0, :5].tolist()) for patch in label}) > 1


def test_a_run_that_was_stopped_ends_in_the_same_weights(tmp_path, monkeypatch):
    (tmp_path / "whole").mkdir()
    (tmp_path / "parts").mkdir()
    whole = pretrain(Run(6, 0, 3), tmp_path / "whole", RUNTIME)
    monkeypatch.setattr(pretrain_shapes, "CHECKPOINT_SECONDS", 0.0)
    real, calls = pretrain_shapes.make_batch, []

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(pretrain_shapes, "make_batch", stopping)
    with pytest.raises(KeyboardInterrupt):
        pretrain(Run(6, 0, 3), tmp_path / "parts", RUNTIME)
    parts = pretrain(Run(6, 0, 3), tmp_path / "parts", RUNTIME)

    assert all(torch.equal(one, two) for one, two in zip(whole.parameters(), parts.parameters(), strict=True))
    assert all(torch.equal(one, two) for one, two in zip(whole.buffers(), parts.buffers(), strict=True))


def test_another_run_does_not_go_on_in_the_same_folder(tmp_path):
    pretrain(Run(2, 0, 3), tmp_path, RUNTIME)

    with pytest.raises(SystemExit, match="another run"):
        pretrain(Run(2, 1, 3), tmp_path, RUNTIME)


def test_what_is_written_fits_a_training(tmp_path):
    pretrain_shapes.main(["--steps", "2", "--volumes", "3", "--out", str(tmp_path)])

    record = json.loads((tmp_path / "record.json").read_text())
    assert (record["steps"], record["seed"]) == (2, 0)
    report = transfer(
        load_file(tmp_path / "start.safetensors"),
        build_network("dense", ((1, 2, 2),) + ((2, 2, 2),) * 2, 2, 3),
    )
    assert (report.taken, report.total) == (102, 104)


@pytest.mark.parametrize("task", pretrain_shapes.TASKS)
def test_what_another_task_learned_fits_a_training_too(task, tmp_path):
    pretrain_shapes.main(["--steps", "1", "--volumes", "3", "--out", str(tmp_path), "--task", task])

    start = read_start(tmp_path / "start.safetensors")
    taken = transfer(start.state, build_network("dense", ((2, 2, 2),) * 3, 1, 2), with_heads=True).taken
    assert taken == (102 if task == "masked" else 104)


def test_a_u_net_learns_its_own_start(tmp_path):
    pretrain_shapes.main(["--steps", "1", "--volumes", "3", "--out", str(tmp_path), "--network", "nnunet"])

    start = read_start(tmp_path / "start.safetensors")
    report = transfer(start.state, build_network("nnunet", ((2, 2, 2),) * 3, 1, 2), with_heads=True)
    assert (report.taken, report.fresh) == (report.total, ())


def test_the_parts_of_a_task_cost_nothing_where_they_are_learned():
    label = torch.zeros(1, 16, 16, 16, dtype=torch.int64)
    label[..., 8:] = 1
    whole = torch.randn(1, 1, 16, 16, 16)
    holes = pretrain_shapes.holes_of(whole, 0, 0, alone=True)
    distance = torch.tensor([*range(8, 0, -1), *range(1, 9)]) / 8
    named = torch.nn.functional.one_hot(label, 4).movedim(-1, 1) * 100.0
    logits = torch.cat([named, distance.expand(1, 1, 16, 16, 16), whole], 1)

    torch.testing.assert_close(pretrain_shapes.boundary_distance(label)[0, 0, 0], distance)
    loss = pretrain_shapes.task_loss(
        logits,
        "classes+distance+masked",
        whole,
        label,
        holes,
        pretrain_shapes.loss_of(pretrain_shapes.plan()),
    )
    assert loss < 0.01


def test_holes_lie_in_the_last_patch_alone_beside_the_classes():
    whole = torch.zeros(3, 1, 16, 16, 16)
    beside, alone = (pretrain_shapes.holes_of(whole, 0, 1, alone=alone) for alone in (False, True))
    assert not beside[:2].any()
    assert beside[2].any()
    assert all(patch.any() for patch in alone)


def test_the_start_tells_blobs_from_all_else():
    network = first_network(pretrain_shapes.plan(), None)[0].eval()
    state = pretrain_shapes.as_start(network)
    start = build_network("dense", ((2, 2, 2),) * 3, 1, 2).eval()
    start.load_state_dict(state)

    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        background, blob, tube, sheet = network(image)[0]
        found = start(image)[0]
    torch.testing.assert_close(found[1], blob)
    torch.testing.assert_close(found[0], (background + tube + sheet) / 3)


def test_the_trial_leaves_the_held_out_cases_alone(tmp_path):
    names = [f"case{number:03}" for number in range(100)]
    cases = tuple(Case(name, (tmp_path / name,), None) for name in names)
    write_splits([Split(tuple(names[:80]), tuple(names[80:]))], tmp_path / "splits_5fold.json")
    data = Dataset(tmp_path, cases, ("image",), {1: "lesion"})

    one, other = (shapes_trial.draw(data, 10, number) for number in (0, 1))

    assert len(one.train) == len(other.train) == 10
    assert len(one.val) == 20
    assert one.val == other.val
    assert one.train != other.train
    assert not {*one.train, *other.train} & set(one.val)
    assert {*one.train, *other.train, *one.val} <= set(names[:80])


@pytest.mark.parametrize(("network", "first"), [("dense", "stem.weight"), ("small-unet", "downs.0.0.weight")])
def test_the_published_start_is_small_and_fits_and_its_card_says_how_it_was_made(
    network, first, tmp_path, monkeypatch
):
    run, out, name = tmp_path / "run", tmp_path / "out", SHAPES_OF[network]
    pretrain_shapes.main(["--steps", "1", "--volumes", "3", "--network", network, "--out", str(run)])
    publish_shapes.main([str(run), "--out", str(out), "--results", str(tmp_path / "none")])

    monkeypatch.setattr(models, "FOLDER", out)
    start, built = read_start("shapes", network), build_network(network, ((2, 2, 2),) * 3, 1, 2)
    assert transfer(start.state, built, with_heads=True).fresh == ()
    before = load_file(run / "start.safetensors")
    assert torch.equal(built.state_dict()[first], before[first].half().float())
    assert (out / f"{name}.safetensors").stat().st_size < 4e6
    text = (out / f"{name}.md").read_text()
    assert start.sha256 in text
    assert "Apache-2.0" in text
    assert "$" not in text


def test_the_table_holds_a_start_against_random_weights_in_the_same_draws(tmp_path):
    for start, draw, dice in ((None, 0, 0.4), (None, 1, 0.6), ("good", 0, 0.5), ("good", 2, 0.9)):
        row = {"dataset": "d", "train": ["x"] * 10, "steps": 5, "start": start, "seed": draw}
        write_json(tmp_path / f"{start}-draw{draw}.json", {**row, "cases": {"a": dice, "b": dice + 0.1}})

    lines = shapes_trial.table(tmp_path).splitlines()

    assert lines[2:] == [
        "| d | 10 | 5 | random | 0, 1 | 0.550 |  |",
        "| d | 10 | 5 | good | 0, 2 | 0.750 | +0.100 (+0.100 to +0.100) |",
    ]
