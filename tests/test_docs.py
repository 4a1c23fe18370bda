"""The documentation: its snippets are Python, its commands and options exist, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from focalis.cli.main import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
SNIPPETS = [
    pytest.param(code, id=f"{name}-{number}")
    for name, text in TEXTS.items()
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
]
COMMAND_LINES = [
    pytest.param(line, id=f"{name}-{number}")
    for name, text in TEXTS.items()
    for number, line in enumerate(re.findall(r"^    (focalis .*)$", text, re.MULTILINE))
]


def options(command):
    """A command's options, those of its own commands included."""
    own = {
        name
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
        if name.startswith("-")
    }
    return own.union(*(options(below) for below in getattr(command, "commands", {}).values()))


OPTIONS = {name: options(found) for name, found in typer.main.get_command(app).commands.items()}


@pytest.mark.parametrize("code", SNIPPETS)
def test_snippets_are_valid_python(code):
    compile(code, "snippet", "exec")


def test_the_phantom_snippet_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", TEXTS["docs/phantoms.md"], re.DOTALL)

    exec(code, {})

    assert capsys.readouterr().out == "4 cases\n"
    assert (tmp_path / "phantoms" / "raters" / "phantom_000_r3.nii.gz").is_file()


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_command_lines_name_real_commands_and_options(line):
    _, command, *words = shlex.split(line.split("[")[0], comments=True)

    assert command in OPTIONS
    assert {word for word in words if word.startswith("-")} <= OPTIONS[command]


@pytest.mark.parametrize(
    ("command", "page"),
    [
        ("fit", "fit"),
        ("predict", "predict"),
        ("evaluate", "evaluate"),
        ("import", "dicom"),
        ("check", "check"),
        ("compare", "compare"),
        ("agree", "agree"),
        ("serve", "device"),
    ],
)
def test_a_commands_page_documents_exactly_its_options(command, page):
    rows = re.findall(r"^\| (`-.*?) \|", TEXTS[f"docs/{page}.md"], re.MULTILINE)
    documented = {option for row in rows for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", row)}

    assert documented == OPTIONS[command] - {"--help", "-h"}


@pytest.mark.parametrize("name", TEXTS)
def test_links_to_files_lead_somewhere(name):
    links = re.findall(r"(?<!!)\[[^\]]*\]\(([^)#:]+)\)", TEXTS[name])

    assert [link for link in links if not ((ROOT / name).parent / link).exists()] == []
