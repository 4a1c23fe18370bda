"""Where and how precisely PyTorch computes; shared by training and prediction."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from focalis.errors import UsageError
from focalis.model import Model
from focalis.networks import convolutions, needs_data, peak_bytes
from focalis.prediction.engine import Triple
from focalis.prediction.precision import float32_because
from focalis.prediction.reach import reach_of

DEVICE_SHARE = 0.9
"""Share of a GPU's memory; the rest is for the kernels' work space and for what falls between blocks."""
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SCRATCH = 1.2
HEAP_SLACK_BYTES = 250_000_000
"""Allowance for what no tensor shows: work space inside the kernels, and blocks under 32 MB that the
C library keeps for re-use after they are freed. Both from the resident memory of real passes; a slow test
holds them."""
MEASURED = 64
"""The sides, in voxels, of the image on which a network that cannot run without data is measured."""


@dataclass(frozen=True)
class Runtime:
    """A device and the number format of its convolutions.

    Attributes:
        device: where the tensors live.
        dtype: float32, or the format that autocast gives to convolutions and matrix products.
        note: why this is float32 where a lower precision was asked for, one phrase; empty otherwise.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    note: str = field(default="", compare=False)

    def in_float32(self, note: str = "") -> Runtime:
        """The same device, in float32, and why."""
        return replace(self, dtype=torch.float32, note=note)

    def autocast(self) -> torch.autocast:
        """A context in which operations run in `dtype`; does nothing for float32."""
        low = self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype if low else None, enabled=low)

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout of the networks' weights and inputs (batch, channel, z, y, x)."""
        return torch.contiguous_format if self.device.type == "mps" else torch.channels_last_3d

    @property
    def needs_gradient_scaling(self) -> bool:
        """float16 gradients underflow without a scaler; bfloat16 and float32 ones do not."""
        return self.dtype == torch.float16

    def engines(self, model: Model) -> list[TorchEngine]:
        """The model's members, moved to the device and into the memory format, in eval mode."""
        for network in model.members:
            network.to(self.device).eval()
            network.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        stride = model.plan.network.total_stride_zyx
        return [TorchEngine(network, self, len(model.plan.channels), stride) for network in model.members]

    def put(self, array: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def fetch(self, array: Tensor) -> NDArray[np.float32]:
        values: NDArray[np.float32] = array.cpu().numpy()
        return values

    def flip(self, array: Tensor, axes: tuple[int, ...]) -> Tensor:
        return array.flip(axes) if axes else array

    def free_bytes(self) -> float | None:
        """See `Engines.free_bytes`: of a GPU, what no program takes and what PyTorch keeps for re-use."""
        if self.device.type != "cuda":
            return None
        kept = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return DEVICE_SHARE * (torch.cuda.mem_get_info(self.device)[0] + kept)

    def card_gb(self) -> float | None:
        """What a training may take of a GPU's memory, in whole 10^9 bytes: the same on every call; None elsewhere."""
        if self.device.type != "cuda":
            return None
        return max(1.0, DEVICE_SHARE * torch.cuda.get_device_properties(self.device).total_memory // 1e9)

    def on_threads(self, threads: int) -> Runtime:
        """See `Engines.on_threads`: PyTorch's threads are those of the whole process."""
        torch.set_num_threads(threads)
        return self

    def lanes(self) -> tuple[int, int]:
        """See `Engines.lanes`: PyTorch's threads are those of the whole process, and a GPU's memory is for one case."""
        return 1, torch.get_num_threads()

    def __str__(self) -> str:
        return f"{self.device}, {str(self.dtype).removeprefix('torch.')}"


@dataclass(frozen=True)
class TorchEngine:
    """A network as PyTorch runs it, layer by layer: the reference for every other run time; see `Engine`."""

    network: nn.Module
    runtime: Runtime
    channels: int
    stride_zyx: Triple

    @property
    def patchwise(self) -> bool:
        return bool(getattr(self.network, "patchwise", False))

    def __call__(self, x: Tensor) -> Tensor:
        return self._run(x, self._runtime_for(x.shape))

    def exactly(self, x: Tensor) -> Tensor:
        return self._run(x, self.runtime.in_float32())

    def float32_because(self, shape_bczyx: Sequence[int]) -> str:
        return self._runtime_for(shape_bczyx).note

    def _runtime_for(self, shape_bczyx: Sequence[int]) -> Runtime:
        """The run time, or the one in float32 where low precision is not right for images of that size."""
        if self.runtime.device.type != "cpu" or self.runtime.dtype == torch.float32:
            return self.runtime
        known = _RUNTIMES.setdefault(self.network, {})
        key = (tuple(shape_bczyx), self.runtime)
        if key not in known:
            known[key] = trusted(self.runtime, self.network, shape_bczyx)
        return known[key]

    def _run(self, x: Tensor, runtime: Runtime) -> Tensor:
        with torch.no_grad():  # not in inference mode: the caller changes what it gets
            with runtime.autocast(), missing_operations_told(runtime.device):
                logits = self.network(x.contiguous(memory_format=runtime.memory_format))
            return torch.softmax(logits.float(), dim=1)

    def release(self) -> None:
        """See `Engine.release`: what PyTorch keeps of a GPU's memory."""
        if self.runtime.device.type == "cuda":
            torch.cuda.empty_cache()

    def forward_bytes(self, shape_bczyx: Sequence[int]) -> int:
        needs = _NEEDS.setdefault(self.network, {})
        runtime = self._runtime_for(shape_bczyx)
        key = (tuple(shape_bczyx), runtime)
        if key not in needs:
            needs[key] = forward_bytes(self.network, shape_bczyx, runtime, self.stride_zyx)
        return needs[key]

    def reach_zyx(self) -> Triple | None:
        if self.network not in _REACHES:
            _REACHES[self.network] = reach_of(self.network, self.channels, self.stride_zyx)
        return _REACHES[self.network]


_REACHES: WeakKeyDictionary[nn.Module, Triple | None] = WeakKeyDictionary()
"""What was measured; it takes seconds, and weights do not change it."""
_NEEDS: WeakKeyDictionary[nn.Module, dict[tuple[tuple[int, ...], Runtime], int]] = WeakKeyDictionary()
"""What passes need; to count it takes longer than a pass over a small image, and weights do not change it."""
_RUNTIMES: WeakKeyDictionary[nn.Module, dict[tuple[tuple[int, ...], Runtime], Runtime]] = WeakKeyDictionary()
"""In which precision passes are right; it depends on the network's shape, not on its weights."""


def forward_bytes(
    network: nn.Module, shape_bczyx: Sequence[int], runtime: Runtime, stride_zyx: Triple
) -> int:
    """Memory that a forward pass of the network adds to the process, input, output and allowance included.

    Of a network that cannot run without data (`needs_data`) a pass over a smaller image is measured and scaled.
    """
    try:
        peak = peak_forward_bytes(network, shape_bczyx, runtime)
    except Exception as error:
        if not needs_data(error):
            raise
        small = tuple(shape_bczyx)
        if not getattr(network, "patchwise", False):
            sides = zip(shape_bczyx[2:], stride_zyx, strict=True)
            small = (*shape_bczyx[:2], *(min(side, -(-MEASURED // s) * s) for side, s in sides))
        measured = peak_forward_bytes(network, small, runtime, with_data=True)
        peak = int(measured * math.prod(shape_bczyx) / math.prod(small))
    return int(SCRATCH * peak) + HEAP_SLACK_BYTES


def peak_forward_bytes(
    network: nn.Module, shape_bczyx: Sequence[int], runtime: Runtime, *, with_data: bool = False
) -> int:
    """The most bytes of tensors alive at once in a forward pass without gradients, input and output included.

    Nothing of that size is allocated: the network runs on tensors that have a shape and a type but no
    data, and every storage is counted from its birth to its end. The weights are in memory already and do
    not count; their low-precision copies under autocast do.
    """

    def forward() -> None:
        with torch.inference_mode():
            x = torch.zeros(tuple(shape_bczyx), device=runtime.device)
            x = x.to(memory_format=runtime.memory_format)
            with runtime.autocast():
                network(x)

    return peak_bytes(forward, with_data=with_data)


def trusted(runtime: Runtime, network: nn.Module, shape_bczyx: Sequence[int]) -> Runtime:
    """The run time, or the one in float32 with a note where its precision is not right for a forward pass.

    See `focalis.prediction.precision`.
    """

    def forward() -> None:
        with torch.no_grad():
            network(torch.zeros(tuple(shape_bczyx)))

    found = convolutions(forward)
    why = float32_because(found, runtime.dtype, runtime.memory_format, backward=False)
    return runtime.in_float32(why) if why else runtime


def choose_runtime(device: str = "auto", precision: str = "auto") -> Runtime:
    """The device and precision that suit this machine, or those named; UsageError for what it lacks."""
    chosen = choose_device(device)
    if precision == "auto":
        return Runtime(chosen, choose_precision(chosen))
    if chosen.type == "mps" and precision in ("float16", "bfloat16"):
        fault = f"{precision} is not supported on mps; choose float32, or leave"
        raise UsageError.of_option(f"{fault} precision out", f"{fault} --precision out")
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r} is unknown; choose auto, {', '.join(PRECISIONS)}")
    if precision == "float16" and chosen.type == "cpu":
        raise UsageError("float16 needs a GPU; choose bfloat16 or float32 on a CPU")
    return Runtime(chosen, PRECISIONS[precision])


def choose_device(name: str = "auto") -> torch.device:
    """The first CUDA device if there is one, else the CPU; or the named one, UsageError if it is absent.

    `mps` is the GPU of a Mac; it is never chosen unless it is named.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device {name!r} is unknown; choose auto, cpu, cuda, cuda:N or mps") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"device {name!r} is not supported; choose auto, cpu, cuda, cuda:N or mps")
    if device.type == "mps" and (device.index or not torch.backends.mps.is_available()):
        raise UsageError(
            f"device {name!r} is not on this machine: PyTorch offers it as mps on Macs with Apple silicon; "
            "choose auto or cpu"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {name!r} is not on this machine; choose auto or cpu")
    return device


def choose_precision(device: torch.device) -> torch.dtype:
    """The fastest number format that is safe on the device.

    CUDA: bfloat16 where the hardware has it, else float16. CPU: bfloat16 where the processor has instructions
    for it, else float32; on a processor without them a bfloat16 convolution is emulated and measured 3 to 4
    times slower than float32. mps: float32.
    """
    if device.type == "mps":
        return torch.float32
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    return torch.bfloat16 if cpu_has_bfloat16() else torch.float32


@contextmanager
def missing_operations_told(device: torch.device) -> Iterator[None]:
    """A context in which an operation that PyTorch lacks on the device is a UsageError of one line."""
    try:
        yield
    except NotImplementedError as error:
        lacking = re.search(r"'(aten::[\w.]+)'", str(error))
        if lacking is None:
            raise
        raise UsageError(
            f"the network needs {lacking[1]}, which PyTorch {torch.__version__} does not have on {device}; choose "
            "--device cpu, or another --network"
        ) from error


def cpu_has_bfloat16() -> bool:
    """Whether the processor reports instructions for bfloat16 (AVX512-BF16, AMX-BF16, Arm BF16)."""
    report = getattr(torch.cpu, "get_capabilities", None)
    if report is None:
        return False
    return any(name.endswith("bf16") and value is True for name, value in report().items())
