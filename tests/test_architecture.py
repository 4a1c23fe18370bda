"""Rules that the source holds as a whole; the floors themselves are held by import-linter (`make check`)."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import focalis

SOURCE = Path(focalis.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
TORCH_FREE = (
    "focalis.cli.main",
    "focalis.device.node",
    "focalis.device.store",
    "focalis.dataset",
    "focalis.evaluation",
    "focalis.lesions",
    "focalis.quality",
    "focalis.report",
    "focalis.volume",
)
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def imported_modules(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def calls(tree: ast.AST) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_file_unpickles(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))

    assert not imported_modules(tree) & UNPICKLERS
    assert not calls(tree) & {"torch.load", "torch.save", "yaml.load", "eval", "exec"}
    allowing = [
        keyword
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "allow_pickle" and ast.unparse(keyword.value) != "False"
    ]
    assert not allowing


def reads_the_environment(node: ast.AST) -> bool:
    """Setting a variable for another library does not count as reading it."""
    sets = isinstance(node, ast.Attribute) and node.attr == "setdefault"
    if sets and isinstance(node.value, ast.Attribute) and node.value.attr == "environ":
        node.value.attr = "set"  # the walk comes to it after this one
    return (isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}) or (
        isinstance(node, ast.ImportFrom)
        and node.module == "os"
        and any("env" in alias.name for alias in node.names)
    )


def test_the_environment_is_read_at_the_edge_only():
    readers = {
        path.relative_to(SOURCE).parts[0]
        for path in FILES
        if any(reads_the_environment(node) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    }

    assert readers <= {"cli"}


@pytest.mark.parametrize("module", TORCH_FREE)
def test_importing_it_does_not_load_torch(module):
    code = f"import {module}, sys; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_every_module_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
