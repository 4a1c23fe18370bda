"""A computation without its data: tensors have a shape and a type, and nothing is computed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)

_NEED_DATA = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
    NotImplementedError,
)
_WORDS = ("faketensor", "tensor subclass", "data pointer", "device meta", "meta tensor")
"""Of what PyTorch says where code takes a tensor's values for something that PyTorch does not see."""


@contextmanager
def dry() -> Iterator[FakeTensorMode]:
    """A context in which tensors have no data. Build networks outside: what builds them may need its data.

    PyTorch's log stays silent: it tells of an error with a traceback before it raises it.
    """
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        with FakeTensorMode(allow_non_fake_inputs=True) as mode:
            yield mode
    finally:
        log.disabled = before


def needs_data(error: Exception) -> bool:
    """Whether an error in `dry` says that the computation cannot run without data, not that it is wrong."""
    words = str(error).lower()
    return isinstance(error, _NEED_DATA) or any(word in words for word in _WORDS)
