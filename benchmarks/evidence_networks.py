"""Variants of the default network, each with one thing changed, and how their steps compare with its own in time.

They are known by name in this process only: a model file of a variant cannot be opened by Focalis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from evidence_plan import VARIANTS
from filelock import FileLock
from rivals import add_rivals

from focalis.networks import NETWORKS, DenseNetwork, NetworkSpec
from focalis.networks.blocks import Triple
from focalis.networks.catalogue import dense
from focalis.planning import Plan
from focalis.prediction import Runtime
from focalis.training import seconds_per_step
from focalis.training.prepared import PreparedCases
from focalis.workflows.record import provenance, read_json, write_json

ROUNDS, MEASURED = 3, 6
CHANGES: dict[str, dict[str, Any]] = {
    "dense-growth-half": {"growth": (8, 16, 32)},
    "dense-growth-double": {"growth": (32, 64, 128)},
    "dense-two-stages": {},
    "dense-four-stages": {},
    "dense-no-skips": {"skips": False},
    "dense-pyramid": {"dilations": (1, 2, 4)},
    "dense-auxiliary": {"auxiliary": (0, 1)},
    # As many new channels at the coarsest resolution, by one 3^3 convolution or by six in sequence instead of three.
    "dense-sees-less": {"units": (2, 2, 1), "growth": (16, 32, 192)},
    "dense-sees-more": {"units": (2, 2, 6), "growth": (16, 32, 32)},
    "dense-full-stem": {"stem": 16, "stem_strided": False, "widths": (32, 64, 128)},
}
assert set(CHANGES) == set(VARIANTS)


def _builder(changes: dict[str, Any]) -> Callable[..., DenseNetwork]:
    def build(strides_zyx: Sequence[Triple], inputs: int, outputs: int) -> DenseNetwork:
        config = dense(strides_zyx, inputs, outputs).config
        return DenseNetwork(replace(config, **changes), strides_zyx, inputs, outputs)

    return build


def register() -> None:
    """Make the variants and the networks of other packages known by name."""
    add_rivals()
    for name, changes in CHANGES.items():
        NETWORKS[name] = NetworkSpec(_builder(changes), NETWORKS["dense"].stages)


def with_variant(plan: Plan, name: str) -> Plan:
    """The default network's plan with a variant of it instead."""
    strides = plan.network.strides_zyx
    if name == "dense-two-stages":
        strides = strides[:2]
    if name == "dense-four-stages":
        strides = (*strides, (1, 1, 1))  # a step down would not divide the patch
    network = plan.network.model_copy(update={"name": name, "strides_zyx": strides})
    return Plan.model_validate(plan.model_copy(update={"network": network}).model_dump())


def times_as_long(
    name: str,
    plans: tuple[Plan, Plan],
    cases: PreparedCases,
    runtime: Runtime,
    results: Path,
    claims: Path,
    measure: Callable[..., float] = seconds_per_step,
) -> float:
    """How long a step of a network takes, in steps of the default one: measured once, in turns, then read.

    Args:
        name: the network, for the file of the result.
        plans: that of the default network and the network's own.
        cases: what is trained on.
        runtime: device and precision.
        results: the folder of results.
        claims: the folder of locks.
        measure: see `seconds_per_step`.
    """
    path = results / "evidence" / f"time-{name}.json"
    claims.mkdir(parents=True, exist_ok=True)
    with FileLock(claims / f"{path.name}.lock"):
        if not path.exists():
            times = [[measure(plan, cases, runtime, MEASURED) for plan in plans] for _ in range(ROUNDS)]
            own, usual = (float(np.median([each[side] for each in times])) for side in (1, 0))
            row = {**provenance(), "seconds": own, "seconds_of_dense": usual}
            write_json(path, row)
    content = read_json(path)
    return float(content["seconds"] / content["seconds_of_dense"])
