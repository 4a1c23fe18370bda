"""The optimiser: Muon for the kernels between the first and the last layer, AdamW for everything else.

Muon replaces a kernel's momentum by the nearest orthogonal matrix, so that no direction of it learns much faster than
another. Sources: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024), for the update and
the coefficients; J. Liu et al., "Muon is scalable for LLM training" (2025), for the size of the step, which lets both
halves share one learning rate. What it is worth here: decision 0016.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from focalis.networks import Network

MOMENTUM = 0.95
ADAM_BETAS = (0.9, 0.99)
ADAM_SIZE = 0.2
"""The root mean square of an update of AdamW, about: what Muon's are scaled to."""
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class KernelMuon(torch.optim.AdamW):
    """AdamW whose kernels are updated by Muon; see the module.

    Args:
        network: whose parameters are optimised. Kernels are the weights of its convolutions, except the first,
            which reads the image, and the heads; as matrices they have a row per output channel.
        learning_rate: of both halves; `train` sets it anew at every step.
        weight_decay: decoupled, of both halves.
    """

    def __init__(self, network: Network, learning_rate: float, weight_decay: float) -> None:
        convolutions = [
            layer for layer in network.modules() if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d)
        ]
        heads = {id(head) for head in network.heads()}
        inner = [layer for layer in convolutions[1:] if id(layer) not in heads]
        kernels = {id(layer.weight) for layer in inner}
        groups = {
            None: [parameter for parameter in network.parameters() if id(parameter) not in kernels],
            0: [layer.weight for layer in inner if isinstance(layer, nn.Conv3d)],
            1: [layer.weight for layer in inner if isinstance(layer, nn.ConvTranspose3d)],
        }
        super().__init__(
            [{"params": found, "output_axis": axis} for axis, found in groups.items() if found],
            lr=learning_rate,
            weight_decay=weight_decay,
            betas=ADAM_BETAS,
        )

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient; the kernels' gradients are used up."""
        for group in self.param_groups:
            if group["output_axis"] is not None:
                kernels = [kernel for kernel in group["params"] if kernel.grad is not None]
                self._turn(kernels, group["output_axis"], group["lr"], group["weight_decay"])
                for kernel in kernels:
                    kernel.grad = None  # so that AdamW leaves it alone
        return super().step(closure)

    def _turn(self, kernels: Sequence[nn.Parameter], output_axis: int, rate: float, decay: float) -> None:
        """Update kernels; those of one shape are turned together."""
        for kernel in kernels:
            if not self.state[kernel]:
                self.state[kernel]["momentum"] = torch.zeros_like(kernel)
                # unused, but AdamW looks for it when a checkpoint is loaded
                self.state[kernel]["step"] = torch.zeros(())
        of_shape: dict[torch.Size, list[Tensor]] = {}
        for kernel in kernels:
            of_shape.setdefault(kernel.shape, []).append(kernel)
        for alike in of_shape.values():
            momenta = [self.state[kernel]["momentum"] for kernel in alike]
            gradients = [kernel.grad for kernel in alike if kernel.grad is not None]
            torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
            ahead = torch.stack(torch._foreach_lerp(gradients, momenta, MOMENTUM)).movedim(output_axis + 1, 1)
            matrices = ahead.flatten(2)
            updates = orthogonal(matrices) * (ADAM_SIZE * max(matrices.shape[1:]) ** 0.5)
            torch._foreach_mul_(alike, 1 - rate * decay)
            turned = updates.view(ahead.shape).movedim(1, output_axis + 1)
            torch._foreach_sub_(alike, turned.unbind(), alpha=rate)


def orthogonal(matrices: Tensor) -> Tensor:
    """About the nearest matrices with orthonormal rows, or columns if fewer: singular values become 0.7 to 1.2.

    Five steps of a quintic Newton-Schulz iteration X <- (a + b XX' + c (XX')^2) X. All factors are polynomials of the
    first XX', so they are multiplied among each other, and the long matrix is touched twice, not at every step.

    Args:
        matrices: (n, rows, columns), float32; zero stays zero.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonal(matrices.mT).mT
    a, b, c = COEFFICIENTS
    matrices = matrices / (torch.linalg.matrix_norm(matrices, keepdim=True) + 1e-12)
    gram = matrices @ matrices.mT
    identity = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    product = identity.expand_as(gram)
    for _ in range(ITERATIONS):
        factor = a * identity + torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        product = factor @ product
        gram = factor @ gram @ factor
    return product @ matrices
