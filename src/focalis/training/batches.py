"""The batch of a step: a pure function of (seed, step), whatever ran before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from focalis import ranks
from focalis.augmentations import Augmentation
from focalis.planning import Plan
from focalis.planning.parts import augmentations_of
from focalis.planning.plan import Triple
from focalis.training.patches import Patch, draw_patch
from focalis.training.prepared import TrainingCase, with_lesion

ORDER, SAMPLE = 0, 1
"""Which stream of a run's randomness: the order of the cases, or what happens to a sample."""

NO_MISTAKES: Mapping[int, Sequence[Triple]] = MappingProxyType({})
WORKERS = 4
"""Threads that make batches ahead for a network that computes on another device."""


@dataclass(frozen=True)
class IntensityChange:
    """What an augmentation does to a batch.

    Attributes:
        channels: int64 (n,), which of batch x channel it strikes.
        drawn: float32 (n, ...), what was drawn for each.
    """

    augmentation: Augmentation
    channels: Tensor
    drawn: Tensor


@dataclass(frozen=True)
class Draft:
    """A batch of which everything random is drawn, before its intensities are changed.

    Attributes:
        patch: image (batch, channel, z, y, x), the others (batch, z, y, x).
        changes: of the image, in their order.
        absent: int64 (n,), the channels of batch x channel that are 0 in the end; None for none.
    """

    patch: Patch
    changes: tuple[IntensityChange, ...]
    absent: Tensor | None = None

    def map(self, move: Callable[[Tensor], Tensor]) -> Draft:
        """The draft with each of its tensors moved."""
        changes = [replace(it, channels=move(it.channels), drawn=move(it.drawn)) for it in self.changes]
        return Draft(self.patch.map(move), tuple(changes), None if self.absent is None else move(self.absent))

    def finish(self) -> Patch:
        """The batch: each augmentation changes all channels that it strikes at once, on their device, in place."""
        channels = self.patch.image.flatten(0, 1)
        for change in self.changes:
            struck = change.augmentation.apply(channels[change.channels], change.drawn)
            channels[change.channels] = struck
        if self.absent is not None:
            channels[self.absent] = 0
        return self.patch


@dataclass(frozen=True)
class Dealt:
    """Cases in the order in which they are drawn: at random, each once before any comes again.

    Where fewer than two thirds of the cases hold a lesion, these are a deck of their own from which two of three
    patches are drawn, so that patches with a lesion do not become rare (see `focalis.planning.make`).

    Attributes:
        decks: the numbers of the cases; of those with a lesion and of those without one where there are two decks.
    """

    cases: Sequence[TrainingCase]
    decks: tuple[Sequence[int], ...]

    @classmethod
    def of(cls, cases: Sequence[TrainingCase]) -> Dealt:
        """The decks of cases, each of which is opened once."""
        holds = with_lesion(cases)
        if not any(holds) or 3 * sum(holds) >= 2 * len(cases):
            return cls(cases, (range(len(cases)),))
        decks = [[number for number, each in enumerate(holds) if each == lesion] for lesion in (True, False)]
        return cls(cases, tuple(decks))

    def number(self, seed: int, patch: int) -> int:
        """The number of the case that the run's n-th patch is drawn from."""
        deck = 0
        if len(self.decks) > 1:
            before = 2 * patch // 3  # so many came from the first deck
            deck = int(2 * (patch + 1) // 3 == before)
            patch = patch - before if deck else before
        round_, place = divmod(patch, len(self.decks[deck]))
        stream = (seed, ORDER, round_, *([deck] if deck else []))
        order = np.random.default_rng(stream).permutation(len(self.decks[deck]))
        return self.decks[deck][int(order[place])]


def batches(
    cases: Sequence[TrainingCase],
    plan: Plan,
    seed: int,
    steps: Iterable[int],
    device: torch.device | None = None,
    workers: int | None = None,
    mistakes: Mapping[int, Sequence[Triple]] = NO_MISTAKES,
) -> Generator[Patch, None, None]:
    """The batches of these steps in turn, on a device.

    Threads draw them ahead into pinned memory. They are copied without waiting, and their intensities are changed on
    the device. What a batch holds depends on neither, see `make_batch`.

    Args:
        device: where the network computes; the CPU by default.
        workers: the number of threads, with 0 each batch is made when it is asked for; the default on a CPU, where
            threads would take what the network's own threads wait for. `WORKERS` elsewhere.
        mistakes: see `draw_batch`.
    """
    built, dealt = augmentations_of(plan), Dealt.of(cases)
    device = device or torch.device("cpu")
    elsewhere = device.type != "cpu"

    def draw(step: int) -> Draft:
        draft = draw_batch(dealt, plan, built, mistakes, seed, step)
        return draft.map(Tensor.pin_memory) if device.type == "cuda" else draft

    with closing(_ahead(draw, steps, WORKERS * elsewhere if workers is None else workers)) as drafts:
        for draft in drafts:
            yield draft.map(lambda tensor: tensor.to(device, non_blocking=True)).finish()


def _ahead(draw: Callable[[int], Draft], steps: Iterable[int], workers: int) -> Generator[Draft, None, None]:
    """What is drawn for each step in turn, by threads while those before are in use."""
    if not workers:
        yield from map(draw, steps)
        return
    coming: deque[Future[Draft]] = deque()
    with ThreadPoolExecutor(workers, "batch") as pool:
        try:
            for step in steps:
                coming.append(pool.submit(draw, step))
                if len(coming) > workers:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for draft in coming:
                draft.cancel()


def make_batch(
    cases: Sequence[TrainingCase],
    plan: Plan,
    seed: int,
    step: int,
    augmentations: Sequence[Augmentation] | None = None,
) -> Patch:
    """The patches of a step, stacked, their intensities changed, on the CPU; see `draw_batch`.

    `augmentations` are the plan's, if they are built already.
    """
    built = augmentations_of(plan) if augmentations is None else augmentations
    return draw_batch(Dealt.of(cases), plan, built, NO_MISTAKES, seed, step).finish()


def draw_batch(
    dealt: Dealt,
    plan: Plan,
    augmentations: Sequence[Augmentation],
    mistakes: Mapping[int, Sequence[Triple]],
    seed: int,
    step: int,
) -> Draft:
    """The patches of a step, stacked, and how their intensities are to be changed: a pure function of its arguments.

    All that is random is drawn here, sample by sample and channel by channel. With several ranks, each draws its share
    of the samples.

    Args:
        mistakes: by the number of a case, where false lesions were found in it, see `find_mistakes`.
    """
    struck: list[dict[int, Tensor]] = [{} for _ in augmentations]
    patches, absent = [], []
    optional = [plan.channels.index(name) for name in plan.channels_may_miss]
    for number, sample in enumerate(ranks.share(range(plan.batch))):
        rng = np.random.default_rng((seed, SAMPLE, step, sample))
        case_number = dealt.number(seed, step * plan.batch + sample)
        case = dealt.cases[case_number]
        patches.append(draw_patch(case, plan, rng, mistakes.get(case_number, ())))
        for channel in range(number * len(plan.channels), (number + 1) * len(plan.channels)):
            for augmentation, drawn in zip(augmentations, struck, strict=True):
                if channel % len(plan.channels) == 0 and not augmentation.changes_first:
                    continue
                if rng.random() < augmentation.share:
                    drawn[channel] = torch.as_tensor(augmentation.draw(rng, plan.patch_zyx)).float()
        absent += [
            number * len(plan.channels) + channel
            for channel in optional
            if rng.random() < plan.training.channel_dropout or channel in case.lacks
        ]
    changes = tuple(
        IntensityChange(augmentation, torch.tensor(list(drawn)), torch.stack(list(drawn.values())))
        for augmentation, drawn in zip(augmentations, struck, strict=True)
        if drawn
    )
    return Draft(Patch.stack(patches), changes, torch.tensor(absent) if absent else None)
