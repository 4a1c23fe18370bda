"""Trainings as an array job: what is written down, what is said, and a real Slurm on this machine."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from device_work import GRID, block, save_tiny_model
from small_plan import small_plan

from focalis.dataset import PhantomSettings, Split, write_phantoms
from focalis.errors import DataError, UsageError
from focalis.model import load_model
from focalis.planning import write_plan
from focalis.settings import Compute, Length
from focalis.volume import Volume, write_volume
from focalis.workflows import predict_on
from focalis.workflows.compare import compare
from focalis.workflows.fit import fit
from focalis.workflows.predict import predict
from focalis.workflows.slurm import slurm
from focalis.workflows.task import Task, read_task


def quiet(*_told):
    pass


@pytest.fixture
def make(tmp_path):
    plan = small_plan(memory_budget_gb=2.5)

    def call(folds, **changes):
        options = {
            "dataset": Path("data"),
            "labels": {1: "lesion"},
            "holds": {},
            "prepared": tmp_path / "a run" / "prepared",
            "split": Split(("a",), ("b",)),
            "plan": plan,
            "seed": 0,
            "length": Length(steps=1),
            "compute": Compute(threads=3),
            "resume": False,
            "record": {"command": "fit"},
        }
        return [
            Task(
                name=f"fold {fold}", home=tmp_path / "a run" / f"fold_{fold}", fold=fold, **options | changes
            )
            for fold in folds
        ]

    return call


def end(task, outcome):
    task.home.mkdir(parents=True)
    (task.home / "outcome.json").write_text(json.dumps(outcome))


def test_tasks_and_a_script_are_written_and_the_line_to_submit_them_is_reported(make, tmp_path):
    said = slurm(make(range(3)), 2, quiet)

    folder = tmp_path / "a run" / "tasks"
    script = (folder / "job.sh").read_text()
    assert f"sbatch '{folder}/job.sh'" in said
    assert {"#SBATCH --array=0-2%2", "#SBATCH --cpus-per-task=3", "#SBATCH --mem=5G"} <= set(
        script.splitlines()
    )
    assert len(script.splitlines()) < 24
    assert subprocess.run(["bash", "-n", folder / "job.sh"], check=False).returncode == 0
    written = read_task(folder / "1.json")
    assert (written.name, written.resume) == ("fold 1", True)
    assert written.dataset == Path("data").resolve()


def test_the_same_call_again_collects(make):
    tasks = make(range(4))
    slurm(tasks, 1, quiet)
    end(tasks[0], {"outcome": "finished"})
    end(tasks[2], {"outcome": "diverged", "message": "at step 3"})

    said = slurm(make(range(4)), 1, quiet)

    assert said.startswith("1 of 4 trainings are finished; fold 2: at step 3; ")
    assert "sbatch --array=1-3 " in said
    (tasks[2].home / "outcome.json").write_text('{"outcome": "finished"}')
    for task in (tasks[1], tasks[3]):
        end(task, {"outcome": "finished"})
    assert slurm(make(range(4)), 1, quiet) == ""


def test_why_a_plan_is_so_may_be_said_otherwise_the_next_time(make):
    slurm(make(range(2), plan=small_plan(reasons={"start": "as asked for"})), 1, quiet)
    said = slurm(make(range(2), plan=small_plan(reasons={"start": "as in the rows there"})), 1, quiet)
    assert said.startswith("0 of 2 trainings are finished")
    with pytest.raises(UsageError, match="other settings: plan"):
        slurm(make(range(2), plan=small_plan(batch=3)), 1, quiet)


def test_a_task_keeps_its_number_when_others_are_added(make, tmp_path):
    slurm(make([5, 7]), 1, quiet)

    said = slurm(make([6, 7, 5]), 1, quiet)

    assert "--array=0-2 " in said
    names = [read_task(tmp_path / "a run" / "tasks" / f"{n}.json").name for n in range(3)]
    assert names == ["fold 5", "fold 7", "fold 6"]


@pytest.mark.parametrize(
    ("changes", "what"),
    [({"seed": 1}, "seed"), ({"length": Length(steps=2)}, "length"), ({"aim": "x"}, "aim")],
)
def test_other_trainings_are_not_mixed_in(make, changes, what):
    slurm(make([0]), 1, quiet)
    with pytest.raises(
        UsageError, match=rf"0\.json: was written with other settings: {what}.*; give a new folder"
    ):
        slurm(make([0], **changes), 1, quiet)


def test_a_file_that_is_not_a_task_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"0\.json: is not there; give a task file that --on slurm wrote"):
        read_task(tmp_path / "0.json")
    (tmp_path / "0.json").write_text('{"name": "x"}')
    with pytest.raises(DataError, match=r"0\.json: is not a task \(home: "):
        read_task(tmp_path / "0.json")


CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmctldPort={first}
SlurmdPort={second}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
ReturnToService=2
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=10000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def cluster(monkeypatch):
    """Debian's Slurm with munge, on loopback; its own folder, because the path of a socket must be short."""
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/sbin")
    programs = [shutil.which(name) for name in ("munged", "slurmctld", "slurmd")]
    if None in programs or os.geteuid() != 0:
        pytest.skip("needs munge, slurmctld and slurmd, and to be root")
    with tempfile.TemporaryDirectory(prefix="slurm") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "key").write_bytes(os.urandom(1024))
        (folder / "key").chmod(0o400)
        host = socket.gethostname().partition(".")[0]
        ports = {"first": free_port(), "second": free_port()}
        text = CONFIGURATION.format(host=host, folder=folder, cpus=os.cpu_count(), **ports)
        (folder / "slurm.conf").write_text(text)
        monkeypatch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        munged, *others = programs
        own = [f"--{kind}-file={folder}/munged.{kind}" for kind in ("pid", "log", "seed")]
        munge = [munged, "-F", "--force", f"--key-file={folder}/key", f"--socket={folder}/munge.socket", *own]
        with (folder / "out").open("w") as out:
            started = [subprocess.Popen(munge, stdout=out, stderr=out)]
            time.sleep(1)
            started += [subprocess.Popen([program, "-D"], stdout=out, stderr=out) for program in others]
        try:
            until(lambda: "idle" in run("sinfo"))
            yield folder
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait(timeout=60)


def run(*words):
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def until(true, seconds=600):
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.5)


@pytest.mark.slow
@pytest.mark.timeout(900)  # Slurm holds a requeued job back for two minutes
@pytest.mark.filterwarnings("ignore::focalis.training.NothingLearnedWarning")
@pytest.mark.usefixtures("cluster")
def test_folds_on_a_real_slurm_one_of_them_requeued_come_to_what_they_come_to_here(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "src"))
    write_phantoms(
        tmp_path / "data", 6, PhantomSettings(shape_zyx=(16, 20, 20), foreground_share=0.02, lesions=1), 0
    )
    write_plan(small_plan(), tmp_path / "plan.yaml")
    options = {"steps": 80, "folds": 2, "threads": 1, "memory_gb": 2.0, "device": "cpu"}
    options["plan"] = tmp_path / "plan.yaml"
    again = {**options, "on": "slurm"}

    left = fit(tmp_path / "data", tmp_path / "run", **again).left
    submitted = run("sbatch", *left.split("sbatch ")[1].split(";")[0].split())
    job = submitted.split()[-1]
    until(lambda: (tmp_path / "run" / "fold_0" / "metrics.jsonl").exists())
    time.sleep(2)
    run("scontrol", "requeue", f"{job}_0")
    assert "trainings are finished" in fit(tmp_path / "data", tmp_path / "run", **again).left
    until(lambda: not run("squeue", "--noheader").strip())
    result = fit(tmp_path / "data", tmp_path / "run", **again)

    alone = fit(tmp_path / "data", tmp_path / "here", **options)
    assert result.left == ""
    one, other = load_model(result.model), load_model(alone.model)
    for member, twin in zip(one.members, other.members, strict=True):
        for value, same in zip(member.state_dict().values(), twin.state_dict().values(), strict=True):
            assert torch.equal(value, same)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("cluster")
def test_parts_of_a_prediction_on_a_real_slurm_come_to_the_bytes_of_one_process(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "src"))
    monkeypatch.setattr(predict_on, "CASES_PER_PART", 2)
    model = save_tiny_model(tmp_path / "model.safetensors")
    for number in range(3):
        values = np.random.default_rng(number).normal(size=GRID.shape_zyx).astype(np.float32) + block()
        write_volume(Volume(values, GRID), tmp_path / "images" / f"case{number}.nii.gz")
    options = {"device": "cpu", "runtime": "torch", "precision": "float32", "memory_gb": 2.0}
    call = partial(predict_on.predict_on, "slurm", model, [tmp_path / "images"], tmp_path / "out", **options)

    _, left = call(threads=1)
    run("sbatch", *left.split("sbatch ")[1].split(";")[0].split())
    until(lambda: not run("squeue", "--noheader").strip())
    report, left = call(threads=1)

    predict(model, [tmp_path / "images"], tmp_path / "one", **options)
    assert left == ""
    assert [row.status for row in report.rows] == ["done", "done", "done"]
    for path in (tmp_path / "one").rglob("*"):
        other = tmp_path / "out" / path.relative_to(tmp_path / "one")
        assert path.is_dir() or path.read_bytes() == other.read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_rows_of_a_comparison_on_a_real_slurm_come_to_what_they_come_to_here(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "src"))
    settings = PhantomSettings(shape_zyx=(16, 20, 20), foreground_share=0.02, lesions=1)
    write_phantoms(tmp_path / "data", 6, settings, 0)
    options = {"steps": 2, "threads": 1, "memory_gb": 2.0, "device": "cpu"}
    options["losses"] = ("dice_cross_entropy", "distance_focal")

    left = compare(tmp_path / "data", tmp_path / "run", on="slurm", **options).left
    run("sbatch", *left.split("sbatch ")[1].split(";")[0].split())
    until(lambda: not run("squeue", "--noheader").strip())
    result = compare(tmp_path / "data", tmp_path / "run", on="slurm", **options)

    alone = compare(tmp_path / "data", tmp_path / "here", **options)
    assert result.left == ""
    assert [row["figures"]["overall"]["dice"] for row in result.content["rows"]] == [
        row["figures"]["overall"]["dice"] for row in alone.content["rows"]
    ]
