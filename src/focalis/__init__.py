"""Focalis finds small, irregular objects in large 3D medical images.

The public surface: `agree`, `check`, `compare`, `fit`, `follow`, `predict`, `evaluate`, `import_dicom`, `get_data`;
`load`, which returns a `Model`; `Settings`, which say how to segment; and `FocalisError`, the base of every error that
is raised on purpose. Each name is imported when it is first used, so that `import focalis` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from focalis.errors import FocalisError
    from focalis.prediction import Settings
    from focalis.workflows.agree import agree
    from focalis.workflows.check import check
    from focalis.workflows.compare import compare
    from focalis.workflows.data import get_data
    from focalis.workflows.evaluate import evaluate
    from focalis.workflows.fit import fit
    from focalis.workflows.follow import follow
    from focalis.workflows.import_dicom import import_dicom
    from focalis.workflows.in_memory import LoadedModel as Model
    from focalis.workflows.in_memory import load
    from focalis.workflows.predict import predict

__version__ = "0.1.0"
__all__ = [
    "FocalisError",
    "Model",
    "Settings",
    "__version__",
    "agree",
    "check",
    "compare",
    "evaluate",
    "fit",
    "follow",
    "get_data",
    "import_dicom",
    "load",
    "predict",
]

_HOMES = {
    "FocalisError": ("focalis.errors", "FocalisError"),
    "agree": ("focalis.workflows.agree", "agree"),
    "check": ("focalis.workflows.check", "check"),
    "compare": ("focalis.workflows.compare", "compare"),
    "evaluate": ("focalis.workflows.evaluate", "evaluate"),
    "fit": ("focalis.workflows.fit", "fit"),
    "follow": ("focalis.workflows.follow", "follow"),
    "get_data": ("focalis.workflows.data", "get_data"),
    "import_dicom": ("focalis.workflows.import_dicom", "import_dicom"),
    "Model": ("focalis.workflows.in_memory", "LoadedModel"),
    "Settings": ("focalis.prediction", "Settings"),
    "load": ("focalis.workflows.in_memory", "load"),
    "predict": ("focalis.workflows.predict", "predict"),
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value: object = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
