"""The check of a whole data set: problems, measurements and findings, from reading it once."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from focalis.dataset import Dataset, Split
from focalis.display import CaseProgress, Shown
from focalis.errors import DataError
from focalis.files import KnownFiles
from focalis.planning.fingerprint import CaseFigures
from focalis.quality.facts import CaseFacts, Measurements
from focalis.quality.finding import KINDS, Finding
from focalis.quality.intensity import find_odd_intensities, find_padding
from focalis.quality.label_values import find_unnamed_sentinels
from focalis.quality.leaks import find_duplicates, find_leaks, find_left_out
from focalis.quality.mirrored import find_mirrored
from focalis.quality.misplaced import find_misplaced
from focalis.quality.position import find_swapped_sides
from focalis.quality.problems import CheckResult, check_dataset
from focalis.quality.reader_masks import attach_readers
from focalis.quality.scarcity import find_mistaken_files, find_too_few
from focalis.quality.segment_names import find_renamed_segments
from focalis.quality.sizes import find_border_labels, find_odd_shares, find_odd_voxels, find_small_lesions
from focalis.volume import GridWarning, data_files, placement_lacks

FORMAT_VERSION = 1


@dataclass(frozen=True)
class PlannedSpacing:
    """The spacing at which training would take place.

    Attributes:
        rule: where it comes from, in words.
    """

    spacing_zyx_mm: tuple[float, float, float]
    rule: str


@dataclass(frozen=True)
class Measured:
    """What one reading of a data set yields.

    Attributes:
        result: problems and label values.
        remarks: findings that come from the reading itself: grids that were put right, readers' files without a case.
        figures: what a plan is made from, of those cases of which it was taken in passing.
    """

    result: CheckResult
    facts: tuple[CaseFacts, ...]
    remarks: tuple[Finding, ...]
    figures: Mapping[str, CaseFigures] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Survey(Shown):
    """A data set, looked at as a whole.

    Attributes:
        dataset: the data set.
        labels: label value to name, of the labels that occur or that the data set names.
        result: what stops training, and the label values.
        findings: what a person should look at, by kind in the order of `KINDS`, then by case.
        facts: what was measured, case by case.
        planned: the planned spacing; None without any sound label map.
        splits: the splits file that was looked at, or None.
    """

    shows = ("folder", "cases", "errors", "warnings")

    dataset: Dataset
    labels: Mapping[int, str]
    result: CheckResult
    findings: tuple[Finding, ...]
    facts: tuple[CaseFacts, ...]
    planned: PlannedSpacing | None
    splits: Path | None

    @property
    def folder(self) -> Path:
        """Where the data set lies."""
        return self.dataset.root

    @property
    def cases(self) -> int:
        """How many cases it has."""
        return len(self.dataset.cases)

    @property
    def errors(self) -> int:
        """How many problems stop training."""
        return len(self.result.problems)

    @property
    def warnings(self) -> int:
        """How many findings a person should look at."""
        return len(self.findings)

    def to_json(self) -> dict[str, Any]:
        """The survey as JSON types."""
        planned = self.planned
        return {
            "version": FORMAT_VERSION,
            "dataset": str(self.dataset.root),
            "cases": len(self.dataset.cases),
            "channels": list(self.dataset.channels),
            "labels": {str(value): name for value, name in self.labels.items()},
            "splits": None if self.splits is None else str(self.splits),
            "errors": [asdict(problem) for problem in self.result.problems],
            "warnings": [
                {
                    "kind": finding.kind,
                    "cases": list(finding.cases),
                    "what": finding.message,
                    "why": KINDS[finding.kind].why,
                    "advice": KINDS[finding.kind].advice,
                }
                for finding in self.findings
            ],
            "planned_spacing_zyx_mm": None if planned is None else list(planned.spacing_zyx_mm),
            "facts": [_plain(asdict(case)) for case in self.facts],
            "rules": {kind: about.rule for kind, about in KINDS.items()}
            | ({} if planned is None else {"planned_spacing": planned.rule}),
        }


def measure(
    dataset: Dataset,
    progress: CaseProgress | None = None,
    *,
    find_readers: bool = True,
    known: KnownFiles | None = None,
) -> Measured:
    """Read a data set once: problems and facts.

    Args:
        dataset: the data set.
        find_readers: look for readers' masks in its folder; without it, only those that its cases know are read.
        known: cases that it knows are not read again, see `check_dataset`.
    """
    unassigned: list[Finding] = []
    if find_readers:
        dataset, unassigned = attach_readers(dataset)
    measurements = Measurements(dataset)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GridWarning)
        result = check_dataset(dataset, measurements, progress, known)
    for other in caught:
        if not issubclass(other.category, GridWarning):
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    said = [warning.message for warning in caught if isinstance(warning.message, GridWarning)]
    remarks = (*_grid_findings(dataset, said), *_unplaced(dataset, known), *unassigned)
    facts = measurements.facts({case.name: tuple(case.readers) for case in dataset.cases})
    return Measured(result, facts, remarks, measurements.figures)


def survey(
    dataset: Dataset,
    measured: Measured,
    planned: PlannedSpacing | None,
    splits: Mapping[int, Split] | None = None,
    splits_path: Path | None = None,
) -> Survey:
    """Judge what was measured.

    Args:
        dataset: the data set.
        planned: the planned spacing; without it small lesions are not reported.
        splits: the splits that training will use, by number.
        splits_path: where they come from.
    """
    facts, splits = measured.facts, splits or {}
    names = {value: f"label {value}" for value in measured.result.label_values} | dict(dataset.labels)
    turned = [*find_swapped_sides(facts, names), *find_mirrored(facts, names, dataset.channels)]
    explained = {case for finding in turned for case in finding.cases}
    misplaced = (
        find_misplaced(facts, names, dataset.channels, explained)
        if all(finding.cases for finding in turned)  # otherwise most of the set is turned over
        else ()
    )
    findings = [
        *find_duplicates(facts, splits),
        *find_leaks(dataset.cases, splits),
        *find_left_out(dataset.cases, splits),
        *_absent_labels(dataset, measured.result),
        *find_unnamed_sentinels(dataset, measured.result.holds),
        *find_renamed_segments(facts),
        *find_odd_voxels(facts),
        *find_odd_shares(facts),
        *(find_small_lesions(facts, names, planned.spacing_zyx_mm) if planned is not None else ()),
        *find_border_labels(facts, names),
        *turned,
        *misplaced,
        *find_too_few(dataset, facts, names),
        *find_mistaken_files(facts),
        *find_odd_intensities(facts, dataset.channels),
        *find_padding(facts),
        *measured.remarks,
        *(Finding("names", (), note) for note in dataset.notes),
    ]
    order = list(KINDS)
    findings.sort(key=lambda finding: order.index(finding.kind))
    return Survey(dataset, names, measured.result, tuple(findings), facts, planned, splits_path)


def _absent_labels(dataset: Dataset, result: CheckResult) -> Iterator[Finding]:
    """Labels with a name but no voxel; none are reported while an error may hide a label map."""
    for value, name in dataset.labels.items():
        if value not in result.label_values and not result.problems:
            yield Finding("absent", (), f"label {value}, {name}, occurs in no case")


def _grid_findings(dataset: Dataset, said: Sequence[GridWarning]) -> Iterator[Finding]:
    """One finding per case and warning, though a file may have been read twice."""
    for path, fault, advice in dict.fromkeys((each.path, each.fault, each.advice) for each in said):
        for case in dataset.cases:
            if path in (*case.images, *case.label_files):
                place = Path(str(path))
                what = "; ".join(filter(None, (fault, advice)))
                yield Finding("grid", (case.name,), f"{place.parent.name}/{place.name}: {what}")


def _unplaced(dataset: Dataset, known: KnownFiles | None) -> Iterator[Finding]:
    """Cases whose files do not state their orientation while others do; one finding if no file states it."""
    silent: dict[tuple[str, str], list[str]] = {}
    spoken = False
    for case in dataset.cases:
        for path in dict.fromkeys((*case.images, *case.label_files)):
            try:
                lack = placement_lacks(path) if known is None else _known_lacks(path, known)
            except DataError:  # the check has reported it
                continue
            spoken |= not lack
            if lack:
                silent.setdefault((case.name, lack), []).append(f"{path.parent.name}/{path.name}")
    if silent and not spoken:
        lacks = "; ".join(dict.fromkeys(lack for _, lack in silent))
        yield Finding("grid", (), f"no file says how it lies in the patient ({lacks})")
        return
    for (name, lack), files in silent.items():
        what = f"does not say how it lies in the patient ({lack}), unlike other files of this set"
        yield Finding("grid", (name,), f"{', '.join(files)}: {what}")


def _known_lacks(path: Path, known: KnownFiles) -> str:
    return str(
        known.value(f"placement of {path.absolute()}", data_files(path), lambda: placement_lacks(path))
    )


def _plain(value: Any) -> Any:
    """Paths as text, tuples as lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
