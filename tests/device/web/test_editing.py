"""Edits of outlines on the page: they follow the lesion into the corrected results, and can be undone."""

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pydicom
import pytest
from highdicom.seg import segread
from page_clients import csrf_of, local_client, opened
from phantom_device import PhantomDevice
from scipy import ndimage
from structured_reports import read_report

from focalis.device.config import Config
from focalis.device.nudging import cut, grow, redraw, shrink
from focalis.device.web import study, views
from focalis.device.web.preparing import prepare
from focalis.device.web.views import Views
from focalis.dicom import read_segmentation, read_series
from focalis.dicom.structures import read_structures
from focalis.errors import DataError
from focalis.lesions import label_components

PARTS = {1: (slice(3, 7), slice(4, 9), slice(4, 9)), 2: (slice(3, 6), slice(4, 8), slice(11, 14))}


@pytest.fixture(scope="module")
def truth():
    """Two boxes two voxels apart."""
    truth = np.zeros((12, 24, 24), dtype=np.uint8)
    for part in PARTS.values():
        truth[part] = 1
    return truth


@pytest.fixture(scope="module")
def made(tmp_path_factory, truth):
    """The folder of a device whose study is ready to be looked at, and the task's id."""
    folder = tmp_path_factory.mktemp("made")
    phantom = PhantomDevice(folder, Config(store={"least_free_gb": 0}))
    series_uid, _ = phantom.receive("Lindqvist^Maja", seed=1)
    task_id = phantom.finish(series_uid, truth)
    files = [str(each.path) for each in phantom.store.instances(series_uid)]
    (result,) = phantom.store.results(task_id)
    views = phantom.store.folder / "views" / task_id
    state = Views(phantom.store, phantom.config.limits).state(task_id)
    prepare(files, str(result.path), str(views), state=state)
    phantom.close()
    return folder, task_id


@pytest.fixture
def phantom(made, tmp_path):
    """A copy of it: each test has its own."""
    shutil.copytree(made[0] / "store", tmp_path / "store")
    device = PhantomDevice(tmp_path, Config(store={"least_free_gb": 0}))
    yield device
    device.close()


@pytest.fixture
def task_id(made):
    return made[1]


@pytest.fixture
def edit(client, task_id):
    """Edit as a reviewer who sees the newest edition; the answer."""
    opened(client, task_id)
    headers = {"x-csrf-token": csrf_of(client), "accept": "application/json"}

    def edit(lesion, operation, points=(), **form):
        points = " ".join(str(value) for each in points for value in each)
        form = {"lesion": lesion, "operation": operation, "seen": edit.seen, "points": points} | form
        answer = client.post(f"/studies/{task_id}/edits", data=form, headers=headers)
        edit.seen = answer.json().get("edition", edit.seen)
        return answer

    edit.seen, edit.headers = 0, headers
    return edit


def lesion(truth, number):
    mask = np.zeros(truth.shape, dtype=bool)
    mask[PARTS[number]] = True
    return mask


def near(mask):
    """A mask and the 26 neighbours of its voxels."""
    return ndimage.binary_dilation(mask, np.ones((3, 3, 3)))


def marks_of(client, task_id):
    return np.array(client.app.state.site.views.get(task_id).marks())


def verdicts_of(phantom, task_id):
    return {each.lesion: each.verdict for each in phantom.store.reviews(task_id)}


def send(client, phantom, task_id, edit, verdict="accepted"):
    """Judge the second lesion, send the correction, and read the lesions of its three objects."""
    client.post(f"/studies/{task_id}/verdicts", data={"lesion": 2, "verdict": verdict}, headers=edit.headers)
    assert client.post(f"/studies/{task_id}/correction", headers=edit.headers).status_code == 303
    paths = {each.kind: each.path for each in phantom.store.results(task_id)}
    instances = phantom.store.instances(phantom.store.task(task_id).series_uid)
    series = read_series([each.path for each in instances])
    (mask,) = read_segmentation(paths["correction"], series).values()
    (drawn,) = read_structures(paths["correction-rtstruct"], series).values()
    np.testing.assert_array_equal(drawn, mask)
    return mask, paths, read_report(paths["correction-sr"])


def comments(path):
    """Every text of a report."""
    return [each.value for each in pydicom.dcmread(path).iterall() if each.keyword == "TextValue"]


def test_a_grown_lesion_is_accepted_and_sent_as_it_is_now(client, phantom, task_id, edit, truth):
    answer = edit(1, "grow", plane="axial")

    wanted = grow(lesion(truth, 1), 0)
    told = answer.json()
    assert (told["verdict"], told["edited"], told["lesion"]["number"]) == ("accepted", True, 1)
    assert told["lesion"]["voxels"] == wanted.sum()
    assert verdicts_of(phantom, task_id) == {1: "accepted"}
    mask, paths, report = send(client, phantom, task_id, edit, "rejected")
    np.testing.assert_array_equal(mask, wanted)
    (reported,) = report.lesions
    assert reported.volume_mm3 == pytest.approx(wanted.sum() * 2)  # voxels of 2 x 1 x 1 mm
    assert "outline edited by the reviewer" in comments(paths["correction-sr"])
    frames = segread(paths["correction"])
    assert np.count_nonzero(frames.pixel_array) == wanted.sum()
    seg = next(each for each in phantom.store.results(task_id) if each.kind == "seg")
    np.testing.assert_array_equal(segread(seg.path).pixel_array.sum(), np.count_nonzero(truth))
    assert "local grew lesion 1 (axial)" in [each.text for each in phantom.store.events(task_id=task_id)]
    assert "grew lesion 1 (axial)" in [each.did for each in phantom.store.audited()]


def test_all_operations_one_after_the_other_give_what_they_say(client, phantom, task_id, edit, truth):
    outline = [(3.5, 1.5), (3.5, 6.5), (9.5, 6.5), (9.5, 1.5)]
    assert edit(1, "shrink", plane="coronal").status_code == 200
    assert edit(1, "cut", [(0, 5.4), (9, 5.4)], plane="axial").status_code == 200
    assert edit(1, "redraw", outline, plane="sagittal", index=6).status_code == 200

    wanted = shrink(lesion(truth, 1), 1)
    wanted = cut(wanted, 0, np.array([(0, 5.4), (9, 5.4)]))
    wanted = redraw(wanted, 2, 6, np.array(outline))
    mask, _, _ = send(client, phantom, task_id, edit, "rejected")
    np.testing.assert_array_equal(mask, wanted)


def test_the_other_part_can_be_kept(client, task_id, edit, truth):
    line = [(5.5, 0), (5.5, 20)]
    edit(1, "cut", line, plane="axial", keep="smaller")

    wanted = cut(lesion(truth, 1), 0, np.array(line), keep_smaller=True)
    np.testing.assert_array_equal(marks_of(client, task_id) == 1, wanted)


def test_another_lesion_keeps_its_voxels_and_stays_a_component_of_its_own(
    client, phantom, task_id, edit, truth
):
    assert edit(1, "grow").status_code == edit(1, "grow").status_code == edit(1, "grow").status_code == 200

    mask, _, report = send(client, phantom, task_id, edit)
    first = lesion(truth, 1)
    for _ in range(3):
        first = grow(first, 0) & ~near(lesion(truth, 2))
    np.testing.assert_array_equal(mask, first | lesion(truth, 2))
    assert label_components(mask)[1] == 2
    assert [each.volume_mm3 for each in report.lesions] == pytest.approx([first.sum() * 2, 36 * 2])


def test_each_part_of_a_divided_lesion_is_a_lesion_of_the_report(client, phantom, task_id, edit):
    square = ((3.6, 3.6), (3.6, 8.4), (8.4, 8.4), (8.4, 3.6))
    told = edit(1, "redraw", square, index=9).json()["lesion"]
    assert (told["parts"], told["voxels"]) == (2, 100 + 25)  # two slices above the others
    assert edit(1, "redraw", square, index=11).json()["lesion"]["parts"] == 3

    mask, paths, report = send(client, phantom, task_id, edit)

    components, _ = label_components(mask)
    assert sorted(np.bincount(components.ravel())[1:] * 2) == sorted(
        each.volume_mm3 for each in report.lesions
    )
    assert [each.volume_mm3 for each in report.lesions] == [
        200,
        72,
        50,
        50,
    ]  # the largest part keeps its number
    assert comments(paths["correction-sr"]).count("a part of lesion 1, which the reviewer divided") == 2


def test_the_box_of_every_lesion_follows_its_edits(client, task_id, edit):
    def boxes():
        view = client.app.state.site.views.get(task_id)
        found = {each["number"]: each["box_zyx"] for each in view.lesions}
        return found, {
            number: [[edge.start for edge in box], [edge.stop for edge in box]]
            for number, box in enumerate(ndimage.find_objects(np.array(view.marks())), start=1)
        }

    steps = [
        ("grow", {}),
        ("redraw", {"index": 9, "points": ((0, 0), (0, 2), (2, 2))}),
        ("shrink", {}),
        ("undo", {}),
    ]
    for operation, form in steps:
        told, true = boxes()
        assert told == true
        assert edit(1, operation, **form).status_code == 200
    told, true = boxes()
    assert told == true


def test_edits_are_undone_one_by_one_with_the_verdict_that_they_gave(client, phantom, task_id, edit):
    before = marks_of(client, task_id)
    client.post(
        f"/studies/{task_id}/verdicts", data={"lesion": 1, "verdict": "rejected"}, headers=edit.headers
    )
    edit(1, "grow")
    once = marks_of(client, task_id)
    edit(1, "shrink", plane="sagittal")
    assert edit(1, "undo").json()["edited"]
    np.testing.assert_array_equal(marks_of(client, task_id), once)
    told = edit(1, "undo").json()
    assert (told["verdict"], told["edited"]) == ("rejected", False)
    np.testing.assert_array_equal(marks_of(client, task_id), before)
    none = edit(1, "undo")
    assert (none.status_code, none.json()["detail"]) == (409, "Lesion 1 has no edit to undo.")
    assert [each.did for each in phantom.store.audited()][-1] == "undid the last edit of lesion 1 (axial)"


def test_a_rejection_after_an_edit_outlives_its_undoing(client, phantom, task_id, edit):
    edit(1, "grow")
    client.post(
        f"/studies/{task_id}/verdicts", data={"lesion": 1, "verdict": "rejected"}, headers=edit.headers
    )
    edit(1, "undo")
    assert verdicts_of(phantom, task_id) == {1: "rejected"}


def test_an_edit_whose_place_another_lesion_has_taken_is_not_undone(edit):
    edit(1, "cut", [(0, 6.5), (9, 6.5)], plane="axial", keep="larger")  # frees columns 7 and 8
    for _ in range(3):
        edit(2, "grow")

    refused = edit(1, "undo")

    assert refused.status_code == 409
    assert "Another lesion has grown into the place" in refused.json()["detail"]


def test_an_edit_that_another_lesion_would_touch_is_not_undone(edit):
    edit(1, "cut", [(0, 6.5), (9, 6.5)], plane="axial")
    for _ in range(2):
        edit(2, "grow")  # to the column next to those that were cut off

    assert edit(1, "undo").status_code == 409


def test_an_edit_that_is_not_of_the_newest_edition_is_refused(client, phantom, task_id, edit):
    edit(2, "grow")
    edition = edit.seen
    edit(2, "undo")  # the edition rises all the same
    marks = marks_of(client, task_id)
    for form in ({"lesion": 1, "operation": "grow"}, {"lesion": 2, "operation": "shrink"}):
        stale = edit(**form, seen=edition)
        assert stale.status_code == 409
        assert "Somebody has edited a lesion of this study meanwhile" in stale.json()["detail"]
    np.testing.assert_array_equal(marks_of(client, task_id), marks)
    stale = {"seen": edition}
    verdict = {"lesion": 1, "verdict": "accepted"}
    for path, form in (("verdicts", verdict | stale), ("correction", stale)):
        refused = client.post(f"/studies/{task_id}/{path}", data=form, headers=edit.headers)
        assert (refused.status_code, "meanwhile" in refused.json()["detail"]) == (409, True)
    assert verdicts_of(phantom, task_id) == {}


def test_what_leaves_nothing_or_changes_nothing_is_reported_and_not_done(phantom, task_id, edit):
    assert edit(2, "shrink").status_code == 200  # 2 x 1 columns are left
    told = {
        "That would leave nothing of lesion 2; reject it instead.": edit(2, "shrink"),
        "The line does not cross lesion 1.": edit(1, "cut", [(0, 0), (0, 9)]),
        "The outline encloses no voxel that is free; draw a larger one.": edit(
            1, "redraw", [(5.1, 5.1), (5.2, 5.1), (5.2, 5.2)], index=4
        ),
        "The outline of lesion 1 is the same as before.": edit(
            1, "redraw", [(3.5, 3.5), (3.5, 8.5), (8.5, 8.5), (8.5, 3.5)], index=4
        ),
    }
    assert {each.json()["detail"]: each.status_code for each in told.values()} == dict.fromkeys(told, 409)
    assert len(phantom.store.edits(task_id)) == 1


def test_no_other_edit_is_taken(phantom, task_id, edit):
    triangle = [(1, 1), (1, 9), (9, 9)]
    answers = [
        edit(9, "grow"),
        edit(1, "melt"),
        edit(1, "cut", [(1, 1)]),
        edit(1, "cut", [(1, 1), (1, 1)]),
        edit(1, "redraw", triangle[:2]),
        edit(1, "redraw", [*triangle, (3,)]),
        edit(1, "redraw", [("nan", 1), *triangle[1:]]),
        edit(1, "redraw", [(-1e308, 1e308), (1e308, 1e308), (1e308, -1e308)]),
        edit(1, "redraw", triangle * 1000),
        edit(1, "redraw", triangle, index=12),
        edit(1, "grow", plane="oblique"),
    ]
    assert [each.status_code for each in answers] == [404, *[422] * 10]
    assert phantom.store.edits(task_id) == []


def test_a_page_and_an_edit_read_no_outline_of_the_earlier_edits(client, phantom, task_id, edit, monkeypatch):
    edit(1, "grow")
    monkeypatch.setattr(phantom.store, "edits", lambda _task: pytest.fail("all outlines are read"))

    page = client.get(f"/studies/{task_id}").text
    assert (page.count(" data-edited"), '"edited": [1]' in page) == (1, True)
    assert edit(1, "undo").json()["edited"] is False


def test_a_page_without_the_last_edit_does_not_tell_its_edition(client, phantom, task_id, monkeypatch):
    """Somebody edits between the reading of the view and the end of the page."""
    opened(client, task_id)
    views = client.app.state.site.views
    get = views.get

    def edited_meanwhile(task):
        view = get(task)
        phantom.store.edit(task_id, 1, "grow", "[]", "other")
        return view

    monkeypatch.setattr(views, "get", edited_meanwhile)
    assert '"edition": 0' in client.get(f"/studies/{task_id}").text


def test_a_correction_that_waited_for_another_one_is_refused_after_an_edit(
    client, task_id, edit, monkeypatch
):
    for number in PARTS:
        form = {"lesion": number, "verdict": "accepted"}
        client.post(f"/studies/{task_id}/verdicts", data=form, headers=edit.headers)
    begun, edited = threading.Event(), threading.Event()

    def slow(*_arguments):
        begun.set()
        assert edited.wait(10)
        return []

    monkeypatch.setattr(study, "run_job", slow)

    def send():
        return client.post(f"/studies/{task_id}/correction", data={"seen": 0}, headers=edit.headers)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(send)
        assert begun.wait(10)
        second = pool.submit(send)
        time.sleep(0.3)  # it waits for the first one
        assert edit(1, "grow").status_code == 200
        edited.set()
        assert first.result().status_code == 303
        assert second.result().status_code == 409


def test_an_edit_survives_a_kill_between_store_and_view(client, phantom, task_id, edit, monkeypatch, truth):
    """The store commits first; a view that lacks an edit is made again."""
    from focalis.device.web.views import View

    def killed(*_arguments, **_options):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(View, "put", killed)
        with pytest.raises(RuntimeError, match="killed"):
            edit(1, "grow")
    with local_client(phantom) as again:
        assert again.get(f"/studies/{task_id}/slices/axial/1.png").status_code == 409
        page = opened(again, task_id)
        assert page.status_code == 200
        wanted = np.where(grow(lesion(truth, 1), 0), 1, np.where(lesion(truth, 2), 2, 0))
        np.testing.assert_array_equal(marks_of(again, task_id), wanted)
    assert verdicts_of(phantom, task_id) == {1: "accepted"}
    mask, _, _ = send(client, phantom, task_id, edit, "rejected")
    np.testing.assert_array_equal(mask, grow(lesion(truth, 1), 0))


@pytest.mark.parametrize(("where", "name", "kept"), [("store", "edit", []), ("view", "write_text", ["grow"])])
def test_a_full_disk_keeps_an_edit_whole_or_not_at_all(
    client, phantom, task_id, edit, monkeypatch, truth, where, name, kept
):
    def full(*_, **__):
        raise DataError("the disk is full; free space")

    with monkeypatch.context() as patch:
        patch.setattr(phantom.store if where == "store" else views, name, full)
        answer = edit(1, "grow")
    assert (answer.status_code, answer.json()["detail"]) == (500, "the disk is full; free space")
    assert [each.operation for each in phantom.store.edits(task_id)] == kept
    opened(client, task_id)

    wanted = grow(lesion(truth, 1), 0) if kept else lesion(truth, 1)
    np.testing.assert_array_equal(marks_of(client, task_id) == 1, wanted)


def test_a_view_that_is_made_again_shows_every_edit_as_before(client, task_id, edit):
    edit(1, "cut", [(0, 6.5), (9, 6.5)], plane="axial")  # frees a place
    edit(2, "grow")
    edit(2, "grow")  # which the other lesion takes
    edit(2, "undo")
    edit(1, "grow", plane="coronal")
    view = client.app.state.site.views.get(task_id)
    marks, table = marks_of(client, task_id), view.lesions
    shutil.rmtree(view.folder)
    opened(client, task_id)

    np.testing.assert_array_equal(marks_of(client, task_id), marks)
    again = client.app.state.site.views.get(task_id).lesions
    for before, after in zip(table, again, strict=True):
        assert before["voxels"] == after["voxels"]
        assert before["longest_mm"] == pytest.approx(after["longest_mm"])
