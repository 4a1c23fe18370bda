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
from focalis.training.prepared import TrainingCase


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


def tiny_cases(with_lesion, empty):
    """Cases of 40^3 voxels, those with a lesion of 3^3 and those without one in turn as far as they go."""
    label = np.zeros((40, 40, 40), np.uint8)
    label[20:23, 9:12, 30:33] = 1
    none = np.zeros_like(label)
    far = np.full(label.shape, 9, np.float16)
    full = TrainingCase(
        "", label[None].astype(np.float32), label, far, (np.argwhere(label).astype(np.int32),)
    )
    bare = TrainingCase("", none[None].astype(np.float32), none, far, ())
    cases = [
        *(replace(full, name=f"{2 * number:03d}full") for number in range(with_lesion)),
        *(replace(bare, name=f"{2 * number + 1:03d}empty") for number in range(empty)),
    ]
    return sorted(cases, key=lambda case: case.name)


def as_planned(plan, share):
    training = plan.training.model_copy(update={"foreground_share": share})
    return plan.model_copy(update={"training": training, "augmentation": ()})


@pytest.mark.parametrize(
    ("with_lesion", "empty", "least", "most"), [(5, 95, 0.5, 0.7), (8, 8, 0.55, 0.7), (1, 4, 0.55, 0.7)]
)
def test_patches_with_a_lesion_do_not_become_rare_where_most_cases_are_empty(
    plan, with_lesion, empty, least, most
):
    cases = tiny_cases(with_lesion, empty)
    made = batches.batches(cases, as_planned(plan, 0.9), 0, range(100))
    held = [bool(label.any()) for batch in made for label in batch.label]
    assert len(held) == 200
    assert least <= np.mean(held) <= most


def test_of_two_decks_too_every_case_comes_once_before_any_comes_again(plan, monkeypatch):
    seen = []
    monkeypatch.setattr(
        batches, "draw_patch", lambda case, *rest: seen.append(case.name) or draw_patch(case, *rest)
    )
    cases = tiny_cases(4, 5)
    for step in range(15):
        make_batch(cases, as_planned(plan, 0.9), seed=0, step=step)
    full, empty = ([name for name in seen if name.endswith(kind)] for kind in ("full", "empty"))
    assert (len(full), len(empty)) == (20, 10)
    for names, size in ((full, 4), (empty, 5)):
        rounds = [names[start : start + size] for start in range(0, len(names), size)]
        assert all(len(set(each)) == size for each in rounds)
        assert rounds[0] != rounds[1]
    first = seen[14:16]
    seen.clear()
    make_batch(cases, as_planned(plan, 0.9), seed=0, step=7)
    assert seen == first


@pytest.mark.parametrize(("with_lesion", "empty"), [(5, 0), (4, 2), (0, 4)])
def test_where_no_more_than_a_third_is_empty_all_cases_are_drawn_alike(plan, with_lesion, empty):
    cases, plan = tiny_cases(with_lesion, empty), as_planned(plan, 0.9)
    for step, batch in enumerate(batches.batches(cases, plan, 3, range(8))):
        assert torch.equal(batch.image, one_by_one(cases, plan, 3, step, ()))


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


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_in_order_however_many_workers_make_them(cases, plan, workers):
    steps = [3, 4, 9, 10, 11]
    made = batches.batches(cases, plan, 5, steps, workers=workers)
    for step, batch in zip(steps, made, strict=True):
        expected = make_batch(cases, plan, seed=5, step=step)
        assert torch.equal(batch.image, expected.image)
        assert torch.equal(batch.label, expected.label)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_as_many_batches_are_made_ahead_as_there_are_workers(cases, plan, monkeypatch, workers):
    made = []
    real = batches.draw_batch
    monkeypatch.setattr(batches, "draw_batch", lambda *given: made.append(given[-1]) or real(*given))
    coming = batches.batches(cases, plan, 0, range(9), workers=workers)
    next(coming)
    coming.close()  # waits for what is under way
    assert sorted(made) == [*range(len(made))]
    assert len(made) <= 1 + workers
    assert made or workers


def test_what_goes_wrong_in_a_worker_is_raised_where_the_batch_is_asked_for(cases, plan, monkeypatch):
    def fails(*given):
        raise OSError(f"step {given[-1]}")

    monkeypatch.setattr(batches, "draw_batch", fails)
    with pytest.raises(OSError, match="step 0"):
        next(batches.batches(cases, plan, 0, range(9), workers=2))


def test_batches_for_another_device_are_pinned_and_copied_without_waiting(cases, plan, monkeypatch):
    """On a device of the name only: pinning and copying are noted instead."""
    pinned, copied = [], []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.shape) or tensor)
    monkeypatch.setattr(
        torch.Tensor,
        "to",
        lambda tensor, device, non_blocking: copied.append((device.type, non_blocking)) or tensor,
    )
    made = batches.batches(cases, plan, 0, [0], torch.device("cuda"), workers=0)
    batch = next(made)
    assert {batch.image.shape, batch.label.shape} <= set(pinned)
    assert set(copied) == {("cuda", True)}
    assert len(copied) == len(pinned)
