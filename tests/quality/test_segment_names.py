"""Names of segments in the headers of .seg.nrrd files, written by SimpleITK with the keys of 3D Slicer."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from focalis.dataset import open_dataset
from focalis.quality import Survey, measure, survey
from focalis.volume import NamedSegment, read_segments

Segments = list[tuple[str, int]]


def put(root: Path, name: str, segments: Segments, present: tuple[int, ...] = (1, 2)) -> Path:
    """A case whose label map holds a cube of each value that is present."""
    image = np.random.default_rng(len(name)).normal(size=(8, 9, 12)).astype(np.float32)
    label = np.zeros(image.shape, np.uint8)
    for place, value in enumerate(present):
        label[2:5, 2:5, 1 + 4 * place : 4 + 4 * place] = value
    for folder, array in (("images", image), ("labels", label)):
        (root / folder).mkdir(exist_ok=True)
        volume = sitk.GetImageFromArray(array)
        for number, (said, value) in enumerate(segments if folder == "labels" else ()):
            volume.SetMetaData(f"Segment{number}_Name", said)
            volume.SetMetaData(f"Segment{number}_LabelValue", str(value))
            volume.SetMetaData(f"Segment{number}_Layer", "0")
        sitk.WriteImage(volume, str(root / folder / f"{name}.nrrd"))
    return root / "labels" / f"{name}.nrrd"


def name_labels(root: Path, **labels: int) -> None:
    (root / "dataset.json").write_text(json.dumps({"labels": {"background": 0} | labels}))


def checked(root: Path) -> Survey:
    dataset = open_dataset(root)
    return survey(dataset, measure(dataset), None)


def renamed(root: Path) -> list[tuple[tuple[str, ...], str]]:
    return [
        (finding.cases, finding.message) for finding in checked(root).findings if finding.kind == "segment"
    ]


def test_segments_are_read_in_order(tmp_path: Path) -> None:
    path = put(tmp_path, "a", [("läsion  core", 2), ("rim", 1)])
    assert read_segments(path) == (NamedSegment(2, "läsion core"), NamedSegment(1, "rim"))


def test_a_name_that_stands_for_another_value_is_an_error(tmp_path: Path) -> None:
    path = put(tmp_path, "a", [("Core", 2), ("rim", 1)])
    name_labels(tmp_path, core=1, rim=2)
    core, rim = (problem.message for problem in checked(tmp_path).result.problems)
    assert core.startswith(f'{path}: its segment "Core" has the value 2, and dataset.json names 1 so; ')
    assert '"rim" has the value 1' in rim


@pytest.mark.parametrize(
    "segments",
    [[("CORE", 1), ("outer-rim", 2)], [("Segment_1", 1), ("Segment_2", 2)], [("core", 1)], []],
)
def test_right_and_unknown_names_pass(tmp_path: Path, segments: Segments) -> None:
    put(tmp_path, "a", segments)
    name_labels(tmp_path, core=1, outer_rim=2)
    found = checked(tmp_path)
    assert found.result.problems == ()
    assert not [finding for finding in found.findings if finding.kind == "segment"]


def test_an_empty_segment_harms_nothing(tmp_path: Path) -> None:
    put(tmp_path, "a", [("core", 1), ("rim", 3)])
    name_labels(tmp_path, core=1, rim=2)
    assert checked(tmp_path).result.problems == ()


def test_one_value_with_two_names_is_a_warning(tmp_path: Path) -> None:
    for name, first in (("a", "core"), ("b", "Core"), ("c", "cyst")):
        put(tmp_path, name, [(first, 1), ("rim", 2)])
    said = 'the files\' headers differ on what label 1 is: "core" in 2, "cyst" in 1 of 3'
    assert renamed(tmp_path) == [(("c",), said)]


def test_one_name_with_two_values_is_a_warning(tmp_path: Path) -> None:
    put(tmp_path, "a", [("core", 1)], present=(1,))
    put(tmp_path, "b", [("core", 2)], present=(2,))
    said = 'the files\' headers differ on what "core" is: label 1 in 1, label 2 in 1 of 2'
    assert renamed(tmp_path) == [(("a", "b"), said)]


def test_segments_in_several_layers_are_refused_with_the_reason(tmp_path: Path) -> None:
    path = put(tmp_path, "a", [])
    layers = sitk.GetImageFromArray(np.ones((8, 9, 12, 2), np.uint8), isVector=True)
    for number in range(2):
        layers.SetMetaData(f"Segment{number}_LabelValue", "1")
        layers.SetMetaData(f"Segment{number}_Layer", str(number))
    sitk.WriteImage(layers, str(path))
    (problem,) = checked(tmp_path).result.problems
    assert problem.message.startswith(f"{path}: holds segments in 2 layers, because some overlap")
