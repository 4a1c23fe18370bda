"""The configuration files of a MONAI bundle around an exported network.

Source: MONAI, "MONAI Bundle Specification": `configs/metadata.json`, `configs/inference.json`, and `models/`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from focalis.model import Model
from focalis.planning import Plan

SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)
MONAI_VERSION = "1.5.0"
"""The least version of MONAI that the bundle was run with."""
NOTE = "For research only; not a medical device."


def write_bundle(folder: Path, model: Model) -> None:
    """Write `configs/` beside `models/`, which holds network, pipeline.json and predict.py."""
    for name, content in (("metadata", _metadata(model)), ("inference", _inference(model.plan))):
        path = folder / "configs" / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _in_mm(sides: Sequence[float]) -> str:
    """Lengths as a person reads them."""
    return " x ".join(f"{side:.0f}" for side in sides)


def _inference(plan: Plan) -> dict[str, Any]:
    """What `monai.bundle run` does: it calls predict.py's steps on one image per channel."""
    return {
        "imports": ["$import runpy"],
        "bundle_root": ".",
        "images": [f"image_{name}.nii.gz" for name in plan.channels],
        "mask": "mask.nii.gz",
        "pipeline": "$runpy.run_path(@bundle_root + '/models/predict.py')",
        "run": ["$@pipeline['main'](@images, @mask)"],
    }


def _metadata(model: Model) -> dict[str, Any]:
    plan, most = model.plan, model.most_zyx_mm
    strides = plan.network.total_stride_zyx
    data = {
        "spatial_shape": [f"{stride}*n" for stride in strides],
        "dtype": "float32",
        "is_patch_data": False,
    }
    classes = ["background", *(plan.labels[value] for value in plan.label_values)]
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported by Focalis {version('focalis')}"},
        "monai_version": MONAI_VERSION,
        "pytorch_version": version("torch"),
        "numpy_version": version("numpy"),
        "required_packages_version": {"scipy": version("scipy"), "SimpleITK": version("simpleitk")},
        "name": "Focalis segmentation",
        "task": f"segmentation of {', '.join(classes[1:])}",
        "description": "A network that Focalis trained, with what it does before and after it. "
        + ("" if most is None else f"It takes crops around a lesion, {_in_mm(most)} mm (z, y, x) at most. ")
        + NOTE,
        "authors": "",
        "copyright": "",
        "intended_use": NOTE,
        "network_data_format": {
            "inputs": {
                "image": data
                | {
                    "type": "image",
                    "format": "magnitude",
                    "num_channels": len(plan.channels),
                    "value_range": [],
                    "channel_def": {str(place): name for place, name in enumerate(plan.channels)},
                }
            },
            "outputs": {
                "pred": data
                | {
                    "type": "probabilities",
                    "format": "segmentation",
                    "num_channels": len(classes),
                    "value_range": [0, 1],
                    "channel_def": {str(place): name for place, name in enumerate(classes)},
                }
            },
        },
    }
