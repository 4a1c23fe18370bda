"""The networks by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from focalis.errors import PlanError
from focalis.networks.base import Network
from focalis.networks.blocks import Triple
from focalis.networks.deeplab import WIDTHS as DEEPLAB_STAGES
from focalis.networks.deeplab import DeepLab
from focalis.networks.dense import DenseConfig, DenseNetwork
from focalis.networks.fcdensenet import FullyConvolutionalDenseNet
from focalis.networks.foreign import MONAI, ForeignNetwork, monai_spec
from focalis.networks.network_spec import NetworkSpec
from focalis.networks.segnet import WIDTHS as SEGNET_STAGES
from focalis.networks.segnet import SegNet
from focalis.networks.unet import UNet, classic, planned, small
from focalis.plugins import built, find_part, installed, validated


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


def unet(strides_zyx: Sequence[Triple], inputs: int, outputs: int) -> UNet:
    """The classic 3D U-Net (Cicek et al., MICCAI 2016): three steps down, 19 M parameters."""
    return UNet(classic(strides_zyx), strides_zyx, inputs, outputs)


def nnunet(strides_zyx: Sequence[Triple], inputs: int, outputs: int) -> UNet:
    """The U-Net of nnU-Net's plan for such strides: up to five steps down and 31 M parameters, deep supervision."""
    return UNet(planned(strides_zyx), strides_zyx, inputs, outputs)


def small_unet(strides_zyx: Sequence[Triple], inputs: int, outputs: int) -> UNet:
    """A U-Net that looks at full resolution and is small enough to come with a start: 1.4 M parameters."""
    return UNet(small(strides_zyx), strides_zyx, inputs, outputs)


def segnet(strides_zyx: Sequence[Triple], inputs: int, outputs: int) -> SegNet:
    """SegNet in 3D: unpooling by the indices of the encoder's max-pooling."""
    if len(strides_zyx) > len(SEGNET_STAGES):
        raise PlanError(f"segnet has at most {len(SEGNET_STAGES)} stages, the plan has {len(strides_zyx)}")
    return SegNet(strides_zyx, inputs, outputs)


def deeplab(strides_zyx: Sequence[Triple], inputs: int, outputs: int) -> DeepLab:
    """DeepLab in 3D: atrous convolutions and an atrous spatial pyramid."""
    if not 1 <= len(strides_zyx) <= len(DEEPLAB_STAGES):
        raise PlanError(f"deeplab has 1 to {len(DEEPLAB_STAGES)} stages, the plan has {len(strides_zyx)}")
    return DeepLab(strides_zyx, inputs, outputs)


NETWORKS: dict[str, NetworkSpec] = {
    "dense": NetworkSpec(dense, stages=3),
    "densevoxnet": NetworkSpec(densevoxnet, stages=2),
    "ddnet": NetworkSpec(ddnet, stages=2),
    "fcdensenet": NetworkSpec(FullyConvolutionalDenseNet, stages=5, any_depth=True),
    "unet": NetworkSpec(unet, stages=3, any_depth=True),
    "nnunet": NetworkSpec(nnunet, stages=5, any_depth=True),
    "small-unet": NetworkSpec(small_unet, stages=3),
    "segnet": NetworkSpec(segnet, stages=5, any_depth=True),
    "deeplab": NetworkSpec(deeplab, stages=2),
}
"""Focalis's own networks; installed packages may offer more, see `focalis.plugins`."""

REFINED = "+crf"
"""Behind a network's name: its probabilities are refined by a fully connected CRF, fitted on the inner split."""


def network_names() -> tuple[str, ...]:
    """The names of all networks, those of installed packages included, except MONAI's."""
    return (*sorted(NETWORKS), *installed("network"))


def split_name(name: str) -> tuple[str, bool]:
    """The name of the network itself, and whether its probabilities are refined; PlanError lists the known names."""
    base = name.removesuffix(REFINED)
    network_spec(base)
    return base, base != name


def is_foreign(name: str) -> bool:
    """Whether a network, `REFINED` behind its name or not, is not one of Focalis's own."""
    return name.removesuffix(REFINED) not in NETWORKS


def network_spec(name: str) -> NetworkSpec:
    """A network by name, without `REFINED` behind it; PlanError lists the known names."""
    if name.startswith(MONAI):
        return monai_spec(name)
    others = f", each also with {REFINED} behind it, and {MONAI}CLASS"
    return find_part("network", name, NETWORKS, NetworkSpec, others)


def build_network(
    name: str,
    strides_zyx: Sequence[Triple],
    inputs: int,
    outputs: int,
    parameters: Mapping[str, object] | None = None,
) -> Network:
    """Build a network by name; PlanError lists the known names.

    Args:
        name: a name that `network_spec` knows, `REFINED` behind it or not.
        strides_zyx: down-sampling factor per stage.
        inputs: image channels.
        outputs: classes, the background included.
        parameters: the network's own ones.
    """
    base = name.removesuffix(REFINED)
    spec = network_spec(base)
    own = validated("network", base, spec.parameters, parameters or {})
    network = built("network", base, lambda: spec.build(strides_zyx, inputs, outputs, **own.model_dump()))
    return network if isinstance(network, Network) else ForeignNetwork(network, outputs)
