import numpy as np
import pytest

from focalis.dataset.phantoms.scanner import MODALITIES, Scanner, draw_scanner, scanned

NONE = (0.0, 0.0, 0.0)
SHAPE = (40, 40, 40)
CUBES = (1.0, 1.0, 1.0)


def steps(low: float, high: float) -> np.ndarray:
    image = np.full(SHAPE, low, dtype=np.float32)
    image[:, :, 20:] = high
    return image


def test_noise_of_ct_is_added_with_its_deviation() -> None:
    scanner = Scanner("ct", NONE, 0.3, NONE, 0.0)

    image, clean = scanned(steps(-2, 5), scanner, CUBES, np.random.default_rng(0))

    np.testing.assert_array_equal(clean, steps(-2, 5))
    assert (image - clean).mean() == pytest.approx(0, abs=0.01)
    assert (image - clean).std() == pytest.approx(0.3, rel=0.02)


def test_correlated_noise_keeps_its_deviation_and_is_smooth() -> None:
    scanner = Scanner("ct", NONE, 0.3, (0.8, 0.8, 0.8), 0.0)

    image, clean = scanned(steps(0, 1), scanner, CUBES, np.random.default_rng(0))
    noise = image - clean

    assert noise.std() == pytest.approx(0.3, rel=0.02)
    assert np.corrcoef(noise[:, :, :-1].ravel(), noise[:, :, 1:].ravel())[0, 1] > 0.4


def test_noise_of_mr_is_that_of_a_magnitude() -> None:
    """In air its mean is s (pi / 2)^0.5, in bright tissue its deviation s (Gudbjartsson & Patz, 1995)."""
    scanner = Scanner("mr", NONE, 0.2, NONE, 0.0)

    image, _ = scanned(steps(0, 10), scanner, CUBES, np.random.default_rng(0))

    assert image[:, :, :20].mean() == pytest.approx(0.2 * np.sqrt(np.pi / 2), rel=0.02)
    assert image[:, :, 20:].std() == pytest.approx(0.2, rel=0.02)


def test_noise_of_pet_grows_with_the_root_of_the_signal() -> None:
    image_of = steps(1, 9)
    image_of[0] = 0  # air, which everything is measured from
    image, clean = scanned(image_of, Scanner("pet", NONE, 0.2, NONE, 0.0), CUBES, np.random.default_rng(0))

    assert (image - clean)[1:, :, :20].std() == pytest.approx(0.2, rel=0.03)
    assert (image - clean)[1:, :, 20:].std() == pytest.approx(0.6, rel=0.03)


def test_the_bias_field_changes_brightness_slowly() -> None:
    flat = np.ones(SHAPE, dtype=np.float32)
    flat[0, 0, 0] = 0
    _, clean = scanned(flat, Scanner("mr", NONE, 0.0, NONE, 0.3), CUBES, np.random.default_rng(0))

    inside = clean[1:]
    assert 0.05 < inside.std() / inside.mean() < 0.6
    assert np.abs(np.diff(inside, axis=2)).max() < 0.1


def test_the_point_spread_is_measured_in_mm() -> None:
    seen = [draw_scanner(np.array([8.0, 1.0, 1.0]), np.random.default_rng(seed)) for seed in range(40)]

    assert all(one.blur_voxels[0] == pytest.approx(one.blur_voxels[1] / 8) for one in seen)


def test_every_modality_is_drawn() -> None:
    seen = {draw_scanner(np.ones(3), np.random.default_rng(seed)).modality for seed in range(40)}

    assert seen == set(MODALITIES)
