"""A click on a slice: the lesion there joins the findings, is judged like them, and is sent."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pydicom
import pytest
from page_clients import csrf_of, local_client, opened
from phantom_device import header
from scipy import ndimage
from structured_reports import read_report

from focalis.device.config import Route
from focalis.device.models import ServedModel
from focalis.device.study_lesions import lesion_at
from focalis.device.web import pointing
from focalis.dicom import read_segmentation, read_series
from focalis.lesions import label_components


@pytest.fixture
def guided(phantom):
    """A device with a guided model, and a study whose lesions a click finds."""
    phantom.guided = True
    series_uid, truth = phantom.receive("Lindqvist^Maja", seed=1)
    components, _ = label_components(truth > 0)

    def pointed(at):
        number = components[at]
        voxels = np.argwhere((components == number) & (number > 0))
        said = "shows a lesion" if number else "shows no lesion to the model"
        return {"outcome": "done", "said": said, "label": "lesion", "voxels_zyx": voxels.tolist()}

    phantom.pointed, phantom.components = pointed, components
    phantom.series_uid, phantom.truth = series_uid, truth
    return phantom


@pytest.fixture
def guided_client(guided):
    with local_client(guided) as client:
        yield client


def click(client, task_id, at):
    z, y, x = (int(value) for value in at)
    return client.post(
        f"/studies/{task_id}/points",
        data={"z": z, "y": y, "x": x},
        headers={"x-csrf-token": csrf_of(client), "accept": "application/json"},
    )


def middle(components, number):
    return np.argwhere(components == number)[0]


def test_the_images_of_a_study_that_waits_for_points_are_shown(guided_client, guided):
    task_id = guided.hold(guided.series_uid)
    page = opened(guided_client, task_id).text
    assert "Click on each lesion in a slice" in page
    assert "No lesions marked" in page
    assert "No lesions found" not in page  # nobody has searched
    assert "A click segments the lesion" in page
    assert "Segment all the same" not in page


def test_a_study_that_was_segmented_after_it_had_been_opened_shows_its_lesions(guided_client, guided):
    task_id = guided.hold(guided.series_uid)
    opened(guided_client, task_id)
    guided.finish(guided.series_uid, guided.truth, held=task_id)
    headers = {"x-csrf-token": csrf_of(guided_client)}
    assert guided_client.post(f"/studies/{task_id}/correction", headers=headers).status_code == 409
    page = opened(guided_client, task_id).text
    assert f"{guided.components.max()} lesions found" in page
    assert page.count("data-lesion=") == guided.components.max()


def test_a_lesion_that_is_pointed_at_is_accepted_and_sent_like_any_other(guided_client, guided):
    task_id = guided.hold(guided.series_uid)
    opened(guided_client, task_id)
    for number, lesion in enumerate((2, 1), start=1):
        told = click(guided_client, task_id, middle(guided.components, lesion))
        assert (told.status_code, told.json()["lesion"]) == (200, number)
    page = guided_client.get(f"/studies/{task_id}").text
    assert "2 lesions marked" in page
    csrf = csrf_of(guided_client)
    for number, verdict in ((1, "accepted"), (2, "rejected")):
        guided_client.post(
            f"/studies/{task_id}/verdicts",
            data={"lesion": number, "verdict": verdict},
            headers={"x-csrf-token": csrf},
        )
    answer = guided_client.post(f"/studies/{task_id}/correction", headers={"x-csrf-token": csrf})
    assert answer.status_code == 303
    correction, _, report = guided.store.results(task_id)
    series = read_series([each.path for each in guided.store.instances(guided.series_uid)])
    (mask,) = read_segmentation(correction.path, series).values()
    np.testing.assert_array_equal(mask, guided.components == 2)
    assert [each.number for each in read_report(report.path).lesions] == [1]
    task = guided.store.task(task_id)
    assert (task.state, task.reason) == ("done", "1 lesion, pointed at")


def test_it_stays_when_the_view_is_made_again_and_follows_the_models_own(guided_client, guided):
    truth = np.asarray(guided.components == 1, dtype=np.uint8)
    task_id = guided.finish(guided.series_uid, truth)
    opened(guided_client, task_id)
    assert click(guided_client, task_id, middle(guided.components, 2)).json()["lesion"] == 2
    views = guided_client.app.state.site.views
    before = views.get(task_id)
    table, marks = before.lesions, np.array(before.marks())
    shutil.rmtree(before.folder)
    opened(guided_client, task_id)
    again = views.get(task_id)
    np.testing.assert_array_equal(again.marks(), marks)
    assert [each["number"] for each in again.lesions] == [1, 2]
    assert again.lesions[1]["voxels"] == table[1]["voxels"] == np.count_nonzero(guided.components == 2)
    assert again.lesions[1]["volume_mm3"] == pytest.approx(table[1]["volume_mm3"])


@pytest.mark.parametrize("first", ["the model's", "pointed at"])
def test_what_was_cut_off_a_lesion_can_be_pointed_at(guided_client, guided, first):
    """The view that is made again, and the corrected results, have the voxels that the page showed."""
    if first == "pointed at":
        task_id = guided.hold(guided.series_uid)
        opened(guided_client, task_id)
        click(guided_client, task_id, middle(guided.components, 1))
    else:
        task_id = guided.finish(guided.series_uid, np.asarray(guided.components == 1, dtype=np.uint8))
        opened(guided_client, task_id)
    whole = np.argwhere(guided.components == 1)
    column = whole[:, 2].mean()
    form = {"lesion": 1, "operation": "cut", "seen": 0, "points": f"0 {column} 9 {column}"}
    guided_client.post(
        f"/studies/{task_id}/edits", data=form, headers={"x-csrf-token": csrf_of(guided_client)}
    )
    views = guided_client.app.state.site.views
    left = np.array(views.get(task_id).marks()) == 1
    off = whole[~left[tuple(whole.T)]]
    apart = off[~ndimage.binary_dilation(left, np.ones((3, 3, 3)))[tuple(off.T)]]
    answer = {"outcome": "done", "said": "", "label": "lesion", "voxels_zyx": off.tolist()}
    guided.pointed = lambda _at: answer
    assert click(guided_client, task_id, off[0]).json()["lesion"] == 2
    marks = np.array(views.get(task_id).marks())

    shutil.rmtree(views.get(task_id).folder)
    opened(guided_client, task_id)

    np.testing.assert_array_equal(views.get(task_id).marks(), marks)
    sizes = {each["number"]: each["voxels"] for each in views.get(task_id).lesions}
    assert sizes == {1: len(whole) - len(off), 2: len(apart)}
    assert label_components(marks > 0)[1] == 2


def test_a_click_on_nothing_and_one_on_a_lesion_that_is_there_say_so(guided_client, guided):
    task_id = guided.hold(guided.series_uid)
    opened(guided_client, task_id)
    nothing = click(guided_client, task_id, np.argwhere(guided.components == 0)[0])
    assert (nothing.status_code, nothing.json()["detail"]) == (409, "The point shows no lesion to the model.")
    click(guided_client, task_id, middle(guided.components, 1))
    again = click(guided_client, task_id, middle(guided.components, 1))
    assert (again.status_code, again.json()["detail"]) == (409, "Lesion 1 is there already.")
    assert click(guided_client, task_id, (99, 0, 0)).status_code == 422
    guided.pointed = lambda _at: {"outcome": "failed", "reason": "no memory"}
    failed = click(guided_client, task_id, middle(guided.components, 2))
    assert (failed.status_code, "no memory" in failed.json()["detail"]) == (409, True)


def test_a_lesion_beside_one_that_reaches_into_it_is_added_without_what_they_share(guided_client, guided):
    task_id = guided.hold(guided.series_uid)
    opened(guided_client, task_id)
    click(guided_client, task_id, middle(guided.components, 1))
    own = np.argwhere(guided.components == 2)
    shared = middle(guided.components, 1)
    guided.pointed = lambda _at: {
        "outcome": "done",
        "said": "shows a lesion",
        "label": "lesion",
        "voxels_zyx": [*own.tolist(), shared.tolist()],
    }
    assert click(guided_client, task_id, own[0]).json()["lesion"] == 2
    marks = guided_client.app.state.site.views.get(task_id).marks()
    np.testing.assert_array_equal(marks == 2, guided.components == 2)
    assert marks[tuple(shared)] == 1


def test_nothing_is_edited_while_a_new_lesion_is_measured_and_kept(guided_client, guided, monkeypatch):
    task_id = guided.hold(guided.series_uid)
    opened(guided_client, task_id)
    changing = guided_client.app.state.site.views.changing
    taken = []

    def measured(*arguments):
        other = threading.Thread(target=lambda: taken.append(changing.acquire(timeout=0.05)))
        other.start()
        other.join()
        return lesion_at(*arguments)

    monkeypatch.setattr(pointing, "lesion_at", measured)
    assert click(guided_client, task_id, middle(guided.components, 1)).status_code == 200
    assert taken == [False]


@pytest.mark.parametrize(("state", "action"), [("held", "release"), ("failed", "retry")])
def test_a_study_that_was_pointed_at_is_not_segmented_again(guided_client, guided, state, action):
    task_id = guided.hold(guided.series_uid)
    guided.store.set_outside(task_id, "lies outside of what the model was trained on: it is too small")
    opened(guided_client, task_id)
    click(guided_client, task_id, middle(guided.components, 1))
    guided.store.set_task_state(task_id, state, "the series lies outside of it")

    answer = guided_client.post(
        f"/studies/{task_id}/{action}", headers={"x-csrf-token": csrf_of(guided_client)}
    )

    assert (answer.status_code, "pointed at already" in answer.text) == (409, True)
    assert guided.store.task(task_id).state == state


def test_a_study_that_is_about_to_be_segmented_takes_no_points(guided_client, guided):
    task_id = guided.hold(guided.series_uid)
    opened(guided_client, task_id)
    guided.store.set_task_state(task_id, "waiting")
    assert click(guided_client, task_id, middle(guided.components, 1)).status_code == 409


def test_nothing_is_sent_of_a_study_that_nobody_pointed_at(guided_client, guided):
    task_id = guided.hold(guided.series_uid)
    opened(guided_client, task_id)
    answer = guided_client.post(
        f"/studies/{task_id}/correction", headers={"x-csrf-token": csrf_of(guided_client)}
    )
    assert answer.status_code == 409
    assert "pointed at" in answer.text
    assert guided.store.results(task_id) == []


def test_a_click_adds_what_a_detector_missed_by_the_guided_model_of_its_route(guided):
    route = Route(model="nodules", modality="MR", points="clicks")
    guided.guided, guided.config = False, guided.config.model_copy(update={"routes": (route,)})
    pointed = guided.pointed
    guided.pointed = lambda at: pointed(at) | {"label": "nodule", "model": "clicks 1234"}
    task_id = guided.finish(guided.series_uid, np.asarray(guided.components == 1, dtype=np.uint8))
    with local_client(guided) as client:
        guided.models["clicks"] = ServedModel("clicks", Path("clicks.safetensors"), header(guided=True))
        assert "A click segments the lesion" in opened(client, task_id).text
        assert click(client, task_id, middle(guided.components, 2)).json()["lesion"] == 2
        csrf = csrf_of(client)
        form = {"lesion": [1, 2], "verdict": "accepted"}
        client.post(f"/studies/{task_id}/verdicts", data=form, headers={"x-csrf-token": csrf})
        client.post(f"/studies/{task_id}/correction", headers={"x-csrf-token": csrf})
    paths = {each.kind: each.path for each in guided.store.results(task_id)}
    series = read_series([each.path for each in guided.store.instances(guided.series_uid)])
    (mask,) = read_segmentation(
        paths["correction"], series
    ).values()  # the click's label is the detector's only one
    np.testing.assert_array_equal(mask, np.isin(guided.components, (1, 2)))
    assert len(read_report(paths["correction-sr"]).lesions) == 2
    texts = [
        each.value
        for each in pydicom.dcmread(paths["correction-sr"]).iterall()
        if each.keyword == "TextValue"
    ]
    assert texts.count("segmented by clicks 1234 where the reviewer pointed") == 1


def test_a_detectors_study_without_results_takes_no_points(guided):
    route = Route(model="nodules", modality="MR", points="clicks")
    guided.guided, guided.config = False, guided.config.model_copy(update={"routes": (route,)})
    task_id = guided.hold(guided.series_uid)
    with local_client(guided) as client:
        guided.models["clicks"] = ServedModel("clicks", Path("clicks.safetensors"), header(guided=True))
        assert click(client, task_id, (1, 1, 1)).status_code == 409


def test_a_detectors_study_takes_no_points(client, phantom):
    task_id = phantom.study("Lindqvist^Maja", seed=1)
    assert "A click segments" not in opened(client, task_id).text
    assert click(client, task_id, (1, 1, 1)).status_code == 409
