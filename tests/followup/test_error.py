"""The noise of a scan, against noise of a known standard deviation."""

import numpy as np
import pytest

from focalis.followup import scan_noise


def noisy(sd: float) -> np.ndarray:
    """Two tissues with a sharp border, each with a slow ramp, and noise."""
    z, y, x = np.indices((30, 60, 60))
    image = np.where((y - 30) ** 2 + (x - 30) ** 2 < 400, 60.0, -800.0) + 0.3 * x + 0.1 * z
    return (image + np.random.default_rng(0).normal(0, sd, image.shape)).astype(np.float32)


@pytest.mark.parametrize("sd", [3.0, 12.0])
def test_noise_is_found_in_spite_of_borders(sd: float) -> None:
    assert scan_noise(noisy(sd)) == pytest.approx(sd, rel=0.15)


def test_padding_does_not_count_as_noiseless() -> None:
    padded = np.full((60, 70, 80), -2000.0, dtype=np.float32)
    padded[:20, :, :40] = np.random.default_rng(1).normal(50, 8.0, (20, 70, 40))
    assert scan_noise(padded) == pytest.approx(8.0, rel=0.15)


def test_whole_numbers_and_constant_images_are_measured_too() -> None:
    assert scan_noise(np.round(noisy(15.0)).astype(np.int16)) == pytest.approx(15.0, rel=0.15)
    assert scan_noise(np.zeros((4, 5, 6), np.int16)) == 0.0
    assert scan_noise(np.arange(8.0).reshape(2, 2, 2)) == 0.0


def test_noise_that_neighbours_share_is_not_underestimated_much() -> None:
    rng = np.random.default_rng(2)
    white = rng.normal(0, 1, (40, 60, 61))
    shared = (white[..., 1:] + white[..., :-1]) * 10 / np.sqrt(2)
    assert scan_noise(shared.astype(np.float32)) == pytest.approx(10.0, rel=0.15)
