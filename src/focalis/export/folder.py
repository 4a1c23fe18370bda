"""A folder that other programs segment with: network, pipeline.json and an example program."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from focalis.errors import ModelError, UsageError, did_you_mean, one_line
from focalis.export import program
from focalis.export.bundle import write_bundle
from focalis.files import is_free, whole_folder
from focalis.model import Model
from focalis.prediction.reach import reach_of
from focalis.prediction.runtime import Runtime

BUNDLE = "monai"
TRACED, TRIED, TRIED_THIN = (2, 2, 2), (3, 2, 4), (1, 2, 3)
"""Sizes in total strides: that of tracing, and those of the comparison with PyTorch, the last if it is not too thin."""
MOST_ERROR = 1e-4
"""By how much probabilities may differ from PyTorch's in float32."""
MOST_STRIDES = 512
"""Along an axis; more than any image that fits into memory."""


def export_model(model: Model, out: Path, to: str = "onnx") -> float:
    """Write a model for programs that do not know Focalis.

    The folder holds the network (`network.onnx`, `network.xml` with `network.bin`, or `network.pt2` of `torch.export`),
    which takes images of any size in multiples of the total stride and gives the mean probabilities of all members;
    `pipeline.json`, which says what to do before and after it; and `predict.py`, which does so and gives the mask of
    `focalis predict`. As a MONAI bundle they lie in `models/`, and `configs/` lets `monai.bundle` run them. The network
    is compared with PyTorch before the folder appears.

    Args:
        out: the folder; it must not hold anything yet.
        to: one of `FORMATS`.

    Returns:
        The greatest difference of a probability to PyTorch's, on random images of other sizes than it was traced with.

    Raises:
        UsageError: the format is not known, what it needs is not installed, or the folder is not empty.
        ModelError: the network cannot be exported, or gives other probabilities then.
    """
    if to not in _TARGETS:
        raise UsageError(
            f"format {to!r} is unknown; choose one of {', '.join(FORMATS)}{did_you_mean(to, FORMATS)}"
        )
    target = _TARGETS[to]
    if lacking := [name for name in target.needs if find_spec(name) is None]:
        raise UsageError(
            f"{to} needs {', '.join(lacking)}; install it: pip install 'focalis[{target.extra}]'"
        )
    if not is_free(out):
        raise UsageError.at(out, "is there already", "give a new folder")
    if model.plan.regions:
        raise ModelError(
            "the model's regions lie inside each other, which no export states; train single labels"
        )
    if model.refinement is not None:
        raise ModelError(
            "the model refines its probabilities by a CRF, which no export can; train without +crf"
        )
    if any(engine.patchwise for engine in Runtime().engines(model)):
        raise ModelError(
            f"the network {model.plan.network.name} normalises by the statistics of each tile, so another program "
            "would get other masks; export a network that keeps its statistics, such as dense"
        )
    channels, strides = len(model.plan.channels), model.plan.network.total_stride_zyx
    network = _Mean(model.members).eval()
    sizes = [size for size in (TRIED, TRIED_THIN) if min(size) >= target.least]
    with whole_folder(out) as home:
        folder = home
        if to == BUNDLE:
            folder = home / "models"
            folder.mkdir()
            write_bundle(home, model)
        exported = _write(network, channels, strides, folder, to)
        worst = max(_difference(network, exported, channels, strides, size) for size in sizes)
        if not worst <= MOST_ERROR:
            raise ModelError(
                f"as {to} the network's probabilities differ by {worst:.2g} from PyTorch's; choose another format"
            )
        facts = json.dumps(_facts(model, target.least), indent=1, ensure_ascii=False, allow_nan=False)
        (folder / "pipeline.json").write_text(facts + "\n", encoding="utf-8")
        shutil.copyfile(program.__file__, folder / "predict.py")
    return worst


class _Mean(nn.Module):
    """The mean probabilities of several networks."""

    def __init__(self, members: Any) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        each = [torch.softmax(network(image), dim=1) for network in self.members]
        return each[0] if len(each) == 1 else torch.stack(each).mean(dim=0)


def _write(
    network: nn.Module, channels: int, strides: tuple[int, int, int], folder: Path, to: str
) -> Callable[[np.ndarray], np.ndarray]:
    """Write the network; what runs the file that was written."""
    image = torch.zeros(1, channels, *(size * stride for size, stride in zip(TRACED, strides, strict=True)))
    sizes = {
        axis: stride * torch.export.Dim(name, min=1, max=MOST_STRIDES)
        for axis, (name, stride) in enumerate(
            zip(("depth", "height", "width"), strides, strict=True), start=2
        )
    }
    noise = io.StringIO()
    try:
        with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(noise):
            warnings.simplefilter("ignore")
            traced = torch.export.export(network, (image,), dynamic_shapes=(sizes,))
            return _TARGETS[to].write(traced, folder)
    except OSError:  # of the disk, which `whole_folder` names
        raise
    except Exception as error:
        what = one_line(error, 200)
        raise ModelError(
            f"the network cannot be exported as {to} ({type(error).__name__}: {what})"
        ) from error


def _as_onnx(traced: torch.export.ExportedProgram, folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    path = folder / "network.onnx"
    logging.getLogger("torch.onnx").setLevel(
        logging.ERROR
    )  # it warns of operators of packages that are not there
    found = torch.onnx.export(
        traced, dynamo=True, input_names=["image"], output_names=["probabilities"], verbose=False
    )
    assert found is not None
    found.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path)
    return lambda array: session.run(None, {"image": array})[0]


def _as_openvino(traced: torch.export.ExportedProgram, folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    from focalis.prediction.openvino import core, imported

    openvino = imported()
    openvino.save_model(openvino.convert_model(traced), folder / "network.xml", compress_to_fp16=False)
    compiled = core().compile_model(folder / "network.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda array: np.asarray(compiled([array])[0])


def _as_torch(traced: torch.export.ExportedProgram, folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    torch.export.save(traced, folder / "network.pt2")
    loaded = torch.export.load(folder / "network.pt2").module()
    return lambda array: loaded(torch.from_numpy(array)).detach().numpy()


@dataclass(frozen=True)
class _Target:
    """A format: what writes it, the packages that it needs, the extra that brings them, and its least size.

    The least size is that along an axis, in total strides: a program of `torch.export` takes no map of one voxel.
    """

    write: Callable[[torch.export.ExportedProgram, Path], Callable[[np.ndarray], np.ndarray]]
    needs: tuple[str, ...] = ()
    extra: str = ""
    least: int = 1


_TARGETS = {
    "onnx": _Target(_as_onnx, ("onnx", "onnxscript", "onnxruntime"), "export"),
    "openvino": _Target(_as_openvino, ("openvino",), "fast"),
    "torch": _Target(_as_torch, least=2),
    BUNDLE: _Target(_as_torch, least=2),
}
FORMATS = tuple(_TARGETS)


def _difference(
    network: nn.Module,
    exported: Callable[[np.ndarray], np.ndarray],
    channels: int,
    strides: tuple[int, int, int],
    size: tuple[int, int, int],
) -> float:
    shape = (1, channels, *(count * stride for count, stride in zip(size, strides, strict=True)))
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(array)).numpy()
    return float(np.abs(exported(array) - expected).max())


def _facts(model: Model, least: int) -> dict[str, Any]:
    """pipeline.json: what to do before and after the network."""
    plan, point = model.plan, model.operating_point
    reach = reach_of(model.members[0], len(plan.channels), plan.network.total_stride_zyx)
    return {
        "focalis_export": 1,
        **model.identity.record(),
        "guided": model.guided,
        "most_zyx_mm": None if model.most_zyx_mm is None else list(model.most_zyx_mm),
        "channels": list(plan.channels),
        "channels_may_miss": list(plan.channels_may_miss),
        "labels": [{"value": value, "name": plan.labels[value]} for value in plan.label_values],
        "spacing_zyx_mm": list(plan.spacing_zyx_mm),
        "normalisation": [how.model_dump(mode="json") for how in plan.normalisation],
        "total_stride_zyx": list(plan.network.total_stride_zyx),
        "least_size_zyx": [least * stride for stride in plan.network.total_stride_zyx],
        "reach_zyx": None if reach is None else list(reach),
        "temperature": point.temperature,
        "operating_point": {
            "threshold": point.threshold,
            "minimum_mm3": point.minimum_mm3,
            "minimum_confidence": point.minimum_confidence,
            "second_look": list(point.second_look),
        },
        "steps": STEPS,
    }


STEPS = [
    "Turn the image so that its axes x, y, z run closest to the patient's left, posterior and superior.",
    "If guided, take no image that is larger than most_zyx_mm: the network outlines one lesion in a crop around it, "
    "and marks much in a whole scan that is not a lesion.",
    "Normalise each channel: 'window' clips to low and high, then subtracts mean and divides by std; 'zscore' takes "
    "mean and standard deviation of the image, without the voxels that equal its minimum if these are more than a "
    "quarter.",
    "Resample to spacing_zyx_mm: smooth with a Gaussian of sigma (factor - 1) / 2 voxels along axes that become "
    "coarser by factor, then interpolate linearly on a grid with the same centre; beyond the image its edge values "
    "hold. A channel of channels_may_miss that is not there is zeros.",
    "Pad by reflection to multiples of total_stride_zyx, as evenly as possible on both sides. The network takes no "
    "less than least_size_zyx.",
    "Run the network: float32 (1, channel, z, y, x) to probabilities (1, label, z, y, x); label 0 is the background. "
    "An image cut into tiles gives the same result where tiles overlap by twice reach_zyx voxels.",
    "Crop the padding, and interpolate the probabilities linearly on the image's own grid.",
    "The foreground is p = 1 - probability of the background, tempered: p^(1/T) / (p^(1/T) + (1 - p)^(1/T)).",
    "A voxel with p of at least threshold gets the foreground label with the highest probability.",
    "Remove 26-connected components of the foreground below minimum_mm3, and those whose highest p stays below "
    "minimum_confidence. If second_look holds weights, remove instead those whose weighted sum is below 0: of 1, the "
    "log odds of the highest and of the mean p before tempering (p from 1e-6 to 1 - 1e-6), the log of the volume in "
    "mm3, and half the log of the ratio of the largest to the smallest eigenvalue of the covariance of the voxels' "
    "places in mm, with a twelfth of the squared voxel size added on its diagonal.",
]
