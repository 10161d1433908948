"""How many marketing messages may still go out: the warm-up of a new domain, and catching up after a long silence.

Service lanes are counted by nobody here and capped by nothing.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from dripwell.core.campaign import MARKETING_LANES, Site, WarmUp
from dripwell.core.duration import resolve
from dripwell.core.pace import HOURLY, IDLE, cap, day_number, start_of
from dripwell.storage import brakes, clock, pace
from dripwell.storage.database import Connection

log = logging.getLogger("dripwell.pace")

LATE = 3600.0
"""A silence of so many wall seconds is caught up on."""
USUAL = timedelta(days=7)
FLOOR = 500
"""An hour of catching up carries at least so many: somebody whose usual hour is empty must catch up, too."""
_LONGEST = 7 * 86_400.0
_NEAR = 20_000
"""With so many places left nobody takes turns: so many calls are never under way together."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A warm-up just now. `day` 0 is the first. `cap` holds from `since` to `until`, which are campaign time."""

    preset: str
    day: int
    cap: int
    used: int
    since: datetime
    until: datetime
    frozen: bool  # a mailbox provider refuses us for our reputation, so the cap does not grow

    @property
    def left(self) -> int:
        """How many may still be accepted before `until`."""
        return max(0, self.cap - self.used)


def allowance(connection: Connection, site: Site, lane: str, now: datetime) -> int | None:
    """How many messages a claim of this lane may take now (campaign time); None: as many as it likes.

    Call it in the claim's own transaction (READ COMMITTED) before any row of it is locked, and with the site of the
    installation, not of a version. When places are few, claims take turns until their transactions end.
    """
    if lane not in MARKETING_LANES:
        return None
    left = _left(connection, site, now)
    if left is not None and left < _NEAR:
        pace.take_turns(connection)
        left = _left(connection, site, now)
    return left


def _left(connection: Connection, site: Site, now: datetime) -> int | None:
    found = []
    warm_up = standing(connection, site, now)
    if warm_up is not None:
        found.append(warm_up.left)
    hourly = catch_up_rate(connection)
    if hourly is not None:
        found.append(max(0, hourly - pace.used_since(connection, _hour(now, ZoneInfo("UTC"))[0])))
    return min(found, default=None)


def standing(connection: Connection, site: Site, now: datetime) -> Standing | None:
    """Where the warm-up of this site is; None without one."""
    if site.warm_up is None:
        return None
    zone = ZoneInfo(site.clinic.timezone)
    today = now.astimezone(zone).date()
    start, frozen = _curve(connection, site.warm_up, zone, today, now)
    day = day_number(start, today, frozen)
    since, until = _hour(now, zone) if site.warm_up.preset in HOURLY else (_begin(today, zone), _tomorrow(today, zone))
    return Standing(
        preset=site.warm_up.preset,
        day=day,
        cap=cap(site.warm_up.preset, day),
        used=pace.used_since(connection, since),
        since=since,
        until=until,
        frozen=any(first <= today < last for first, last in frozen),
    )


def forecast(connection: Connection, site: Site, people: int, now: datetime) -> date | None:
    """The day on which the last of so many messages could go out if nothing else did; None: today, or no warm-up.

    Every day counts, so a send window that closes on weekends makes it later. With an hourly preset a day is ten hours.
    """
    found = standing(connection, site, now)
    if found is None or people <= found.left:
        return None
    today = now.astimezone(ZoneInfo(site.clinic.timezone)).date()
    hours = 10 if found.preset in HOURLY else 1
    rest, ahead = people - found.left, 0
    while rest > 0 and ahead < 3_650:
        ahead += 1
        rest -= cap(found.preset, found.day + ahead) * hours
    return today + timedelta(ahead)


def catch_up_rate(connection: Connection) -> int | None:
    """The marketing messages an hour may carry while a silence is caught up on: twice the busiest of the week before.

    None when nothing is caught up on.
    """
    since = pace.caught_up_on(connection)
    return None if since is None else max(FLOOR, 2 * pace.busiest_hour(connection, since - USUAL, since))


def look(connection: Connection) -> None:
    """Say that somebody is at work; call it in every settle pass. After a silence of over an hour with many people due,
    begin to catch up: for as long as it was silent an hour carries at most twice the usual.
    """
    silence = pace.seen(connection)
    if silence.seconds <= LATE:
        return
    now = clock.read(connection).now
    if pace.overdue(connection, sorted(MARKETING_LANES), now, FLOOR + 1) > FLOOR:
        pace.catch_up(connection, silence.since, min(silence.seconds, _LONGEST))
        log.warning("nobody was at work for %.1f hours: catching up, oldest first", silence.seconds / 3600)


def _curve(
    connection: Connection, warm_up: WarmUp, zone: ZoneInfo, today: date, now: datetime
) -> tuple[date, list[tuple[date, date]]]:
    """Day 0 of the curve that holds now, and the spans of days on which it stood still."""
    begin = _begin(warm_up.first_day, zone)
    if begin > now:
        return warm_up.first_day, []
    start = start_of(warm_up.first_day, pace.mailed_days(connection, begin, str(zone), IDLE.days), today)
    frozen = [
        (since.astimezone(zone).date(), today + timedelta(1) if until is None else until.astimezone(zone).date())
        for since, until in brakes.spans(connection, brakes.RAMP, _begin(start, zone))
    ]
    return start, frozen


def _begin(day: date, zone: ZoneInfo) -> datetime:
    return resolve(datetime.combine(day, time(0)), zone)


def _tomorrow(day: date, zone: ZoneInfo) -> datetime:
    return _begin(day + timedelta(1), zone)


def _hour(now: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    local = now.astimezone(zone)
    into = timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    return now - into, now - into + timedelta(hours=1)
