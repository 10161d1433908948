"""Send windows: whatever the wish, the zone and the calendar, an email leaves inside the window, and always then."""

# ruff: noqa: DTZ001  (local times are naive here on purpose: what they mean in a zone is what is tested)

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from dripwell.core.campaign import Window
from dripwell.core.window import SPREAD, is_open, place, span, zone_of

ZONES = tuple(
    ZoneInfo(name)
    for name in (
        "America/Los_Angeles",
        "America/New_York",
        "Europe/Berlin",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Asia/Beirut",
        "America/St_Johns",
        "UTC",
    )
)
WEEKDAYS = frozenset(range(5))

zones = st.sampled_from(ZONES)
# Around each clock change of these zones, and the day that Apia lost, as often as anywhere else.
_CHANGES = [datetime(2026, 3, 8, 10), datetime(2026, 11, 1, 9), datetime(2026, 3, 29, 1), datetime(2026, 10, 25, 1)]
_CHANGES += [
    datetime(2026, 4, 4, 15),
    datetime(2026, 10, 3, 15, 30),
    datetime(2011, 12, 30, 10),
    datetime(2026, 3, 28, 22),
]
anywhere = st.datetimes(datetime(2010, 1, 1), datetime(2035, 12, 31))
near_changes = st.builds(
    lambda at, seconds: at + timedelta(seconds=seconds), st.sampled_from(_CHANGES), st.floats(-2 * 86400, 2 * 86400)
)
moments = st.one_of(anywhere, near_changes).map(lambda moment: moment.replace(tzinfo=UTC))
minutes = st.integers(0, 24 * 60)
seeds = st.integers(1, 10**9).map("{}/adaptability".format)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    opens, closes = sorted((draw(minutes), draw(minutes)))
    assume(opens < closes)
    return Window(
        days=draw(st.frozensets(st.integers(0, 6), min_size=1)),
        opens=time(opens // 60, opens % 60),
        closes=time(closes // 60 % 24, closes % 60),
    )


def _may_leave(window: Window, at: datetime, zone: ZoneInfo) -> bool:
    """By the clock on the wall: an allowed weekday, not before it opens, before it closes."""
    local = at.astimezone(zone)
    closes = window.closes if window.closes != time(0, 0) else time.max
    return local.weekday() in window.days and window.opens <= local.time() <= closes and local.time() != window.closes


def _changes(day: date, zone: ZoneInfo) -> bool:
    """Whether the clocks of `zone` change on this local day or beside it."""
    offsets = {
        datetime(day.year, day.month, day.day, tzinfo=zone) + timedelta(hours=hours) for hours in range(-24, 49, 1)
    }
    return len({moment.utcoffset() for moment in offsets}) > 1


@given(window=windows(), wish=moments, zone=zones, seed=seeds)
@example(Window(frozenset({4}), time(9), time(17)), datetime(2011, 12, 30, 20, tzinfo=UTC), ZONES[4], "1/x")
def test_an_email_leaves_on_an_allowed_day_inside_the_hours(
    window: Window, wish: datetime, zone: ZoneInfo, seed: str
) -> None:
    at = place(window, wish, zone, seed)
    assert is_open(window, at, zone)
    assert at.astimezone(zone).weekday() in window.days
    if not _changes(at.astimezone(zone).date(), zone):
        assert _may_leave(window, at, zone)


@given(window=windows(), wish=moments, zone=zones, seed=seeds)
def test_an_email_is_never_more_than_twenty_minutes_early(
    window: Window, wish: datetime, zone: ZoneInfo, seed: str
) -> None:
    assert place(window, wish, zone, seed) >= wish - SPREAD


@given(window=windows(), wish=moments, zone=zones, seed=seeds)
def test_the_same_wish_is_always_placed_alike(window: Window, wish: datetime, zone: ZoneInfo, seed: str) -> None:
    assert place(window, wish, zone, seed) == place(window, wish, zone, seed)


@given(window=windows(), wish=moments, zone=zones, seed=seeds)
def test_the_wish_moves_by_no_more_than_the_spread_when_the_window_is_open(
    window: Window, wish: datetime, zone: ZoneInfo, seed: str
) -> None:
    at = place(window, wish, zone, seed)
    if is_open(window, wish, zone):
        assert abs(at - wish) <= SPREAD
    else:
        opens, _ = span(window, wish, zone)
        assert opens <= at <= opens + 2 * SPREAD


@given(window=windows(), wish=moments, zone=zones, seed=seeds)
def test_full_and_half_hours_are_left_to_others_where_there_is_room(
    window: Window, wish: datetime, zone: ZoneInfo, seed: str
) -> None:
    opens, closes = span(window, wish, zone)
    early = max(opens, wish - SPREAD)
    room = (closes - early) >= timedelta(minutes=3)
    if room:
        assert place(window, wish, zone, seed).astimezone(zone).minute not in (0, 30)


@given(window=windows(), moment=moments, zone=zones)
def test_a_span_is_the_open_one_or_the_next(window: Window, moment: datetime, zone: ZoneInfo) -> None:
    opens, closes = span(window, moment, zone)
    assert opens < closes
    assert moment < closes
    assert is_open(window, moment, zone) == (opens <= moment)
    if opens > moment:
        # Nothing opens in between: every quarter of an hour until then is closed by the clock on the wall.
        at = moment
        while at < min(opens, moment + timedelta(days=9)):
            if not _changes(at.astimezone(zone).date(), zone):
                assert not _may_leave(window, at, zone)
            at += timedelta(hours=1)


@given(wish=moments, zone=zones)
def test_many_people_are_spread_over_the_forty_minutes_after_a_window_opens(wish: datetime, zone: ZoneInfo) -> None:
    window = Window(frozenset(range(7)), time(9), time(18))
    opens, _ = span(window, wish, zone)
    if opens > wish:
        offsets = [(place(window, wish, zone, f"{person}/x") - opens) / timedelta(minutes=1) for person in range(200)]
        assert min(offsets) < 10
        assert max(offsets) > 30
        assert max(offsets.count(minute) for minute in offsets) <= 20


@pytest.mark.parametrize(
    ("wish", "first", "last"),
    [
        # Friday evening waits for Monday morning.
        (
            datetime(2026, 11, 7, 3, tzinfo=UTC),
            datetime(2026, 11, 9, 17, tzinfo=UTC),
            datetime(2026, 11, 9, 17, 40, tzinfo=UTC),
        ),
        # Daylight saving ended in between: 9 in the morning is 17:00 UTC now, not 16:00.
        (
            datetime(2026, 10, 31, 1, tzinfo=UTC),
            datetime(2026, 11, 2, 17, tzinfo=UTC),
            datetime(2026, 11, 2, 17, 40, tzinfo=UTC),
        ),
        # Shortly before it closes: not a minute later than that.
        (
            datetime(2026, 11, 3, 1, 59, tzinfo=UTC),
            datetime(2026, 11, 3, 1, 39, tzinfo=UTC),
            datetime(2026, 11, 3, 2, tzinfo=UTC),
        ),
    ],
)
def test_the_office_hours_of_los_angeles(wish: datetime, first: datetime, last: datetime) -> None:
    window = Window(WEEKDAYS, time(9), time(18))
    for person in range(50):
        assert first <= place(window, wish, ZONES[0], f"{person}/x") < last


def test_a_day_that_the_calendar_lost_has_no_window_on_the_day_after() -> None:
    """Apia went from Thursday, December 29, 2011, to Saturday, December 31: no Friday, so the next one counts."""
    fridays = Window(frozenset({4}), time(9), time(17))
    opens, _ = span(fridays, datetime(2011, 12, 29, 20, tzinfo=UTC), ZoneInfo("Pacific/Apia"))
    assert opens.astimezone(ZoneInfo("Pacific/Apia")).date() == date(2012, 1, 6)


def test_a_window_without_days_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one day"):
        span(Window(days=frozenset()), datetime(2026, 1, 1, tzinfo=UTC), ZONES[0])


@pytest.mark.parametrize(
    ("window", "own", "found"),
    [
        (Window(), "Europe/Berlin", "Europe/Berlin"),
        (Window(), None, "America/Los_Angeles"),
        (Window(), "Mars/Olympus", "America/Los_Angeles"),
        (Window(), "../etc/passwd", "America/Los_Angeles"),
        (Window(zone="America/New_York"), "Europe/Berlin", "America/New_York"),
    ],
)
def test_the_zone_is_the_windows_the_persons_or_the_clinics(window: Window, own: str | None, found: str) -> None:
    assert zone_of(window, own, "America/Los_Angeles").key == found
