"""What `fit` and `compare` begin with: a folder of their own, a checked and divided data set, and its trainings."""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from focalis.dataset import Dataset, Split, empty_side, find_splits, lost_labels, make_splits, read_splits
from focalis.errors import DataError, UsageError
from focalis.files import LOCK, KnownFiles, states_of
from focalis.planning import Fingerprint, Plan, fingerprint
from focalis.planning.fingerprint import CaseFigures
from focalis.planning.step_memory import FIXED_BYTES
from focalis.prediction import choose_runtime
from focalis.quality import FACTS_VERSION, KINDS, Finding, Measured, measure, survey
from focalis.settings import Compute, Folds, at_least
from focalis.training import KNOWN, PreparedObjects
from focalis.training.prepared import missing_cases, preparation_key
from focalis.workflows.executors import Executor, executor
from focalis.workflows.record import data_hash
from focalis.workflows.run import Preparation, Task, Tell
from focalis.workflows.slurm import TASKS

DEFAULT_FOLDS = 5
PREPARED = "prepared"
_FINGERPRINT = TypeAdapter(Fingerprint)
LINES_PER_KIND = 3
CASES_PER_PREPARATION = 20
"""So many cases are worth the start of a process."""


def checked(data: Dataset, known: KnownFiles | None = None) -> tuple[Dataset, Measured]:
    """The data set with its labels named and its cases knowing what they hold, and what was measured.

    A label that no case holds is left out: its output would never be trained. Of regions all stay.

    Raises:
        DataError: the data set has faults, one per line.
    """
    measured = measure(data, find_readers=False, known=known)
    result = measured.result
    if result.problems:
        raise DataError.of_lines(map(str, result.problems))
    held = sorted(data.labels if data.regions else set().union(*result.holds.values()))
    labels = {value: data.labels.get(value, f"label {value}") for value in held}
    return replace(data, labels=labels).holding(result.holds), measured


@dataclass(frozen=True)
class Trainers:
    """Who carries out the trainings of a command.

    Attributes:
        executor: what carries them out.
        runtime: device and precision, in words; as asked for if they are those of other machines.
        card_gb: memory of the GPU for each of the trainings at a time; None where none of this machine trains.
    """

    executor: Executor
    parallel: int
    runtime: str
    card_gb: float | None = None

    @classmethod
    def of(cls, on: str, parallel: int, compute: Compute) -> Trainers:
        """Look them up; UsageError if there is no such executor, device or precision, or too little memory."""
        at_least("parallel", parallel, 1)
        if compute.memory_gb is not None and compute.memory_gb * 1e9 <= FIXED_BYTES:
            raise UsageError(
                f"a memory budget of {compute.memory_gb:g} GB holds no training: the process alone takes "
                f"{FIXED_BYTES / 1e9:g} GB; give more"
            )
        found = executor(on, parallel)
        if found.elsewhere:
            return cls(found, parallel, f"{compute.device}, {compute.precision}")
        runtime = choose_runtime(compute.device, compute.precision)
        card_gb = runtime.card_gb()
        return cls(found, parallel, str(runtime), None if card_gb is None else card_gb / parallel)

    def prepare(self, tasks: Sequence[Task], data: Dataset, parallel: int, tell: Tell) -> None:
        """Have the cases of trainings prepared in parallel if many are missing; otherwise the trainings do it.

        Args:
            parallel: processes at a time, see `Executor`.

        Raises:
            TrainingError: a case cannot be prepared.
        """
        if not self.executor.waits or (parallel == 1 and not self.executor.elsewhere):
            return
        alike: dict[str, list[Task]] = {}
        for task in tasks:
            alike.setdefault(preparation_key(data.cases[0], task.plan), []).append(task)
        for first, *others in alike.values():
            names = dict.fromkeys(name for task in (first, *others) for name in task.split.train)
            missing = missing_cases(data.select(tuple(names)), first.plan, first.prepared, first.store)
            count = math.ceil(len(missing) / CASES_PER_PREPARATION)
            count = count if self.executor.elsewhere else min(count, parallel)
            if count < 2:
                continue
            alone = replace(first.compute, device="cpu", precision="float32", threads=1)
            folder = first.prepared / TASKS
            jobs = [
                Preparation(
                    name=f"prepare, part {number + 1} of {count}",
                    home=folder / f"part_{number + 1}",
                    task=first.model_copy(update={"compute": alone}),
                    names=tuple(case.name for case in missing[number::count]),
                )
                for number in range(count)
            ]
            self.executor.run(jobs, parallel, tell)
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def sharing(self) -> int:
        """How many trainings at a time share the threads and the memory of this machine."""
        return 1 if self.executor.elsewhere else self.parallel


@dataclass(frozen=True)
class Trainings:
    """What the trainings of a command have in common.

    Attributes:
        data: what it holds; it passed the check.
        divisions: the splits to train on, with their numbers.
        grave: the grave findings of `focalis check` on them.
        known: what is known of the data set's files.
        figures: what a plan is made from, as far as the check took it.
        store: the address of the object store in which prepared cases lie; None for a folder of the run.
    """

    root: Path
    dataset: Path
    data: Dataset
    divisions: tuple[tuple[int | None, Split], ...]
    grave: tuple[Finding, ...]
    trainers: Trainers
    known: KnownFiles
    figures: Mapping[str, CaseFigures]
    store: str | None

    @classmethod
    def of(
        cls,
        root: Path,
        dataset: Path,
        opened: Dataset,
        folds: Folds,
        seed: int,
        trainers: Trainers,
        doubt: Callable[[str], None] | None,
        *,
        verify: bool,
        store: str | None,
    ) -> Trainings:
        """Check a data set and divide it.

        Args:
            doubt: called with each line that a person should know of the data before training on it.
            verify: read every file, also those that seem to be as they were.
            store: see the attribute.

        Raises:
            DataError, UsageError: see `checked` and `divide`.
        """
        if store is not None:
            PreparedObjects(store)  # what is wrong with it is told before an image is read
        known = KnownFiles(root / PREPARED / KNOWN, verify=verify)
        before = _states(opened)
        data, measured = checked(opened, known)
        known.save()
        divisions = divide(data, folds, seed)
        splits = {number: split for number, split in divisions if number is not None}
        found = survey(opened, measured, None, splits).findings
        grave = tuple(finding for finding in found if KINDS[finding.kind].grave)
        if doubt is not None:
            for line in (*lines_of(grave), *nothing_held_out(data, divisions)):
                doubt(line)
        trainings = cls(
            root, dataset, data, tuple(divisions), grave, trainers, known, measured.figures, store
        )
        _ = trainings.data_sha256  # of what was checked
        if changed := next(
            (file for file, state in _states(opened).items() if before.get(file) != state), None
        ):
            raise DataError.at(changed, "was changed while the data set was checked", "start again")
        return trainings

    @property
    def prepared(self) -> Path:
        """The folder of prepared cases."""
        return self.root / PREPARED

    def record(self, command: str, **more: Any) -> dict[str, Any]:
        """What the records of all trainings begin with: the command, the data set and its hash."""
        name = self.data.root.resolve().name
        return {"command": command, "dataset": name, "data_sha256": self.data_sha256, **more}

    @cached_property
    def data_sha256(self) -> str:
        """See `focalis.workflows.record.data_hash`."""
        found = data_hash(self.data.cases, self.known.sha256_of)
        self.known.save()
        return found

    def fingerprint(self) -> Fingerprint:
        """That of the training cases of the first division, from which the plan is made."""
        cases, ignore = self.data.select(self.divisions[0][1].train), self.data.ignore
        drawn = [(case.name, case.images, case.label, case.drawn and sorted(case.drawn)) for case in cases]

        def find() -> Any:
            return _FINGERPRINT.dump_python(fingerprint(cases, ignore, self.figures), mode="json")

        key = hashlib.sha256(repr((FACTS_VERSION, ignore, drawn)).encode()).hexdigest()
        files = [file for case in cases for file in case.files()]
        found = _FINGERPRINT.validate_python(self.known.value(f"fingerprint {key}", files, find))
        self.known.save()
        return found

    def task(self, name: str, home: Path, plan: Plan, seed: int, **own: Any) -> Task:
        """A training; what is its own beside name, folder, plan and seed is given by name, see `Task`."""
        return Task(
            name=name,
            dataset=self.dataset,
            labels=dict(self.data.labels),
            holds={case.name: tuple(sorted(case.holds or ())) for case in self.data.cases},
            home=home,
            prepared=self.prepared,
            store=self.store,
            plan=plan,
            seed=seed,
            **own,
        )


def _states(data: Dataset) -> dict[Path, list[int]]:
    """Each file of a data set with device, inode, size and time of content; without unreadable headers."""
    states: dict[Path, list[int]] = {}
    for case in data.cases:
        with suppress(DataError):
            states |= {file: states_of([file]) for file in case.files()}
    return states


def claim(root: Path, work: str, ours: bool, fault: str) -> None:
    """UsageError if a folder is a file, or holds something else than prepared cases and is not `ours`."""
    if root.exists() and not root.is_dir():
        raise UsageError.at(root, "is a file", f"give a folder for the {work}")
    if not ours and root.exists() and {path.name for path in root.iterdir()} - {LOCK, PREPARED}:
        raise UsageError.at(root, fault)


def nothing_held_out(data: Dataset, divisions: Sequence[tuple[int | None, Split]]) -> list[str]:
    """A line for each split that holds out no case with a lesion, so that its figures say nothing of lesions."""
    return [
        f"fold {number}: none of its {len(split.val)} held-out cases holds a lesion ({', '.join(split.val)}), so its "
        "figures will not say whether lesions are found; choose other cases"
        for number, split in divisions
        if split.val and not any(case.holds for case in data.select(split.val))
    ]


def lines_of(findings: Sequence[Finding]) -> list[str]:
    """Findings as lines: of each kind the first three, and how many more there are."""
    lines: list[str] = []
    for kind, group in groupby(findings, key=lambda finding: finding.kind):
        several = [str(finding) for finding in group]
        lines += several[:LINES_PER_KIND]
        if len(several) > LINES_PER_KIND:
            more = len(several) - LINES_PER_KIND
            lines.append(f"{KINDS[kind].title.lower()}: {more} more; `focalis check` lists them")
    return lines


def divide(data: Dataset, folds: Folds, seed: int) -> list[tuple[int | None, Split]]:
    """The splits to train, with their numbers; one without a number where nothing is held out.

    Raises:
        UsageError: there is no such fold.
        DataError: a split has an empty side, or trains on no case with a label that it holds out, or a case validates
            in two folds.
    """
    names = tuple(case.name for case in data.cases)
    if folds.fold is None and folds.folds is None:
        return [(None, Split(names, ()))]
    path = find_splits(data.root, folds.splits)
    all_splits = (
        read_splits(path, names) if path else make_splits(data.cases, folds.folds or DEFAULT_FOLDS, seed)
    )
    place = path or data.root
    wanted = list(range(folds.folds)) if folds.folds is not None else [folds.fold or 0]
    if max(wanted) >= len(all_splits):
        raise UsageError.at(
            place,
            f"has {len(all_splits)} folds, from 0 to {len(all_splits) - 1}",
            f"fold {max(wanted)} is not one",
        )
    chosen: list[tuple[int | None, Split]] = [(number, all_splits[number]) for number in wanted]
    validated: set[str] = set()
    for number, split in chosen:
        if fault := empty_side(place, number, split) or lost_labels(place, number, split, data):
            raise fault
        if twice := validated & set(split.val):
            raise DataError.at(place, f"{min(twice)} validates in two folds", "keep it in one")
        validated |= set(split.val)
    return chosen
