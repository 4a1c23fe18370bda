"""Images whose intensities lie far from those of the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from focalis.quality.facts import CaseFacts
from focalis.quality.finding import FENCE, LEAST_CASES, LEAST_FACTOR, LEAST_RANGE, USUAL_SHARE, Finding

CT_FIRST_PERCENTILE = -300.0
"""A channel whose median 1st percentile is below this holds Hounsfield units: the rule that plans follow too."""


def find_odd_intensities(facts: Sequence[CaseFacts], channels: Sequence[str]) -> Iterator[Finding]:
    """Images whose low end, median or range of intensities is far from that of the other cases."""
    for channel in channels:
        images = [(case.case, image) for case in facts for image in case.images if image.channel == channel]
        rows = np.asarray([(image.low, image.middle, image.high) for _, image in images]).reshape(-1, 3)
        which = f"channel {channel}: " if len(channels) > 1 else ""
        usual = (
            "{:.4g} to {:.4g}, median {:.4g}".format(*np.median(rows, axis=0)[[0, 2, 1]]) if len(rows) else ""
        )
        not_ct = no_common_unit(lacks_hounsfield_units(rows))
        far = no_common_unit(far_from_the_others(rows))
        for (case, image), alien, odd in zip(images, not_ct, far, strict=True):
            values = f"intensities of {image.low:.4g} to {image.high:.4g}, median {image.middle:.4g}"
            if alien:
                yield Finding(
                    "intensity", (case,), f"{which}{values}: no Hounsfield units, unlike the others"
                )
            elif odd:
                yield Finding("intensity", (case,), f"{which}{values}; usual in this set are {usual}")


def find_padding(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Images with values that most likely mark missing data."""
    for case in facts:
        for image in case.images:
            if image.padding is not None:
                yield Finding(
                    "padding",
                    (case.case,),
                    f"{image.path.parent.name}/{image.path.name}: the value {image.padding:g} most likely means "
                    "no data",
                )


def no_common_unit(odd: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The same, or none where many images are marked: then the data set has two scales, and none is a fault."""
    many = np.count_nonzero(odd) > max(1.0, USUAL_SHARE * odd.size)
    return np.zeros_like(odd) if many else odd


def lacks_hounsfield_units(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which images (rows of low, middle, high) do not look like CT although the channel does."""
    if len(rows) < LEAST_CASES or np.median(rows[:, 0]) >= CT_FIRST_PERCENTILE:
        return np.zeros(len(rows), dtype=np.bool_)
    return rows[:, 0] >= CT_FIRST_PERCENTILE


def far_from_the_others(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which images (rows of low, middle, high) lie outside the fences; see `intensity` in `focalis.quality.KINDS`."""
    if len(rows) < LEAST_CASES:
        return np.zeros(len(rows), dtype=np.bool_)
    low, middle, high = rows.T
    extent = np.maximum(high - low, np.finfo(np.float64).tiny)
    return (
        _outside(low / np.maximum(extent, np.median(extent)), LEAST_RANGE)
        | _outside((middle - low) / extent, LEAST_RANGE)
        | _outside(np.log(extent), float(np.log(LEAST_FACTOR)))
    )


def _outside(values: NDArray[np.float64], least: float) -> NDArray[np.bool_]:
    low, high = np.percentile(values, (10, 90))
    reach = FENCE * max(high - low, least)
    return np.asarray((values < low - reach) | (values > high + reach))
