"""The training loop, visible from top to bottom.

All randomness derives from (seed, step, sample), so a run that was stopped and resumed ends in the same weights as one
that was not: bit for bit on the processor, with the same machine, threads and package versions.
"""

from __future__ import annotations

import copy
import json
import math
import signal
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from io import FileIO
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import nn

from focalis import ranks
from focalis.errors import CollapsedError, DivergedError, FileWarning, PlanError, TrainingError
from focalis.files import write_text
from focalis.lesions import OperatingPoint
from focalis.losses import Loss, merge_undrawn
from focalis.networks import Network, all_outputs
from focalis.planning import Plan
from focalis.planning.parts import loss_of
from focalis.planning.plan import Triple
from focalis.prediction import Runtime, missing_operations_told
from focalis.training.averaging import STATISTICS_HELD_FROM, averaging_decay, follow, hold_statistics
from focalis.training.batches import batches
from focalis.training.checkpoint import Kept, keep, load_checkpoint, save_checkpoint
from focalis.training.hard_negatives import find_mistakes
from focalis.training.joined import joined
from focalis.training.optimizer import KernelMuon
from focalis.training.patches import Patch
from focalis.training.prepared import TrainingCase
from focalis.training.start import Start, first_network
from focalis.training.validation import Watched, operating_point, watch, watched

METRICS, CHECKPOINT = "metrics.jsonl", "checkpoint.safetensors"
VALIDATIONS, STEPS_BETWEEN = 10, 50
"""Cases of the inner split are predicted ten times in a run, but not more often than every so many steps. As often a
plan with `hard_negative_share` has cases of the training searched for false lesions."""
LOG_EVERY = 10
"""Loss and gradient norm are fetched from the device so often; between, nothing waits for it."""
LEAST_GAIN = 0.01
"""A training that raised the Dice at one half by no more stood still."""
WARM_STEPS = 2
CHECKPOINT_SECONDS = 60.0
DROPOUT = 2
"""The stream of a run's randomness that dropout draws from; see `batches` for the others."""
OVERFLOWS = 20
"""So many steps in a row whose gradients are not finite are no longer a gradient scaler that looks for its scale."""
WARN_FROM = 0.5
"""From this share of the steps on, a training that finds no lesion of the inner split is worth a warning."""
SILENT_LOOKS = 3
"""Looks in a row, or all that there were, without a lesion found: one that misses may be chance."""


@dataclass(frozen=True)
class Progress:
    """What a progress bar shows: the step just done of how many, the mean loss, the last look at the inner split.

    Of that: the mean Dice, the same over the cases with a lesion, and how many of how many lesions were found.
    """

    step: int
    steps: int
    loss: float
    val_dice: float | None
    seconds_left: float
    val_dice_with_lesion: float | None = None
    val_lesions: int = 0
    val_found: int = 0


class NothingLearnedWarning(FileWarning):
    """Well into a training, the network finds no lesion."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, after the running step was finished and the checkpoint written."""


def train(
    plan: Plan,
    training: Sequence[TrainingCase],
    validation: Sequence[TrainingCase],
    run: Path,
    *,
    steps: int,
    seed: int,
    runtime: Runtime,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    tell: Callable[[str], None] = lambda _what: None,
    start: Start | None = None,
    give_up: bool = False,
    begin: int = 0,
) -> Network:
    """Train the plan's network for a fixed number of steps and return the averaged weights' network.

    Writes `run`/metrics.jsonl and `run`/checkpoint.safetensors. Several ranks train as one would, see `focalis.ranks`;
    the first of them writes.

    Args:
        training: cases that patches are drawn from.
        validation: cases of the inner split, predicted whole now and then.
        run: an existing folder.
        seed: the run's seed.
        runtime: device and precision.
        resume: go on from the checkpoint, if there is one.
        progress: called after every step.
        tell: called with what is done between two steps, which may take minutes on whole scans.
        start: weights to start from; random ones without it.
        begin: the step at which a finished run ended that is continued: from there the learning rate warms up and falls
            anew. The run's checkpoint must be there.
        give_up: end, instead of a warning, when half of the steps are done and none of the last looks found a watched
            lesion.

    Raises:
        CollapsedError: see `give_up`.
        DivergedError: the loss is no longer finite; the last good weights are in the checkpoint.
        Interrupted: Ctrl-C; the checkpoint holds the last step.
        ModelError: the start is that of another network.
        TrainingError: metrics or checkpoint cannot be written, or the checkpoint is another run's.
    """
    network, average, optimizer = _fresh(plan, seed, runtime, start)
    loss_function = loss_of(plan)
    scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.needs_gradient_scaling)
    checkpoint, metrics = run / CHECKPOINT, run / METRICS
    first, val_dice, seconds_before = 0, None, 0.0
    seen: Watched | None = None
    warned = False
    mistakes: dict[int, Sequence[Triple]] = {}  # by case, where false lesions were found in it
    if resume and checkpoint.exists():
        state = ranks.everywhere(partial(load_checkpoint, checkpoint, network, average, optimizer))
        continues = begin == state["step"] == state["steps"]
        if (state["steps"] != steps and not continues) or state["seed"] != seed:
            raise ranks.agreed(
                TrainingError.at(
                    checkpoint,
                    f"belongs to {state['steps']} steps with seed {state['seed']}, not {steps} with seed "
                    f"{seed}",
                    "start again in a new folder",
                )
            )
        first, val_dice, seconds_before = state["step"], state["val_dice"], state["seconds"]
        mistakes |= {int(case): places for case, places in state.get("mistakes", {}).items()}
        if runtime.needs_gradient_scaling:
            scaler.load_state_dict(state["scaler"])
    if first < begin:
        raise ranks.agreed(
            TrainingError.at(checkpoint, "is gone, so the run cannot be continued", "train in a new folder")
        )
    ranks.from_first(partial(_keep_rows_before, metrics, first))
    finds = ranks.from_first(lambda: [row["val_found"] for row in read_metrics(run) if "val_found" in row])
    forward = joined(network)

    def trained_s() -> float:
        return seconds_before + time.monotonic() - started - watched

    def kept_at(step: int) -> Kept:
        state = {
            "step": step,
            "steps": steps,
            "seed": seed,
            "val_dice": val_dice,
            "seconds": trained_s(),
            "scaler": scaler.state_dict(),
            "mistakes": dict(mistakes),
        }
        return keep(network, average, optimizer, state)

    held_from = begin + round(STATISTICS_HELD_FROM * (steps - begin))
    validate_every = max(STEPS_BETWEEN, math.ceil(steps / VALIDATIONS))
    started = saved = time.monotonic()
    watched = 0.0  # seconds for the inner split, on which no weight depends: they do not count as training
    losses: list[float] = []
    norm, overflows = 0.0, 0
    pending: list[torch.Tensor] = []  # loss and gradient norm of each step, still on the device
    kept = kept_at(first)

    def drawn() -> Generator[Patch, None, None]:
        """All batches. None is drawn ahead of the search for false lesions that comes before it."""
        block = validate_every if plan.training.hard_negative_share else steps
        for at in range(first - first % block, steps, block):
            if at and at >= first:
                tell("search the training cases for false lesions")
                mistakes.update(find_mistakes(plan, average, training, runtime, seed, at // block - 1))
            coming = range(max(at, first), min(at + block, steps))
            yield from batches(training, plan, seed, coming, runtime.device, mistakes=mistakes)

    def fetch(done: int) -> None:
        """Fetch loss and norm of the steps since the last time; if they are sound, what there is now is kept."""
        nonlocal kept, norm, overflows
        fetched = torch.stack(pending).tolist()
        if len({str(each) for each in ranks.gathered(fetched)}) > 1:
            raise ranks.agreed(
                TrainingError.at(
                    run,
                    f"the loss {plan.loss.name} differs between the processes: it does not sum over them",
                    "take its sums through focalis.ranks.total, or train in one process",
                )
            )
        for number, (loss, norm) in enumerate(fetched, done - len(pending)):
            overflows = 0 if math.isfinite(norm) else overflows + 1
            if not math.isfinite(loss) or overflows == (OVERFLOWS if scaler.is_enabled() else 1):
                ranks.from_first(partial(save_checkpoint, checkpoint, kept))
                raise ranks.agreed(
                    DivergedError.at(
                        run,
                        f"diverged at step {number} (loss {loss}, gradient norm {norm}); the weights after "
                        f"{kept.state['step']} steps are kept in {checkpoint.name}",
                        f"lower training.learning_rate ({plan.training.learning_rate:g}) in the plan",
                    )
                )
            losses.append(loss)
        pending.clear()
        kept = kept_at(done)

    with (
        metrics.open("ab", buffering=0) as log,
        _ctrl_c_noticed() as ctrl_c,
        torch.random.fork_rng([runtime.device] if runtime.device.type == "cuda" else []),
        closing(drawn()) as prepared,
    ):
        for step, batch in zip(range(first, steps), prepared, strict=True):
            rate = learning_rate(step - begin, steps - begin, plan)
            if step >= held_from:
                hold_statistics(network, average, adopt=step == held_from)
            stream = (seed, DROPOUT, step, *([ranks.rank()] if ranks.rank() else []))
            _seed(int(np.random.default_rng(stream).integers(2**62)), runtime.device)
            clip = plan.training.clip_norm
            pending.append(
                _step(network, optimizer, scaler, loss_function, batch, rate, clip, runtime, forward)
            )
            follow(average, network, averaging_decay(step, plan.training.ema_decay))
            done = step + 1
            looks = done % validate_every == 0 or done == steps
            if looks or done % LOG_EVERY == 0 or step == first:
                fetch(done)
            row: dict[str, Any] = {"step": done, "loss": 0.0, "learning_rate": rate, "gradient_norm": norm}
            if overflows:
                del row["gradient_norm"]  # JSON has no infinity
            if looks:
                began = time.monotonic()
                if validation:
                    tell("look at the inner split")
                seen = watch(plan, average, validation, runtime)
                val_dice = seen.dice if seen else None
                row |= {"val_dice": None} if seen is None else _columns(seen)
                finds += [seen.found] if seen else []
                watched += time.monotonic() - began
            if looks or done % LOG_EVERY == 0:
                row["loss"] = float(np.mean(losses[-LOG_EVERY:]))
                row["seconds"] = round(trained_s(), 1)
                ranks.from_first(partial(_append, row, log, metrics))
            silent = looks and seen and seen.lesions and not any(finds[-SILENT_LOOKS:])
            if seen and silent and WARN_FROM * steps <= done < steps and not warned:
                warned = True
                what = f"none of the {seen.lesions} lesions that are watched is found after {done} of {steps} steps"
                what += f", though {max(finds)} were before" if any(finds) else ""
                if give_up:
                    raise CollapsedError(what)
                fault = (
                    f"{what}, and the Dice over the cases with a lesion is {seen.dice_with_lesion or 0:.3f}"
                )
                advice = (
                    "it may learn nothing: if the loss no longer falls, stop and check the labels or lower "
                    "training.learning_rate in the plan"
                )
                warnings.warn(NothingLearnedWarning(run, fault, advice), stacklevel=2)
            if progress:
                left = (time.monotonic() - started) / (done - first) * (steps - done)
                loss = float(np.mean(losses[-LOG_EVERY:]))
                looked = (seen.dice_with_lesion, seen.lesions, seen.found) if seen else ()
                progress(Progress(done, steps, loss, val_dice, left, *looked))
            stops, saves = ranks.any_of([ctrl_c.pressed, time.monotonic() - saved > CHECKPOINT_SECONDS])
            if stops or done == steps or saves:
                if pending:
                    fetch(done)
                kept = kept_at(done)
                ranks.from_first(partial(save_checkpoint, checkpoint, kept))
                saved = time.monotonic()
            if stops and done < steps:
                raise ranks.agreed(
                    Interrupted(f"{run}: stopped after step {done} of {steps}; go on with --resume")
                )
    return average


def untrained_look(
    plan: Plan, validation: Sequence[TrainingCase], *, seed: int, runtime: Runtime, start: Start | None
) -> dict[str, Any] | None:
    """What the looks at the inner split would have said before the first step, and at how many cases they look; None
    without cases."""
    seen = watch(plan, _fresh(plan, seed, runtime, start)[1], validation, runtime)
    return None if seen is None else {**_columns(seen), "cases": len(watched(validation))}


def stood_still(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether a training raised the Dice at one half, of the watched cases with a lesion, by hardly anything.

    Args:
        before: what `untrained_look` said.
        after: the last row of the metrics.
    """
    was, now = (look.get("val_dice_with_lesion") for look in (before, after))
    return was is not None and now is not None and now <= was + LEAST_GAIN


def untrained_point(
    plan: Plan,
    validation: Sequence[TrainingCase],
    aim: str,
    *,
    seed: int,
    runtime: Runtime,
    start: Start | None,
) -> OperatingPoint:
    """The operating point that would have been chosen before the first step, with what it finds."""
    return operating_point(plan, _fresh(plan, seed, runtime, start)[1], validation, runtime, aim)


def _columns(seen: Watched) -> dict[str, Any]:
    """What a look at the inner split adds to a row of the metrics."""
    return {
        "val_dice": seen.dice,
        "val_dice_with_lesion": seen.dice_with_lesion,
        "val_lesions": seen.lesions,
        "val_found": seen.found,
    }


def learning_rate(step: int, steps: int, plan: Plan) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    warmup = max(1, round(plan.training.warmup_share * steps))
    if step < warmup:
        return plan.training.learning_rate * (step + 1) / warmup
    return (
        plan.training.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
    )


def seconds_per_step(
    plan: Plan, training: Sequence[TrainingCase], runtime: Runtime, measured: int = 8
) -> float:
    """The time of a step, data included, measured on a network that is thrown away.

    Steps with the batch's statistics and with held ones cost differently; their medians, of `measured` steps each,
    count as often as a training takes them.
    """
    network, average, optimizer = _fresh(plan, 0, runtime)
    forward = joined(network)
    loss_function = loss_of(plan)
    scaler = torch.amp.GradScaler(runtime.device.type, enabled=runtime.needs_gradient_scaling)
    times = []
    held_from = WARM_STEPS + measured
    begin = time.perf_counter()
    for step, batch in enumerate(batches(training, plan, 0, range(held_from + measured), runtime.device)):
        if step >= held_from:
            hold_statistics(network, average, adopt=step == held_from)
        clip = plan.training.clip_norm
        numbers = _step(network, optimizer, scaler, loss_function, batch, 1e-4, clip, runtime, forward)
        follow(average, network, 0.9)
        numbers.tolist()  # waits for the device
        now = time.perf_counter()
        times.append(now - begin)
        begin = now
    free, held = (float(np.median(part)) for part in (times[WARM_STEPS:held_from], times[held_from:]))
    return STATISTICS_HELD_FROM * free + (1 - STATISTICS_HELD_FROM) * held


def steps_in(minutes: float, plan: Plan, training: Sequence[TrainingCase], runtime: Runtime) -> int:
    """The number of steps that fit into a time; at least one. Measured, so noisy.

    Looks at the inner split come on top: no weight depends on them, and they take a network that needs tiles far longer
    than one that takes a case in one pass. Counted, they would take training from the former.
    """
    return max(1, int(60 * minutes / seconds_per_step(plan, training, runtime)))


def _seed(seed: int, device: torch.device) -> None:
    """Seed what dropout draws from on the CPU and on this device; other devices are left alone."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def _fresh(
    plan: Plan, seed: int, runtime: Runtime, start: Start | None = None
) -> tuple[Network, Network, torch.optim.Optimizer]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network, _ = first_network(plan, start)
    network.to(runtime.device, memory_format=runtime.memory_format)  # type: ignore[call-overload]
    average = copy.deepcopy(network).eval().requires_grad_(False)
    settings = plan.training
    return network, average, KernelMuon(network, settings.learning_rate, settings.weight_decay)


def _step(
    network: Network,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    loss_function: Loss,
    batch: Patch,
    rate: float,
    clip_norm: float,
    runtime: Runtime,
    forward: nn.Module,
) -> torch.Tensor:
    """One optimiser step; the loss and the gradient norm, (2,), on the device: nothing waits for it.

    If one of them is not finite, the weights are spoilt, unless a gradient scaler skips the step.
    """
    image = batch.image.contiguous(memory_format=runtime.memory_format)
    targets = [each for each in (batch.label, batch.distance_mm, batch.nearest) if each is not None]
    for group in optimizer.param_groups:
        group["lr"] = rate
    with missing_operations_told(runtime.device):
        with runtime.autocast():
            outputs = all_outputs(forward(image))
        if batch.undrawn is not None:
            outputs = [merge_undrawn(logits, batch.undrawn) for logits in outputs]
        weighted = zip(network.output_weights(), outputs, strict=True)
        terms = [weight * loss_function(logits, *targets) for weight, logits in weighted]
        if terms[0].numel() != 1:
            raise ranks.agreed(
                PlanError(
                    f"the loss returns {tuple(terms[0].shape)} numbers; let it return one, such as their mean"
                )
            )
        loss = torch.stack(terms).sum()
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(network.parameters(), clip_norm)
        scaler.step(optimizer)
        scaler.update()
    return torch.stack([loss.detach().float(), norm.float()])


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl, in the order of the steps."""
    return [json.loads(row) for row in (run / METRICS).read_text(encoding="utf-8").splitlines()]


def _keep_rows_before(metrics: Path, step: int) -> None:
    """Drop the rows that a resumed run will write again."""
    rows = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    kept = [row for row in rows if _step_of(row) <= step]
    write_text(metrics, "".join(f"{row}\n" for row in kept))


def _append(row: dict[str, Any], log: FileIO, metrics: Path) -> None:
    """Write a row whole; nothing is left in a buffer, so that closing the file cannot fail again."""
    line = f"{json.dumps(row)}\n".encode()
    advice = "free space on its disk and go on with --resume"
    with TrainingError.of_system(metrics, advice, "cannot be written"):
        while line:
            line = line[log.write(line) :]


def _step_of(row: str) -> float:
    try:
        return float(json.loads(row)["step"])
    except (ValueError, KeyError):
        return math.inf


@dataclass
class _CtrlC:
    pressed: bool = False


@contextmanager
def _ctrl_c_noticed() -> Iterator[_CtrlC]:
    """Ctrl-C only raises a flag inside this context, so that a step is never torn apart; outside the main thread
    it is left alone."""
    state = _CtrlC()

    def notice(_signal: int, _frame: FrameType | None) -> None:
        state.pressed = True

    try:
        before = signal.signal(signal.SIGINT, notice)
    except ValueError:
        yield state
        return
    try:
        yield state
    finally:
        signal.signal(signal.SIGINT, before)
