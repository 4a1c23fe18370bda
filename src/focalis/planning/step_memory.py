"""What a training step of a plan needs, estimated before anything is allocated."""

from __future__ import annotations

from focalis.errors import FocalisError, PlanError, one_line
from focalis.planning.plan import Plan

SCRATCH = 1.3
"""Allowance for work space inside the kernels, as in prediction."""
FIXED_BYTES = 600_000_000
"""The process itself: interpreter, libraries, and a case in flight."""


def training_bytes(plan: Plan) -> int:
    """Estimated resident memory of a training step in float32: activations, gradients, optimiser, the process.

    A network that cannot run without data makes a step with one patch, which counts as often as the batch has patches.

    Raises:
        PlanError: the step fails, such as for a network that does not take the patch.
    """
    import torch

    from focalis.losses import loss_spec
    from focalis.networks import Network, all_outputs, needs_data, peak_bytes
    from focalis.planning.parts import loss_of, network_of

    loss, lesions = loss_of(plan), loss_spec(plan.loss.name).lesions
    z, y, x = (side // 2 for side in plan.patch_zyx)
    with torch.random.fork_rng(devices=[]):
        network = network_of(plan).train()

        def step(network: Network, patches: int) -> None:
            image = torch.zeros(patches, len(plan.channels), *plan.patch_zyx)
            distance = torch.zeros(patches, *plan.patch_zyx)
            target = torch.zeros(patches, *plan.patch_zyx, dtype=torch.int64)
            target[:, z, y, x] = 1
            targets = [target, distance, torch.ones_like(target)] if lesions else [target, distance]
            terms = [loss(logits, *targets) for logits in all_outputs(network(image))]
            torch.stack(terms).sum().backward()  # type: ignore[no-untyped-call]

        weights = sum(parameter.numel() for parameter in network.parameters()) * 4
        try:
            try:
                peak = peak_bytes(lambda: step(network, plan.batch), spent=network)
            except Exception as error:
                if not needs_data(error):
                    raise
                again = network_of(plan).train()
                peak = plan.batch * peak_bytes(lambda: step(again, 1), with_data=True)
        except FocalisError:
            raise
        except Exception as error:
            raise refusal(plan, error) from error
    # Beside the gradients that the step makes: the weights, two moments and the averaged copy.
    return FIXED_BYTES + int(SCRATCH * (peak + weights)) + 3 * weights


def refusal(plan: Plan, error: Exception) -> PlanError:
    """That the plan's network does not take its patch, and what to do."""
    patch = " x ".join(map(str, plan.patch_zyx))
    return PlanError(
        f"network {plan.network.name}: a training step with {plan.batch} patches of {patch} voxels fails "
        f"({type(error).__name__}: {one_line(error, 160)}); take another network, or another patch_zyx in the plan"
    )
