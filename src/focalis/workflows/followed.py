"""What `follow` found: the lesions of one person over dates."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from focalis.display import Shown
from focalis.followup import (
    CHANGE_RULE,
    ERROR_RULE,
    FOLLOWING_RULE,
    RECIST_RULE,
    REGISTRATION_RULE,
    LesionDay,
    MeasurementError,
    Placement,
    Study,
    Targets,
    Track,
)
from focalis.identity import ModelIdentity
from focalis.lesions import MEASURING_RULE

RULES = (MEASURING_RULE, REGISTRATION_RULE, FOLLOWING_RULE, CHANGE_RULE, ERROR_RULE, RECIST_RULE)


@dataclass(frozen=True, eq=False, repr=False)
class Followed(Shown):
    """The lesions of one person over dates.

    Attributes:
        studies: the dates, in their order.
        placements: how each date's scan lies to the others.
        measured: of each lesion its size and change on every date.
        error: how well sizes are measured.
        targets: the targets and their sums; None if there is none.
        notes: what a reader should know, a sentence each.
        model: the model; None if masks were given.
        pointed: whether a person pointed at the lesions of the first date.
    """

    shows = ("studies", "tracks", "error", "targets", "notes", "model")

    studies: tuple[Study, ...]
    placements: tuple[Placement, ...]
    tracks: tuple[Track, ...]
    uids: tuple[str, ...]
    measured: tuple[tuple[LesionDay, ...], ...]
    error: MeasurementError
    targets: Targets | None
    notes: tuple[str, ...]
    model: ModelIdentity | None
    pointed: bool = False

    def to_json(self) -> dict[str, Any]:
        """All of it but the images, as plain JSON."""
        return {
            "dates": [_date(self, day) for day in range(len(self.studies))],
            "lesions": [
                {
                    "lesion": each.number,
                    "label": each.label,
                    "name": each.name,
                    "tracking_uid": uid,
                    "dates": [
                        {**asdict(sighting), **asdict(found)}
                        for sighting, found in zip(each.sightings, days, strict=True)
                    ],
                }
                for each, uid, days in zip(self.tracks, self.uids, self.measured, strict=True)
            ],
            "targets": None if self.targets is None else asdict(self.targets),
            "error": asdict(self.error),
            "notes": list(self.notes),
            "rules": list(RULES),
            **({"model_sha256": None} if self.model is None else self.model.record()),
            "focalis": version("focalis"),
        }


def _date(followed: Followed, day: int) -> dict[str, Any]:
    study, placement = followed.studies[day], followed.placements[day]
    found = placement.registration
    return {
        "scan": study.name,
        "day": None if study.day is None else study.day.isoformat(),
        "registered_to": None if placement.onto is None else followed.studies[placement.onto].name,
        "registration": None
        if found is None
        else {
            "kind": found.kind,
            "similarity": found.similarity,
            "overlap": found.overlap,
            "inconsistency_mm": found.inconsistency_mm if np.isfinite(found.inconsistency_mm) else None,
            "problem": found.problem,
            "matrix": found.transform.matrix.tolist(),
            "offset_mm": found.transform.offset.tolist(),
        },
    }
