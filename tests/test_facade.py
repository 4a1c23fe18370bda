"""The facade: what `import focalis` offers, and what it costs."""

import importlib.metadata
import inspect
import subprocess
import sys

import pytest

import focalis

HEAVY = ("torch", "SimpleITK", "matplotlib", "scipy", "numpy", "pydantic")


@pytest.mark.parametrize("name", [name for name in focalis.__all__ if name != "__version__"])
def test_every_public_name_resolves_to_something_documented(name):
    value = getattr(focalis, name)

    assert callable(value)
    assert value.__doc__


@pytest.mark.parametrize(
    "name", ["agree", "check", "compare", "evaluate", "fit", "follow", "import_dicom", "predict"]
)
def test_a_path_may_be_given_as_text(name):
    kinds = {
        each.name: str(each.annotation)
        for each in inspect.signature(getattr(focalis, name)).parameters.values()
    }

    assert [each for each, kind in kinds.items() if "Path" in kind and "str" not in kind] == []


def test_the_version_is_the_installed_one():
    assert importlib.metadata.version("focalis") == focalis.__version__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = focalis.fitt


def test_importing_the_facade_loads_nothing_heavy():
    code = f"import focalis, sys; print([name for name in {HEAVY!r} if name in sys.modules])"

    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert output.strip() == "[]"
