"""A batch is a pure function of (seed, step)."""

import torch

from focalis.training import batches
from focalis.training.batches import make_batch


def test_a_batch_has_its_shapes_and_dtypes(cases, plan):
    batch = make_batch(cases, plan, seed=0, step=0)
    assert (batch.image.shape, batch.image.dtype) == ((2, 1, 16, 16, 16), torch.float32)
    assert (batch.label.shape, batch.label.dtype) == ((2, 16, 16, 16), torch.int64)
    assert (batch.distance_mm.shape, batch.distance_mm.dtype) == ((2, 16, 16, 16), torch.float32)


def test_a_batch_depends_on_seed_and_step_only(cases, plan):
    first = make_batch(cases, plan, seed=1, step=7)
    make_batch(cases, plan, seed=1, step=3)
    torch.manual_seed(99)
    again = make_batch(cases, plan, seed=1, step=7)
    assert torch.equal(first.image, again.image)
    assert not torch.equal(first.image, make_batch(cases, plan, seed=2, step=7).image)
    assert not torch.equal(first.image, make_batch(cases, plan, seed=1, step=8).image)


def test_every_case_comes_once_before_any_comes_again(cases, plan, monkeypatch):
    seen = []
    real = batches.draw_patch
    monkeypatch.setattr(
        batches, "draw_patch", lambda case, *rest: seen.append(case.name) or real(case, *rest)
    )
    for step in range(6):
        make_batch(cases, plan, seed=0, step=step)
    rounds = [seen[i : i + 4] for i in range(0, 12, 4)]
    assert all(sorted(names) == [case.name for case in cases] for names in rounds)
    assert rounds[0] != rounds[1] or rounds[1] != rounds[2]
