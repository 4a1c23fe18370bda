"""Weights of one network as the start of another, which may have other inputs, outputs, strides or widths.

Every rule keeps what the first network computes as far as the second can compute it: the same image in every channel,
or an image that does not change along an axis, gives the same features before and after.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from focalis.display import listed
from focalis.errors import ModelError
from focalis.networks.base import Network
from focalis.networks.dense import DenseNetwork

Reads = Mapping[str, tuple[str, ...]]
"""By the name of a part, the convolutions whose outputs it reads, in order."""
BY_NAME = "channels by name"
"""What `Transfer.adapted` says where image channels were matched as asked for."""


@dataclass(frozen=True)
class Transfer:
    """What was taken over.

    Attributes:
        taken: how many tensors of the network now hold the start's values, adapted or not.
        adapted: what was adapted to fit, a phrase each.
        fresh: the tensors that keep their random values, by name.
        other_channels: the first layer's kernel, by name, if the start's was made for another number of image channels,
            or lacks one of those that were asked for.
        notes: what else is to be said, a phrase each.
    """

    taken: int
    total: int
    adapted: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    other_channels: str = ""
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"{self.taken} of {self.total} tensors", *self.adapted]
        if self.fresh:
            parts.append(f"fresh: {listed(self.fresh, 4)}")
        return "; ".join([*parts, *self.notes])


def transfer(
    state: Mapping[str, Tensor],
    network: Network,
    *,
    with_heads: bool = False,
    channels: Sequence[int | None] = (),
) -> Transfer:
    """Take weights over into a network, which is changed in place.

    - The output layer and auxiliary ones stay fresh, whatever their size, unless they are asked for (`with_heads`). One
      for a single label then serves several, each of which begins as an equal share of it.
    - A first layer for another number of channels: the channels' kernels are summed and shared out evenly. Where it is
      said which of the start's channels is which (`channels`), each takes its own kernel instead, and those that the
      start does not know share out the kernels that are left over; without any they are not heard at first.
    - A step between resolutions by another stride: along each axis that differs, a kernel is summed and shared out
      evenly on the way down, averaged and repeated on the way up.
    - A dense network of other widths: channels are matched by the convolution that they come from. What the start lacks
      stays fresh, and counts for nothing at first.

    Args:
        state: tensors by name, of any floating dtype: a state dict of the same kind of network.
        network: the network that takes them, freshly initialised.
        with_heads: take the output layers too, where they fit.
        channels: for each image channel of the network, the place of the same one in the start, or None. Not used where
            layers other than the first may read the image, which shows by their number of inputs.

    Raises:
        ModelError: the weights are those of another kind of network. It stays as it was.
    """
    own, layers = network.state_dict(), dict(network.named_modules())
    heads = {name for name, layer in layers.items() if any(layer is head for head in network.heads())}
    _check_names(state, own, heads)
    reads = _reads_of(network) if isinstance(network, DenseNetwork) else {}
    inputs = {name: layer.in_channels for name, layer in layers.items() if isinstance(layer, nn.Conv3d)}
    first = next(iter(inputs))
    by_name = [name for name, count in inputs.items() if count == len(channels)] == [first]
    adapted, fresh, values = [BY_NAME] if by_name else [], [], {}
    other_channels = ""
    for name, target in own.items():
        layer = name.rpartition(".")[0]
        left_out = layer in heads and not (with_heads and name in state)
        given = None if left_out else state[name].detach().to(target.device, target.dtype)
        if given is not None:
            before = given.shape
            given = _strided(given, target, layers[layer])
            if layer in heads:
                given = _for_labels(given, target)
            if layer == first:
                if given.dim() > 1 and (given.shape[1] != target.shape[1] or (by_name and None in channels)):
                    other_channels = name
                if given.dim() > 1 and by_name:
                    given = _by_place(given, channels)
                given = _for_channels(given, target)
            given = _widened(given, name, state, own, layers, reads)
            if given is not None and given.shape != before and target.dim() > 1:
                adapted.append(f"{name} from {_shape(before)} to {_shape(target.shape)}")
        if given is None or given.shape != target.shape:
            fresh.append(name)
        else:
            values[name] = given
    if 2 * len(values) < len(own):
        raise ModelError(
            f"the start's weights fit {len(values)} of the network's {len(own)} tensors; among those that differ are "
            f"{_differing(state, own, fresh)}; give a start of the same network, or --start scratch"
        )
    network.load_state_dict(own | values)
    return Transfer(len(values), len(own), tuple(adapted), tuple(fresh), other_channels)


def _check_names(state: Mapping[str, Tensor], own: Mapping[str, Tensor], heads: set[str]) -> None:
    """ModelError if one of them has a layer that the other lacks, except output layers."""
    lacking = [name for name in own if name not in state and name.rpartition(".")[0] not in heads]
    surplus = [
        name
        for name in state
        if name not in own and name.rpartition(".")[0] not in heads and not name.startswith("auxiliary.")
    ]
    differences = [
        f"{what} {listed(names, 4)}"
        for what, names in (("the start lacks", lacking), ("the network has no", surplus))
        if names
    ]
    if differences:
        raise ModelError(
            f"the start's weights are those of another network: {'; '.join(differences)}; give a start of the same "
            "network with as many stages, or --start scratch"
        )


def _strided(given: Tensor, target: Tensor, layer: nn.Module) -> Tensor:
    """The kernel of a step between resolutions for another stride; other tensors as they are."""
    transposed = isinstance(layer, nn.ConvTranspose3d)
    if not isinstance(layer, nn.Conv3d | nn.ConvTranspose3d) or given.dim() != 5:
        return given
    if layer.kernel_size != layer.stride:
        return given
    for axis in (2, 3, 4):
        size = target.shape[axis]
        if given.shape[axis] != size:
            total = given.mean(axis, keepdim=True) if transposed else given.sum(axis, keepdim=True) / size
            given = total.repeat_interleave(size, axis)
    return given


def _by_place(given: Tensor, channels: Sequence[int | None]) -> Tensor:
    """The first layer's kernel with each channel's own from its place, and what is left over for those without one."""
    left = [place for place in range(given.shape[1]) if place not in channels]
    share = given[:, left].sum(1) / max(channels.count(None), 1)
    return torch.stack([share if place is None else given[:, place] for place in channels], 1)


def _for_channels(given: Tensor, target: Tensor) -> Tensor:
    """The first layer's kernel, or its bias, for another number of image channels, and of its own."""
    if given.dim() > 1 and given.shape[1] != (channels := target.shape[1]):
        given = given.sum(1, keepdim=True).repeat_interleave(channels, 1) / channels
    if given.shape[1:] != target.shape[1:]:
        return given
    placed, rows = target.clone(), min(len(given), len(target))
    placed[:rows] = given[:rows]
    return placed


def _for_labels(given: Tensor, target: Tensor) -> Tensor:
    """The kernel or the bias of an output layer for a background and one label, for as many labels as it shall have:
    the background stays as likely as it was."""
    labels = len(target) - 1
    if len(given) != 2 or labels < 2:
        return given
    share = math.log(labels) if given.dim() == 1 else 0.0
    return torch.cat([given[:1], (given[1:] - share).repeat_interleave(labels, 0)])


def _widened(
    given: Tensor,
    name: str,
    state: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    layers: Mapping[str, nn.Module],
    reads: Reads,
) -> Tensor | None:
    """The tensor with its channels where the network has them; None if it cannot be said where that is."""
    part, layer, target = name.rsplit(".", 2)[0], layers[name.rpartition(".")[0]], own[name]
    same_kernel = given.dim() == target.dim() and given.shape[2:] == target.shape[2:]
    if given.dim() == 0 or part not in reads or not same_kernel:
        return given if given.shape == target.shape else None
    before = [_outputs(state[f"{source}.weight"], layers[source]) for source in reads[part]]
    after = [_outputs(own[f"{source}.weight"], layers[source]) for source in reads[part]]
    if before == after and given.shape == target.shape:
        return given
    widened = target.clone()
    if isinstance(layer, nn.BatchNorm3d):
        for new, old in _pairs(after, before):
            widened[new] = given[old]
        return widened
    # A view with output channels first, input channels second.
    if isinstance(layer, nn.ConvTranspose3d):
        placed, source = widened.transpose(0, 1), given.transpose(0, 1)
    else:
        placed, source = widened, given
    rows = min(len(placed), len(source))
    placed[:rows] = 0  # from channels that the start lacks nothing is heard at first
    for new, old in _pairs(after, before):
        placed[:rows, new] = source[:rows, old]
    return widened


def _pairs(after: list[int], before: list[int]) -> list[tuple[slice, slice]]:
    """Where the channels of each source lie in the network and in the start: the first ones, as many as both have."""
    pairs, new, old = [], 0, 0
    for wide, narrow in zip(after, before, strict=True):
        both = min(wide, narrow)
        pairs.append((slice(new, new + both), slice(old, old + both)))
        new, old = new + wide, old + narrow
    return pairs


def _reads_of(network: DenseNetwork) -> Reads:
    """What every part of a dense network reads; without parts whose units are pyramids."""
    config = network.config
    if len(config.dilations) > 1 or config.pooled:
        return {}
    reads: dict[str, tuple[str, ...]] = {}
    now: tuple[str, ...] = ("stem",)
    skips = [() if config.stem_strided else now]
    for stage, units in enumerate(config.units):
        if stage > 0 or not config.stem_strided:
            reads[f"downs.{stage}"] = now
            now = (f"downs.{stage}.2",)
        now = _through_units(f"blocks.{stage}", units, now, reads)
        skips.append(now)
    for up, stage in enumerate(reversed(range(len(config.units)))):
        reads[f"ups.{up}"] = now
        now = (f"ups.{up}.2", *(skips[stage] if config.skips else ()))
        if config.decoder[stage]:
            if stage > 0 and config.skips:
                reads[f"merges.{up}.0"] = now
                now = (f"merges.{up}.0.2",)
            now = _through_units(f"merges.{up}.1", config.decoder[stage], now, reads)
    reads["output"] = now
    return reads


def _through_units(
    block: str, units: int, now: tuple[str, ...], reads: dict[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """What leaves a dense block; what each of its units reads goes into `reads`."""
    for unit in range(units):
        reads[f"{block}.units.{unit}"] = now
        now = (*now, f"{block}.units.{unit}.2")
    return now


def _outputs(weight: Tensor, layer: nn.Module) -> int:
    """How many channels a convolution gives."""
    return int(weight.shape[1 if isinstance(layer, nn.ConvTranspose3d) else 0])


def _differing(state: Mapping[str, Tensor], own: Mapping[str, Tensor], names: list[str]) -> str:
    """The first tensors that differ in shape, with both shapes."""
    differing = [name for name in names if name in state and state[name].shape != own[name].shape]
    shapes = [f"{name} ({_shape(state[name].shape)}, not {_shape(own[name].shape)})" for name in differing]
    return listed(shapes, 4)


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a number"
