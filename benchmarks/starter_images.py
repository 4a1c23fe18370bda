"""Write into the header of the lung-nodule model which images trained it, by their content; the weights stay.

    python benchmarks/starter_images.py

Rewrites model, .sha256 and the hash in the results; then `python benchmarks/starter_model.py --card` writes the card.
FOCALIS_DATA names the folder of the data sets.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evidence_data import NODULES, data_folder
from evidence_plan import RESULTS
from starter_crops import NAME

from focalis.dataset import Case, open_dataset
from focalis.files import sha256_of, write_text
from focalis.model import load_model, save_model, weights_sha256
from focalis.models import FOLDER
from focalis.volume import content_digest
from focalis.workflows.record import data_hash, read_json, write_json
from focalis.workflows.training_cases import TRAINED


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the contents' digests of the training images into the model's provenance."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results lie")
    parser.add_argument("--out", type=Path, default=FOLDER, help="where the model lies")
    options = parser.parse_args(arguments)
    file, record_path = options.out / f"{NAME}.safetensors", options.results / "starter" / f"{NAME}.json"
    model, cases = load_model(file), open_dataset(data_folder() / NODULES).cases
    if data_hash(cases) != model.provenance["data_sha256"]:
        sys.exit(f"{data_folder() / NODULES}: is not the data set that {file} was trained on")
    weights = weights_sha256(model)
    provenance = {**model.provenance, "images": {TRAINED: digests_of(cases)}}
    save_model(replace(model, provenance=provenance), file, half=True)
    if weights_sha256(load_model(file)) != weights:
        sys.exit(f"{file}: its weights have changed; restore it")
    digest = sha256_of(file)
    write_text(options.out / f"{NAME}.sha256", f"{digest}  {file.name}\n")
    write_json(record_path, {**read_json(record_path), "sha256": digest, "bytes": file.stat().st_size})
    print(f"{file}: {digest}")


def digests_of(cases: Sequence[Case]) -> dict[str, list[str]]:
    """Case name to the digests of its channels."""
    return {
        case.name: [digest for volume in case.read_images() if (digest := content_digest(volume.array))]
        for case in cases
    }


if __name__ == "__main__":
    main()
