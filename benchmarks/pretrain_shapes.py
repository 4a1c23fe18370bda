"""Train the default network on generated shapes: the weights that a training with few cases may start from.

    python benchmarks/pretrain_shapes.py --task classes --steps 4000 --out runs/shapes/classes

Nothing is read: the patches are made while the network trains (`focalis.dataset.phantoms.shapes`). Tasks:

    classes           background, blob, tube or sheet, for every voxel
    classes+distance  and the distance to the border of the blobs
    masked            the image without noise, from one with blocks cut out
    classes+masked    both, from one with fewer blocks cut out

Heads are outputs of the same last convolution, which whoever takes the weights replaces. The recipe is that of
`focalis.training.train`: optimiser, learning rate, averaged weights, held statistics. A run that was stopped goes on
when the same command is given again, and ends in the same weights. OUT gets metrics.jsonl, checkpoint.safetensors and,
at the end, start.safetensors and record.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from focalis.dataset.phantoms.shapes import CLASSES, blob_distance, block_mask, make_shapes
from focalis.files import sha256_of, whole_file
from focalis.losses import Loss
from focalis.networks import Network, build_network
from focalis.planning import Normalisation, Plan
from focalis.planning.parts import loss_of
from focalis.prediction import Runtime, choose_runtime
from focalis.training.averaging import STATISTICS_HELD_FROM, averaging_decay, follow, hold_statistics
from focalis.training.checkpoint import keep, load_checkpoint, save_checkpoint
from focalis.training.loop import learning_rate
from focalis.training.optimizer import KernelMuon
from focalis.training.start import PRIOR_SHARE
from focalis.workflows.record import provenance, write_json

PATCH, BATCH = (40, 40, 40), 3
CAP_MM = 4.0
CHECKPOINT_SECONDS = 60.0
LOG_EVERY = 20
JUDGED_PATCHES, JUDGED_SEED = 40, 1_000_003
_INTENSITY = 6
"""The stream of randomness that moves intensities; see `focalis.dataset.phantoms.shapes` for the others."""


@dataclass(frozen=True)
class Task:
    """What the outputs are for, and the share of each patch that is cut out.

    The outputs come in this order: the classes, the distance, the image.
    """

    classes: bool = False
    distance: bool = False
    image: bool = False
    hidden: float = 0.0

    @property
    def outputs(self) -> int:
        """Channels of the last convolution."""
        return len(CLASSES) * self.classes + self.distance + self.image


TASKS = {
    "classes": Task(classes=True),
    "classes+distance": Task(classes=True, distance=True),
    "masked": Task(image=True, hidden=0.5),
    "classes+masked": Task(classes=True, image=True, hidden=0.25),
}


@dataclass(frozen=True)
class Batch:
    """Patches, and what the outputs shall be.

    Attributes:
        image, clean: the image as it is given, and whole and without noise, (batch, 1, z, y, x).
        label: the classes, int64 (batch, z, y, x).
        distance: to the border of the blobs, from -1 to 1, (batch, z, y, x); empty where no task asks for it.
        hidden: what is cut out of the image, bool (batch, z, y, x).
    """

    image: Tensor
    clean: Tensor
    label: Tensor
    distance: Tensor
    hidden: Tensor


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, train or go on, write the weights."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=list(TASKS), required=True)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    began = provenance()
    options.out.mkdir(parents=True, exist_ok=True)
    network = pretrain(options.task, options.steps, options.seed, options.out, choose_runtime())
    target = options.out / "start.safetensors"
    with whole_file(target) as temporary:
        tensors = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
        save_file(tensors, temporary, metadata={"task": options.task, "steps": str(options.steps)})
    judged_dice = dice_by_class(network, options.seed) if TASKS[options.task].classes else {}
    record = {
        **began,
        "task": options.task,
        "steps": options.steps,
        "seed": options.seed,
        "patch_zyx": PATCH,
        "batch": BATCH,
        "seconds": read_log(options.out)[-1]["seconds"],
        "dice": judged_dice,
        "sha256": sha256_of(target),
    }
    write_json(options.out / "record.json", record)
    print(f"{target}: {judged_dice}")


def plan() -> Plan:
    """The default plan of voxels that are cubes, one channel; its labels are the shapes."""
    return Plan(
        channels=("image",),
        labels=dict(enumerate(CLASSES[1:], start=1)),
        spacing_zyx_mm=(1.0, 1.0, 1.0),
        normalisation=(Normalisation(),),
        patch_zyx=PATCH,
        batch=BATCH,
    )


def pretrain(name: str, steps: int, seed: int, out: Path, runtime: Runtime) -> Network:
    """Train on shapes for a number of steps, or go on with a run that was stopped; the averaged network."""
    task, settings = TASKS[name], plan()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(settings.network.name, settings.network.strides_zyx, 1, task.outputs)
    if task.classes:
        _set_prior(network, settings.outputs)
    network.to(runtime.device, memory_format=runtime.memory_format).train()
    average = copy.deepcopy(network).eval().requires_grad_(False)
    optimizer = KernelMuon(network, settings.training.learning_rate, settings.training.weight_decay)
    class_loss = loss_of(settings)
    checkpoint, log = out / "checkpoint.safetensors", out / "metrics.jsonl"
    first, seconds_before = 0, 0.0
    if checkpoint.exists():
        state = load_checkpoint(checkpoint, network, average, optimizer)
        if (state["task"], state["steps"], state["seed"]) != (name, steps, seed):
            raise SystemExit(f"{checkpoint}: belongs to another run; give another --out")
        first, seconds_before = state["step"], state["seconds"]
    kept = [row for row in read_log(out) if row["step"] <= first]
    log.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    held_from = round(STATISTICS_HELD_FROM * steps)
    started = saved = time.monotonic()
    rows: list[dict[str, float]] = []
    for step in range(first, steps):
        if step >= held_from:
            hold_statistics(network, average, adopt=step == held_from)
        rate = learning_rate(step, steps, settings)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = make_batch(seed, step, task, BATCH)
        with runtime.autocast():
            logits = network(batch.image.contiguous(memory_format=runtime.memory_format))
        terms = losses(logits.float(), batch, task, class_loss)
        optimizer.zero_grad(set_to_none=True)
        loss = torch.stack(list(terms.values())).sum()
        if not math.isfinite(float(loss.detach())):
            raise SystemExit(f"{out}: diverged at step {step}")
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), settings.training.clip_norm)
        optimizer.step()
        follow(average, network, averaging_decay(step, settings.training.ema_decay))
        rows.append({key: float(value.detach()) for key, value in terms.items()})
        done, seconds = step + 1, seconds_before + time.monotonic() - started
        if done % LOG_EVERY == 0 or done == steps:
            means = {key: round(float(np.mean([row[key] for row in rows])), 5) for key in rows[0]}
            with log.open("a", encoding="utf-8") as file:
                row = {"step": done, **means, "learning_rate": rate, "seconds": round(seconds, 1)}
                file.write(json.dumps(row) + "\n")
            rows = []
        if done == steps or time.monotonic() - saved > CHECKPOINT_SECONDS:
            state = {"step": done, "steps": steps, "seed": seed, "task": name, "seconds": seconds}
            save_checkpoint(checkpoint, keep(network, average, optimizer, state))
            saved = time.monotonic()
    return average


def make_batch(seed: int, step: int, task: Task, count: int) -> Batch:
    """The patches of a step, a pure function of (seed, step).

    A patch of a real image does not have mean 0 and standard deviation 1, for the whole image has: so both are moved.
    """
    images, cleans, labels, distances, hiddens = [], [], [], [], []
    for sample in range(count):
        shapes = make_shapes(PATCH, seed, step, sample)
        rng = np.random.default_rng((seed, _INTENSITY, step, sample))
        scale, shift = np.float32(np.exp(rng.normal(0, 0.25))), np.float32(rng.normal(0, 0.4))
        hidden = np.zeros(PATCH, dtype=bool)
        if task.hidden:
            hidden = block_mask(PATCH, task.hidden, seed, step, sample)
        images.append(np.where(hidden, np.float32(0), shapes.image * scale + shift))
        cleans.append(shapes.clean * scale + shift)
        labels.append(shapes.label.astype(np.int64))
        if task.distance:
            distances.append(blob_distance(shapes.label, shapes.spacing_zyx_mm, CAP_MM) / np.float32(CAP_MM))
        hiddens.append(hidden)
    image, clean, label, hidden_of_all = (
        torch.from_numpy(np.stack(arrays)) for arrays in (images, cleans, labels, hiddens)
    )
    distance = torch.from_numpy(np.stack(distances)) if distances else torch.zeros(0)
    return Batch(image[:, None], clean[:, None], label, distance, hidden_of_all)


def losses(outputs: Tensor, batch: Batch, task: Task, class_loss: Loss) -> dict[str, Tensor]:
    """The terms of the loss by name; each is of the order of one at the start."""
    terms: dict[str, Tensor] = {}
    at = 0
    if task.classes:
        at = len(CLASSES)
        terms["classes"] = class_loss(outputs[:, :at], batch.label, torch.zeros(0))
    if task.distance:
        weight = torch.where(batch.distance.abs() < 1, 1.0, 0.1)
        error = functional.smooth_l1_loss(outputs[:, at], batch.distance, beta=0.1, reduction="none")
        terms["distance"] = (weight * error).sum() / weight.sum()
        at += 1
    if task.image:
        weight = torch.where(batch.hidden, 1.0, 0.2)
        error = functional.smooth_l1_loss(outputs[:, at], batch.clean[:, 0], beta=0.5, reduction="none")
        terms["image"] = (weight * error).sum() / weight.sum()
    return terms


@torch.no_grad()
def dice_by_class(network: Network, seed: int) -> dict[str, float]:
    """Dice per class, pooled over patches that were not trained on."""
    found = np.zeros((len(CLASSES), 3))
    for step in range(JUDGED_PATCHES):
        batch = make_batch(JUDGED_SEED + seed, step, TASKS["classes"], 1)
        predicted = network(batch.image)[:, : len(CLASSES)].argmax(1)
        for value in range(len(CLASSES)):
            truth, drawn = batch.label == value, predicted == value
            found[value] += [int((truth & drawn).sum()), int(truth.sum()), int(drawn.sum())]
    return {
        name: round(float(2 * both / max(truth + drawn, 1)), 4)
        for name, (both, truth, drawn) in zip(CLASSES, found, strict=True)
    }


def read_log(out: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl; none if there is none."""
    path = out / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _set_prior(network: Network, classes: int) -> None:
    """The class outputs start at the share of the shapes, as those of a training do at that of the lesions."""
    share = PRIOR_SHARE / (classes - 1)
    (head,) = network.heads()
    with torch.no_grad():
        head.bias[:classes] = torch.tensor([math.log(1 - PRIOR_SHARE)] + [math.log(share)] * (classes - 1))


if __name__ == "__main__":
    main()
