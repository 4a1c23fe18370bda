"""The optimiser: its matrices against a singular value decomposition, its update against PyTorch's own Muon."""

import pytest
import torch
from torch import nn

from focalis.networks import NETWORKS, build_network
from focalis.training import optimizer
from focalis.training.optimizer import KernelMuon, orthogonal

STRIDES = ((2, 2, 2), (2, 2, 2))


@pytest.mark.parametrize("shape", [(16, 16), (8, 300), (300, 8), (1, 40)])
def test_singular_values_become_about_one_and_singular_vectors_stay(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    turned = u.T @ orthogonal(matrix[None])[0] @ v.T
    assert ((turned.diagonal() > 0.6) & (turned.diagonal() < 1.3)).all()
    assert (turned - torch.diag(turned.diagonal())).abs().max() < 1e-3


def test_a_gradient_of_zero_moves_nothing():
    assert (orthogonal(torch.zeros(1, 4, 9)) == 0).all()


@pytest.mark.parametrize("shape", [(3, 8, 40), (3, 40, 8)])
def test_matrices_are_turned_together_as_one_by_one(shape):
    torch.manual_seed(0)
    matrices = torch.randn(shape) * torch.tensor([1.0, 0.01, 100.0]).reshape(3, 1, 1)
    for alone, together in zip(matrices, orthogonal(matrices), strict=True):
        torch.testing.assert_close(orthogonal(alone[None])[0], together, atol=1e-5, rtol=0)


def test_kernels_of_one_shape_are_turned_in_one_go(monkeypatch):
    network = build_network("fcdensenet", (*STRIDES, (2, 2, 2)), 1, 2)
    ours = KernelMuon(network, 1e-3, 0.0)
    kernels = [group for group in ours.param_groups if group["output_axis"] is not None]
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape)
    calls = []
    real = optimizer.orthogonal
    monkeypatch.setattr(optimizer, "orthogonal", lambda each: calls.append(len(each)) or real(each))
    ours.step()
    assert sum(calls) == sum(len(group["params"]) for group in kernels)
    assert len(calls) == sum(len({kernel.shape for kernel in group["params"]}) for group in kernels)
    assert max(calls) > 1


def test_kernels_between_the_first_and_the_last_layer_are_turned_and_nothing_else():
    network = build_network("dense", STRIDES, 1, 2)
    optimizer = KernelMuon(network, 1e-3, 0.0)
    rest, kernels, transposed = (group["params"] for group in optimizer.param_groups)
    assert len(rest) + len(kernels) + len(transposed) == len(list(network.parameters()))
    assert [kernel.shape[:2] for kernel in transposed] == [
        layer[-1].weight.shape[:2] for layer in network.ups
    ]
    outer = [parameter for parameter in rest if parameter.ndim == 5]
    assert {tuple(weight.shape[:2]) for weight in outer} == {(32, 1), (2, 8)}  # the stem and the output layer


@pytest.mark.parametrize("group", [1, 2])
def test_an_update_is_that_of_pytorchs_muon(group):
    # PyTorch's takes matrices only and computes in bfloat16, so it agrees in direction and size, not to the last digit.
    torch.manual_seed(0)
    network = build_network("dense", STRIDES, 1, 2)
    ours = KernelMuon(network, 1e-2, 0.1)
    kernel, axis = ours.param_groups[group]["params"][0], group - 1

    def rows(tensor):
        """A row per output channel."""
        return tensor.detach().movedim(axis, 0).flatten(1).clone()

    matrix = nn.Parameter(rows(kernel))
    peer = torch.optim.Muon(
        [matrix], lr=1e-2, weight_decay=0.1, momentum=0.95, nesterov=True, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(3):
        before, before_peer = rows(kernel), matrix.detach().clone()
        kernel.grad = torch.randn(kernel.shape)
        matrix.grad = rows(kernel.grad)
        ours.step()
        peer.step()
        mine, theirs = rows(kernel) - before, matrix.detach() - before_peer
        assert torch.nn.functional.cosine_similarity(mine.ravel(), theirs.ravel(), dim=0) > 0.99
        assert float(mine.norm() / theirs.norm()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("name", NETWORKS)
def test_of_every_network_all_but_the_first_convolution_and_the_heads_is_turned(name):
    strides = STRIDES if name in ("densevoxnet", "ddnet") else (*STRIDES, (2, 2, 2))
    network = build_network(name, strides, 3, 2)
    optimizer = KernelMuon(network, 1e-3, 0.0)
    turned = {
        id(kernel)
        for group in optimizer.param_groups
        if group["output_axis"] is not None
        for kernel in group["params"]
    }
    left = [weight for weight in network.parameters() if weight.ndim == 5 and id(weight) not in turned]
    heads = {id(head.weight) for head in network.heads()}
    assert [weight.shape[1] for weight in left if id(weight) not in heads] == [3]


def test_everything_else_is_updated_by_adamw():
    torch.manual_seed(0)
    network = build_network("dense", STRIDES, 1, 2)
    twin = build_network("dense", STRIDES, 1, 2)
    twin.load_state_dict(network.state_dict())
    ours = KernelMuon(network, 1e-2, 0.1)
    rest = [parameter for parameter in twin.parameters() if parameter.ndim == 1]
    peer = torch.optim.AdamW(rest, lr=1e-2, weight_decay=0.1, betas=(0.9, 0.99))
    for step in range(3):
        for net in (network, twin):
            torch.manual_seed(step)
            for parameter in net.parameters():
                parameter.grad = torch.randn(parameter.shape)
        ours.step()
        peer.step()
    for mine, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        if mine.ndim == 1:
            torch.testing.assert_close(mine, theirs)


def test_a_network_of_a_first_and_a_last_layer_is_all_adamws():
    network = build_network("dense", STRIDES, 1, 2)
    network.heads = lambda: [m for m in network.modules() if isinstance(m, nn.Conv3d | nn.ConvTranspose3d)]
    optimizer = KernelMuon(network, 1e-3, 0.0)
    assert len(optimizer.param_groups) == 1
    before = [parameter.detach().clone() for parameter in network.parameters()]
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for parameter, was in zip(network.parameters(), before, strict=True):
        torch.testing.assert_close(
            parameter.detach(), was - 1e-3
        )  # the first step of Adam, whatever the gradient
