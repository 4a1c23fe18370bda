"""The convolutions of a computation, told without computing."""

import pytest
import torch
from torch import nn

from focalis.networks import build_network, convolutions


def test_every_different_convolution_is_reported_once_with_its_sizes():
    network = nn.Sequential(
        nn.Conv3d(1, 4, 3, (1, 2, 2), 1),
        nn.Conv3d(4, 4, 3, padding=2, dilation=2),
        nn.Conv3d(4, 4, 3, padding=2, dilation=2),
        nn.ConvTranspose3d(4, 2, (1, 2, 2), (1, 2, 2)),
    )
    first, second, last = convolutions(lambda: network(torch.empty(2, 1, 5, 8, 6)))
    assert (first.input_shape, first.stride, first.output_zyx) == ((2, 1, 5, 8, 6), (1, 2, 2), (5, 4, 3))
    assert (second.dilation, second.transposed, second.least_length) == ((2, 2, 2), False, 3)
    assert (last.transposed, last.output_zyx, last.weight_shape) == (True, (5, 8, 6), (4, 2, 1, 2, 2))


@pytest.mark.parametrize(("depth", "least"), [(8, 2), (12, 3), (4, 1)])
def test_the_shortest_map_of_a_network_follows_its_strides(depth, least):
    network = build_network("dense", ((2, 2, 2), (2, 2, 2)), 1, 2).eval()
    found = convolutions(lambda: network(torch.empty(1, 1, depth, 32, 32)))
    assert min(each.least_length for each in found) == least


def test_large_images_are_not_computed():
    network = nn.Conv3d(1, 64, 3, padding=1)
    assert convolutions(lambda: network(torch.empty(1, 1, 2000, 2000, 2000)))[0].output_zyx == (2000,) * 3
