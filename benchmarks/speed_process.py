"""Whole programs from start to file: `focalis predict` and `nnUNetv2_predict` on one volume, and `focalis --help`.

    python benchmarks/speed_process.py --nnunet VENV

    python benchmarks/speed_process.py --nnunet VENV --mirroring     nnU-Net alone, without mirroring and with it
    python benchmarks/speed_process.py --beside small-unet           the default network and another one, nothing else

VENV is an environment with torch 2.14.1, torchvision 0.29.1 and nnunetv2; without it only Focalis runs. Wall time and
peak resident memory of the process with its children; medians of five interleaved rounds (--mirroring: one, which takes
a quarter of an hour). Same volume of 256 x 256 x 128 at 1 mm, all threads, step 0.5, an untrained network of patch
128^3. --size makes a quick trial, whose result is printed, not written.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
    parser.add_argument(
        "--mirroring", action="store_true", help="only nnU-Net, once without and once with it"
    )
    parser.add_argument("--beside", metavar="NETWORK", help="only the default network and this one")
    options = parser.parse_args()
    if options.mirroring and not options.nnunet:
        parser.error("--mirroring is about nnU-Net: give --nnunet as well")
    with tempfile.TemporaryDirectory() as name:
        rows = measure(options, Path(name))
    if options.size == 256 and options.rounds >= 5:
        name = "process-mirroring" if options.mirroring else "process"
        name += f"-{options.beside}" if options.beside else ""
        write(name, rows, peaks=peaks(), rival=versions(options.nnunet))
    else:
        print(json.dumps(rows, indent=1))


def measure(options: argparse.Namespace, home: Path) -> list[dict[str, Any]]:
    """One row per program."""
    size = options.size
    images, model = home / "images", home / "model.safetensors"
    shape = (size // 2, size, size)
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    write_volume(Volume(values, Grid(shape[::-1])), images / "case_0000.nii.gz")
    save_model(shipped_like(calibrated(default_model())), model)
    alone = options.mirroring or options.beside
    commands = {} if alone else {"focalis --help": [sys.executable, "-c", FOCALIS, "--help"]}
    for network in ("dense", options.beside) if options.beside else ():
        other = home / f"{network}.safetensors"
        save_model(shipped_like(calibrated(default_model(network))), other)
        words = ["predict", str(other), str(images), "-o", str(home / network)]
        commands[f"focalis predict, {network}"] = [sys.executable, "-c", FOCALIS, *words]
    for runtime in () if alone else ("torch", "openvino", "openvino-int8", "auto"):
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
        if options.mirroring:
            commands["nnUNetv2_predict, mirroring"] = [program, *words]
    found: dict[str, list[Run]] = {name: [] for name in commands}
    # Each run time has a cache of its own, so that its first use converts what it needs.
    caches = {name: str(home / "cache" / str(number)) for number, name in enumerate(commands)}
    environments = {name: os.environ | _NNUNET | {"XDG_CACHE_HOME": caches[name]} for name in commands}
    first = {
        name: run(command, environments[name]) for name, command in commands.items() if "focalis" in name
    }
    for _ in range(1 if options.mirroring else options.rounds):
        for name, command in commands.items():
            found[name].append(run(command, environments[name]))
            print(name, *found[name][-1][:2], file=sys.stderr)
    return rows_of(found, first)


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


def rows_of(found: dict[str, list[Run]], first: dict[str, Run]) -> list[dict[str, Any]]:
    """Medians of the seconds and the memory, and their ratios to nnU-Net's without mirroring, if it ran."""
    rows: list[dict[str, Any]] = []
    rival = found.get("nnUNetv2_predict, no mirroring")
    for name, values in found.items():
        seconds, memory = medians(values)
        row = {"what": name, "seconds": seconds, "resident GB": memory, "rounds": len(values)}
        if name in first:
            row["seconds of the first use"] = first[name].seconds
        if rival:
            of_seconds, of_memory = medians(rival)
            row["of nnU-Net's time"], row["of nnU-Net's memory"] = seconds / of_seconds, memory / of_memory
        if told := re.search("^run time: (.*)$", values[-1].said, re.MULTILINE):
            row["what ran"] = told[1]
        rows.append(row)
    return rows


_NNUNET = dict.fromkeys(("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"), "/nonexistent")


class Run(NamedTuple):
    """A program that ran: its wall time, the peak memory of it and its children, and what it printed."""

    seconds: float
    memory_gb: float
    said: str


def medians(runs: Sequence[Run]) -> tuple[float, float]:
    """The median seconds and memory."""
    return float(np.median([each.seconds for each in runs])), float(
        np.median([each.memory_gb for each in runs])
    )


def run(command: list[str], environment: dict[str, str]) -> Run:
    """Run a program to its end; SystemExit if it fails."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        watch = _Memory(process.pid)
        watch.start()
        code = process.wait()
        seconds = time.perf_counter() - started
        watch.join()
        log.seek(0)
        said = log.read().decode()
    if code:
        sys.exit(f"{' '.join(command)}: exit code {code}\n{said[-2000:]}")
    return Run(seconds, watch.most / 1e9, said)


class _Memory(threading.Thread):
    """Looks at a process and its children every 50 ms until it ends.

    Pages that members of the family share count once. Those of the libraries that this process has mapped as well would
    count by half; the system's own peak of the first process knows neither that nor the gaps between two looks.
    """

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.pid, self.most = pid, 0

    def run(self) -> None:
        try:
            process = psutil.Process(self.pid)
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                family = [process, *process.children(recursive=True)]
                self.most = max(self.most, _peak(self.pid), sum(_resident(one) for one in family))
                time.sleep(0.05)
        except psutil.NoSuchProcess:
            pass


def _peak(pid: int) -> int:
    """The peak resident memory of a process in bytes; 0 when it is gone, or where the system does not tell."""
    try:
        told = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return 1024 * int(told[1]) if told else 0


def _resident(process: psutil.Process) -> int:
    try:
        memory = process.memory_full_info()
        return int(getattr(memory, "pss", memory.rss))
    except psutil.Error:
        return 0


if __name__ == "__main__":
    main()
