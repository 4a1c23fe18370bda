"""`focalis export`: a model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file, or a model's name.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The new folder.")],
    to: Annotated[str, typer.Option(help="onnx, openvino or torch (torch.export).")] = "onnx",
) -> None:
    """Write a model for programs that do not know Focalis: network, pipeline.json, and a program that uses both."""
    from focalis.export import export_model
    from focalis.model import load_model
    from focalis.models import model_file

    worst = export_model(load_model(model_file(model)), out, to)
    print(f"{out}: network, pipeline.json, predict.py; probabilities within {worst:.1g} of PyTorch's")
    print(f"try it: python {out / 'predict.py'} IMAGE MASK.nii.gz")
