"""What a training step of a plan needs, estimated before anything is allocated."""

from __future__ import annotations

from focalis.planning.plan import Plan

SCRATCH = 1.3
"""Allowance for work space inside the kernels, as in prediction."""
FIXED_BYTES = 600_000_000
"""The process itself: interpreter, libraries, and a case in flight."""


def training_bytes(plan: Plan) -> int:
    """Estimated resident memory of a training step in float32: activations, gradients, optimiser, the process."""
    import torch

    from focalis.networks import all_outputs, peak_bytes
    from focalis.planning.parts import loss_of, network_of

    loss = loss_of(plan)

    def step() -> None:
        network = network_of(plan).train()
        image = torch.empty(plan.batch, len(plan.channels), *plan.patch_zyx)
        target = torch.zeros(plan.batch, *plan.patch_zyx, dtype=torch.int64)
        distance = torch.empty(plan.batch, *plan.patch_zyx)
        terms = [loss(logits, target, distance) for logits in all_outputs(network(image))]
        torch.stack(terms).sum().backward()  # type: ignore[no-untyped-call]

    with torch.random.fork_rng(devices=[]):
        weights = sum(parameter.numel() for parameter in network_of(plan).parameters()) * 4
        # Beside the weights and gradients that the step makes: two moments and the averaged copy.
        return FIXED_BYTES + int(SCRATCH * peak_bytes(step)) + 3 * weights
