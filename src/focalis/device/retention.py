"""Delete old studies, or the oldest ones when space is short, but never results that have not been sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from focalis.device.config import StoreSettings
from focalis.device.store import Store

_EARLY = 1.2
"""Room is made a little before the node begins to refuse images."""


def make_room(store: Store, settings: StoreSettings) -> list[str]:
    """Remove series older than `retain_days`, and more, the oldest first, while less than `least_free_gb` is free.

    A series stays while something is expected of it (`Store.settled_series`): while it arrives, while a task of it is
    open or failed, and while a result of it waits to be sent or was given up. What is quarantined goes by age alone.

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
    removed = []
    for row in store.settled_series():
        if row.last_at <= before:
            reason = f"older than {settings.retain_days:g} days"
        elif not store.in_bucket and store.free_bytes() < wanted_bytes:
            reason = "space is short"
        else:
            break
        if store.delete_series(row.series_uid):
            store.event("info", f"removed, {reason}", series_uid=row.series_uid)
            removed.append(row.series_uid)
    return removed
