"""A batch is a pure function of (seed, step)."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from focalis.augmentations import build_augmentation
from focalis.planning import AugmentationSettings
from focalis.training import batches
from focalis.training.batches import make_batch
from focalis.training.patches import draw_patch


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


def one_by_one(cases, plan, seed, step, entries):
    """The images of a batch, each channel changed on its own as soon as it is drawn."""
    images = []
    for sample in range(plan.batch):
        rng = np.random.default_rng((seed, batches.SAMPLE, step, sample))
        round_, place = divmod(step * plan.batch + sample, len(cases))
        order = np.random.default_rng((seed, batches.ORDER, round_)).permutation(len(cases))
        image = draw_patch(cases[order[place]], plan, rng).image
        for channel in image:
            for entry in entries:
                augmentation = build_augmentation(entry.name, entry.parameters)
                if rng.random() < augmentation.share:
                    drawn = torch.as_tensor(augmentation.draw(rng, plan.patch_zyx)).float()
                    channel[:] = augmentation.apply(channel[None], drawn[None])[0]
        images.append(image)
    return torch.stack(images)


def test_changing_all_channels_at_once_is_changing_them_one_by_one(cases, plan):
    cases = [replace(case, image=np.concatenate([case.image, -case.image])) for case in cases]
    entries = tuple(
        AugmentationSettings(name=name, share=0.5)
        for name in ("gamma", "blur", "noise", "brightness", "contrast")
    )
    changes = {"channels": ("a", "b"), "normalisation": plan.normalisation * 2, "batch": 3}
    plan = plan.model_copy(update={**changes, "augmentation": entries})
    for step in range(4):
        batch = make_batch(cases, plan, seed=0, step=step)
        torch.testing.assert_close(batch.image, one_by_one(cases, plan, 0, step, entries), atol=1e-5, rtol=0)


def test_without_augmentation_a_batch_holds_the_patches_as_they_are(cases, plan):
    bare = plan.model_copy(update={"augmentation": ()})
    changed = []
    for step in range(8):
        batch = make_batch(cases, bare, seed=0, step=step)
        assert torch.equal(batch.image, one_by_one(cases, bare, 0, step, ()))
        changed.append(not torch.equal(batch.image, make_batch(cases, plan, seed=0, step=step).image))
    assert any(changed)
    assert not all(changed)


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
