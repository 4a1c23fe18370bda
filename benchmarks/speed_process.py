"""Whole programs from start to file: `focalis predict` and `nnUNetv2_predict` on one volume, and `focalis --help`.

    python benchmarks/speed_process.py --nnunet VENV

VENV is an environment with torch 2.14.1, torchvision 0.29.1 and nnunetv2; without it only Focalis runs. Wall time and
peak resident memory of the process with its children; medians of five interleaved rounds (nnU-Net with mirroring: one).
Same volume of 256 x 256 x 128 at 1 mm, same threads, step 0.5, an untrained network of patch 128^3. --size makes a
quick trial, whose result is printed, not written.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from speed import calibrated
from speed_common import HERE, default_model, peaks, shipped_like, write

from focalis.model import save_model
from focalis.volume import Grid, Volume, write_volume

FOCALIS = "import sys; from focalis.cli.main import main; main()"


def main() -> None:
    """Measure all programs in turns."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nnunet", type=Path, help="folder of a virtual environment with nnU-Net")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for rows in measure(options, Path(name)):
            if options.size == 256 and options.rounds >= 5:
                write("process", rows, peaks=peaks(), rival=versions(options.nnunet))
            else:
                print(json.dumps(rows, indent=1))


def measure(options: argparse.Namespace, home: Path) -> Iterator[list[dict[str, Any]]]:
    """One row per program; again with nnU-Net's long pass over the mirror images, once, when the others are done."""
    size = options.size
    images, model = home / "images", home / "model.safetensors"
    shape = (size // 2, size, size)
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    write_volume(Volume(values, Grid(shape[::-1])), images / "case_0000.nii.gz")
    save_model(shipped_like(calibrated(default_model())), model)
    threads = {"OMP_NUM_THREADS": str(options.threads)}
    commands = {"focalis --help": [sys.executable, "-c", FOCALIS, "--help"]}
    for runtime in ("torch", "openvino", "openvino-int8", "auto"):
        words = ["predict", str(model), str(images), "-o", str(home / runtime), "--runtime", runtime]
        commands[f"focalis predict --runtime {runtime}"] = [sys.executable, "-c", FOCALIS, *words]
    if options.nnunet:
        python, folder = options.nnunet / "bin" / "python", home / "nnunet"
        patch = str(min(128, size // 2))
        make = [str(python), str(HERE / "speed_nnunet.py"), str(folder), patch]
        subprocess.run(make, check=True, capture_output=True, env=os.environ | _NNUNET)
        words = ["-i", str(images), "-o", str(home / "masks"), "-m", str(folder), "-f", "0"]
        words += ["-step_size", "0.5", "-device", "cpu", "-npp", "1", "-nps", "1"]
        program = str(options.nnunet / "bin" / "nnUNetv2_predict_from_modelfolder")
        commands["nnUNetv2_predict, no mirroring"] = [program, *words, "--disable_tta"]
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    # Each run time has a cache of its own, so that its first use converts what it needs.
    caches = {name: str(home / "cache" / str(number)) for number, name in enumerate(commands)}
    environments = {
        name: os.environ | threads | _NNUNET | {"XDG_CACHE_HOME": caches[name]} for name in commands
    }
    first = {
        name: run(command, environments[name]) for name, command in commands.items() if "focalis" in name
    }
    for _ in range(options.rounds):
        for name, command in commands.items():
            found[name].append(run(command, environments[name]))
            print(name, found[name][-1], file=sys.stderr)
    yield rows_of(found, first)
    if options.nnunet:
        found["nnUNetv2_predict, mirroring"] = [run([program, *words], os.environ | threads | _NNUNET)]
        yield rows_of(found, first)


def versions(nnunet: Path | None) -> dict[str, str] | None:
    """Of nnU-Net and of its PyTorch, from its own environment."""
    if nnunet is None:
        return None
    ask = "from importlib.metadata import version; print(version('nnunetv2'), version('torch'))"
    done = subprocess.run(
        [str(nnunet / "bin" / "python"), "-c", ask], capture_output=True, text=True, check=True
    )
    package, torch = done.stdout.split()
    return {"nnunetv2": package, "torch": torch}


def rows_of(
    found: dict[str, list[tuple[float, float]]], first: dict[str, tuple[float, float]]
) -> list[dict[str, Any]]:
    """Medians of the seconds and the memory, and their ratios to nnU-Net's without mirroring, if it ran."""
    rows: list[dict[str, Any]] = []
    rival = found.get("nnUNetv2_predict, no mirroring")
    for name, values in found.items():
        seconds, memory = np.median(values, axis=0)
        row = {"what": name, "seconds": float(seconds), "resident GB": float(memory), "rounds": len(values)}
        if name in first:
            row["seconds of the first use"] = first[name][0]
        if rival:
            row["of nnU-Net's time"] = float(seconds / np.median(rival, axis=0)[0])
            row["of nnU-Net's memory"] = float(memory / np.median(rival, axis=0)[1])
        rows.append(row)
    return rows


_NNUNET = dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), "/nonexistent")


def run(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall seconds, and the largest sum of the resident memory of the process and its children in GB."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        watch = _Memory(process.pid)
        watch.start()
        code = process.wait()
        seconds = time.perf_counter() - started
        watch.join()
        if code:
            log.seek(0)
            sys.exit(f"{' '.join(command)}: exit code {code}\n{log.read().decode()[-2000:]}")
    return seconds, watch.most / 1e9


class _Memory(threading.Thread):
    """Looks at a process and its children every 50 ms until it ends."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.pid, self.most = pid, 0

    def run(self) -> None:
        try:
            process = psutil.Process(self.pid)
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                family = [process, *process.children(recursive=True)]
                self.most = max(self.most, sum(_resident(one) for one in family))
                time.sleep(0.05)
        except psutil.NoSuchProcess:
            pass


def _resident(process: psutil.Process) -> int:
    try:
        memory = process.memory_full_info()
        return int(getattr(memory, "pss", memory.rss))  # pages that processes share count once
    except psutil.Error:
        return 0


if __name__ == "__main__":
    main()
