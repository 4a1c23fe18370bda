"""Several processes that share a PostgreSQL database: a front that takes in and sends, and workers that segment."""

import contextlib
import os
import subprocess
import sys

import dbos
import device_work
import pytest
from device_work import GRID, block, config, digest_of, in_this_process, keep_files, until, working
from postgresql import PASSWORD

from focalis.device import serve
from focalis.device.backup import back_up, restore
from focalis.device.config import load_config
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
    """focalis.toml of front and workers."""
    path = tmp_path / "focalis.toml"
    path.write_text(
        f'[store]\nfolder = "store"\ndatabase = "{address}"\nleast_free_gb = 0\n[node]\nquiet_seconds = 60\n'
        f'[[models]]\nname = "tiny"\nfile = "{model}"\n'
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
        (task.series_uid, result.path.read_text())
        for task in store.tasks("done")
        for result in store.results(task.task_id)
    ]


def keep_series(store, write_series, folder, count):
    """Put series into a store; by UID what the pretended workers make of each."""
    scans = [write_series(folder / str(number), block(900 + number), GRID) for number in range(count)]
    return {keep_files(store, files, expected=len(files)): digest_of(files) for files in scans}


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


def test_a_study_that_a_worker_took_and_never_began_is_begun_again(
    settings, write_series, tmp_path, monkeypatch
):
    original, failures = dbos._queue.execute_dequeued_workflow, [1]

    def execute(*given, **options):
        if failures:
            failures.pop()
            raise OSError("No space left on device")
        return original(*given, **options)

    monkeypatch.setattr(dbos._queue, "execute_dequeued_workflow", execute)
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
        for number in range(4):
            files = write_series(tmp_path / "in" / str(number), block(900 + number), GRID)
            keep_files(jobs.store, files, expected=len(files), person="p")

        def work():
            nonlocal most
            begun = [
                task for state in ("checking", "segmenting", "writing") for task in jobs.store.tasks(state)
            ]
            most = max(most, len({task.task_id for task in begun}))
            return len(jobs.store.tasks("done")) == 4

        until(work)
    assert most == 1


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
        first.own("front")
        with pytest.raises(UsageError, match="another focalis serve works with it"):
            second.own("front")


def test_a_front_that_starts_leaves_what_another_process_is_receiving(address, tmp_path):
    with Store(tmp_path, address) as other, Store(tmp_path, address) as front:
        new, old = other.stage(b"new"), other.stage(b"old")
        os.utime(old.path, (0, 0))
        front.own("front")
        assert (new.path.exists(), old.path.exists()) == (True, False)


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
