"""A benchmark that runs for hours, once a year, must not fail at its imports: the library holds what it takes."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_the_library_holds_what_a_benchmark_imports(path):
    lacking = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith("focalis"):
            continue
        module = import_module(node.module)
        lacking += [
            f"{node.module}.{each.name}"
            for each in node.names
            if not hasattr(module, each.name) and not _is_module(f"{node.module}.{each.name}")
        ]
    assert lacking == []


def _is_module(name):
    try:
        import_module(name)
    except ModuleNotFoundError:
        return False
    return True
