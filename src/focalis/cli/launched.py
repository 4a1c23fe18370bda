"""The processes of one training, as `torchrun` starts them: the first speaks for all."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store


@contextmanager
def launched(is_begun: Callable[[], bool] = lambda: False) -> Iterator[bool]:
    """Join the processes of the launcher, if there is one; others than the first are silent, and end with the block.

    Yields whether the launcher has started them anew, after one of them died, and the run is its own: then the run is
    to go on.

    Args:
        is_begun: whether the run's folder holds a run. If it did when the launcher first started, that is another one.
    """
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield _is_own(_store(), is_begun) and restarts > 0
        return
    from focalis import ranks

    with ExitStack() as silence, ranks.joined(restarts) as store:
        anew = _is_own(store, is_begun) and restarts > 0
        if ranks.rank() == 0:
            yield anew
            return
        try:
            nowhere = silence.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield anew
        except (Exception, KeyboardInterrupt) as error:
            if not ranks.is_agreed(error):
                print(f"process {ranks.rank()}:", file=sys.stderr)
                raise
            raise typer.Exit(130 if isinstance(error, KeyboardInterrupt) else 1) from None
        raise typer.Exit


def _store() -> Store | None:
    """The store of a launcher of one process; None without a launcher."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    from torch.distributed.rendezvous import rendezvous

    store: Store = next(rendezvous("env://"))[0]
    return store


def _is_own(store: Store | None, is_begun: Callable[[], bool]) -> bool:
    """Whether a run was not begun when one of the launcher's processes first looked; the store outlives them."""
    looked = "begun" if is_begun() else "own"
    if store is not None:
        looked = store.compare_set("focalis run", "", looked).decode()
    return looked == "own"
