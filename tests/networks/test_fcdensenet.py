"""The fully convolutional DenseNet against its published size."""

import pytest
import torch
from torch import nn

from focalis.networks import build_network
from focalis.networks.fcdensenet import FullyConvolutionalDenseNet


def count(kernel_voxels, inputs, outputs, steps=5, stem=48, units=4, growth=12):
    """FC-DenseNet's parameters from the paper's tables, for a 3-wide kernel of so many voxels."""

    def block(channels):
        widths = [channels + i * growth for i in range(units)]
        return sum(2 * w + kernel_voxels * w * growth for w in widths)

    total, channels, skips, new = kernel_voxels * inputs * stem, stem, [], units * growth
    for _ in range(steps):
        total += block(channels)
        channels += new
        skips.append(channels)
        total += 2 * channels + channels**2
    total += block(channels)
    for skip in reversed(skips):
        total += kernel_voxels * new * new + new + block(new + skip)
        channels = new + skip + new
    return total + channels * outputs + outputs


def test_it_has_fc_densenet56s_parameters_with_one_more_dimension():
    network = build_network("fcdensenet", ((2, 2, 2),) * 5, 1, 2)
    assert sum(p.numel() for p in network.parameters()) == count(27, 1, 2)
    # The same tables give the published 1.5 M in two dimensions, with three channels and eleven classes.
    assert count(9, 3, 11) == pytest.approx(1.5e6, rel=0.1)


def test_only_new_features_are_stepped_up():
    network = FullyConvolutionalDenseNet(((2, 2, 2),) * 2, 1, 2)
    ups = [m for m in network.modules() if isinstance(m, nn.ConvTranspose3d)]
    assert [(m.in_channels, m.out_channels) for m in ups] == [(48, 48)] * 2
    assert [len(block.units) for block in (*network.downs, network.bottom, *network.merges)] == [4] * 5


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2)])
def test_a_step_up_undoes_a_step_down(stride):
    network = FullyConvolutionalDenseNet((stride,), 1, 2)
    x = torch.randn(1, 48, 3, 4, 5)
    assert network.ups[0](x).shape[2:] == tuple(s * n for s, n in zip(stride, (3, 4, 5), strict=True))
