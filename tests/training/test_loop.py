"""The loop: it learns, stops and goes on bit for bit, and keeps what is good when it fails."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from focalis.errors import CollapsedError, PlanError, TrainingError
from focalis.planning import LossSettings
from focalis.prediction import Runtime
from focalis.training import Interrupted, NothingLearnedWarning, batches, loop, steps_in, train
from focalis.training.loop import learning_rate
from focalis.training.start import Start
from focalis.training.validation import Watched

RUNTIME = Runtime(torch.device("cpu"), torch.float32)


def run(plan, cases, home, steps=4, **options):
    home.mkdir(exist_ok=True)
    return train(plan, cases[:3], cases[3:], home, steps=steps, seed=0, runtime=RUNTIME, **options)


def rows(home):
    return [json.loads(line) for line in (home / "metrics.jsonl").read_text().splitlines()]


def test_it_learns_to_find_a_ball(plan, cases, tmp_path):
    run(plan, cases, tmp_path, steps=60)
    dice = [row["val_dice"] for row in rows(tmp_path) if "val_dice" in row]
    assert dice[-1] > 0.7
    assert rows(tmp_path)[-1]["loss"] < 0.7 * rows(tmp_path)[0]["loss"]


def test_it_learns_with_a_loss_that_counts_lesions(plan, numbered_cases, tmp_path):
    counting = plan.model_copy(update={"loss": LossSettings(name="two_way_dice_cross_entropy")})
    run(counting, numbered_cases, tmp_path, steps=30)
    assert rows(tmp_path)[-1]["loss"] < 0.8 * rows(tmp_path)[0]["loss"]


def test_a_loss_that_is_not_one_number_is_refused(plan, cases, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "loss_of", lambda _plan: lambda logits, *_targets: logits[:, 0])
    with pytest.raises(PlanError, match=r"the loss returns \(.*\) numbers; let it return one"):
        run(plan, cases, tmp_path)


def test_training_ends_on_the_statistics_that_prediction_uses(plan, cases, tmp_path, monkeypatch):
    """Batch normalisation: its own batch's statistics first, then the averaged ones, fixed."""
    seen = []
    real = loop._step

    def watched(network, *rest):
        layer = next(m for m in network.modules() if isinstance(m, nn.BatchNorm3d))
        seen.append((layer.training, layer.running_mean.clone()))
        return real(network, *rest)

    monkeypatch.setattr(loop, "_step", watched)
    average = run(plan, cases, tmp_path, steps=10)
    assert [training for training, _ in seen] == [True] * 4 + [False] * 6
    held = seen[4][1]
    assert not torch.equal(seen[3][1], held)
    assert all(torch.equal(mean, held) for _, mean in seen[4:])
    final = next(m for m in average.modules() if isinstance(m, nn.BatchNorm3d)).running_mean
    assert torch.allclose(final, held, atol=1e-6)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(plan, cases, tmp_path):
    one, two = (run(plan, cases, tmp_path / name).state_dict() for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    home = tmp_path / "three"
    home.mkdir()
    three = train(plan, cases[:3], cases[3:], home, steps=4, seed=1, runtime=RUNTIME).state_dict()
    assert not torch.equal(one["stem.weight"], three["stem.weight"])


def test_training_starts_from_the_weights_it_is_given(plan, cases, tmp_path):
    """Steps of next to no size leave them where they were; the output layer is the run's own, and begins at zero."""
    start = run(plan, cases, tmp_path / "start").state_dict()
    still = plan.training.model_copy(update={"learning_rate": 1e-12, "weight_decay": 0.0})
    plan = plan.model_copy(update={"training": still})
    found, fresh = (
        run(plan, cases, tmp_path / name, steps=1, start=given).state_dict()
        for name, given in (("from", Start("mine", "", start)), ("fresh", None))
    )
    kernels = [name for name in start if name.endswith(".2.weight") and "output" not in name]
    assert len(kernels) > 5
    assert all(torch.allclose(found[name], start[name], atol=1e-6) for name in kernels)
    assert not any(torch.allclose(fresh[name], start[name], atol=1e-6) for name in kernels)
    assert found["output.2.weight"].abs().max() < 1e-6


SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path[:0] = [{here!r}, str(Path({here!r}).parent)]
from conftest import ball_case
from focalis.planning import read_plan
from focalis.prediction import Runtime
from focalis.training import loop, train
loop.CHECKPOINT_SECONDS = 0.0
cases = [ball_case(f"case{{i}}", seed=i, radius=3 + i % 3) for i in range(4)]
home = Path(sys.argv[1])
def say(progress):
    print(progress.step, flush=True)
train(read_plan(home / "plan.yaml"), cases[:3], cases[3:], home, steps=7, seed=3,
      runtime=Runtime(torch.device("cpu"), torch.float32), resume=True, progress=say)
"""


@pytest.mark.slow
def test_a_run_that_was_killed_ends_in_the_same_weights_as_one_that_was_not(plan, tmp_path):
    from focalis.planning import write_plan

    homes = [tmp_path / "whole", tmp_path / "killed"]
    for home in homes:
        home.mkdir()
        write_plan(plan, home / "plan.yaml")
    command = [sys.executable, "-c", SCRIPT.format(here=str(Path(__file__).parent))]
    subprocess.run([*command, str(homes[0])], check=True, capture_output=True, timeout=240)

    with subprocess.Popen([*command, str(homes[1])], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) >= 3:
                os.kill(process.pid, signal.SIGKILL)
                break
        process.wait(timeout=60)
    assert process.returncode == -signal.SIGKILL
    resumed = subprocess.run(
        [*command, str(homes[1])], check=True, capture_output=True, text=True, timeout=240
    )
    assert int(resumed.stdout.split()[0]) > 1  # it went on, it did not start again

    whole, killed = (load_file(home / "checkpoint.safetensors") for home in homes)
    assert whole.keys() == killed.keys()
    assert [name for name in whole if not torch.equal(whole[name], killed[name])] == []
    steps = [[row["step"] for row in rows(home)] for home in homes]
    assert steps[0] == steps[1]


def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on(plan, cases, tmp_path):
    def press(progress):
        if progress.step == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match=r"after step 2 of 6.*--resume"):
        run(plan, cases, tmp_path, steps=6, progress=press)
    seen = []
    run(plan, cases, tmp_path, steps=6, resume=True, progress=lambda progress: seen.append(progress.step))
    assert seen == [3, 4, 5, 6]


def test_a_run_that_diverges_says_so_and_keeps_the_last_good_weights(plan, cases, tmp_path, monkeypatch):
    real = batches.draw_batch

    def poisoned(*given):
        draft = real(*given)
        if given[-1] == 12:
            draft.patch.image[0] = torch.inf
        return draft

    monkeypatch.setattr(batches, "draw_batch", poisoned)
    told = r"diverged at step 12.*after 10 steps are kept in checkpoint.*learning_rate"
    with pytest.raises(TrainingError, match=told):
        run(plan, cases, tmp_path, steps=20)
    kept = load_file(tmp_path / "checkpoint.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in kept.values())
    seen = []
    with pytest.raises(TrainingError, match=r"step 12.*after 11 steps are kept"):
        run(
            plan, cases, tmp_path, steps=20, resume=True, progress=lambda progress: seen.append(progress.step)
        )
    assert seen[0] == 11


def test_loss_and_norm_are_fetched_when_they_are_logged(plan, cases, tmp_path, monkeypatch):
    """What needs a number in Python waits for the device: between logs nothing does. The optimiser's counters lie on
    the CPU, and the loss is a plain one: on a CPU `one_hot` looks at its values, which it does not on a GPU."""
    fetched, step = [], [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            name = func.overloadpacket._qualified_op_name
            if name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero"):
                fetched.append((step[0], name))
            return func(*args, **(kwargs or {}))

    real = loop._step

    def watched(network, optimizer, *rest):
        step[0] += 1
        monkeypatch.setattr(optimizer, "step", lambda *_: None)
        with Watch():
            return real(network, optimizer, *rest)

    monkeypatch.setattr(loop, "_step", watched)
    monkeypatch.setattr(loop, "loss_of", lambda _: lambda logits, *_: logits.square().mean())
    run(plan, cases, tmp_path, steps=12)
    assert fetched == []
    assert step == [12]


def test_only_the_random_state_of_the_chosen_device_is_set_aside(plan, cases, tmp_path, monkeypatch):
    forked = []
    real = torch.random.fork_rng
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: forked.append(devices) or real(devices))
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    run(plan, cases, tmp_path, steps=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert forked
    assert all(devices == [] for devices in forked)


def test_gradients_that_stay_infinite_end_the_run(plan, cases, tmp_path, monkeypatch):
    # With a gradient scaler a step whose gradients are infinite is skipped, and a lower scale tried; but not forever.
    real = loop._step
    monkeypatch.setattr(loop, "_step", lambda *given: torch.stack([real(*given)[0], torch.tensor(torch.inf)]))
    scaled = torch.amp.GradScaler("cpu", enabled=True)
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *_, **__: scaled)
    with pytest.raises(TrainingError, match=f"diverged at step {loop.OVERFLOWS - 1}.*gradient norm inf"):
        run(plan, cases, tmp_path, steps=loop.OVERFLOWS + 5)
    assert all("gradient_norm" not in row for row in rows(tmp_path))


def test_a_checkpoint_of_another_optimiser_is_refused(plan, cases, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "KernelMuon", lambda network, *_: torch.optim.AdamW(network.parameters()))
    run(plan, cases, tmp_path, steps=2)
    monkeypatch.undo()
    with pytest.raises(TrainingError, match="state of another optimiser, AdamW"):
        run(plan, cases, tmp_path, steps=2, resume=True)


def test_cases_without_foreground_train(plan, empty_cases, tmp_path):
    run(plan, empty_cases, tmp_path, steps=6)
    assert np.isfinite([row["loss"] for row in rows(tmp_path)]).all()


def test_a_checkpoint_of_another_run_is_refused(plan, cases, tmp_path):
    run(plan, cases, tmp_path, steps=2)
    with pytest.raises(TrainingError, match="belongs to 2 steps"):
        run(plan, cases, tmp_path, steps=3, resume=True)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_damaged_checkpoint_is_refused_in_one_line(plan, cases, tmp_path, content):
    (tmp_path / "checkpoint.safetensors").write_bytes(content)
    with pytest.raises(TrainingError, match="cannot be resumed from") as caught:
        run(plan, cases, tmp_path, resume=True)
    assert "\n" not in str(caught.value)


def test_the_learning_rate_warms_up_and_decays_to_nothing(plan):
    rates = [learning_rate(step, 100, plan) for step in range(100)]
    peak = plan.training.learning_rate
    assert rates[0] == pytest.approx(peak / 5)
    assert max(rates) == pytest.approx(peak)
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] < 0.01 * peak


def test_the_first_prediction_is_mostly_background(plan):
    network, _, _ = loop._fresh(plan, 0, RUNTIME)
    with torch.no_grad():
        p = torch.softmax(network.eval()(torch.randn(1, 1, 16, 16, 16)), 1)[:, 1]
    assert 0.001 < float(p.median()) < 0.2


def test_minutes_become_steps_in_proportion(plan, cases):
    few, many = (steps_in(minutes, plan, cases[:3], RUNTIME) for minutes in (0.05, 0.5))
    assert 1 <= few < many


def test_looking_at_the_inner_split_is_not_training_time(plan, cases, tmp_path, monkeypatch):
    """Or a network that predicts slowly would be given less training for the same minutes."""
    looks = []
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 1e5 * len(looks))
    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(loop, "STEPS_BETWEEN", 1)
    monkeypatch.setattr(loop, "watch", lambda *_: looks.append(1))
    run(plan, cases, tmp_path, steps=3)
    assert len(looks) == 3
    assert 0 < rows(tmp_path)[-1]["seconds"] < 1e5


def test_bfloat16_trains(plan, cases, tmp_path):
    network = train(
        plan, cases[:3], [], tmp_path, steps=2, seed=0, runtime=Runtime(torch.device("cpu"), torch.bfloat16)
    )
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_gpu_trains(plan, cases, tmp_path, dtype):
    runtime = Runtime(torch.device("cuda"), dtype)
    train(plan, cases[:3], cases[3:], tmp_path, steps=4, seed=0, runtime=runtime)
    assert rows(tmp_path)[-1]["val_dice"] >= 0


def test_dropout_draws_from_the_run_s_seed_alone(plan, cases, tmp_path):
    network = plan.network.model_copy(update={"name": "densevoxnet"})
    dropping = plan.model_copy(update={"network": network})
    weights = []
    for name in ("one", "two"):
        torch.manual_seed(len(weights))
        weights.append(run(dropping, cases, tmp_path / name, steps=2).state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_halfway_without_a_lesion_found_is_worth_a_warning(plan, cases, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "STEPS_BETWEEN", 1)
    monkeypatch.setattr(loop, "watch", lambda *_: Watched(0.5, 0.0, 3, 0))
    with pytest.warns(
        NothingLearnedWarning, match="none of the 3 lesions that are watched is found after 2 of 3"
    ) as caught:
        run(plan, cases, tmp_path, steps=3)
    assert len(caught) == 1
    assert rows(tmp_path)[-1]["val_dice_with_lesion"] == 0


def test_a_training_that_may_give_up_ends_there(plan, cases, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "STEPS_BETWEEN", 1)
    monkeypatch.setattr(loop, "watch", lambda *_: Watched(0.5, 0.0, 3, 0))
    with pytest.raises(
        CollapsedError, match="none of the 3 lesions that are watched is found after 2 of 4 steps"
    ):
        run(plan, cases, tmp_path, steps=4, give_up=True)


def test_what_finds_a_lesion_does_not_give_up(plan, cases, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "STEPS_BETWEEN", 1)
    monkeypatch.setattr(loop, "watch", lambda *_: Watched(0.5, 0.1, 3, 1))
    run(plan, cases, tmp_path, steps=4, give_up=True)
    assert rows(tmp_path)[-1]["step"] == 4


def stop_at(step):
    """Progress that presses Ctrl-C after a step."""

    def press(progress):
        if progress.step == step:
            signal.raise_signal(signal.SIGINT)

    return press


def looks_that_find(monkeypatch, *found):
    """Looks after every step, which find so many of three lesions one after the other."""
    monkeypatch.setattr(loop, "STEPS_BETWEEN", 1)
    coming = iter(found)
    monkeypatch.setattr(loop, "watch", lambda *_: Watched(0.5, 0.1, 3, next(coming)))


@pytest.mark.filterwarnings("error::focalis.training.loop.NothingLearnedWarning")
@pytest.mark.parametrize("give_up", [False, True])
@pytest.mark.parametrize(
    "found", [[1] * 8 + [0] * 2, [0, 0, 0, 0, 2, 0, 0, 3, 0, 0], [0, 0, 1, 0, 0, 1, 0, 0, 1, 0]]
)
def test_a_look_or_two_that_miss_do_not_throw_away_what_was_found_before(
    plan, cases, tmp_path, monkeypatch, give_up, found
):
    looks_that_find(monkeypatch, *found)
    run(plan, cases, tmp_path, steps=10, give_up=give_up)
    assert [row["val_found"] for row in rows(tmp_path)] == found


@pytest.mark.parametrize(
    ("found", "step"),
    [([2, 3, 3, 0, 0, 0], 6), ([0, 0, 0, 1, 0, 0, 0], 7), ([1, 0, 0, 0, 0], 5)],
)
def test_a_training_that_falls_silent_ends_too(plan, cases, tmp_path, monkeypatch, found, step):
    looks_that_find(monkeypatch, *found, 0, 0, 0, 0)
    said = f"none of the 3 lesions that are watched is found after {step} of 10 steps, though {max(found)} were before"
    with pytest.raises(CollapsedError, match=said):
        run(plan, cases, tmp_path, steps=10, give_up=True)


def test_a_training_that_falls_silent_warns_once(plan, cases, tmp_path, monkeypatch):
    looks_that_find(monkeypatch, 1, 1, 0, 0, 0, 0, 0, 0)
    with pytest.warns(NothingLearnedWarning, match="after 5 of 8 steps, though 1 were before") as caught:
        run(plan, cases, tmp_path, steps=8)
    assert len(caught) == 1


def test_a_resumed_training_knows_what_was_found_before_it_was_stopped(plan, cases, tmp_path, monkeypatch):
    looks_that_find(monkeypatch, 0, 1, 0, 0, 1, 0)
    with pytest.raises(Interrupted):
        run(plan, cases, tmp_path, steps=6, give_up=True, progress=stop_at(2))
    run(plan, cases, tmp_path, steps=6, give_up=True, resume=True)
    assert [row["val_found"] for row in rows(tmp_path)] == [0, 1, 0, 0, 1, 0]


def test_what_was_found_after_the_checkpoint_is_not_known_to_the_resumed_training(
    plan, cases, tmp_path, monkeypatch
):
    looks_that_find(monkeypatch, 0, 0, 0)
    with pytest.raises(Interrupted):
        run(plan, cases, tmp_path, steps=4, give_up=True, progress=stop_at(1))
    with (tmp_path / "metrics.jsonl").open("a") as log:
        log.write('{"step": 2, "val_found": 3}\n')
    with pytest.raises(CollapsedError):
        run(plan, cases, tmp_path, steps=4, give_up=True, resume=True)
    assert [row["step"] for row in rows(tmp_path)] == [1, 2]


@pytest.mark.parametrize("before", [True, False])
def test_a_checkpoint_that_cannot_be_written_leaves_the_earlier_one(plan, cases, tmp_path, before):
    if before:
        run(plan, cases, tmp_path, steps=4)
    earlier = (tmp_path / "checkpoint.safetensors").read_bytes() if before else None
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        with pytest.raises(TrainingError, match=r"checkpoint cannot be written \(.+large.*\).*--resume"):
            run(plan, cases, tmp_path, steps=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    left = tmp_path / "checkpoint.safetensors"
    assert (left.read_bytes() if left.exists() else None) == earlier
    assert {path.name for path in tmp_path.iterdir()} <= {"checkpoint.safetensors", "metrics.jsonl"}


@pytest.mark.parametrize("room", [0, 50])
def test_metrics_that_cannot_be_written_end_the_run_and_it_goes_on(plan, cases, tmp_path, room):
    fails_at = []
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(progress):
        fails_at.append(progress.step)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))

    try:
        with pytest.raises(
            TrainingError, match=r"metrics\.jsonl: cannot be written \(.+\); free space .*--resume"
        ):
            run(plan, cases, tmp_path, steps=4, progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert fails_at == [1, 2, 3]
    assert (tmp_path / "metrics.jsonl").stat().st_size == room

    run(plan, cases, tmp_path, steps=4, resume=True)
    assert [row["step"] for row in rows(tmp_path)] == [4]


def test_a_finished_run_goes_on_with_a_new_decay_and_the_same_weights_if_it_is_stopped(plan, cases, tmp_path):
    run(plan, cases, tmp_path / "a", steps=3)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    whole = run(plan, cases, tmp_path / "a", steps=7, resume=True, begin=3)
    assert [row["step"] for row in rows(tmp_path / "a")] == [3, 7]
    assert rows(tmp_path / "a")[-1]["learning_rate"] == learning_rate(3, 4, plan)

    def stop(progress):
        if progress.step == 5:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        run(plan, cases, tmp_path / "b", steps=7, resume=True, begin=3, progress=stop)
    resumed = run(plan, cases, tmp_path / "b", steps=7, resume=True, begin=3)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_run_without_its_checkpoint_does_not_go_on(plan, cases, tmp_path):
    with pytest.raises(TrainingError, match="is gone, so the run cannot be continued"):
        run(plan, cases, tmp_path, steps=7, resume=True, begin=3)
