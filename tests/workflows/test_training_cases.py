"""Figures on cases that made the model: recognised by the image itself, and said first."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_plan import small_plan
from torch import nn
from typer.testing import CliRunner

from focalis.cli.main import app
from focalis.dataset import PhantomSettings, open_dataset, write_phantoms
from focalis.lesions import OperatingPoint
from focalis.model import Model, load_model, save_model
from focalis.networks import build_network
from focalis.planning import NetworkSettings, Normalisation
from focalis.volume import (
    Grid,
    Volume,
    content_digest,
    content_profile,
    read_volume,
    to_canonical,
    write_volume,
)
from focalis.workflows.evaluate import evaluate
from focalis.workflows.fit import fit
from focalis.workflows.predict import predict
from focalis.workflows.training_cases import CHOSE, TRAINED, Seen, SeenCases, seen_alone, seen_line

GRID = Grid((10, 9, 8))


class Positive(nn.Module):
    def forward(self, x):
        x = x.sum(dim=1, keepdim=True)
        return torch.cat([-x, x], dim=1)


def plan(channels=("image",)):
    return small_plan(
        channels=channels,
        normalisation=(Normalisation(kind="window", low=-99, high=99),) * len(channels),
        batch=1,
        network=NetworkSettings(strides_zyx=((2, 2, 2),)),
    )


def scan(seed):
    return Volume(np.random.default_rng(seed).integers(-90, 90, GRID.shape_zyx).astype(np.int16), GRID)


def images(trained=(), chose=()):
    def role(cases):
        return {name: [content_digest(volume.array) for volume in volumes] for name, volumes in cases}

    return {"images": {TRAINED: role(trained), CHOSE: role(chose)}}


def model(provenance, channels=("image",)):
    return Model(plan(channels), (Positive(),), OperatingPoint(0.5), provenance)


def seen_of(out, case):
    return json.loads((out / "lesions" / f"{case}.json").read_text())["seen_in_training"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda volume, path: write_volume(volume, path / "renamed.nii"), id="name"),
        pytest.param(lambda volume, path: write_volume(volume, path / "renamed.nrrd"), id="format"),
        pytest.param(
            lambda volume, path: write_volume(
                Volume(volume.array.astype(np.float64), volume.grid), path / "f.mha"
            ),
            id="type",
        ),
        pytest.param(
            lambda volume, path: write_volume(
                Volume(volume.array, replace(GRID, origin_xyz_mm=(5.0, 0.0, -3.0))), path / "moved.nii.gz"
            ),
            id="header",
        ),
        pytest.param(
            lambda volume, path: write_volume(
                to_canonical(Volume(volume.array, replace(GRID, direction=(-1, 0, 0, 0, -1, 0, 0, 0, 1)))),
                path / "turned.nii.gz",
            ),
            id="orientation",
        ),
    ],
)
def test_a_training_image_is_recognised_whatever_file_it_lies_in(tmp_path, change):
    (tmp_path / "in").mkdir()
    change(scan(1), tmp_path / "in")
    known = model(images([("one", [scan(1)])], [("two", [scan(2)])]))
    (row,) = predict(known, [tmp_path / "in"], tmp_path / "out").rows
    assert row.seen == Seen(TRAINED, "image content", "one")
    assert seen_of(tmp_path / "out", row.case) == {
        "role": TRAINED,
        "known_by": "image content",
        "case": "one",
    }


def test_a_copy_or_another_date_of_a_training_image_is_recognised_though_several_are_like_it() -> None:
    first, second, third = (
        np.random.default_rng(seed).normal(100, 20, (14, 16, 18)).astype(np.float32) for seed in range(3)
    )
    again = first + np.random.default_rng(3).normal(0, 6, first.shape).astype(np.float32)

    def marks(array):
        return [content_digest(array), content_profile(array)]

    cropped = Volume(np.round(first[1:]).astype(np.int16), Grid((18, 16, 13)))
    for cases, seen in (
        ({"a": marks(first), "b": marks(second)}, Seen(TRAINED, "similar content", "a")),
        ({"b": marks(second), "c": marks(third)}, None),
        ({"a": marks(first), "later": marks(again)}, Seen(TRAINED, "similar content", "a")),
        ({"a": marks(first)[:1]}, None),
    ):
        assert SeenCases.of(model({"images": {TRAINED: cases}})).find("new", [cropped]) == seen
    similar = Seen(TRAINED, "similar content", "a")
    assert "1 known by similar content: copies, or other dates" in seen_line({"x": similar}, 2, "figures")
    assert seen_alone(similar).startswith(
        "is a copy of, or another date of the same person as, a, which trained"
    )


def test_another_image_under_a_training_case_s_name_was_not_seen(tmp_path):
    write_volume(scan(7), tmp_path / "in" / "one.nii.gz")
    known = model(images([("one", [scan(1)])]) | {"cases": {"train": ["one"], "inner": []}})
    report = predict(known, [tmp_path / "in"], tmp_path / "out")
    assert report.rows[0].seen is None
    assert report.seen_known
    assert seen_of(tmp_path / "out", "one") is None


def test_the_order_of_channels_does_not_count_and_a_shared_channel_tells_nothing():
    shared = scan(50)
    known = SeenCases.of(model(images([("a", [scan(1), shared]), ("b", [scan(2), shared])]), ("x", "y")))
    assert known.find("new", [shared, scan(2)]) == Seen(TRAINED, "image content", "b")
    assert known.find("new", [scan(9), shared]) is None


def test_a_case_that_any_member_trained_on_is_a_training_case():
    members = [images([("a", [scan(1)])], [("b", [scan(2)])]), images([("b", [scan(2)])], [("a", [scan(1)])])]
    known = SeenCases.of(model({"members": members}))
    assert [known.find("?", [scan(seed)]).role for seed in (1, 2)] == [TRAINED, TRAINED]
    assert known.find("?", [scan(3)]) is None


def test_an_earlier_model_goes_by_name_only_and_says_so(tmp_path):
    for name in ("a", "b", "c"):
        write_volume(scan(3), tmp_path / "in" / f"{name}.nii.gz")
    old = model({"cases": {"train": ["a"], "inner": ["b"], "held_out": ["c"]}})
    rows = predict(old, [tmp_path / "in"], tmp_path / "out").rows
    assert [row.seen and row.seen.role for row in rows] == [TRAINED, CHOSE, None]
    line = seen_line({row.case: row.seen for row in rows if row.seen}, 3, "figures on them")
    assert line.startswith("2 of 3 cases were seen when the model was made (1 trained the model, 1 chose its")
    assert "2 known by name only" in line


def test_a_model_that_knows_no_case_says_that_it_cannot_tell(tmp_path):
    write_volume(scan(3), tmp_path / "a.nii.gz")
    network = build_network("dense", ((2, 2, 2),), 1, 2)
    save_model(Model(plan(), (network,), OperatingPoint(), {"cases": 104}), tmp_path / "m.safetensors")
    words = [
        "predict",
        tmp_path / "m.safetensors",
        tmp_path / "a.nii.gz",
        "-o",
        tmp_path / "out",
        "--runtime",
        "torch",
    ]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert "does not list its training cases" in done.stderr
    assert seen_of(tmp_path / "out", "a") == "not known"


def test_evaluate_says_first_which_figures_flatter(tmp_path):
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        write_volume(scan(seed), tmp_path / "in" / f"{name}.nii.gz")
        truth = Volume((scan(seed).array > 0).astype(np.uint8), GRID)
        write_volume(truth, tmp_path / "labels" / f"{name}.nii.gz")
        for reader in ("r1", "r2"):
            write_volume(truth, tmp_path / "raters" / f"{name}_{reader}.nii.gz")
    known = model(images([("a", [scan(1)])], [("b", [scan(2)])]))
    predict(known, [tmp_path / "in"], tmp_path / "out")
    words = ["evaluate", tmp_path / "out", tmp_path / "labels", "-o", tmp_path / "scores"]
    words += ["--readers", tmp_path / "raters"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith(
        "WARNING: 2 of 3 cases were seen when the model was made (1 trained the model, 1 chose its operating point), "
        "so the figures on them flatter it: a, b\n"
    )
    assert "their spread, but 2 of the cases were seen" in done.stdout
    page = (tmp_path / "scores" / "report.html").read_text()
    assert page.index("2 of 3 cases were seen") < page.index("Dice, mean of")
    document = json.loads((tmp_path / "scores" / "evaluation.json").read_text())
    assert document["seen_in_training"]["a"]["role"] == TRAINED
    shutil.rmtree(tmp_path / "out" / "lesions")
    assert evaluate(tmp_path / "out", tmp_path / "labels", None).alerts == ()


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantoms")
    write_phantoms(root, 6, PhantomSettings(shape_zyx=(20, 24, 28), foreground_share=0.01, lesions=1), 0)
    return root


def test_fit_stores_what_it_saw_and_its_held_out_figures_are_clean(phantoms, tmp_path):
    result = fit(phantoms, tmp_path / "run", steps=1, eight_bit=False, fold=0)
    cases = json.loads((result.run / "record.json").read_text())["cases"]
    known = SeenCases.of(load_model(result.model))
    by_name = {case.name: known.find("?", case.read_images()) for case in open_dataset(phantoms).cases}
    assert {name for name, seen in by_name.items() if seen and seen.role == TRAINED} == set(cases["train"])
    assert {name for name, seen in by_name.items() if seen and seen.role == CHOSE} == set(cases["inner"])
    assert all(seen_of(result.run / "predictions", name) is None for name in cases["held_out"])
    assert "were seen when" not in result.report.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_held_out_copy_of_a_training_image_is_named(phantoms, tmp_path):
    data = shutil.copytree(phantoms, tmp_path / "data")
    (data / "splits.json").write_text(
        json.dumps([{"train": [f"phantom_{i:03d}" for i in range(5)], "val": ["phantom_005"]}])
    )
    volume = read_volume(data / "images" / "phantom_000.nii.gz")
    write_volume(Volume(volume.array.astype(np.float32), volume.grid), data / "images" / "phantom_005.nii.gz")
    shutil.copy(data / "labels" / "phantom_000.nii.gz", data / "labels" / "phantom_005.nii.gz")
    result = fit(data, tmp_path / "run", steps=1, eight_bit=False, fold=0)
    assert "1 of 1 cases were seen when the model was made" in result.report.read_text(encoding="utf-8")
