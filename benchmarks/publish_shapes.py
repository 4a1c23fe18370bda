"""The start that comes with Focalis, from a finished run of `pretrain_shapes.py`: weights, hash and card.

    python benchmarks/publish_shapes.py runs/shapes/classes

Kernels are stored in float16, which halves the file; the output layer is left out, for whoever takes the weights has
labels of its own. The card's figures are those of `shapes_trial.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import torch
from pretrain_shapes import TASKS, plan
from safetensors.torch import load_file, save_file
from shapes_trial import RESULTS, table

from focalis.files import sha256_of, whole_file, write_text
from focalis.models import FOLDER
from focalis.networks import build_network
from focalis.planning import SHAPES
from focalis.workflows.record import read_json

TEMPLATE = Path(__file__).with_name("shapes_card.md")
WHAT = {
    "classes": "background, blob, tube or sheet for every voxel",
    "classes+distance": "background, blob, tube or sheet for every voxel, and the distance to the blobs' border",
    "masked": "the image without noise, from one with blocks cut out",
    "classes+masked": "background, blob, tube or sheet for every voxel, and the image, from one with blocks cut out",
}
assert set(WHAT) == set(TASKS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write weights, hash and card."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the folder that pretrain_shapes.py wrote")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    record = read_json(options.run / "record.json")
    target = options.out / f"{SHAPES}.safetensors"
    recipe = {name: str(record[name]) for name in ("task", "steps", "seed", "revision")}
    with whole_file(target) as temporary:
        save_file(trunk(load_file(options.run / "start.safetensors")), temporary, metadata=recipe)
    digest = sha256_of(target)
    write_text(options.out / f"{SHAPES}.sha256", f"{digest}  {target.name}\n")
    write_text(options.out / f"{SHAPES}.md", card(record, target, digest, table(options.results)))
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


def trunk(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """All but the output layer, kernels in float16."""
    settings = plan().network
    network = build_network(settings.name, settings.strides_zyx, 1, 2)
    heads = {id(parameter) for head in network.heads() for parameter in head.parameters()}
    left_out = {name for name, parameter in network.named_parameters() if id(parameter) in heads}
    return {
        name: tensor.half() if tensor.dim() > 1 else tensor
        for name, tensor in state.items()
        if name not in left_out
    }


def card(record: Mapping[str, Any], target: Path, digest: str, figures: str) -> str:
    """The card as Markdown."""
    dice = ", ".join(f"{name} {value:.3f}" for name, value in record["dice"].items())
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        record,
        file=target.name,
        megabytes=f"{target.stat().st_size / 1e6:.1f}",
        sha256=digest,
        what=WHAT[record["task"]],
        patch=" x ".join(map(str, record["patch_zyx"])),
        hours=f"{record['seconds'] / 3600:.1f}",
        dice=dice or "not applicable",
        table=figures,
    )


if __name__ == "__main__":
    main()
