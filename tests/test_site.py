"""The reference pages of the documentation's site are made from the code."""

import importlib.util
import re
from pathlib import Path

import pytest
import typer

import focalis
from focalis.cli.main import app
from focalis.planning import Plan

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_line_page_has_every_command_and_option(hooks):
    page = hooks.command_line()
    for name, command in typer.main.get_command(app).commands.items():
        assert f"\n## focalis {name}\n" in page
        for parameter in command.params:
            name = parameter.opts[0]
            assert (name if name.startswith("-") else parameter.metavar or name.upper()) in page


def test_the_page_of_plan_keys_has_every_field_of_a_plan_and_its_default(hooks):
    page = hooks.plan_keys()
    for name in Plan.model_fields:
        assert f"| `{name}` | " in page
    assert "| `memory_budget_gb` | `float` | `8.0` |" in page
    assert "| `turn_limit_deg` | `float` | `30.0` |" in page


def test_the_python_page_has_every_public_name(hooks):
    page = hooks.python()
    for name in focalis.__all__:
        shown = rf"^::: focalis\.[\w.]+\n    options:\n      heading: {name}$"
        assert name == "__version__" or re.search(shown, page, re.MULTILINE)


class Page:
    """A page of the site, as MkDocs hands it over."""

    file = type("File", (), {"src_uri": "models.md"})


@pytest.mark.parametrize(
    ("given", "led"),
    [
        ("[fit](fit.md#folds)", "[fit](fit.md#folds)"),
        ("[card](../src/focalis/models/shapes.md)", "card (`src/focalis/models/shapes.md`)"),
        ("[home](https://example.org/a.md)", "[home](https://example.org/a.md)"),
        ("[gone](gone.md)", "[gone](gone.md)"),
        ("![picture](images/weights.png)", "![picture](images/weights.png)"),
        ("[one](tutorials/one.ipynb)", "[one](tutorials/one.md)"),
    ],
)
def test_a_link_out_of_the_pages_becomes_a_path(hooks, given, led):
    assert hooks.on_page_markdown(given, Page) == led


def test_a_notebook_becomes_a_page_of_text_and_code(hooks):
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Text."]},
        {"cell_type": "code", "source": ["a = 1\n", "a"]},
    ]
    assert hooks.page_of({"cells": cells}) == "# Title\nText.\n\n```python\na = 1\na\n```\n"
