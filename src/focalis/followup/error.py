"""How well a lesion's size is measured: estimated from masks of the same scan, not assumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from focalis.followup.study import Piece, Study
from focalis.lesions import find_overlaps

ERROR_RULE = (
    "Masks of one scan, by several readers or by several predictions, say how far a lesion's border and its diameter "
    "waver. The standard deviation of the border's place is that of the volume divided by the surface, pooled over all "
    "lesions and dates; that of the diameter is pooled in mm. A lesion's volume then has the error border times "
    "surface, and each figure the error of the voxels themselves as well. A change is within measurement error if it "
    "lies in the 95 % interval of what these errors alone would show (Student's t with as many degrees of freedom as "
    "there were repeated measurements). A model's second prediction is of the image sampled half a voxel on, with "
    "noise added of twice the variance of its own: two scans of one body differ so. Where no mask was repeated, the "
    "error is not known, and no change is called more or less than it."
)
_NOISE_STEPS = (1, 2)
"""Neighbours at these distances are compared: noise of neighbouring voxels is alike in many reconstructions."""
_NOISE_VOXELS = 10_000_000

_MEDIAN_OF_NORMAL = 0.6745
"""Median of the absolute value of a normal variable with a standard deviation of 1."""
_STEP_VARIANCE = 1 / 12
"""Variance of a border that may lie anywhere within a voxel."""


@dataclass(frozen=True)
class MeasurementError:
    """How well sizes are measured.

    Attributes:
        border_mm: standard deviation of the border's place; 0 if there were no repeated masks.
        diameter_mm: standard deviation of the longest axial diameter, likewise.
        repeated: degrees of freedom: how many more measurements than lesions there were.
        source: what was repeated, a phrase.
    """

    border_mm: float
    diameter_mm: float
    repeated: int
    source: str

    @property
    def quantile(self) -> float:
        """How many standard deviations 95 % of all errors stay within."""
        if not self.repeated:
            return float(scipy.stats.norm.ppf(0.975))
        return float(scipy.stats.t.ppf(0.975, self.repeated))

    def volume_sd_mm3(self, piece: Piece) -> float:
        """The standard deviation of a piece's volume."""
        voxel_mm3 = piece.lesion.volume_mm3 / piece.lesion.voxels
        cut_voxels = piece.surface_mm2 / voxel_mm3 ** (2 / 3)
        return float(
            np.hypot(self.border_mm * piece.surface_mm2, voxel_mm3 * np.sqrt(cut_voxels * _STEP_VARIANCE))
        )

    def diameter_sd_mm(self, spacing_mm: float) -> float:
        """The standard deviation of a diameter in a plane of that spacing."""
        return float(np.hypot(self.diameter_mm, spacing_mm * np.sqrt(2 * _STEP_VARIANCE)))


def scan_noise(image: NDArray[np.generic]) -> float:
    """The standard deviation of an image's noise: that of second differences along its rows, by their median.

    Edges are few and hardly move a median. Voxels of the lowest value, most often padding, do not count.

    Args:
        image: any values, shape (z, y, x).
    """
    part = np.asarray(image[:: max(1, image.size // _NOISE_VOXELS)], dtype=np.float32)
    inside = np.isfinite(part) & (part > np.nanmin(part, initial=np.inf))
    found = [0.0]
    for step in _NOISE_STEPS:
        left, middle, right = part[..., : -2 * step], part[..., step:-step], part[..., 2 * step :]
        whole = inside[..., : -2 * step] & inside[..., step:-step] & inside[..., 2 * step :]
        if whole.any():
            bends = np.abs(left - 2 * middle + right)[whole]
            found.append(float(np.median(bends)) / (_MEDIAN_OF_NORMAL * float(np.sqrt(6))))
    return max(found)


def estimate_error(
    studies: Sequence[Study], repeats: Sequence[Sequence[Study]], source: str
) -> MeasurementError:
    """Estimate the measurement error from other masks of the same scans.

    A lesion of another mask is the same one by the rule of `focalis.lesions.match_lesions`; one that another mask
    lacks says nothing of sizes.

    Args:
        repeats: of each date its other masks, on the same grid; none where there are none.
        source: what was repeated, a phrase.
    """
    border, diameter, repeated = 0.0, 0.0, 0
    for study, others in zip(studies, repeats, strict=True):
        found: dict[int, list[Piece]] = {}
        for other in others:
            overlaps = find_overlaps(study.numbered, len(study.pieces), other.numbered, len(other.pieces))
            for own, theirs, _ in overlaps.match().pairs:
                if study.pieces[own - 1].lesion.label == other.pieces[theirs - 1].lesion.label:
                    found.setdefault(own - 1, []).append(other.pieces[theirs - 1])
        for number, partners in found.items():
            piece = study.pieces[number]
            all_of_it = [piece, *partners]
            volumes = [each.lesion.volume_mm3 for each in all_of_it]
            lengths = [each.lesion.longest_axial.length_mm for each in all_of_it]
            surface = float(np.mean([each.surface_mm2 for each in all_of_it]))
            border += len(partners) * float(np.var(volumes, ddof=1)) / surface**2
            diameter += len(partners) * float(np.var(lengths, ddof=1))
            repeated += len(partners)
    if not repeated:
        return MeasurementError(0.0, 0.0, 0, "the voxels alone, as no mask was repeated")
    return MeasurementError(
        float(np.sqrt(border / repeated)), float(np.sqrt(diameter / repeated)), repeated, source
    )
