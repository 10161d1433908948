"""Campaign time moves forward, in the sandbox only: to the next due time, until quiet, again. Never one jump."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from dripwell.core.errors import RefusedError, UnavailableError
from dripwell.storage import campaigns, clock, reports
from dripwell.storage.database import Connection, Database

QUANTUM = timedelta(minutes=10)
"""Everything due within this much campaign time is reached in one move."""
_LOOK = 0.02
_RING = 0.06


def refuse_live(live_by: str | None) -> None:
    """Raise RefusedError when a live provider is configured, by this variable: people's time is not ours to move."""
    if live_by is not None:
        raise RefusedError(
            f"campaign time moves only in the sandbox, and a live provider is configured: unset {live_by} first"
        )


def step(database: Database, until: datetime, quantum: timedelta = QUANTUM) -> datetime | None:
    """Move to just behind the next due time, but not past `until`. Returns the new time; None: `until` is reached."""
    with database.transaction() as connection:
        now = clock.read(connection).now
        if now >= until:
            return None
        due = reports.next_due(connection)
        to = until if due is None or due >= until else min(max(due, now) + quantum, until)
        moved = clock.forward(connection, to).now
        campaigns.ring(connection, "plan")
        return moved


def quiet(
    database: Database,
    *,
    patience: float,
    also: Callable[[], int] = lambda: 0,
    on_wait: Callable[[dict[str, int]], None] = lambda _: None,
) -> bool:
    """Wait until nothing is due, planned, in a batch or unread, and `also()` says 0. False when patience (s) ends.

    Rings for what waits. A database that is away is waited for: it is being restarted.
    """
    until = time.monotonic() + patience
    rang = 0.0
    while time.monotonic() < until:
        try:
            with database.transaction() as connection:
                left = reports.unsettled(connection, clock.read(connection).now)
                if sum(left.values()) == 0:
                    outside = also()
                    if outside == 0 and sum(reports.unsettled(connection, clock.read(connection).now).values()) == 0:
                        return True
                    left = {**left, "outside": outside}
                on_wait(left)
                if time.monotonic() - rang > _RING:
                    rang = time.monotonic()
                    _ring(connection, left)
        except UnavailableError:
            time.sleep(0.2)
        time.sleep(_LOOK)
    return False


def _ring(connection: Connection, left: dict[str, int]) -> None:
    if left.get("due"):
        campaigns.ring(connection, "plan")
    if left.get("planned"):
        for lane in ("confirm", "booking", "drip"):
            campaigns.ring(connection, lane)
        campaigns.ring(connection, "plan")
    if left.get("webhooks"):
        campaigns.ring(connection, "ingest")
    if left.get("batches"):
        campaigns.ring(connection, "settle")
