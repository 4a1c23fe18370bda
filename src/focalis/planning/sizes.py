"""The sizes that a network of another package takes, found by trying it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from focalis.errors import FocalisError, PlanError, one_line
from focalis.planning.plan import Plan, Triple
from focalis.planning.step_memory import refusal

if TYPE_CHECKING:
    from focalis.networks import Network

DEEPEST = 6
"""Total strides of up to 2^6 are tried."""


def with_sizes_taken(plan: Plan, batch_voxels: float) -> Plan:
    """The plan with a total stride and a patch that its network takes, as near to its own as possible.

    Focalis's own networks take every multiple of their strides. Other packages' networks may halve an axis more often
    than the plan asks for, or need more than one voxel at their coarsest: they are tried, without computing anything.
    A network that whole volumes go through (`Network.patchwise`) must also take other multiples of the total stride.

    Args:
        batch_voxels: about how many voxels a step has.

    Raises:
        PlanError: it takes none of the sizes tried.
    """
    from focalis.networks import is_foreign

    if not is_foreign(plan.network.name):
        return plan
    first: PlanError | None = None
    for candidate in _candidates(plan):
        try:
            require_sizes_taken(candidate)
            break
        except PlanError as error:
            first = first or error
    else:
        assert first is not None
        raise first
    if candidate == plan:
        return plan
    batch = max(2, round(batch_voxels) // math.prod(candidate.patch_zyx))
    stride = " x ".join(map(str, candidate.network.total_stride_zyx))
    why = f"; raised to what {plan.network.name} takes: multiples of {stride}, found by trying"
    reasons = plan.reasons | {"patch_zyx": plan.reasons.get("patch_zyx", "") + why}
    return candidate.model_copy(update={"batch": batch, "reasons": reasons})


def require_sizes_taken(plan: Plan) -> None:
    """Refuse a plan whose network does not take the sizes that training and prediction will give it.

    Focalis's own networks are not tried.

    Raises:
        PlanError: says which size it does not take, and what to do.
    """
    import torch

    from focalis.networks import is_foreign
    from focalis.planning.parts import network_of

    if not is_foreign(plan.network.name):
        return
    with torch.random.fork_rng(devices=[]):
        network = network_of(plan)
        try:
            _try(network.train(), plan, plan.patch_zyx, plan.batch)
        except FocalisError:
            raise
        except Exception as error:
            raise refusal(plan, error) from error
        if network.patchwise:
            return
        stride = plan.network.total_stride_zyx
        z, y, x = (side + s for side, s in zip(plan.patch_zyx, stride, strict=True))
        for shape in (stride, (z, y, x)):
            try:
                _try(network.eval(), plan, shape, 1)
            except Exception as error:
                sides, multiples = (" x ".join(map(str, sizes)) for sizes in (shape, stride))
                raise PlanError(
                    f"network {plan.network.name}: prediction gives it sizes of multiples of {multiples}, the product "
                    f"of network.strides_zyx, and it does not take {sides} ({one_line(error, 160)}); raise the "
                    "strides in the plan"
                ) from error


def _candidates(plan: Plan) -> Iterator[Plan]:
    """The plan, then plans of greater total strides; of each also one whose patch is at least twice as long."""
    seen = set()
    for halvings in range(DEEPEST + 1):
        strides = _deeper(plan.network.strides_zyx, halvings)
        total = [math.prod(axis) for axis in zip(*strides, strict=True)]
        for least in (1, 2):
            z, y, x = (max(-(-side // t), least) * t for side, t in zip(plan.patch_zyx, total, strict=True))
            if (strides, (z, y, x)) not in seen:
                seen.add((strides, (z, y, x)))
                network = plan.network.model_copy(update={"strides_zyx": strides})
                yield plan.model_copy(update={"network": network, "patch_zyx": (z, y, x)})


def _deeper(strides: tuple[Triple, ...], halvings: int) -> tuple[Triple, ...]:
    """The strides with every axis halved at least so often, at the last stages that did not halve it, then at more."""
    axes = [list(axis) for axis in zip(*strides, strict=True)]
    for axis in axes:
        lacking = halvings - round(math.log2(math.prod(axis)))
        for place in [i for i, stride in enumerate(axis) if stride == 1][::-1][: max(lacking, 0)]:
            axis[place] = 2
            lacking -= 1
        axis += [2] * lacking
    stages = max(map(len, axes))
    z, y, x = (axis + [1] * (stages - len(axis)) for axis in axes)
    return tuple(zip(z, y, x, strict=True))


def _try(network: Network, plan: Plan, shape_zyx: Triple, batch: int) -> None:
    import torch

    from focalis.networks import dry, needs_data

    def forward(patches: int) -> None:
        with torch.no_grad():
            network(torch.zeros(patches, len(plan.channels), *shape_zyx))

    try:
        with dry():
            forward(batch)
    except Exception as error:
        if not needs_data(error):
            raise
        forward(1)
