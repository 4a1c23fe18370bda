"""Patches drawn where an earlier state of the training found false lesions."""

import json
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from focalis.dataset import IGNORED, PhantomSettings, write_phantoms
from focalis.prediction import Runtime
from focalis.training import Interrupted, hard_negatives, loop, prepare_cases, train
from focalis.training.batches import Dealt, batches, draw_batch
from focalis.training.hard_negatives import MOST_PER_CASE, find_mistakes
from focalis.training.patches import draw_patch
from focalis.volume import read_volume, write_volume

RUNTIME = Runtime(torch.device("cpu"), torch.float32)


def with_share(plan, share, **others):
    training = plan.training.model_copy(update={"hard_negative_share": share, "turn_share": 0.0, **others})
    return plan.model_copy(update={"training": training, "augmentation": ()})


class Says:
    """In place of the network's probabilities: those of the foreground, by the name of a case."""

    def __init__(self, monkeypatch):
        self.of, self.asked = {}, []
        monkeypatch.setattr(hard_negatives, "probabilities", self)

    def __call__(self, _plan, _network, case, _runtime):
        self.asked.append(case.name)
        said = self.of.get(case.name, np.zeros(case.label.shape, np.float32))
        return np.stack([1 - said, said]).astype(np.float32)


@pytest.fixture
def says(monkeypatch):
    return Says(monkeypatch)


def found(plan, cases, round_=0):
    return find_mistakes(plan, torch.nn.Identity(), cases, RUNTIME, 0, round_)


def test_what_touches_no_true_lesion_is_remembered_at_its_surest_voxel(plan, cases, says):
    said = np.zeros((24, 24, 24), np.float32)
    said[11:13, 12, 12:20] = 0.9  # reaches into the ball in the middle
    said[1:3, 2, 3], said[2, 2, 3] = 0.6, 0.7
    said[20, 20:22, 5], said[20, 21, 5] = 0.8, 0.95
    said[5, 20, 20] = 0.4  # below one half
    says.of["case0"] = said
    mistakes = found(plan, cases)
    assert mistakes == {0: [(20, 21, 5), (2, 2, 3)], 1: [], 2: [], 3: []}
    assert json.loads(json.dumps(mistakes[0])) == [[20, 21, 5], [2, 2, 3]]


def test_every_prediction_in_an_empty_case_is_false(plan, empty_cases, says):
    said = np.zeros((24, 24, 24), np.float32)
    said[12, 12, 12] = said[3, 4, 5] = 1
    says.of["empty2"] = said
    assert sorted(found(plan, empty_cases)[2]) == [(3, 4, 5), (12, 12, 12)]


def test_what_nobody_judged_is_not_false(plan, cases, says):
    said = np.zeros((24, 24, 24), np.float32)
    said[1, 1, 1] = said[22, 22, 22] = 1
    says.of["case0"] = said
    label = cases[0].label.copy()
    label[:4, :4, :4] = IGNORED
    assert found(plan, [replace(cases[0], label=label)]) == {0: [(22, 22, 22)]}


def test_what_nobody_judged_is_not_false_in_an_object_store_either(plan, says, tmp_path):
    settings = PhantomSettings(shape_zyx=(24, 24, 24), foreground_share=0.01, lesions=0)
    (case,) = write_phantoms(tmp_path / "set", 1, settings, 0).cases
    volume = read_volume(case.label)
    volume.array[2, 3, :10] = 9
    write_volume(volume, case.label)
    said = np.zeros((24, 24, 24), np.float32)
    said[2, 3, 4] = said[15, 3, 4] = 1
    says.of[case.name] = said
    plan = plan.model_copy(update={"ignore": 9})
    stored = prepare_cases([case], plan, tmp_path / "known", (tmp_path / "store").as_uri())
    assert found(plan, stored) == {0: [(15, 3, 4)]}
    assert not stored[0].judged(np.ones((24, 24, 24), np.uint8))[2, 3, :10].any()


def test_of_many_false_lesions_the_surest_are_kept(plan, cases, says):
    said = np.zeros((24, 24, 24), np.float32)
    said[0, ::2, ::2] = np.linspace(0.6, 1, 144).reshape(12, 12)
    says.of["case0"] = said
    mistakes = found(plan, cases[:1])[0]
    assert len(mistakes) == MOST_PER_CASE
    assert mistakes[:3] == [(0, 22, 22), (0, 22, 20), (0, 22, 18)]


def test_cases_take_turns_to_be_searched(plan, cases, says):
    many = [replace(cases[0], name=f"{number}") for number in range(6)]
    rounds = [[*found(plan, many, round_)] for round_ in range(3)]
    assert [len(each) for each in rounds] == [4, 4, 4]
    assert sorted(each for numbers in rounds for each in numbers) == sorted([*range(6)] * 2)
    assert says.asked == [str(number) for each in rounds for number in each]


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 12), (0.5, 35, 65), (1.0, 80, 80)])
def test_so_many_of_the_other_patches_hold_a_mistake(plan, empty_cases, share, least, most):
    image = np.zeros((1, 48, 48, 48), np.float32)
    image[0, 39:42, 7:10, 29:32] = 1
    case = replace(
        empty_cases[0],
        image=image,
        label=np.zeros(image.shape[1:], np.uint8),
        distance_mm=np.full(image.shape[1:], 99, np.float16),
    )
    plan = with_share(plan, share)
    drawn = [draw_patch(case, plan, np.random.default_rng(seed), [(40, 8, 30)]).image for seed in range(80)]
    assert least <= sum(patch.max().item() > 0.5 for patch in drawn) <= most


def test_patches_with_a_lesion_stay_as_they_were(plan, cases):
    drawn = [
        [
            draw_patch(cases[0], with_share(plan, share), np.random.default_rng(seed), [(1, 1, 1)])
            for seed in range(60)
        ]
        for share in (0.0, 1.0)
    ]
    same = [torch.equal(one.image, other.image) for one, other in zip(*drawn, strict=True)]
    assert 30 < sum(same) < 50
    assert all(patch.label.any() for patch, kept in zip(drawn[1], same, strict=True) if kept)


@pytest.mark.parametrize("workers", [0, 3])
def test_a_batch_depends_on_seed_step_and_mistakes_however_many_workers(plan, cases, workers):
    plan = with_share(plan, 1.0, foreground_share=0.0)
    mistakes = {number: [(2, 3, 4)] for number in range(4)}
    made = [*batches(cases, plan, 5, [3, 4, 9], workers=workers, mistakes=mistakes)]
    for step, batch in zip([3, 4, 9], made, strict=True):
        assert torch.equal(batch.image, draw_batch(Dealt.of(cases), plan, (), mistakes, 5, step).patch.image)
        assert not torch.equal(batch.image, draw_batch(Dealt.of(cases), plan, (), {}, 5, step).patch.image)


def trained(plan, cases, home, **options):
    home.mkdir(exist_ok=True)
    return train(plan, cases, [], home, steps=5, seed=0, runtime=RUNTIME, **options).state_dict()


def alike(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def searched(plan, says, monkeypatch):
    """A plan whose training searches two cases after three steps, and finds a false lesion in case 1."""
    monkeypatch.setattr(loop, "STEPS_BETWEEN", 3)
    said = np.zeros((24, 24, 24), np.float32)
    said[2, 3, 4] = 1
    says.of["case1"] = said
    return with_share(plan, 1.0, foreground_share=0.2)


def test_a_training_that_is_stopped_ends_in_the_same_weights(searched, cases, says, tmp_path):
    """Stopped just before the search and just after it."""
    whole = trained(searched, cases, tmp_path / "whole")
    assert sorted(says.asked) == ["case0", "case1", "case2", "case3"]
    for stop in (3, 4):
        home = tmp_path / str(stop)

        def interrupt(progress, stop=stop):
            if progress.step == stop:
                signal.raise_signal(signal.SIGINT)

        with pytest.raises(Interrupted):
            trained(searched, cases, home, progress=interrupt)
        assert alike(whole, trained(searched, cases, home, resume=True))
        with safe_open(home / loop.CHECKPOINT, "pt") as file:
            assert json.loads(file.metadata()["state"])["mistakes"]["1"] == [[2, 3, 4]]


def test_a_training_without_the_option_searches_nothing_and_ends_otherwise(searched, cases, says, tmp_path):
    plain = trained(with_share(searched, 0.0, foreground_share=0.2), cases, tmp_path / "plain")
    assert says.asked == []
    assert not alike(plain, trained(searched, cases, tmp_path / "searched"))
