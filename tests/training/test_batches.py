"""A batch is a pure function of (seed, step)."""

import pytest
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


@pytest.mark.parametrize("ahead", [False, True])
def test_batches_come_in_order_whether_made_ahead_or_not(cases, plan, ahead):
    steps = [3, 4, 9]
    for step, batch in zip(steps, batches.batches(cases, plan, 5, steps, ahead=ahead), strict=True):
        assert torch.equal(batch.image, make_batch(cases, plan, seed=5, step=step).image)


def test_only_ahead_a_batch_is_made_before_it_is_asked_for(cases, plan, monkeypatch):
    made = []
    monkeypatch.setattr(batches, "make_batch", lambda *given: made.append(given[3]) or given[3])
    assert next(batches.batches(cases, plan, 0, range(9), ahead=False)) == 0
    assert made == [0]
    made.clear()
    coming = batches.batches(cases, plan, 0, range(9), ahead=True)
    assert next(coming) == 0
    coming.close()  # waits for what is under way
    assert made == [0, 1]
