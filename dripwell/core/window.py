"""When an email may leave: send windows on the local calendar, and the spread inside them. Pure."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from dripwell.core.campaign import Window
from dripwell.core.duration import resolve

SPREAD = timedelta(minutes=20)
_MIDNIGHT = time(0, 0)


def zone_of(window: Window, subscriber_zone: str | None, clinic_zone: str) -> ZoneInfo:
    """The zone this window is meant in: a named one, else the subscriber's, else the clinic's."""
    if window.zone != "subscriber":
        return ZoneInfo(window.zone)
    try:
        return ZoneInfo(subscriber_zone or clinic_zone)
    except (KeyError, ValueError, OSError):  # a zone that tzdata does not know (`America` is a folder): the clinic's
        return ZoneInfo(clinic_zone)


def span(window: Window, moment: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Return (opens, closes) in UTC of the window that is open at `moment`, or of the next one.

    A local opening that a clock change skips moves forward by the gap. Raises ValueError for a window without days.
    """
    if not window.days:
        raise ValueError("a send window needs at least one day")
    day = moment.astimezone(zone).date()
    for ahead in range(370):
        at = day + timedelta(days=ahead)
        if at.weekday() not in window.days:
            continue
        hours = _hours(window, at, zone)
        if hours is not None and hours[1] > moment:
            return hours
    raise ValueError("no window opens within a year")


@lru_cache(maxsize=4096)
def _hours(window: Window, at: date, zone: ZoneInfo) -> tuple[datetime, datetime] | None:
    """When the window opens and closes on this local day, in UTC; kept, for a thousand people share a few of them.

    None for a day that the calendar lost, and for one whose opening a clock change moved past its end.
    """
    opens = resolve(datetime.combine(at, window.opens), zone)
    if window.closes == _MIDNIGHT:
        closes = resolve(datetime.combine(at + timedelta(days=1), _MIDNIGHT), zone)
    else:
        closes = resolve(datetime.combine(at, window.closes), zone)
    return (opens, closes) if closes > opens and opens.astimezone(zone).date() == at else None


def is_open(window: Window, moment: datetime, zone: ZoneInfo) -> bool:
    """Say whether an email may leave at `moment`."""
    opens, _ = span(window, moment, zone)
    return opens <= moment


def place(window: Window, wish: datetime, zone: ZoneInfo, seed: str) -> datetime:
    """Return when an email wished for at `wish` leaves: in the window, spread by a stable hash of `seed`.

    Inside an open window the wish moves by up to 20 minutes either way; a wish at a closed window lands in the first
    40 minutes after it opens. Minutes 0 and 30 are avoided (rules 1.8). The result never lies before `wish` minus
    20 minutes nor outside the window.
    """
    opens, closes = span(window, wish, zone)
    last = closes - timedelta(seconds=1)
    share = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4]) / 2**32
    if opens > wish:
        early, late = opens, min(last, opens + 2 * SPREAD)
    else:
        early, late = _whole_second(max(opens, wish - SPREAD)), min(last, wish + SPREAD)
    at = early + timedelta(seconds=int((late - early).total_seconds() * share))
    if at.astimezone(zone).minute in (0, 30):
        beside = (at + timedelta(minutes=1), at - timedelta(minutes=1))
        at = next((other for other in beside if early <= other <= late), at)
    return at.astimezone(UTC)


def _whole_second(moment: datetime) -> datetime:
    """The moment itself, or the next whole second: never earlier."""
    return moment + timedelta(microseconds=-moment.microsecond % 1_000_000)
