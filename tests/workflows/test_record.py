"""What a result says of how it was made."""

import sys

import pytest

from focalis.workflows.record import changes, provenance


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["benchmarks/accuracy.py", "lidc_nodules"], "python benchmarks/accuracy.py lidc_nodules"),
        (["/opt/env/bin/focalis", "fit", "data"], "focalis fit data"),
        (["/opt/env/lib/focalis/__main__.py", "fit", "/home/someone/data"], "python -m focalis fit data"),
    ],
)
def test_the_command_is_one_that_can_be_typed_and_names_no_folder_of_this_machine(monkeypatch, argv, command):
    monkeypatch.setattr(sys, "argv", argv)
    assert provenance()["command"] == command


def test_changes_name_short_values_and_long_ones_by_their_names_alone():
    before = {"steps": 400, "aim": "dice", "cases": {"train": ["a"]}, "start": "x" * 64}
    now = {"steps": 800, "aim": "dice", "cases": {"train": ["b"]}, "start": "y" * 64, "promise": "miss<=10%"}
    assert changes(before, now) == "steps (400, now 800), cases, start, promise (None, now miss<=10%)"
