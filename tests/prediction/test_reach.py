"""How far a network sees."""

import pytest
import torch
from torch import nn

from focalis.networks import build_network
from focalis.prediction.reach import reach_of


def test_a_chain_of_convolutions_sees_the_sum_of_their_radii():
    chain = nn.Sequential(
        nn.Conv3d(1, 2, (1, 3, 5), padding=(0, 1, 2)), nn.ReLU(), nn.Conv3d(2, 2, 3, padding=1)
    )
    assert reach_of(chain, 1, (1, 1, 1)) == (1, 2, 3)


def test_each_voxel_on_its_own_sees_none():
    assert reach_of(nn.Conv3d(2, 2, 1), 2, (2, 1, 4)) == (0, 0, 0)


def test_a_network_that_averages_over_the_image_sees_all():
    assert reach_of(nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.InstanceNorm3d(2)), 1, (1, 1, 1)) is None


def test_of_a_network_that_moves_values_about_it_is_not_known():
    assert reach_of(build_network("segnet", ((2, 2, 2),), 1, 2), 1, (2, 2, 2)) is None


@pytest.mark.parametrize(
    "strides", [((2, 2, 2),), pytest.param(((1, 2, 2), (2, 2, 2)), marks=pytest.mark.slow)]
)
def test_nothing_beyond_the_reach_changes_an_output(strides):
    """The gradient of one output voxel ends at the reach; over all phases of the stride it gets there."""
    torch.manual_seed(0)
    network = build_network("dense", strides, 1, 2).eval()
    total = [s * 2 ** (len(strides) - 1) for s in strides[-1]] if len(strides) == 1 else [2, 4, 4]
    reach = reach_of(network, 1, total)
    far = [0, 0, 0]
    for phase in range(max(total)):
        x = torch.randn(1, 1, 64, 64, 64, requires_grad=True)
        place = 32 + phase
        network(x)[0, 1, place, place, place].backward()
        seen = x.grad[0, 0].nonzero() - place
        far = [max(a, int(b)) for a, b in zip(far, seen.abs().amax(0), strict=True)]
    assert all(f <= r for f, r in zip(far, reach, strict=True))
    assert far == list(reach)
