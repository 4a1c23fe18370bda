"""Ratios side by side in one run: forward passes and run times, training steps, whole volumes.

    python benchmarks/speed.py forward     # run times, then networks, one pass of 96^3
    python benchmarks/speed.py training    # a training step of 2 patches of 64^3, and the share of the data
    python benchmarks/speed.py whole       # 256 x 256 x 128 in one pass against 96^3 windows

Rows: medians of five interleaved rounds. --rounds and --size make a quick trial, whose result is printed, not written.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from speed_common import default_model, interleaved, peaks, rivals, write
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from focalis.losses import distance_to_foreground
from focalis.model import EightBit, Model
from focalis.networks import Network, peak_bytes
from focalis.planning.parts import loss_of
from focalis.prediction import (
    Runtime,
    choose_runtime,
    input_ranges,
    plan_passes,
    run_passes,
    runtime_for,
)
from focalis.training import TrainingCase, keep_freed_memory
from focalis.training.batches import batches, make_batch
from focalis.training.optimizer import KernelMuon
from focalis.workflows.record import peak_memory_gb

LAST = torch.channels_last_3d


def main() -> None:
    """Measure one part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["forward", "training", "whole", "memory"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, help="edge of the pass or patch, or of the whole volume")
    parser.add_argument(
        "--compile", action="store_true", help="forward: a row for torch.compile too (minutes)"
    )
    parser.add_argument("--runtime", default="torch", help="memory: which run time")
    options = parser.parse_args()
    if options.part == "memory":
        print(json.dumps(memory(options.runtime, options.size)))
        return
    reached = peaks()
    parts = {"forward": partial(forward, reached=reached), "training": training, "whole": whole}
    rows = parts[options.part](options)
    if options.size or options.rounds < 5:
        print(json.dumps(rows, indent=1))
    else:
        write(options.part, rows, peaks=reached)


def calibrated(model: Model, size: int = 64) -> Model:
    """The model with a calibration, so that 8-bit integers can be timed; it says nothing of accuracy."""
    image = np.random.default_rng(0).normal(size=(1, size, size, size)).astype(np.float32)
    ranges = input_ranges(model.members[0], lambda: run_passes(model, image).probabilities)
    return Model(model.plan, model.members, eight_bit=EightBit((ranges,), 0.0, "on noise"))


def forward(options: argparse.Namespace, reached: dict[str, float]) -> list[dict[str, Any]]:
    """One pass: first every run time of the default network, then it and the rivals by PyTorch in float32.

    Two groups, each in turns of its own, and the run times before a rival exists: the rivals' passes of seconds leave
    memory to PyTorch and slow the integers, which no program that predicts meets. Both stand in the second group again.
    All are channels last. The share of the peak is that of the row's own number format.
    """
    size = options.size or 96
    model = calibrated(default_model())
    x = np.random.default_rng(0).normal(size=(1, 1, size, size, size)).astype(np.float32)
    with tempfile.TemporaryDirectory() as cache:
        ways = {
            "torch float32": Runtime(),
            "torch bfloat16": Runtime(dtype=torch.bfloat16),
            "openvino": runtime_for(model, "openvino", precision="float32", cache=Path(cache)),
            "openvino bfloat16": runtime_for(model, "openvino", precision="bfloat16", cache=Path(cache)),
            "openvino-int8": runtime_for(model, "openvino-int8", cache=Path(cache)),
        }
        seconds = interleaved(
            {name: _call(way.engines(model)[0], way.put(x)) for name, way in ways.items()}, options.rounds
        )
    given = torch.from_numpy(x).contiguous(memory_format=LAST)
    flops = _flops(model.members[0], given)
    rows: list[dict[str, Any]] = []
    for name, value in seconds.items():
        row = _pass(f"dense: {name}", value, flops, reached)
        for dtype in ("bfloat16", "float32"):
            row[f"against eager {dtype}"] = value / seconds[f"torch {dtype}"]
        rows.append(row)

    networks = {"dense": model.members[0], **{name: make() for name, make in rivals().items()}}
    if options.compile:
        networks["dense, torch.compile"] = torch.compile(model.members[0].to(memory_format=LAST))
    counts = {name: _flops(network, given) for name, network in networks.items() if "compile" not in name}
    work: dict[str, Callable[[], object]] = {
        name: _inference(network, given) for name, network in networks.items()
    }
    for name in ("torch bfloat16", "openvino-int8"):
        work[f"dense, {name}"] = _call(ways[name].engines(model)[0], ways[name].put(x))
    seconds = interleaved(work, options.rounds)
    for name, value in seconds.items():
        beside = {"beside the rivals, against the default": value / seconds["dense"]}
        rows.append(_pass(name, value, counts.get(name, flops), reached) | beside)
    return rows


def _flops(network: nn.Module, x: torch.Tensor) -> int:
    """Floating-point operations of one pass."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(x)
    return counter.get_total_flops()


def _pass(name: str, seconds: float, flops: int, reached: dict[str, float]) -> dict[str, Any]:
    """A row of `forward`: the time, the work, and its share of the peak of the name's number format."""
    form = "int8" if "int8" in name else "bfloat16" if "bfloat16" in name else "float32"
    top = reached[f"gflop_per_s_{form}"]
    return {
        "what": name,
        "seconds": seconds,
        "gflop": flops / 1e9,
        "share of peak": flops / seconds / 1e9 / top,
    }


def training(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A step of forward, loss, backward and optimiser in every precision; peak memory of its tensors; data's share."""
    keep_freed_memory()  # as training on a processor does
    size = options.size or 64
    model = default_model(patch=size)
    plan, loss = model.plan, loss_of(model.plan)
    cases = [_ball(size * 5 // 4, seed) for seed in range(8)]
    batch = make_batch(cases, plan, 0, 0)
    image = batch.image.contiguous(memory_format=LAST)
    networks = {"dense": default_model(patch=size).members[0], **{n: make() for n, make in rivals().items()}}
    runtimes = {str(way.dtype).removeprefix("torch."): way for way in (Runtime(), choose_runtime("cpu"))}
    work: dict[str, Callable[[], object]] = {}
    memory = {}
    for name, network in networks.items():
        network.train().to(memory_format=LAST)
        # Ours train by the loop's own optimiser, networks of other packages by the cheaper one that they come with.
        optimizer = (
            KernelMuon(network, 1e-3, 0.0)
            if isinstance(network, Network)
            else torch.optim.AdamW(network.parameters())
        )

        def step(network: nn.Module, optimizer: torch.optim.Optimizer, way: Runtime) -> None:
            optimizer.zero_grad()
            with way.autocast():
                logits = network(image)
            loss(logits, batch.label, batch.distance_mm).backward()
            optimizer.step()

        for precision, way in runtimes.items():
            work[f"{name}, {precision}"] = partial(step, network, optimizer, way)

        def dry(network: nn.Module = network) -> None:
            target = torch.zeros(batch.label.shape, dtype=torch.int64)
            loss(network(torch.empty_like(image)), target, torch.empty(batch.label.shape)).backward()

        memory[name] = peak_bytes(dry)
        for parameter in network.parameters():
            parameter.grad = None
    alone = list(work)
    coming = {ahead: batches(cases, plan, 0, range(10_000), workers=int(ahead)) for ahead in (False, True)}

    def with_data(ahead: bool, precision: str) -> None:
        next(coming[ahead])
        work[f"dense, {precision}"]()

    ways = {
        (precision, how): partial(with_data, ahead, precision)
        for precision in runtimes
        for how, ahead in (("with data", False), ("with data made ahead", True))
    }
    seconds = interleaved(
        work | {f"dense, {precision}, {how}": run for (precision, how), run in ways.items()}, options.rounds
    )
    coming[True].close()
    rows: list[dict[str, Any]] = []
    for name in alone:
        network_name, precision = name.split(", ")
        reference = seconds.get(f"nnU-Net PlainConvUNet, {precision}")
        row: dict[str, Any] = {
            "what": name,
            "seconds": seconds[name],
            "against nnU-Net": reference and seconds[name] / reference,
        }
        if precision == "float32":
            row["peak memory of tensors, GB"] = memory[network_name] / 1e9
        rows.append(row)
    for precision, how in ways:
        name = f"dense, {precision}, {how}"
        share = 1 - seconds[f"dense, {precision}"] / seconds[name]
        rows.append({"what": name, "seconds": seconds[name], "share of data": share})
    return rows


def whole(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A volume of 256 x 256 x 128 in one pass, against MONAI's 96^3 windows at 25 % overlap; resident memory."""
    from monai.inferers import SlidingWindowInferer

    size = options.size or 256
    model = calibrated(default_model())
    shape = (size // 2, size, size)
    array = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    tensor = torch.from_numpy(array[None]).contiguous(memory_format=LAST)
    windows = SlidingWindowInferer(min(96, size // 2), overlap=0.25, mode="gaussian", sw_batch_size=1)
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        names = ("torch", "openvino", "openvino-int8")

        def way(name: str) -> Any:  # made anew for windows: a compiled network holds one size
            return runtime_for(model, name, cache=Path(cache))

        labels = {name: str(way(name)) for name in names}
        work: dict[str, Callable[[], object]] = {}
        for name in names:
            work[f"{name}, whole"] = _predict(model, array, way(name))
            work[f"{name}, windows"] = _windows(windows, model, way(name), tensor)
        seconds = interleaved(work, options.rounds)
    for name in names:
        argument = [sys.executable, __file__, "memory", "--runtime", name, "--size", str(size)]
        found = json.loads(subprocess.run(argument, capture_output=True, text=True, check=True).stdout)
        rows.append(
            {
                "what": labels[name],
                "seconds whole": seconds[f"{name}, whole"],
                "seconds in windows": seconds[f"{name}, windows"],
                "ratio": seconds[f"{name}, whole"] / seconds[f"{name}, windows"],
                **found,
            }
        )
    return rows


def memory(runtime: str, size: int) -> dict[str, Any]:
    """Resident memory of a process that predicts a whole volume, and what had been estimated."""
    model = calibrated(default_model(), 32)
    shape = (size // 2, size, size)
    array = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    with tempfile.TemporaryDirectory() as cache:
        way = runtime_for(model, runtime, cache=Path(cache))
        passes = plan_passes(model, shape, budget_bytes=10**11, runtime=way)
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak so far, of converting, is forgotten
        before = psutil.Process().memory_info().rss / 1e9
        run_passes(model, array, runtime=way, budget_bytes=10**11)
    peak = peak_memory_gb() or math.nan
    return {
        "resident GB": peak,
        "grown by GB": peak - before,
        "estimated GB": passes.bytes / 1e9,
    }


def _call(engine: Any, x: Any) -> Callable[[], object]:
    return lambda: engine(x)


def _inference(network: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    network.eval().to(memory_format=LAST)

    @torch.inference_mode()
    def run() -> object:
        return network(x)

    return run


def _predict(model: Model, array: Any, way: Any) -> Callable[[], object]:
    return lambda: run_passes(model, array, runtime=way, budget_bytes=10**11).probabilities


def _windows(inferer: Any, model: Model, way: Any, x: torch.Tensor) -> Callable[[], object]:
    engine = way.engines(model)[0]

    def part_of(part: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(way.fetch(engine(way.put(part.contiguous().numpy()))).copy())

    return lambda: inferer(x, part_of)


def _ball(size: int, seed: int) -> TrainingCase:
    distance = np.linalg.norm(np.moveaxis(np.indices((size,) * 3), 0, -1) - size / 2, axis=-1)
    label = (distance < 6).astype(np.uint8)
    image = np.random.default_rng(seed).normal(size=label.shape).astype(np.float32) + 2 * label
    mm = distance_to_foreground(label, (1, 1, 1)).astype(np.float16)
    return TrainingCase(str(seed), image[None], label, mm, (np.argwhere(label).astype(np.int32),))


if __name__ == "__main__":
    main()
