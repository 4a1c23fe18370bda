"""Which run time: named by the user, or the fastest here by measurement, which is made once per machine and model.

Nothing here imports PyTorch before it must: where the choice is known and falls on another run time, a prediction
starts without it.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pooch

from focalis.cores import usable_cores
from focalis.errors import DataError, ModelError, UsageError
from focalis.files import write_text
from focalis.model import Model
from focalis.prediction import openvino
from focalis.prediction.engine import Engines
from focalis.prediction.openvino import OpenVino

RUNTIMES = ("auto", "torch", "openvino", "openvino-int8")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
MOST_DICE_LOSS = 0.003
"""8-bit integers are chosen by measurement only where the calibration moved the mean Dice by less than this."""
ROUNDS = 5
VERSION = 4
"""Raise it whenever converted networks or choices from before are no longer of use."""

_GPU_FILES = ("/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/dxg", "/dev/kfd")
"""On Linux one of these is there if PyTorch may know a GPU: NVIDIA's, Jetson's, that of a Windows host, AMD's."""

Say = Callable[[str], None]


def runtime_for(
    model: Model,
    name: str = "auto",
    device: str = "auto",
    precision: str = "auto",
    cache: Path | None = None,
    say: Say | None = None,
) -> Engines:
    """The run time for a model on this machine.

    Args:
        name: one of `RUNTIMES`. auto is torch on a GPU; on the CPU the fastest of those that the machine and the model
            allow, measured when the model is first used.
        device: auto, cpu, cuda, cuda:N or mps; only torch runs on a GPU.
        precision: auto, float32, bfloat16 or float16; auto is what the processor has. Another one excludes 8 bits.
        cache: where choices and converted networks are kept; the user's cache folder by default.
        say: called with a line before something that takes a while.

    Raises:
        UsageError: a name is unknown, or what it names is not on this machine.
        ModelError: the model cannot be run that way.
    """
    require_runtime(name, device, precision)
    with_openvino = openvino.is_installed()
    if name.startswith("openvino"):
        if name == "openvino-int8" and model.eight_bit is None:
            raise ModelError(
                "the model was not calibrated for 8-bit integers, which `focalis fit` does; choose another run time"
            )
    elif name == "torch" or not with_openvino or _on_gpu(device) or precision == "float16":
        return _torch(model, device, precision)
    home = (cache or Path(pooch.os_cache("focalis")) / "networks") / _key(model)
    chosen = _fastest(model, precision, home, say) if name == "auto" else name
    try:
        return _runtime(model, chosen, precision, home, say)
    except ModelError:
        if chosen == name or chosen == "torch":
            raise
        # What was the fastest cannot be made again: a cache to read only.
        return _torch(model, device, precision)


def require_runtime(name: str = "auto", device: str = "auto", precision: str = "auto") -> None:
    """UsageError if a name is unknown, not on this machine, or contradicts another, whatever the model."""
    if name not in RUNTIMES:
        raise UsageError(f"run time {name!r} is unknown; choose one of {', '.join(RUNTIMES)}")
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r} is unknown; choose one of {', '.join(PRECISIONS)}")
    if name.startswith("openvino"):
        if not openvino.is_installed():
            raise UsageError(
                f"run time {name} needs OpenVINO; install it: pip install '.[fast]' in Focalis's folder"
            )
        if device not in ("auto", "cpu"):
            fault = f"run time {name} runs on the CPU, not on {device}"
            raise UsageError.of_option(f"{fault}; leave device out", f"{fault}; leave --device out")
        if precision == "float16" or (name == "openvino-int8" and precision != "auto"):
            fault = f"run time {name} does not compute in {precision}"
            raise UsageError.of_option(f"{fault}; leave precision out", f"{fault}; leave --precision out")
    elif device not in ("auto", "cpu") or precision == "float16":  # PyTorch knows which devices there are
        from focalis.prediction.runtime import choose_runtime

        choose_runtime(device, precision)


def _torch(model: Model, device: str, precision: str) -> Engines:
    from focalis.prediction.runtime import choose_runtime

    runtime = choose_runtime(device, precision)
    model.members[0]  # a damaged file is noticed now, not at the first case
    return runtime


def _runtime(model: Model, name: str, precision: str, home: Path, say: Say | None) -> Engines:
    if name == "torch":
        return _torch(model, "cpu", precision)
    eight_bit = name == "openvino-int8"
    folder = home / name
    if not openvino.is_converted(folder, len(model.members)):
        if say is not None:
            say("convert the network for OpenVINO")
        openvino.convert(model, folder, eight_bit=eight_bit)
    low = precision == "bfloat16" or (precision == "auto" and _openvino_has_bfloat16())
    return OpenVino(folder, "bf16" if low else "f32", eight_bit)


def _fastest(model: Model, precision: str, home: Path, say: Say | None) -> str:
    """The name of the fastest run time, measured or remembered.

    What cannot be converted is left out, but never PyTorch: a damaged model is refused. A folder that cannot be written
    is no reason to fail: nothing is remembered.
    """
    names = ["torch", "openvino"]
    # A gain of that size is an accident of few cases, as a loss would be.
    if (
        precision == "auto"
        and model.eight_bit is not None
        and abs(model.eight_bit.dice_loss) < MOST_DICE_LOSS
    ):
        names.append("openvino-int8")
    path = home / f"choice-{_machine(precision, names)}.json"
    try:
        chosen = str(json.loads(path.read_text())["chosen"])
        if chosen in names:
            return chosen
    except (OSError, ValueError, KeyError, TypeError):
        pass
    if say is not None:
        say("measure which run time is the fastest here")
    runtimes, remember = {"torch": _runtime(model, "torch", precision, home, say)}, True
    for name in names[1:]:
        try:
            runtimes[name] = _runtime(model, name, precision, home, say)
        except ModelError as error:  # a network that OpenVINO does not know, or a disk that is full
            remember = remember and not isinstance(error.__cause__, OSError)
    seconds = _measure(model, runtimes)
    chosen = min(seconds, key=lambda each: seconds[each])
    if say is not None:
        found = ", ".join(f"{1000 * value:.0f} ms by {runtimes[each]}" for each, value in seconds.items())
        say(f"fastest: {runtimes[chosen]}; a patch takes {found}")
    if remember:
        with suppress(DataError):
            write_text(path, json.dumps({"chosen": chosen, "seconds": seconds}, indent=2) + "\n")
    return chosen


def _measure(model: Model, runtimes: dict[str, Engines]) -> dict[str, float]:
    """Seconds of a pass over a patch, the median of several rounds in which the run times take turns."""
    shape = (1, len(model.plan.channels), *model.plan.patch_zyx)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    engines = {name: runtime.engines(model)[0] for name, runtime in runtimes.items()}
    given = {name: runtime.put(x) for name, runtime in runtimes.items()}
    times: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(ROUNDS + 1):
        for name, engine in engines.items():
            started = time.perf_counter()
            engine(given[name])
            if number:  # the first round compiles
                times[name].append(time.perf_counter() - started)
    return {name: float(np.median(values)) for name, values in times.items()}


def _key(model: Model) -> str:
    """What a converted network depends on."""
    ranges = None if model.eight_bit is None else model.eight_bit.ranges
    facts = [
        VERSION,
        version("openvino"),
        model.identity.weights_sha256,
        model.plan.network.model_dump(),
        ranges,
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _machine(precision: str, names: Sequence[str]) -> str:
    """What a choice depends on beside the network."""
    facts = [_processor(), usable_cores(), version("torch"), precision, *names]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return " ".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _openvino_has_bfloat16() -> bool:
    """By the processor's flags, without torch, which takes seconds to import."""
    return any(flag in _processor() for flag in ("avx512_bf16", "amx_bf16"))


def _on_gpu(device: str) -> bool:
    """Whether the device is, or would be chosen to be, a GPU."""
    if device not in ("auto", "cpu"):
        return True
    if device == "cpu" or (
        platform.system() == "Linux" and not any(Path(path).exists() for path in _GPU_FILES)
    ):
        return False
    from focalis.prediction.runtime import choose_device

    return choose_device(device).type != "cpu"
