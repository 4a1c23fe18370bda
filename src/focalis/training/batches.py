"""The batch of a step: a pure function of (seed, step), whatever ran before."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch

from focalis.planning import Plan
from focalis.training.intensity import change_intensities
from focalis.training.patches import Patch, draw_patch
from focalis.training.prepared import TrainingCase

ORDER, SAMPLE = 0, 1
"""Which stream of a run's randomness: the order of the cases, or what happens to a sample."""


def batches(
    cases: Sequence[TrainingCase], plan: Plan, seed: int, steps: Iterable[int], *, ahead: bool
) -> Generator[Patch, None, None]:
    """The batches of these steps in turn.

    With `ahead` each is made in a thread while the one before it is in use, for a network that computes on another
    device. On the processor itself that thread would take what the network's own threads wait for. Nothing else
    depends on it, see `make_batch`.
    """
    if not ahead:
        yield from (make_batch(cases, plan, seed, step) for step in steps)
        return
    with ThreadPoolExecutor(1, "batch") as maker:
        coming = None
        for step in steps:
            ready, coming = coming, maker.submit(make_batch, cases, plan, seed, step)
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()


def make_batch(cases: Sequence[TrainingCase], plan: Plan, seed: int, step: int) -> Patch:
    """The patches of a step, stacked: image (batch, channel, z, y, x), the others (batch, z, y, x).

    Cases come in random order, each once before any comes again.
    """
    patches = []
    for sample in range(plan.batch):
        rng = np.random.default_rng((seed, SAMPLE, step, sample))
        round_, place = divmod(step * plan.batch + sample, len(cases))
        order = np.random.default_rng((seed, ORDER, round_)).permutation(len(cases))
        patch = draw_patch(cases[order[place]], plan, rng)
        patches.append(replace(patch, image=change_intensities(patch.image, rng)))
    nearest = [patch.nearest for patch in patches if patch.nearest is not None]
    return Patch(
        torch.stack([patch.image for patch in patches]),
        torch.stack([patch.label for patch in patches]),
        torch.stack([patch.distance_mm for patch in patches]),
        torch.stack(nearest) if nearest else None,
    )
