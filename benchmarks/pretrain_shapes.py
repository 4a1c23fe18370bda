"""Train a network on generated shapes: the weights that a training with few cases may start from.

    python benchmarks/pretrain_shapes.py --steps 3000 --out runs/shapes

Nothing is read: volumes are generated first (`focalis.dataset.phantoms.shapes`), and the network learns to name every
voxel of random patches of them background, blob, tube or sheet. The recipe is that of `focalis.training.train`:
optimiser, learning rate, averaged weights, held statistics. The weights that are written have an output layer of two:
what is a blob and what is not, for a training on lesions to begin with. A run that was stopped goes on when the same
command is given again, and ends in the same weights. OUT gets metrics.jsonl, checkpoint.safetensors and, at the end,
start.safetensors and record.json.

`--task` has the network learn something else or something more: how far each voxel is from the nearest boundary between
shapes (`distance`), and the image where cubes of it were taken out (`masked`); beside the classes one patch of a step
has holes, alone all have. `--network` trains another network by the same recipe.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy import ndimage
from torch import Tensor, nn

from focalis.dataset.phantoms.shapes import BLOB, CLASSES, make_shapes
from focalis.files import sha256_of, whole_file
from focalis.losses import Loss
from focalis.networks import Network, all_outputs
from focalis.planning import NetworkSettings, Normalisation, Plan
from focalis.planning.parts import loss_of
from focalis.prediction import Runtime, choose_runtime
from focalis.training import keep_freed_memory, trusted_to_train
from focalis.training.averaging import STATISTICS_HELD_FROM, averaging_decay, follow, hold_statistics
from focalis.training.checkpoint import keep, load_checkpoint, save_checkpoint
from focalis.training.loop import learning_rate
from focalis.training.optimizer import KernelMuon
from focalis.training.start import ANY_LESION, OUTPUT, Start, first_network
from focalis.workflows.record import provenance, write_json

VOLUMES, SIDE = 400, 64
PATCH, BATCH = (40, 40, 40), 3
CHECKPOINT_SECONDS = 60.0
LOG_EVERY = 20
JUDGED_VOLUMES, JUDGED_PATCHES, JUDGED_SEED = 40, 40, 1_000_003
_CROP, _HOLES = 8, 9
"""The streams of randomness that patches are cut by and holes are made by; see `focalis.dataset.phantoms.shapes` for
the others."""
NAMED, DISTANCE, MASKED = "classes", "distance", "masked"
TASKS = (NAMED, f"{NAMED}+{DISTANCE}", f"{NAMED}+{MASKED}", f"{NAMED}+{DISTANCE}+{MASKED}", MASKED)
FARTHEST = 8.0
"""Voxels from a boundary from which on all distances are alike."""
HOLES, HOLE_SIDE = 0.5, 8
"""The share of a patch that is holes, cubes of so many voxels a side."""


@dataclass(frozen=True)
class Volumes:
    """Generated volumes: images float16 (n, z, y, x), the classes of their voxels uint8 of the same shape."""

    images: NDArray[np.float16]
    labels: NDArray[np.uint8]

    @classmethod
    def make(cls, seed: int, count: int) -> Volumes:
        """So many of the set of a seed."""
        made = [make_shapes(SIDE, seed, number) for number in range(count)]
        return cls(
            np.stack([image.astype(np.float16) for image, _ in made]), np.stack([label for _, label in made])
        )


@dataclass(frozen=True)
class Run:
    """What a pretraining depends on; one that was stopped goes on if all of it is the same."""

    steps: int
    seed: int
    volumes: int = VOLUMES
    task: str = NAMED
    network: str = "dense"


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, train or go on, write the weights."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--volumes", type=int, default=VOLUMES, help="how many are generated")
    parser.add_argument("--task", choices=TASKS, default=NAMED)
    parser.add_argument("--network", choices=("dense", "small-unet", "nnunet"), default="dense")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    began = provenance()
    options.out.mkdir(parents=True, exist_ok=True)
    runtime = trusted_to_train(choose_runtime(), plan(options.task, options.network))
    asked = Run(options.steps, options.seed, options.volumes, options.task, options.network)
    network = pretrain(asked, options.out, runtime)
    target = options.out / "start.safetensors"
    metadata, tensors = {"steps": str(options.steps)}, as_start(network)
    if NAMED in options.task:
        metadata[OUTPUT] = ANY_LESION
    else:  # its output layer knows no lesions
        tensors = {name: tensor for name, tensor in tensors.items() if name not in head_names(network)}
    with whole_file(target) as temporary:
        save_file(tensors, temporary, metadata=metadata)
    judged_dice = dice_by_class(network, options.seed)
    record = {
        **began,
        **asdict(asked),
        "patch_zyx": PATCH,
        "batch": BATCH,
        "seconds": read_log(options.out)[-1]["seconds"],
        "dice": judged_dice,
        "sha256": sha256_of(target),
    }
    write_json(options.out / "record.json", record)
    print(f"{target}: {judged_dice}")


def as_start(network: Network) -> dict[str, Tensor]:
    """The network's tensors, its output layer for background and lesion: a blob is one, all else is background."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    for name in head_names(network):
        others = [value for value in range(len(CLASSES)) if value != BLOB]
        tensors[name] = torch.stack([tensors[name][others].mean(0), tensors[name][BLOB]])
    return tensors


def head_names(network: Network) -> list[str]:
    """The names of the tensors of the output layer, and of those of coarser resolutions."""
    heads = [
        name for name, layer in network.named_modules() if any(layer is head for head in network.heads())
    ]
    return [f"{head}.{tensor}" for head in heads for tensor in ("weight", "bias")]


def plan(task: str = NAMED, network: str = "dense") -> Plan:
    """The default plan of voxels that are cubes, one channel; its labels are the shapes, then what else is learned."""
    more = [each for each in task.split("+") if each != NAMED]
    return Plan(
        channels=("image",),
        labels=dict(enumerate((*CLASSES[1:], *more), start=1)),
        spacing_zyx_mm=(1.0, 1.0, 1.0),
        normalisation=(Normalisation(),),
        patch_zyx=PATCH,
        batch=BATCH,
        network=NetworkSettings(name=network),
    )


class Learner:
    """A network that learns by the recipe of `focalis.training.train`: optimiser, learning rate, averaged weights, held
    statistics. What it learns from, and by which loss, is the caller's.

    Attributes:
        network: what learns; it begins with the weights of `start`, or random ones.
        average: its averaged weights.
    """

    def __init__(self, plan: Plan, start: Start | None, steps: int, seed: int, runtime: Runtime) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network, _ = first_network(plan, start)
        self.network.to(runtime.device, memory_format=runtime.memory_format)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimizer = KernelMuon(self.network, plan.training.learning_rate, plan.training.weight_decay)
        self._plan, self._steps, self._runtime = plan, steps, runtime

    def learn(self, step: int, image: Tensor, loss_of_logits: Callable[[Tensor], Tensor]) -> float:
        """Take a step on images (n, channel, z, y, x); the loss, with which nothing is learned if it is not finite."""
        held_from = round(STATISTICS_HELD_FROM * self._steps)
        if step >= held_from:
            hold_statistics(self.network, self.average, adopt=step == held_from)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self._steps, self._plan)
        with self._runtime.autocast():
            outputs = all_outputs(self.network(image.contiguous(memory_format=self._runtime.memory_format)))
        weighted = zip(self.network.output_weights(), outputs, strict=True)
        loss = torch.stack([weight * loss_of_logits(logits.float()) for weight, logits in weighted]).sum()
        value = float(loss.detach())
        if math.isfinite(value):
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), self._plan.training.clip_norm)
            self.optimizer.step()
            follow(self.average, self.network, averaging_decay(step, self._plan.training.ema_decay))
        return value


def pretrain(run: Run, out: Path, runtime: Runtime) -> Network:
    """Train on shapes, or go on with a run that was stopped; the averaged network."""
    steps, seed, task = run.steps, run.seed, run.task
    settings = plan(task, run.network)
    learner = Learner(settings, None, steps, seed, runtime)
    loss_function = loss_of(settings)
    checkpoint, log = out / "checkpoint.safetensors", out / "metrics.jsonl"
    first, seconds_before = 0, 0.0
    if checkpoint.exists():
        state = load_checkpoint(checkpoint, learner.network, learner.average, learner.optimizer)
        usual = asdict(Run(steps, seed))  # of checkpoints from before there was a choice
        if any(state.get(name, usual[name]) != value for name, value in asdict(run).items()):
            raise SystemExit(f"{checkpoint}: belongs to another run; give another --out")
        first, seconds_before = state["step"], state["seconds"]
    kept = [row for row in read_log(out) if row["step"] <= first]
    log.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    volumes = Volumes.make(2 * seed, run.volumes)
    started = saved = time.monotonic()
    losses: list[float] = []
    for step in range(first, steps):
        whole, label = make_batch(volumes, seed, step, BATCH)
        holes = holes_of(whole, seed, step, alone=task == MASKED) if MASKED in task else None
        loss = learner.learn(
            step,
            whole if holes is None else torch.where(holes, 0.0, whole),
            lambda logits, whole=whole, label=label, holes=holes: task_loss(
                logits, task, whole, label, holes, loss_function
            ),
        )
        if not math.isfinite(loss):
            raise SystemExit(f"{out}: diverged at step {step}")
        losses.append(loss)
        done, seconds = step + 1, seconds_before + time.monotonic() - started
        if done % LOG_EVERY == 0 or done == steps:
            mean = round(float(np.mean(losses)), 5)
            with log.open("a", encoding="utf-8") as file:
                rate = learning_rate(step, steps, settings)
                row = {"step": done, "loss": mean, "learning_rate": rate, "seconds": round(seconds, 1)}
                file.write(json.dumps(row) + "\n")
            losses = []
        if done == steps or time.monotonic() - saved > CHECKPOINT_SECONDS:
            state = {"step": done, "seconds": seconds, **asdict(run)}
            kept_now = keep(learner.network, learner.average, learner.optimizer, state)
            save_checkpoint(checkpoint, kept_now)
            saved = time.monotonic()
    return learner.average


def task_loss(
    logits: Tensor, task: str, whole: Tensor, label: Tensor, holes: Tensor | None, of_classes: Loss
) -> Tensor:
    """The sum of what a task's parts cost; the outputs behind those of the classes are the other parts', in turn."""
    others = iter(logits[:, len(CLASSES) :].unbind(1))
    terms = []
    if NAMED in task:
        terms.append(of_classes(logits[:, : len(CLASSES)], label, torch.zeros(0)))
    if DISTANCE in task:
        terms.append((next(others) - boundary_distance(label)).abs().mean())
    if holes is not None:
        terms.append((next(others) - whole[:, 0]).abs()[holes[:, 0]].mean())
    return torch.stack(terms).sum()


def boundary_distance(label: Tensor) -> Tensor:
    """How far each voxel is from the nearest one of another class, 1 from `FARTHEST` voxels on; float32 as `label`."""
    found = []
    for patch in label.numpy():
        apart = np.full(patch.shape, FARTHEST)
        for value in np.unique(patch):
            inside = patch == value
            if not inside.all():
                apart[inside] = ndimage.distance_transform_edt(inside)[inside]
        found.append(np.minimum(apart, FARTHEST) / FARTHEST)
    return torch.from_numpy(np.stack(found)).float()


def holes_of(whole: Tensor, seed: int, step: int, *, alone: bool) -> Tensor:
    """Where the images of a step have holes, as `whole`: in all of them, or in the last one."""
    rng = np.random.default_rng((seed, _HOLES, step))
    holes = torch.from_numpy(np.stack([cubes(rng, each.shape[1:]) for each in whole]))[:, None]
    if not alone:
        holes[:-1] = False
    return holes


def cubes(rng: np.random.Generator, patch_zyx: Sequence[int]) -> NDArray[np.bool_]:
    """Random cubes of `HOLE_SIDE` voxels a side, which fill the share `HOLES` of a patch (z, y, x)."""
    filled = rng.random([-(-size // HOLE_SIDE) for size in patch_zyx]) < HOLES
    for axis in range(3):
        filled = filled.repeat(HOLE_SIDE, axis)
    return filled[tuple(slice(size) for size in patch_zyx)]


def make_batch(volumes: Volumes, seed: int, step: int, count: int) -> tuple[Tensor, Tensor]:
    """The patches of a step, float32 (n, 1, z, y, x), and their classes, int64 (n, z, y, x).

    They are cut, turned by quarters and flipped at random: a pure function of its arguments.
    """
    images, labels = [], []
    for sample in range(count):
        rng = np.random.default_rng((seed, _CROP, step, sample))
        number = int(rng.integers(len(volumes.images)))
        corner = rng.integers(0, SIDE - PATCH[0] + 1, 3)
        box = tuple(slice(begin, begin + size) for begin, size in zip(corner, PATCH, strict=True))
        order = rng.permutation(3)
        flips = tuple(slice(None, None, -1 if rng.random() < 0.5 else 1) for _ in range(3))
        images.append(volumes.images[number][box].transpose(order)[flips].astype(np.float32))
        labels.append(volumes.labels[number][box].transpose(order)[flips].astype(np.int64))
    return torch.from_numpy(np.stack(images))[:, None], torch.from_numpy(np.stack(labels))


@torch.no_grad()
def dice_by_class(network: Network, seed: int) -> dict[str, float]:
    """Dice per class, pooled over patches of volumes that were not trained on."""
    volumes = Volumes.make(2 * seed + 1, JUDGED_VOLUMES)
    found = np.zeros((len(CLASSES), 3))
    for step in range(JUDGED_PATCHES):
        image, label = make_batch(volumes, JUDGED_SEED + seed, step, 1)
        predicted = network(image)[:, : len(CLASSES)].argmax(1)
        for value in range(len(CLASSES)):
            truth, drawn = label == value, predicted == value
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


if __name__ == "__main__":
    main()
