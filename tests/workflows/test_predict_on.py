"""A prediction in parts, wherever these are carried out, comes to what one process writes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from device_work import GRID, block, save_tiny_model
from typer.testing import CliRunner

from focalis.cli.main import app
from focalis.errors import TrainingError, UsageError
from focalis.volume import Volume, write_volume
from focalis.workflows import executors
from focalis.workflows import predict_on as module
from focalis.workflows.executors import Executor
from focalis.workflows.part import plain
from focalis.workflows.predict import predict
from focalis.workflows.predict_on import predict_on
from focalis.workflows.task import read_task

OPTIONS = {"device": "cpu", "runtime": "torch", "precision": "float32", "memory_gb": 2.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model") / "model.safetensors")


@pytest.fixture
def images(tmp_path):
    for number in range(5):
        values = np.random.default_rng(number).normal(size=GRID.shape_zyx).astype(np.float32) + block()
        write_volume(Volume(values, GRID), tmp_path / "images" / f"case{number}.nii.gz")
    (tmp_path / "images" / "case3.nii.gz").write_bytes(b"no image")
    return tmp_path / "images"


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(module, "CASES_PER_PART", 2)


def results(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def told(report):
    """What a report says, except times and folders."""
    return [
        (row.case, row.status, row.reason, row.foreground_voxels, row.lesions, row.tiles)
        for row in report.rows
    ]


@pytest.mark.usefixtures("small_parts")
def test_parts_come_to_the_bytes_and_the_rows_of_one_run(model, images, tmp_path):
    stages = []
    alone = predict(model, [images], tmp_path / "one", **OPTIONS)
    report, left = predict_on(
        "here", model, [images], tmp_path / "parts", tell=lambda *words: stages.append(words[0]), **OPTIONS
    )
    assert left == ""
    assert told(report) == told(alone)
    assert len(report.refused) == 1
    assert results(tmp_path / "parts") == results(tmp_path / "one")
    assert [*dict.fromkeys(stages)] == ["part 1/3", "part 2/3", "part 3/3"]


def test_series_of_dicom_are_predicted_in_parts(model, write_series, tmp_path):
    for name in ("a", "b"):
        write_series(tmp_path / "in" / name, block(), GRID)
    predict(model, [tmp_path / "in"], tmp_path / "one", output_format="seg", **OPTIONS)
    predict_on("here", model, [tmp_path / "in"], tmp_path / "parts", output_format="seg", **OPTIONS)
    one, parts = results(tmp_path / "one"), results(tmp_path / "parts")
    assert parts.keys() == one.keys()
    assert parts[Path("lesions/a.json")] == one[Path("lesions/a.json")]


def test_finished_cases_are_kept(model, images, tmp_path):
    predict(model, [images / "case1.nii.gz"], tmp_path / "out", **OPTIONS)
    report, _ = predict_on("here", model, [images], tmp_path / "out", **OPTIONS)
    assert [row.status for row in report.rows] == ["done", "kept", "done", "refused", "done"]


@pytest.mark.usefixtures("small_parts")
def test_on_slurm_parts_are_written_down_and_collected_when_they_are_finished(model, images, tmp_path):
    call = ["slurm", model, [images], tmp_path / "out"]
    report, left = predict_on(*call, parallel=2, threads=3, **OPTIONS)
    script = (tmp_path / "out" / "tasks" / "job.sh").read_text()
    assert report is None
    assert left.startswith("submit the parts with: sbatch ")
    assert {"#SBATCH --array=0-2%2", "#SBATCH --cpus-per-task=3", "#SBATCH --mem=3G"} <= set(
        script.splitlines()
    )
    part = read_task(tmp_path / "out" / "tasks" / "1.json")
    assert [Path(each["files"][0]).name for each in part.inputs] == ["case1.nii.gz", "case4.nii.gz"]
    assert CliRunner().invoke(app, ["work", str(tmp_path / "out" / "tasks" / "1.json")]).exit_code == 0
    _, left = predict_on(*call, parallel=2, threads=3, **OPTIONS)
    assert left.startswith("1 of 3 parts are finished; ")
    assert "--array=0,2 " in left


def test_parts_in_processes_share_the_threads(model, images, tmp_path, monkeypatch):
    began = []
    recording = Executor(lambda parts, parallel, _tell: began.append((parts, parallel)) or "later")
    monkeypatch.setitem(executors.OWN, "processes", recording)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 20)
    for parallel, threads in ((2, 8), (2, 1), (40, 15), (2, None), (1, 8)):
        predict_on(
            "processes", model, [images], tmp_path / "out", parallel=parallel, threads=threads, **OPTIONS
        )
    assert [({part.threads for part in parts}, parallel) for parts, parallel in began] == [
        ({4}, 2),
        ({1}, 2),
        ({3}, 5),  # five cases are no more than five parts
        ({10}, 2),
        ({8}, 1),
    ]


@pytest.mark.parametrize("on", ["slurm", "processes"])
@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--threshold", "2"], "threshold 2.0 does not lie between 0 and 1"),
        (["--charset", "nonsense"], "--charset: "),
        (["--charset", "ISO_IR 144"], "--charset is for text in DICOM headers"),
        (["--strict"], "--strict: the model does not know"),
        (["--refine"], "the model holds no refinement"),
        (["--uncertainty"], "uncertainty needs several passes"),
    ],
)
def test_a_wrong_option_is_refused_in_a_line_before_anything_is_written(
    model, images, tmp_path, on, more, said
):
    words = ["predict", str(model), str(images), "-o", str(tmp_path / "out"), "--on", on]
    refused = CliRunner().invoke(app, [*words, *more])
    assert refused.exit_code == 2
    assert said in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_device_that_only_the_cluster_has_may_be_named(model, images, tmp_path):
    options = OPTIONS | {"device": "cuda:99"}
    _, left = predict_on("slurm", model, [images], tmp_path / "out", **options)
    assert left.startswith("submit the parts with: sbatch ")


def test_on_slurm_the_options_that_differ_are_named(model, images, tmp_path):
    predict_on("slurm", model, [images], tmp_path / "out", **OPTIONS)
    with pytest.raises(UsageError) as refused:
        predict_on("slurm", model, [images], tmp_path / "out", **OPTIONS, threshold=0.25)
    assert "was written with other settings: threshold (None, now 0.25); give a new folder" in str(
        refused.value
    )


def test_a_part_without_dicom_takes_a_character_set_that_others_need(
    model, images, write_series, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "CASES_PER_PART", 1)
    write_series(tmp_path / "in" / "a", block(), GRID)
    inputs = [tmp_path / "in" / "a", images / "case0.nii.gz"]
    report, _ = predict_on("here", model, inputs, tmp_path / "out", charset="ISO_IR 144", **OPTIONS)
    assert {row.case: row.status for row in report.rows} == {"a": "done", "case0": "done"}


def test_a_file_of_a_case_keeps_the_name_of_its_link(images, tmp_path):
    from focalis.workflows.inputs import find_cases

    (tmp_path / "scan.nii.gz").symlink_to(images / "case0.nii.gz")
    (case,) = find_cases([tmp_path / "scan.nii.gz"], ("image",))
    assert plain(case)["files"] == [str(tmp_path / "scan.nii.gz")]


@pytest.mark.parametrize("more", [["--part", "1/2"], ["--at", "1,2,3"]])
def test_what_has_no_parts_is_refused(images, more):
    said = CliRunner().invoke(app, ["predict", "shapes", str(images), "-o", "out", "--on", "here", *more])
    assert said.exit_code == 2
    assert "leave --part, --at or --on out" in said.output


def test_an_unknown_executor_is_refused(model, images, tmp_path):
    with pytest.raises(UsageError, match="unknown executor 'nowhere'"):
        predict_on("nowhere", model, [images], tmp_path / "out", **OPTIONS)


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
def test_a_part_whose_process_was_killed_is_reported_and_the_same_call_goes_on(
    model, images, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "src"))
    predict(model, [images], tmp_path / "one", **OPTIONS)
    killed = []

    def kill(stage, _progress):
        if stage == "part 2/3" and not killed:
            log = tmp_path / "out" / "tasks" / "part_2" / ".lock"
            assert log.exists()
            children = subprocess.run(
                ["pgrep", "-P", str(os.getpid()), "-f", "focalis.workflows.executors"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()
            killed.append(children[-1])
            os.kill(int(children[-1]), signal.SIGKILL)

    with pytest.raises(TrainingError, match=r"part \d/3: the process was ended by SIGKILL"):
        predict_on("processes", model, [images], tmp_path / "out", parallel=2, tell=kill, **OPTIONS)
    report, _ = predict_on("processes", model, [images], tmp_path / "out", parallel=2, **OPTIONS)
    assert len(report.rows) == 5
    assert results(tmp_path / "out") == results(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
def test_forty_scans_on_ray_with_killed_workers_come_to_the_bytes_of_one_process(
    model, tmp_path, monkeypatch
):
    pytest.importorskip("ray")
    for number in range(40):
        values = np.random.default_rng(number).normal(size=GRID.shape_zyx).astype(np.float32) + block()
        write_volume(Volume(values, GRID), tmp_path / "images" / f"case{number}.nii.gz")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "src"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = [
        each for name, value in OPTIONS.items() for each in (f"--{name.replace('_', '-')}", str(value))
    ]
    words = [sys.executable, "-m", "focalis", "predict", str(model), str(tmp_path / "images"), *options]
    subprocess.run([*words, "-o", str(tmp_path / "one")], check=True, capture_output=True)
    on = ["--on", "ray", "--threads", "1", "--parallel", "2"]
    command = subprocess.Popen([*words, "-o", str(tmp_path / "out"), *on], stdout=subprocess.PIPE)
    killed, seen = 0, set()
    while command.poll() is None:
        for part in (tmp_path / "out" / "tasks").glob("part_*"):
            process = holder(part / ".lock")
            if killed < 3 and process and process not in seen:
                seen.add(process)
                os.kill(process, signal.SIGKILL)
                killed += 1
        time.sleep(0.05)
    assert killed == 3
    assert command.returncode == 0
    assert b"40 of 40 cases" in command.stdout.read()
    assert results(tmp_path / "out") == results(tmp_path / "one")


def holder(lock):
    """The process that has a file open."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(each.readlink()) == str(lock) for each in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:
            continue
    return None
