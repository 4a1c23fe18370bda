"""What else could help a training that has ten cases: each idea beside the plain training, on one split.

    python benchmarks/few_cases.py run lidc_nodules         train what is missing; a row takes one to three minutes
    python benchmarks/few_cases.py run msd_hippocampus
    python benchmarks/few_cases.py table                    the tables of docs/evidence-tables.md, from what is there

Ten training cases are labelled, the others of the fold serve as scans without a label. All start from shapes and take
as many steps; `IDEAS` says what they do besides. Two folds, two seeds; the figure is the Dice of all labels together
at one half, since the choice of a point on so few cases adds noise of its own. What wins on the inner split's cases
is kept, and nothing is chosen by the held-out ones. A row that is there is not made again.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import dice
from arms import run_or_table, table
from evidence_data import inner_of, task_of
from evidence_plan import RESULTS, Row
from evidence_rows import plan_of, score
from pretrain_shapes import Learner, cubes
from tables import put
from torch import Tensor

from focalis.dataset import Case
from focalis.model import Model
from focalis.networks import Network
from focalis.planning import SHAPES, AugmentationSettings, Plan
from focalis.prediction import Runtime, Settings, choose_runtime, segment
from focalis.training import prepare_cases, train
from focalis.training.prepared import PreparedCases
from focalis.training.start import Start, read_start
from focalis.volume import Volume, write_volume
from focalis.workflows.record import data_hash, provenance, read_json, write_json

IDEAS = {
    "plain": "the ten cases from shapes, nothing else",
    "fill": "before it as many steps of filling holes in the unlabelled scans, from shapes too",
    "self-taught": "the plain network's confident masks of the unlabelled scans join the ten",
    "stronger": "intensities are changed in twice as many patches, and by twice as much",
    "members": "three networks of a third of the steps each, whose probabilities are averaged",
}
DATA = ("lidc_nodules", "msd_hippocampus")
CASES, STEPS, FOLDS, SEEDS = 10, 350, (0, 1), (1, 2)
CONFIDENT, UNSURE = 0.9, (0.2, 0.8)
"""A scan joins if its probability reaches `CONFIDENT` somewhere; what lies between the others is not judged."""
NOT_JUDGED = 255
FOLDER = RESULTS / "few_cases"
BEGIN, END = "<!-- few cases: made by benchmarks/few_cases.py -->", "<!-- /few cases -->"


def main(arguments: Sequence[str] | None = None) -> None:
    """Make rows, or the tables."""
    parser, run = run_or_table(__doc__)
    run.add_argument("data", choices=DATA)
    run.add_argument("--only", choices=IDEAS, help="one idea")
    run.add_argument("--results", type=Path, default=FOLDER)
    run.add_argument("--steps", type=int, default=STEPS, help="another number, for a trial")
    options = parser.parse_args(arguments)
    if options.command == "table":
        lines = tables()
        put(BEGIN, END, lines)
        print("\n".join(lines))
        return
    torch.set_num_threads(1)
    for seed in SEEDS:
        for fold in FOLDS:
            for idea in [options.only] if options.only else IDEAS:
                path = (
                    options.results / f"{options.data}-{idea}-{options.steps}steps-fold{fold}-seed{seed}.json"
                )
                if not path.exists():
                    write_json(path, made(idea, options.data, fold, seed, options.steps))
                    print(path.name, flush=True)


def tables() -> list[str]:
    """A table per data set, of the rows that are there."""
    lines = []
    for data in DATA:
        rows = [read_json(path) for path in sorted(FOLDER.glob(f"{data}-*.json"))]
        if rows:
            ordered = [row for idea in IDEAS for row in rows if row["arm"] == idea]
            lines += [f"{data}, {CASES} cases, {STEPS} steps:", "", *table(ordered), ""]
    return lines


def made(idea: str, data: str, fold: int, seed: int, steps: int) -> dict[str, Any]:
    """The row of an idea: each inner and each held-out case's mean Dice at one half."""
    row = Row(data, cases=CASES, fold=fold, seed=seed, steps=steps, start=SHAPES)
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(row, Path(folder))
        model, more = trial.trained(idea)
    return {
        **provenance(),
        "command": f"python benchmarks/few_cases.py run {data}",
        "arm": idea,
        "fold": fold,
        "seed": seed,
        "steps": steps,
        "data_sha256": data_hash(trial.task.data.cases),
        **more,
        "dice": {
            name: by_case(score(model, trial.task, cases))
            for name, cases in (("inner", trial.inner.val), ("held out", trial.task.split.val))
        },
    }


def by_case(parts: Sequence[Mapping[str, Any]], key: str = "dice_at_half") -> dict[str, float]:
    """Per case the mean Dice of its parts, by default at one half."""
    found: dict[str, list[float]] = {}
    for part in parts:
        found.setdefault(part["case"], []).append(part[key])
    return {case: round(float(np.mean(each)), 5) for case, each in found.items()}


class Trial:
    """What all ideas of a row share: ten cases, the plan for them, the scans without a label, the start."""

    def __init__(self, row: Row, folder: Path) -> None:
        self.row, self.folder, self.runtime = row, folder, choose_runtime()
        self.task = task_of(row, folder)
        self.inner = inner_of(self.task, row.seed)
        self.plan = Plan.model_validate(
            {**plan_of(row, self.task).model_dump(), "ignore": NOT_JUDGED, "start": SHAPES}
        )
        everybody = task_of(replace(row, cases=None), folder).split.train
        self.unlabelled = [
            case.name
            for case in self.task.data.cases
            if case.name in set(everybody) - set(self.task.split.train)
        ]
        start = read_start(SHAPES, row.network)
        assert start is not None
        self.start = start

    def trained(self, idea: str) -> tuple[Model, dict[str, Any]]:
        """The model that an idea leads to, and what else its row says."""
        cases = self.task.data.select(self.inner.train)
        start, plan, more = self.start, self.plan, {}
        if idea == "members":
            seeds = [3 * self.row.seed + number for number in range(3)]
            members = [self.network(cases, plan, start, seed, self.row.steps // 3) for seed in seeds]
            return Model(plan, tuple(members)), more
        if idea == "fill":
            scans = prepare_cases(self.task.data.select(self.unlabelled), plan, self.folder / "prepared")
            start = filled(plan, start, scans, self.row, self.runtime)
        elif idea == "self-taught":
            teacher = Model(plan, (self.network(cases, plan, start, self.row.seed, self.row.steps),))
            taught, agreement = self.taught(teacher)
            cases = [*cases, *taught]
            more = {"joined": len(taught), "of": len(self.unlabelled), "dice_of_joined": agreement}
        elif idea == "stronger":
            plan = plan.model_copy(update={"augmentation": tuple(map(stronger, plan.augmentation))})
        return Model(plan, (self.network(cases, plan, start, self.row.seed, self.row.steps),)), more

    def network(self, cases: Sequence[Case], plan: Plan, start: Start, seed: int, steps: int) -> Network:
        """Trained on these cases."""
        home = self.folder / "run"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        prepared = prepare_cases(cases, plan, self.folder / "prepared")
        return train(plan, prepared, [], home, steps=steps, seed=seed, runtime=self.runtime, start=start)

    def taught(self, teacher: Model) -> tuple[list[Case], float]:
        """The unlabelled scans with the teacher's masks, where it is confident, and their mean Dice with the truth."""
        found, agreement = [], []
        for case in self.task.data.select(self.unlabelled):
            seen = segment(teacher, case.read_images(), Settings(runtime="torch"))
            if seen.probability.max() < CONFIDENT:
                continue
            low, high = UNSURE
            mask = np.where((seen.probability > low) & (seen.probability < high), NOT_JUDGED, seen.mask)
            path = self.folder / "taught" / f"{case.name}.nii.gz"
            write_volume(Volume(mask.astype(np.uint8), seen.grid), path)
            found.append(replace(case, label=path))
            agreement.append(dice(case.read_label().array > 0, seen.mask > 0))
        return found, round(float(np.mean(agreement)), 4) if agreement else 0.0


def stronger(entry: AugmentationSettings) -> AugmentationSettings:
    """The augmentation in twice as many patches, and by twice as much; factors are squared."""
    said: Mapping[str, Any] = entry.model_dump()
    changes = {"share": min(1.0, 2 * said["share"])}
    if "limit" in said:
        changes["limit"] = 2 * said["limit"]
    if "limits" in said:
        changes["limits"] = [value**2 for value in said["limits"]]
    if "sigma_voxels" in said:
        changes["sigma_voxels"] = [said["sigma_voxels"][0], 2 * said["sigma_voxels"][1]]
    return AugmentationSettings.model_validate({**said, **changes})


def filled(plan: Plan, start: Start, scans: PreparedCases, row: Row, runtime: Runtime) -> Start:
    """The start after so many steps of filling holes in scans: the last output is the image, L1 in the holes.

    The output layer of the result is not taken over.
    """
    learner = Learner(plan, start, row.steps, row.seed, runtime)
    for step in range(row.steps):
        whole, holes = with_holes(scans, plan, np.random.default_rng((row.seed, step)))
        loss = learner.learn(
            step,
            torch.where(holes, 0.0, whole),
            lambda seen, whole=whole, holes=holes: (seen[:, -1:] - whole).abs()[holes].mean(),
        )
        if not math.isfinite(loss):
            raise SystemExit(f"{row.name}: diverged at step {step}")
    return Start("filled", "", learner.average.state_dict())


def with_holes(scans: PreparedCases, plan: Plan, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A batch of patches of one channel from anywhere, float32 (n, 1, z, y, x), and where its holes are."""
    whole, holes = [], []
    for _ in range(plan.batch):
        image = scans[int(rng.integers(len(scans)))].image
        lack = [max(0, patch - size) for patch, size in zip(plan.patch_zyx, image.shape[1:], strict=True)]
        image = np.pad(image, [(0, 0), *((each // 2, each - each // 2) for each in lack)], mode="reflect")
        corner = [
            int(rng.integers(size - patch + 1))
            for patch, size in zip(plan.patch_zyx, image.shape[1:], strict=True)
        ]
        box = tuple(slice(at, at + patch) for at, patch in zip(corner, plan.patch_zyx, strict=True))
        whole.append(image[(slice(None), *box)])
        holes.append(cubes(rng, plan.patch_zyx)[None])
    return torch.from_numpy(np.stack(whole)), torch.from_numpy(np.stack(holes))


if __name__ == "__main__":
    main()
