"""Nothing that computes speaks to another machine, also where a library would by itself."""

import os
import subprocess
import sys

import pytest
from small_plan import small_plan

from focalis.export import FORMATS
from focalis.model import Model, save_model
from focalis.planning.parts import network_of

RECORDED = """
import runpy
import sys
from pathlib import Path

def record(event, given):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "os.fork"):
        with open(sys.argv[1], "a") as calls:
            print(event, given, file=calls)

sys.addaudithook(record)
home = Path(sys.argv[2])
"""
PREDICT = """
from focalis.prediction import runtime_for
from focalis.model import load_model

model = load_model(home / "model.safetensors")
runtime_for(model, "openvino", cache=home / "cache")
"""
EXPORT = """
import numpy as np
import SimpleITK as sitk
from focalis.export import export_model
from focalis.model import load_model

export_model(load_model(home / "model.safetensors"), home / "out", "{to}")
program = home / "out" / "predict.py"
if program.exists():
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((16, 16, 16), np.float32)), home / "image.nii.gz")
    sys.argv = [str(program), str(home / "image.nii.gz"), str(home / "mask.nii.gz")]
    runpy.run_path(str(program), run_name="__main__")
    assert (home / "mask.nii.gz").exists()
"""


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(PREDICT, id="a conversion"),
        *(
            pytest.param(EXPORT.format(to=to), id=to, marks=[pytest.mark.slow] if to != "openvino" else [])
            for to in FORMATS
        ),
    ],
)
def test_no_run_time_and_no_export_speaks_to_anybody(code, tmp_path):
    pytest.importorskip("openvino")
    plan = small_plan()
    save_model(Model(plan, (network_of(plan).eval(),)), tmp_path / "model.safetensors")
    user = tmp_path / "user"
    user.mkdir()
    hidden = ("CI", "TF_BUILD", "JENKINS_URL", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    calls = tmp_path / "calls"

    subprocess.run(
        [sys.executable, "-c", RECORDED + code, str(calls), str(tmp_path)],
        check=True,
        env={**environment, "HOME": str(user)},
    )

    assert not calls.exists(), calls.read_text()
    assert not list(user.rglob("*intel*"))
