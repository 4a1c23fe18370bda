"""Models that are trained on from the page: one at a time, across stops, judged before they are tried."""

import copy
import csv
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import retraining_device
import torch
from device_work import GRID, block, config, save_tiny_model, until
from page_clients import PASSWORD, csrf_of, log_in, remote_client
from phantom_device import PhantomDevice
from retraining_device import COMMAND, STUDIES
from small_plan import small_plan

from focalis.dataset import open_dataset
from focalis.device import retrain as retrain_child
from focalis.device import retraining
from focalis.device.backup import back_up, restore
from focalis.device.config import Config, Route, User
from focalis.device.exporting import UNNAMED, export
from focalis.device.models import open_models
from focalis.device.records import Roles
from focalis.device.retrain import RetrainJob, is_held_out, plan_of_successor, retrain
from focalis.device.retraining import Retrainer, lineage_of, retrained_models
from focalis.device.routing import effective_routes
from focalis.device.serve import running
from focalis.device.store import Store
from focalis.device.web import models_page
from focalis.device.web.app import create_app
from focalis.device.web.auth import hash_password
from focalis.dicom import Origin, read_series, write_segmentation
from focalis.errors import FocalisError, UsageError
from focalis.files import sha256_of
from focalis.identity import ModelIdentity
from focalis.model import load_model, save_model
from focalis.planning import Plan, read_plan
from focalis.planning.parts import network_of
from focalis.planning.plan import AugmentationSettings, LossSettings, TrainingSettings
from focalis.workflows.fit import fit


@pytest.fixture(autouse=True)
def _pretended(monkeypatch):
    monkeypatch.setattr(retraining, "COMMAND", COMMAND)


@pytest.fixture
def settings(model):
    return config(model, routes=[{"model": "tiny"}])


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store") as store:
        store.own()
        (store.folder / "patients").write_text("8")
        yield store


@pytest.fixture
def retrainer(settings, store):
    found = Retrainer(settings, store, open_models(settings.models))
    yield found
    found.stop()


def ended(store):
    return until(lambda: (found := store.retrainings()) and not found[0].open and found[0], 60)


def trail(store):
    return [(each.who, each.did) for each in store.audited()]


def test_a_new_model_is_kept_with_the_figures_of_both_and_nothing_else_stays(retrainer, store, model):
    retrainer.begin("tiny", STUDIES, "anna")

    found = ended(store)

    assert (found.name, found.state, found.who) == ("tiny-r1", "done", "anna")
    assert found.sha256 == sha256_of(store.model_path("tiny-r1")) == sha256_of(model)
    assert found.judged["figures"]["lesion_f1"]["new"]["low"] == 0.51
    assert ("the device", "retrained tiny as tiny-r1, and judged both") in trail(store)
    until(lambda: not list((store.folder / "retraining").iterdir()))


def test_one_is_retrained_at_a_time_and_cancelled_at_once(retrainer, store):
    (store.folder / "wait").write_text("training")
    retrainer.begin("tiny", STUDIES, "anna")
    until(lambda: store.retrainings()[0].state == "training")
    with pytest.raises(UsageError, match="a model is being retrained; wait for it, or cancel it"):
        retrainer.begin("tiny", STUDIES, "anna")

    assert retrainer.cancel().name == "tiny-r1"

    assert store.retrainings()[0].state == "cancelled"
    assert not list((store.folder / "retraining").iterdir())
    assert retrainer.cancel() is None
    (store.folder / "wait").unlink()
    retrainer.begin("tiny", STUDIES, "anna")
    assert (ended(store).name, ended(store).state) == ("tiny-r2", "done")


def test_what_fails_is_reported_with_its_reason(retrainer, store):
    (store.folder / "fail").write_text("the disk is full")
    retrainer.begin("tiny", STUDIES, "anna")

    assert (ended(store).state, ended(store).reason) == ("failed", "the disk is full")
    assert ("the device", "could not retrain tiny: the disk is full") in trail(store)


def test_a_disk_that_is_full_when_the_model_is_kept_is_reported_and_leaves_nothing(
    retrainer, store, monkeypatch
):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(retraining.shutil, "copyfile", full)
    retrainer.begin("tiny", STUDIES, "anna")

    assert (ended(store).state, "No space left on device" in ended(store).reason) == ("failed", True)
    assert not store.model_path("tiny-r1").exists()
    until(lambda: not list((store.folder / "retraining").iterdir()))


def test_a_child_that_is_killed_or_takes_too_much_fails_it(settings, store):
    (store.folder / "wait").write_text("judging")
    limited = settings.model_copy(
        update={"retrain": settings.retrain.model_copy(update={"memory_gb": 0.001})}
    )
    retrainer = Retrainer(limited, store, open_models(settings.models))
    retrainer.begin("tiny", STUDIES, "anna")
    assert "more than 0.001 GB of memory; raise retrain.memory_gb" in ended(store).reason

    limited = settings.model_copy(update={"retrain": settings.retrain.model_copy(update={"hours": 0.0001})})
    retrainer = Retrainer(limited, store, open_models(settings.models))
    retrainer.begin("tiny", STUDIES, "anna")
    assert "longer than 0.0001 hours; raise retrain.hours" in ended(store).reason

    retrainer = Retrainer(settings, store, open_models(settings.models))
    retrainer.begin("tiny", STUDIES, "anna")
    until(lambda: store.retrainings()[0].state == "judging")
    os.kill(retrainer._child.pid, signal.SIGKILL)
    assert "SIGKILL" in ended(store).reason
    retrainer.stop()


def test_a_stop_interrupts_it_and_the_next_start_goes_on(settings, store):
    (store.folder / "wait").write_text("training")
    first = Retrainer(settings, store, open_models(settings.models))
    first.begin("tiny", STUDIES, "anna")
    until(lambda: store.retrainings()[0].state == "training")
    first.stop()
    assert store.retrainings()[0].state == "training"

    (store.folder / "wait").unlink()
    second = Retrainer(settings, store, open_models(settings.models))
    second.start()

    assert (ended(store).state, len(store.retrainings())) == ("done", 1)
    second.stop()
    assert any("goes on with tiny-r1" in each.text for each in store.events())


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [
        "set_retraining exporting",
        "set_retraining training",
        "set_retraining judging",
        "set_retraining before done",
    ],
)
def test_killed_in_any_state_it_goes_on_and_ends_once(settings, tmp_path, point):
    folder = tmp_path / "store"
    Store(folder).close()
    (folder / "patients").write_text("8")
    dying = [sys.executable, retraining_device.__file__, str(folder), settings.model_dump_json(), point]
    path = {**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{Path(__file__).parents[1]}"}
    assert subprocess.run(dying, env=path, check=False).returncode == -signal.SIGKILL

    with Store(folder) as store:
        store.own()
        retrainer = Retrainer(settings, store, open_models(settings.models))
        retrainer.start()
        found = ended(store)
        retrainer.stop()
        assert (found.state, found.sha256) == ("done", sha256_of(store.model_path("tiny-r1")))
        assert (folder / "begun").read_text() == "xx"
        assert len([did for _, did in trail(store) if "retrained" in did]) == 1


@pytest.mark.slow
def test_killed_before_its_studies_were_written_it_is_reported_as_interrupted(settings, tmp_path):
    folder = tmp_path / "store"
    dying = [sys.executable, retraining_device.__file__, str(folder), settings.model_dump_json()]
    path = {**os.environ, "PYTHONPATH": f"{os.environ.get('PYTHONPATH', '')}:{Path(__file__).parents[1]}"}
    killed = subprocess.run([*dying, "begin_retraining"], env=path, check=False)
    assert killed.returncode == -signal.SIGKILL

    with Store(folder) as store:
        store.own()
        retrainer = Retrainer(settings, store, open_models(settings.models))
        retrainer.start()
        assert (ended(store).state, "was interrupted" in ended(store).reason) == ("failed", True)
        retrainer.stop()


def test_a_new_model_is_tried_promoted_and_there_after_a_restart(retrainer, settings, store):
    retrainer.begin("tiny", STUDIES, "anna")
    ended(store)
    assert retrained_models(store, settings.routes) == ()

    retrainer.put_on_trial(1, "anna")

    (route,) = effective_routes(settings.routes, store.roles())
    assert (route.models, route.shadow) == (("tiny",), "tiny-r1")
    (entry,) = retrained_models(store, settings.routes)
    assert retrained_models(store, ()) == ()
    assert set(open_models([*settings.models, entry])) == {"tiny", "tiny-r1"}
    store.model_path("tiny-r1").write_bytes(b"another")
    with pytest.raises(Exception, match="tiny-r1"):
        open_models([entry])


def test_a_file_that_names_a_shadow_of_its_own_since_counts(retrainer, store):
    retrainer.begin("tiny", STUDIES, "anna")
    ended(store)
    retrainer.put_on_trial(1, "anna")

    (route,) = effective_routes([Route(model="tiny", shadow="other")], store.roles())

    assert (route.models, route.shadow) == (("tiny",), "other")


def test_a_model_descends_from_those_that_it_was_trained_on_from(retrainer, store):
    retrainer.begin("tiny", STUDIES, "anna")
    ended(store)
    retrainer.put_on_trial(1, "anna")
    store.set_roles(Roles("tiny", "tiny-r1", "tiny", ""), "anna")
    retrainer.begin("tiny-r1", STUDIES, "anna")

    assert (ended(store).name, ended(store).model) == ("tiny-r2", "tiny-r1")
    assert lineage_of("tiny-r2", store.retrainings()) == ["tiny-r2", "tiny-r1", "tiny"]
    assert lineage_of("other-r1", store.retrainings()) == ["other-r1"]
    retrainer.put_on_trial(2, "anna")
    (route,) = effective_routes([Route(model="tiny")], store.roles())
    assert (route.models, route.shadow) == (("tiny-r1",), "tiny-r2")


def test_the_name_of_a_model_of_the_file_is_not_taken(model, store, tmp_path):
    other = save_tiny_model(tmp_path / "other.safetensors", low=-1500.0)
    models = [{"name": name, "file": str(file)} for name, file in (("tiny", model), ("tiny-r1", other))]
    settings = config(model, models=models, routes=[{"model": "tiny"}])
    retrainer = Retrainer(settings, store, open_models(settings.models))
    retrainer.begin("tiny", STUDIES, "anna")
    ended(store)

    with pytest.raises(UsageError, match="another model is called tiny-r1"):
        retrainer.put_on_trial(1, "anna")
    retrainer.stop()


def test_a_model_of_the_longest_name_is_retrained_and_tried(model, store):
    name = "n" * 64
    settings = config(model, models=[{"name": name, "file": str(model)}], routes=[{"model": name}])
    retrainer = Retrainer(settings, store, open_models(settings.models))
    retrainer.begin(name, STUDIES, "anna")

    assert ended(store).name == "n" * 61 + "-r1"
    retrainer.put_on_trial(1, "anna")
    assert store.roles()[name].shadow == "n" * 61 + "-r1"
    retrainer.stop()


def test_complaints_about_a_file_stay_out_of_what_a_dead_child_said(monkeypatch, capfd):
    def complaining(_job, _tell):
        warnings.warn("Invalid value for VR PN: 'Lindqvist^Maja'", stacklevel=1)
        logging.getLogger("pydicom").warning("Lindqvist^Maja")
        return {}

    answers = []
    job = RetrainJob("", [], "", 1, 1, 1)
    monkeypatch.setattr(logging.getLogger("pydicom"), "disabled", False)
    monkeypatch.setattr(retrain_child.os, "nice", lambda _: 0)
    monkeypatch.setattr(retrain_child, "take_over_output", lambda: answers.append)
    monkeypatch.setattr(retrain_child, "requests", lambda: iter([asdict(job)]))
    monkeypatch.setattr(retrain_child, "retrain", complaining)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: print(message, file=sys.stderr)
        retrain_child.main()

    assert answers == [{"judged": {}}]
    assert "Lindqvist" not in capfd.readouterr().err


@pytest.mark.parametrize("patients", [0, 4])
def test_a_model_that_was_judged_on_few_patients_is_not_tried(retrainer, store, patients):
    (store.folder / "patients").write_text(str(patients))
    retrainer.begin("tiny", STUDIES, "anna")
    ended(store)

    with pytest.raises(UsageError, match=f"judged on {patients} held-out patients, and 5 are needed"):
        retrainer.put_on_trial(1, "anna")
    assert store.roles() == {}


def test_what_did_not_end_well_is_not_tried(retrainer, store):
    (store.folder / "fail").write_text("x")
    retrainer.begin("tiny", STUDIES, "anna")
    ended(store)

    for number in (1, 2):
        with pytest.raises(UsageError, match="no such new model that was judged"):
            retrainer.put_on_trial(number, "anna")


def test_without_a_route_or_reviewed_studies_it_is_refused(model, store):
    retrainer = Retrainer(config(model), store, open_models(config(model).models))
    with pytest.raises(UsageError, match="no study of tiny has been reviewed"):
        retrainer.begin("tiny", [], "anna")
    retrainer.begin("tiny", STUDIES, "anna")
    ended(store)
    with pytest.raises(UsageError, match=r"no route of focalis\.toml leads to tiny alone"):
        retrainer.put_on_trial(1, "anna")


def test_a_backup_holds_the_new_models(retrainer, store, tmp_path):
    retrainer.begin("tiny", STUDIES, "anna")
    ended(store)

    back_up(store.folder, tmp_path / "backup.tar")
    restore(tmp_path / "backup.tar", tmp_path / "again")

    with Store(tmp_path / "again") as again:
        assert sha256_of(again.model_path("tiny-r1")) == again.retrainings()[0].sha256


def test_the_page_begins_shows_and_tries_it_for_administrators_only(model, tmp_path, monkeypatch):
    hashed = hash_password(PASSWORD)
    users = tuple(User(name=role, password_hash=hashed, role=role) for role in ("reviewer", "admin"))
    phantom = PhantomDevice(tmp_path, Config(users=users, routes=(Route(model="nodules"),)))
    device = phantom.device(model)
    (phantom.store.folder / "patients").write_text("8")
    reviewed = SimpleNamespace(case="case_1", at_hand=lambda _store: STUDIES[0])
    monkeypatch.setattr(models_page, "reviewed_studies", lambda _site: {"nodules": [reviewed]})
    app = create_app(device)
    admin, viewer = (log_in(remote_client(app), role) for role in ("admin", "reviewer"))

    def press(client, path, **data):
        return client.post(f"/models/{path}", data={"csrf": csrf_of(client, "/models"), **data}).status_code

    assert "Retrain nodules with 1 reviewed study" in admin.get("/models").text
    assert "Retrain nodules with" not in viewer.get("/models").text
    assert press(viewer, "retrain", model="nodules") == press(viewer, "retrain/cancel") == 403
    assert press(admin, "retrain", model="another") == 404
    assert press(admin, "retrain", model="nodules") == 303
    ended(phantom.store)
    page = admin.get("/models").text
    for text in (
        "nodules-r1",
        "0.62",
        "0.51&nbsp;to&nbsp;0.72",
        "+0.12",
        "Put on trial",
        "of 8 other patients",
    ):
        assert text in page
    assert press(viewer, "retrain/1/trial") == 403
    assert press(admin, "retrain/1/trial") == 303
    assert press(admin, "retrain/7/trial") == press(admin, "retrain/cancel") == 409
    assert press(admin, "promote", current="nodules", shadow="nodules-r1") == 303
    assert phantom.store.roles()["nodules"].current == "nodules-r1"
    told = [did for who, did in trail(phantom.store) if who == "admin"]
    assert "began to retrain nodules as nodules-r1 with 1 reviewed studies" in told
    assert "put nodules-r1 on trial beside nodules" in told
    device.retrainer.stop()
    phantom.close()


def test_a_patient_stays_held_out_for_good():
    named = [f"patient_{number:012x}" for number in range(600)]
    held_out = [name for name in named if is_held_out(name)]

    assert 150 < len(held_out) < 250
    assert held_out == [name for name in named if is_held_out(name)]


@pytest.fixture
def reviewed(write_series, tmp_path):
    """Make reviewed studies of patients, as `export` takes them."""

    def reviewed(*patients):
        studies, stored = [], block()
        for number, patient in enumerate(patients):
            moved = np.roll(stored, number % 3, axis=2)
            moved[0, 7, 0] = -700 - number  # no two images are the same
            files = write_series(tmp_path / "in" / str(number), moved, GRID, PatientID=patient)
            series = read_series(files)
            mask = (series.volume.array > 0).astype(np.uint8)
            made = tmp_path / f"{number}.dcm"
            write_segmentation(mask, {1: "nodule"}, series, made, Origin(ModelIdentity("m"), "1"))
            studies.append(
                {"case": f"case_{number}", "files": [str(file) for file in files], "correction": str(made)}
            )
        return studies

    return reviewed


def test_spellings_of_a_patient_id_are_one_patient_and_without_one_each_study_is(reviewed, tmp_path):
    export(reviewed("PAT-007", "pat 7", ""), str(tmp_path / "out"))

    with (tmp_path / "out" / "cases.csv").open(newline="") as table:
        first, again, unnamed = [row["patient"] for row in csv.DictReader(table)]
    assert first == again != unnamed
    assert unnamed.startswith(UNNAMED)
    assert not first.startswith(UNNAMED)


@pytest.mark.parametrize("gone", ["files", "correction"])
def test_a_study_that_is_removed_while_others_are_exported_is_left_out(reviewed, tmp_path, monkeypatch, gone):
    studies = reviewed("a", "b", "c")

    def removed_first(files):
        if str(files[0]) in studies[1]["files"]:
            Path(studies[1]["correction"] if gone == "correction" else files[-1]).unlink()
        return read_series(files)

    monkeypatch.setattr("focalis.device.exporting.read_series", removed_first)
    assert export(studies, str(tmp_path / "out")) == 2
    assert [case.name for case in open_dataset(tmp_path / "out").cases] == ["case_0", "case_2"]


OFF_DEFAULT = {
    "channels": ({"channels": ("CT",)}, {"channels": ("T1/T2",)}, {"channels": ("1",)}),
    "labels": ({"labels": {300: "nodule"}}, {"labels": {2: "nodule", 5: "cyst"}}),
    "ignore": ({"ignore": 7},),
    "regions": ({"regions": {"nodule": (1,)}}, {"regions": {"nodule": (1,)}, "ignore": 4}),
    "readers": tuple({"readers": each} for each in ("majority", "staple", "mean", "random")),
    "use": ({"use": "detector"},),
    "start": ({"start": "a model that is gone.safetensors"},),
    "freeze": ({"start": "a model that is gone.safetensors", "freeze": "encoder"},),
    "loss": ({"loss": LossSettings(name="tversky")},),
    "training": ({"training": TrainingSettings(learning_rate=3e-4, turn_share=0.1)},),
    "augmentation": ({"augmentation": (AugmentationSettings(name="noise"),)},),
}
"""By each field of a plan that a model of the device may have off its default: it, with what must go with it."""
ALWAYS_GIVEN = {"version", "spacing_zyx_mm", "normalisation", "patch_zyx", "batch", "network"}
OF_THE_RUN = {"memory_budget_gb", "reasons"}
OF_SEVERAL_CHANNELS = {"channels_may_miss"}
"""The device refuses models of these."""


def test_every_field_of_a_plan_is_tried():
    assert OFF_DEFAULT.keys() | ALWAYS_GIVEN | OF_THE_RUN | OF_SEVERAL_CHANNELS == Plan.model_fields.keys()


class PlannedError(Exception):
    """Stops a retraining where its training would begin."""


@pytest.fixture
def planned(monkeypatch, reviewed, tmp_path):
    """What `fit` is asked for, and the plan that it would follow, when a model is retrained."""
    studies = reviewed(*(f"P{number}" for number in range(5)))

    def plan_only(data, out, **asked):
        made = fit(data, out, **asked, plan_only=True)
        raise PlannedError(asked, read_plan(made.plan))

    def planned(model):
        monkeypatch.setattr(sys.modules[fit.__module__], "fit", plan_only)
        save_model(model, tmp_path / "start.safetensors")
        job = RetrainJob(str(tmp_path / "job"), studies, str(tmp_path / "start.safetensors"), 0.2, 6, 1)
        with pytest.raises(PlannedError) as caught:
            retrain(job, lambda _: None)
        return caught.value.args

    return planned


@pytest.mark.parametrize("changed", [each for tried in OFF_DEFAULT.values() for each in tried], ids=str)
def test_a_model_of_any_plan_is_trained_on_by_its_plan(planned, tmp_path, changed):
    tiny = load_model(save_tiny_model(tmp_path / "tiny.safetensors"))
    plan = tiny.plan.model_copy(update=changed)
    torch.manual_seed(3)

    _, found = planned(replace(tiny, plan=plan, members=(network_of(plan).eval(),)))

    rate = plan.training.learning_rate
    own = (
        rate != TrainingSettings().learning_rate
    )  # which stays; the usual one is too much for a trained model
    slowly = plan.training.model_copy(update={"learning_rate": rate if own else rate / 10})
    settled = {"readers": "labels", "start": str(tmp_path / "start.safetensors"), "training": slowly}
    told = {"reasons", "memory_budget_gb"}
    assert found.model_dump(exclude=told) == plan.model_copy(update=settled).model_dump(exclude=told)


@pytest.mark.parametrize(
    ("provenance", "aim"),
    [
        ({}, "dice"),
        ({"aim": "fp-per-scan=0.5"}, "fp-per-scan=0.5"),
        ({"members": [{"aim": "fp-per-scan=2"}, {"aim": "fp-per-scan=2"}]}, "fp-per-scan=2"),
    ],
)
def test_the_new_operating_point_is_chosen_for_what_the_old_one_was(planned, tmp_path, provenance, aim):
    tiny = load_model(save_tiny_model(tmp_path / "tiny.safetensors"))

    asked, _ = planned(replace(tiny, provenance=provenance))

    assert asked["aim"] == aim


@pytest.mark.slow
def test_a_model_of_a_named_channel_is_retrained_for_its_aim_and_told_that_its_promise_ends(
    reviewed, tmp_path
):
    tiny = load_model(save_tiny_model(tmp_path / "tiny.safetensors", channel="CT"))
    start = replace(
        tiny,
        plan=tiny.plan.model_copy(update={"ignore": 9, "readers": "mean"}),
        provenance={"aim": "fp-per-scan=3"},
        operating_point=replace(tiny.operating_point, promise="at most 10 % of a scan's lesions missed"),
    )
    save_model(start, tmp_path / "start.safetensors")
    studies = reviewed(*(f"P{number}" for number in range(8)))
    job = RetrainJob(str(tmp_path / "job"), studies, str(tmp_path / "start.safetensors"), 0.2, 6, 1)

    found = retrain(job, lambda _: None)

    made = load_model(tmp_path / "job" / "run" / "model.safetensors")
    assert (made.plan.channels, made.plan.ignore, made.plan.readers) == (("CT",), 9, "labels")
    assert made.provenance["aim"] == "fp-per-scan=3"
    assert "3 false positives per scan" in made.operating_point.how or not made.operating_point.lesions
    assert found["figures"]["lesion_f1"]["new"]["cases"] == found["held_out"]["cases"]
    (note,) = found["notes"]
    assert "promises at most 10 % of a scan's lesions missed. The new one promises nothing" in note
    assert "it is chosen for fp-per-scan=3" in note


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ensemble", "nested"])
def test_each_network_of_an_ensemble_and_nested_regions_are_trained_on(reviewed, tmp_path, kind):
    tiny = load_model(save_tiny_model(tmp_path / "tiny.safetensors"))
    if kind == "ensemble":
        start = replace(tiny, members=(tiny.members[0], copy.deepcopy(tiny.members[0])))
    else:
        plan = tiny.plan.model_copy(update={"regions": {"nodule": (1,)}})
        torch.manual_seed(3)
        start = replace(tiny, plan=plan, members=(network_of(plan).eval(),))
    save_model(start, tmp_path / "start.safetensors")
    studies = reviewed(*(f"P{number}" for number in range(8)))
    job = RetrainJob(str(tmp_path / "job"), studies, str(tmp_path / "start.safetensors"), 0.2, 6, 1)

    found = retrain(job, lambda _: None)

    made = load_model(tmp_path / "job" / "run" / "model.safetensors")
    assert (len(made.members), made.plan.regions) == (len(start.members), start.plan.regions)
    assert found["figures"]["lesion_f1"]["new"]["cases"] == found["held_out"]["cases"]
    changed = [
        any(not torch.equal(old, new) for old, new in zip(a.parameters(), b.parameters(), strict=True))
        for a, b in zip(start.members, made.members, strict=True)
    ]
    assert all(changed)


@pytest.mark.slow
def test_corrections_train_the_new_model_and_judge_both(reviewed, tmp_path):
    start = save_tiny_model(tmp_path / "tiny.safetensors")
    studies, states = reviewed(*(f"P{number}" for number in range(8)), ""), []

    found = retrain(RetrainJob(str(tmp_path / "job"), studies, str(start), 0.25, 6, 1), states.append)

    assert states == ["exporting", "training", "judging"]
    assert found["train"]["cases"] + found["held_out"]["cases"] == 9
    assert found["held_out"]["patients"] == found["held_out"]["cases"] >= 1
    (note,) = found["notes"]
    assert "a study without a Patient ID counts as a patient" in note
    figures = found["figures"]["lesion_f1"]
    assert figures["difference"]["cases"] == found["held_out"]["cases"]
    splits = json.loads((tmp_path / "job" / "splits.json").read_text())[0]
    assert not set(splits["train"]) & set(splits["val"])
    assert (tmp_path / "job" / "run" / "model.safetensors").is_file()
    shutil.rmtree(tmp_path / "in")
    again = retrain(RetrainJob(str(tmp_path / "job"), studies, str(start), 0.25, 6, 1), states.append)
    assert again["figures"] == found["figures"]


@pytest.mark.slow
def test_a_restarted_device_has_the_models_that_it_trained_or_says_which_is_lost(retrainer, settings, store):
    retrainer.begin("tiny", STUDIES, "anna")
    ended(store)
    retrainer.put_on_trial(1, "anna")
    store.close()
    folder = store.folder
    settings = settings.model_copy(
        update={
            "store": settings.store.model_copy(update={"folder": folder}),
            "node": settings.node.model_copy(update={"port": 0}),
            "web": settings.web.model_copy(update={"port": 0}),
        }
    )

    with running(settings) as device:
        (route,) = device.jobs.routes()
        assert (set(device.jobs.models), route.shadow) == ({"tiny", "tiny-r1"}, "tiny-r1")
    (folder / "models" / "tiny-r1.safetensors").unlink()
    with pytest.raises(FocalisError, match=r"tiny-r1\.safetensors"), running(settings):
        pass
    alone = settings.model_copy(update={"routes": ()})
    with running(alone) as device:
        assert set(device.jobs.models) == {"tiny"}


def test_the_plan_of_a_successor_is_that_of_the_model_where_nothing_has_to_change():
    """A retraining that goes on after a restart finds the plan that it began with."""
    plan = small_plan()
    assert plan_of_successor(plan) == plan
    assert plan_of_successor(small_plan(readers="mean")).readers == "labels"
