"""The batch of a step: a pure function of (seed, step), whatever ran before."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from focalis.augmentations import Augmentation
from focalis.planning import Plan
from focalis.planning.parts import augmentations_of
from focalis.training.patches import Patch, draw_patch
from focalis.training.prepared import TrainingCase

ORDER, SAMPLE = 0, 1
"""Which stream of a run's randomness: the order of the cases, or what happens to a sample."""


@dataclass(frozen=True)
class Change:
    """What an augmentation does to a batch.

    Attributes:
        augmentation: the augmentation.
        channels: int64 (n,), which of batch x channel it strikes.
        drawn: float32 (n, ...), what was drawn for each.
    """

    augmentation: Augmentation
    channels: Tensor
    drawn: Tensor


def batches(
    cases: Sequence[TrainingCase], plan: Plan, seed: int, steps: Iterable[int], *, ahead: bool
) -> Generator[Patch, None, None]:
    """The batches of these steps in turn.

    With `ahead` each is made in a thread while the one before it is in use, for a network that computes on another
    device. On the processor itself that thread would take what the network's own threads wait for. Nothing else
    depends on it, see `make_batch`.
    """
    built = augmentations_of(plan)
    if not ahead:
        yield from (make_batch(cases, plan, seed, step, built) for step in steps)
        return
    with ThreadPoolExecutor(1, "batch") as maker:
        coming = None
        for step in steps:
            ready, coming = coming, maker.submit(make_batch, cases, plan, seed, step, built)
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()


def make_batch(
    cases: Sequence[TrainingCase],
    plan: Plan,
    seed: int,
    step: int,
    augmentations: Sequence[Augmentation] | None = None,
) -> Patch:
    """The patches of a step, stacked, their intensities changed; see `draw_batch`.

    `augmentations` are the plan's, for those who have built them already.
    """
    built = augmentations_of(plan) if augmentations is None else augmentations
    patch, changes = draw_batch(cases, plan, built, seed, step)
    change_intensities(patch.image, changes)
    return patch


def draw_batch(
    cases: Sequence[TrainingCase], plan: Plan, augmentations: Sequence[Augmentation], seed: int, step: int
) -> tuple[Patch, tuple[Change, ...]]:
    """The patches of a step, stacked, and how their intensities are to be changed.

    Image (batch, channel, z, y, x), label and distance (batch, z, y, x). Cases come in random order, each once before
    any comes again. All that is random is drawn here, sample by sample and channel by channel.
    """
    struck: list[dict[int, Tensor]] = [{} for _ in augmentations]
    patches = []
    for sample in range(plan.batch):
        rng = np.random.default_rng((seed, SAMPLE, step, sample))
        round_, place = divmod(step * plan.batch + sample, len(cases))
        order = np.random.default_rng((seed, ORDER, round_)).permutation(len(cases))
        patches.append(draw_patch(cases[order[place]], plan, rng))
        for channel in range(sample * len(plan.channels), (sample + 1) * len(plan.channels)):
            for augmentation, drawn in zip(augmentations, struck, strict=True):
                if rng.random() < augmentation.share:
                    drawn[channel] = torch.as_tensor(augmentation.draw(rng, plan.patch_zyx)).float()
    changes = tuple(
        Change(augmentation, torch.tensor(list(drawn)), torch.stack(list(drawn.values())))
        for augmentation, drawn in zip(augmentations, struck, strict=True)
        if drawn
    )
    return Patch.stack(patches), changes


def change_intensities(image: Tensor, changes: Iterable[Change]) -> None:
    """Change an image (batch, channel, z, y, x) in place, each augmentation in one go for all channels it strikes."""
    channels = image.flatten(0, 1)
    for change in changes:
        channels[change.channels] = change.augmentation.apply(channels[change.channels], change.drawn)
