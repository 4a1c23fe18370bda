"""The command line as a whole: exit codes, one line per error, and a light start."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from rich.text import Text

import focalis
from focalis.cli.main import app
from focalis.errors import DataError, UsageError
from focalis.plugins import Plugin

COMMANDS = ("fit", "predict", "evaluate", "compare", "agree", "check", "data", "import", "demo", "serve")
HEAVY = ("torch", "SimpleITK", "matplotlib", "scipy", "monai")


@pytest.fixture
def failing(monkeypatch):
    """Make the evaluate workflow raise an exception."""

    def install(error):
        def fail(*_args, **_kwargs):
            raise error

        monkeypatch.setattr("focalis.workflows.evaluate.evaluate", fail)

    return install


def test_version(run):
    assert run("--version") == (0, f"focalis {focalis.__version__}\n", "")


def test_help_leads_to_a_guide_that_is_there(run):
    code, folder, _ = run("--docs")
    assert code == 0
    assert "--docs" in typer.main.get_command(app).epilog
    for name, command in typer.main.get_command(app).commands.items():
        (page,) = re.findall(r"Guide: (\S+) in the folder that focalis --docs prints", command.epilog)
        assert (Path(folder.strip()) / page).is_file(), name


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_threads_do_not_spin_long_unless_told_to(run, monkeypatch, given, expected):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    run("--version")
    assert os.environ.get("GOMP_SPINCOUNT") == expected


def test_python_runs_the_package():
    command = [sys.executable, "-m", "focalis", "--version"]
    assert (
        subprocess.run(command, capture_output=True, text=True).stdout == f"focalis {focalis.__version__}\n"
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(run, command):
    code, out, _ = run(command, "--help")

    assert code == 0
    assert f"Example: focalis {command}" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_markup_of_help_swallows_no_word(command):
    for parameter in typer.main.get_command(app).commands[command].params:
        assert Text.from_markup(parameter.help or "").plain == (parameter.help or "")


@pytest.mark.parametrize("words", [["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help_loads_nothing_heavy(words):
    code = f"""
import sys
from focalis.cli.main import app, main
try:
    main({words!r})
except SystemExit:
    pass
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert output.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "words",
    [
        ["nonsense"],
        ["fit", "--nonsense"],
        ["fit"],
        ["fit", "data", "-o", "run", "--steps", "many"],
        ["predict", "model.safetensors", "-o", "masks"],
    ],
)
def test_wrong_usage_is_exit_code_2(run, words):
    code, out, err = run(*words)

    assert code == 2
    assert out == ""
    assert err


def test_a_word_that_is_no_choice_is_named_without_the_librarys_own_words(run):
    _, _, printed = run("predict", "m", "x", "-o", "y", "--format", "dicom")
    assert "'dicom' is not one of" in " ".join(printed.split())
    assert "Value error" not in printed


@pytest.mark.parametrize(("error", "code"), [(DataError("a.nii: is bad; mend it"), 1), (UsageError("no"), 2)])
def test_an_error_is_one_line_without_a_traceback(run, failing, error, code):
    failing(error)

    assert run("evaluate", "masks", "labels") == (code, "", f"error: {error}\n")


def test_each_fault_of_a_data_set_is_a_line(run, failing):
    failing(DataError.of_lines(["a.nii: is bad", "b.nii: is worse"]))

    assert run("evaluate", "masks", "labels") == (1, "", "error: a.nii: is bad\nerror: b.nii: is worse\n")


@pytest.mark.parametrize("words", [["--debug", "evaluate", "a", "b"], ["evaluate", "a", "b", "--debug"]])
def test_debug_shows_the_traceback_before_or_after_the_command(run, failing, words):
    failing(DataError("a.nii: is bad; mend it"))

    code, _, err = run(*words)

    assert code == 1
    assert "Traceback" in err
    assert err.endswith("error: a.nii: is bad; mend it\n")


def test_an_unexpected_error_is_one_line_too(run, failing):
    failing(RuntimeError("broken\ninside"))

    code, out, err = run("evaluate", "masks", "labels")

    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert "RuntimeError: broken inside; please report it" in err


def test_an_unexpected_error_in_a_plug_in_names_its_package(run, failing, monkeypatch):
    failing(RuntimeError("broken"))
    monkeypatch.setattr("focalis.plugins.at_fault", lambda _error: Plugin("loss", "mine", "lab", "1.2"))

    _, _, err = run("evaluate", "masks", "labels")

    assert err.startswith("error: unexpected RuntimeError: broken, from the plug-in package lab 1.2;")
    assert "report" not in err


@pytest.mark.parametrize(
    ("stop", "line"),
    [
        (KeyboardInterrupt("run: stopped after step 3"), "interrupted: run: stopped after step 3\n"),
        (
            KeyboardInterrupt(),
            "interrupted: files that were finished are whole, nothing half-written stays\n",
        ),
    ],
)
def test_ctrl_c_is_exit_code_130_and_says_what_was_saved(run, failing, stop, line):
    failing(stop)

    assert run("evaluate", "masks", "labels") == (130, "", line)


def test_a_model_that_is_not_there_is_named(run, tmp_path):
    code, _, err = run("predict", tmp_path / "no.safetensors", tmp_path, "-o", tmp_path / "out")

    assert code == 1
    assert str(tmp_path / "no.safetensors") in err
    assert err.count("\n") == 1


def test_what_the_system_refuses_is_named_and_is_not_a_bug(run, failing, tmp_path):
    failing(OSError(30, "Read-only file system", "/mnt/runs/fold_0"))
    code, _, said = run("evaluate", tmp_path, tmp_path)
    assert code == 1
    assert said == "error: /mnt/runs/fold_0: Read-only file system; check folder, disk and permissions\n"
