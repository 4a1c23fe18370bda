"""`focalis export`: a model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from focalis.cli.console import print_card


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model file, or a shipped model's name.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the exported model.")],
    to: Annotated[
        str, typer.Option(help="Format: onnx, openvino, torch (torch.export) or monai (a bundle).")
    ] = "onnx",
) -> None:
    """Write a model for programs without Focalis: the network, pipeline.json, and a program that uses both."""
    from focalis.export import BUNDLE, export_model
    from focalis.model import load_model
    from focalis.models import model_file

    loaded = load_model(model_file(model))
    worst = export_model(loaded, out, to)
    print_card(model)
    print(f"{out}: network, pipeline.json, predict.py; probabilities within {worst:.1g} of PyTorch's")
    channels = loaded.plan.channels
    images = [f"IMAGE_{channel}" for channel in channels] if len(channels) > 1 else ["IMAGE"]
    if to == BUNDLE:
        run = "python -m monai.bundle run --config_file configs/inference.json"
        print(f'try it in {out}: {run} --images "{images}" --mask MASK.nii.gz')
    else:
        print(f"try it: python {out / 'predict.py'} {' '.join(images)} MASK.nii.gz")
