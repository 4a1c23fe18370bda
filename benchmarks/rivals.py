"""Networks of other packages as rows of the same loop: `--network` of accuracy.py takes their names as well.

They are known only to a benchmark that added them: Focalis itself neither trains nor loads them.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from focalis.networks import NETWORKS, Network, NetworkSpec
from focalis.networks.blocks import Triple
from focalis.planning import Fingerprint, Plan, make_plan

CHANNELS = (32, 64, 128, 256, 320, 320)
"""By level, finest first: three steps down make 1.9 M parameters."""


class MonaiUNet(Network):
    """MONAI's UNet without residual units: the fastest of the rivals (instance normalisation, PReLU)."""

    patchwise = True

    def __init__(self, strides_zyx: Sequence[Triple], inputs: int, outputs: int) -> None:
        from monai.networks.nets import UNet  # of the environment for tests: tables are made without it

        super().__init__()
        self.net = UNet(3, inputs, outputs, CHANNELS[: len(strides_zyx) + 1], tuple(strides_zyx))

    def forward(self, x: Tensor) -> Tensor:
        """See `Network.forward`."""
        return self.net(x)  # type: ignore[no-any-return]

    def heads(self) -> list[nn.Conv3d]:
        """See `Network.heads`: the last transposed convolution."""
        return [[layer for layer in self.modules() if isinstance(layer, nn.ConvTranspose3d)][-1]]  # type: ignore[list-item]


def with_network(plan: Plan, figures: Fingerprint, name: str) -> Plan:
    """The plan with another network, with its own strides: patch, batch and normalisation stay."""
    own = make_plan(figures, plan.channels, plan.labels, name, ignore=plan.ignore).network
    return Plan.model_validate(plan.model_copy(update={"network": own}).model_dump())


def add_rivals() -> None:
    """Let the networks of other packages be planned and built by name in this process."""
    NETWORKS["monai-unet"] = NetworkSpec(MonaiUNet, stages=3)
