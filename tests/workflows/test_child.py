"""One run in a process of its own: how it ends, and what is said of it."""

import json
import subprocess
import sys
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from focalis.dataset import PhantomSettings, open_dataset, write_phantoms
from focalis.errors import DataError, DivergedError, TrainingError
from focalis.planning import Normalisation, Plan, write_plan
from focalis.workflows import child
from focalis.workflows.child import DIVERGED, FAILED, MEMORY, OUTCOME, Task, kind_of, work


@pytest.fixture
def task(tmp_path):
    data = tmp_path / "data"
    write_phantoms(data, 5, PhantomSettings(shape_zyx=(16, 20, 20), foreground_share=0.02, lesions=1), 0)
    cases = open_dataset(data).cases
    plan = Plan(
        channels=("image",),
        labels={1: "lesion"},
        spacing_zyx_mm=(1.0, 1.0, 1.0),
        normalisation=(Normalisation(),),
        patch_zyx=(8, 8, 8),
        batch=2,
    )
    write_plan(plan, tmp_path / "row" / "plan.yaml")
    home = tmp_path / "row" / "fold_0-seed_0"
    home.mkdir()
    return Task(
        dataset=str(data),
        labels={"1": "lesion"},
        home=str(home),
        prepared=str(tmp_path / "prepared"),
        train=tuple(case.name for case in cases[:4]),
        val=(cases[4].name,),
        seed=0,
        device="cpu",
        precision="float32",
        threads=1,
        minutes=1.0,
        steps=1,
        judged_on="one case",
        record={"data_sha256": "0", "seed": 0},
    )


def allocator_error():
    """What torch's CPU allocator raises when there is not enough memory: a plain RuntimeError."""
    try:
        torch.empty(2**52)
    except RuntimeError as error:
        return error
    raise AssertionError("the machine has four petabytes")


def numpy_error():
    try:
        np.empty(2**60, np.uint8)
    except MemoryError as error:
        return error
    raise AssertionError("the machine has an exabyte")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (allocator_error(), MEMORY),
        (numpy_error(), MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), MEMORY),
        (DivergedError("run: diverged at step 3"), DIVERGED),
        (TrainingError("run: was started with another seed"), FAILED),
        (RuntimeError("shapes cannot be multiplied"), FAILED),
    ],
)
def test_an_error_is_called_what_it_is(error, kind):
    assert kind_of(error) == kind


def test_a_training_that_diverges_says_so_in_its_outcome(task, tmp_path):
    path = tmp_path / "row" / "plan.yaml"
    path.write_text(path.read_text().replace("learning_rate: 0.0015", "learning_rate: 1.0e+20"))

    result = work(replace(task, steps=6))

    assert result["outcome"] == DIVERGED, result
    assert "diverged at step" in result["message"]
    assert json.loads((tmp_path / "row" / "fold_0-seed_0" / OUTCOME).read_text()) == result


def test_whatever_goes_wrong_becomes_the_outcome(task, monkeypatch):
    def fail(*_arguments, **_options):
        raise DataError("scan.nii.gz: cannot be\nread; check the disk")

    monkeypatch.setattr(child, "train_run", fail)

    assert work(task) == {"outcome": FAILED, "message": "scan.nii.gz: cannot be read; check the disk"}


def test_it_ends_with_its_parent(task, tmp_path):
    """The pipe that its parent holds closes when the parent is killed, whatever with."""
    process = subprocess.Popen(
        [sys.executable, "-m", "focalis.workflows.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        process.stdin.write(json.dumps(asdict(replace(task, steps=100_000))) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["steps"] == 100_000  # it trains
        begin = time.monotonic()
        process.stdin.close()
        assert process.wait(timeout=60) == 1
    assert time.monotonic() - begin < 60
    assert not (tmp_path / "row" / "fold_0-seed_0" / OUTCOME).exists()
