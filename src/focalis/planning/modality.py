"""The modality that a plan is for, as far as it tells, and what DICOM says of another one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from focalis.planning.plan import Normalisation, Plan

MODALITIES = {
    "CT": "CT",
    "MR": "MR",
    "MRI": "MR",
    "T1": "MR",
    "T1W": "MR",
    "T2": "MR",
    "T2W": "MR",
    "FLAIR": "MR",
    "PT": "PT",
    "PET": "PT",
}
"""Word of a channel's name to DICOM's name of the modality (PS3.3 C.7.3.1.1.1)."""


def modality_of(channel: str, how: Normalisation) -> str:
    """CT, MR or PT by a word of a channel's name; without one, CT where intensities are windowed: plans window
    only Hounsfield units. Empty where nothing tells, or words contradict each other."""
    words = re.split(r"[^A-Z0-9]+", channel.upper())
    named = {MODALITIES[word] for word in words if word in MODALITIES}
    if not named and how.kind == "window":
        return "CT"
    return named.pop() if len(named) == 1 else ""


def other_modalities(plan: Plan, modalities: Sequence[str]) -> tuple[str, ...]:
    """A phrase per channel whose images are of another modality than the plan's.

    Args:
        modalities: one per channel, as DICOM names them; or none, where the images do not tell. Of other names than CT,
            MR and PT are not judged.
    """
    found = []
    for number, modality in enumerate(modalities):
        channel = plan.channels[number]
        wanted = modality_of(channel, plan.normalisation[number])
        if wanted and modality in MODALITIES.values() and modality != wanted:
            who = "it" if len(plan.channels) == 1 else channel
            article = "an" if modality == "MR" else "a"
            takes = "the model is for" if len(plan.channels) == 1 else "the model takes there"
            found.append(f"{who} is {article} {modality} series, and {takes} {wanted}")
    return tuple(found)
