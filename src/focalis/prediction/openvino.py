"""OpenVINO: a network compiled for this processor, in float32, bfloat16 or 8-bit integers.

A network is converted once and kept in the user's cache folder, so that later predictions need neither the conversion
nor PyTorch. Three findings are built in: the compiled network has a fixed input size, since with a free one 8-bit
results came out wrong (2026.4.1); it is compiled anew for every size, which takes a fraction of a second; and its
threads are not pinned, since those of every network and of every process would share the first cores. See also `core`.
"""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from focalis.cores import usable_cores
from focalis.errors import DataError, ModelError, one_line
from focalis.files import sha256_of, whole_folder
from focalis.model import Model
from focalis.prediction.engine import THIN, THIN_MAPS, Host, Triple

if TYPE_CHECKING:
    from torch import nn

SCRATCH = 1.15
FIXED_BYTES = 150_000_000
"""Allowances for what the count of tensors does not show, from the resident memory of real passes."""
NETWORK, WEIGHTS, FACTS = "network.xml", "network.bin", "facts.json"
"""What is kept of a member: OpenVINO's two files, and what else an engine knows of it, with their SHA-256."""
PRECISIONS = ("f32", "bf16")
PROBE = 8
"""Tensors are counted on a patch, or on so many total strides along each axis if that is less; they grow as it does."""
TRACED, TRIED = (2, 2, 2), (3, 2, 4)
"""The sizes, in total strides, that a network is traced with, and then compared with PyTorch."""
MOST_ERROR, MOST_ERROR_8_BIT = 1e-3, 0.1
"""By how much probabilities may differ there: the greatest difference; in 8-bit integers the mean one."""
MOST_LANES = 4
"""More cases at once gain little: what is not the network's work fills few processors."""
_EXACT, _FIRST = threading.Lock(), threading.Lock()


def is_installed() -> bool:
    """Whether OpenVINO can be imported."""
    return find_spec("openvino") is not None


def imported() -> Any:
    """The module openvino, without its telemetry.

    By itself OpenVINO sends a message to Google Analytics at each import and several at each conversion. It does
    without where the package openvino_telemetry cannot be imported.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def core() -> Any:
    """OpenVINO's core, one for the whole life of the process.

    A core gives the thread that makes it a stack for signals. When cores end in another order or on another thread
    than they began, such a thread is left with a stack that is gone, and the next signal that it hears, Ctrl-C for
    one, ends the process by SIGSEGV (2026.4.1).
    """
    with _FIRST:
        return _only_core()


@cache
def _only_core() -> Any:
    openvino = imported()
    # Two threads that give OpenVINO its first array at the same time wait for each other for ever (2026.4.1).
    openvino.Tensor(np.zeros(1, np.float32))
    return openvino.Core()


@dataclass(frozen=True)
class OpenVino(Host):
    """A model that OpenVINO runs on the CPU; see `Engines`.

    Attributes:
        folder: where `convert` put the members.
        precision: one of `PRECISIONS`: that of what is not done in 8-bit integers.
        eight_bit: whether convolutions compute in 8-bit integers.
        threads: of the processor; 0 for OpenVINO's own choice.
    """

    folder: Path
    precision: str = "f32"
    eight_bit: bool = False
    threads: int = 0
    _engines: list[OpenVinoEngine] = field(default_factory=list, repr=False, compare=False)

    def engines(self, model: Model) -> list[OpenVinoEngine]:
        """The model's members; it must be the model that was converted."""
        if not self._engines:
            count = len(model.members)
            self._engines[:] = [
                OpenVinoEngine(self.folder / str(i), self.precision, model, i, self.threads)
                for i in range(count)
            ]
        return self._engines

    def on_threads(self, threads: int) -> OpenVino:
        return OpenVino(self.folder, self.precision, self.eight_bit, threads)

    def lanes(self) -> tuple[int, int]:
        threads = self.threads or usable_cores()
        count = min(MOST_LANES, threads)
        return count, threads // count

    def __str__(self) -> str:
        return f"cpu, openvino {'int8' if self.eight_bit else self.precision}"


class _Compiled(threading.local):
    """What each thread holds: a network compiled for images of one shape."""

    shape: tuple[int, ...] = ()
    request: Any = None


class OpenVinoEngine:
    """One converted network, compiled for the input size at hand, by each thread that calls it; see `Engine`.

    Args:
        folder: where `convert` put the member.
        precision: one of `PRECISIONS`.
        member: which of the model's members it is.
        threads: of the processor; 0 for OpenVINO's own choice.
    """

    def __init__(self, folder: Path, precision: str, model: Model, member: int, threads: int = 0) -> None:
        self._folder = folder
        self._precision = precision
        self._threads = threads
        self._model, self._member = model, member
        facts = json.loads((folder / FACTS).read_text())
        self._bytes_per_voxel = {name: float(value) for name, value in facts["bytes_per_voxel"].items()}
        reach = facts["reach_zyx"]
        self._reach_zyx: Triple | None = None if reach is None else (reach[0], reach[1], reach[2])
        self._patchwise = bool(facts["patchwise"])
        self._held = _Compiled()

    @property
    def patchwise(self) -> bool:
        return self._patchwise

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        held = self._held
        if x.shape != held.shape:
            self.release()  # its memory goes before that of the next one comes
            precision = "f32" if self.float32_because(x.shape) else self._precision
            held.request = _compiled(self._folder / NETWORK, x.shape, precision, self._threads)
            held.shape = x.shape
        given = [np.ascontiguousarray(x)]
        result: NDArray[np.float32] = held.request.infer(given, share_inputs=True, share_outputs=True)[0]
        return result

    def exactly(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Engine.exactly`: by PyTorch."""
        from focalis.prediction.runtime import Runtime

        runtime = Runtime()
        with _EXACT:
            return runtime.fetch(runtime.engines(self._model)[self._member](runtime.put(x)))

    def float32_because(self, shape_bczyx: Sequence[int]) -> str:
        """See `Engine.float32_because`; convolutions in 8-bit integers stay as they are."""
        stride = self._model.plan.network.total_stride_zyx
        thinnest = min(size // s for size, s in zip(shape_bczyx[2:], stride, strict=True))
        return THIN_MAPS if self._precision == "bf16" and thinnest <= THIN else ""

    def release(self) -> None:
        """See `Engine.release`: the network that this thread compiled for the last size, with its tensors."""
        self._held.request, self._held.shape = None, ()

    @property
    def is_compiled(self) -> bool:
        """Whether the calling thread holds a compiled network, which the next image of its size need not wait for."""
        return self._held.request is not None

    def forward_bytes(self, shape_bczyx: Sequence[int]) -> int:
        voxels = int(np.prod(shape_bczyx)) // shape_bczyx[1]
        precision = "f32" if self.float32_because(shape_bczyx) else self._precision
        return int(SCRATCH * self._bytes_per_voxel[precision] * voxels) + FIXED_BYTES

    def reach_zyx(self) -> Triple | None:
        return self._reach_zyx


def is_converted(folder: Path, members: int) -> bool:
    """Whether `convert` finished for so many members, and nobody damaged a file since."""
    return all(_is_whole(folder / str(number)) for number in range(members))


def _is_whole(home: Path) -> bool:
    """Whether a member's files are those that were written: a network with other weights would segment, wrongly."""
    try:
        facts = json.loads((home / FACTS).read_text())
        return bool(facts.pop("sha256") == _digests(home, facts))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _digests(home: Path, facts: dict[str, Any]) -> dict[str, str]:
    """SHA-256 of a member's files, and of what else is known of it."""
    told = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return {file: sha256_of(home / file) for file in (NETWORK, WEIGHTS)} | {FACTS: told}


def convert(model: Model, folder: Path, *, eight_bit: bool) -> None:
    """Convert a model's members into `folder`, in one step, so that another process sees all of them or none.

    Raises:
        ModelError: OpenVINO cannot convert one of the networks, or the folder cannot be written.
    """
    from focalis.prediction.eight_bit import rounded
    from focalis.prediction.reach import reach_of

    def is_there(place: Path) -> bool:
        return is_converted(place, len(model.members))

    try:
        with whole_folder(folder, keep=is_there) as unfinished:
            for number, network in enumerate(model.members):
                home = unfinished / str(number)
                home.mkdir()
                ranges = model.eight_bit.ranges[number] if eight_bit and model.eight_bit is not None else None
                needs = _convert(
                    network if ranges is None else rounded(network, ranges), model, home, eight_bit
                )
                reach = reach_of(network, len(model.plan.channels), model.plan.network.total_stride_zyx)
                facts: dict[str, Any] = {
                    "bytes_per_voxel": needs,
                    "patchwise": bool(getattr(network, "patchwise", False)),
                    "reach_zyx": reach,
                }
                (home / FACTS).write_text(json.dumps({**facts, "sha256": _digests(home, facts)}))
    except DataError as error:
        advice = f"{error.advice}, or take --runtime torch"
        raise ModelError.at(error.path, error.fault, advice) from error.__cause__


def _convert(network: nn.Module, model: Model, home: Path, eight_bit: bool) -> dict[str, float]:
    """Write a member; what a pass takes, in bytes per voxel by precision."""
    import copy

    import torch
    from torch import nn

    openvino = imported()
    stride, channels = model.plan.network.total_stride_zyx, len(model.plan.channels)
    with_softmax = nn.Sequential(copy.deepcopy(network).cpu().float(), nn.Softmax(dim=1)).eval()
    with_softmax.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def image(strides: Sequence[int]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        sizes = (count * s for count, s in zip(strides, stride, strict=True))
        return torch.randn(1, channels, *sizes, generator=generator)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer warns of every comparison of sizes
            graph = openvino.convert_model(
                with_softmax, example_input=image(TRACED), input=[(1, channels, -1, -1, -1)]
            )
    except Exception as error:
        reason = one_line(error, 200)
        raise ModelError(f"OpenVINO cannot convert this network ({reason}); take --runtime torch") from error
    openvino.save_model(graph, home / NETWORK, compress_to_fp16=False)
    x = image(TRIED)
    with torch.inference_mode():
        wanted = with_softmax(x).numpy()
    gap = np.abs(_compiled(home / NETWORK, x.shape, "f32").infer([x.numpy()])[0] - wanted)
    if not (gap.mean() <= MOST_ERROR_8_BIT if eight_bit else gap.max() <= MOST_ERROR):
        raise ModelError(
            f"OpenVINO does not compute what this network does (off by {gap.max():.2g}); take --runtime torch"
        )
    probe = [min(PROBE * s, size) for s, size in zip(stride, model.plan.patch_zyx, strict=True)]
    return {
        precision: _peak_bytes(
            _compiled(home / NETWORK, (1, channels, *probe), precision).get_compiled_model()
        )
        / int(np.prod(probe))
        for precision in PRECISIONS
    }


def _compiled(path: Path, shape: Sequence[int], precision: str, threads: int = 0) -> Any:
    try:
        graph = core().read_model(path)
    except RuntimeError as error:
        raise ModelError.at(
            path, "the converted network cannot be read", "delete its folder, it is made again"
        ) from error
    graph.reshape(list(shape))
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
    }
    return core().compile_model(graph, "CPU", settings).create_infer_request()


def _peak_bytes(compiled: Any) -> int:
    """The most bytes of tensors alive at once, in the order in which the compiled network computes."""
    nodes = compiled.get_runtime_model().get_ordered_ops()
    order = sorted(nodes, key=lambda node: int(node.get_rt_info()["execOrder"].astype(str)))
    place = {node.get_friendly_name(): number for number, node in enumerate(order)}
    change = [0] * (len(order) + 1)
    for number, node in enumerate(order):
        if node.get_rt_info()["layerType"].astype(str) == "Const":
            continue
        for output in node.outputs():
            readers = [place[one.get_node().get_friendly_name()] for one in output.get_target_inputs()]
            change[number] += output.get_tensor().size
            change[max([number, *readers]) + 1] -= output.get_tensor().size
    return int(np.cumsum(change).max())
