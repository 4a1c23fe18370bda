"""Findings of a check that do not stop training, but that a person should look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from focalis.volume.grid import OTHER_UNIT

Kind = Literal[
    "few",
    "mixup",
    "duplicate",
    "split",
    "absent",
    "sentinel",
    "size",
    "segment",
    "foreground",
    "small",
    "border",
    "side",
    "mirrored",
    "misplaced",
    "intensity",
    "padding",
    "grid",
    "reader",
    "names",
]


@dataclass(frozen=True)
class Finding:
    """A warning.

    Attributes:
        kind: what it is about; `KINDS` has title, reason, advice and rule of each.
        message: what is the matter, one line.
    """

    kind: Kind
    cases: tuple[str, ...]
    message: str

    def __str__(self) -> str:
        return f"{', '.join(self.cases)}: {self.message}" if self.cases else self.message


@dataclass(frozen=True)
class KindOfFinding:
    """What all findings of a kind have in common.

    Attributes:
        rule: when it is reported.
        grave: whether `fit` and `compare` say it too, before they train.
    """

    title: str
    why: str
    advice: str
    rule: str
    grave: bool = False


LEAST_SHARE, GREATEST_SHARE = 1e-6, 0.30
FEW_VOXELS = 8
LEAST_CASES = 12
"""With fewer cases, no case is compared with what is usual."""
USUAL_SHARE = 0.05
"""What holds for more cases than this (and for more than one) is usual in the set, not a fault of a case."""
LEAST_OFFSET_MM = 5.0
OFFSETS_PER_SPREAD = 3.0
FENCE = 2.0
LEAST_RANGE, LEAST_FACTOR = 0.1, 1.5
FEW_PATIENTS, FEW_WITH_LESION = 5, 2
FEWEST_TO_COMPARE = 8
SENTINELS = frozenset({99, 127, 255, 999, 9999, 32767, 65535, 2**31 - 1, 2**32 - 1})
"""Values that programs give to voxels that nobody has judged."""
FILLED, RESTLESS, SMOOTH = (0.05, 0.5), 0.6, 0.95
CONTRAST_LOST, CONTRAST_KEPT, BEST_AS_IT_IS = 0.3, 0.7, 0.8
SEVERAL, LEAST_ALIKE = 4, 0.1
"""So many cases, and so great a share of the set, with the same mirror axes are not chance."""
NO_CONTRAST, MOST_OFF_OF_OTHERS, GREATEST_SPREAD, ENOUGH = 0.2, 0.5, 0.25, 12
"""With fewer than `ENOUGH` cases the others must be alike more closely."""
RANKS_AWAY, FEW_RANKS, LEAST_RANGE_OF_RANKS = 1.5, 10.0, 0.05
"""Of few cases the range of ranks is known too badly: it counts more by `FEW_RANKS` over their number."""
BY_CHANCE, FAINT = 2.5, 0.3

KINDS: dict[Kind, KindOfFinding] = {
    "few": KindOfFinding(
        "Too few cases",
        "A case that trains the model cannot judge it, and a figure from one or two scans is chance.",
        "Add cases; until then, look at every mask instead of the figures. If a label of one patient is a slip, "
        "correct its value.",
        f"Fewer than {FEW_PATIENTS} patients with image and label, fewer than {FEW_WITH_LESION} with a lesion, or a "
        "label that a single patient has.",
        grave=True,
    ),
    "mixup": KindOfFinding(
        "Images and label maps that look like each other",
        "A network that is trained on contours instead of scans learns nothing of scans, and its figures look good.",
        "Look at both, and put the scan and the label map in their places.",
        "All channels of a case hold 8 different values or fewer, which seldom change from voxel to voxel. Or a label "
        f"map of 2 to 4 values fills more than {FILLED[0]:.0%} and changes along every axis in {RESTLESS:.0%} or more "
        f"of the pairs of neighbours with foreground; or one of more than 16 values fills more than {FILLED[1]:.0%}, "
        f"and more than {SMOOTH:.0%} of its changes are steps of 10 % of its range or less. An image whose regions are "
        "exactly those of its label is an error.",
        grave=True,
    ),
    "duplicate": KindOfFinding(
        "The same content twice",
        "A copy counts twice in training; with one of the two held out, the figures flatter. Often one file was saved "
        "under a wrong name.",
        "Find out which of the two is right; remove the other case, or export it again.",
        "Two images, or two label maps of different images with any foreground, hold the same values, as they are "
        "stored or after both were turned into the same orientation. Header and data type do not count.",
        grave=True,
    ),
    "split": KindOfFinding(
        "One patient on both sides of a split",
        "A network that saw a patient in training does better on the same patient's other images: figures on that "
        "fold flatter.",
        "Move all cases of the patient to one side of the split.",
        "A split trains on one case of a patient and validates on another.",
        grave=True,
    ),
    "absent": KindOfFinding(
        "Labels that no case holds",
        "The network would have an output that nothing teaches. Often the contours were exported under another value, "
        "or a structure was forgotten.",
        "Correct the label maps, or take the name out of dataset.json.",
        "A label that the data set names has no voxel in any label map, though all of them could be read.",
        grave=True,
    ),
    "sentinel": KindOfFinding(
        "A value that may mean voxels to be ignored",
        "Such a value is learnt as a structure of its own, and counts in every figure.",
        "If it means the lesion (a mask saved as 0 and 255), write the lesion's value; if background, 0. If nobody "
        'judged these voxels, say so in dataset.json: {"labels": {"background": 0, "lesion": 1, "ignore": 255}}. If '
        "it is a structure, name it there.",
        "The data set names no labels, and its label maps hold 99, 127, 255, 999, 9999, 32767, 65535, 2147483647 or "
        "4294967295 beside other values, none of which is less by one.",
        grave=True,
    ),
    "size": KindOfFinding(
        "Voxels of another order of magnitude",
        "An image whose header is in another unit of length shrinks to a few voxels at the planned spacing, or grows "
        "beyond the memory.",
        "Correct the spacing in the header, or export the image again.",
        f"Of three images or more, one whose voxels have a mean side of {OTHER_UNIT:g} times the median or more, or of "
        "that part of it or less.",
        grave=True,
    ),
    "segment": KindOfFinding(
        "Names of segments that differ among cases",
        "The network learns values, not names: what one case calls by another name may be another structure.",
        "Give every structure one value and one name in all cases, and name the labels in dataset.json.",
        "Headers of label files in NRRD format, as 3D Slicer writes them, give one value different names, or one name "
        "different values. Case, spaces, hyphens and underscores do not count, nor do segments without voxels.",
    ),
    "foreground": KindOfFinding(
        "No foreground, or outside the method's range",
        "The method is made for foreground of 0.0001 % to 30 % of the volume. Less is hardly ever met by a patch; more "
        "is not a small object. A label without any foreground is right only where there is nothing to find.",
        "Look at the label. An empty one is welcome if there is no lesion. Crop an image whose foreground is too small "
        "a part of it.",
        f"The foreground fills less than {100 * LEAST_SHARE:g} % or more than {100 * GREATEST_SHARE:g} % of the "
        "label map, or nothing of it.",
    ),
    "small": KindOfFinding(
        "Lesions of a few voxels",
        "At the planned spacing such a lesion can vanish, and no network can draw its shape. Single voxels are often "
        "slips of the pen: each counts as a lesion that must be found.",
        "Look at these places. Remove slips of the pen; for true lesions plan a finer spacing (spacing_zyx_mm in "
        "plan.yaml).",
        f"A lesion (26-connected component of one label) has a volume of fewer than {FEW_VOXELS} voxels at the "
        "planned spacing.",
    ),
    "border": KindOfFinding(
        "Labels at the border of the image",
        "The lesion may go on outside: its volume and surface are then wrong, and its place in the image is unusual.",
        "Check whether the image was cropped too tightly or the scan ends there.",
        "A label has voxels in the first or last plane of an axis of three planes or more.",
    ),
    "side": KindOfFinding(
        "Left and right may be swapped",
        "An image or a label that was mirrored when it was exported teaches the wrong side, and no figure shows it.",
        "Compare image, label and the clinical record; export the case again if it is mirrored.",
        f"Judged for a label that {LEAST_CASES} cases or more have, whose centroid lies on the same side of the "
        f"image's centre, left or right, in all of them but one, or all but {USUAL_SHARE:.0%}; by "
        f"{LEAST_OFFSET_MM:g} mm or more in the median, which must be {OFFSETS_PER_SPREAD:g} times the robust "
        "spread or more. Reported are the cases that lie on the other side by half the median or more.",
        grave=True,
    ),
    "mirrored": KindOfFinding(
        "Labels that may be mirrored",
        "A label that lies elsewhere than its lesion teaches that the lesion is background, and no figure shows it.",
        "Look at image and label together; export the label again if they do not fit.",
        f"Judged per label and channel of {FEWEST_TO_COMPARE} cases or more, on the contrast: the mean inside the "
        "label less that of the two voxels around it, in standard deviations; the same for the label's seven mirror "
        f"images in the image's axes. Reported is a case whose contrast is {CONTRAST_LOST:g} of the median or less, "
        f"while that of a mirror image is {CONTRAST_KEPT:g} or more; if in {BEST_AS_IT_IS:.0%} of the other cases no "
        f"mirror image exceeds the label as it is, and no more than one case, or {USUAL_SHARE:.0%}, is concerned. "
        f"{SEVERAL} cases or more, {LEAST_ALIKE:.0%} up to all, are reported if one and the same mirror image fits in "
        f"all of them, and these and the cases that fit as they are make up {BEST_AS_IT_IS:.0%} of the set; two or "
        "three, if they make up all of it.",
        grave=True,
    ),
    "misplaced": KindOfFinding(
        "Labels that may belong elsewhere",
        "A label of another case, or one that was shifted or turned, teaches that lesions are background, and the "
        "background lesions.",
        "Look at image and label together. If they do not fit: find out which image the label was drawn on, and "
        "export it again.",
        f"Judged per label and channel of {FEWEST_TO_COMPARE} cases or more, on the contrast as for mirrored labels, "
        "and on the share of the image's voxels below the label's median. Reported is a case whose contrast is "
        f"{NO_CONTRAST:g} of the median or less and whose share lies outside the 10th to 90th percentile of the others "
        f"by more than {RANKS_AWAY:g} times (1 + {FEW_RANKS:g} / cases) their distance; if every other contrast is "
        f"within {MOST_OFF_OF_OTHERS:.0%} of the median (of fewer than {ENOUGH} cases, by their share, less), their "
        f"robust spread is {GREATEST_SPREAD:g} of it or less, and no more than two cases, or "
        f"{USUAL_SHARE:.0%}, are concerned. Also one case most of whose label lies where the image has its least "
        "value, while no other's does. And the whole set, if its labels differ neither from what lies around them "
        "nor from their mirror images: the means are within "
        f"{BY_CHANCE:g} standard errors of 0, and half of the contrasts within {FAINT:g}.",
        grave=True,
    ),
    "intensity": KindOfFinding(
        "Unusual intensities",
        "Other units, a window burnt in, an offset that was not applied or another kind of scan: the network meets "
        "numbers that it does not know.",
        "Look at the image. Export it again in the units of the others.",
        f"Judged per channel of {LEAST_CASES} images or more, on the 1st, 50th and 99th percentile of each image: "
        "the range from the 1st to the 99th, on a logarithmic scale; the 50th as a share of it; the 1st as a share "
        "of it or of the usual range, whichever is greater. Reported is an image outside the 10th to 90th "
        f"percentile of the images by more than {FENCE:g} times their distance, which counts as a factor of "
        f"{LEAST_FACTOR:g}, or {LEAST_RANGE:.0%}, or more. Where that holds for more than one image and for more than "
        f"{USUAL_SHARE:.0%} of them, the channel has no common unit, and none is reported. In a channel that the plan "
        "takes for CT, an image is also reported if it does not look like CT itself, under the same condition.",
    ),
    "padding": KindOfFinding(
        "Fill values for no data",
        "Such a value is not an intensity: it shifts the mean and the spread that images are normalised by, so that "
        "the rest of the image loses its contrast.",
        "Replace the value by that of the background, for instance air, and export the image again.",
        "The least or the greatest value of an image has two voxels or more and lies beyond all others by more than "
        "four times their range, or is the limit of an integer type of 16 or 32 bits and lies beyond by more than once "
        "their range. An image of few distinct values is not looked at.",
    ),
    "grid": KindOfFinding(
        "Images whose grid is not quite right",
        "The image is used on a grid that is not exactly the one in its file.",
        "Nothing, if image and label fit each other on the screen; otherwise export the image again.",
        "Axes are not quite perpendicular, a channel is resampled onto the grid of the case's first channel, the "
        "fields of a NIfTI header contradict each other, or the header does not say how the image lies.",
    ),
    "reader": KindOfFinding(
        "Readers' files without a case",
        "These contours are never looked at.",
        "Correct the name to CASE_READER, or remove the file.",
        "A file in raters/ begins with the name of no case. Cases without readers are normal and only counted.",
    ),
    "names": KindOfFinding(
        "Files, columns and cases that are passed over",
        "What is nearly called as Focalis expects it was probably meant to be read. Without patients, one person's "
        "scans may train and validate.",
        "Rename the file or the column as the line says, or leave it if it is about something else.",
        "A table without a column of cases or patients, a column of image files of another name, a dataset.json "
        "without labels, files of an unknown suffix beside the images, splits or patients in a file of another name; a "
        "row of a manifest that names files of two cases; cases on neither side of a split.",
        grave=True,
    ),
}
