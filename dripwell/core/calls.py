"""When a phone call may be: the clinic's hours in its own zone, and only 8 AM to 9 PM where the person is. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from dripwell.core.campaign import Consultation
from dripwell.core.duration import resolve

EARLIEST, LATEST = time(8, 0), time(21, 0)
"""Nobody is called before or after that, where they are (rules 5.4)."""
NOTICE = timedelta(hours=1)
"""The next slot offered starts this much later, so that the front desk can see it coming."""
AHEAD = 28
"""How many days ahead a call can be booked."""

_NAMES = {
    "America/New_York": "Eastern time",
    "America/Chicago": "Central time",
    "America/Denver": "Mountain time",
    "America/Phoenix": "Arizona time",
    "America/Los_Angeles": "Pacific time",
    "America/Anchorage": "Alaska time",
    "Pacific/Honolulu": "Hawaii time",
    "America/Puerto_Rico": "Puerto Rico time",
}
OFFERED_ZONES = tuple(_NAMES)
"""The zones a person can choose on the page, besides their own and the clinic's."""


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """A time somebody can be called at: `start` in minutes since 1970 UTC, campaign time."""

    start: int
    minutes: int

    @property
    def starts_at(self) -> datetime:
        """The start as an aware UTC moment."""
        return datetime.fromtimestamp(self.start * 60, UTC)

    @property
    def end(self) -> int:
        """The first minute after the slot."""
        return self.start + self.minutes


@dataclass(frozen=True, slots=True)
class Day:
    """The free slots of one day on the person's calendar."""

    date: date
    slots: tuple[Slot, ...]


def length_of(consultation: Consultation) -> int:
    """How many minutes a call takes."""
    return max(1, int(consultation.length.at_most() // timedelta(minutes=1)))


def minute_of(moment: datetime) -> int:
    """Minutes since 1970 UTC, rounded down."""
    return int(moment.timestamp() // 60)


def bounds(now: datetime) -> tuple[int, int]:
    """The minutes [first, last) in which slots can lie at all, seen from `now`."""
    return minute_of(now + NOTICE), minute_of(now + NOTICE) + (AHEAD + 1) * 24 * 60


def free(
    consultation: Consultation,
    clinic_zone: ZoneInfo,
    person_zone: ZoneInfo,
    now: datetime,
    taken: Iterable[tuple[int, int]] = (),
) -> tuple[Slot, ...]:
    """Every slot of the next 28 days that nobody has, in order.

    `taken` holds [start, end) minutes. Slots follow each other from each opening on; a clock change makes an opening
    longer or shorter, and no slot twice.
    """
    first = minute_of(now + NOTICE + timedelta(seconds=59))
    busy = sorted(taken)
    return tuple(slot for slot in _open(consultation, clinic_zone, person_zone, first) if not _overlaps(slot, busy))


@lru_cache(maxsize=32)  # the same for everybody in a zone for a minute, and most of the cost of the page
def _open(consultation: Consultation, clinic_zone: ZoneInfo, person_zone: ZoneInfo, first: int) -> tuple[Slot, ...]:
    """Every slot from the minute `first` on that the hours allow."""
    minutes = length_of(consultation)
    today = datetime.fromtimestamp(first * 60, UTC).astimezone(clinic_zone).date()
    found: set[Slot] = set()
    for ahead in range(-1, AHEAD + 1):
        day = today + timedelta(days=ahead)
        for weekday, opens, closes in consultation.hours:
            if weekday != day.weekday():
                continue
            start = minute_of(resolve(datetime.combine(day, opens), clinic_zone))
            last_day = day + timedelta(days=1) if closes == time(0, 0) else day
            end = minute_of(resolve(datetime.combine(last_day, closes), clinic_zone))
            while start + minutes <= end:
                slot = Slot(start, minutes)
                if start >= first and is_decent(slot, person_zone):
                    found.add(slot)
                start += minutes
    return tuple(sorted(found))


def is_decent(slot: Slot, person_zone: ZoneInfo) -> bool:
    """Whether the whole call lies between 8 AM and 9 PM of one day where the person is."""
    starts = slot.starts_at.astimezone(person_zone)
    ends = (slot.starts_at + timedelta(minutes=slot.minutes)).astimezone(person_zone)
    return starts.date() == ends.date() and starts.time() >= EARLIEST and ends.time() <= LATEST


def by_day(slots: Sequence[Slot], person_zone: ZoneInfo, *, days: int, each: int) -> tuple[Day, ...]:
    """The next `days` days that have slots, each with at most `each` of them, spread over the day."""
    grouped: dict[date, list[Slot]] = {}
    for slot in slots:
        day = slot.starts_at.astimezone(person_zone).date()
        if day not in grouped and len(grouped) == days:
            break  # slots come in order, so what follows lies on later days
        grouped.setdefault(day, []).append(slot)
    return tuple(Day(day, _spread(found, each)) for day, found in grouped.items())


def nearest(slots: Sequence[Slot], wanted: int, count: int = 3) -> tuple[Slot, ...]:
    """The `count` slots that start closest to the minute `wanted`, in order of time."""
    closest = sorted(slots, key=lambda slot: (abs(slot.start - wanted), slot.start))[:count]
    return tuple(sorted(closest))


def zone_name(zone: str) -> str:
    """What people call a time zone: `Pacific time`, or the city an IANA name ends in."""
    return _NAMES.get(zone) or zone.rpartition("/")[2].replace("_", " ") + " time"


def _overlaps(slot: Slot, busy: Sequence[tuple[int, int]]) -> bool:
    return any(start < slot.end and slot.start < end for start, end in busy)


def _spread(slots: Sequence[Slot], count: int) -> tuple[Slot, ...]:
    if len(slots) <= count:
        return tuple(slots)
    if count == 1:
        return (slots[0],)
    return tuple(slots[index * (len(slots) - 1) // (count - 1)] for index in range(count))
