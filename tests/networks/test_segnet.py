"""SegNet: VGG's convolutions, and unpooling by the indices of the maxima."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from focalis.networks import build_network
from focalis.networks.segnet import unpool


def test_there_are_the_13_convolutions_of_vgg16_down_and_up():
    network = build_network("segnet", ((2, 2, 2),) * 5, 1, 2)
    down, up = (
        [m.out_channels for m in part.modules() if isinstance(m, nn.Conv3d)]
        for part in (network.downs, network.ups)
    )
    assert down == [32, 32, 64, 64, *[128] * 3, *[256] * 6]
    assert up == [256] * 5 + [128] + [128] * 2 + [64] + [64, 32] + [32, 32]


def test_the_parameters_are_counted_by_hand():
    down = [1, 32, 32, 64, 64, 128, 128, 128, *[256] * 6]
    up = [*[256] * 6, 128, 128, 128, 64, 64, 32, 32, 32]
    convolutions = sum(27 * a * b + 2 * b for way in (down, up) for a, b in pairwise(way))
    network = build_network("segnet", ((2, 2, 2),) * 5, 1, 2)
    assert sum(p.numel() for p in network.parameters()) == convolutions + 2 * 32 + 2


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_unpooling_agrees_with_torch(stride, layout):
    x = torch.randn(2, 3, 4, 6, 8).to(memory_format=layout)
    pooled, indices = functional.max_pool3d(x, stride, stride, return_indices=True)
    mine = unpool(pooled, indices, x.shape)
    torch.testing.assert_close(mine, functional.max_unpool3d(pooled, indices, stride, stride, 0, x.shape[2:]))
    kept = mine != 0
    torch.testing.assert_close(mine[kept], x[kept])
    assert int(kept.sum()) == pooled.numel()


def test_a_value_goes_back_to_where_its_maximum_was():
    x = torch.zeros(1, 1, 2, 4, 4)
    x[0, 0, 1, 0, 1] = 5.0
    x[0, 0, 0, 3, 2] = 7.0
    pooled, indices = functional.max_pool3d(x, 2, 2, return_indices=True)
    back = unpool(10 * pooled, indices, x.shape)
    assert back[0, 0, 1, 0, 1] == 50
    assert back[0, 0, 0, 3, 2] == 70
    assert back.sum() == 120


def test_the_gradient_goes_through_the_same_places():
    x = torch.randn(1, 1, 2, 4, 4, dtype=torch.float64, requires_grad=True)

    def through(x):
        pooled, indices = functional.max_pool3d(x, 2, 2, return_indices=True)
        return unpool(pooled**2, indices, x.shape)

    assert torch.autograd.gradcheck(through, x)
