"""The state of a run between two steps, in one `.safetensors` file: written atomically, never unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from focalis.errors import DataError, TrainingError, one_line
from focalis.files import whole_file


@dataclass(frozen=True)
class Kept:
    """A run between two steps: copies of all its tensors, on their device, and a JSON state."""

    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]


def keep(
    network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]
) -> Kept:
    """Copy weights, averaged weights and the optimiser's state. Nothing waits for the device."""
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    for number, entries in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": tensor for name, tensor in entries.items()}
    copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    return Kept(copies, {**state, "optimizer": type(optimizer).__name__})


def save_checkpoint(path: Path, kept: Kept) -> None:
    """Write what was kept; an interrupted write leaves the old file."""
    packed = {name: tensor.cpu().contiguous() for name, tensor in kept.tensors.items()}
    try:
        with whole_file(path) as temporary:
            save_file(packed, temporary, metadata={"state": json.dumps(kept.state)})
    except (DataError, SafetensorError) as error:
        left = "the earlier checkpoint is whole" if path.exists() else "no checkpoint was written before"
        raise TrainingError.at(
            path,
            f"the checkpoint cannot be written ({_reason(error)})",
            f"{left}: make room or check the folder, then go on with --resume",
        ) from error


def _reason(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error, DataError) else error
    return str(getattr(cause, "strerror", None) or cause)


def load_checkpoint(
    path: Path, network: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Put a checkpoint's tensors back in place and return its JSON state; TrainingError if it does not fit."""
    try:
        with safe_open(path, framework="pt") as file:
            state: dict[str, Any] = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if (before := state.get("optimizer", "AdamW")) != type(optimizer).__name__:
                raise ValueError(f"it holds the state of another optimiser, {before}")
        _restore(network, tensors, "network.")
        _restore(average, tensors, "average.")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise TrainingError.at(
            path,
            f"cannot be resumed from ({one_line(error, 200)})",
            "start again in a new folder",
        ) from error
    entries: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, key = name.split(".", 2)
            entries.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    return state


def _restore(module: nn.Module, tensors: dict[str, Tensor], prefix: str) -> None:
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    module.load_state_dict(own)
