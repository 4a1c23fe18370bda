"""The models of the device: training data, evaluation, operating point."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from starlette.responses import RedirectResponse

from focalis.device.config import Route
from focalis.device.models import ServedModel
from focalis.device.records import Retraining, Roles
from focalis.device.retraining import lineage_of
from focalis.device.routing import effective_routes
from focalis.device.trial import COMPARED, LEAST_STUDIES, Drift, drift_of, trial_of
from focalis.device.web.auth import Session
from focalis.device.web.site import Site, changes, needs, site_of
from focalis.device.web.system import ReviewedStudy, reviewed_studies
from focalis.errors import UsageError
from focalis.lesions import OperatingPoint
from focalis.model import Model
from focalis.models import DATA, card_of

router = APIRouter()

Admin = Annotated[Session, Depends(changes("admin"))]
FIGURE_NAMES = {
    "dice_with_lesion": "Dice, where there is a lesion",
    "lesion_f1": "F1 of lesions",
    "false_positives_per_scan": "false findings per scan",
}

_CHECKPOINT = "checkpoint.safetensors"  # of `focalis fit`, while it trains
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 520, 220, 46, 34, 12


@dataclass(frozen=True)
class Curve:
    """The operating point's curve, ready to be drawn as SVG.

    Attributes:
        points: "x,y x,y ..." of the line, in pixels.
        marker: where the threshold lies.
        ticks_x, ticks_y: pixel and text.
        best: the score at the threshold.
    """

    points: str
    marker: tuple[float, float]
    ticks_x: tuple[tuple[float, str], ...]
    ticks_y: tuple[tuple[float, str], ...]
    best: float


@dataclass(frozen=True)
class Card:
    """What the page says of one model.

    Attributes:
        routes: those that lead to it.
        beside: what else it does, a sentence each.
    """

    model: ServedModel
    routes: tuple[Route, ...]
    beside: tuple[str, ...]
    facts: Mapping[str, str]
    cases: Mapping[str, Sequence[str]]
    curve: Curve | None
    figures: tuple[Mapping[str, Any], ...]
    drift: tuple[int, tuple[Drift, ...]]


@router.get("/models")
def models(request: Request, _: Annotated[Session, Depends(needs("viewer"))]) -> Response:
    site = site_of(request)
    store, known = site.device.store, site.device.models
    routes = effective_routes(site.device.config.routes, store.roles())
    cards = [
        Card(
            model=model,
            routes=tuple(route for route in routes if model.name in route.models),
            beside=_beside(model.name, routes),
            facts=_facts(model),
            cases=_cases(model.header),
            curve=curve_of(model.header.operating_point),
            figures=_figures(model.file),
            drift=drift_of(store, model.name),
        )
        for model in known.values()
    ]
    pairs = dict.fromkeys((route.models[0], route.shadow) for route in routes if route.shadow)
    return site.page(
        request,
        "models.html.j2",
        cards=cards,
        any_routes=bool(routes),
        trials=[trial_of(store, current, shadow) for current, shadow in pairs],
        months=store.verdicts_by_month()[:24],
        compared=COMPARED,
        least=LEAST_STUDIES,
        reviewed={name: len(studies) for name, studies in _reviewed(site).items()},
        retrainings=store.retrainings()[:10],
        too_few=site.device.retrainer.too_few,
        figures=FIGURE_NAMES,
    )


def _beside(name: str, routes: Sequence[Route]) -> tuple[str, ...]:
    said = []
    for route in routes:
        others = ", ".join(route.models)
        if route.shadow == name:
            said.append(f"On trial beside {others}.")
        if route.points == name:
            said.append(f"Segments what {others} missed, where a reviewer clicks.")
    return tuple(dict.fromkeys(said))


@router.post("/models/promote")
def promote(
    request: Request,
    session: Admin,
    current: Annotated[str, Form()],
    shadow: Annotated[str, Form()],
) -> Response:
    """Put the model on trial in the place of the current one, and that one on trial."""
    site = site_of(request)
    store, config = site.device.store, site.device.config
    changed = False
    for route in config.routes:
        (now,) = effective_routes([route], store.roles())
        if (now.models, now.shadow) == ((current,), shadow):
            store.set_roles(Roles(route.models[0], shadow, current, route.shadow or ""), session.user)
            changed = True
    if not changed:
        raise HTTPException(409, "These models are not beside each other any more; look at the page again.")
    site.note(request, session.user, f"promoted the model {shadow} in the place of {current}")
    return RedirectResponse("/models#trials", 303)


@router.post("/models/retrain")
def retrain(request: Request, session: Admin, model: Annotated[str, Form()]) -> Response:
    """Train a model on with the reviewers' corrections."""
    site = site_of(request)
    studies = _reviewed(site).get(model)
    if studies is None:
        raise HTTPException(404, "There is no such model.")
    store = site.device.store
    told = [] if store.in_bucket else [study.at_hand(store) for study in studies]  # then it is refused
    begun = _or_conflict(lambda: site.device.retrainer.begin(model, told, session.user))
    site.note(
        request,
        session.user,
        f"began to retrain {model} as {begun.name} with {len(studies)} reviewed studies",
    )
    return RedirectResponse("/models#retraining", 303)


@router.post("/models/retrain/cancel")
def cancel(request: Request, session: Admin) -> Response:
    """End the retraining that is under way."""
    site = site_of(request)
    ended = site.device.retrainer.cancel()
    if ended is None:
        raise HTTPException(409, "No model is being retrained.")
    site.note(request, session.user, f"cancelled the retraining of {ended.model} as {ended.name}")
    return RedirectResponse("/models#retraining", 303)


@router.post("/models/retrain/{number}/trial")
def put_on_trial(request: Request, session: Admin, number: int) -> Response:
    """Put a new model that was judged on trial."""
    site = site_of(request)
    found = _or_conflict(lambda: site.device.retrainer.put_on_trial(number, session.user))
    site.note(request, session.user, f"put {found.name} on trial beside {found.model}")
    return RedirectResponse("/models#trials", 303)


def _or_conflict(step: Callable[[], Retraining]) -> Retraining:
    try:
        return step()
    except UsageError as error:
        raise HTTPException(409, f"{str(error)[0].upper()}{str(error)[1:]}.") from error


def _reviewed(site: Site) -> dict[str, list[ReviewedStudy]]:
    """By model, the reviewed studies of it and of those that it descends from, each series once."""
    store, found = site.device.store, reviewed_studies(site)
    retrainings = store.retrainings()
    return {
        model: list(
            {
                study.case: study
                for name in reversed(lineage_of(model, retrainings))
                for study in found.get(name, [])
            }.values()
        )
        for model in site.device.models
    }


def curve_of(point: OperatingPoint) -> Curve | None:
    """The curve of scores over thresholds in pixels; None without at least two points."""
    curve, threshold = point.curve, point.threshold
    if len(curve) < 2:
        return None
    scores = [score for _, score in curve]
    low, high = min(scores), max(scores)
    margin = max((high - low) * 0.15, 0.01)
    low, high = max(0.0, low - margin), high + margin

    def x(value: float) -> float:
        return round(_LEFT + value * (_WIDTH - _LEFT - 10), 1)

    def y(value: float) -> float:
        return round(_TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM), 1)

    nearest = min(curve, key=lambda point: abs(point[0] - threshold))
    return Curve(
        points=" ".join(f"{x(at)},{y(score)}" for at, score in curve),
        marker=(x(threshold), y(nearest[1])),
        ticks_x=tuple((x(tick / 5), f"{tick / 5:g}") for tick in range(6)),
        ticks_y=tuple((y(value), f"{value:.2f}") for value in (low, (low + high) / 2, high)),
        best=nearest[1],
    )


def _facts(model: ServedModel) -> dict[str, str]:
    """The provenance in words, what is there of it."""
    header, card = model.header, card_of(model.file)
    own = _members(header)[0]
    packages = own.get("packages")
    found = {
        "data set": own.get("dataset"),
        "data, SHA-256": own.get("data_sha256"),
        "trained with": f"Focalis {packages['focalis']}"
        if isinstance(packages, Mapping) and "focalis" in packages
        else None,
        "finished": own.get("finished"),
        "training": f"{own['training_seconds'] / 60:.0f} minutes" if "training_seconds" in own else None,
        "steps": own.get("steps"),
        "parameters": f"{own['parameters']:,}" if isinstance(own.get("parameters"), int) else None,
        "seed": own.get("seed"),
        "promise": header.operating_point.promise,
        "loss": header.plan.loss.name,
        "network": header.plan.network.name,
        "members": len(header.members),
        "spacing": " x ".join(f"{value:g}" for value in reversed(header.plan.spacing_zyx_mm))
        + " mm (x, y, z)",
        "data and licence": card and DATA[card.stem],
        "file": model.file.name,
        "file, SHA-256": header.identity.file_sha256,
        "weights, SHA-256": header.identity.weights_sha256,
        "model card": card and card.name,
    }
    return {name: str(value) for name, value in found.items() if value not in (None, "")}


def _cases(header: Model) -> dict[str, list[str]]:
    """What the cases were used for, to their names."""
    named: dict[str, dict[str, None]] = {}
    for member in _members(header):
        cases = member.get("cases")
        if isinstance(cases, Mapping):
            for use, names in cases.items():
                named.setdefault(str(use).replace("_", " "), {}).update(dict.fromkeys(map(str, names)))
    return {use: list(names) for use, names in named.items() if names}


def _members(header: Model) -> list[Mapping[str, Any]]:
    members = header.provenance.get("members")
    if isinstance(members, Sequence) and not isinstance(members, str) and members:
        return [member for member in members if isinstance(member, Mapping)] or [{}]
    return [header.provenance]


def _figures(model: Path) -> tuple[Mapping[str, Any], ...]:
    """The scores in the evaluation.json that `focalis fit` leaves beside its model.

    None without it, and none where another model lies in the same folder: the file does not say whose scores it holds.
    """
    if {path.name for path in model.parent.glob("*.safetensors")} - {model.name, _CHECKPOINT}:
        return ()
    try:
        content = json.loads((model.parent / "evaluation.json").read_text(encoding="utf-8"))
        labels = content["summary"]["labels"]
        return tuple(label for label in labels if label["statistics"] and "lesions" in label)
    except (OSError, ValueError, KeyError, TypeError):
        return ()
