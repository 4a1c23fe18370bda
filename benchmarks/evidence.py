"""Evidence for the method's claims: named rows, each one training with its scores in one JSON file.

    python benchmarks/evidence.py --list                what is there, what is missing, how long that takes
    python benchmarks/evidence.py all                   train what is missing, the most important first
    python benchmarks/evidence.py loss --rows seed0     experiments by their beginning, rows by a piece of their name
    python benchmarks/evidence.py network --steps 5 --results /tmp/trial    a trial that leaves the results alone
    make evidence                                       tables and figures of docs/evidence-tables.md from what is there

A row takes one thread, so start the same command twice: a process leaves out the rows that another one has claimed. A
row that was stopped goes on where it was. FOCALIS_DATA names the folder of the data sets; run folders go to --runs,
which both processes must share. On a cluster the command is an array of jobs, on a share that locks files:

    sbatch --array=1-16 --wrap "python benchmarks/evidence.py all --runs SHARE/runs --results SHARE/results"
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from evidence_plan import RESULTS, FitRow, Row, chosen, experiments, with_steps
from filelock import FileLock, Timeout

AT_A_TIME = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """List, or train what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = ", ".join(experiments())
    parser.add_argument("experiment", nargs="*", help=f"all, loss, success, or one of {known}")
    parser.add_argument("--list", action="store_true", help="say what is there and what is missing, and stop")
    parser.add_argument(
        "--rows",
        action="append",
        default=[],
        metavar="TEXT",
        help="rows whose name holds TEXT; given twice, both texts",
    )
    parser.add_argument(
        "--steps", type=int, help="another number of steps, for a trial; accuracy is left out"
    )
    parser.add_argument("--threads", type=int, default=1, help="of one row")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where unfinished rows lie")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results lie")
    options = parser.parse_args(arguments)
    try:
        found = chosen(options.experiment or (["all"] if options.list else []))
    except KeyError as error:
        parser.error(f"{error.args[0]!r} is no experiment; choose from all, loss, success, {known}")
    if not found:
        parser.error(f"name an experiment ({known}), all, or --list")
    rows = {
        name: [
            row
            for row in (with_steps(listed, options.steps) if options.steps else listed)
            if all(text in row.name for text in options.rows)
        ]
        for name, listed in found.items()
    }
    if options.list:
        print(listing(rows, options.results))
        return
    if not any(rows.values()):
        parser.error(f"no row's name holds {' and '.join(options.rows)}; --list has the names")
    train_missing([row for listed in rows.values() for row in listed], options)


def listing(rows: dict[str, list[Row | FitRow]], results: Path = RESULTS) -> str:
    """How many rows of each experiment are there, and about how long the missing ones take; a row counts once."""
    lines, seen = [f"{'experiment':18} {'there':>6} {'missing':>8}   on two cores"], set()
    total = 0.0
    for name, listed in rows.items():
        fresh = list({row.path(results): row for row in listed if row.path(results) not in seen}.values())
        missing = [row for row in fresh if not row.path(results).exists()]
        seconds = sum(row.seconds for row in missing) / AT_A_TIME
        seen |= {row.path(results) for row in fresh}
        total += seconds
        also = len({row.path(results) for row in listed}) - len(fresh)
        shared = f"   ({also} more are rows of experiments above)" if also else ""
        there = len(fresh) - len(missing)
        lines.append(f"{name:18} {there:6} {len(missing):8}   {seconds / 3600:5.1f} h{shared}")
        lines += [f"    missing: {row.name}, about {row.seconds / 60:.0f} min" for row in missing]
    return "\n".join([*lines, f"{'together':18} {'':6} {'':8}   {total / 3600:5.1f} h"])


def train_missing(rows: Sequence[Row | FitRow], options: argparse.Namespace) -> None:
    """Train the rows that are neither there nor claimed by another process; Ctrl-C keeps the row's last step."""
    if all(row.path(options.results).exists() for row in rows):
        print(
            f"nothing to do: all {len(rows)} rows are in {options.results}; another --results makes them again"
        )
        return
    import torch
    from evidence_data import write_nodules
    from evidence_rows import lacks_start, make

    torch.set_num_threads(options.threads)
    claims = options.runs / "claims"
    claims.mkdir(parents=True, exist_ok=True)
    write_nodules(options.results)
    for number, row in enumerate(rows, start=1):
        path = row.path(options.results)
        if path.exists():
            continue
        if isinstance(row, Row) and (lacking := lacks_start(row, options.runs)):
            print(f"{row.name} is left out: {lacking}", flush=True)
            continue
        try:
            with FileLock(claims / f"{row.name}.lock", timeout=0):
                if path.exists():  # another process finished it meanwhile
                    continue
                print(f"{number} of {len(rows)}: {row.name}", flush=True)
                make(row, options.runs, options.results)
        except Timeout:
            continue
        except KeyboardInterrupt:
            sys.exit(f"stopped; the same command goes on with {row.name}")


if __name__ == "__main__":
    main()
