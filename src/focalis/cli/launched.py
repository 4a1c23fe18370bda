"""The processes of one training, as `torchrun` starts them: the first speaks for all."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import typer


@contextmanager
def launched() -> Iterator[bool]:
    """Join the processes of the launcher, if there is one; others than the first are silent, and end with the block.

    Yields whether the launcher has started them anew, after one of them died: then the run is to go on.
    """
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield restarts > 0
        return
    from focalis import ranks

    with ExitStack() as silence, ranks.joined(restarts):
        if ranks.rank() == 0:
            yield restarts > 0
            return
        try:
            nowhere = silence.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            with redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield restarts > 0
        except (Exception, KeyboardInterrupt) as error:
            if not ranks.is_agreed(error):
                print(f"process {ranks.rank()}:", file=sys.stderr)
                raise
            raise typer.Exit(130 if isinstance(error, KeyboardInterrupt) else 1) from None
        raise typer.Exit
