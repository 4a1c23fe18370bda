"""Which model a series goes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch

from focalis.device.config import Route
from focalis.device.models import ServedModel
from focalis.device.records import SeriesRow
from focalis.errors import UsageError

IMAGE_MODALITIES = ("CT", "MR", "PT")


def choose_model(series: SeriesRow, routes: Sequence[Route], models: Mapping[str, ServedModel]) -> str | None:
    """The model of the first route that fits a series; None if there is none.

    Only CT, MR and PET series are segmented. Every pattern that a route gives must fit; `*` and `?` stand for any
    text and any letter, capitals do not count. Without routes, the single model takes all of them.
    """
    if series.modality not in IMAGE_MODALITIES:
        return None
    if not routes:
        return next(iter(models)) if len(models) == 1 else None
    return next((route.model for route in routes if _fits(series, route)), None)


def check_routes(routes: Sequence[Route], models: Mapping[str, ServedModel]) -> None:
    """Refuse routes that lead nowhere, and several models without a route.

    Raises:
        UsageError: a route names no model of the device, or it is open which model a series should go to.
    """
    for route in routes:
        if route.model not in models:
            known = ", ".join(models)
            raise UsageError(
                f"a route leads to the model {route.model!r}; there is {known}: correct [[routes]]"
            )
    if not routes and len(models) > 1:
        raise UsageError(f"{len(models)} models and no route; say in [[routes]] which series each one takes")


def _fits(series: SeriesRow, route: Route) -> bool:
    told = (
        (route.modality, series.modality),
        (route.body_part, series.body_part),
        (route.description, series.description),
    )
    return all(pattern is None or fnmatch(value.lower(), pattern.lower()) for pattern, value in told)
