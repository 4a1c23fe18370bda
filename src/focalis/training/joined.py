"""A network whose copies on several ranks learn as one would from the whole batch, see `focalis.ranks`."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from focalis import ranks
from focalis.errors import PlanError
from focalis.networks.base import Network
from focalis.networks.foreign import ForeignNetwork


class JoinedBatchNorm3d(nn.BatchNorm3d):
    """Batch normalisation by the statistics of the whole batch, wherever its patches are.

    `torch.nn.SyncBatchNorm` refuses tensors on a CPU and is no `BatchNorm3d`, whose statistics are held in the end.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (batch, channel, z, y, x), in float32."""
        if not self.training:
            return super().forward(x)
        axes, shape = (0, 2, 3, 4), (1, -1, 1, 1, 1)
        values = x.float()
        voxels = ranks.total(values.new_tensor(values.numel() / values.shape[1]))
        mean = ranks.total(values.sum(axes)) / voxels
        centred = values - mean.view(shape)
        variance = ranks.total(centred.square().sum(axes)) / voxels
        self._follow(mean.detach(), variance.detach() * voxels / (voxels - 1))
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            return (centred * (scale * self.weight).view(shape) + self.bias.view(shape)).to(x.dtype)
        return (centred * scale.view(shape)).to(x.dtype)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def joined(network: nn.Module) -> nn.Module:
    """What to call in the network's place in training: itself in a process alone.

    Otherwise its batch normalisation is changed in place to join its statistics.

    Raises:
        PlanError: the network has a batch normalisation that cannot be joined.
    """
    if ranks.count() == 1:
        return network
    for layer in network.modules():
        if type(layer) is nn.BatchNorm3d:
            layer.__class__ = JoinedBatchNorm3d
        elif isinstance(layer, _BatchNorm) and not isinstance(layer, JoinedBatchNorm3d):
            raise PlanError(
                f"the network normalises over the batch by {type(layer).__name__}, whose statistics several processes "
                "cannot join; train it in one process, or choose another network"
            )
    # Kernels of one voxel have the same layout by any strides.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides", UserWarning)
    # Networks of other packages may leave parameters out, which PyTorch has to search for.
    foreign = any(
        isinstance(part, ForeignNetwork) or not type(part).__module__.startswith("focalis.networks.")
        for part in network.modules()
        if isinstance(part, Network)
    )
    return DistributedDataParallel(network, find_unused_parameters=foreign)
