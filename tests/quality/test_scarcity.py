"""Whether there are enough cases to train and to judge."""

from pathlib import Path

import numpy as np
import pytest

from focalis.dataset import open_dataset
from focalis.quality import Finding, measure
from focalis.quality.scarcity import find_too_few
from focalis.volume import Grid, Volume, write_volume

GRID = Grid((8, 8, 8))


def found(root: Path, *labels: int, patients: str = "") -> list[Finding]:
    """What is found in a set of a case per value, 0 being a scan without a lesion."""
    for number, value in enumerate(labels):
        label = np.zeros(GRID.shape_zyx, np.uint8)
        label[2:5, 2:5, 2:5] = value
        image = np.random.default_rng(number).normal(size=GRID.shape_zyx)
        write_volume(Volume(image, GRID), root / "images" / f"c{number}.nii.gz")
        write_volume(Volume(label, GRID), root / "labels" / f"c{number}.nii.gz")
    if patients:
        rows = "\n".join(f"c{number},{patient}" for number, patient in enumerate(patients))
        (root / "cases.csv").write_text(f"case,patient\n{rows}\n")
    dataset = open_dataset(root)
    names = {value: f"label {value}" for value in labels if value}
    return list(find_too_few(dataset, measure(dataset).facts, names))


@pytest.mark.parametrize(
    ("count", "said"),
    [(1, "1 case of 1 patient is"), (2, "2 cases of 2 patients are"), (4, "4 cases of 4 patients are")],
)
def test_few_cases_cannot_be_judged(tmp_path: Path, count: int, said: str) -> None:
    (finding,) = found(tmp_path, *[1] * count)
    assert finding.message == f"{said} too few to judge what is trained on them"


def test_cases_of_few_patients_are_few(tmp_path: Path) -> None:
    (finding,) = found(tmp_path, *[1] * 6, patients="AAABBB")
    assert finding.message.startswith("6 cases of 2 patients are too few")


def test_enough_cases_pass(tmp_path: Path) -> None:
    assert found(tmp_path, 1, 1, 2, 2, 0) == []


def test_the_only_patient_with_a_lesion_is_named(tmp_path: Path) -> None:
    (finding,) = found(tmp_path, 0, 0, 3, 0, 0, 0)
    assert finding.cases == ("c2",)
    assert finding.message == "is the only patient with a lesion: it can train or be judged, not both"


def test_the_only_patient_with_a_label_is_named(tmp_path: Path) -> None:
    (finding,) = found(tmp_path, 1, 1, 1, 1, 7)
    assert finding.cases == ("c4",)
    assert finding.message == "is the only patient with label 7: it can be trained or judged, not both"
