"""`fit` with nothing left out: the charts are drawn, and the plan is made by the memory that training takes."""

import re
from base64 import b64decode
from io import BytesIO

import pytest
from PIL import Image

from focalis.planning import read_plan
from focalis.planning.step_memory import training_bytes
from focalis.workflows.fit import fit


@pytest.fixture(scope="module", autouse=True)
def _what_is_tested_below_takes_no_time():
    """Takes the place of the fixture that leaves charts and estimate out."""


@pytest.mark.slow
def test_a_run_draws_its_charts_and_is_planned_by_what_training_takes(phantoms, tmp_path):
    result = fit(phantoms, tmp_path / "run", steps=1, fold=0)

    plan = read_plan(result.plan)
    assert plan.reasons["memory_budget_gb"].endswith(f"{training_bytes(plan) / 1e9:.1f} GB")
    charts = re.findall(r"data:image/png;base64,([\w+/=]+)", result.report.read_text(encoding="utf-8"))
    assert charts
    assert min(min(Image.open(BytesIO(b64decode(chart))).size) for chart in charts) > 100
