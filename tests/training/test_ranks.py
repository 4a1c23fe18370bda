"""Two ranks on the CPU learn as one process does, and agree on what only one of them sees.

The ranks are forked once; each test looks at what they sent back.
"""

import multiprocessing
import os
import signal
import socket
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from focalis import ranks
from focalis.errors import DataError, DivergedError, PlanError, TrainingError, UsageError
from focalis.losses import LOSSES, LossSpec, loss_spec
from focalis.networks import all_outputs
from focalis.networks.foreign import ForeignNetwork
from focalis.networks.nested import Nested
from focalis.planning import LossSettings
from focalis.planning.parts import loss_of
from focalis.prediction import Runtime
from focalis.training import Interrupted, batches, hard_negatives, loop, train
from focalis.training.batches import make_batch
from focalis.training.joined import joined
from focalis.training.start import first_network

RUNTIME = Runtime(torch.device("cpu"), torch.float32)
NAMES = sorted(LOSSES)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def trained(plan, cases, home, **options):
    home.mkdir(exist_ok=True)
    cases = [replace(case, nearest=None) for case in cases]
    return train(plan, cases[:3], cases[3:], home, steps=6, seed=0, runtime=RUNTIME, **options)


def gradients(plan, cases, step):
    """The loss and the gradients of one step, with batch statistics, by name."""
    torch.manual_seed(3)
    network, _ = first_network(plan, None)
    batch = make_batch(cases, plan, 0, step)
    targets = [
        batch.label,
        batch.distance_mm,
        *([batch.nearest] if loss_spec(plan.loss.name).lesions else []),
    ]
    loss = loss_of(plan)
    forward = joined(network)
    terms = [loss(logits, *targets) for logits in all_outputs(forward(batch.image))]
    total = torch.stack(terms).sum()
    total.backward()
    return total.item(), {name: each.grad.clone() for name, each in network.named_parameters()}


def of_three(plan, name):
    """A batch that two ranks cannot share evenly."""
    return plan.model_copy(update={"batch": 3, "loss": LossSettings(name=name)})


def statistics(plan, cases):
    """The first layer's statistics after a step."""
    torch.manual_seed(3)
    network, _ = first_network(plan, None)
    joined(network)(make_batch(cases, plan, 0, 0).image)
    layer = next(each for each in network.modules() if isinstance(each, nn.BatchNorm3d))
    return layer.running_mean.clone(), layer.running_var.clone()


def interrupt_at(step, progress):
    if progress.step == step:
        signal.raise_signal(signal.SIGINT)


def poisoned(real, *given):
    """The second rank's share of the third step holds a number that is not finite."""
    draft = real(*given)
    if given[-1] == 2 and ranks.rank() == 1:
        draft.patch.image[0, 0, 0, 0, 0] = float("nan")
    return draft


def failing(item):
    if item == 3:
        raise DataError("three: is no good")
    return item


def caught(function):
    try:
        return function()
    except (Exception, KeyboardInterrupt) as error:
        return type(error), str(error), ranks.is_agreed(error)


@ranks.led(lambda order: ranks.from_first(partial(failing, order)))
def lead():
    """The second of three orders fails, on all ranks."""
    for order in (2, 3, 4):
        with ranks.joint(order):
            caught(lambda order=order: ranks.from_first(partial(failing, order)))
    return "done"


class TwoHeads(nn.Module):
    """A network of another package that gives two outputs, of which the first is trained."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv3d(1, 2, 3, padding=1), nn.Conv3d(1, 2, 1)

    def forward(self, x):
        return self.first(x), self.second(x)


def two_steps(network):
    forward = joined(network)
    for _ in range(2):
        forward(torch.ones(1, 1, 4, 4, 4)).sum().backward()
    return "learned"


def talk(rank, plan, cases, _home):
    """What is quick: one loss, and what the ranks say to each other."""
    found = {"gradients": {NAMES[3]: gradients(of_three(plan, NAMES[3]), cases, 1)}}
    found["statistics"] = statistics(of_three(plan, NAMES[0]), cases)
    found["first"] = caught(lambda: ranks.from_first(lambda: failing(3 if rank == 0 else 0)))
    found["shared"] = ranks.shared_out(lambda item: (item, ranks.rank()), [5, 6, 7])
    found["failed"] = caught(lambda: ranks.shared_out(failing, [1, 2, 0, 3]))
    found["led"] = lead()
    found["any"] = ranks.any_of([rank == 1, False])
    found["refused"] = caught(lambda: joined(nn.Sequential(nn.BatchNorm1d(2))))
    found["foreign"] = caught(partial(two_steps, Nested(ForeignNetwork(TwoHeads(), 2))))
    found["device"] = [caught(lambda: ranks.device("cuda:1")), ranks.device("cpu")]
    return found


def one_false_lesion(_plan, _network, case, _runtime):
    said = np.zeros((2, *case.label.shape), np.float32)
    said[1, 2, 3, 4] = 1
    said[0] = 1 - said[1]
    return said


def searched(plan, cases, home):
    """Trained on patches with false lesions, which are searched for every two steps."""
    hard = plan.training.model_copy(update={"hard_negative_share": 1.0, "foreground_share": 0.0})
    before = loop.STEPS_BETWEEN, hard_negatives.probabilities
    loop.STEPS_BETWEEN, hard_negatives.probabilities = 2, one_false_lesion
    try:
        return trained(plan.model_copy(update={"training": hard}), cases, home)
    finally:
        loop.STEPS_BETWEEN, hard_negatives.probabilities = before


def learn(rank, plan, cases, home):
    """All losses, and trainings that end, stop and fail."""
    found = {"gradients": {name: gradients(of_three(plan, name), cases, 1) for name in NAMES}}
    found["whole"] = trained(plan, cases, home / "whole").state_dict()
    stopping = partial(interrupt_at, 3) if rank else None
    found["stopped"] = caught(lambda: trained(plan, cases, home / "stopped", progress=stopping))
    real = batches.draw_batch
    batches.draw_batch = partial(poisoned, real)
    found["diverged"] = caught(lambda: trained(plan, cases, home / "diverged"))
    batches.draw_batch = real
    LOSSES["local"] = LossSpec(
        lambda: lambda logits, target, _mm: nn.functional.cross_entropy(logits, target)
    )
    local = plan.model_copy(update={"loss": LossSettings(name="local")})
    found["local"] = caught(lambda: trained(local, cases, home / "local"))
    found["searched"] = searched(plan, cases, home / "searched").state_dict()
    return found


def begin(rank, port, job, plan, cases, home, answers):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with ranks.joined():
        found = job(rank, plan, cases, home)
    answers.send(tree_map_only(torch.Tensor, torch.Tensor.numpy, found))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


def answers_of(job, *given, _kept={}):  # noqa: B006
    """What each rank finds; made once for all tests."""
    if job not in _kept:
        context = multiprocessing.get_context("fork")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        pipes = [context.Pipe() for _ in range(2)]
        children = [
            context.Process(target=begin, args=(rank, port, job, *given, pipe[1]))
            for rank, pipe in enumerate(pipes)
        ]
        for child in children:
            child.start()
        for _, mine in pipes:
            mine.close()
        _kept[job] = [tree_map_only(np.ndarray, torch.from_numpy, theirs.recv()) for theirs, _ in pipes]
        for child in children:
            child.join()
    return _kept[job]


@pytest.fixture
def answers(home, plan, numbered_cases):
    return answers_of(talk, plan, numbered_cases, home)


@pytest.fixture
def learned(home, plan, numbered_cases):
    return answers_of(learn, plan, numbered_cases, home)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_gradients_of_every_loss_are_those_of_one_process(learned, plan, numbered_cases, name):
    check_gradients(learned, plan, numbered_cases, name)


def test_the_gradients_are_those_of_one_process(answers, plan, numbered_cases):
    check_gradients(answers, plan, numbered_cases, NAMES[3])


def check_gradients(answers, plan, numbered_cases, name):
    """Also where the shares are uneven and a patch holds no lesion."""
    loss, expected = gradients(of_three(plan, name), numbered_cases, 1)
    for found in answers:
        theirs, made = found["gradients"][name]
        assert theirs == pytest.approx(loss, rel=1e-5)
        size = max(each.abs().max() for each in expected.values())
        assert max((made[key] - each).abs().max() for key, each in expected.items()) < 1e-4 * size


def test_batch_statistics_are_those_of_the_whole_batch(answers, plan, numbered_cases):
    mean, variance = statistics(of_three(plan, NAMES[0]), numbered_cases)
    for found in answers:
        assert torch.allclose(found["statistics"][0], mean, atol=1e-6)
        assert torch.allclose(found["statistics"][1], variance, rtol=1e-4)


@pytest.mark.slow
def test_two_ranks_end_in_the_same_weights(learned):
    one, other = (found["whole"] for found in learned)
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_a_run_that_two_ranks_began_is_ended_by_one(learned, plan, numbered_cases, home):
    """Ctrl-C reached the second rank alone; both stopped after the same step."""
    assert [found["stopped"] for found in learned] == [
        (Interrupted, f"{home / 'stopped'}: stopped after step 3 of 6; go on with --resume", True)
    ] * 2
    alone = trained(plan, numbered_cases, home / "stopped", resume=True).state_dict()
    whole = learned[0]["whole"]
    assert max((alone[key].float() - whole[key].float()).abs().max() for key in whole) < 2e-3


@pytest.mark.slow
def test_two_ranks_share_the_search_for_false_lesions(learned, plan, numbered_cases, home):
    one, other = (found["searched"] for found in learned)
    assert all(torch.equal(one[key], other[key]) for key in one)
    alone = searched(plan, numbered_cases, home / "searched alone").state_dict()
    assert max((alone[key].float() - one[key].float()).abs().max() for key in one) < 2e-3


@pytest.mark.slow
def test_what_is_not_finite_on_one_rank_stops_both(learned):
    for kind, message, agreed in (found["diverged"] for found in learned):
        assert (kind, agreed) == (DivergedError, True)
        assert "diverged at step 2" in message


@pytest.mark.slow
def test_a_loss_that_does_not_sum_over_the_ranks_is_refused(learned):
    for kind, message, agreed in (found["local"] for found in learned):
        assert (kind, agreed) == (TrainingError, True)
        assert "the loss local differs between the processes" in message


def test_an_error_of_the_first_rank_is_raised_on_all(answers):
    assert [found["first"] for found in answers] == [(DataError, "three: is no good", True)] * 2


def test_items_are_shared_out_and_come_back_in_order(answers):
    assert [found["shared"] for found in answers] == [[(5, 0), (6, 1), (7, 0)]] * 2


def test_an_error_of_one_share_is_raised_on_all(answers):
    assert [found["failed"] for found in answers] == [(DataError, "three: is no good", True)] * 2


def test_the_others_go_on_to_the_next_order_and_return_what_the_first_does(answers):
    assert [found["led"] for found in answers] == ["done"] * 2


def test_what_one_rank_sees_all_know(answers):
    assert [found["any"] for found in answers] == [[True, False]] * 2


def test_statistics_that_cannot_be_joined_are_refused(answers):
    for kind, message, _ in (found["refused"] for found in answers):
        assert kind is PlanError
        assert "BatchNorm1d" in message


def test_ranks_do_not_share_a_gpu(answers):
    for (kind, message, _), named in (found["device"] for found in answers):
        assert kind is UsageError
        assert "2 processes cannot share device 'cuda:1'" in message
        assert named == "cpu"


def test_a_process_alone_is_left_as_it_is(plan):
    network, _ = first_network(plan, None)
    assert joined(network) is network
    assert ranks.device("cuda:1") == "cuda:1"
    values = torch.ones(3)
    assert ranks.total(values) is values


def test_a_foreign_network_on_nested_regions_learns_for_more_than_one_step(answers):
    assert [found["foreign"] for found in answers] == ["learned"] * len(answers)


@pytest.mark.parametrize(("cores", "here", "each"), [(8, 2, 4), (2, 4, 1), (7, 2, 3)])
def test_ranks_of_a_machine_share_its_cores(monkeypatch, cores, here, each):
    monkeypatch.setattr("focalis.ranks.usable_cores", lambda: cores)
    monkeypatch.setattr("focalis.ranks.gathered", lambda name: [name] * here + ["another machine"] * 3)
    assert ranks.threads() == each


def test_each_rank_of_a_machine_takes_its_own_gpu(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr("focalis.ranks.count", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert {ranks.device("auto"), ranks.device("cuda")} == {"cuda:1"}
    assert ranks.device("cpu") == "cpu"
