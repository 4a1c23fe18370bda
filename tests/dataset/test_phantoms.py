from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from focalis.dataset import PhantomSettings, make_phantom, open_dataset, write_phantoms
from focalis.errors import UsageError
from focalis.volume import read_volume

SMALL = PhantomSettings(shape_zyx=(24, 32, 32), foreground_share=0.01, readers=3)
CUBE = np.ones((3, 3, 3))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * np.sum((a > 0) & (b > 0)) / (np.sum(a > 0) + np.sum(b > 0)))


@pytest.mark.parametrize(
    "settings",
    [
        SMALL,
        replace(SMALL, shape_zyx=(10, 40, 48), spacing_zyx_mm=(5.0, 0.8, 0.8)),
        replace(SMALL, foreground_share=0.0005, lesions=2),
        replace(SMALL, foreground_share=0.2, lesions=1),
        replace(SMALL, shape_zyx=(40, 64, 64), foreground_share=1e-5, lesions=5),
    ],
)
def test_share_count_and_place_of_the_lesions(settings: PhantomSettings) -> None:
    for seed in range(3):
        phantom = make_phantom(settings, seed)
        truth = phantom.truth.array
        wanted = max(1, round(settings.foreground_share * truth.size))
        assert int(truth.sum()) == wanted
        assert set(np.unique(truth)) <= {0, 1}
        assert ndimage.label(truth, CUBE)[1] >= min(settings.lesions, wanted)
        inner = truth[1:-1, 1:-1, 1:-1]
        assert inner.sum() == truth.sum()  # nothing at the image's border
        assert phantom.image.grid == phantom.truth.grid
        assert phantom.image.grid.spacing_zyx_mm == settings.spacing_zyx_mm
        assert phantom.image.array.dtype == np.int16


def test_lesions_are_separate_and_nearly_whole() -> None:
    sizes = []
    for seed in range(5):
        components, count = ndimage.label(make_phantom(SMALL, seed).truth.array, CUBE)
        sizes.append(np.sort(np.bincount(components.ravel())[1:])[::-1])
        assert count >= SMALL.lesions
    assert all(size[: SMALL.lesions].sum() >= 0.95 * size.sum() for size in sizes)


def test_the_same_seed_gives_the_same_voxels() -> None:
    first, again, other = (make_phantom(SMALL, seed) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first.image.array, again.image.array)
    np.testing.assert_array_equal(first.truth.array, again.truth.array)
    for one, two in zip(first.readers, again.readers, strict=True):
        np.testing.assert_array_equal(one.array, two.array)
    assert (first.image.array != other.image.array).any()


def test_readers_disagree_like_people() -> None:
    settings = replace(SMALL, shape_zyx=(32, 48, 48), lesions=1, readers=2)
    pairs = [make_phantom(settings, seed) for seed in range(12)]
    agreement = [dice(pair.readers[0].array, pair.readers[1].array) for pair in pairs]
    assert max(agreement) < 1.0
    assert 0.6 < np.median(agreement) < 0.95
    with_truth = [dice(pair.truth.array, reader.array) for pair in pairs for reader in pair.readers]
    assert 0.6 < np.median(with_truth) < 0.95


def test_lesions_show_but_no_threshold_finds_them() -> None:
    for seed in range(3):
        phantom = make_phantom(PhantomSettings(), seed)
        image, truth = phantom.image.array.astype(float), phantom.truth.array > 0
        around = ndimage.binary_dilation(truth, CUBE, iterations=5) & ~ndimage.binary_dilation(
            truth, CUBE, iterations=2
        )
        assert image[truth].mean() - image[around].mean() > 2 * SMALL.noise
        assert max(dice(truth, image > threshold) for threshold in range(60, 300, 10)) < 0.6


def test_without_lesions() -> None:
    phantom = make_phantom(replace(SMALL, lesions=0), 0)
    assert not phantom.truth.array.any()
    assert not any(reader.array.any() for reader in phantom.readers)
    assert phantom.image.array.std() > 0


def test_a_data_set_on_disk(tmp_path: Path) -> None:
    settings = replace(
        SMALL, shape_zyx=(12, 16, 20), spacing_zyx_mm=(3.0, 1.0, 1.5), empty_share=0.4, readers=2
    )
    dataset = write_phantoms(tmp_path / "one", 5, settings, seed=1)
    assert dataset == open_dataset(tmp_path / "one")
    assert [case.name for case in dataset.cases] == [f"phantom_{i:03d}" for i in range(5)]
    assert dataset.labels == {1: "lesion"}
    volumes = [read_volume(case.label) for case in dataset.cases if case.label is not None]
    assert sum(not volume.array.any() for volume in volumes) == 2
    assert volumes[0].grid.spacing_zyx_mm == (3.0, 1.0, 1.5)
    assert len(list((tmp_path / "one" / "raters").iterdir())) == 10
    assert read_volume(tmp_path / "one" / "raters" / "phantom_004_r2.nii.gz").array.shape == (12, 16, 20)

    again = write_phantoms(tmp_path / "two", 5, settings, seed=1)
    for one, two in zip(dataset.cases, again.cases, strict=True):
        np.testing.assert_array_equal(read_volume(one.images[0]).array, read_volume(two.images[0]).array)


def test_one_reader_writes_no_raters(tmp_path: Path) -> None:
    write_phantoms(tmp_path, 1, replace(SMALL, shape_zyx=(12, 16, 20), readers=1), seed=1)
    assert not (tmp_path / "raters").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape_zyx": (4, 32, 32)},
        {"spacing_zyx_mm": (0.0, 1.0, 1.0)},
        {"foreground_share": 0.0},
        {"foreground_share": 0.5},
        {"lesions": -1},
        {"empty_share": 1.5},
        {"readers": 0},
        {"noise": -1.0},
    ],
)
def test_impossible_settings(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        PhantomSettings(**wrong)  # type: ignore[arg-type]


def test_lesions_that_do_not_fit() -> None:
    crowded = replace(SMALL, shape_zyx=(8, 8, 8), foreground_share=0.3, lesions=40)
    with pytest.raises(UsageError, match="do not fit"):
        make_phantom(crowded, 0)
