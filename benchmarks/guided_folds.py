"""Dice of nodules that are pointed at in their held-out crops, and how it falls with the point's distance.

    python benchmarks/guided_folds.py --runs runs      with the runs of `evidence.py accuracy-start`

Each nodule is segmented by the model of the fold that held it out. Points are drawn off the centre of the consensus by
shares of the radius (of a sphere of its volume), in four of the 14 directions along axes and diagonals. FOCALIS_DATA
names the folder of the data sets.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import dice
from evidence_data import NODULES, data_folder, held_out_nodules
from evidence_plan import RESULTS
from guided import DIRECTIONS, SHARES, radius_of
from scipy import ndimage

from focalis.evaluation.intervals import bootstrap_interval
from focalis.model import Model
from focalis.prediction import Place, Settings, segment_at
from focalis.volume import Volume, read_volume
from focalis.workflows.record import provenance, write_json

DRAWN = 4


def main() -> None:
    """Measure, and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the models lie")
    options = parser.parse_args()
    cases: dict[str, dict[str, Any]] = {}
    for trained, case in held_out_nodules(options.runs):
        model = replace(trained, plan=trained.plan.model_copy(update={"use": "guided"}))
        readers = sorted((data_folder() / NODULES / "raters").glob(f"{case.name}_r*.nii.gz"))
        truths = {"consensus": case.read_label().array > 0}
        truths |= {path.name: read_volume(path).array > 0 for path in readers}
        rng = np.random.default_rng(len(cases))
        cases[case.name] = measured(model, case.read_images()[0], truths, rng)
        print(case.name, {share: round(each["consensus"], 3) for share, each in cases[case.name].items()})
    write_json(
        RESULTS / "guided" / "lidc_nodules.json",
        {
            **provenance(),
            "command": "python benchmarks/guided_folds.py",
            "pooled": {str(share): pooled([each[str(share)] for each in cases.values()]) for share in SHARES},
            "off less centre": pooled(
                [
                    {name: each["0.5"][name] - each["0.0"][name] for name in each["0.0"]}
                    for each in cases.values()
                ]
            ),
            "cases": cases,
        },
    )


def measured(
    model: Model, image: Volume, truths: dict[str, np.ndarray], rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    """Per share of the radius the mean Dice over its points, with the consensus and with the readers."""
    consensus = truths["consensus"]
    centre = np.asarray(ndimage.center_of_mass(consensus))[::-1]
    radius_mm = radius_of(consensus, image.grid)
    found: dict[str, dict[str, float]] = {}
    for share in SHARES:
        drawn = rng.choice(len(DIRECTIONS), DRAWN, replace=False) if share else [0]
        scores = []
        for direction in (DIRECTIONS[number] for number in drawn):
            off_mm = share * radius_mm * direction / np.linalg.norm(direction)
            place = Place((tuple(centre + off_mm / np.asarray(image.grid.spacing_xyz_mm)),), voxel=True)
            mask = segment_at(model, [image], [place], Settings(runtime="torch")).mask > 0
            against = [dice(mask, truth) for name, truth in truths.items() if name != "consensus"]
            scores.append((dice(mask, consensus), float(np.mean(against)) if against else np.nan))
        with_consensus, with_readers = np.mean(scores, axis=0)
        found[str(share)] = {"consensus": float(with_consensus), "readers": float(with_readers)}
    return found


def pooled(values: list[dict[str, float]]) -> dict[str, Any]:
    """Mean over the nodules with its 95 % interval, of what is there."""
    told = {}
    for name in ("consensus", "readers"):
        numbers = [each[name] for each in values if np.isfinite(each[name])]
        low, high = bootstrap_interval(numbers)
        told[name] = {"mean": float(np.mean(numbers)), "low": low, "high": high, "nodules": len(numbers)}
    return told


if __name__ == "__main__":
    main()
