"""Which device and which precision."""

import pytest
import torch

from focalis.errors import UsageError
from focalis.prediction import (
    Runtime,
    choose_device,
    choose_precision,
    choose_runtime,
    missing_operations_told,
)
from focalis.prediction.runtime import TorchEngine

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"cpu_name": "avx512_bf16", "num_physical_cores": 2}, torch.float32),
    ],
)
def test_cpu_bfloat16_only_with_instructions_for_it(monkeypatch, report, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: report, raising=False)
    assert choose_precision(CPU) == expected


def test_a_torch_that_does_not_report_gets_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert choose_precision(CPU) == torch.float32


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_gpu_precision_follows_the_hardware(monkeypatch, native, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: native)
    chosen = choose_precision(torch.device("cuda"))
    assert chosen == expected
    assert Runtime(torch.device("cuda"), chosen).needs_gradient_scaling is not native


def test_auto_takes_the_gpu_if_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device().type == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device().type == "cpu"


def test_named_precision_is_kept():
    assert choose_runtime("cpu", "bfloat16") == Runtime(CPU, torch.bfloat16)
    assert str(choose_runtime("cpu", "float32")) == "cpu, float32"


@pytest.mark.parametrize(
    ("device", "precision", "reason"),
    [
        ("cpu", "float8", "unknown"),
        ("cpu", "float16", "needs a GPU"),
        ("toaster", "auto", "unknown"),
        ("meta", "auto", "not supported"),
        ("cuda:99", "auto", "not on this machine"),
        ("mps:1", "auto", "not on this machine"),
    ],
)
def test_what_cannot_be_is_a_usage_error(device, precision, reason):
    with pytest.raises(UsageError, match=reason):
        choose_runtime(device, precision)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_a_macs_gpu_is_taken_where_pytorch_offers_it_in_float32_alone(monkeypatch, precision):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(
        UsageError, match="PyTorch offers it as mps on Macs with Apple silicon; choose auto or cpu"
    ):
        choose_runtime("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    runtime = choose_runtime("mps")
    assert (str(runtime), runtime.memory_format) == ("mps, float32", torch.contiguous_format)
    with pytest.raises(UsageError, match=f"{precision} is not supported on mps"):
        choose_runtime("mps", precision)


def test_an_operation_that_the_device_lacks_is_reported_in_one_line():
    class Lacking(torch.nn.Module):
        def forward(self, x):
            raise NotImplementedError(
                "The operator 'aten::max_pool3d_with_indices' is not currently implemented for the MPS device.\nIf you "
                "want this op to be considered for addition, please comment on an issue."
            )

    engine = TorchEngine(Lacking(), Runtime(), 1, (1, 1, 1))
    with pytest.raises(
        UsageError, match=r"^the network needs aten::max_pool3d_with_indices, which .* on cpu; choose"
    ):
        engine(torch.zeros(1, 1, 2, 2, 2))


def test_what_a_network_itself_has_not_implemented_stays_its_error():
    with pytest.raises(NotImplementedError, match="forward"), missing_operations_told(CPU):
        torch.nn.Module()(torch.zeros(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_computes_convolutions_in_the_dtype(dtype):
    with Runtime(CPU, dtype).autocast():
        assert torch.nn.Conv3d(1, 1, 1)(torch.zeros(1, 1, 2, 2, 2)).dtype == dtype
