"""`follow` from files to files: what it refuses, and what the tables, masks and DICOM objects say."""

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from device_work import save_tiny_model
from follow_scenes import Ball, grid_of, scan, turned

import focalis
from focalis.dicom import Origin, read_series, write_segmentation, write_structures
from focalis.dicom.reported_change import VOLUME_CHANGE
from focalis.errors import DataError, ModelError, UsageError
from focalis.identity import ModelIdentity
from focalis.volume import Grid, Volume, read_volume, write_volume
from focalis.workflows.follow_inputs import read_masks, read_scans

Builder = Callable[..., Any]
GRID = grid_of((4, 4, 4))
FIRST = [Ball((20, 10, 16), 9), Ball((-25, -8, -20), 8)]
SECOND = [Ball((20, 10, 16), 12), Ball((0, 25, 20), 8)]
MOVED = turned((2, -3, 4), (6, -4, 8))


def write_date(
    folder: Path, name: str, balls: Sequence[Ball], moved: Any = None, grid: Grid = GRID
) -> tuple[Path, Path]:
    image, label = scan(balls, grid, moved, seed=len(name))
    write_volume(image, folder / f"{name}.nii.gz")
    write_volume(label, folder / f"{name}_mask.nii.gz")
    return folder / f"{name}.nii.gz", folder / f"{name}_mask.nii.gz"


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two dates: one lesion grows, one goes, one is new; the person moved."""
    folder = tmp_path_factory.mktemp("follow")
    one, first = write_date(folder, "january", FIRST)
    other, second = write_date(folder, "april", SECOND, MOVED)
    out = folder / "out"
    focalis.follow([one, other], out, masks=[first, second], dates=["2026-01-05", "2026-04-05"])
    return out


def rows(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "lesions.csv").read_text().splitlines()))


def test_the_table_says_what_became_of_each_lesion(followed: Path) -> None:
    found = {(row["lesion"], row["date_number"]): row["status"] for row in rows(followed)}
    assert sorted(found.values()) == ["absent", "baseline", "baseline", "gone", "new", "persistent"]


def test_volumes_are_those_of_the_masks(followed: Path) -> None:
    (grown,) = [row for row in rows(followed) if row["status"] == "persistent"]
    first, second = (
        read_volume(followed.parent / f"{name}_mask.nii.gz").array for name in ("january", "april")
    )
    number = int(grown["lesion"])
    mask = read_volume(followed / "masks" / "2_april.nii.gz").array
    assert set(np.unique(mask[second > 0])) == {number, 3}
    assert float(grown["volume_mm3"]) == np.count_nonzero(mask == number) * 64
    before = np.count_nonzero(read_volume(followed / "masks" / "1_january.nii.gz").array == number)
    assert float(grown["volume_percent"]) == pytest.approx(
        100 * (np.count_nonzero(mask == number) / before - 1), abs=0.01
    )
    assert np.count_nonzero(first) == np.count_nonzero(
        read_volume(followed / "masks" / "1_january.nii.gz").array
    )
    assert grown["days"] == "90"
    assert grown["doubling_days"] == ""  # the measurement error is not known


def test_the_report_and_the_json_hold_every_lesion(followed: Path) -> None:
    content = json.loads((followed / "follow.json").read_text())
    assert len(content["lesions"]) == 3
    assert content["dates"][1]["registration"]["problem"] == ""
    page = (followed / "report.html").read_text()
    assert page.index("Lesion 3") < page.index("Lesion 1:") or page.index("Lesion 3") < page.index(
        "Lesion 2:"
    )
    assert page.count("data:image/png") == 3


def test_without_repeated_masks_it_says_what_the_error_lacks(followed: Path) -> None:
    notes = json.loads((followed / "follow.json").read_text())["notes"]
    assert any("No mask was repeated" in note for note in notes)


def test_readers_masks_give_the_measurement_error(tmp_path: Path) -> None:
    one, first = write_date(tmp_path, "a", FIRST)
    other, second = write_date(tmp_path, "b", FIRST)
    for mask, larger in ((first, 0.8), (second, -0.8)):
        folder = tmp_path / f"readers_{mask.stem}"
        folder.mkdir()
        shutil.copy(mask, folder / "reader1.nii.gz")
        label = scan([Ball(each.centre_mm, each.radius_mm + larger) for each in FIRST], GRID)[1]
        write_volume(label, folder / "reader2.nii.gz")
    found = focalis.follow(
        [one, other],
        tmp_path / "out",
        masks=sorted(tmp_path.glob("readers_*")),
        dates=["20260105", "20260205"],
    )
    assert found.error.repeated == 4
    assert 0.2 < found.error.border_mm < 1.2  # two readers that differ by 0.8 mm: 0.57
    assert all(days[1].since_last and not days[1].since_last.volume_beyond_error for days in found.measured)
    assert all(days[1].since_last and days[1].since_last.doubling_days is None for days in found.measured)


# --- a model


@pytest.mark.slow
def test_a_model_finds_the_lesions(tmp_path: Path) -> None:
    small = grid_of((8, 8, 8))
    one, _ = write_date(tmp_path, "a", FIRST, grid=small)
    other, _ = write_date(tmp_path, "b", FIRST, grid=small)
    model = save_tiny_model(tmp_path / "tiny.safetensors", read_volume(one), -200.0, 300.0)
    found = focalis.follow([one, other], tmp_path / "out", model=model, dates=["20260105", "20260205"])

    predicted = focalis.predict(model, [one], tmp_path / "predicted").rows[0].output
    assert predicted is not None
    mask = read_volume(tmp_path / "out" / "masks" / "1_a.nii.gz").array
    assert np.array_equal(mask > 0, read_volume(predicted).array > 0)
    assert found.model == focalis.load(model).identity
    content = json.loads((tmp_path / "out" / "follow.json").read_text())
    assert found.model.record().items() <= {key: content[key] for key in found.model.record()}.items()


@pytest.mark.slow
def test_a_real_nodule_that_moved_is_followed_as_unchanged(tmp_path: Path) -> None:
    data = os.environ.get("FOCALIS_DATA")
    if not data or not (Path(data) / "lidc_nodules").is_dir():
        pytest.skip("FOCALIS_DATA names no folder with lidc_nodules")
    image = read_volume(sorted((Path(data) / "lidc_nodules" / "images").iterdir())[5])
    later = image.array + np.random.default_rng(4).normal(0, 15, image.array.shape)
    grid = replace(image.grid, origin_xyz_mm=tuple(mm + 3.0 for mm in image.grid.origin_xyz_mm))
    write_volume(image, tmp_path / "a.nii.gz")
    write_volume(
        Volume(later[2:, :, 3:].astype(np.float32), grid.part((3, 0, 2), (48, 51, 49))), tmp_path / "b.nii.gz"
    )

    found = focalis.follow(
        [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"],
        tmp_path / "out",
        model="lidc-nodule",
        dates=["2026-01-05", "2026-04-05"],
    )

    largest = max(
        range(len(found.tracks)), key=lambda row: getattr(found.measured[row][0].size, "volume_mm3", 0)
    )
    assert found.tracks[largest].sightings[1].status == "persistent"
    last = found.measured[largest][1].since_last
    assert last is not None
    assert not last.volume_beyond_error
    assert found.error.repeated >= 2
    assert "noise" in found.error.source


def test_a_target_that_a_scan_cuts_off_is_reported(tmp_path: Path) -> None:
    cut = grid_of((4, 4, 4), high_mm=(20, 60, 80))
    one, first = write_date(tmp_path, "january", FIRST, grid=cut)
    other, second = write_date(tmp_path, "april", FIRST, grid=cut)
    found = focalis.follow([one, other], tmp_path / "out", masks=[first, second], targets=[1, 2])
    told = {
        (row["lesion"], row["date_number"]): (row["cut"], row["reliable"]) for row in rows(tmp_path / "out")
    }
    (number,) = {lesion for (lesion, _), (cut_off, _) in told.items() if cut_off == "True"}
    assert told[number, "2"] == ("True", "False")
    assert [told[key] for key in told if key[0] != number] == [("False", ""), ("False", "True")]
    assert sum(f"lesion {number} is cut off by the border" in note for note in found.notes) == 2
    assert found.targets is not None
    assert [each.response for each in found.targets.sums] == ["baseline", "NE"]
    assert [each.from_first_percent for each in found.targets.sums] == [None, None]


def test_a_ring_and_the_core_in_it_have_tracking_uids_of_their_own(tmp_path: Path) -> None:
    grid = grid_of((8, 8, 8))
    image, label = scan([], grid)
    label.array[6:13, 4:11, 6:13] = 1
    label.array[7:12, 5:10, 7:12] = 0
    label.array[9, 7, 9] = 1
    write_volume(image, tmp_path / "a.nii.gz")
    write_volume(label, tmp_path / "mask.nii.gz")
    mask = tmp_path / "mask.nii.gz"
    found = focalis.follow([tmp_path / "a.nii.gz"] * 2, tmp_path / "out", masks=[mask, mask])
    assert len(found.uids) == len(set(found.uids)) == 2


def test_a_named_target_below_the_least_size_is_reported(tmp_path: Path) -> None:
    one, first = write_date(tmp_path, "a", [], grid=grid_of((8, 8, 8)))
    label = read_volume(first)
    label.array[8, 6, 8] = 1
    write_volume(label, first)
    found = focalis.follow([one, one], tmp_path / "out", masks=[first, first], targets=[1])
    assert any(note.startswith("Target 1 is too small") for note in found.notes)


# --- refusals


def refused(kind: type[Exception], *arguments: Any, **options: Any) -> str:
    with pytest.raises(kind) as caught:
        focalis.follow(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_wrong_calls_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    one, first = write_date(tmp_path, "a", [], grid=grid_of((12, 12, 12)))
    out = tmp_path / "out"
    masks = {"masks": [first, first]}
    assert "two scans" in refused(UsageError, [one], out, masks=[first])
    assert "a mask for each scan (masks)" in refused(UsageError, [one, one], out)
    assert "masks: 1 for 2" in refused(UsageError, [one, one], out, masks=[first])
    assert "one date per scan" in refused(UsageError, [one, one], out, dates=["2026-01-01"], **masks)
    assert "is not a date" in refused(UsageError, [one, one], out, dates=["2026-01-01", "05.01.26"], **masks)
    assert "earlier" in refused(UsageError, [one, one], out, dates=["2026-02-01", "2026-01-01"], **masks)
    assert "is not there" in refused(UsageError, [one, one], out, targets=[3], dates=[], **masks)
    assert "does not exist" in refused(DataError, [one, tmp_path / "none.nii.gz"], out, **masks)
    assert not out.exists()
    assert not list(tmp_path.glob(".*"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert "holds something" in refused(UsageError, [one, one], tmp_path / "full", **masks)


def test_a_whole_scan_is_refused_to_a_model_that_takes_points(tmp_path: Path) -> None:
    one, _ = write_date(tmp_path, "a", [], grid=grid_of((12, 12, 12)))
    with pytest.raises(ModelError) as caught:
        focalis.follow([one, one], tmp_path / "out", model="lidc-nodule")
    assert "at=[(x, y, z), ...] (mm, LPS), in the first scan alone" in str(caught.value)
    (said,) = caught.value.command_lines
    assert said.startswith(str(one))
    assert f"focalis follow {one} {one} --model lidc-nodule" in said
    assert said.endswith("--at X,Y,Z (mm, LPS), in the first scan alone: the later ones follow")
    assert said.count("--at X,Y,Z") == 1
    assert not (tmp_path / "out").exists()


def test_a_mask_of_another_grid_is_refused(tmp_path: Path) -> None:
    one, first = write_date(tmp_path, "a", [], grid=grid_of((12, 12, 12)))
    _, other = write_date(tmp_path, "b", [], grid=grid_of((10, 12, 12)))
    assert "another grid" in refused(DataError, [one, one], tmp_path / "out", masks=[first, other])


# --- DICOM


@pytest.fixture
def write_series_of(tmp_path: Path, write_series: Builder) -> Callable[..., tuple[Path, Path]]:
    def write(
        name: str, balls: Sequence[Ball], day: str, grid: Grid = GRID, **attributes: Any
    ) -> tuple[Path, Path]:
        image, label = scan(balls, grid, seed=len(name))
        stored = np.round(image.array).astype(np.int16)
        options = {"PatientID": "17", "AcquisitionDate": day, "StudyDate": day, **attributes}
        write_series(tmp_path / name, stored, grid, **options)
        write_volume(Volume(label.array, grid), tmp_path / f"{name}_mask.nii.gz")
        return tmp_path / name, tmp_path / f"{name}_mask.nii.gz"

    return write


def test_a_lesion_has_one_tracking_uid_in_the_objects_of_all_dates(
    tmp_path: Path, write_series_of: Callable[..., tuple[Path, Path]]
) -> None:
    one, first = write_series_of("january", FIRST, "20260105")
    other, second = write_series_of("april", SECOND, "20260405")
    found = focalis.follow([one, other], tmp_path / "out", masks=[first, second])
    uid = next(
        u for t, u in zip(found.tracks, found.uids, strict=True) if t.sightings[1].status == "persistent"
    )
    seen, changes = [], []
    for number, name in ((1, "january"), (2, "april")):
        segmentation = highdicom.seg.segread(tmp_path / "out" / "dicom" / f"{number}_{name}_seg.dcm")
        assert {item.SegmentAlgorithmType for item in segmentation.SegmentSequence} == {"MANUAL"}
        assert uid in [str(item.TrackingUID) for item in segmentation.SegmentSequence]
        report = highdicom.sr.srread(tmp_path / "out" / "dicom" / f"{number}_{name}_sr.dcm")
        groups = report.content.get_volumetric_roi_measurement_groups(tracking_uid=uid)
        assert len(groups) == 1
        seen.append(groups[0].tracking_identifier)
        changes.append([measured.value for measured in groups[0].get_measurements(name=VOLUME_CHANGE)])
    assert seen[0] == seen[1]
    (grown,) = [row for row in rows(tmp_path / "out") if row["status"] == "persistent"]
    assert changes == [[], [pytest.approx(float(grown["volume_percent"]), abs=0.002)]]
    absent = [
        group.tracking_uid
        for group in report.content.get_image_measurement_groups()
        if "Absent" in [each.value.meaning for each in group.get_qualitative_evaluations()]
    ]
    assert absent == [
        u for t, u in zip(found.tracks, found.uids, strict=True) if t.sightings[1].status == "gone"
    ]
    content = json.loads((tmp_path / "out" / "follow.json").read_text())
    assert [each["day"] for each in content["dates"]] == ["2026-01-05", "2026-04-05"]
    if shutil.which("dciodvfy"):
        for file in (tmp_path / "out" / "dicom").iterdir():
            said = subprocess.run(["dciodvfy", "-new", file], capture_output=True, text=True, check=False)
            assert "Error" not in said.stderr, said.stderr


@pytest.mark.parametrize("kind", ["SEG", "RTSTRUCT"])
def test_masks_are_read_from_dicom_objects(
    tmp_path: Path, write_series_of: Callable[..., tuple[Path, Path]], kind: str
) -> None:
    image, label = write_series_of("january", FIRST, "20260105")
    drawn = read_volume(label).array
    write = write_segmentation if kind == "SEG" else write_structures
    source = read_series(sorted(image.iterdir()))
    write(drawn, {1: "tumour"}, source, tmp_path / "drawn.dcm", Origin(ModelIdentity("a reader"), "1"))
    (scan_read, _) = read_scans([image, image], ("image",), None, same_person=False)
    doubts: list[str] = []
    masks = read_masks(tmp_path / "drawn.dcm", scan_read, doubts)
    assert np.array_equal(masks.label.array > 0, drawn > 0)
    assert masks.names == {1: "tumour"}
    assert doubts == []


def test_scans_of_two_persons_or_modalities_are_refused(
    tmp_path: Path, write_series_of: Callable[..., tuple[Path, Path]]
) -> None:
    small = grid_of((12, 12, 12))
    one, first = write_series_of(
        "one", [], "20260105", small, IssuerOfPatientID="A", PatientBirthDate="19600101"
    )
    for number, wrong in enumerate(
        (
            {"PatientID": "18"},
            {"IssuerOfPatientID": "B"},
            {"PatientBirthDate": "19600102"},
            {"modality": "MR"},
        )
    ):
        same = {"IssuerOfPatientID": "A", "PatientBirthDate": "19600101", **wrong}
        other, second = write_series_of(f"other{number}", [], "20260405", small, **same)
        said = refused(DataError, [one, other], tmp_path / "out", masks=[first, second])
        assert said.startswith(str(other))
        assert "18" not in said.split(": ", 1)[1].replace(str(one), "")


def test_what_same_person_and_dates_override_is_reported(
    tmp_path: Path, write_series_of: Callable[..., tuple[Path, Path]]
) -> None:
    small = grid_of((12, 12, 12))
    one, first = write_series_of("one", [], "20260105", small)
    other, second = write_series_of("two", [], "20260405", small, PatientID="18")
    found = focalis.follow(
        [one, other],
        tmp_path / "out",
        masks=[first, second],
        dates=["2026-01-05", "2026-01-05"],
        same_person=True,
    )
    notes = " ".join(found.notes)
    assert f"{other} has another Patient ID than {one}" in notes
    assert f"{other} is of 2026-04-05 by its header, and was taken as of 2026-01-05" in notes
    assert f"{one} is of" not in notes
    assert "are of one day" in notes
    assert "18" not in notes.replace(str(tmp_path), "")


def test_a_folder_with_series_of_two_patients_is_refused(
    tmp_path: Path, write_series_of: Callable[..., tuple[Path, Path]]
) -> None:
    small = grid_of((12, 12, 12))
    one, first = write_series_of("both/one", [], "20260105", small)
    write_series_of("both/two", [], "20260405", small, PatientID="18")
    said = refused(UsageError, [one.parent, one], tmp_path / "out", masks=[first, first])
    assert "holds 2 cases" in said


def test_dicom_dates_tell_which_scan_is_the_earlier_one(
    tmp_path: Path, write_series_of: Callable[..., tuple[Path, Path]]
) -> None:
    small = grid_of((12, 12, 12))
    one, first = write_series_of("one", [], "20260405", small)
    other, second = write_series_of("two", [], "20260105", small)
    assert "give the earlier" in refused(UsageError, [one, other], tmp_path / "out", masks=[first, second])


def test_a_scan_without_lesions_makes_valid_objects(
    tmp_path: Path, write_series_of: Callable[..., tuple[Path, Path]]
) -> None:
    one, first = write_series_of("one", [], "20260105", grid_of((8, 8, 8)))
    other, second = write_series_of("two", FIRST, "20260205", grid_of((8, 8, 8)))
    focalis.follow([one, other], tmp_path / "out", masks=[first, second])
    empty = pydicom.dcmread(tmp_path / "out" / "dicom" / "1_one_seg.dcm")
    assert "TrackingUID" not in empty.SegmentSequence[0]


def test_a_scan_that_changes_after_it_was_read_is_refused(tmp_path: Path) -> None:
    """Masks come from a second reading, and are measured on the first."""
    image, _ = write_date(tmp_path, "january", FIRST)
    first, _ = read_scans([image, image], ("image",), None, same_person=True)
    first.require_unchanged()
    write_date(tmp_path, "january", SECOND)
    with pytest.raises(DataError, match=r"january.nii.gz: changed after it was read; start again"):
        first.require_unchanged()


def test_whatever_a_library_raises_of_a_scan_is_about_that_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, _ = write_date(tmp_path, "january", FIRST)

    def fail(_case: object) -> None:
        raise RecursionError("maximum recursion depth exceeded")

    monkeypatch.setattr("focalis.workflows.follow_inputs.read_images", fail)
    with pytest.raises(DataError, match=f"^{image}: cannot be processed \\(RecursionError"):
        read_scans([image, image], ("image",), None, same_person=True)
