"""The options of a prediction, checked before it computes anything or hands it to other processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from focalis.errors import UsageError
from focalis.model import Model, open_model
from focalis.models import model_file
from focalis.prediction import Settings
from focalis.workflows.case_images import CaseInput, codec_given
from focalis.workflows.result_files import ENDINGS

_SETTINGS = {"min_size_mm3": "minimum_mm3", "min_confidence": "minimum_confidence"}
"""The options whose setting has another name."""


@dataclass(frozen=True)
class Asked:
    """What a prediction is asked for.

    Attributes:
        file: the model's; None of a model in memory.
        codec: what `charset` names; None without it.
    """

    model: Model
    file: Path | None
    settings: Settings
    codec: str | None


def check_options(
    model: Path | str | Model,
    out: Path,
    *,
    output_format: str = "nifti",
    charset: str | None = None,
    strict: bool = False,
    settings: Settings | Mapping[str, Any] | None = None,
    **options: Any,
) -> Asked:
    """Check the options, and then whether the model can do what they ask for; see `predict` for them.

    Args:
        options: those of `predict` that `Settings` holds.

    Raises:
        UsageError: a value is wrong, contradicts another, or is not possible with this model or on this machine.
        ModelError: the model file cannot be used.
    """
    alone = Settings(**{_SETTINGS.get(name, name): value for name, value in options.items()})
    if settings is not None and (beside := [*alone.changed()]):
        raise UsageError(f"settings are given, and {', '.join(beside)} beside them; put all into settings")
    asked = alone if settings is None else Settings.given(settings)
    if output_format not in ENDINGS:
        raise UsageError(f"format {output_format!r} is not known; take one of {', '.join(ENDINGS)}")
    codec = codec_given(charset)
    if out.exists() and not out.is_dir():
        raise UsageError.at(out, "is a file", "give a folder for the results")
    file: Path | None = None
    if not isinstance(model, Model):
        file = model_file(model)
        model = open_model(file)
    if strict and model.scope is None:
        fault = (
            "the model does not know what it was trained on (fewer than five training cases, or an older file), so "
            "nothing can be refused for lying outside"
        )
        raise UsageError.of_option(
            f"strict: {fault}; leave strict out", f"--strict: {fault}; leave --strict out"
        )
    asked.for_model(model)
    return Asked(model, file, asked, codec)


def require_dicom(codec: str | None, cases: Sequence[CaseInput]) -> None:
    """UsageError if a character set is given, and no case has the headers that it is for."""
    if codec is not None and not any(case.series or case.problem for case in cases):
        fault = "charset is for text in DICOM headers, and no DICOM image is given; leave it out"
        raise UsageError.of_option(fault, f"--{fault}")
