"""Several processes that train one network together, as `torchrun` starts them; a process alone is rank 0 of 1.

All ranks run the same training on their share of every batch. Rank 0 leads: it decides, writes the files, and tells the
others which tasks to join, see `led`. What only some ranks can see (an error, Ctrl-C, a clock) is agreed on before any
of them acts on it, so that none waits for a rank that went another way.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch import distributed as group
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from focalis.cores import usable_cores
from focalis.errors import TrainingError, UsageError

PATIENCE = timedelta(days=7)
"""A rank may wait as long as another one prepares or predicts; a dead one is noticed by its launcher."""

T = TypeVar("T")
P = ParamSpec("P")
E = TypeVar("E", bound=BaseException)


def count() -> int:
    """How many processes train together."""
    return group.get_world_size() if group.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return group.get_rank() if group.is_initialized() else 0


@contextmanager
def joined(attempt: int = 0) -> Iterator[Store]:
    """Join the processes that the same launcher started; they are named by its environment variables.

    Args:
        attempt: how often it has started them before. Their addresses of then still lie in its store.

    Yields:
        The launcher's store.
    """
    gpus = torch.cuda.is_available() and group.is_nccl_available()
    if gpus:
        torch.cuda.set_device(group.get_node_local_rank(0) % torch.cuda.device_count())
    store, own, size = next(rendezvous("env://"))
    group.init_process_group(
        "cpu:gloo,cuda:nccl" if gpus else "gloo",
        store=PrefixStore(f"attempt {attempt}", store),
        rank=own,
        world_size=size,
        timeout=PATIENCE,
    )
    try:
        yield store
    finally:
        if group.is_initialized():
            group.destroy_process_group()


def device(name: str) -> str:
    """The device of this rank where `name` was asked for: each has a GPU of its own.

    Raises:
        UsageError: one GPU was named for several processes.
    """
    if count() == 1 or name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return name
    if name not in ("auto", "cuda"):
        raise UsageError(f"{count()} processes cannot share device {name!r}; give auto, cpu or cuda")
    return f"cuda:{group.get_node_local_rank(0)}"


def threads() -> int:
    """This rank's share of the cores that its machine's ranks may use, at least one; all ranks ask together."""
    here = gathered(platform.node()).count(platform.node())
    return max(1, usable_cores() // here)


class _Total(torch.autograd.Function):
    """The sum over the ranks. Every rank goes on with it, so its derivative is the sum of theirs."""

    @staticmethod
    def forward(_context: Any, values: Tensor) -> Tensor:
        return _reduced(values)

    @staticmethod
    def backward(_context: Any, *gradients: Tensor) -> Tensor:
        return _reduced(gradients[0])


def _reduced(values: Tensor) -> Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    group.all_reduce(total)
    return total


def total(values: Tensor) -> Tensor:
    """Sums over the patches of this rank, summed over all ranks; differentiable. The same tensor in a process alone.

    A mean over the batch is `total` of what is summed, divided by `total` of what is counted.
    """
    if count() == 1 or isinstance(values, FakeTensor):
        return values
    return _Total.apply(values)  # type: ignore[no-any-return, no-untyped-call]


def share(items: Sequence[T]) -> Sequence[T]:
    """The items that are this rank's: every `count`-th."""
    return items[rank() :: count()]


def any_of(flags: Sequence[bool]) -> list[bool]:
    """Which of the flags are set on any rank."""
    if count() == 1:
        return list(flags)
    found = torch.tensor([int(flag) for flag in flags])
    group.all_reduce(found, group.ReduceOp.MAX)
    return [bool(flag) for flag in found.tolist()]


def gathered(value: T) -> list[T]:
    """A value of every rank, on every rank."""
    values: list[Any] = [value] * count()
    if count() > 1:
        group.all_gather_object(values, value)
    return values


def everywhere(function: Callable[[], T]) -> T:
    """Call a function on every rank; an error on one of them is raised on all."""
    if count() == 1:
        return function()
    value, error = _attempt(function)
    for found in gathered(error):
        if found is not None:
            raise agreed(found)
    return value  # type: ignore[return-value]


def from_first(function: Callable[[], T]) -> T:
    """Call a function on rank 0; what it returns, or raises, it does on every rank."""
    if count() == 1:
        return function()
    answer: list[Any] = [_attempt(function) if rank() == 0 else None]
    group.broadcast_object_list(answer)
    value, error = answer[0]
    if error is not None:
        raise agreed(error)
    return value  # type: ignore[no-any-return]


def shared_out(function: Callable[[Any], T], items: Sequence[Any]) -> list[T]:
    """Call a function on every item, each on one rank; all results on every rank, in the order of the items."""
    parts = gathered(everywhere(lambda: [function(item) for item in share(items)]))
    return [parts[number % count()][number // count()] for number in range(len(items))]


def led(follow: Callable[[Any], object]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a function that rank 0 alone runs; the others `follow` each order that it gives, and return its result.

    What the followers do must end on all ranks alike; see `everywhere`.
    """

    def decorate(lead: Callable[P, T]) -> Callable[P, T]:
        @wraps(lead)
        def run(*arguments: P.args, **options: P.kwargs) -> T:
            if count() == 1:
                return lead(*arguments, **options)
            if rank() == 0:
                result, error = _attempt(lambda: lead(*arguments, **options))
                if count() > 1:
                    _broadcast((None, result, error))
                if error is not None:
                    raise error
                return result  # type: ignore[return-value]
            while True:
                order, result, error = _broadcast(None)
                if order is None:
                    break
                try:
                    follow(order)
                except (Exception, KeyboardInterrupt) as failure:
                    if not is_agreed(failure):
                        raise
            if error is not None:
                raise agreed(error)
            return result  # type: ignore[no-any-return]

        return run

    return decorate


@contextmanager
def joint(order: object) -> Iterator[None]:
    """What all ranks do together, by an order to the others, see `led`.

    After an error that is not theirs too, the others wait for what does not come: this rank leaves them, and their
    launcher ends them.
    """
    if count() > 1 and rank() == 0:
        _broadcast((order, None, None))
    try:
        yield
    except BaseException as error:
        if count() > 1 and not is_agreed(error):
            group.destroy_process_group()
            # what PyTorch says of a dead process
            if isinstance(error, RuntimeError) and "onnection" in str(error):
                raise TrainingError(
                    "another process of this training has ended; torchrun starts all of them again with --max-restarts"
                ) from error
        raise


def is_agreed(error: BaseException) -> bool:
    """Whether an error was raised on every rank, so that rank 0 reports it for all."""
    return bool(getattr(error, "on_every_rank", False))


def agreed(error: E) -> E:
    """An error that every rank raises at this place: rank 0 reports it, and the others go on to the next order."""
    error.on_every_rank = True  # type: ignore[attr-defined]
    return error


def _broadcast(what: Any) -> Any:
    message = [what]
    group.broadcast_object_list(message)
    return message[0]


def _attempt(function: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return function(), None
    except (Exception, KeyboardInterrupt) as error:
        return None, error
