"""What channel dropout costs and saves: Dice with all channels and without one, trained with it and without it.

    python benchmarks/missing_channels.py /data/ms_brain -o runs/missing --channel T1 --steps 2000 --fold 0

Both trainings see complete cases. The one without channel dropout states that the channel may miss too, so that it can
be judged without it, and drops it from no patch. A row that is there is not made again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arms import dice_on, held_out, options_of, print_rows

import focalis
from focalis.planning import read_plan, write_plan
from focalis.volume import Absent
from focalis.workflows.record import provenance

ARMS = {"no_dropout": 0.0, "dropout": None}


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the two arms and print their rows."""
    parser = options_of(__doc__)
    parser.add_argument("--channel", required=True)
    options = parser.parse_args(arguments)
    print_rows(ARMS, options, lambda arm, run: trained(run, ARMS[arm], options))


def trained(run: Path, share: float | None, options: argparse.Namespace) -> dict[str, Any]:
    """The row of an arm; `share` replaces the plan's channel dropout."""
    made_from = provenance()
    how: dict[str, Any] = {"fold": options.fold, "channels_may_miss": [options.channel], "seed": options.seed}
    plan = read_plan(focalis.fit(options.dataset, run, plan_only=True, **how).plan)
    if share is not None:
        training = plan.training.model_copy(update={"channel_dropout": share})
        write_plan(plan.model_copy(update={"training": training}), run / "plan.yaml")
    result = focalis.fit(options.dataset, run, steps=options.steps, eight_bit=False, **how)
    place = plan.channels.index(options.channel)
    dice: dict[str, dict[str, float]] = {"all channels": {}, f"without {options.channel}": {}}
    complete, without = dice.values()
    for model, case in held_out(result.model, options.dataset):
        volumes = case.read_images()
        complete[case.name] = dice_on(model, case, volumes)
        stand_in = Absent.on(volumes[0].grid)
        without[case.name] = dice_on(model, case, [*volumes[:place], stand_in, *volumes[place + 1 :]])
    return {**made_from, "dice": dice}


if __name__ == "__main__":
    main()
