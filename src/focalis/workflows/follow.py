"""Follow the lesions of one person over dates: registration, matching, change with its error, and the files of it."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from focalis.errors import DataError, ModelError, UsageError, about
from focalis.files import is_free, whole_folder
from focalis.followup import (
    DOUBTFUL_SIMILARITY,
    LesionDay,
    MeasurementError,
    Placement,
    Study,
    Targets,
    Track,
    choose_targets,
    estimate_error,
    is_measurable,
    make_study,
    measure,
    place,
    require_targets,
    sum_targets,
    track,
)
from focalis.lesions import axial_axis
from focalis.model import Model, open_model
from focalis.models import model_file
from focalis.prediction import POINTS, Place, Settings, require_crop
from focalis.volume import Volume, content_digest, read_volume
from focalis.workflows.follow_files import write_files
from focalis.workflows.follow_inputs import (
    Masks,
    Scan,
    common_names,
    images_of,
    parse_dates,
    read_masks,
    read_scans,
    scan_notes,
)
from focalis.workflows.follow_points import find_at
from focalis.workflows.followed import Followed
from focalis.workflows.points import Given, on_series, places_given
from focalis.workflows.predict import predict
from focalis.workflows.repeated_prediction import describe_second_look, second_look
from focalis.workflows.scope import outside_line
from focalis.workflows.training_cases import seen_alone

_NAMESPACE = uuid.UUID("0f0a3c1e-6c67-4d36-9d4b-0f6f5c2f8f0a")


def follow(
    images: Sequence[Path | str],
    out: Path | str,
    *,
    model: Path | str | Model | None = None,
    masks: Sequence[Path | str] = (),
    at: Given | Sequence[Given] = (),
    dates: Sequence[str] = (),
    targets: Sequence[int] = (),
    same_person: bool = False,
    memory_gb: float = 4.0,
    device: str = "auto",
    progress: Callable[[str], None] | None = None,
) -> Followed:
    """Follow lesions over the scans of one person, and write OUT/follow.json, lesions.csv, report.html and the masks.

    OUT/masks/N_CASE.nii.gz holds the lesions of date N; its values are their identities. A DICOM series also gets
    OUT/dicom/N_CASE_seg.dcm and N_CASE_sr.dcm, in which a lesion has the same Tracking UID on every date.

    Args:
        images: one scan per date, the earliest first: an image file, a folder of one case, or a DICOM series.
        out: the folder for the results; it must be new or empty.
        model: what finds the lesions: a model file, the name of a model that comes with Focalis, or a loaded model.
        masks: instead of a model, one mask per scan: a label map on its grid, a DICOM Segmentation or RT Structure
            Set of it, or a folder with a mask per reader, of which the first by name is measured.
        at: of a guided model, a point in each lesion of the first scan, or the two ends of a line across it: x, y, z in
            mm in the patient (LPS); or files of points, see `focalis.workflows.points`. Later scans are looked at where
            the registration puts the lesions.
        dates: of the scans, as 2026-03-31; by default those of the DICOM headers.
        targets: identities of the target lesions of RECIST 1.1; by default the five largest of the first date.
        same_person: take the scans as one person's though their headers say otherwise.
        memory_gb: the most memory that a prediction may take, in 10^9 bytes.
        device: auto, cpu, cuda, cuda:N or mps.
        progress: called with what is done next.

    Raises:
        UsageError: the call is wrong: no model and no masks, or both; too few scans or in the wrong order; a wrong date
            or target; a folder that holds something.
        DataError: a scan or mask cannot be used, or the scans are of different persons or modalities.
        ModelError: the model file cannot be used.
    """
    say = progress or (lambda _: None)
    folder = Path(out)
    if not is_free(folder):
        raise UsageError.at(folder, "is there already and holds something", "give a new folder")
    if (model is None) == (not masks):
        raise UsageError.of_option(
            "give a model to find the lesions (model), or a mask for each scan (masks)",
            "give a model to find the lesions (--model), or a mask for each scan (--masks)",
        )
    if masks and len(masks) != len(images):
        raise UsageError.of_keyword(
            f"masks: {len(masks)} for {len(images)} scans; give one per scan, in their order"
        )
    require_targets(targets)
    paths = [Path(path) for path in images]
    loaded = None if model is None else model if isinstance(model, Model) else open_model(model_file(model))
    places = places_given(at)
    if places and (loaded is None or not loaded.guided):
        what = (
            "masks are given"
            if loaded is None
            else "the model is a detector, which takes whole scans and no points"
        )
        raise UsageError.of_keyword(f"at: {what}; leave it out")
    channels, may_miss = (
        (("image",), ()) if loaded is None else (loaded.plan.channels, loaded.plan.channels_may_miss)
    )
    days = parse_dates(dates, len(paths))
    scans = read_scans(paths, channels, days, same_person=same_person, may_miss=may_miss)
    shown = images_of(scans)
    notes = [*scan_notes(scans), *_same_image(scans, shown)]
    notes += [doubt for scan in scans for doubt in scan.doubts]
    names: Mapping[int, str] = {}
    studies: Sequence[Study] = ()
    placements: tuple[Placement, ...] = ()

    def study(day: int, label: np.ndarray) -> Study:
        scan = scans[day]
        return make_study(f"{day + 1}_{scan.case.name}", shown[day], label, names, scan.day)

    if loaded is None:
        given = [read_masks(Path(path), scan, notes) for path, scan in zip(masks, scans, strict=True)]
        source, names = "the readers' masks", common_names(given)
    else:
        source, names = describe_second_look(loaded), dict(loaded.plan.labels)

        def find(scan: Scan, here: Sequence[Place] = ()) -> Masks:
            found = _predicted(loaded, scan, here, memory_gb, device, say, notes)
            if targets and scan is scans[0]:
                require_targets(targets, len(study(0, found.label.array).pieces))
            return found

        if places:
            here = on_series(places, scans[0].source)
            given, studies, placements = find_at(scans, here, study, find, say)
        else:
            listed, named = " ".join(map(str, paths)), "MODEL" if isinstance(model, Model) else model
            for scan in scans:
                with about(scan.path):
                    _require_detector(loaded, scan, f"focalis follow {listed} --model {named} -o {out}")
            given = [find(scan) for scan in scans]
    say("measure lesions")
    if not placements:
        studies = [study(day, each.label.array) for day, each in enumerate(given)]
        require_targets(targets, len(studies[0].pieces))
        placements = place(studies, say)
    repeats = [[study(day, other.array) for other in each.others] for day, each in enumerate(given)]
    error = estimate_error(studies, repeats, source)
    followed = _followed(scans, studies, placements, error, targets, notes, loaded, say, pointed=bool(places))
    say("write the report")
    with whole_folder(folder) as unfinished:
        write_files(followed, scans, unfinished)
    return followed


def _followed(
    scans: Sequence[Scan],
    studies: Sequence[Study],
    placements: tuple[Placement, ...],
    error: MeasurementError,
    named: Sequence[int],
    notes: list[str],
    model: Model | None,
    say: Callable[[str], None],
    *,
    pointed: bool,
) -> Followed:
    tracks = track(studies, placements, say)
    measured = measure(tracks, studies, error)
    grid = studies[0].image.grid
    slice_mm = grid.spacing_zyx_mm[axial_axis(grid)]
    lacking = [f"{scan.case.name} lacks {', '.join(scan.missing)}" for scan in scans if scan.missing]
    targets = None
    if not lacking:
        chosen = choose_targets(tracks, measured, named, slice_mm)
        targets = sum_targets(tracks, measured, chosen, error.quantile)
    else:
        notes.append(
            f"No response is told, and what is new or gone may be so for want of a channel: {'; '.join(lacking)}."
        )
    notes += _placement_notes(studies, placements) + _target_notes(
        targets, tracks, measured, studies, slice_mm
    )
    if any(each.day is None for each in studies):
        notes.append("Not every scan has a date, so there are no growth rates; give --dates.")
    if tracks and not error.repeated:
        why, do = (
            ("No mask was repeated", "; give a folder with the masks of several readers")
            if model is None
            else ("No lesion was found by both predictions of a scan", "")
        )
        notes.append(
            f"{why}, so the measurement error is that of the voxels alone, and the true one is larger{do}."
        )
    return Followed(
        tuple(studies),
        placements,
        tracks,
        tuple(_tracking_uid(each, scans, studies) for each in tracks),
        measured,
        error,
        targets,
        tuple(notes),
        None if model is None else model.identity,
        pointed,
    )


def _require_detector(model: Model, scan: Scan, command: str) -> None:
    """Refuse whole scans to a guided model; ModelError says how to point, in Python and on the command line."""
    lines = []
    for how in (POINTS, f"{command} --at X,Y,Z"):
        try:
            require_crop(model, scan.volumes[0].grid, how)
        except ModelError as error:
            lines.append(f"{error}, in the first scan alone: the later ones follow")
    if lines:
        raise ModelError.of_option(*lines)


def _predicted(
    model: Model,
    scan: Scan,
    places: Sequence[Place],
    memory_gb: float,
    device: str,
    say: Callable[[str], None],
    notes: list[str],
) -> Masks:
    """What the model finds in a scan, or at places in it, and what it finds on a second look."""
    say(f"find lesions in {scan.case.name}")
    with tempfile.TemporaryDirectory(prefix="focalis_follow_") as place:
        report = predict(model, [scan.path], place, memory_gb=memory_gb, device=device, at=places)
        (row,) = report.rows
        if row.output is None:
            raise DataError(row.reason)
        label = read_volume(row.output).array
    scan.require_unchanged()  # the prediction read it once more
    notes.extend([f"{row.case} {outside_line(row.outside)}"] if row.outside else [])
    notes.extend([f"{row.case} {seen_alone(row.seen)}"] if row.seen else [])
    notes.extend(
        f"{row.case}: point {each.place} {each.said}."
        for each in row.pointed
        if each.cut or each.status != "lesion"
    )
    notes.extend([report.alert] if report.alert and report.alert not in notes else [])
    say(f"find lesions in {scan.case.name} once more, for the measurement error")
    other = second_look(model, scan.volumes, Settings(memory_gb=memory_gb, device=device), places)
    grid = scan.volumes[0].grid
    return Masks(Volume(label, grid), (Volume(other, grid),), {})


def _same_image(scans: Sequence[Scan], shown: Sequence[Volume]) -> list[str]:
    digests = [content_digest(image.array) for image in shown]
    return [
        f"{scan.path} holds the same values as an earlier one: it is the same scan, and not another date."
        for number, (scan, digest) in enumerate(zip(scans, digests, strict=True))
        if digest is not None and digest in digests[:number]
    ]


def _placement_notes(studies: Sequence[Study], placements: Sequence[Placement]) -> list[str]:
    notes = []
    for day, placement in enumerate(placements):
        found = placement.registration
        if found is None:
            continue
        if placement.onto is None:
            notes.append(
                f"{studies[day].name} could not be registered with an earlier scan ({found.problem}): its lesions are "
                "not compared with theirs. Look at both scans side by side."
            )
        elif found.similarity < DOUBTFUL_SIMILARITY:
            notes.append(
                f"{studies[day].name} is not very like {studies[placement.onto].name} (similarity "
                f"{found.similarity:.2f}): make sure that both are of one person, and look at each lesion."
            )
    return notes


def _target_notes(
    targets: Targets | None,
    tracks: Sequence[Track],
    measured: Sequence[Sequence[LesionDay]],
    studies: Sequence[Study],
    slice_mm: float,
) -> list[str]:
    if targets is None:
        return []
    small = [
        f"Target {each.number} is too small to be one by RECIST 1.1, so the response is not that of RECIST; leave it "
        "out of --targets."
        for each, days in zip(tracks, measured, strict=True)
        if each.number in targets.numbers and days[0].size and not is_measurable(each, days[0].size, slice_mm)
    ]
    return small + [
        f"{studies[day].name}: the targets cannot be summed ({'; '.join(each.missing)})."
        for day, each in enumerate(targets.sums)
        if each.missing
    ]


def _tracking_uid(found: Track, scans: Sequence[Scan], studies: Sequence[Study]) -> str:
    """Derived from the scan that shows a lesion first and its place there: a later date changes nothing."""
    day = next(number for number, each in enumerate(found.sightings) if each.pieces)
    scan, sighting = scans[day], found.sightings[day]
    image = scan.source.instance_uids[0] if scan.source else content_digest(scan.image.array)
    voxel = studies[day].pieces[sighting.pieces[0]].voxels_zyx[0].tolist()
    return f"2.25.{uuid.uuid5(_NAMESPACE, f'{image} {found.label} {voxel}').int}"
