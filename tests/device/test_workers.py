"""Several processes that share a PostgreSQL database: a front that takes in and sends, and workers that segment."""

import contextlib
import os
import shutil
import subprocess
import sys

import buckets
import device_work
import pytest
from device_work import GRID, block, config, digest_of, in_this_process, keep_files, until, working
from postgresql import PASSWORD

from focalis.device import serve
from focalis.device.backup import back_up, restore
from focalis.device.config import load_config
from focalis.device.database import Database
from focalis.device.store import Store
from focalis.errors import UsageError
from focalis.files import sha256_of

FRONT, WORKER = ((device_work.__file__, role) for role in ("front", "worker"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def address(database_server):
    return database_server.new_database()


@pytest.fixture
def settings(model, address, tmp_path):
    """focalis.toml of front and workers; heads are urgent."""
    path = tmp_path / "focalis.toml"
    path.write_text(
        f'[store]\nfolder = "store"\ndatabase = "{address}"\nleast_free_gb = 0\n[node]\nquiet_seconds = 60\n'
        f'[[models]]\nname = "tiny"\nfile = "{model}"\n'
        '[[routes]]\nmodel = "tiny"\nbody_part = "HEAD"\nurgent = true\n[[routes]]\nmodel = "tiny"\n'
    )
    return path


def start(settings, *command):
    """Start a process; what it says goes into log, beside the settings."""
    with (settings.parent / "log").open("a") as log:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.Popen([sys.executable, *command, settings], env=environment, stdout=log, stderr=log)


@contextlib.contextmanager
def running(settings, *commands):
    """Processes of `start`, which may be replaced; killed in the end."""
    processes = [start(settings, *command) for command in commands]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def found(store):
    """What the results of all series are, by series."""
    return [
        (task.series_uid, path.read_text())
        for task in store.tasks("done")
        for path in store.at_hand(store.results(task.task_id))
    ]


def keep_series(store, write_series, folder, count, **told):
    """Put series into a store; by UID what the pretended workers make of each."""
    scans = [write_series(folder / str(number), block(900 + number), GRID) for number in range(count)]
    return {keep_files(store, files, expected=len(files), **told): digest_of(files) for files in scans}


def begun(store):
    """The series that are worked on."""
    return {task.series_uid for state in ("checking", "segmenting", "writing") for task in store.tasks(state)}


def assert_once(store, wanted):
    assert sorted(found(store)) == sorted(wanted.items())
    assert len(store.tasks()) == len(wanted)
    assert not list((store.folder / "making").iterdir())


def test_the_study_of_a_killed_worker_is_done_by_another(settings, write_series, tmp_path):
    config = load_config(settings)
    with working(config.store.folder, config) as jobs:
        assert jobs.problem() == "no worker"
        wanted = keep_series(jobs.store, write_series, tmp_path / "in", 4)
        with running(settings, WORKER) as (first,):
            until(lambda: jobs.store.tasks("done") and jobs.store.tasks("segmenting"))
            assert jobs.problem() == ""
            first.kill()
            first.wait()
        with running(settings, WORKER):
            until(lambda: len(jobs.store.tasks("done")) == len(wanted))
        assert_once(jobs.store, wanted)
    said = (tmp_path / "log").read_text()
    assert "its study is taken over" in said
    assert PASSWORD not in said


def test_killed_workers_and_a_restarted_database_lose_nothing(
    settings, address, database_server, write_series, tmp_path
):
    """What a service manager does, with three workers; one is killed after every third study."""
    commands = (FRONT, WORKER, WORKER, WORKER)
    killed = restarted = 0
    with Store(tmp_path / "store", address) as store, running(settings, *commands) as processes:
        wanted = keep_series(store, write_series, tmp_path / "in", 24)

        def work():
            nonlocal killed, restarted
            for number, process in enumerate(processes):
                if process.poll() is not None:
                    processes[number] = start(settings, *commands[number])
            done = len(store.tasks("done"))
            if killed < min(6, done // 3):
                processes[1 + killed % 3].kill()
                killed += 1
            if restarted < min(2, done // 8):
                database_server.stop()
                database_server.start()
                restarted += 1
            return done == len(wanted)

        until(work, 800)
        assert_once(store, wanted)
    assert killed >= 3
    assert restarted >= 1
    assert PASSWORD not in (tmp_path / "log").read_text()


def test_front_and_workers_share_a_bucket_and_no_disk(
    settings, address, objects_address, object_server, write_series, tmp_path, monkeypatch
):
    """Each has a folder of its own, and is killed in turn; the bucket goes away for a while."""
    way = buckets.Way(object_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", way.endpoint)
    told = f'folder = "{{}}"\nobjects = "{objects_address}"\ncache_gb = 0'
    parts = []
    for number, (program, role) in enumerate((FRONT, WORKER, WORKER)):
        (tmp_path / str(number)).mkdir()
        path = tmp_path / str(number) / "focalis.toml"
        path.write_text(settings.read_text().replace('folder = "store"', told.format("scratch")))
        parts.append((path, program, role))
    killed = away = 0
    with Store(tmp_path / "taking", address, objects_address) as store, contextlib.ExitStack() as stack:
        processes = [start(*part) for part in parts]
        stack.callback(lambda: [(process.kill(), process.wait()) for process in processes])
        wanted = keep_series(store, write_series, tmp_path / "in", 14)
        shutil.rmtree(tmp_path / "taking" / "objects")

        def tended(condition):
            for number, process in enumerate(processes):
                if process.poll() is not None:
                    processes[number] = start(*parts[number])
            return condition()

        def work():
            nonlocal killed, away
            done = len(store.tasks("done"))
            if away == 0 and done and store.others() == 2:  # all are alive
                away = 1
                way.cut()
                until(lambda: tended(waits))
                way.mend()
            if killed < min(4, done // 3):
                processes[killed % 3].kill()
                killed += 1
            return done == len(wanted)

        def waits():
            return any("the object store cannot be used" in each.reason for each in store.tasks("waiting"))

        until(lambda: tended(work), 600)
        assert sorted(found(store)) == sorted(wanted.items())
        assert len(store.tasks()) == len(wanted)
        log = "".join((tmp_path / str(number) / "log").read_text() for number in range(3))
    assert killed >= 3
    assert away == 1
    assert buckets.SECRET not in log
    assert PASSWORD not in log


def test_a_study_that_a_worker_took_and_never_began_is_begun_again(
    settings, write_series, tmp_path, monkeypatch
):
    failures = device_work.fail_the_first_claim(monkeypatch)
    monkeypatch.setattr("focalis.device.jobs._LOST_SECONDS", 1)
    with running(settings, FRONT), serve.working(load_config(settings)) as jobs:
        jobs.segmenter.run = device_work.pretend
        wanted = keep_series(jobs.store, write_series, tmp_path / "in", 1)
        until(lambda: jobs.store.tasks("done"))
        assert_once(jobs.store, wanted)
    assert not failures


def test_studies_of_one_person_are_segmented_one_after_the_other(settings, write_series, tmp_path):
    config, most = load_config(settings), 0
    with working(config.store.folder, config) as jobs, running(settings, WORKER, WORKER):
        until(lambda: jobs.store.others() == 2)
        keep_series(jobs.store, write_series, tmp_path / "in", 4, person="p")

        def work():
            nonlocal most
            most = max(most, len(begun(jobs.store)))
            return len(jobs.store.tasks("done")) == 4

        until(work)
    assert most == 1


def test_an_urgent_study_never_runs_beside_another_of_its_person(settings, write_series, tmp_path):
    config, together = load_config(settings), set()
    with working(config.store.folder, config) as jobs, running(settings, WORKER, WORKER):
        until(lambda: jobs.store.others() == 2)
        wanted = keep_series(jobs.store, write_series, tmp_path / "others", 4)
        until(lambda: begun(jobs.store))
        slow = keep_series(jobs.store, write_series, tmp_path / "slow", 1, person="p")
        until(lambda: len(jobs.store.tasks()) == 5)  # so it waits in the queue, which urgent ones overtake
        urgent = keep_series(jobs.store, write_series, tmp_path / "urgent", 1, person="p", body_part="HEAD")

        def work():
            together.add(len(begun(jobs.store) & {*slow, *urgent}))
            return len(jobs.store.tasks("done")) == 6

        until(work)
        assert_once(jobs.store, wanted | slow | urgent)
    assert together == {0, 1}


def test_urgent_studies_come_first_on_whichever_worker_is_free(settings, write_series, tmp_path):
    config = load_config(settings)
    with working(config.store.folder, config) as jobs, running(settings, WORKER, WORKER):
        until(lambda: jobs.store.others() == 2)
        wanted = keep_series(jobs.store, write_series, tmp_path / "others", 8)
        until(lambda: jobs.store.tasks("done"))
        urgent = keep_series(jobs.store, write_series, tmp_path / "urgent", 2, body_part="HEAD")
        until(lambda: len(jobs.store.tasks()) == 10)
        before = {task.series_uid for task in jobs.store.tasks("done")}
        until(lambda: len(jobs.store.tasks("done")) == 10)
        assert_once(jobs.store, wanted | urgent)
        ended = [task.series_uid for task in sorted(jobs.store.tasks(), key=lambda task: task.updated_at)]
    later = [each for each in ended if each not in before]
    assert urgent.keys() <= {*later[:4]}  # two may have begun before


def test_a_worker_that_loses_the_database_ends(settings, database_server, tmp_path):
    with running(settings, ("-m", "focalis", "serve", "--worker", "--config")) as (process,):
        until(lambda: "ready" in (tmp_path / "log").read_text())
        database_server.stop()
        try:
            assert process.wait(timeout=60) == 1
        finally:
            database_server.start()
    said = (tmp_path / "log").read_text()
    assert "the connection was lost, so this process ends" in said
    assert PASSWORD not in said


def test_a_second_front_is_refused(address, tmp_path):
    with Store(tmp_path / "one", address) as first, Store(tmp_path / "two", address) as second:
        first.own()
        with pytest.raises(UsageError, match="another focalis serve works with it"):
            second.own()


def test_nothing_is_restored_beside_a_front(database_server, series, tmp_path):
    with Store(tmp_path / "one") as one:
        keep_files(one, series)
    back_up(tmp_path / "one", tmp_path / "one.tar")
    address = database_server.new_database()
    with Store(tmp_path / "elsewhere", address) as front:
        front.own()
        with pytest.raises(UsageError, match="another focalis serve works with it"):
            restore(tmp_path / "one.tar", tmp_path / "two", address)
        assert front.series() == []
    restore(tmp_path / "one.tar", tmp_path / "two", address)
    with Store(tmp_path / "two", address) as two:
        assert len(two.series()) == 1


def test_a_front_that_starts_leaves_what_another_process_is_receiving(address, tmp_path):
    with Store(tmp_path, address) as other, Store(tmp_path, address) as front:
        new, old = other.stage(b"new"), other.stage(b"old")
        os.utime(old.path, (0, 0))
        front.own()
        assert (new.path.exists(), old.path.exists()) == (True, False)


def test_the_server_ends_the_session_of_a_machine_that_is_gone(address):
    """Also while it waits for that machine to take an answer, which no keepalive ends."""
    with contextlib.closing(Database(address)) as rows:
        assert rows.rows("SHOW tcp_user_timeout") == [{"tcp_user_timeout": "15000"}]
        assert rows.rows("SHOW tcp_keepalives_idle") == [{"tcp_keepalives_idle": "5"}]


def test_a_process_is_dead_to_others_only_when_it_has_ended(address, tmp_path):
    with Store(tmp_path, address) as one, Store(tmp_path, address) as two:

        def is_dead():
            with two.successor_of("one") as alone:
                return alone

        one.join("one")
        assert not is_dead()
        one.close()
        until(is_dead, 20)  # the server takes a moment to end a session


def results(store):
    return [sha256_of(each.path) for task in store.tasks() for each in store.results(task.task_id)]


def test_a_backup_moves_a_store_from_the_file_to_a_database_and_back(
    database_server, model, series, tmp_path
):
    with working(tmp_path / "store", config(model), run=in_this_process) as jobs:
        keep_files(jobs.store, series)
        until(lambda: jobs.store.tasks("done"))
        before = results(jobs.store)
    back_up(tmp_path / "store", tmp_path / "one.tar")
    first, second = database_server.new_database(), database_server.new_database()
    restore(tmp_path / "one.tar", tmp_path / "shared", first)
    back_up(tmp_path / "shared", tmp_path / "two.tar", first)
    restore(tmp_path / "two.tar", tmp_path / "file")
    with Store(tmp_path / "shared", first) as there, Store(tmp_path / "file") as back:
        assert results(there) == results(back) == before
        assert there.tasks() == back.tasks()
        assert there.events() == back.events()
        there.event("info", "one more")  # its number is free
        assert there.events()[0].text == "one more"
    with pytest.raises(UsageError, match="holds a store already"):
        restore(tmp_path / "one.tar", tmp_path / "again", first)
    restore(tmp_path / "one.tar", tmp_path / "again", second)
    third = database_server.new_database()
    with Store(tmp_path / "third", third) as used:
        used.event("info", "the device starts")
    with pytest.raises(UsageError, match="holds a store already"):
        restore(tmp_path / "one.tar", tmp_path / "third", third)
