"""Compare predictions with the truth: figures, tables and a report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from focalis.dataset import Labels, find_readers, read_beside, read_patients, readers_folder
from focalis.display import CaseProgress
from focalis.errors import DataError, UsageError, not_there, refusal
from focalis.evaluation import (
    JUDGED_COLUMNS,
    CaseLesions,
    Evaluation,
    JudgedLesion,
    Score,
    bands_csv,
    by_channels,
    evaluate_case,
    froc_csv,
    judge_lesions,
    views,
)
from focalis.evaluation.beside_readers import CaseBesideReaders, set_beside
from focalis.files import write_bytes, write_text
from focalis.lesions import as_csv, temper
from focalis.prediction import Segmentation
from focalis.report import CasePicture, froc_figure, write_evaluation_report
from focalis.volume import ORIENTATION, Volume, image_stem, knows_its_grid, read_volumes, volumes_in_memory
from focalis.workflows.label_maps import (
    NoLabelMapError,
    image_of,
    label_maps,
    read_label_map,
    require_labels,
    require_options,
)
from focalis.workflows.lesion_tables import boundary_counts, case_lesions, read_missing, read_seen
from focalis.workflows.pictures import draw_cases
from focalis.workflows.training_cases import Seen, seen_line

Source = Path | Volume | Segmentation
"""Where a label map comes from."""


def evaluate(
    predictions: Path | str | Any,
    labels: Path | str | Any,
    out: Path | str | None = None,
    *,
    spacing_mm: Sequence[float] | None = None,
    orientation: str = ORIENTATION,
    images: Path | str | None = None,
    readers: Path | str | None = None,
    label_names: Mapping[int, str] | None = None,
    ignore: int | None = None,
    tolerance_mm: float = 1.0,
    min_lesion_mm3: float = 0.0,
    seed: int = 0,
    patients: Mapping[str, str] | Path | str | None = None,
    progress: CaseProgress | None = None,
) -> Evaluation:
    """Compare predicted label maps with true ones.

    Args:
        predictions: a folder of label maps, or one file; or a label map in memory, or case names to such: a NumPy
            array or torch tensor (z, y, x), a SimpleITK or nibabel image, or what `Model.segment` returns.
        labels: a folder with the truths under the same names, or one file if `predictions` is one; in memory likewise.
            A `dataset.json` beside `labels/` or `labelsTr/` may say which labels were drawn in which case, which value
            is ignored, and name nested regions, which are then judged in place of labels.
        out: folder for `evaluation.json`, `cases.csv` and `report.html`; None writes nothing.
        spacing_mm, orientation: of those that are arrays or tensors, see `Model.segment`; an array is refused without
            its spacing.
        images: folder of the images (CASE.nii.gz, or CASE_CHANNEL.nii.gz of which the first is shown), or one
            file; with it the report shows every case and every missed lesion.
        readers: folder of the readers' masks CASE_READER, or a data set's folder with `raters/`: the predictions are
            then also compared with every reader, and with the readers' agreement among themselves.
        label_names: label value to name. Without it, every value that any truth or prediction holds is a
            label.
        ignore: value that the truths hold where nobody has judged; such voxels are left out. A data set's own by
            default.
        tolerance_mm: tolerance of the surface Dice.
        min_lesion_mm3: smaller components are not lesions, in either map.
        seed: seed of the bootstrap.
        patients: case name to patient, or a CSV table with the columns case and patient; the bootstrap then draws
            patients instead of cases.
        progress: see `focalis.display.CaseProgress`.

    Raises:
        UsageError: a path is not there, a file stands against a folder, a number is not possible, or every label is
            ignored.
        DataError: a file has no counterpart, cannot be read, lies on another grid, or holds values that are
            no label; one line per problem, and nothing is written.
    """
    if not 0 <= min_lesion_mm3 < float("inf"):
        raise UsageError(f"a minimum size of {min_lesion_mm3} mm3 is not possible; give 0 or more")
    require_options(out, images, tolerance_mm, seed)
    if isinstance(predictions, str | Path) and isinstance(labels, str | Path):
        pairs: Mapping[str, tuple[Source, Source]] = _pair(Path(predictions), Path(labels))
    else:
        pairs = _pair_in_memory(predictions, labels, spacing_mm, orientation)
        if images is not None or readers is not None:
            raise UsageError("images and readers are files; leave them out, or give files of label maps too")
    if isinstance(patients, str | Path):
        patients = read_patients(Path(patients), set(pairs))
    names = dict(label_names) if label_names is not None else None
    problems: list[str] = []
    drawn = _readers_of(Path(readers), set(pairs)) if readers is not None else {}
    beside: list[CaseBesideReaders] = []
    said = _said_beside(Path(labels)) if isinstance(labels, str | Path) else Labels()
    ignore = said.ignore if ignore is None else ignore
    if said.regions:
        names = dict(said.names)
    if names is None:
        names = _find_labels(pairs, problems)
        names.pop(ignore or 0, None)
        if not names and not problems:
            raise UsageError(
                f"{ignore} is ignored, and there is no other label; ignore the value of voxels not judged"
            )
    scores: list[Score] = []
    lesions: list[CaseLesions] = []
    seen: dict[str, Seen] = {}
    missing: dict[str, tuple[str, ...]] = {}
    for number, (case, (predicted, true)) in enumerate(pairs.items()):
        if progress is not None:
            progress(number, len(pairs), case)
        try:
            truth, prediction = (
                _label_map(true, case, label_names, ignore),
                _label_map(predicted, case, label_names),
            )
            wanted = {value: name for value, name in names.items() if value in said.drawn.get(case, names)}
            for part, (true_part, mask) in views(wanted, said.regions, ignore, truth, prediction):
                scores += evaluate_case(true_part, mask, part, tolerance_mm, case, ignore, min_lesion_mm3)
            if said.regions:
                lesions.append(
                    _lesions_by_region(case, truth, prediction, said.regions, ignore, min_lesion_mm3)
                )
            elif isinstance(predicted, Path):
                lesions.append(
                    case_lesions(case, truth, prediction, predicted.parent, wanted, ignore, min_lesion_mm3)
                )
            else:
                lesions.append(
                    _lesions_in_memory(case, truth, prediction, predicted, names, ignore, min_lesion_mm3)
                )
            if isinstance(predicted, Path):
                if found := read_seen(predicted.parent, case):
                    seen[case] = found
                missing[case] = read_missing(predicted.parent, case)
            if case in drawn:
                masks = {reader: _mask(path, names, ignore, truth) for reader, path in drawn[case].items()}
                for part, (mask, *theirs) in views(wanted, said.regions, ignore, prediction, *masks.values()):
                    by_reader = dict(zip(masks, theirs, strict=True))
                    beside += set_beside(mask, by_reader, part, tolerance_mm, case, ignore)
        except Exception as error:  # whatever a library raises concerns this case alone
            problems.append(refusal(error, predicted if isinstance(predicted, Path) else Path(case)))
    if progress is not None:
        progress(len(pairs), len(pairs), "")
    if problems:
        raise DataError.of_lines(problems)
    line = seen_line(seen, len(pairs), "the figures on them")
    evaluation = Evaluation.of(
        scores,
        tolerance_mm,
        seed,
        patients,
        beside,
        lesions,
        min_lesion_mm3,
        [each for each in (line, _same_files(pairs)) if each],
        {case: asdict(each) for case, each in seen.items()},
        by_channels((missing.get(score.case, ()), score) for score in scores),
        ignore,
    )
    if out is not None:
        overlays, pictures = (
            ([], [])
            if images is None
            else _pictures(evaluation, _pair(Path(predictions), Path(labels)), Path(images))
        )
        folder = Path(out)
        write_evaluation_report(folder / "report.html", evaluation, overlays, pictures)
        write_evaluation(evaluation, folder)
    return evaluation


def write_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Write `evaluation.json` and the tables into a folder, each atomically.

    `cases.csv` has a row per case and label, with the Dice once more where there is a lesion, `lesions.csv` a row per
    true and predicted lesion, and, where the lesions' confidence is known, `froc.csv` a row per cutoff,
    `froc_bands.csv` the curve with its bands at fixed rates and `froc.png` both.
    """
    cases = [{**asdict(score), "dice_with_lesion": score.dice_with_lesion} for score in evaluation.scores]
    write_text(out / "cases.csv", as_csv(cases, [*Score.__dataclass_fields__, "dice_with_lesion"]))
    write_text(out / "lesions.csv", as_csv([each.row() for each in evaluation.lesions], JUDGED_COLUMNS))
    if evaluation.detection is not None and evaluation.detection.froc is not None:
        write_text(out / "froc.csv", froc_csv(evaluation.detection.froc))
        write_text(out / "froc_bands.csv", bands_csv(evaluation.detection.froc))
        write_bytes(out / "froc.png", froc_figure(evaluation.detection.froc))
    document = json.dumps(evaluation.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(out / "evaluation.json", document + "\n")


def _pair(predictions: Path, labels: Path) -> dict[str, tuple[Path, Path]]:
    """Case name to (prediction, truth)."""
    for path in (predictions, labels):
        if not path.exists():
            raise not_there(path, "give a folder of label maps or one file")
    if predictions.is_dir() != labels.is_dir():
        raise UsageError(
            f"{predictions}, {labels}: one is a folder and one is not; give two folders or two files"
        )
    if not labels.is_dir():
        return {image_stem(labels) or labels.name: (predictions, labels)}
    predicted, true = label_maps(predictions), label_maps(labels)
    problems = [f"{true[case]}: has no prediction in {predictions}" for case in true if case not in predicted]
    problems += [f"{predicted[case]}: has no truth in {labels}" for case in predicted if case not in true]
    if problems:
        raise DataError.of_lines(f"{line}; add it, or move this one away" for line in problems)
    if not true:
        raise DataError.at(labels, "holds no label map", "give a folder of .nii.gz files")
    return {case: (predicted[case], true[case]) for case in true}


def _same_files(pairs: Mapping[str, tuple[Source, Source]]) -> str:
    """What to say if every prediction is the file of its truth; else empty."""
    same = [
        one
        for one, other in pairs.values()
        if isinstance(one, Path) and one.resolve() == Path(str(other)).resolve()
    ]
    return (
        f"predictions and truths are the same {len(same)} files, so the figures say nothing"
        if len(same) == len(pairs)
        else ""
    )


def _said_beside(labels: Path) -> Labels:
    """What the data set of these label maps says of regions, drawn labels and an ignored value."""
    folder = (labels if labels.is_dir() else labels.parent).resolve()
    known = folder.name in ("labels", "labelsTr")
    return read_beside(folder.parent / "dataset.json") if known else Labels()


def _pair_in_memory(
    predictions: Any, labels: Any, spacing_mm: Sequence[float] | None, orientation: str
) -> dict[str, tuple[Source, Source]]:
    """Case name to (prediction, truth), of one label map or of mappings of them."""
    if isinstance(predictions, Mapping) != isinstance(labels, Mapping):
        raise UsageError("one is a mapping of cases and one is not; give two mappings or two label maps")
    if not isinstance(predictions, Mapping):
        predictions, labels = {"case": predictions}, {"case": labels}
    if alone := sorted(set(predictions) ^ set(labels)):
        raise UsageError.at(alone[0], "has a prediction or a truth only", "give both")

    images = [*predictions.values(), *labels.values()]
    arrays = any(not isinstance(image, Segmentation) and not knows_its_grid(image) for image in images)

    def source(image: Any) -> Source:
        if isinstance(image, str | Path):
            raise UsageError.at(
                image, "is a file, and others lie in memory", "give files alone, or images alone"
            )
        if isinstance(image, Segmentation):
            return image.along("zyx")
        lies: tuple[Any, ...] = () if arrays and knows_its_grid(image) else (spacing_mm, orientation)
        volumes, _ = volumes_in_memory(image, *lies, masks=True)
        if len(volumes) != 1:
            raise UsageError(f"a label map has one channel, not {len(volumes)}; give whole numbers (z, y, x)")
        return volumes[0]

    return {str(case): (source(predictions[case]), source(labels[case])) for case in labels}


def _label_map(
    source: Source, case: str, names: Mapping[int, str] | None = None, ignore: int | None = None
) -> Volume:
    if isinstance(source, Path):
        return read_label_map(source, names, ignore)
    volume = Volume(source.mask, source.grid) if isinstance(source, Segmentation) else source
    return require_labels(volume, case, names, ignore)


def _lesions_in_memory(
    case: str,
    truth: Volume,
    prediction: Volume,
    source: Source,
    names: Mapping[int, str],
    ignore: int | None,
    minimum_mm3: float,
) -> CaseLesions:
    """The lesions of a case, with their confidence if a model segmented it."""
    known = source.lesions if isinstance(source, Segmentation) else None
    judged, candidates = judge_lesions(
        case, truth, prediction, names, known=known, ignore=ignore, minimum_mm3=minimum_mm3
    )
    if not isinstance(source, Segmentation):
        return CaseLesions(judged, None, None, 1.0)
    temperature = source.point.temperature
    raw = temper(source.probability, 1 / temperature)
    return CaseLesions(judged, candidates, boundary_counts(truth, raw, names, ignore), temperature)


def _lesions_by_region(
    case: str,
    truth: Volume,
    prediction: Volume,
    regions: Mapping[str, Sequence[int]],
    ignore: int | None,
    minimum_mm3: float,
) -> CaseLesions:
    """The lesions of each region. A table of lesions has those of labels, so their confidence is not known."""
    labels = {value: name for name, values in regions.items() for value in values}
    found: list[JudgedLesion] = []
    for names, (true, mask) in views(labels, regions, ignore, truth, prediction):
        found += judge_lesions(case, true, mask, names, ignore=ignore, minimum_mm3=minimum_mm3)[0]
    return CaseLesions(tuple(found))


def _readers_of(folder: Path, cases: set[str]) -> dict[str, dict[str, Path]]:
    """Case to reader to mask, from a folder of masks or the data set that it lies in."""
    folder = inside if (inside := readers_folder(folder)).is_dir() else folder
    if not folder.is_dir():
        raise not_there(folder, "give the folder of the readers' masks")
    found = find_readers(folder, cases)
    if not found.of:
        raise DataError.at(folder, "holds no reader's mask of any case", "name them CASE_READER.nii.gz")
    found.warn()
    return found.of


def _mask(path: Path, names: Mapping[int, str], ignore: int | None, truth: Volume) -> Volume:
    """A reader's mask. A value that is not a label of the truths and predictions would count as nothing drawn."""
    mask = read_label_map(path, names, ignore)
    if differences := mask.grid.differences(truth.grid):
        raise DataError.at(
            path,
            f"lies on another grid than the truth: {'; '.join(differences)}",
            "export it on the image's grid",
        )
    return mask


def _find_labels(pairs: Mapping[str, tuple[Source, Source]], problems: list[str]) -> dict[int, str]:
    values: set[int] = set()
    for paths in zip(*pairs.values(), strict=True):  # all predictions, then all truths
        images = []
        for case, path in zip(pairs, paths, strict=True):
            try:
                values |= set(np.unique(_label_map(path, case).array).tolist())
            except Exception as error:
                problems.append(refusal(error, path if isinstance(path, Path) else Path(case)))
                images += [path] if isinstance(error, NoLabelMapError) else []
        if len(images) == len(paths) > 1 and isinstance(paths[0], Path):
            raise DataError.at(
                paths[0].parent,
                f"holds {len(paths)} images or probabilities, and no label map",
                f"give the folder of the masks (the first is {paths[0].name})",
            )
    found = sorted(values - {0}) or [1]
    return {value: f"label {value}" for value in found}


def _pictures(
    evaluation: Evaluation, pairs: Mapping[str, tuple[Path, Path]], images: Path
) -> tuple[list[tuple[str, bytes]], list[CasePicture]]:
    def read(case: str) -> tuple[Volume, Volume, Volume]:
        predicted, true = pairs[case]
        image = read_volumes(image_of(case, images, pairs))[0]
        return image, read_label_map(true, None), read_label_map(predicted, None)

    return draw_cases(evaluation.scores, evaluation.lesions, read)
