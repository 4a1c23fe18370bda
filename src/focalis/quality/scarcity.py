"""Whether there are enough cases to train and to judge, and whether their images are images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from focalis.dataset import Dataset
from focalis.quality.facts import CaseFacts
from focalis.quality.finding import FEW_PATIENTS, FEW_WITH_LESION, Finding


def find_too_few(dataset: Dataset, facts: Sequence[CaseFacts], names: Mapping[int, str]) -> Iterator[Finding]:
    """Labels that too few patients have to train and evaluate them.

    Lesions and labels are not judged while errors hide label maps.
    """
    usable = [case for case in facts if case.images and case.label is not None]
    patients = {case.patient for case in usable}
    if 0 < len(patients) < FEW_PATIENTS:
        people = "1 patient" if len(patients) == 1 else f"{len(patients)} patients"
        which = f"1 case of {people} is" if len(usable) == 1 else f"{len(usable)} cases of {people} are"
        yield Finding("few", (), f"{which} too few to judge what is trained on them")
    if len(usable) < len(dataset.cases):
        return
    having: dict[int, dict[str, str]] = {}
    for case in usable:
        for label in case.labels:
            having.setdefault(label.value, {})[case.patient] = case.case
    everybody = {patient: name for holders in having.values() for patient, name in holders.items()}
    if len(patients) >= FEW_PATIENTS and 0 < len(everybody) < FEW_WITH_LESION:
        yield Finding(
            "few",
            tuple(everybody.values()),
            "is the only patient with a lesion: it can train or be judged, not both",
        )
    elif len(patients) > 1:
        for value, holders in having.items():
            if len(holders) == 1:
                yield Finding(
                    "few",
                    tuple(holders.values()),
                    f"is the only patient with {names[value]}: it can be trained or judged, not both",
                )


def find_mistaken_files(facts: Sequence[CaseFacts]) -> Iterator[Finding]:
    """Sound cases all of whose channels look like label maps, or whose label map may be an image."""
    for case in facts:
        if case.label is not None and case.label.like_an_image:
            path = case.label.path
            yield Finding(
                "mixup",
                (case.case,),
                f"{path.parent.name}/{path.name} changes from place to place as an image does",
            )
        if case.label is not None and case.images and all(image.like_a_label for image in case.images):
            files = ", ".join(
                dict.fromkeys(f"{image.path.parent.name}/{image.path.name}" for image in case.images)
            )
            yield Finding("mixup", (case.case,), f"{files} holds a few values, as a label map does")
