"""Send mutated DICOM files and conversations to the device and see that it neither crashes, hangs nor grows.

    python benchmarks/soak_fuzz.py --files 10000 --conversations 10000

The result is benchmarks/results/soak/fuzz-FILES-CONVERSATIONS-SEED.json; the exit code is 1 after a finding. A finding
names its seed; `fuzzing.mutated_file(seed)` makes that file again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fuzzing import fuzz_conversations, fuzz_files, memory_mb

from focalis.device.config import Config
from focalis.device.intake import Intake
from focalis.device.node import Node
from focalis.device.store import Store
from focalis.workflows.record import provenance, write_json

HERE = Path(__file__).parent
ROUNDS = 10
GROWTH_MB = 50
"""What allocators keep; a leak of one file in each case would be far more."""


def main() -> int:
    """Run the campaign in rounds, note the memory after each, and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--conversations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--hang-seconds", type=float, default=30)
    options = parser.parse_args()
    target = HERE / "results" / "soak" / f"fuzz-{options.files}-{options.conversations}-{options.seed}.json"
    if target.exists():
        print(f"{target}: is there, nothing to do")
        return 0
    packages = {name: version(name) for name in ("pynetdicom", "pydicom")}
    result: dict[str, Any] = {**provenance(), "device_packages": packages, "options": vars(options)}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder)) as store:
        config = Config.model_validate(
            {
                "node": {
                    "port": 0,
                    "handshake_seconds": 2,
                    "idle_seconds": 5,
                    "connections": 256,
                    "connections_per_address": 128,
                },
                "store": {"least_free_gb": 0},
                "limits": {"parse_seconds": 10},
            }
        )
        intake = Intake(store, config)
        node = Node(config, intake)
        node.start()
        try:
            result["files"] = rounds(options.files, options.seed, fuzz_files, intake, options.hang_seconds)
            result["conversations"] = rounds(
                options.conversations, options.seed, fuzz_conversations, node, options.hang_seconds
            )
        finally:
            node.stop()
            intake.close()
    result["seconds"] = round(time.monotonic() - started, 1)
    parts = [result["files"], result["conversations"]]
    result["passed"] = not any(
        part["crashes"] or part["hangs"] or part["deaf"] or part["growth_mb"] > GROWTH_MB for part in parts
    )
    write_json(target, result)
    print(target)
    return 0 if result["passed"] else 1


def rounds(count: int, first: int, campaign: Any, target: Any, hang_seconds: float) -> dict[str, Any]:
    """A campaign in ten rounds; memory is compared from the end of the first round to the end of the last."""
    total: dict[str, Any] = {"outcomes": {}, "crashes": [], "hangs": [], "deaf": [], "memory_mb": []}
    for number in range(ROUNDS):
        seeds = range(first + count * number // ROUNDS, first + count * (number + 1) // ROUNDS)
        found = campaign(target, seeds, hang_seconds)
        for outcome, times in found.pop("outcomes").items():
            total["outcomes"][outcome] = total["outcomes"].get(outcome, 0) + times
        for key, values in found.items():
            total[key] += values
        total["memory_mb"].append(memory_mb())
        print(
            f"{campaign.__name__}: {seeds.stop - first} of {count}, {total['memory_mb'][-1]} MB", flush=True
        )
    return {**total, "growth_mb": round(total["memory_mb"][-1] - total["memory_mb"][0], 1)}


if __name__ == "__main__":
    sys.exit(main())
