"""How large voxels, foreground and its pieces are, and how near the border these lie."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from focalis.display import listed
from focalis.quality.facts import CaseFacts, LesionFacts
from focalis.quality.finding import FEW_VOXELS, GREATEST_SHARE, LEAST_CASES, LEAST_SHARE, Finding
from focalis.volume import odd_voxels

LISTED_LESIONS = 3


def share_in_words(share: float) -> str:
    """Where a foreground share (0 to 1) leaves the method's range: "none", "below", "above"; else nothing."""
    if share == 0:
        return "none"
    if share < LEAST_SHARE:
        return "below"
    return "above" if share > GREATEST_SHARE else ""


def voxels_at(lesion: LesionFacts, spacing_zyx_mm: Sequence[float]) -> float:
    """The number of voxels of a lesion's volume at another spacing."""
    return lesion.volume_mm3 / math.prod(spacing_zyx_mm)


def find_odd_shares(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Label maps whose foreground lies outside the method's range; one finding for all that hold none."""
    drawn = [case for case in facts if case.label is not None]
    empty = [case.case for case in drawn if case.label is not None and case.label.foreground_share == 0]
    if len(empty) == 1:
        yield Finding("foreground", (empty[0],), "the label holds no foreground")
    elif empty:
        yield Finding(
            "foreground",
            (),
            f"{len(empty)} of {len(drawn)} cases hold no lesion ({listed(empty)}), which is right only where there is "
            "nothing to find; folds and the inner split share them out; read the Dice of the cases with a lesion, for "
            "an empty case counts 1 if nothing is marked in it",
        )
    for case in facts:
        if case.label is None:
            continue
        percent = f"the foreground fills {100 * case.label.foreground_share:.3g} % of the image"
        word = share_in_words(case.label.foreground_share)
        if word == "below":
            yield Finding("foreground", (case.case,), f"{percent}, less than {100 * LEAST_SHARE:g} %")
        elif word == "above":
            yield Finding("foreground", (case.case,), f"{percent}, more than {100 * GREATEST_SHARE:g} %")


def find_odd_voxels(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Cases whose voxels are larger or smaller by an order of magnitude than those of the set."""
    spacings = {case.case: case.images[0].grid.spacing_xyz_mm for case in facts if case.images}
    if len(spacings) < 3:
        return
    side = float(np.median([np.cbrt(np.prod(spacing)) for spacing in spacings.values()]))
    for name, spacing in spacings.items():
        if odd := odd_voxels(spacing, (side, side, side)):
            yield Finding("size", (name,), odd)


def find_small_lesions(
    facts: Sequence[CaseFacts], names: Mapping[int, str], spacing_zyx_mm: Sequence[float]
) -> Iterator[Finding]:
    """Lesions that have only a few voxels at the planned spacing; one finding per case."""
    for case in facts:
        said = []
        for label in case.labels:
            small = [lesion for lesion in label.lesions if voxels_at(lesion, spacing_zyx_mm) < FEW_VOXELS]
            if small:
                places = "; ".join(
                    f"{voxels_at(lesion, spacing_zyx_mm):.2g} at {_place(lesion)}"
                    for lesion in sorted(small, key=lambda lesion: lesion.voxels)[:LISTED_LESIONS]
                )
                more = "; ..." if len(small) > LISTED_LESIONS else ""
                said.append(f"{len(small)} of {len(label.lesions)} of {names[label.value]} ({places}{more})")
        if said:
            what = f"lesions of fewer than {FEW_VOXELS} voxels at the planned spacing"
            yield Finding("small", (case.case,), f"{what}: {', '.join(said)}")


def _place(lesion: LesionFacts) -> str:
    x, y, z = lesion.voxel_xyz
    return f"x {x}, y {y}, z {z}"


def find_border_labels(facts: Sequence[CaseFacts], names: Mapping[int, str]) -> Iterator[Finding]:
    """Labels that touch the border of the image; one finding per case, or for all where most cases with a label do."""
    touching = [case.case for case in facts if any(label.sides for label in case.labels)]
    having = sum(bool(case.labels) for case in facts)
    if len(touching) >= LEAST_CASES and 2 * len(touching) > having:
        yield Finding(
            "border",
            (),
            f"in {len(touching)} of {having} cases with a lesion a label touches the end of the image "
            f"({listed(touching)}): usual here, as where slices are few",
        )
        return
    for case in facts:
        said = [
            f"{names[label.value]} touches the {' and '.join(label.sides)} end of the image"
            for label in case.labels
            if label.sides
        ]
        if said:
            yield Finding("border", (case.case,), "; ".join(said))
