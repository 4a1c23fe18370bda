"""The members of a run's folds as one model."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict

import numpy as np

from focalis.lesions import OperatingPoint
from focalis.model import EightBit, Model, Refinement
from focalis.planning import join_scopes
from focalis.workflows.model_record import aim_of


def ensemble(models: Sequence[Model]) -> Model:
    """One model of several: probabilities are averaged, and so is every number that each member chose."""
    every = [model.operating_point for model in models]
    points = [
        each for each in every if each.found != 0
    ] or every  # where nothing was found, nothing was chosen
    which = (
        f"{len(models)} members" if len(points) == len(models) else f"{len(points)} of {len(models)} members"
    )
    lesions, found = (
        None if None in numbers else sum(number or 0 for number in numbers)
        for numbers in ([each.lesions for each in every], [each.found for each in every])
    )
    point = OperatingPoint(
        threshold=float(np.mean([each.threshold for each in points])),
        how=_how(which, points, {aim_of(model) for model in models}),
        minimum_mm3=float(np.mean([each.minimum_mm3 for each in points])),
        minimum_confidence=float(np.mean([each.minimum_confidence for each in points])),
        lesions=lesions,
        found=found,
        second_look=tuple(np.mean([each.second_look for each in points], axis=0).tolist())
        if all(each.second_look for each in points)
        else (),
        temperature=float(np.exp(np.mean([np.log(each.temperature) for each in every]))),
    )
    provenance_ = {
        "members": [
            {**model.provenance, "operating_point": asdict(model.operating_point)} for model in models
        ]
    }
    members = tuple(member for model in models for member in model.members)
    scope = join_scopes([model.scope for model in models])
    refinement = mean_refinement([model.refinement for model in models if model.refinement])
    eight_bit = _calibration(models)
    return Model(models[0].plan, members, point, provenance_, scope, refinement, eight_bit)


def _how(which: str, points: Sequence[OperatingPoint], aims: Collection[str]) -> str:
    """What was averaged; a member's reason only where it is that of all, else by what they were chosen."""
    thresholds = ", ".join(f"{each.threshold:.3g}" for each in points)
    reasons = {each.how for each in points}
    why = f": {reasons.pop()}" if len(reasons) == 1 else f" by the aim {' or '.join(sorted(aims))}"
    return f"mean of {which} ({thresholds}), each chosen on its own inner split{why}"


def _calibration(models: Sequence[Model]) -> EightBit | None:
    """That of all members; the loss is the largest of any. None if a member has none."""
    found = [model.eight_bit for model in models if model.eight_bit is not None]
    if len(found) < len(models):
        return None
    ranges = tuple(member for each in found for member in each.ranges)
    return EightBit(ranges, max(each.dice_loss for each in found), "; ".join(each.how for each in found))


def mean_refinement(fitted: Sequence[Refinement]) -> Refinement | None:
    """The mean of each parameter over the members; None if none was fitted."""
    if not fitted:
        return None

    def mean(name: str) -> float:
        return float(np.mean([getattr(refinement, name) for refinement in fitted]))

    return Refinement(
        mean("similar_weight"),
        mean("similar_mm"),
        mean("similar_intensity"),
        mean("near_weight"),
        mean("near_mm"),
        round(mean("iterations")),
        f"mean of the parameters of {len(fitted)} members, each fitted on its own inner split",
    )
