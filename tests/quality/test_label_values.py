"""Which values of a label map are labels."""

from pathlib import Path

import numpy as np
import pytest

from focalis.dataset import Dataset
from focalis.quality.label_values import find_unnamed_sentinels, judge_label_values, too_many_labels

PATH = Path("labels/c.nii.gz")


def a_map(*values: float, dtype: type = np.float64) -> np.ndarray:
    """Cubes of 3 x 3 x 3 voxels, one per value, beside each other."""
    label = np.zeros((4, 4, 4 * len(values)), dtype)
    for number, value in enumerate(values):
        label[:3, :3, 4 * number : 4 * number + 3] = value
    return label


def judged(array: np.ndarray, **dataset) -> tuple[set[int], list[str]]:
    return judge_label_values(PATH, array, Dataset(Path(), (), ("image",), **dataset))


@pytest.mark.parametrize(
    "array",
    [
        a_map(1, 2**32 - 1, dtype=np.uint32),
        a_map(1, 2**32 - 1, dtype=np.int64),
        a_map(1, 2**32 - 1, dtype=np.uint64),
        a_map(1.0, 2.0**32 - 1, dtype=np.float64),
    ],
)
def test_whole_numbers_of_any_type_are_labels(array: np.ndarray) -> None:
    assert judged(array) == ({1, 2**32 - 1}, [])


@pytest.mark.parametrize(
    ("value", "dtype"), [(2**32, np.int64), (2**63 + 2**12, np.uint64), (5e9, np.float32), (1e30, np.float64)]
)
def test_a_value_that_no_mask_can_hold_is_refused(value: float, dtype: type) -> None:
    usable, (message,) = judged(a_map(1, value, dtype=dtype))
    assert usable == {1}
    assert message.startswith(f"{PATH}: label values must not exceed 4294967295 (")


def test_a_great_ignored_value_is_not_a_label() -> None:
    assert judged(a_map(1, 70_000, 2**40, dtype=np.int64), ignore=2**40) == ({1, 70_000}, [])


def test_numbers_are_reported_with_all_their_digits() -> None:
    _, (message,) = judged(a_map(1, 2**33, dtype=np.int64))
    assert "(8589934592)" in message


def test_254_labels_can_be_trained_and_255_cannot() -> None:
    dataset = Dataset(Path("set"), (), ("image",), labels={1: "a", 70_000: "b"})
    assert too_many_labels(dataset, set(range(1, 254))) == ""
    assert too_many_labels(dataset, set(range(1, 255))).startswith(
        "set: has 255 labels, and 254 are the most"
    )


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.uint8])
def test_an_image_is_not_a_label_map(dtype: type) -> None:
    image = np.random.default_rng(0).normal(100, 20, (8, 9, 10)).astype(dtype)
    usable, (message,) = judged(image)
    assert usable == set()
    assert "as an image or a map of probabilities does; put the label map there" in message


def test_a_map_of_many_structures_is_not_an_image() -> None:
    assert judged(a_map(*range(1, 118))) == (set(range(1, 118)), [])


def test_many_lesions_of_one_voxel_are_not_an_image() -> None:
    label = np.zeros((3, 3, 60), np.int16)
    label[1, 1, ::2] = np.arange(1, 31)
    assert judged(label) == (set(range(1, 31)), [])


def test_an_interpolated_label_map_is_reported_as_such() -> None:
    distance = np.linalg.norm(np.indices((24, 24, 24)) - 11.5, axis=0)
    label = np.clip(8.5 - distance, 0, 1)
    _, (message,) = judged(label)
    assert "must be whole numbers" in message


def told(dataset: Dataset, *held: set[int]) -> list[str]:
    holds = {f"c{number}": values for number, values in enumerate(held)}
    return [finding.message for finding in find_unnamed_sentinels(dataset, holds)]


@pytest.mark.parametrize("value", [99, 127, 255, 999, 32767, 65535, 2**32 - 1])
def test_a_value_that_may_mean_ignored_is_reported_where_nothing_names_it(value: int) -> None:
    dataset = Dataset(Path(), (), ("image",))
    (message,) = told(dataset, {1}, {1, value}, {2, value})
    assert message.startswith(f"the value {value}, in 2 of 3 cases, is trained as a label like 1;")


def test_masks_saved_as_0_and_255_beside_others_are_named() -> None:
    found = list(find_unnamed_sentinels(Dataset(Path(), (), ("image",)), {"a": {1}, "b": {255}, "c": {1}}))
    assert [finding.cases for finding in found] == [("b",)]
    assert "the only value is 255, as in a mask saved as 0 and 255" in found[0].message
    assert found[0].message.endswith("write 1")


@pytest.mark.parametrize("held", [({255}, {255}), ({1}, {2}), ({1, 4}, {2}), ({98, 99}, {1})])
def test_the_only_value_and_plain_numbers_are_labels(held: tuple[set[int], ...]) -> None:
    assert told(Dataset(Path(), (), ("image",)), *held) == []


def test_a_value_that_is_named_is_what_it_is_called() -> None:
    assert told(Dataset(Path(), (), ("image",), {1: "lesion", 255: "bone"}), {1, 255}) == []
