"""Which studies in the store a new one may be compared with."""

from __future__ import annotations

from collections.abc import Sequence

from focalis.device.config import Route
from focalis.device.records import EarlierStudy, SeriesRow, SeriesTask
from focalis.device.routing import route_of
from focalis.device.store import Store


def earlier_studies(
    store: Store, routes: Sequence[Route], task: SeriesTask, row: SeriesRow
) -> list[EarlierStudy]:
    """Other studies of the person that the same route took and the same model segmented, wholly."""
    route = route_of(row, routes)
    if route is not None and not route.follow_up:
        return []
    found = []
    for other in store.series_of_person(row.person):
        if other.study_uid == row.study_uid or other.modality != row.modality:
            continue
        earlier = store.task_of(other.series_uid, task.model)
        if earlier is None or earlier.partial or route_of(other, routes) != route:
            continue
        # the last of a kind is a person's, if there is one
        files = {each.kind: str(each.path) for each in store.results(earlier.task_id)}
        segmentation = files.get("correction", files.get("seg", ""))
        report = files.get("correction-sr", "") if "correction" in files else files.get("sr", "")
        images = [str(each.path) for each in store.images(other.series_uid)]
        if segmentation and images:
            found.append(EarlierStudy(earlier.task_id, images, segmentation, report, earlier.model_sha256))
    return found
