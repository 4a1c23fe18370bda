"""What a model file records of its own training that its users have to know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from focalis.model import Model


def members_of(model: Model) -> list[Mapping[str, Any]]:
    """The provenance of each member; of a model that is not an ensemble, its own."""
    members = model.provenance.get("members")
    if isinstance(members, list):
        return [member for member in members if isinstance(member, Mapping)]
    return [model.provenance]


def aim_of(model: Model) -> str:
    """What its operating point was chosen for, as `fit` takes it.

    Files of earlier versions do not say, and count as chosen for the Dice coefficient, as they were.
    """
    return str(members_of(model)[0].get("aim") or "dice")


def collapse_alert(model: Model) -> str:
    """One line if the model, or members of it, found nothing or marked everything when they were trained; else empty.

    Files of earlier versions do not say, and count as sound.
    """
    members = members_of(model)
    lines = [_collapse(member) for member in members]
    if not any(lines):
        point = model.operating_point
        if point.lesions and point.found == 0:
            return f"this model found none of the {point.lesions} lesions that its operating point was to be chosen on"
        return ""
    if len(members) == 1:
        return f"this model did not learn what it should: {lines[0]}"
    wrong = sum(map(bool, lines))
    first = next(line for line in lines if line)
    return f"{wrong} of the model's {len(members)} members did not learn what they should: {first}"


def _collapse(member: Mapping[str, Any]) -> str:
    return str(member.get("collapse") or "")
