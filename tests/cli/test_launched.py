"""A training under torchrun: one voice, and a whole run folder although a process dies."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from focalis.dataset.phantoms import PhantomSettings, write_phantoms
from focalis.model import load_model
from focalis.training import read_metrics
from focalis.workflows.fit import fit
from focalis.workflows.record import read_json

SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture
def data(tmp_path):
    settings = PhantomSettings(shape_zyx=(20, 24, 28), foreground_share=0.01, lesions=1)
    write_phantoms(tmp_path / "data", 6, settings, 0)
    return tmp_path / "data"


def torchrun(*options, words):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", *options]
    given = [str(word) for word in words]
    return subprocess.Popen(
        [*command, "-m", "focalis", "fit", *given, "--device", "cpu", "--memory-gb", "2"],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ranks_of(launcher):
    """The processes that a launcher started, by their rank."""
    found = {}
    for home in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((home / "stat").read_text().rsplit(")", 1)[1].split()[1])
            said = dict(
                line.partition("=")[::2] for line in (home / "environ").read_text().split("\0") if "=" in line
            )
        except (OSError, ValueError):
            continue
        if parent == launcher.pid and "RANK" in said:
            found[int(said["RANK"])] = int(home.name)
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_process_is_started_again_and_the_run_is_whole(data, tmp_path):
    run = tmp_path / "run"
    launcher = torchrun("2", "--max-restarts", "2", words=(data, "-o", run, "--steps", 120))
    limit = time.monotonic() + 300
    while not (run / "metrics.jsonl").exists() or len(read_metrics(run)) < 3:
        assert launcher.poll() is None, launcher.communicate()
        assert time.monotonic() < limit
        time.sleep(0.2)
    os.kill(ranks_of(launcher)[1], signal.SIGKILL)
    said, errors = launcher.communicate(timeout=400)

    assert launcher.returncode == 0, errors
    assert said.count("report: ") == 1
    assert [row["step"] for row in read_metrics(run)] == [*range(10, 121, 10)]
    record = read_json(run / "record.json")
    assert record["processes"] == 2
    assert record["finished"]
    assert len(load_model(run / "model.safetensors").members) == 1
    assert (run / "report.html").exists()
    assert read_json(run / "outcome.json") == {"outcome": "finished"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_more_processes_than_samples_of_a_batch_are_refused_once(data, tmp_path):
    plan = fit(data, tmp_path / "planned", plan_only=True).plan
    text = re.sub(r"(?m)^batch: \d+", "batch: 2", plan.read_text())
    plan.write_text(text)
    launcher = torchrun("3", words=(data, "-o", tmp_path / "run", "--steps", 2, "--plan", plan))
    _, errors = launcher.communicate(timeout=300)

    assert launcher.returncode == 1
    assert errors.count("error: 3 processes cannot share a batch of 2; raise batch in the plan") == 1


ASKED = """
import os, sys
from focalis.cli.launched import launched

with launched(lambda: len(os.listdir(sys.argv[1])) > 0) as anew:
    print("go on" if anew else "begin", flush=True)
    open(os.path.join(sys.argv[1], "run"), "w").close()
sys.exit(1)
"""


@pytest.mark.parametrize(("before", "said"), [(False, ["begin", "go on"]), (True, ["begin", "begin"])])
def test_a_restart_goes_on_with_the_launchers_own_run_alone(tmp_path, before, said):
    folder, script = tmp_path / "run", tmp_path / "asked.py"
    folder.mkdir()
    script.write_text(ASKED)
    if before:
        (folder / "another run").touch()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"]
    done = subprocess.run(
        [*command, "--max-restarts", "1", script, folder],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == " ".join(said).split()
