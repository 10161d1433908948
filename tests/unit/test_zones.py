"""Daylight saving in every zone there is: around each clock change of seven years, one email a step, inside its window.

The clock changes are found by looking at each day's offset; what is right on such a day is worked out here anew, on the
local calendar, and not with the code under test.
"""

# ruff: noqa: DTZ001  (local times are naive here on purpose: what they mean in a zone is what is tested)

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import pytest

from dripwell.core.campaign import (
    Campaign,
    Clinic,
    Consultation,
    Email,
    Limits,
    Mailbox,
    Site,
    Wait,
    Window,
)
from dripwell.core.conditions import Facts
from dripwell.core.duration import Duration
from dripwell.core.journey import Finish, Passage, Person, PlanMessage, WaitUntil, decide
from dripwell.core.window import SPREAD, is_open, place, span

FIRST, LAST = datetime(2024, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
EVERY_DAY = frozenset(range(7))
DAYTIME = Window(EVERY_DAY, time(9), time(18))
TOPIC = "seven-part-series"
STEPS = 7

CLINIC = Clinic(
    name="Clinic", short_name="C", legal_name="Clinic", postal_address="1 Street", phone="(555) 010-0142",
    website="https://kcla.example", timezone="America/Los_Angeles",
)  # fmt: skip
SITE = Site(
    clinic=CLINIC,
    sender=Mailbox("C", "hello@mail.kcla.example"),
    service_sender=Mailbox("C", "calls@notice.kcla.example"),
    reply_to="care@kcla.example",
    base_url="https://mail.kcla.example",
    link_hosts=(),
    window=DAYTIME,
    limits=Limits(),
    suppress=(),
    topics=(),
    forms=(),
    consultation=Consultation("Call", Duration(15, "minute"), (), Duration(15, "minute"), "", "desk@kcla.example"),
)


@dataclass(frozen=True)
class Change:
    """One clock change: the last moment before it, in UTC, and by how much the local clock is moved."""

    zone: ZoneInfo
    at: datetime
    by: timedelta


@cache
def changes() -> tuple[Change, ...]:
    """Every clock change of every zone between 2024 and 2030, one of each kind: many names share their rules."""
    found: dict[tuple[object, ...], list[Change]] = {}
    for name in sorted(available_timezones()):
        theirs = list(_changes_of(ZoneInfo(name)))
        rules = tuple((change.at, change.by, change.at.astimezone(change.zone).utcoffset()) for change in theirs)
        found.setdefault(rules, theirs)
    return tuple(change for theirs in found.values() for change in theirs)


def _changes_of(zone: ZoneInfo) -> Iterator[Change]:
    day, before = FIRST, FIRST.astimezone(zone).utcoffset()
    while day < LAST:
        following = day + timedelta(days=1)
        after = following.astimezone(zone).utcoffset()
        assert before is not None
        assert after is not None
        if after != before:
            low, high = day, following
            while high - low > timedelta(minutes=1):
                middle = low + (high - low) / 2
                low, high = (middle, high) if middle.astimezone(zone).utcoffset() == before else (low, middle)
            yield Change(zone, low.replace(second=0, microsecond=0), after - before)
        day, before = following, after


@cache
def gap_on(zone: ZoneInfo, day: date) -> tuple[datetime, timedelta] | None:
    """The first local minute that this day leaves out, and how much it leaves out; None: it leaves out nothing."""
    begin = datetime.combine(day, time(0))
    for minute in range(0, 24 * 60, 30):
        local = begin + timedelta(minutes=minute)
        back = local.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None)
        if back != local:
            return local, back - local
    return None


def hours_on(window: Window, zone: ZoneInfo, day: date) -> tuple[datetime, datetime]:
    """When the window opens and closes by the clock on the wall; what the day leaves out is moved behind the gap."""

    def kept(local: datetime) -> datetime:
        gap = gap_on(zone, local.date())
        return local + gap[1] if gap is not None and gap[0] <= local < gap[0] + gap[1] else local

    closes = datetime.combine(day, window.closes)
    return kept(datetime.combine(day, window.opens)), kept(
        closes if window.closes != time(0) else closes + timedelta(1)
    )


def windows_around(change: Change) -> Sequence[Window]:
    """Daytime, one that opens or closes in the hour that the change skips or doubles, and a Monday's."""
    local = (change.at + timedelta(minutes=1)).astimezone(change.zone).replace(tzinfo=None) - change.by / 2
    at = local.replace(second=0, microsecond=0).time()
    opening = Window(EVERY_DAY, at, time(23, 59)) if at < time(23) else DAYTIME
    closing = Window(EVERY_DAY, time(0), at) if at > time(1) else DAYTIME
    return (DAYTIME, opening, closing, Window(frozenset({0}), time(1), time(4)))


WISHES = [timedelta(hours=hours) for hours in (-30, -12, -2, 0, 2, 12, 30)] + [
    timedelta(minutes=m) for m in (-31, -1, 1)
]


def test_the_years_and_zones_hold_the_clock_changes_everybody_knows() -> None:
    known = {(change.zone.key, change.by) for change in changes()}
    assert len(changes()) > 300
    assert {abs(by) for _, by in known} >= {timedelta(hours=1), timedelta(minutes=30)}
    los_angeles = [change.at for change in _changes_of(ZoneInfo("America/Los_Angeles"))]
    assert len(los_angeles) == 14
    assert datetime(2026, 3, 8, 9, 59, tzinfo=UTC) in los_angeles


def test_around_every_clock_change_an_email_is_placed_inside_its_window_and_not_early() -> None:
    for change in changes():
        hours: dict[tuple[Window, date], tuple[datetime, datetime]] = {}
        for window in windows_around(change):
            for wish in (change.at + offset for offset in WISHES):
                at = place(window, wish, change.zone, "1/first")
                told = f"{change.zone.key} {change.at} {window} {wish} {at}"
                local = at.astimezone(change.zone).replace(tzinfo=None)
                key = (window, local.date())
                if key not in hours:
                    hours[key] = hours_on(window, change.zone, local.date())
                opens, closes = hours[key]
                assert opens <= local < closes, told
                assert local.weekday() in window.days, told
                assert is_open(window, at, change.zone), told
                assert at >= (wish - SPREAD if is_open(window, wish, change.zone) else wish), told


def test_around_every_clock_change_a_window_opens_once_a_day() -> None:
    for change in changes():
        moment, days = change.at - timedelta(days=3), []
        while moment < change.at + timedelta(days=3):
            opens, closes = span(DAYTIME, moment, change.zone)
            assert timedelta(hours=6) <= closes - opens <= timedelta(hours=12), f"{change.zone.key} {opens}"
            days.append(opens.astimezone(change.zone).date())
            moment = closes
        assert days == sorted(set(days)), change.zone.key


def series(wait: str, window: Window = DAYTIME) -> Campaign:
    length = Duration.parse(wait)
    assert length is not None
    steps: list[Email | Wait] = []
    for number in range(STEPS):
        steps += [Wait(f"wait-{number}", length)] if number else []
        steps.append(Email(f"email-{number}", f"email-{number}", f"Part {number}"))
    return Campaign("series", "Series", "drip", TOPIC, tuple(steps), window=window)


def lived_through(campaign: Campaign, zone: ZoneInfo, start: datetime) -> list[tuple[str, datetime]]:
    """(step key, when it was planned) of a person in `zone` who joins at `start`; each email goes out at once."""
    passage = Passage(7, start, start)
    person = Person(timezone=zone.key, facts=Facts(topics=frozenset({TOPIC})))
    now, planned = start, []
    for _ in range(100):
        match decide(campaign, campaign, SITE, passage, person, now):
            case WaitUntil(at=at):
                assert at > now, "a look that leads to the same look"
                now = at
            case PlanMessage(key=key, fresh_until=fresh_until):
                assert now < fresh_until
                planned.append((key, now))
                passage = replace(passage, cursor_key=key, anchor_at=now)
                person = replace(person, accepted=(*person.accepted, now))
            case Finish():
                return planned
            case other:
                raise AssertionError(other)
    raise AssertionError(f"no end in {zone.key}")


def noon(zone: ZoneInfo, day: date) -> datetime:
    return datetime.combine(day, time(12)).replace(tzinfo=zone).astimezone(UTC)


def check_series(zone: ZoneInfo, day: date, wait_days: int) -> None:
    planned = lived_through(series(f"{wait_days} days"), zone, noon(zone, day))
    assert [key for key, _ in planned] == [f"email-{number}" for number in range(STEPS)], zone.key
    local = [at.astimezone(zone) for _, at in planned]
    assert [moment.date() for moment in local] == [day + timedelta(days=wait_days * n) for n in range(STEPS)], zone.key
    assert all(time(9) <= moment.time() < time(18) for moment in local), zone.key


def test_across_every_clock_change_seven_steps_are_seven_emails_on_the_planned_days() -> None:
    for change in changes():
        for days_before, wait_days in ((2, 1), (5, 2)):
            check_series(change.zone, change.at.astimezone(change.zone).date() - timedelta(days=days_before), wait_days)


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("America/Los_Angeles", date(2026, 3, 8)),
        ("America/Los_Angeles", date(2026, 11, 1)),
        ("America/New_York", date(2026, 3, 8)),
        ("America/New_York", date(2026, 11, 1)),
        ("Europe/Berlin", date(2026, 3, 29)),
        ("Europe/Berlin", date(2026, 10, 25)),
        ("Australia/Lord_Howe", date(2026, 4, 5)),
        ("Australia/Lord_Howe", date(2026, 10, 4)),
    ],
)
def test_the_clocks_people_know_change_and_the_series_goes_on(zone: str, day: date) -> None:
    check_series(ZoneInfo(zone), day - timedelta(days=3), 1)
    night = Window(EVERY_DAY, time(1), time(4))
    planned = lived_through(series("1 day", night), ZoneInfo(zone), noon(ZoneInfo(zone), day - timedelta(days=3)))
    assert len({at.astimezone(ZoneInfo(zone)).date() for _, at in planned}) == STEPS


@pytest.mark.parametrize(
    ("zone", "opens", "first"),
    [
        ("America/Los_Angeles", datetime(2026, 3, 8, 2, 30), datetime(2026, 3, 8, 10, 30, tzinfo=UTC)),
        ("America/New_York", datetime(2026, 3, 8, 2, 30), datetime(2026, 3, 8, 7, 30, tzinfo=UTC)),
        ("America/New_York", datetime(2026, 11, 1, 1, 30), datetime(2026, 11, 1, 5, 30, tzinfo=UTC)),
        ("Europe/Berlin", datetime(2026, 3, 29, 2, 30), datetime(2026, 3, 29, 1, 30, tzinfo=UTC)),
        ("Europe/Berlin", datetime(2026, 10, 25, 2, 30), datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        ("Australia/Lord_Howe", datetime(2026, 10, 4, 2, 15), datetime(2026, 10, 3, 15, 45, tzinfo=UTC)),
        ("Australia/Lord_Howe", datetime(2026, 4, 5, 1, 45), datetime(2026, 4, 4, 14, 45, tzinfo=UTC)),
    ],
)
def test_a_missing_hour_moves_forward_by_the_gap_and_of_a_doubled_one_the_first_counts(
    zone: str, opens: datetime, first: datetime
) -> None:
    window = Window(EVERY_DAY, opens.time(), time(12))
    assert span(window, first - timedelta(hours=3), ZoneInfo(zone))[0] == first


def test_on_the_day_that_apia_lost_nobody_is_mailed_and_nobody_is_skipped() -> None:
    zone = ZoneInfo("Pacific/Apia")
    planned = lived_through(series("1 day"), zone, noon(zone, date(2011, 12, 27)))
    days = [at.astimezone(zone).date() for _, at in planned]
    assert [key for key, _ in planned] == [f"email-{number}" for number in range(STEPS)]
    assert days == [date(2011, 12, day) for day in (27, 28, 29, 31)] + [date(2012, 1, day) for day in (1, 2, 3)]


def test_new_rules_for_a_zone_are_asked_when_the_time_comes_not_when_it_was_noted() -> None:
    """What holds when tzdata changes: a noted due time is a moment in UTC that says when to look again, no more.

    Looking asks the calendar of that day: who is too early under the new rules waits again, who is late goes at once,
    and no email leaves outside the window as the new rules have it.
    """
    campaign = series("2 days")
    start = noon(ZoneInfo("America/New_York"), date(2026, 7, 1))
    passage = Passage(7, start, start, "email-0")
    before = Person(timezone="America/New_York", facts=Facts(topics=frozenset({TOPIC})), accepted=(start,))
    noted = decide(campaign, campaign, SITE, passage, before, start)
    assert isinstance(noted, WaitUntil)
    # The same person, whose zone is now three, or one, hours off what it was: as new rules would have it.
    for changed, hour in (("America/Los_Angeles", 9), ("America/Chicago", 10), ("Pacific/Honolulu", 9)):
        after = replace(before, timezone=changed)
        decision = decide(campaign, campaign, SITE, passage, after, noted.at)
        at = decision.at if isinstance(decision, WaitUntil) else noted.at
        assert isinstance(decide(campaign, campaign, SITE, passage, after, at), PlanMessage)
        local = at.astimezone(ZoneInfo(changed))
        assert (local.date(), local.hour >= hour, local.hour < 18) == (date(2026, 7, 3), True, True), changed
