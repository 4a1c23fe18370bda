"""DeepLab: strides turn into atrous rates, and the pyramid sees several distances."""

import pytest
import torch
from torch import nn

from focalis.networks import build_network
from focalis.networks.deeplab import AtrousPyramid, ResidualBlock


def test_the_parameters_are_counted_by_hand():
    def convolution(a, b, kernel=27):
        return kernel * a * b + 2 * b

    stages = 0
    for before, width in [(32, 32), (32, 64), (64, 128), (128, 256)]:
        stages += convolution(before, width) + 3 * convolution(width, width)
        stages += convolution(before, width, 1) if before != width else 0
    pyramid = convolution(256, 64, 1) + 4 * convolution(256, 64) + convolution(5 * 64, 64, 1)
    network = build_network("deeplab", ((2, 2, 2),) * 2, 1, 2)
    expected = convolution(1, 32) + stages + pyramid + 2 * 64 + 2
    assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize(("strides", "rates"), [(1, [1, 2, 4, 8]), (2, [1, 1, 2, 4]), (3, [1, 1, 1, 2])])
def test_a_stage_beyond_the_strides_doubles_the_atrous_rate(strides, rates):
    network = build_network("deeplab", ((2, 2, 2),) * strides, 1, 2).eval()
    assert [stage[0].body[0].dilation[0] for stage in network.stages] == rates
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.inference_mode():
        x = network.stem(x)
        for stage in network.stages:
            x = stage(x)
    assert x.shape[2:] == (16 // 2**strides,) * 3


def test_the_pyramid_sees_at_each_of_its_rates():
    pyramid = AtrousPyramid(1, 2, (2, 4)).eval()
    x = torch.zeros(1, 1, 13, 13, 13)
    base = pyramid(x)
    x[0, 0, 6, 6, 6] = 1.0
    touched = ((pyramid(x) - base).abs().sum(1)[0] > 1e-9).nonzero() - 6
    assert set(touched.abs().flatten().tolist()) <= {0, 2, 4}
    assert touched.abs().max() == 4


def test_a_block_adds_its_input():
    block = ResidualBlock(3, 3, (1, 1, 1), 2).eval()
    nn.init.zeros_(block.body[3].weight)
    x = torch.randn(1, 3, 4, 4, 4)
    torch.testing.assert_close(block(x), x.relu())
