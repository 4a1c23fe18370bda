"""How many cases `focalis predict` does in one process: this revision and an older one in turns, and memory over many.

    git worktree add /tmp/before REVISION
    (cd /tmp && PYTHONPATH=/tmp/before/src python -m focalis demo)
    python benchmarks/speed_throughput.py --before /tmp/before/src --model MODEL
    python benchmarks/speed_throughput.py --memory 10000

MODEL is one that both revisions read, such as that of the older one's demo. This writes results/speed/throughput.json:
wall seconds, start included, and peak memory of the whole program with its defaults, on --cases volumes of 128^3 on the
plan's spacing, and on as many that are resampled to it; medians of --rounds. The masks of both revisions must be the
same files. The last writes results/speed/throughput-memory.json: resident memory of one process after every tenth of so
many volumes of 32^3.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from speed_common import HERE, default_model, shipped_like, write
from speed_process import FOCALIS

from focalis.volume import Grid, Volume, write_volume
from focalis.workflows.predict import predict

CASES, SIDE, SMALL_SIDE = 24, 128, 32
SPACINGS_XYZ_MM = {"on the plan's spacing": (1.0, 1.0, 1.0), "resampled": (0.9, 0.9, 1.25)}
DISTINCT = 20


def main() -> None:
    """Measure time or memory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="the src folder of the older revision")
    parser.add_argument("--model", type=Path, help="the model of both")
    parser.add_argument("--memory", type=int, help="how many small volumes")
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        if options.memory:
            write("throughput-memory", memory(options.memory, home))
        elif options.before and options.model:
            write(
                "throughput", throughput(options.before, options.model, options.cases, options.rounds, home)
            )
        else:
            parser.error("give --before and --model, or --memory")


def throughput(before: Path, model: Path, cases: int, rounds: int, home: Path) -> list[dict[str, Any]]:
    """One row per kind of volume."""
    sources = {"before": before.resolve(), "now": HERE.parent / "src"}
    rows = []
    for kind, spacing in SPACINGS_XYZ_MM.items():
        images = home / kind.replace(" ", "_")
        _make(images, cases, SIDE, spacing)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in sources}
        for number in range(rounds + 1):
            for name, source in sources.items():
                words = ["predict", str(model), str(images), "-o", str(home / name)]
                environment = os.environ | {"PYTHONPATH": str(source), "XDG_CACHE_HOME": str(home / "cache")}
                if not number:  # the first converts the network, on a single case
                    words[2] = str(images / "c0000.nii.gz")
                done = run([sys.executable, "-c", FOCALIS, *words], environment, home / "log.txt")
                print(kind, name, *done, file=sys.stderr)
                found[name] += [done] if number else []
        for path in sorted((home / "before").glob("*.nii.gz")):
            if path.read_bytes() != (home / "now" / path.name).read_bytes():
                sys.exit(f"{path.name}: the masks differ")
        (old, old_gb), (new, new_gb) = (np.median(found[name], axis=0).tolist() for name in sources)
        rows.append(
            {
                "what": f"{cases} volumes of {SIDE}^3, {kind}",
                "seconds before": old,
                "seconds now": new,
                "throughput of before": old / new,
                "resident GB before": old_gb,
                "resident GB now": new_gb,
                "rounds": rounds,
            }
        )
    return rows


def run(command: list[str], environment: dict[str, str], log: Path) -> tuple[float, float]:
    """The wall seconds and the peak resident GB of a program; nothing looks at it meanwhile, which would take time."""
    started = time.perf_counter()
    with log.open("w") as said:
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)}: failed\n{log.read_text()[-2000:]}")
    return time.perf_counter() - started, usage.ru_maxrss * 1024 / 1e9


def memory(cases: int, home: Path) -> list[dict[str, Any]]:
    """Resident memory after every tenth of the cases."""
    images = home / "images"
    _make(images, min(cases, DISTINCT), SMALL_SIDE, SPACINGS_XYZ_MM["on the plan's spacing"])
    for number in range(DISTINCT, cases):
        os.link(images / f"c{number % DISTINCT:04d}.nii.gz", images / f"c{number:04d}.nii.gz")
    rows = []

    def look(done: int, total: int, _case: str) -> None:
        if done * 10 // total > len(rows):
            resident = psutil.Process().memory_info().rss / 1e9
            rows.append({"what": f"volumes of {SMALL_SIDE}^3", "cases": done, "resident GB": resident})
            print(rows[-1], file=sys.stderr)

    predict(shipped_like(default_model()), [images], home / "out", progress=look)
    return rows


def _make(folder: Path, count: int, side: int, spacing_xyz_mm: tuple[float, float, float]) -> None:
    """Noise with three bright balls, int16."""
    places = np.indices((side,) * 3)
    for number in range(count):
        rng = np.random.default_rng(number)
        values = rng.normal(100, 20, places.shape[1:])
        for centre in rng.integers(side // 6, side - side // 6, (3, 3)):
            away = sum((places[axis] - centre[axis]) ** 2 for axis in range(3))
            values[away < rng.integers(3, 8) ** 2] += 120
        grid = Grid((side,) * 3, spacing_xyz_mm)
        write_volume(Volume(values.astype(np.int16), grid), folder / f"c{number:04d}.nii.gz")


if __name__ == "__main__":
    main()
