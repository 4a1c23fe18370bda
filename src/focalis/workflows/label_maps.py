"""Folders of label maps and of images, and a label map read as whole numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from focalis.dataset import GREATEST_LABEL, group_channels
from focalis.errors import DataError, UsageError, not_there
from focalis.quality.label_values import is_whole, looks_like_an_image
from focalis.settings import at_least
from focalis.volume import Volume, image_stem, read_volume


class NoLabelMapError(DataError):
    """A file holds an image or probabilities where a label map is expected."""


def require_options(
    out: Path | str | None, images: Path | str | None, tolerance_mm: float, seed: int
) -> None:
    """UsageError for what cannot be used to compare label maps, before any of them is read."""
    at_least("seed", seed, 0)
    if not 0 <= tolerance_mm < float("inf"):
        raise UsageError(f"a tolerance of {tolerance_mm} mm is not possible; give 0 or more")
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise UsageError.at(out, "is a file", "give a folder for the report")
    if images is not None and not Path(images).exists():
        raise not_there(Path(images), "give the folder of the images")


def label_maps(folder: Path) -> dict[str, Path]:
    """The image files of a folder by case, which is the name without the suffix; DataError for two of one case."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        case = image_stem(path)
        if case is None or path.is_dir():
            continue
        if case in found:
            raise DataError.at(path, f"is {case} a second time, after {found[case].name}", "keep one of them")
        found[case] = path
    return found


def read_label_map(path: Path, names: Mapping[int, str] | None = None, ignore: int | None = None) -> Volume:
    """A label map as integers; DataError for values that are not labels, `NoLabelMapError` for those of an image."""
    return require_labels(read_volume(path), path, names, ignore)


def require_labels(
    volume: Volume, path: Path | str, names: Mapping[int, str] | None = None, ignore: int | None = None
) -> Volume:
    """A label map as integers, with the errors of `read_label_map`, which name `path`."""
    values = volume.array
    if not is_whole(values).all():
        raise NoLabelMapError.at(
            path, "holds values that are not whole numbers", "give a label map, not an image or probabilities"
        )
    if values.max() > GREATEST_LABEL:
        raise DataError.at(
            path,
            f"holds the value {values.max():.15g}",
            f"labels are {GREATEST_LABEL} at most: renumber them",
        )
    if values.dtype.kind == "f":
        values = values.astype(np.int64)
    if looks_like_an_image(values):
        raise NoLabelMapError.at(path, "holds values as an image does", "give a label map")
    least = int(values.min())
    if least < 0:
        raise DataError.at(path, f"holds the negative value {least}", "labels are 0 (background) and up")
    if names is not None:
        unknown = sorted(set(np.unique(values).tolist()) - {0, ignore, *names})
        if unknown:
            known = ", ".join(str(value) for value in sorted(names))
            raise DataError.at(
                path, f"holds the value {unknown[0]}, which is not a label", f"labels are {known}"
            )
    return Volume(values, volume.grid)


def image_of(case: str, images: Path, cases: Iterable[str]) -> Path:
    """The image of a case in a folder: CASE, or the first of CASE_CHANNEL; or the one file that `images` is.

    Args:
        cases: the names of all cases: what begins with a longer one of them is that one's.
    """
    if images.is_file():
        return images
    stems = {path: image_stem(path) or "" for path in sorted(images.iterdir())}
    if exact := [path for path, stem in stems.items() if stem == case]:
        return exact[0]
    its = [path for path, stem in stems.items() if stem.startswith(f"{case}_")]
    channels = group_channels(its, cases).get(case, {})
    if not channels:
        raise DataError.at(
            images, f"holds no image of case {case}", f"name it {case}.nii.gz, or leave images out"
        )
    # a case that nobody named may be called CASE_2: its channel reads 2_FLAIR here
    return channels[min(channels, key=lambda channel: (channel.count("_"), channel))]
