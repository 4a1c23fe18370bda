"""What may go from the disk: studies that are old, or the oldest ones when space is short; never what was not sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from focalis.device.config import StoreSettings
from focalis.device.records import SeriesRow
from focalis.device.store import Store

_EARLY = 1.2
"""Room is made a little before the node begins to refuse images."""


def make_room(store: Store, settings: StoreSettings) -> list[str]:
    """Remove series older than `retain_days`, and more, the oldest first, while less than `least_free_gb` is free.

    A series stays while it arrives, while a task of it is open or failed, and while a result of it waits to be sent or
    was given up. What is quarantined goes by age alone.

    Returns:
        The UIDs of the series that were removed.

    Raises:
        DataError: the store cannot be changed.
    """
    before = (datetime.now(UTC) - timedelta(days=settings.retain_days)).isoformat(timespec="milliseconds")
    wanted_bytes = _EARLY * settings.least_free_gb * 1e9
    for aside in store.quarantined():
        if aside.at <= before:
            store.delete_quarantined(aside.sha256)
    removable = sorted(removable_series(store), key=lambda row: row.last_at)
    removed = []
    for row in removable:
        if row.last_at <= before:
            reason = f"older than {settings.retain_days:g} days"
        elif store.free_bytes() < wanted_bytes:
            reason = "space is short"
        else:
            break
        store.delete_series(row.series_uid)
        store.event("info", f"removed, {reason}", series_uid=row.series_uid)
        removed.append(row.series_uid)
    return removed


def removable_series(store: Store) -> list[SeriesRow]:
    """The series that nothing is expected of any more."""
    unsent = {each.task_id for state in ("waiting", "dead") for each in store.deliveries(state=state)}
    held = {
        task.series_uid
        for task in store.tasks()
        if task.state not in ("done", "refused") or task.task_id in unsent
    }
    with_task = {task.series_uid for task in store.tasks()}
    return [
        row
        for row in store.series()
        if row.open_associations == 0
        and row.series_uid not in held
        and (row.state == "unrouted" or (row.state == "complete" and row.series_uid in with_task))
    ]
