"""The device's follow-up: whose study is the earlier one, and what the new result says of its lesions."""

from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from device_work import GRID, block, config, in_this_process, keep_files, until, working
from follow_scenes import Ball, grid_of, scan
from pydicom import Dataset, dcmread
from small_plan import small_plan

from focalis.device import following
from focalis.device.following import choose_earlier, describe, follow_up, is_same_person
from focalis.device.jobs import Jobs
from focalis.device.models import open_models
from focalis.device.records import EarlierStudy
from focalis.device.results import make_results
from focalis.device.store import Store
from focalis.device.written import follow_up_of
from focalis.dicom import Origin, as_reported, read_series, write_report
from focalis.dicom.drawn_points import read_tracking
from focalis.followup import Sighting, Track
from focalis.identity import ModelIdentity
from focalis.lesions import measure_lesions
from focalis.model import Model
from focalis.prediction import Settings

SCENE = grid_of((6, 6, 6))
BEFORE = [Ball((20, 10, 16), 10), Ball((-25, -8, -20), 10)]
AFTER = [Ball((20, 10, 16), 14), Ball((-5, 25, -35), 10)]


def header(**values):
    made = Dataset()
    for keyword, value in {"PatientID": "17", **values}.items():
        setattr(made, keyword, value)
    return made


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({}, {}, True),
        ({}, {"PatientID": "18"}, False),
        ({"PatientID": ""}, {"PatientID": ""}, False),
        ({"IssuerOfPatientID": "A"}, {"IssuerOfPatientID": "A"}, True),
        ({"IssuerOfPatientID": "A"}, {"IssuerOfPatientID": "B"}, False),
        ({"IssuerOfPatientID": "A"}, {}, False),
        ({"PatientBirthDate": "19600101"}, {"PatientBirthDate": "19600102"}, False),
        ({"PatientBirthDate": "19600101"}, {}, True),
        ({"PatientName": "A^B"}, {"PatientName": "C^D"}, True),
    ],
)
def test_a_person_is_known_by_id_issuer_and_birth_date_alone(one, other, same):
    assert is_same_person(header(**one), header(**other)) is same


@pytest.fixture
def dated(write_series, tmp_path):
    """The files of a small series of a day."""

    def write(name, day, **attributes):
        dates = {"AcquisitionDate": day, "StudyDate": day, "PatientID": "17"}
        return dict.fromkeys(map(str, write_series(tmp_path / name, block(), GRID, **dates | attributes)))

    return write


def test_earlier_studies_of_the_person_are_chosen_one_per_day_the_earliest_first(dated):
    new = read_series([Path(file) for file in dated("new", "20260601", SeriesDescription="lung")])
    candidates = [
        EarlierStudy("march", dated("b", "20260301"), "", "", ""),
        EarlierStudy("january", dated("a", "20260101"), "", "", ""),
        EarlierStudy("march, lung", dated("g", "20260301", SeriesDescription="lung"), "", "", ""),
        EarlierStudy("same day", dated("c", "20260601"), "", "", ""),
        EarlierStudy("later", dated("d", "20260701"), "", "", ""),
        EarlierStudy("another person", dated("e", "20260501", PatientID="18"), "", "", ""),
    ]
    chosen = choose_earlier(new, candidates, "latin-1")
    assert [each.task_id for each in chosen] == ["january", "march, lung"]
    assert choose_earlier(new, candidates[3:], "latin-1") == ()


def test_five_dates_are_followed_at_most(dated):
    new = read_series([Path(file) for file in dated("new", "20260601")])
    days = [f"2026010{day}" for day in range(1, 8)]
    candidates = [EarlierStudy(day, dated(day, day), "", "", "") for day in days]
    assert [each.task_id for each in choose_earlier(new, candidates, "latin-1")] == days[2:]


def made(folder, series, mask, followed=None):
    folder.mkdir()
    return {
        each.kind: folder / each.file
        for each in make_results(
            mask,
            {1: "nodule"},
            series,
            folder,
            Origin(ModelIdentity("m"), "1"),
            supersedes={},
            follow_up=followed,
        )
    }


@pytest.fixture
def two_dates(write_series, tmp_path, monkeypatch):
    """The new series and mask, and the earlier study; the second look finds the same."""
    found = []
    for name, balls, day in (("before", BEFORE, "20260105"), ("after", AFTER, "20260405")):
        image, label = scan(balls, SCENE, seed=len(name))
        files = write_series(
            tmp_path / name,
            np.round(image.array).astype(np.int16),
            SCENE,
            AcquisitionDate=day,
            PatientID="17",
        )
        found.append((read_series(files), label.array, dict.fromkeys(map(str, files))))
    (before, drawn, files), (series, mask, _) = found
    objects = made(tmp_path / "earlier", before, drawn)
    monkeypatch.setattr("focalis.workflows.repeated_prediction.second_look", lambda *_: mask)
    return series, mask, EarlierStudy("earlier", files, str(objects["seg"]), str(objects["sr"]), "")


@pytest.fixture
def followed(two_dates):
    series, mask, earlier = two_dates
    model = Model(small_plan(labels={1: "nodule"}), ())
    return follow_up(series, mask, [earlier], model, Settings(), "latin-1")


def test_a_lesion_keeps_its_tracking_uid_and_the_report_tells_its_change(two_dates, followed, tmp_path):
    series, mask, earlier = two_dates
    objects = made(tmp_path / "new", series, mask, followed)

    (grown,) = [each for each in followed.content["lesions"] if each["status"] == "persistent"]
    new, old = grown["lesions"][0], grown["earlier"][0]
    assert read_tracking(objects["sr"])[new] == read_tracking(Path(earlier.report))[old]
    assert len(set(read_tracking(objects["sr"]).values())) == 2
    told = [str(each.value) for each in dcmread(objects["sr"]).iterall() if each.keyword == "TextValue"]
    volume = [np.count_nonzero(scan(balls, SCENE)[1].array) for balls in ([AFTER[0]], [BEFORE[0]])]
    percent = f"{100 * (volume[0] / volume[1] - 1):+.0f}"
    assert f"volume {percent} % since 2026-01-05, beyond measurement error" in told
    assert "new: not there on 2026-01-05" in told
    (summary,) = [each for each in told if each.startswith("Follow-up since 2026-01-05: ")]
    assert sorted(summary[28:-1].split(", ")) == ["1 gone", "1 new", "1 persistent"]
    assert (tmp_path / "new" / "followup.json").is_file()


def test_tracking_uids_go_by_place_and_not_by_number(two_dates, tmp_path):
    """A lesion that a person pointed at comes last in a report, wherever it lies."""
    series, mask, earlier = two_dates
    before, drawn = read_series([Path(file) for file in earlier.files]), scan(BEFORE, SCENE)[1].array
    lesions = measure_lesions(drawn, before.volume.grid, {1: "nodule"})
    first, last = as_reported(enumerate(lesions, start=1), {1: "nodule"})
    report = tmp_path / "reversed.dcm"
    numbered = [replace(last, number=1), replace(first, number=2)]
    write_report(
        numbered,
        drawn,
        {1: "nodule"},
        before,
        Path(earlier.segmentation),
        report,
        Origin(ModelIdentity("m"), "1"),
    )
    model = Model(small_plan(labels={1: "nodule"}), ())
    found = follow_up(series, mask, [replace(earlier, report=str(report))], model, Settings(), "latin-1")
    (grown,) = [each for each in found.content["lesions"] if each["status"] == "persistent"]
    assert found.tracking[grown["lesions"][0]] == read_tracking(report)[3 - grown["earlier"][0]]


def test_a_lesion_has_one_tracking_uid_over_three_dates_though_one_scan_did_not_show_it(
    two_dates, write_series, tmp_path
):
    series, mask, earlier = two_dates
    low = grid_of((6, 6, 6), high_mm=(72, 60, 2))
    image, label = scan(BEFORE, low, seed=9)
    files = write_series(
        tmp_path / "between",
        np.round(image.array).astype(np.int16),
        low,
        AcquisitionDate="20260301",
        PatientID="17",
    )
    objects = made(tmp_path / "objects", read_series(files), label.array)
    between = EarlierStudy(
        "between", dict.fromkeys(map(str, files)), str(objects["seg"]), str(objects["sr"]), ""
    )
    model = Model(small_plan(labels={1: "nodule"}), ())
    found = follow_up(series, mask, [earlier, between], model, Settings(), "latin-1")

    assert found.content["task"] == "between"
    assert found.content["older"] == [{"task": "earlier", "day": "2026-01-05"}]
    (grown,) = [each for each in found.content["lesions"] if each["status"] == "persistent"]
    assert (grown["earlier"], grown["since"]) == ([], "2026-01-05")
    assert grown["older"][0]["volume_mm3"] > 0
    assert found.tracking[grown["lesions"][0]] in read_tracking(Path(earlier.report)).values()
    (new,) = [each for each in found.content["lesions"] if each["status"] == "new"]
    assert found.remarks[new["lesions"][0]] == "new: not there on 2026-03-01"


def test_of_studies_that_could_not_be_registered_nothing_is_said_of_the_place():
    lesion = Track(1, 1, "nodule", (Sighting("unknown"), Sighting("first view", (0,))))
    assert (
        describe(lesion, None, [date(2026, 1, 5), date(2026, 4, 5)])
        == "not compared with the study on 2026-01-05"
    )


def test_hundreds_of_findings_are_not_followed(two_dates, monkeypatch):
    series, mask, earlier = two_dates
    monkeypatch.setattr(following, "MOST_LESIONS", 1)
    with pytest.raises(Exception, match="2 lesions; up to 1"):
        follow_up(series, mask, [earlier], Model(small_plan(labels={1: "nodule"}), ()), Settings(), "latin-1")


# --- which studies the device offers


@pytest.fixture
def offered(model, write_series, tmp_path):
    """The tasks that the job of a person's new study names as earlier ones."""

    def ask(person="p", routes=(), killed=False, **attributes):
        settings = config(model, routes=routes)
        jobs = None
        with Store(tmp_path / "store") as store:
            jobs = Jobs(settings, store, open_models(settings.models), "1")
            for name, who in (("old", "p"), ("new", person)):
                files = write_series(tmp_path / name, block(), GRID, SeriesDescription=name, **attributes)
                uid = keep_files(store, files, person=who)
                store.complete(uid)
                store.add_task(
                    name, uid, "tiny", jobs.models["tiny"].header.identity.file_sha256, jobs._inputs_of(uid)
                )
            place = store.results_folder("old")
            place.mkdir(parents=True)
            (place / "seg-1.dcm").write_bytes(b"")
            store.add_result("old", "seg", "1.2", "0" * 64, place / "seg-1.dcm")
            asked = []
            jobs.segmenter = SimpleNamespace(run=lambda job, _: asked.append(job) or {"outcome": "stopped"})
            jobs.segment("new", killed)
        return [each["task_id"] for each in asked[0].earlier]

    return ask


def test_the_same_persons_segmented_study_is_offered(offered):
    assert offered() == ["old"]


@pytest.mark.parametrize(
    "options",
    [
        {"person": "another"},
        {"person": ""},
        {"killed": True},
        {"routes": ({"model": "tiny", "follow_up": False},)},
        {"routes": ({"model": "tiny", "description": "old"}, {"model": "tiny"})},
    ],
)
def test_others_are_not(offered, options):
    assert offered(**options) == []


@pytest.mark.slow
def test_the_device_compares_with_an_earlier_study_and_keeps_what_it_found(model, write_series, tmp_path):
    with working(tmp_path / "store", config(model), run=in_this_process) as jobs:
        for count, (name, day) in enumerate((("old", "20260105"), ("new", "20260405")), start=1):
            dates = {"AcquisitionDate": day, "StudyDate": day, "StudyInstanceUID": f"1.2.3.{day}"}
            files = write_series(
                tmp_path / name, block(), GRID, SeriesDescription=name, PatientID="17", **dates
            )
            keep_files(jobs.store, files, person="p")
            until(lambda count=count: len(jobs.store.tasks("done")) == count)
        found = {
            jobs.store.series_row(each.series_uid).description: each for each in jobs.store.tasks("done")
        }
        told = follow_up_of(jobs.store, found["new"].task_id)
        assert follow_up_of(jobs.store, found["old"].task_id) is None
        assert (told["task"], told["day"]) == (found["old"].task_id, "2026-01-05")
        assert any(each.text.startswith("Follow-up since 2026-01-05") for each in jobs.store.events())
