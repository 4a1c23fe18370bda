"""How much memory a computation needs, known before it runs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from focalis.networks.dry import dry


def peak_bytes(
    compute: Callable[[], object], *, spent: nn.Module | None = None, with_data: bool = False
) -> int:
    """The most bytes of tensors alive at once while `compute` runs, those not counted that existed before.

    Nothing of that size is allocated: inside, tensors have a shape and a type but no data, and every storage is
    counted from its birth to its end. What kernels take as work space is not seen.

    Args:
        spent: a network whose weights lose their data first, and are of no use afterwards: a step takes half the time.
        with_data: compute in earnest, for what cannot run without data, see `needs_data`.
    """
    ledger = _Ledger()
    with nullcontext() if with_data else dry() as mode:
        if spent is not None and mode is not None:
            with suppress(RuntimeError):  # of a layer that is held twice; the others keep their data
                spent._apply(mode.from_tensor)  # type: ignore[no-untyped-call]
        with ledger:
            compute()
    return ledger.peak


class _Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that operations bring to life, and takes them off when they die."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size
