"""Which studies in the store a new one may be compared with."""

from __future__ import annotations

from collections.abc import Sequence

from focalis.device.config import Route
from focalis.device.named_images import numbers_of
from focalis.device.records import EarlierStudy, SeriesRow, SeriesTask
from focalis.device.routing import route_of
from focalis.device.store import Store


def earlier_studies(
    store: Store, routes: Sequence[Route], task: SeriesTask, row: SeriesRow
) -> list[EarlierStudy]:
    """Other studies of the person that the same route took and the same model segmented, wholly."""
    route = route_of(row, routes)
    if not _is_followed(route):
        return []
    found = []
    for other in store.series_of_person(row.person):
        if other.study_uid == row.study_uid or other.modality != row.modality:
            continue
        earlier = store.task_of(other.series_uid, task.model)
        if earlier is None or earlier.partial or route_of(other, routes) != route:
            continue
        # the last of a kind is a person's, if there is one
        results = {each.kind: each for each in store.results(earlier.task_id)}
        segmentation = results.get("correction", results.get("seg"))
        report = results.get("correction-sr" if "correction" in results else "sr")
        images = store.images(other.series_uid)
        if segmentation and images:
            mask, *files = store.at_hand([segmentation, *images])
            told = str(*store.at_hand([report])) if report else ""
            numbers = numbers_of(files, images)
            found.append(EarlierStudy(earlier.task_id, numbers, str(mask), told, earlier.model_sha256))
    return found


def namesake_studies(store: Store, routes: Sequence[Route], row: SeriesRow) -> str:
    """A line about studies that are not compared because their Patient ID is spelt otherwise; empty without any."""
    if not _is_followed(route_of(row, routes)):
        return ""
    count = len({each.study_uid for each in store.namesakes(row) if each.modality == row.modality})
    if not count:
        return ""
    studies = "1 other study has" if count == 1 else f"{count} other studies have"
    return (
        f"{studies} nearly the same Patient ID (capitals, separators, zeros or the issuer differ) and did not count "
        "for the follow-up; if they are of this patient, correct the ID and send them again"
    )


def _is_followed(route: Route | None) -> bool:
    return route is None or route.follow_up
