"""`focalis data`: public data sets, what they are and how to get them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from focalis.cli.console import Advance, as_plain, print_json, progress_bar
from focalis.cli.demo import DATA_VARIABLE
from focalis.errors import UsageError

if TYPE_CHECKING:
    from focalis.dataset.public import PublicSet
    from focalis.workflows.data import Agree, Progress

data = typer.Typer(
    help="List and download public data sets.",
    epilog="Example: focalis data get Task04_Hippocampus -o data\n\n"
    "Guide: public-data.md in the folder that focalis --docs prints",
    no_args_is_help=True,
)
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@data.command("list", epilog="Example: focalis data list")
def list_data(as_json: AsJson = False) -> None:
    """List public data sets: licence, size, content, and the copy on this machine."""
    from focalis.workflows.data import list_data as run_list

    rows = run_list(_copies())
    if as_json:
        print_json([_plain(row.public, path=row.path) for row in rows])
        return
    for row in rows:
        known = row.public
        print(f"{known.name:<21}{known.licence:<14}{_size(known):>8}  {known.title:<43}{row.path or '-'}")


@data.command("get", epilog="Example: focalis data get Task04_Hippocampus -o data")
def get_data(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name from focalis data list.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help=f"Folder of data sets; the set becomes FOLDER/NAME. Default: {DATA_VARIABLE}, else the user's cache.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Accept the licence without a question.")] = False,
    as_json: AsJson = False,
) -> None:
    """Get a public data set: find it on this machine, or download it. Prints its folder."""
    from focalis.workflows.data import get_data as run_get

    try:
        with _megabytes() as progress:
            result = run_get(name, out, copies=_copies(), agree=_agreement(yes), progress=progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("what was downloaded is kept; the same command goes on with it") from None
    if as_json:
        print_json(_plain(result.public, path=result.path, downloaded=result.downloaded))
        return
    if not result.downloaded:
        print(f"{result.public.name} is there already; nothing was downloaded", file=sys.stderr)
    print(result.path)


def _copies() -> str | None:
    """The folder of local copies, if the environment names one."""
    folder = os.environ.get(DATA_VARIABLE) or None
    if folder is not None and not Path(folder).is_dir():
        raise UsageError(f"{DATA_VARIABLE}: names {folder}, which is not a folder; correct it or unset it")
    return folder


@contextmanager
def _megabytes() -> Iterator[Progress]:
    """A progress bar that counts megabytes and appears with the first byte: a question may stand before it."""
    with ExitStack() as stack:
        bars: list[Advance] = []

        def show(stage: str, done: int, total: int | None) -> None:
            if not bars:
                bars.append(stack.enter_context(progress_bar()))
            whole = None if total is None else round(total / 1e6, 1)
            bars[0](f"{stage} (MB)", round(done / 1e6, 1), whole)

        yield show


def _agreement(yes: bool) -> Agree:
    """Show the licence, and go on only if it is accepted."""

    def agree(public: PublicSet, target: Path) -> None:
        labels = ", ".join(f"{value} {label}" for value, label in public.labels.items())
        print(
            f"{public.name}: {public.title}; {public.cases} labelled cases, download about {_size(public)}\n"
            f"  labels: {labels}\n"
            f"  licence: {public.licence}, {public.licence_url}\n"
            f"  cite: {public.citation}\n"
            f"  from: {public.url}\n"
            f"  to: {target}",
            file=sys.stderr,
        )
        if yes:
            return
        if not sys.stdin.isatty():
            raise UsageError.at(
                public.name, "its licence has to be accepted, and there is no terminal to ask", "give --yes"
            )
        # On stderr, because stdout holds the path and nothing else: DATA=$(focalis data get NAME).
        print("Accept the licence and download? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            print("nothing was downloaded", file=sys.stderr)
            raise typer.Exit(1)

    return agree


def _plain(public: PublicSet, **more: object) -> dict[str, Any]:
    return {**as_plain(public), **as_plain(more)}


def _size(public: PublicSet) -> str:
    size = public.megabytes
    return f"{size} MB" if size < 1000 else f"{size / 1000:g} GB"
