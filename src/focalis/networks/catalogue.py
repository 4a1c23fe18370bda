"""The networks by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from focalis.errors import PlanError
from focalis.networks.base import Network
from focalis.networks.blocks import Triple
from focalis.networks.dense import DenseConfig, DenseNetwork

Builder = Callable[[Sequence[Triple], int, int], Network]


def dense(strides_zyx: Sequence[Triple], inputs: int, outputs: int) -> DenseNetwork:
    """The default: a strided stem, few wide units, long skips; only the last two layers work at full resolution."""
    stages = len(strides_zyx)
    config = DenseConfig(
        stem=32,
        stem_strided=True,
        units=(2, 2, 3, 3, 3)[:stages],
        growth=(16, 32, 64, 64, 64)[:stages],
        widths=(None, 64, 128, 192, 192)[:stages],
        up=(8, 32, 64, 128, 128)[:stages],
        decoder=(0, 1, 1, 1, 1)[:stages],
        skips=True,
    )
    return DenseNetwork(config, strides_zyx, inputs, outputs)


def _densevoxnet(
    strides_zyx: Sequence[Triple], inputs: int, outputs: int, dilations: tuple[int, ...]
) -> DenseNetwork:
    if len(strides_zyx) != 2:
        raise PlanError(f"this network has two stages, the plan has {len(strides_zyx)}: give two strides_zyx")
    config = DenseConfig(
        stem=16,
        stem_strided=True,
        units=(12, 12),
        growth=(12, 12),
        widths=(None, None),
        up=(64, 128),
        decoder=(0, 0),
        skips=False,
        pooled=True,
        overlap=True,
        dilations=dilations,
        auxiliary=(0,),
        dropout=0.2,
    )
    return DenseNetwork(config, strides_zyx, inputs, outputs)


def densevoxnet(strides_zyx: Sequence[Triple], inputs: int, outputs: int) -> DenseNetwork:
    """DenseVoxNet (Yu et al., MICCAI 2017): two blocks of 12 units, growth 12, one auxiliary output."""
    return _densevoxnet(strides_zyx, inputs, outputs, dilations=(1,))


def ddnet(strides_zyx: Sequence[Triple], inputs: int, outputs: int) -> DenseNetwork:
    """DDNet's idea (doi 10.1049/ipr2.12248, abstract) on DenseVoxNet's shape: units are pyramids of rates 1, 2, 4."""
    return _densevoxnet(strides_zyx, inputs, outputs, dilations=(1, 2, 4))


NETWORKS: dict[str, Builder] = {"dense": dense, "densevoxnet": densevoxnet, "ddnet": ddnet}


def build_network(name: str, strides_zyx: Sequence[Triple], inputs: int, outputs: int) -> Network:
    """Build a network by name; PlanError lists the known names.

    Args:
        name: a key of `NETWORKS`.
        strides_zyx: down-sampling factor per stage.
        inputs: image channels.
        outputs: classes, the background included.
    """
    if name not in NETWORKS:
        raise PlanError(f"unknown network {name!r}; known are {', '.join(sorted(NETWORKS))}")
    return NETWORKS[name](strides_zyx, inputs, outputs)
