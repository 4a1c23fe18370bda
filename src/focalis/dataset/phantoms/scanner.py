"""What a scanner does to an ideal image: blur, bias field, and the noise of CT, MR and PET."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from focalis.dataset.phantoms.fields import smooth_field

MODALITIES = {"ct": 0.4, "mr": 0.4, "pet": 0.2}
"""How often each is drawn."""


@dataclass(frozen=True)
class Scanner:
    """How an image is taken.

    Attributes:
        modality: a key of `MODALITIES`.
        blur_voxels: standard deviation of the point spread along z, y, x.
        noise: standard deviation of the noise, in the image's own unit; of PET, where the signal is 1.
        grain_voxels: along z, y, x, how far noise is correlated; 0 for white noise.
        bias: strength of the slow change of brightness, as a share.
    """

    modality: str
    blur_voxels: tuple[float, float, float]
    noise: float
    grain_voxels: tuple[float, float, float]
    bias: float


def draw_scanner(thickness: NDArray[np.float64], rng: np.random.Generator) -> Scanner:
    """A random scanner.

    Args:
        thickness: the spacing along z, y, x in units of the finest one: blur in mm is the same along all axes, so that
            thick slices are hardly blurred across.
    """
    modality = str(rng.choice(list(MODALITIES), p=list(MODALITIES.values())))
    broad = modality == "pet"
    blur = rng.uniform(0.7, 1.5) if broad else rng.uniform(0, 0.9)
    grain = rng.uniform(0.6, 1.2) if broad else rng.uniform(0.35, 0.9) * (rng.random() < 0.6)
    noise = float(np.exp(rng.uniform(np.log(0.02), np.log(0.5))))
    bias = float(rng.uniform(0, 0.35)) if modality == "mr" else 0.0
    return Scanner(modality, _along(blur / thickness), noise, _along(grain / thickness), bias)


def scanned(
    ideal: NDArray[np.float32],
    scanner: Scanner,
    spacing_zyx_mm: tuple[float, float, float],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The image that the scanner takes, and the same without its noise; both float32.

    MR noise is that of a magnitude image (Rician), for which air must be about 0; PET noise grows with the root of the
    signal.
    """
    clean = _blurred(ideal, scanner.blur_voxels)
    if scanner.modality in ("mr", "pet"):
        clean = clean - clean.min()
    if scanner.bias:
        extent = float(np.mean(np.multiply(ideal.shape, spacing_zyx_mm)))
        field = smooth_field(
            (ideal.shape[0], ideal.shape[1], ideal.shape[2]), spacing_zyx_mm, extent / 2, rng
        )
        clean = clean * np.exp(np.float32(scanner.bias) * field)
    noise = scanner.noise * _grain(ideal.shape, scanner.grain_voxels, rng)
    if scanner.modality == "mr":
        other = scanner.noise * _grain(ideal.shape, (0.0, 0.0, 0.0), rng)
        return np.hypot(clean + noise, other).astype(np.float32), clean.astype(np.float32)
    if scanner.modality == "pet":
        noise = noise * np.sqrt(clean)
    return (clean + noise).astype(np.float32), clean.astype(np.float32)


def _grain(
    shape: tuple[int, ...], grain_voxels: tuple[float, float, float], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Noise of standard deviation 1."""
    noise = _blurred(rng.standard_normal(shape, dtype=np.float32), grain_voxels)
    return noise / max(float(noise.std()), 1e-6) if max(grain_voxels) > 0 else noise


def _blurred(array: NDArray[np.float32], sigma_voxels: tuple[float, float, float]) -> NDArray[np.float32]:
    """Gaussian blur, along each axis that it would change."""
    for axis, sigma in enumerate(sigma_voxels):
        if sigma > 0.2:
            array = scipy.ndimage.gaussian_filter1d(array, sigma, axis, mode="nearest", truncate=3.0)
    return array


def _along(values: NDArray[np.float64]) -> tuple[float, float, float]:
    return float(values[0]), float(values[1]), float(values[2])
