"""The dense family, held against what is counted in the published network."""

import pytest
import torch
from torch import nn

from focalis.errors import PlanError
from focalis.networks import DenseConfig, DenseNetwork, all_outputs, build_network
from focalis.networks.blocks import DenseBlock, PyramidUnit, Unit

STRIDES = {"dense": ((2, 2, 2),) * 3, "densevoxnet": ((2, 2, 2),) * 2, "ddnet": ((2, 2, 2),) * 2}


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_densevoxnet_has_two_blocks_of_twelve_units_and_the_published_parameter_count():
    network = build_network("densevoxnet", STRIDES["densevoxnet"], 1, 2)
    assert [len(block.units) for block in network.blocks] == [12, 12]
    assert parameters(network) == pytest.approx(4.34e6, rel=0.002)


def test_densevoxnet_carries_the_published_channels():
    network = build_network("densevoxnet", STRIDES["densevoxnet"], 1, 2)
    assert [block.outputs for block in network.blocks] == [160, 304]
    assert network.stem.stride == (2, 2, 2)
    ups = [m for m in network.modules() if isinstance(m, nn.ConvTranspose3d)]
    assert [(m.out_channels, m.kernel_size[0], m.stride[0]) for m in ups] == [(128, 4, 2), (64, 4, 2)]
    assert all(m.p == 0.2 for m in network.modules() if isinstance(m, nn.Dropout))
    assert sum(isinstance(m, nn.Dropout) for m in network.modules()) == 24


def test_ddnet_has_a_pyramid_in_every_unit():
    network = build_network("ddnet", STRIDES["ddnet"], 1, 2)
    units = [unit for block in network.blocks for unit in block.units]
    assert len(units) == 24
    assert all([branch.dilation[0] for branch in unit.branches] == [1, 2, 4] for unit in units)
    # The rates share the growth out, so the pyramid costs no parameters.
    assert parameters(network) == parameters(build_network("densevoxnet", STRIDES["densevoxnet"], 1, 2))


def test_the_default_is_compact():
    assert parameters(build_network("dense", STRIDES["dense"], 1, 2)) < 4.34e6


def test_auxiliary_outputs_are_there_in_training_only():
    network = build_network("densevoxnet", STRIDES["densevoxnet"], 1, 2)
    assert len(all_outputs(network(torch.randn(1, 1, 8, 8, 8)))) == 2
    assert len(network.heads()) == 2


def test_anisotropic_strides():
    network = build_network("dense", ((1, 2, 2), (2, 2, 2), (1, 2, 2)), 1, 2)
    assert network.eval()(torch.randn(1, 1, 2, 16, 16)).shape == (1, 2, 2, 16, 16)


def test_a_unit_is_batch_normalisation_then_relu_then_convolution():
    assert [type(layer) for layer in Unit(3, 4)] == [nn.BatchNorm3d, nn.ReLU, nn.Conv3d]


def test_every_unit_of_a_block_sees_all_before_it():
    block = DenseBlock(5, units=3, growth=4)
    assert [unit[2].in_channels for unit in block.units] == [5, 9, 13]
    x = torch.randn(1, 5, 4, 4, 4)
    y = block.eval()(x)
    assert y.shape[1] == block.outputs == 17
    torch.testing.assert_close(y[:, :5], x)
    torch.testing.assert_close(y[:, 9:13], block.units[1](y[:, :9]))


def test_a_pyramid_unit_sees_as_far_as_its_largest_rate():
    unit = PyramidUnit(1, 3, (1, 2, 4)).eval()
    x = torch.zeros(1, 1, 17, 17, 17)
    base = unit(x)
    x[0, 0, 8, 8, 8] = 1.0
    touched = ((unit(x) - base).abs().sum(1)[0] > 1e-7).nonzero() - 8
    assert touched.abs().max() == 4


def test_long_skips_bring_the_features_of_the_way_down_to_every_step_up():
    shape = {
        "stem": 4,
        "stem_strided": False,
        "units": (1, 1),
        "growth": (4, 4),
        "widths": (8, 8),
        "up": (4, 6),
    }
    with_, without = (
        DenseNetwork(DenseConfig(**shape, decoder=(0, 0), skips=skips), ((2, 2, 2),) * 2, 1, 2)
        for skips in (True, False)
    )
    assert without.output[0].num_features == 4
    assert with_.output[0].num_features == 4 + 4  # the last step up, and the stem
    assert with_.ups[1][2].in_channels == 6 + 12  # the step before it, and the first block's output


def test_a_wrong_number_of_stages_is_refused():
    with pytest.raises(PlanError, match="two stages"):
        build_network("densevoxnet", STRIDES["dense"], 1, 2)


@pytest.mark.parametrize("first", [(1, 1, 1), (1, 2, 2)])
def test_a_first_stride_that_keeps_the_size_trains(first):
    """The stem then keeps the size as well, and what leaves it is no skip."""
    network = build_network("dense", (first, (1, 1, 1), (1, 1, 1)), 1, 2)

    logits = network(torch.randn(2, 1, 4, 4, 4))

    assert logits.shape == (2, 2, 4, 4, 4)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
