"""Work list, models, system, uploads and metrics."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from device_work import pacs
from dicomweb_client.api import DICOMwebClient
from page_clients import csrf_of, local_client, opened
from phantom_device import PhantomDevice

from focalis.dataset import open_dataset
from focalis.device import work
from focalis.device.config import Config, Destination
from focalis.device.web import worklist
from focalis.device.web.models_page import curve_of
from focalis.device.web.site import readable_size
from focalis.lesions import OperatingPoint
from focalis.models import FOLDER


def test_the_work_list_shows_every_state(client, phantom):
    phantom.receive("Under^Way", seed=1, complete=False)
    task_id = phantom.study("Over^Done", seed=2)
    phantom.store.set_task_state(task_id, "done", "3 lesions")
    uid, _ = phantom.receive("No^Route", seed=3)
    phantom.store.set_series_state(uid, "unrouted")
    waiting, _ = phantom.receive("In^Work", seed=4)
    phantom.store.add_task("w", waiting, "nodules", "7" * 64, "8" * 64)
    phantom.store.set_task_state("w", "segmenting")

    text = client.get("/").text

    for words in (
        "Under, Way",
        "Over, Done",
        "3 lesions",
        "No, Route",
        "no model takes this series",
        "In, Work",
    ):
        assert words in text
    tiles = [part.split("</b><span>")[0] for part in text.split('"><b>')[1:5]]
    assert tiles == ["1", "1", "1", "1"]  # receiving, in work, done, for a person


def test_what_needs_a_person_stays_in_sight(client, phantom, monkeypatch):
    monkeypatch.setattr(worklist, "SHOWN", 1)
    failed = phantom.study("Long^Ago", seed=1)
    phantom.store.set_task_state(failed, "failed", "out of memory")
    phantom.study("Since^Then", seed=2)
    phantom.study("Just^Now", seed=3)

    text = client.get("/").text

    assert "Long, Ago" in text
    assert "Just, Now" in text
    assert "Since, Then" not in text
    assert "what failed or was refused" in text


def test_the_search_finds_what_is_not_among_the_rows_shown(client, phantom, monkeypatch):
    monkeypatch.setattr(worklist, "SHOWN", 1)
    for seed, name in enumerate(("Long^Ago", "Since^Then", "Just^Now"), start=1):
        phantom.study(name, seed=seed)
    csrf = csrf_of(client)

    def found(words):
        text = client.post("/work/find", data={"find": words, "csrf": csrf}).text
        return [name for name in ("Long, Ago", "Since, Then", "Just, Now") if name in text]

    assert found("ago long") == ["Long, Ago"]
    assert found("P002 mr") == ["Since, Then"]
    assert found("failed") == []
    assert client.post("/work/find", data={"find": "ago"}).status_code == 403


def test_an_empty_work_list_says_what_to_do(client):
    assert "Nothing has been received yet" in client.get("/").text


def test_the_rows_come_again_only_when_they_changed(client, phantom):
    task_id = phantom.study("A^B", seed=2)
    tag = client.get("/work/rows").headers["etag"]

    assert client.get("/work/rows", headers={"if-none-match": tag}).status_code == 304
    phantom.store.set_task_state(task_id, "failed", "x")
    changed = client.get("/work/rows", headers={"if-none-match": tag})

    assert (changed.status_code, changed.headers["etag"] != tag) == (200, True)


def test_the_model_page_tells_training_and_operating_point(phantom, tmp_path):
    statistics = [
        {"metric": "dice", "mean": 0.71, "median": 0.7, "low": 0.62, "high": 0.78, "n": 9, "undefined": 0}
    ]
    rate = {"value": 0.875, "low": 0.5, "high": 1.0}
    labels = [
        {
            "label": 1,
            "name": "lesion",
            "cases": 9,
            "statistics": statistics,
            "lesions": {"sensitivity": rate, "precision": rate},
        }
    ]
    (tmp_path / "evaluation.json").write_text(json.dumps({"summary": {"labels": labels}}), encoding="utf-8")
    phantom_device = phantom.device(tmp_path / "nodules.safetensors")
    phantom.device = lambda: phantom_device

    text = local_client(phantom).get("/models").text

    for words in (
        "smaller than <b>12.5 mm³</b> or whose highest probability stays below <b>0.6</b> are dropped",
        "phantoms",
        "2,146,826",
        "0.45",
        "6 cases of the inner split",
        "24 train",
        "0.71",
        "0.62 to 0.78",
        "0.88",
        phantom_device.models["nodules"].header.identity.weights_sha256,
    ):
        assert words in text


def test_figures_of_another_model_are_not_shown_as_this_ones(phantom, tmp_path):
    row = {"metric": "dice", "mean": 0.71, "low": 0.62, "high": 0.78, "n": 9}
    lesions = {"sensitivity": {"value": None}, "precision": {"value": None}}
    label = {"label": 1, "name": "lesion", "cases": 9, "statistics": [row], "lesions": lesions}
    (tmp_path / "evaluation.json").write_text(json.dumps({"summary": {"labels": [label]}}), encoding="utf-8")
    phantom_device = phantom.device(tmp_path / "nodules.safetensors")
    phantom.device = lambda: phantom_device
    (tmp_path / "nodules.safetensors").touch()
    assert "0.62 to 0.78" in local_client(phantom).get("/models").text

    (tmp_path / "plaques.safetensors").touch()

    assert "0.62 to 0.78" not in local_client(phantom).get("/models").text


@pytest.mark.parametrize("of_the_package", [True, False])
def test_the_model_page_names_licence_and_card_of_a_model_of_the_package(phantom, tmp_path, of_the_package):
    device = phantom.device((FOLDER if of_the_package else tmp_path) / "lidc-nodule.safetensors")
    phantom.device = lambda: device
    text = local_client(phantom).get("/models").text
    assert ("LIDC-IDRI, CC BY 3.0" in text, "lidc-nodule.md" in text) == (of_the_package, of_the_package)


def test_without_figures_beside_it_the_model_page_says_so(client):
    assert "no figures are shown" in client.get("/models").text


def test_the_curve_runs_through_its_points():
    curve = curve_of(OperatingPoint(0.5, "", ((0.0, 0.2), (0.5, 0.6), (1.0, 0.4))))

    points = [tuple(map(float, pair.split(","))) for pair in curve.points.split()]
    assert points[1] == curve.marker
    assert points[0][0] < points[1][0] < points[2][0]
    assert points[1][1] < points[2][1] < points[0][1]  # higher scores lie higher
    assert curve_of(OperatingPoint(0.5)) is None


def test_a_dead_letter_is_shown_and_sent_again(client, phantom):
    task_id = phantom.study("A^B", seed=2)
    (delivery,) = phantom.store.deliveries(task_id)
    phantom.store.set_delivery(task_id, delivery.sop_uid, "pacs", "dead", attempts=9, last_error="no <route>")
    form = {"task_id": task_id, "sop_uid": delivery.sop_uid, "destination": "pacs"}
    csrf = {"x-csrf-token": csrf_of(client)}

    text = client.get("/system").text
    assert "no &lt;route&gt;" in text
    assert "Send again" in text
    assert client.post("/system/resend", data=form | {"destination": "x"}, headers=csrf).status_code == 404
    assert client.post("/system/resend", data=form, headers=csrf).status_code == 303

    assert phantom.calls == [("resend", task_id, delivery.sop_uid, "pacs")]


def test_a_waiting_result_says_why_and_is_sent_now(client, phantom):
    task_id = phantom.study("A^B", seed=1)
    (delivery,) = phantom.store.deliveries(task_id)
    place = (task_id, delivery.sop_uid, "pacs")
    later = "2031-02-03T04:05:06.000+00:00"
    phantom.store.set_delivery(*place, "waiting", attempts=3, last_error="is not <reached>", next_at=later)

    for text in (client.get("/system").text, opened(client, task_id).text):
        assert "is not &lt;reached&gt;" in text
        assert "2031-02-03 04:05 UTC" in text
    csrf = {"x-csrf-token": csrf_of(client)}
    form = {"task_id": task_id, "sop_uid": delivery.sop_uid, "destination": "pacs"}
    assert client.post("/system/resend", data=form, headers=csrf).status_code == 303
    assert phantom.calls == [("resend", *place)]

    phantom.store.set_delivery(*place, "sent", attempts=4)
    assert client.post("/system/resend", data=form, headers=csrf).status_code == 404


@pytest.mark.parametrize("listens", [True, False])
def test_a_destination_is_tested_by_a_click(tmp_path, listens):
    with pacs() as (port, _):
        destination = Destination(name="archive-1", ae_title="PACS", host="127.0.0.1", port=port)
        if listens:
            assert "it answers" in page_after_test(tmp_path, destination)
    if not listens:
        assert "is not reached" in page_after_test(tmp_path, destination)


def page_after_test(folder, destination):
    phantom = PhantomDevice(folder, Config(destinations=(destination,)))
    client = local_client(phantom)
    csrf = {"x-csrf-token": csrf_of(client, "/system")}
    assert client.post("/system/destinations/other/test", headers=csrf).status_code == 404
    assert client.post("/system/destinations/archive-1/test", headers=csrf).status_code == 303
    text = client.get("/system").text
    phantom.close()
    return text


def test_the_system_page_shows_log_and_destinations(client, phantom):
    phantom.store.event("error", "something & else")

    text = client.get("/system").text

    for words in ("something &amp; else", "PACS", "10.0.0.2:104", "FOCALIS"):
        assert words in text


def test_the_log_is_filtered_by_level_and_words(client, phantom):
    phantom.store.event("error", "the disk is 100% full")
    phantom.store.event("info", "the disk has room")

    assert "has room" not in client.get("/system?level=error").text
    found = client.get("/system", params={"find": "DISK is 100%"}).text
    assert "is 100% full" in found
    assert "has room" not in found
    assert "No line fits." in client.get("/system?find=nothing+like+it").text


def test_secrets_of_destinations_are_not_shown(phantom):
    hidden = Destination(name="web", kind="stow", url="https://pacs.example/dicom-web", token="s3cret")
    phantom.config = phantom.config.model_copy(update={"destinations": (hidden,)})

    assert "s3cret" not in local_client(phantom).get("/system").text


def test_who_is_told_is_shown_without_secrets_and_tested(phantom):
    told = {
        "name": "ris",
        "url": "https://ris.example/hook/t0p-secret",
        "secret": "another secret of the hook",
    }
    phantom.config = Config.model_validate({"notify": [told], "store": {"least_free_gb": 0}})
    client = local_client(phantom)
    csrf = {"x-csrf-token": csrf_of(client)}
    assert client.post("/system/notices/other/test", headers=csrf).status_code == 404
    assert client.post("/system/notices/ris/test", headers=csrf).status_code == 303
    (notice,) = phantom.store.notices("waiting")
    phantom.store.set_notice(notice.number, "waiting", 1, "is not reached")

    text = client.get("/system").text

    assert (notice.event, phantom.calls[-1][0]) == ("test", "deliver")
    assert "ris.example" in text
    assert "is not reached" in text
    assert "t0p-secret" not in text
    assert "another secret" not in text


def test_reviewed_studies_become_a_data_set(client, phantom):
    kept = {}
    for seed in (1, 2):
        task_id = phantom.study(f"Name{seed}^X", seed=seed, PatientID="the same")
        opened(client, task_id)
        csrf = {"x-csrf-token": csrf_of(client)}
        for number in (1, 2, 3):
            verdict = "rejected" if number == seed else "accepted"
            client.post(
                f"/studies/{task_id}/verdicts", data={"lesion": number, "verdict": verdict}, headers=csrf
            )
        client.post(f"/studies/{task_id}/correction", headers=csrf)
        kept[task_id] = seed
    phantom.study("Not^Reviewed", seed=3)

    answer = client.post("/system/export", headers=csrf)

    assert answer.status_code == 303
    (folder,) = (phantom.store.folder / "exports").iterdir()
    data = open_dataset(folder)
    assert len(data.cases) == 2
    assert dict(data.labels) == {1: "lesion"}
    assert len({case.patient for case in data.cases}) == 1
    content = "".join(path.read_text() for path in folder.glob("*.*")) + str(list(folder.rglob("*")))
    assert "Name1" not in content
    assert "the same" not in content
    for case in data.cases:
        (image,), label = case.read_images(), case.read_label()
        assert image.grid.differences(label.grid) == []
        assert set(np.unique(label.array)) == {0, 1}
    assert folder.name in client.get("/system").text


def test_nothing_reviewed_is_nothing_to_export(client, phantom):
    answer = client.post("/system/export", headers={"x-csrf-token": csrf_of(client), "accept": "text/html"})

    assert answer.status_code == 500
    assert "no study has been reviewed" in answer.text
    assert not (phantom.store.folder / "exports").exists() or not list(
        (phantom.store.folder / "exports").iterdir()
    )


def test_metrics_are_prometheus_text_with_every_state(client, phantom):
    phantom.study("A^B", seed=2)
    lines = client.get("/metrics").text.splitlines()
    samples = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))

    assert samples['focalis_tasks{state="done"}'] == "1"
    assert samples['focalis_tasks{state="failed"}'] == "0"
    assert samples['focalis_deliveries{state="waiting"}'] == "1"
    assert samples["focalis_instances"] == "12"
    assert float(samples["focalis_disk_free_bytes"]) > 0
    families = {re.sub(r"(_seconds)_(bucket|sum|count)$", r"\1", name.partition("{")[0]) for name in samples}
    assert {line.split()[2] for line in lines if line.startswith("# TYPE")} == families


def test_metrics_count_what_came_ended_and_how_long_it_took(client, phantom, monkeypatch):
    clock = iter(f"2026-01-05T10:00:{second:02d}.000+00:00" for second in range(4, 60, 4))
    task_id = phantom.study("A^B", seed=2)
    monkeypatch.setattr(work, "now", lambda: next(clock))
    for state in ("waiting", "segmenting", "segmenting", "done"):
        phantom.store.set_task_state(task_id, state)
    with phantom.intake.sender("test") as sender:
        sender.take([b"no DICOM"])
    phantom.intake.refuse("CT1", "wrong AE title")

    text = client.get("/metrics").text

    for sample in (
        'focalis_received_total{outcome="foreign"} 1',
        'focalis_received_total{outcome="kept"} 0',
        'focalis_tasks_ended_total{state="done"} 2',
        'focalis_stage_seconds_bucket{stage="segmenting",le="3"} 0',
        'focalis_stage_seconds_bucket{stage="segmenting",le="10"} 1',
        'focalis_stage_seconds_bucket{stage="segmenting",le="+Inf"} 1',
        'focalis_stage_seconds_sum{stage="segmenting"} 4.000',
        "focalis_refusals_total 2",
    ):
        assert sample in text.splitlines()


def test_the_dashboard_shows_metrics_that_there_are(client):
    dashboard = json.loads((Path(__file__).parents[3] / "docs" / "grafana.json").read_text())
    families = {line.split()[2] for line in client.get("/metrics").text.splitlines() if "# TYPE" in line}
    asked = {
        name.removesuffix("_bucket")
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"focalis_[a-z_]+", target["expr"])
    }

    assert asked <= families
    assert len(dashboard["panels"]) == len({panel["id"] for panel in dashboard["panels"]}) > 5


def test_readiness_names_the_parts_that_do_not_work(client, phantom):
    assert client.get("/readyz").json() == {"status": "ok", "problems": []}
    phantom.unready.append("DICOM node")

    answer = client.get("/readyz")

    assert (answer.status_code, answer.json()["problems"]) == (503, ["DICOM node"])
    assert client.head("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200


def test_uploaded_files_are_taken_in(client, phantom, tmp_path, write_series, stored, grid):
    paths = write_series(tmp_path / "own", stored, grid)
    files = [("files", (path.name, path.read_bytes())) for path in paths[:2]]
    csrf = {"x-csrf-token": csrf_of(client), "accept": "application/json"}

    first = client.post(
        "/upload", files=[*files, ("files", ("x.dcm", b"no DICOM at all"))], headers=csrf
    ).json()
    second = client.post("/upload", files=files, headers=csrf).json()

    assert (first["kept"], first["files"]) == (2, 3)
    assert (first["refused"], first["reasons"]) == (1, {"is not a DICOM file": 1})
    assert second["known"] == 2
    assert phantom.store.counts()["instances"] == 2


def test_without_javascript_an_upload_says_what_became_of_it(client, tmp_path, write_series, stored, grid):
    (path, *_) = write_series(tmp_path / "own", stored, grid)
    files = [("files", ("a.dcm", path.read_bytes())), ("files", ("x.txt", b"no <DICOM> at all"))]

    page = client.post("/upload", files=files, data={"csrf": csrf_of(client)})

    assert "2 files: 1 kept, 0 known already, 0 in quarantine, 1 refused." in page.text
    assert "1 &times; is not a DICOM file" in page.text


def test_dicomweb_stores_what_a_dicomweb_client_sends(phantom, tmp_path, write_series, stored, grid):
    import pydicom

    paths = write_series(tmp_path / "own", stored, grid)
    client = local_client(phantom)
    sent = {}

    def send(_url, data, headers):
        sent["answer"] = client.post("/dicom-web/studies", content=data, headers=headers)
        return sent["answer"]

    web = DICOMwebClient("http://127.0.0.1:8080/dicom-web")
    web._http_post = send
    web.store_instances([pydicom.dcmread(path) for path in paths])

    assert sent["answer"].status_code == 200
    assert sent["answer"].headers["content-type"] == "application/dicom+json"
    assert len(sent["answer"].json()["00081199"]["Value"]) == len(paths)
    assert phantom.store.counts()["instances"] == len(paths)


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (123_456_789, "123 MB"), (5e12, "5.0 TB")],
)
def test_sizes_are_readable(count, shown):
    assert readable_size(count) == shown


def test_the_page_never_loads_torch():
    import subprocess
    import sys

    code = "import focalis.device.web.app, sys; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/nothing", 404, "Not here"),
        ("POST", "/system/export", 403, "out of date"),
        ("PUT", "/", 405, "Work list"),
    ],
)
def test_a_person_gets_a_page_for_what_went_wrong(client, method, path, status, words):
    answer = client.request(method, path, headers={"accept": "text/html"})

    assert answer.status_code == status
    assert words in answer.text


def test_an_incomplete_series_is_listed_and_released_by_a_button(client, phantom):
    uid, _ = phantom.receive("Half^Sent", seed=3)
    phantom.store.set_series_state(uid, "complete")
    phantom.store.hold(uid, "59 images announced, 40 came")
    text = client.get("/").text
    assert "59 images announced, 40 came" in text
    assert "1</b><span>need a person" in text

    answer = client.post(
        f"/series/{uid}/release", data={"csrf": csrf_of(client)}, headers={"accept": "application/json"}
    )

    assert answer.json() == {"series": uid, "state": "complete", "partial": True}
    assert phantom.store.released_series() == [uid]
    again = client.post(f"/series/{uid}/release", data={"csrf": csrf_of(client)})
    assert again.status_code == 409


def test_an_out_of_scope_result_needs_a_person_and_says_why(client, phantom):
    task_id = phantom.study("Far^Away", seed=2)
    phantom.store.set_outside(task_id, "lies outside of what the model was trained on: it is too large")
    phantom.store.set_task_state(task_id, "out of scope", "nothing found")

    assert "1</b><span>need a person" in client.get("/").text
    assert "it is too large" in client.get(f"/studies/{task_id}").text


def test_a_study_held_for_its_scope_is_released(client, phantom):
    uid, _ = phantom.receive("Other^Kind", seed=4)
    phantom.store.add_task("t", uid, "nodules", "7" * 64, "8" * 64)
    phantom.store.set_outside("t", "lies outside of it")
    phantom.store.set_task_state("t", "held", "the series lies outside of it")
    assert "Segment all the same" in client.get("/studies/t").text

    client.post("/studies/t/release", data={"csrf": csrf_of(client)})

    assert (phantom.store.task("t").state, phantom.store.task("t").released != "") == ("waiting", True)


def test_the_system_page_tells_what_senders_were_refused(client, phantom):
    phantom.store.refuse("C-STORE CT9 10.0.0.9", "presentation context refused: <PDF>")
    text = client.get("/system").text
    assert "C-STORE CT9 10.0.0.9" in text
    assert "presentation context refused: &lt;PDF&gt;" in text
