"""What the speed benchmarks share: interleaved medians, the machine's own peak, one result file each."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from focalis.lesions import OperatingPoint, temper
from focalis.model import Model
from focalis.networks import build_network
from focalis.planning import SHAPES_OF, NetworkSettings, Normalisation, Plan
from focalis.planning.scope import LEAST_CASES, describe, learn_scope
from focalis.prediction import run_passes
from focalis.volume import Grid, Volume
from focalis.workflows.record import provenance

HERE = Path(__file__).parent
FOREGROUND_SHARE = 1e-3
STRIDES = ((2, 2, 2),) * 3
PACKAGES = ("torch", "openvino", "monai", "dynamic-network-architectures", "numpy", "SimpleITK", "scipy")


TURN_SECONDS = 1.0


def interleaved(work: Mapping[str, Callable[[], object]], rounds: int = 5, warm: int = 1) -> dict[str, float]:
    """Median wall seconds of each piece of work; all take turns, so that a slow minute strikes all alike.

    In its turn a short piece is run again until `TURN_SECONDS` are over, so that its median rests on more.
    """
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + warm):
        for name, run in work.items():
            turn: list[float] = []
            while sum(turn) < TURN_SECONDS:
                turn.append(_seconds(run))
            if number >= warm:
                seconds[name] += turn
    return {name: float(np.median(values)) for name, values in seconds.items()}


def peaks() -> dict[str, float]:
    """What the machine reaches with large matrix products and a large copy, all threads, best of ten."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    a_short, b_short = a.bfloat16(), b.bfloat16()
    a_integer, b_integer = (torch.randint(-100, 100, a.shape, dtype=torch.int8) for _ in range(2))
    source = torch.empty(64 << 20, dtype=torch.float32)
    target = torch.zeros_like(source)
    product = min(_seconds(lambda: a @ b) for _ in range(10))
    short = min(_seconds(lambda: a_short @ b_short) for _ in range(10))
    integer = min(_seconds(lambda: torch._int_mm(a_integer, b_integer)) for _ in range(10))
    copy = min(_seconds(lambda: target.copy_(source)) for _ in range(10))
    return {
        "gflop_per_s_float32": 2 * 2048**3 / product / 1e9,
        "gflop_per_s_bfloat16": 2 * 2048**3 / short / 1e9,
        "gflop_per_s_int8": 2 * 2048**3 / integer / 1e9,
        "gb_per_s": 2 * source.numel() * 4 / copy / 1e9,  # read and written
    }


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def default_model(name: str = "dense", patch: int = 64) -> Model:
    """An untrained model whose batch statistics are those of noise, so that no layer is idle."""
    torch.manual_seed(0)
    strides = STRIDES if name in SHAPES_OF else STRIDES[:2]
    network = build_network(name, strides, 1, 2)
    with torch.no_grad():
        for _ in range(4):
            network(torch.randn(2, 1, 32, 32, 32))
    plan = Plan(
        channels=("image",),
        labels={1: "lesion"},
        spacing_zyx_mm=(1, 1, 1),
        normalisation=(Normalisation(),),
        patch_zyx=(patch,) * 3,
        batch=2,
        network=NetworkSettings(name=name, strides_zyx=strides),
    )
    return Model(plan, (network,))


def shipped_like(model: Model) -> Model:
    """The model with all that a trained one brings along: a scope, a temperature, and an operating point that drops.

    Its threshold makes a thousandth of noise foreground.
    """
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=(32, 32, 32)).astype(np.float32) for _ in range(LEAST_CASES)]
    volumes = [Volume(array, Grid((32, 32, 32), (1.0, 1.0, 1.0))) for array in noise]
    scope = learn_scope([describe([volume], model.plan.normalisation) for volume in volumes])
    temperature = 1.3
    found = temper(1 - run_passes(model, noise[0][None]).probabilities[0], temperature)
    threshold = min(float(np.quantile(found, 1 - FOREGROUND_SHARE)), 0.99)
    point = OperatingPoint(
        threshold,
        how="for the benchmark",
        minimum_mm3=27.0,
        minimum_confidence=threshold,
        temperature=temperature,
    )
    return replace(model, scope=scope, operating_point=point)


def rivals() -> dict[str, Callable[[], torch.nn.Module]]:
    """The networks to compare with, one channel in, two classes out; nnU-Net's only where its package is installed."""
    from monai.networks.nets import BasicUNet, SegResNet
    from rivals import MonaiUNet

    found: dict[str, Callable[[], torch.nn.Module]] = {
        "DenseVoxNet": lambda: build_network("densevoxnet", STRIDES[:2], 1, 2),
        "MONAI UNet": lambda: MonaiUNet(((2, 2, 2),) * 3, 1, 2),
        "MONAI BasicUNet": lambda: BasicUNet(3, 1, 2),
        "MONAI SegResNet": lambda: SegResNet(3, 16, 1, 2),
    }
    try:
        from dynamic_network_architectures.architectures.unet import PlainConvUNet
    except ImportError:
        print("dynamic-network-architectures is not installed: no row for nnU-Net's network", file=sys.stderr)
        return found
    nn = torch.nn
    found["nnU-Net PlainConvUNet"] = lambda: PlainConvUNet(
        1, 5, (32, 64, 128, 256, 320), nn.Conv3d, 3, ((1,) * 3, *((2,) * 3,) * 4), 2, 2, 2,
        conv_bias=True, norm_op=nn.InstanceNorm3d, norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
    )  # fmt: skip
    return found


def write(name: str, rows: object, **more: object) -> None:
    """Write benchmarks/results/speed/NAME.json with what made it."""
    target = HERE / "results" / "speed" / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {**provenance(), "threads": torch.get_num_threads(), "rows": rows, **more}
    content["packages"] |= {package: _version(package) for package in PACKAGES}
    content["platform"] = platform.platform()
    target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(target)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
