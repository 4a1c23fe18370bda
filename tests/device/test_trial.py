"""Models on trial: findings compared, reviewers' verdicts, drift, promotion."""

import json

import numpy as np
import pytest
from device_work import GRID, block
from page_clients import csrf_of, local_client
from phantom_device import PACS, PhantomDevice

from focalis.device.config import Config, Route
from focalis.device.models import ServedModel
from focalis.device.trial import LEAST_STUDIES, compare_findings, drift_of, trial_of
from focalis.device.written import BESIDE, FIGURES
from focalis.dicom import Origin, read_series, write_segmentation
from focalis.identity import ModelIdentity


def test_lesions_that_share_a_voxel_are_one_finding(write_series, tmp_path):
    series = read_series(write_series(tmp_path / "in", block(), GRID))
    old, new = (np.zeros(series.volume.array.shape, np.uint8) for _ in range(2))
    old[1, 1:3, 1:3], old[4, 6, 6] = 1, 1
    new[1, 2:4, 2:4], new[2, 6, 0], new[5, 0, 7] = 1, 1, 1
    write_segmentation(old, {1: "nodule"}, series, tmp_path / "seg.dcm", Origin(ModelIdentity("m"), "1"))
    found = compare_findings(new, {1: "nodule"}, series, tmp_path / "seg.dcm")
    assert (found["current"], found["shadow"], len(found["pairs"])) == (2, 3, 1)
    assert found["dice"] == pytest.approx(2 * 1 / (5 + 6))


def test_without_a_lesion_both_agree(write_series, tmp_path):
    series = read_series(write_series(tmp_path / "in", block(), GRID))
    nothing = np.zeros(series.volume.array.shape, np.uint8)
    write_segmentation(nothing, {1: "nodule"}, series, tmp_path / "seg.dcm", Origin(ModelIdentity("m"), "1"))
    assert compare_findings(nothing, {1: "nodule"}, series, tmp_path / "seg.dcm") == {
        "current": 0,
        "shadow": 0,
        "pairs": [],
        "dice": 1.0,
    }


@pytest.fixture
def device(tmp_path):
    """A device with a study that both models have segmented."""
    route = Route(model="nodules", shadow="newer", modality="MR")
    phantom = PhantomDevice(
        tmp_path, Config(destinations=(PACS,), routes=(route,), store={"least_free_gb": 0})
    )
    phantom.task = phantom.study("Alpha")
    task = phantom.store.task(phantom.task)
    phantom.store.add_task(
        "s1", task.series_uid, "newer", "8" * 64, task.input_sha256, shadow_of=task.task_id
    )
    folder = phantom.store.results_folder("s1")
    folder.mkdir(parents=True)
    note = {"current": 3, "shadow": 2, "pairs": [[1, 1], [2, 1]], "dice": 0.5}
    (folder / BESIDE).write_text(json.dumps(note))
    phantom.store.set_task_state("s1", "done")
    phantom.store.review(phantom.task, [1, 3], "accepted", "anna")
    phantom.store.review(phantom.task, [2], "rejected", "anna")
    yield phantom
    phantom.close()


def test_both_are_compared_with_each_other_and_with_the_verdicts(device):
    trial = trial_of(device.store, "nodules", "newer")
    assert (trial.studies, trial.both, trial.only_current, trial.only_shadow) == (1, 2, 1, 1)
    assert (trial.accepted, trial.rejected) == ((2, 1), (1, 1))
    ((_, model, accepted, rejected),) = device.store.verdicts_by_month()
    assert (model, accepted, rejected) == ("nodules", 2, 1)


@pytest.mark.parametrize(("place", "drifts"), [(0.1, False), (0.9, True), (-1.4, True)])
def test_drift_is_reported_of_the_last_studies(device, place, drifts):
    task = device.store.task(device.task)
    for number in range(LEAST_STUDIES):
        assert drift_of(device.store, "newest") == (number, ())
        device.store.add_task(f"d{number}", task.series_uid, "newest", "9" * 64, f"{number}")
        folder = device.store.results_folder(f"d{number}")
        folder.mkdir(parents=True)
        (folder / FIGURES).write_text(json.dumps({"spacing 0": place, "spacing 1": 0.0, "likeness 0 0": 1.5}))
    studies, (spacing, likeness) = drift_of(device.store, "newest")
    assert studies == LEAST_STUDIES
    assert (spacing.figure, spacing.drifts, spacing.outside) == ("spacing", drifts, float(abs(place) > 1))
    assert not likeness.drifts


def with_both(device):
    """A browser of the device that has both models."""
    client = local_client(device)
    known = device.models["nodules"]
    device.models["newer"] = ServedModel("newer", known.file, known.header)
    return client


def test_one_click_promotes_and_another_takes_it_back(device):
    with with_both(device) as client:
        page = client.get("/models").text
        assert "On trial beside nodules." in page
        csrf = csrf_of(client, "/models")
        pair = {"current": "nodules", "shadow": "newer", "csrf": csrf}
        assert client.post("/models/promote", data=pair).status_code == 303
        assert client.post("/models/promote", data=pair).status_code == 409
        assert device.store.roles()["nodules"].current == "newer"
        back = {"current": "newer", "shadow": "nodules", "csrf": csrf}
        assert client.post("/models/promote", data=back).status_code == 303
        assert device.store.roles()["nodules"].current == "nodules"


def test_results_on_trial_are_neither_listed_nor_judged_nor_sent(device):
    with with_both(device) as client:
        assert "/studies/s1" not in client.get("/").text
        csrf = csrf_of(client)
        judged = client.post("/studies/s1/verdicts", data={"lesion": 1, "verdict": "accepted", "csrf": csrf})
        assert judged.status_code == 409
        assert client.post("/studies/s1/correction", data={"csrf": csrf}).status_code == 409
