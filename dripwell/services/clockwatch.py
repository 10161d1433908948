"""Watch the database's clock: who is mailed when hangs on it, and on nothing else.

Each pass compares wall time with what this process has lived through since it last looked, by seconds that only run
forward, and with the time Redis tells. A clock that jumps ahead makes everything due at once: planning and marketing
lanes stop, in every process, until a person says that the time is right (`dripwell clock accept`) or has set the clock
back and says so. A clock that jumps back makes nothing due, and a key forbids every second email: that is only logged.
A first look after hours of downtime compares nothing but Redis, so it raises no alarm.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from dripwell.core.errors import RefusedError
from dripwell.storage import campaigns, clock
from dripwell.storage.database import Connection, Database

log = logging.getLogger("dripwell.clock")

TOLERANCE = timedelta(minutes=5)


def elapsed() -> float:
    """Seconds that only run forward; where the system counts them, those it slept through too."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot is None else time.clock_gettime(boot)


@dataclass(frozen=True, slots=True)
class Look:
    """When this process last looked, by both clocks. `lived` is `elapsed()`, and means nothing elsewhere."""

    wall: datetime
    lived: float


def jump(before: Look | None, after: Look) -> timedelta:
    """How much more wall time went by than was lived through; negative: it went back. Zero at a first look."""
    if before is None:
        return timedelta()
    return (after.wall - before.wall) - timedelta(seconds=after.lived - before.lived)


def judge(jumped: timedelta, ahead_of_redis: timedelta | None, accepted: timedelta) -> str | None:
    """Say why this wall time is not to be trusted, or None. `accepted`: how far ahead of Redis a person finds right."""
    if jumped > TOLERANCE:
        return f"the database's clock jumped ahead by {_words(jumped)}"
    if ahead_of_redis is not None and ahead_of_redis - accepted > TOLERANCE:
        return f"the database's clock is {_words(ahead_of_redis)} ahead of Redis"
    return None


def _words(span: timedelta) -> str:
    return str(timedelta(seconds=round(abs(span).total_seconds())))


class ClockWatch:
    """Remembers the last look of this process. One per process, made after the fork."""

    def __init__(self, lived: Callable[[], float] = elapsed) -> None:
        """`lived` is a clock that only runs forward, in seconds."""
        self._lived = lived
        self._last: Look | None = None

    def look(self, database: Database, redis_now: datetime | None = None) -> bool:
        """Look at the clock, at the start of each pass; False: nothing that follows the calendar may be done.

        `redis_now` is what Redis tells (TIME), None when it is away or where there is none.
        """
        with database.transaction() as connection:
            watched = clock.watched(connection)
            look = Look(watched.wall_now, self._lived())
            jumped = jump(self._last, look)
            ahead = None if redis_now is None else watched.wall_now - redis_now
            reason = judge(jumped, ahead, watched.accepted)
            if reason is not None and clock.raise_alarm(connection, reason):
                log.critical("%s: planning and marketing emails stop. When it is right: dripwell clock accept", reason)
            if jumped < -TOLERANCE or (self._last is None and _went_back(watched)):
                log.error("the database's clock went back: nothing is due until it was this late before")
            clock.see(connection, watched.wall_now)
        self._last = look
        return reason is None and watched.alarm is None


def _went_back(watched: clock.Watched) -> bool:
    return watched.seen is not None and watched.seen - watched.wall_now > TOLERANCE


def accept(connection: Connection, *, actor: str, reason: str, redis_now: datetime | None) -> str:
    """A person says that wall time is right now; returns what the alarm was. Raises RefusedError when there is none.

    What is due by this time is planned by the next pass. How far Redis is behind is remembered, or it would stop again.
    """
    watched = clock.watched(connection)
    ahead = timedelta() if redis_now is None else watched.wall_now - redis_now
    if watched.alarm is None or not clock.accept(connection, max(ahead, timedelta())):
        raise RefusedError("nobody doubts the clock: there is nothing to accept. How it goes: dripwell status")
    detail = {"alarm": watched.alarm, "wall": watched.wall_now.isoformat(), "reason": reason}
    campaigns.add_activity(connection, actor=actor, action="clock accepted", about="clock", detail=detail)
    campaigns.ring(connection, "plan")
    return watched.alarm
