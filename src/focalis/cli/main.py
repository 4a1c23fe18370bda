"""The `focalis` command: its subcommands, and what errors and Ctrl-C look like to a person."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from focalis import __version__
from focalis.cli.agree import agree
from focalis.cli.check import check
from focalis.cli.compare import compare
from focalis.cli.data import data
from focalis.cli.demo import demo
from focalis.cli.evaluate import evaluate
from focalis.cli.export import export
from focalis.cli.fit import fit
from focalis.cli.follow import follow
from focalis.cli.import_dicom import import_dicom
from focalis.cli.predict import predict
from focalis.cli.serve import serve
from focalis.cli.work import work
from focalis.errors import FocalisError, UsageError

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130
SPINS = "3000"
"""How long PyTorch's threads wait for each other by spinning before they sleep (GNU's OpenMP; a hundred times less than
its own choice): where another program has a core, threads that spin keep the one that they wait for from running."""


class _Commands(TyperGroup):
    """A command group that turns errors into one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            # typer passes pydantic's own words on
            error.message = error.message.removeprefix("Value error, ")
            raise
        except FocalisError as error:
            code = WRONG_USAGE if isinstance(error, UsageError) else FAILED
            told = "\n".join(f"error: {line}" for line in error.command_lines)
            self._fail(told, code, bool(ctx.params.get("debug")))
        except KeyboardInterrupt as stop:
            saved = str(stop) or "files that were finished are whole, nothing half-written stays"
            self._fail(f"interrupted: {saved}", INTERRUPTED, debug=False)

    def _fail(self, line: str, code: int, debug: bool) -> None:
        if debug:
            traceback.print_exc()
        print(line, file=sys.stderr)
        raise typer.Exit(code)


app = typer.Typer(
    cls=_Commands,
    name="focalis",
    help="Find small, irregular lesions in large 3D medical images.",
    epilog="Start with: focalis demo -o demo. Guides: the folder that focalis --docs prints.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"focalis {__version__}")
        raise typer.Exit


def _print_docs(wanted: bool) -> None:
    if wanted:
        package = Path(__file__).parents[1]
        held = package / "docs"  # in a wheel; the repository has them beside src/
        print(held if held.is_dir() else package.parents[1] / "docs")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback if a command fails.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True),
    ] = False,
    docs: Annotated[
        bool,
        typer.Option(
            "--docs",
            help="Print the folder of the guides (index.md) and stop.",
            callback=_print_docs,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Find small, irregular lesions in large 3D medical images."""


def _more(example: str, page: str) -> str:
    return f"Example: {example}\n\nGuide: {page}.md in the folder that focalis --docs prints"


app.command(epilog=_more("focalis check data/nodules -o report", "check"))(check)
app.command(epilog=_more("focalis fit data/nodules -o runs/nodules --minutes 30", "fit"))(fit)
app.command(epilog=_more("focalis predict runs/nodules scans/ -o masks", "predict"))(predict)
app.command(epilog=_more("focalis evaluate masks data/nodules/labels -o scores", "evaluate"))(evaluate)
app.command(epilog=_more("focalis agree data/nodules -o agreement", "agree"))(agree)
app.command(
    epilog=_more(
        "focalis compare data/nodules -o compared --networks dense,unet,nnunet --minutes 12", "compare"
    )
)(compare)
app.command(epilog=_more("focalis follow january/ april/ --model runs/nodules -o followed", "follow-up"))(
    follow
)
app.command("import", epilog=_more("focalis import export/ -o data/tumours --structure 'GTV*'", "dicom"))(
    import_dicom
)
app.command(epilog=_more("focalis work runs/nodules/tasks/0.json", "fit"))(work)
app.command(epilog=_more("focalis serve runs/nodules/model.safetensors --folder device", "device"))(serve)
app.command(epilog=_more("focalis export lidc-nodule -o exported", "export"))(export)
app.command(epilog=_more("focalis demo -o demo --minutes 3", "phantoms"))(demo)

app.add_typer(data, name="data")


def _one_line(message: Warning | str, *_where: object, **_more: object) -> None:
    """A warning as a person reads it, without the place in the code."""
    print(f"warning: {message}", file=sys.stderr)


@contextmanager
def _tracebacks_shown(wanted: bool) -> Iterator[None]:
    """Show on stderr the tracebacks of refused cases, which a batch only logs."""
    log, handler = logging.getLogger("focalis.errors"), logging.StreamHandler()
    if wanted:
        log.addHandler(handler)
        log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 the work failed, 2 wrong usage, 130 interrupted.

    Args:
        arguments: the words after `focalis`; those of this process if None.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # counts, for PyTorch is not loaded yet
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    if debug:  # a global option, accepted after the command as well
        words.remove("--debug")
        words.insert(0, "--debug")
    try:
        with warnings.catch_warnings(), _tracebacks_shown(debug):
            warnings.showwarning = _one_line
            app(words, prog_name="focalis")
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, OSError) and error.strerror and error.filename:  # the disk's fault, not a bug
            print(
                f"error: {error.filename}: {error.strerror}; check folder, disk and permissions",
                file=sys.stderr,
            )
            sys.exit(FAILED)
        message = " ".join(str(error).split()) or "no message"
        what = f"unexpected {type(error).__name__}: {message}"
        from focalis.plugins import at_fault

        if plugin := at_fault(error):
            what = f"{what}, from the plug-in package {plugin.package} {plugin.version}"
            advice = "--debug shows where it failed"
        else:
            advice = "please report it with the output of --debug"
        print(f"error: {what}; {advice}", file=sys.stderr)
        sys.exit(FAILED)
