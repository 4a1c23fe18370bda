"""Segment an image with the exported network in this folder: python predict.py IMAGE [IMAGE ...] MASK

One image per channel, in the order of `channels` in pipeline.json; - stands for one of `channels_may_miss` that is
missing. Needs numpy, scipy, SimpleITK, and what runs the network: onnxruntime for network.onnx, openvino for
network.xml, torch for network.pt2. Focalis is not needed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
import SimpleITK as sitk

HERE = Path(__file__).parent


def main(images: list[str], mask: str) -> None:
    facts = json.loads((HERE / "pipeline.json").read_text())
    if len(images) != len(facts["channels"]):
        sys.exit(f"give an image for each of: {', '.join(facts['channels'])}")
    there = {name: path for name, path in zip(facts["channels"], images, strict=True) if path != "-"}
    if lost := set(facts["channels"]) - set(there) - set(facts["channels_may_miss"]):
        sys.exit(f"give an image for {', '.join(sorted(lost))}: the network was not trained to go without it")
    given = sitk.ReadImage(next(iter(there.values())))
    turned = {
        name: sitk.DICOMOrient(sitk.ReadImage(path, sitk.sitkFloat32), "LPS") for name, path in there.items()
    }
    require_crop(next(iter(turned.values())), facts)
    grid = with_spacing(next(iter(turned.values())), np.array(facts["spacing_zyx_mm"][::-1]))
    array = np.zeros((1, len(images), *grid.GetSize()[::-1]), np.float32)  # zeros where a channel is missing
    for place, (name, how) in enumerate(zip(facts["channels"], facts["normalisation"], strict=True)):
        if name in turned:
            array[0, place] = prepared(turned[name], how, grid)
    lack = [-size % stride for size, stride in zip(array.shape[2:], facts["total_stride_zyx"], strict=True)]
    border = [(0, 0), (0, 0), *((count // 2, count - count // 2) for count in lack)]
    padded = np.pad(array, border, mode="reflect")
    if any(size < least for size, least in zip(padded.shape[2:], facts["least_size_zyx"], strict=True)):
        sys.exit(
            f"the image is too thin for this network: {padded.shape[2:]} voxels, {facts['least_size_zyx']} needed"
        )
    found = network()(padded)
    inner = [slice(before, size - after) for (before, after), size in zip(border, found.shape, strict=True)]
    probabilities = [
        restored(each, label == 0, grid, given) for label, each in enumerate(found[tuple(inner)][0])
    ]
    sitk.WriteImage(decided(np.stack(probabilities), facts, given), mask)


def require_crop(image: sitk.Image, facts: dict[str, Any]) -> None:
    """End if a guided network is given a whole scan, in which it would mark much that is not a lesion."""
    if not facts["guided"]:
        return
    most, size = facts["most_zyx_mm"], np.multiply(image.GetSize(), image.GetSpacing())[::-1]
    if (size > np.multiply(most, 1.0 + 1e-4)).any():
        limits, sides = (" x ".join(f"{side:.0f}" for side in each) for each in (most, size))
        sys.exit(
            f"the model is guided: it outlines one lesion in a crop of at most {limits} mm (z, y, x), and the image "
            f"has {sides} mm; give a crop around each lesion"
        )


def network() -> Callable[[np.ndarray], np.ndarray]:
    """From a float32 array (1, channel, z, y, x) to the probabilities (1, label, z, y, x)."""
    if (HERE / "network.onnx").exists():
        import onnxruntime

        session = onnxruntime.InferenceSession(HERE / "network.onnx")
        return lambda array: session.run(None, {"image": array})[0]
    if (HERE / "network.xml").exists():
        # without this module OpenVINO tells Google Analytics of no run
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        import openvino

        compiled = openvino.compile_model(HERE / "network.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda array: compiled([array])[0]
    import torch

    program = torch.export.load(HERE / "network.pt2").module()
    return lambda array: program(torch.from_numpy(array)).detach().numpy()


def with_spacing(image: sitk.Image, spacing: np.ndarray) -> sitk.Image:
    """An empty image over the same box with another spacing (x, y, z); the image itself if it has that spacing."""
    old, size = np.array(image.GetSpacing()), np.array(image.GetSize())
    if np.all(np.abs(spacing / old - 1) <= 1e-3):
        return image
    count = np.maximum(1, np.floor(size * old / spacing + 0.5))
    shift = np.reshape(image.GetDirection(), (3, 3)) @ (((size - 1) * old - (count - 1) * spacing) / 2)
    grid = sitk.Image([int(each) for each in count], sitk.sitkUInt8)
    grid.SetSpacing(spacing.tolist())
    grid.SetOrigin((np.array(image.GetOrigin()) + shift).tolist())
    grid.SetDirection(image.GetDirection())
    return grid


def prepared(image: sitk.Image, how: dict[str, float | str], grid: sitk.Image) -> np.ndarray:
    """A channel's values of order one on the network's grid."""
    values = sitk.GetArrayFromImage(image)
    if how["kind"] == "window":
        values, mean, std = np.clip(values, how["low"], how["high"]), how["mean"], how["std"]
    else:  # z-score, of what lies above the minimum where more than a quarter of the image equals it: air
        above = values[values > values.min()]
        body = above if 0 < above.size < 0.75 * values.size else values
        mean, std = float(body.mean(dtype=np.float64)), float(body.std(dtype=np.float64))
        if std <= 1e-6 * max(1.0, abs(mean)):
            std = float(values.std(dtype=np.float64)) or 1.0
    values = (values - np.float32(mean)) / np.float32(std)
    coarser = np.array(grid.GetSpacing()) / np.array(image.GetSpacing())
    sigma = np.maximum(0, (coarser[::-1] - 1) / 2)
    if sigma.max() > 1e-3:
        values = scipy.ndimage.gaussian_filter(values, sigma, mode="nearest")
    return values if grid is image else resampled(values, image, grid, extend=True)


def restored(probability: np.ndarray, background: bool, grid: sitk.Image, given: sitk.Image) -> np.ndarray:
    """A label's probability on the grid of the image that was given."""
    if grid.GetPixelID() == sitk.sitkFloat32:  # the image's own voxels, in another order
        image = sitk.GetImageFromArray(probability)
        image.CopyInformation(grid)
        code = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(given.GetDirection())
        return sitk.GetArrayFromImage(sitk.DICOMOrient(image, code))
    wider = sitk.ConstantPad(grid, [1, 1, 1], [1, 1, 1])
    return resampled(np.pad(probability, 1, mode="edge"), wider, given, outside=float(background))


def resampled(
    array: np.ndarray, placed: sitk.Image, grid: sitk.Image, *, extend: bool = False, outside: float = 0.0
) -> np.ndarray:
    """Linear interpolation of an array that lies where `placed` does."""
    image = sitk.GetImageFromArray(array.astype(np.float32))
    image.CopyInformation(placed)
    linear = sitk.sitkLinear
    return sitk.GetArrayFromImage(
        sitk.Resample(image, grid, sitk.Transform(), linear, outside, sitk.sitkFloat32, extend)
    )


def decided(probabilities: np.ndarray, facts: dict[str, Any], given: sitk.Image) -> sitk.Image:
    """The mask: what reaches the threshold, without components that are not to be reported."""
    raw = likely = 1 - probabilities[0]
    power = np.float32(1 / facts["temperature"])
    if power != 1:
        likely = likely**power / (likely**power + (1 - likely) ** power)
    point, labels = facts["operating_point"], np.array([each["value"] for each in facts["labels"]])
    mask = np.where(likely >= point["threshold"], labels[probabilities[1:].argmax(axis=0)], 0)
    lesions, count = scipy.ndimage.label(mask > 0, np.ones((3, 3, 3)))
    least = max(1, np.ceil(point["minimum_mm3"] / np.prod(given.GetSpacing()) - 1e-6))
    numbers = np.arange(1, count + 1)
    confident = scipy.ndimage.maximum(likely, lesions, numbers) if count else np.zeros(0)
    kept = (np.bincount(lesions.ravel(), minlength=count + 1)[1:] >= least) & (
        np.asarray(confident) >= point["minimum_confidence"]
    )
    if weights := point.get("second_look"):
        kept = second_look(weights, lesions, raw, np.array(given.GetSpacing()[::-1]))
    mask[~np.isin(lesions, numbers[kept])] = 0
    result = sitk.GetImageFromArray(mask.astype(np.min_scalar_type(labels.max())))
    result.CopyInformation(given)
    return result


def second_look(
    weights: list[float], lesions: np.ndarray, raw: np.ndarray, spacing: np.ndarray
) -> np.ndarray:
    """Which components are reported, by their probability, volume and elongation, in place of size and confidence."""
    scores = []
    for number, box in enumerate(scipy.ndimage.find_objects(lesions), start=1):
        inside = lesions[box] == number
        levels = np.clip([raw[box][inside].max(), raw[box][inside].mean(dtype=np.float64)], 1e-6, 1 - 1e-6)
        place = np.argwhere(inside) * spacing
        axes = np.linalg.eigvalsh(np.cov(place.T, bias=True) + np.diag(spacing**2 / 12))
        features = [*np.log(levels / (1 - levels)), np.log(len(place) * spacing.prod())]
        scores.append(np.dot(weights, [1, *features, 0.5 * np.log(axes[-1] / axes[0])]))
    return np.array(scores) >= 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    try:
        main(sys.argv[1:-1], sys.argv[-1])
    except (OSError, RuntimeError) as problem:
        sys.exit((str(problem).strip() or type(problem).__name__).splitlines()[-1])
