"""Several readers' label maps become one.

All functions take class indices (0 background, `IGNORED` where the reader has not judged), uint8, one array per reader,
all of one shape (z, y, x), and return an array of that shape. A single reader is the consensus.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from focalis.dataset.case import IGNORED

Classes = NDArray[np.uint8]


def majority(readers: Sequence[Classes]) -> Classes:
    """Foreground where at least half of the readers who judged the voxel say so; the label is the most frequent one.

    A tie between background and foreground is foreground: of two readers that is the union. Small lesions lose more
    by a voxel that is missing than by one too many. A tie between labels goes to the lowest. What nobody judged stays
    `IGNORED`.
    """
    stack = np.stack(readers)
    judged = np.count_nonzero(stack != IGNORED, axis=0)
    found = np.zeros(stack.shape[1:], np.uint8)
    foreground = np.zeros(stack.shape[1:], np.int64)
    most = np.zeros(stack.shape[1:], np.int64)
    for value in _labels(stack):
        votes = np.count_nonzero(stack == value, axis=0)
        better = votes > most
        found[better], most[better] = value, votes[better]
        foreground += votes
    found[2 * foreground < judged] = 0
    found[judged == 0] = IGNORED
    return found


def staple(readers: Sequence[Classes]) -> Classes:
    """SimpleITK's STAPLE of each label's masks over the whole array; where its probability reaches 0.5.

    STAPLE estimates each reader's sensitivity and specificity together with the hidden truth. Of several labels that
    reach 0.5 the likeliest counts. A voxel that any reader has not judged is `IGNORED`: the algorithm knows no
    abstention.

    Source: Warfield, Zou and Wells, IEEE Trans Med Imaging 2004, doi:10.1109/TMI.2004.828354, as SimpleITK has it.
    """
    stack = np.stack(readers)
    found: Classes = stack[0].copy()
    if len(stack) > 1:
        found[:] = 0
        best = np.zeros(found.shape)
        for value in _labels(stack):
            images = [sitk.GetImageFromArray((mask == value).astype(np.uint8)) for mask in stack]
            likely = sitk.GetArrayFromImage(sitk.STAPLE(images, 1.0))
            better = (likely >= 0.5) & (likely > best)
            found[better], best[better] = value, likely[better]
    found[(stack == IGNORED).any(axis=0)] = IGNORED
    return found


def _labels(stack: Classes) -> list[int]:
    return sorted(set(np.unique(stack).tolist()) - {0, IGNORED})
