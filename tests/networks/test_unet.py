"""The U-Nets against the published parameter count and MONAI's network of nnU-Net's shape."""

from itertools import pairwise

import pytest
import torch
from monai.networks.nets import DynUNet
from torch import nn

from focalis.networks import all_outputs, build_network
from focalis.networks.unet import planned

CUBES = ((2, 2, 2),) * 5


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def test_the_classic_one_has_the_published_number_of_parameters():
    """19,069,955 (Cicek et al. 2016): three channels and classes, a bias where ours has the normalisation's shift."""
    network = build_network("unet", ((2, 2, 2),) * 3, 3, 3)
    scales = sum(m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm3d))
    assert parameters(network) - scales == 19_069_955


def test_nnunets_has_31_million_parameters_counted_by_hand():
    widths = [32, 64, 128, 256, 320, 320]
    down = sum(27 * (a * b + b * b) + 4 * b for a, b in zip([1, *widths], widths, strict=False))
    up = sum(27 * (2 * a * a + a * a) + 4 * a + 8 * b * a + a for a, b in pairwise(widths))
    heads = sum(2 * width + 2 for width in widths[:4])
    network = build_network("nnunet", CUBES, 1, 2)
    assert parameters(network) == down + up + heads
    assert parameters(network) == pytest.approx(31.2e6, rel=0.002)


def test_the_small_one_has_half_of_nnunets_channels_counted_by_hand():
    widths = [16, 32, 64, 128]
    down = sum(27 * (a * b + b * b) + 4 * b for a, b in zip([1, *widths], widths, strict=False))
    up = sum(27 * (2 * a * a + a * a) + 4 * a + 8 * b * a for a, b in pairwise(widths))
    heads = sum(2 * width + 2 for width in widths[:2])
    network = build_network("small-unet", CUBES[:3], 1, 2)
    assert parameters(network) == down + up + heads


def test_the_small_one_has_the_same_kernels_whatever_the_strides():
    cubes, slices = (build_network("small-unet", ((1 + thin, 2, 2),) * 3, 1, 2) for thin in (1, 0))
    kernels = [
        [m.kernel_size for m in network.modules() if isinstance(m, nn.Conv3d)] for network in (cubes, slices)
    ]
    assert kernels[0] == kernels[1]


def test_nnunets_computes_what_monais_network_of_that_shape_computes():
    """The same weights in both; with flat kernels MONAI's differs on the way up, where ours follows nnU-Net."""
    strides = ((2, 2, 2), (2, 2, 2), (1, 2, 2))
    mine = build_network("nnunet", strides, 2, 3).eval()
    peer = DynUNet(
        3,
        2,
        3,
        kernel_size=(3,) * 4,
        strides=((1, 1, 1), *strides),
        upsample_kernel_size=strides,
        filters=(32, 64, 128, 256),
        norm_name=("instance", {"affine": True}),
        trans_bias=True,
    ).eval()
    heads = {id(head) for head in mine.heads()[1:]}
    for kind in (nn.Conv3d, nn.ConvTranspose3d, nn.InstanceNorm3d):
        ours = [m for m in mine.modules() if isinstance(m, kind) and id(m) not in heads]
        theirs = [m for m in peer.modules() if isinstance(m, kind)]
        # The output layers come last in both, and every other module in the order of the computation.
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            b.load_state_dict(a.state_dict())
    assert parameters(peer) == parameters(mine) - sum(
        p.numel() for h in mine.heads()[1:] for p in h.parameters()
    )
    x = torch.randn(1, 2, 8, 16, 24)
    with torch.inference_mode():
        torch.testing.assert_close(mine(x), peer(x), rtol=1e-4, atol=1e-4)


def test_kernels_are_flat_until_the_slices_are_as_thin_as_the_voxels():
    """nnU-Net's plan for the prostate: slices of 3.6 mm, voxels of 0.6 mm, kernels 1 3 3, 1 3 3, then 3 3 3."""
    strides = ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2))
    assert planned(strides).kernels == ((1, 3, 3), (1, 3, 3), *((3, 3, 3),) * 4)
    assert planned(CUBES).kernels == ((3, 3, 3),) * 6
    assert (
        planned(((1, 2, 2),) * 3).kernels == ((3, 3, 3),) * 4
    )  # an axis that is never halved is not coarse but short


def test_deep_supervision_is_halved_at_every_coarser_resolution_and_leaves_the_coarsest_out():
    network = build_network("nnunet", CUBES, 1, 2)
    weights = network.output_weights()
    assert len(weights) == 4
    assert sum(weights) == pytest.approx(1)
    assert [a / b for a, b in pairwise(weights)] == [2, 2, 2]
    assert [head.in_channels for head in network.heads()] == [32, 64, 128, 256]


def test_the_auxiliary_outputs_come_in_the_order_of_their_heads():
    network = build_network("nnunet", ((2, 2, 2),) * 4, 1, 2).train()
    for place, head in enumerate(network.heads()):
        nn.init.zeros_(head.weight)
        nn.init.constant_(head.bias, place)
    outputs = all_outputs(network(torch.randn(1, 1, 32, 32, 32)))
    assert [logits.unique().tolist() for logits in outputs] == [[0.0], [1.0], [2.0]]


def test_only_the_one_with_instance_normalisation_must_see_patches():
    assert build_network("nnunet", CUBES, 1, 2).patchwise
    assert not build_network("unet", CUBES[:3], 1, 2).patchwise
    assert not build_network("small-unet", CUBES[:3], 1, 2).patchwise
