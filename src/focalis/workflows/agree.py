"""Compare readers who contoured the same cases: figures, tables and a report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from focalis.dataset import open_dataset, with_readers
from focalis.display import CaseProgress
from focalis.errors import DataError, UsageError, not_there, refusal
from focalis.evaluation.agreement import (
    Agreement,
    PairScore,
    compare_readers,
    representative_pairs,
    summarise_agreement,
)
from focalis.evaluation.regions import views
from focalis.files import write_text
from focalis.lesions import as_csv
from focalis.report import agreement_figure, write_agreement_report
from focalis.volume import Volume, image_stem, read_volume, read_volumes
from focalis.workflows.label_maps import image_of, label_maps, read_label_map, require_options


@dataclass(frozen=True)
class _Source:
    """What was given: the readers' files, and what is known of the cases.

    Attributes:
        files: case to structure ("" for label maps) to reader to file.
        names: label value to name; None if the values themselves have to say.
        ignore: the value where nobody has judged.
        images: case to its image.
        patients: case to patient.
        drawn: case to the labels that were drawn in it, where not all were.
        regions: nested regions, name to label values, which are compared in place of labels.
    """

    files: Mapping[str, Mapping[str, Mapping[str, Path]]]
    names: Mapping[int, str] | None
    ignore: int | None = None
    images: Mapping[str, Path] = field(default_factory=dict)
    patients: Mapping[str, str] = field(default_factory=dict)
    drawn: Mapping[str, frozenset[int]] = field(default_factory=dict)
    regions: Mapping[str, Sequence[int]] = field(default_factory=dict)


def agree(
    labels: Path | str | Sequence[Path | str],
    out: Path | str | None = None,
    *,
    images: Path | str | None = None,
    masks: bool = False,
    ignore: int | None = None,
    tolerance_mm: float = 1.0,
    seed: int = 0,
    progress: CaseProgress | None = None,
) -> Agreement:
    """Say how well readers agree.

    Args:
        labels: a folder of label maps per reader, with the same file names in each; or one data set with the readers'
            masks in `raters/`. A folder's name is the reader's; of A/labels and B/labels, A and B. A reader may lack
            a case; cases with a single reader are counted and left out. Nested regions that a data set names are
            compared in place of its labels.
        out: folder for `agreement.json`, `pairs.csv` and `report.html`; None writes nothing.
        images: folder of the images, for the figure; of a data set, its own by default.
        masks: the folders' files are masks of one structure each, CASE_STRUCTURE (split at the last underscore), and
            not label maps.
        ignore: value where a reader has not judged; left out. A data set's own by default.
        tolerance_mm: tolerance of the surface Dice.
        seed: seed of the bootstrap.
        progress: see `focalis.display.CaseProgress`.

    Raises:
        UsageError: a path is not there, a folder is given twice, a number is not possible, or every label is ignored.
        DataError: no case has two readers; a mask cannot be read or lies on another grid than the other's; one line
            per problem, and nothing is written.
    """
    require_options(out, images, tolerance_mm, seed)
    labels = [labels] if isinstance(labels, Path | str) else labels
    source = _source([Path(path) for path in labels], masks, ignore)
    several = {
        case: structures
        for case, structures in source.files.items()
        if any(len(readers) > 1 for readers in structures.values())
    }
    if not several:
        raise DataError.at(
            labels[0],
            "no case has two readers",
            "give folders with the same file names, or a data set with raters/",
        )
    problems: list[str] = []
    names = source.names if source.names is not None else _found_labels(source, problems)
    numbers = {name: value for value, name in names.items()}
    pairs: list[PairScore] = []
    for number, (case, structures) in enumerate(several.items()):
        if progress is not None:
            progress(number, len(several), case)
        for structure, readers in structures.items():
            wanted = {numbers[structure]: structure} if structure else names
            wanted = {value: wanted[value] for value in wanted if value in source.drawn.get(case, wanted)}
            try:
                drawn = {reader: _read(path, source, structure, numbers) for reader, path in readers.items()}
                for part, maps in views(wanted, source.regions, source.ignore, *drawn.values()):
                    by_reader = dict(zip(drawn, maps, strict=True))
                    pairs += compare_readers(by_reader, part, tolerance_mm, case, source.ignore)
            except Exception as error:
                problems.append(refusal(error, next(iter(readers.values()))))
    if progress is not None:
        progress(len(several), len(several), "")
    if problems:
        raise DataError.of_lines(problems)
    agreement = Agreement(
        tuple(pairs),
        summarise_agreement(pairs, source.patients, seed),
        _counted(source),
        tuple(case for case in source.files if case not in several),
        tolerance_mm,
        seed,
    )
    if out is not None:
        figure = _figure(agreement, source, None if images is None else Path(images), numbers)
        _write(agreement, figure, Path(out))
    return agreement


def _source(paths: list[Path], masks: bool, ignore: int | None) -> _Source:
    for path in paths:
        if not path.exists():
            raise not_there(path, "give a folder of label maps per reader, or a data set")
    if len(paths) == 1:
        if masks:
            raise UsageError.at(paths[0], "is one path, and --masks is for several folders", "leave it out")
        return _data_set(paths[0], ignore)
    files: dict[str, dict[str, dict[str, Path]]] = {}
    for path, reader in zip(paths, _reader_names(paths), strict=True):
        if not path.is_dir():
            raise UsageError.at(path, "is not a folder", "give a folder of label maps per reader")
        for stem, file in label_maps(path).items():
            case, _, structure = stem.rpartition("_") if masks else (stem, "", "")
            if masks and not (case and structure):
                raise DataError.at(file, "is not named CASE_STRUCTURE", "rename it, or leave --masks out")
            files.setdefault(case, {}).setdefault(structure, {})[reader] = file
    structures = sorted({structure for case in files.values() for structure in case})
    names = dict(enumerate(structures, start=1)) if masks else None
    return _Source({case: files[case] for case in sorted(files)}, names, ignore)


def _reader_names(paths: Sequence[Path]) -> list[str]:
    """A name per folder: its own or, of folders that share theirs, the nearest one above in which they all differ."""
    resolved = [path.resolve() for path in paths]
    for path, real in zip(paths, resolved, strict=True):
        if resolved.count(real) > 1:
            raise UsageError.at(path, "is given twice", "give another folder for each reader")
    names = [path.name for path in resolved]
    for name in {name for name in names if names.count(name) > 1}:
        alike = [number for number, path in enumerate(resolved) if path.name == name]
        levels = zip(*(resolved[number].parts[::-1] for number in alike), strict=False)
        differing = next((level for level in levels if len(set(level)) == len(alike)), None)
        for place, number in enumerate(alike):
            names[number] = differing[place] if differing else str(paths[number])
    for path, name in zip(paths, names, strict=True):
        if names.count(name) > 1:
            raise UsageError.at(path, f"is a second reader {name}", "rename one of the folders")
    return names


def _data_set(path: Path, ignore: int | None) -> _Source:
    if path.is_dir() and label_maps(path) and all(image_stem(each) for each in path.iterdir()):
        raise UsageError.at(
            path, "is the folder of one reader", "give one for each reader, or a data set with raters/"
        )
    data = with_readers(open_dataset(path))
    return _Source(
        {case.name: {"": case.readers} for case in data.cases if case.readers},
        data.labels or None,
        data.ignore if ignore is None else ignore,
        {case.name: case.images[0] for case in data.cases if case.images},
        data.patients,
        {case.name: case.drawn for case in data.cases if case.drawn is not None},
        data.regions,
    )


def _read(path: Path, source: _Source, structure: str, numbers: Mapping[str, int]) -> Volume:
    """A reader's label map; of a mask, one that holds the structure's number."""
    if not structure:
        return read_label_map(path, source.names, source.ignore)
    volume = read_volume(path)
    inside = volume.array != 0
    values = np.unique(volume.array[inside])
    if values.size > 1:
        raise DataError.at(
            path, f"is not a mask, it holds {values.size} values besides 0", "leave --masks out"
        )
    return Volume(np.where(inside, numbers[structure], 0), volume.grid)


def _found_labels(source: _Source, problems: list[str]) -> dict[int, str]:
    """Every value that any reader has drawn is a label."""
    values: set[int] = set()
    for structures in source.files.values():
        for path in structures[""].values():
            try:
                values |= set(np.unique(read_label_map(path).array).tolist())
            except Exception as error:
                problems.append(refusal(error, path))
    found = sorted(values - {0}) or [1]
    if found == [source.ignore]:
        raise UsageError(
            f"{found[0]} is ignored, and there is no other label; ignore the value of voxels not judged"
        )
    return {value: f"label {value}" for value in found if value != source.ignore}


def _counted(source: _Source) -> dict[str, int]:
    """Reader to the number of cases."""
    cases: dict[str, set[str]] = {}
    for case, structures in source.files.items():
        for readers in structures.values():
            for reader in readers:
                cases.setdefault(reader, set()).add(case)
    return {reader: len(cases[reader]) for reader in sorted(cases)}


def _figure(
    agreement: Agreement, source: _Source, images: Path | None, numbers: Mapping[str, int]
) -> tuple[str, bytes]:
    """The caption and the picture of the median and the worst case."""
    panels, said = [], []
    for kind, pair in representative_pairs(agreement.pairs):
        structures = source.files[pair.case]
        structure = pair.structure if pair.structure in structures else ""
        first, second = (
            _read(structures[structure][reader], source, structure, numbers)
            for reader in (pair.first, pair.second)
        )
        label = {pair.label: pair.structure}
        maps = next(
            maps for part, maps in views(label, source.regions, source.ignore, first, second) if part == label
        )
        masks = [Volume(volume.array == pair.label, volume.grid) for volume in maps]
        where = (
            image_of(pair.case, images, source.files) if images is not None else source.images.get(pair.case)
        )
        image = None if where is None else read_volumes(where)[0]
        panels.append((pair, image, masks[0], masks[1]))
        said.append(
            f"{kind} case {pair.case}, {pair.structure}: {pair.first} and {pair.second}, Dice {pair.dice:.3f}"
        )
    caption = "; ".join(said)
    return caption[0].upper() + caption[1:], agreement_figure(panels)


def _write(agreement: Agreement, figure: tuple[str, bytes], out: Path) -> None:
    write_agreement_report(out / "report.html", agreement, figure)
    pairs = as_csv([asdict(pair) for pair in agreement.pairs], list(PairScore.__dataclass_fields__))
    write_text(out / "pairs.csv", pairs)
    document = json.dumps(agreement.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(out / "agreement.json", document + "\n")
