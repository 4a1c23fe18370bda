"""Which model a series goes to."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

from focalis.device.config import Condition, OutsidePolicy, Route
from focalis.device.models import ServedModel
from focalis.device.records import Roles, SeriesRow
from focalis.errors import UsageError
from focalis.patterns import fits

IMAGE_MODALITIES = ("CT", "MR", "PT")


def choose_models(
    series: SeriesRow, routes: Sequence[Route], models: Mapping[str, ServedModel]
) -> tuple[str, ...]:
    """The models of the first route that fits a series; none if there is no such route.

    Only CT, MR and PET series are segmented. Every pattern that a route gives must fit, see `fits_one`. Without routes,
    the single model takes all of them.
    """
    if series.modality.upper() not in IMAGE_MODALITIES:
        return ()
    if not routes:
        return tuple(models) if len(models) == 1 else ()
    route = route_of(series, routes)
    return () if route is None else route.models


def effective_routes(routes: Sequence[Route], roles: Mapping[str, Roles]) -> tuple[Route, ...]:
    """The routes, with the model and the one on trial exchanged where that was done on the page.

    A route whose models were changed since in focalis.toml stays as it is there.
    """
    found = []
    for route in routes:
        role = roles.get(route.models[0])
        if role is not None and len(route.models) == 1 and role.stated == (route.shadow or ""):
            route = route.model_copy(update={"model": role.current, "shadow": role.shadow})
        found.append(route)
    return tuple(found)


def route_of(series: SeriesRow, routes: Sequence[Route]) -> Route | None:
    """The first route that fits a series; None if there is none."""
    return next((route for route in routes if _takes(route, series)), None)


def model_for_points(
    series: SeriesRow | None, model: str, routes: Sequence[Route], models: Mapping[str, ServedModel]
) -> ServedModel | None:
    """What segments a lesion where a reviewer clicks on a result of a model; None if nothing does.

    A guided model does it itself; for a detector it is that of the route's `points`.
    """
    own = models.get(model)
    if own is None or own.header.guided:
        return own
    route = None if series is None else route_of(series, routes)
    return models.get(route.points) if route is not None and route.points else None


def label_of_points(answer: str, labels: Collection[str]) -> str | None:
    """The label among those of a result that a clicked lesion gets: its own, or the only one; None if neither."""
    return answer if answer in labels else next(iter(labels)) if len(labels) == 1 else None


def outside_policies(
    series: SeriesRow | None, routes: Sequence[Route], released: bool
) -> tuple[OutsidePolicy, OutsidePolicy]:
    """What to do with a series of another modality than the model's, and with one outside of its scope otherwise."""
    if released:
        return "mark", "mark"
    route = None if series is None else route_of(series, routes)
    if route is None or route.outside is None:
        return "refuse", "mark"
    return route.outside, route.outside


def check_routes(routes: Sequence[Route], models: Mapping[str, ServedModel]) -> None:
    """Refuse routes that lead nowhere, and several models without a route.

    Raises:
        UsageError: a route names no model of the device, its model for points takes none or has other labels, or it is
            open which model a series should go to.
    """
    for route in routes:
        named = (*route.models, *(each for each in (route.shadow, route.points) if each))
        if lost := [name for name in named if name not in models]:
            known = ", ".join(models)
            raise UsageError(f"a route leads to the model {lost[0]!r}; there is {known}: correct [[routes]]")
        if route.points:
            _check_points(route.points, route.models, models)
    if not routes and len(models) > 1:
        raise UsageError(f"{len(models)} models and no route; say in [[routes]] which series each one takes")


def _check_points(points: str, others: Sequence[str], models: Mapping[str, ServedModel]) -> None:
    if not models[points].header.guided:
        raise UsageError(f"a route has points = {points!r}, which takes no points; give a guided model")
    for name in others:
        header = models[name].header
        names = set(header.plan.labels.values())
        for label in models[points].header.plan.labels.values():
            if not header.guided and label_of_points(label, names) is None:
                raise UsageError(
                    f"a route has points = {points!r}, whose label {label!r} is none of {name}'s "
                    f"({', '.join(sorted(names))}); give a guided model of the same labels"
                )


def fits_one(pattern: str, value: str) -> bool:
    """Whether a pattern fits an attribute: the whole of it, or one of its values if it has several."""
    return any(fits(pattern, each) for each in (value, *value.split("\\")))


def _takes(route: Route, series: SeriesRow) -> bool:
    told = (
        (route.modality, series.modality),
        (route.body_part, series.body_part),
        (route.description, series.description),
    )
    values: dict[str, str] = json.loads(series.told or "{}")
    return all(pattern is None or fits_one(pattern, value) for pattern, value in told) and all(
        _holds(each, values.get(each.tag, "")) != each.unless for each in route.where
    )


def keywords_of(routes: Sequence[Route]) -> tuple[str, ...]:
    """The attributes that conditions ask for."""
    return tuple(sorted({each.tag for route in routes for each in route.where}))


def _holds(condition: Condition, value: str) -> bool:
    if condition.value is not None and not fits_one(condition.value, value):
        return False
    if condition.min is None and condition.max is None:
        return True
    try:
        found = [float(each) for each in value.split("\\")]
    except ValueError:
        return False
    low, high = condition.min, condition.max
    return all((low is None or each >= low) and (high is None or each <= high) for each in found)
