"""The start that comes with Focalis, from a finished run of `pretrain_shapes.py`: weights, hash and card.

    python benchmarks/pretrain_shapes.py --steps 3000 --out runs/shapes-3000
    python benchmarks/publish_shapes.py runs/shapes-3000

and the same with `--network small-unet`, for the start of that network.

Kernels are stored in float16, which halves the file. The card's figures are those of `shapes_trial.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from safetensors.torch import load_file, save_file
from shapes_trial import RESULTS, table

from focalis.files import sha256_of, whole_file, write_text
from focalis.models import FOLDER
from focalis.planning import SHAPES_OF
from focalis.training.start import ANY_LESION, OUTPUT
from focalis.workflows.record import read_json


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
    network = record.get("network", "dense")
    name = SHAPES_OF[network]
    target = options.out / f"{name}.safetensors"
    recipe = {OUTPUT: ANY_LESION, **{key: str(record[key]) for key in ("steps", "seed", "revision")}}
    state = load_file(options.run / "start.safetensors")
    with whole_file(target) as temporary:
        halved = {key: tensor.half() if tensor.dim() > 1 else tensor for key, tensor in state.items()}
        save_file(halved, temporary, metadata=recipe)
    digest = sha256_of(target)
    write_text(options.out / f"{name}.sha256", f"{digest}  {target.name}\n")
    template = Path(__file__).with_name(f"{name}_card.md").read_text(encoding="utf-8")
    write_text(
        options.out / f"{name}.md", card(template, record, target, digest, table(options.results, network))
    )
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


def card(template: str, record: Mapping[str, Any], target: Path, digest: str, figures: str) -> str:
    """The card as Markdown."""
    dice = ", ".join(f"{name} {value:.3f}" for name, value in record["dice"].items())
    return Template(template).substitute(
        record,
        file=target.name,
        megabytes=f"{target.stat().st_size / 1e6:.1f}",
        sha256=digest,
        patch=" x ".join(map(str, record["patch_zyx"])),
        hours=f"{record['seconds'] / 3600:.1f}",
        minutes=f"{record['seconds'] / 60:.0f}",
        dice=dice,
        table=figures,
    )


if __name__ == "__main__":
    main()
