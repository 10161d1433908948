"""When a phone call may be: the clinic's hours, nobody woken, no slot twice, over all zones and clock changes."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dripwell.core import calls
from dripwell.core.calls import Slot
from dripwell.core.campaign import Consultation
from dripwell.core.duration import Duration

PACIFIC = ZoneInfo("America/Los_Angeles")
MONDAY = datetime(2026, 11, 2, 17, 0, tzinfo=UTC)  # 9 AM in Los Angeles, a day after the clocks went back
OFFICE = (*((day, time(9), time(17)) for day in range(5)), (5, time(9), time(12)))

zones = st.sampled_from(sorted(name for name in available_timezones() if "/" in name)).map(ZoneInfo)
moments = st.datetimes(datetime(2025, 1, 1), datetime(2028, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
hours = st.lists(
    st.tuples(st.integers(0, 6), st.times(), st.one_of(st.just(time(0)), st.times())).map(
        lambda span: (span[0], span[1].replace(second=0, microsecond=0), span[2].replace(second=0, microsecond=0))
    ),
    max_size=6,
)
lengths = st.integers(5, 120)


def _consultation(spans: object = OFFICE, minutes: int = 15) -> Consultation:
    return Consultation("Phone call", Duration(minutes, "minute"), tuple(spans), Duration(15, "minute"), "x", "y")  # type: ignore[arg-type]


@given(spans=hours, minutes=lengths, clinic=zones, person=zones, now=moments)
def test_every_slot_is_in_the_clinics_hours_and_wakes_nobody(
    spans: list[tuple[int, time, time]], minutes: int, clinic: ZoneInfo, person: ZoneInfo, now: datetime
) -> None:
    slots = calls.free(_consultation(spans, minutes), clinic, person, now)
    assert list(slots) == sorted(set(slots))
    for slot in slots:
        assert slot.starts_at >= now + calls.NOTICE
        assert slot.starts_at <= now + timedelta(days=calls.AHEAD + 2)
        starts, ends = (
            slot.starts_at.astimezone(person),
            (slot.starts_at + timedelta(minutes=minutes)).astimezone(person),
        )
        assert time(8) <= starts.time()
        assert ends.time() <= time(21)
        assert starts.date() == ends.date()
        at = slot.starts_at.astimezone(clinic)
        ends_at = (slot.starts_at + timedelta(minutes=minutes)).astimezone(clinic)
        assert any(
            weekday == at.weekday() and opens <= at.time() and (closes == time(0) or ends_at.time() <= closes)
            for weekday, opens, closes in spans
        )


@given(minutes=lengths, person=zones, now=moments, data=st.data())
def test_nothing_that_is_taken_is_offered(minutes: int, person: ZoneInfo, now: datetime, data: st.DataObject) -> None:
    first, last = calls.bounds(now)
    taken = data.draw(
        st.lists(st.tuples(st.integers(first, last), st.integers(1, 600)).map(lambda t: (t[0], t[0] + t[1])))
    )
    everything = calls.free(_consultation(minutes=minutes), PACIFIC, person, now)
    free = calls.free(_consultation(minutes=minutes), PACIFIC, person, now, taken)
    assert set(free) == {s for s in everything if all(s.end <= start or end <= s.start for start, end in taken)}


@given(now=moments, person=zones)
def test_bounds_hold_every_slot(now: datetime, person: ZoneInfo) -> None:
    first, last = calls.bounds(now)
    for slot in calls.free(_consultation(), PACIFIC, person, now):
        assert first <= slot.start
        assert slot.end <= last


@given(now=moments, person=zones, days=st.integers(1, 10), each=st.integers(1, 12))
def test_what_is_shown_is_free_few_and_spread_from_first_to_last(
    now: datetime, person: ZoneInfo, days: int, each: int
) -> None:
    slots = calls.free(_consultation(), PACIFIC, person, now)
    shown = calls.by_day(slots, person, days=days, each=each)
    assert len(shown) <= days
    assert [day.date for day in shown] == sorted({day.date for day in shown})
    for day in shown:
        of_day = [slot for slot in slots if slot.starts_at.astimezone(person).date() == day.date]
        assert set(day.slots) <= set(of_day)
        assert len(day.slots) == min(each, len(of_day))
        assert day.slots[0] == of_day[0]
        if each > 1:
            assert day.slots[-1] == of_day[-1]


@given(
    slots=st.lists(st.integers(0, 10_000).map(lambda start: Slot(start, 15)), unique=True),
    wanted=st.integers(0, 10_000),
)
def test_no_free_slot_is_nearer_than_the_nearest(slots: list[Slot], wanted: int) -> None:
    near = calls.nearest(slots, wanted)
    assert len(near) == min(3, len(slots))
    worst = max((abs(slot.start - wanted) for slot in near), default=0)
    assert all(abs(slot.start - wanted) >= worst for slot in set(slots) - set(near))


def test_an_office_day_is_cut_into_quarters_of_an_hour() -> None:
    slots = calls.free(_consultation(), PACIFIC, PACIFIC, MONDAY - timedelta(hours=3))
    monday = [
        s.starts_at.astimezone(PACIFIC) for s in slots if s.starts_at.astimezone(PACIFIC).date() == date(2026, 11, 2)
    ]
    assert [f"{at:%H:%M}" for at in (monday[0], monday[1], monday[-1])] == ["09:00", "09:15", "16:45"]
    assert len(monday) == 32


def test_somebody_in_new_york_is_not_called_after_nine() -> None:
    late = _consultation([(0, time(9), time(23))])
    eastern = ZoneInfo("America/New_York")
    slots = calls.free(late, PACIFIC, eastern, MONDAY - timedelta(hours=3))
    assert max(s.starts_at.astimezone(eastern).time() for s in slots) == time(20, 45)


def test_a_night_in_which_the_clocks_go_back_has_an_hour_more() -> None:
    nightly = _consultation([(6, time(0), time(4))], 60)
    tokyo = ZoneInfo("Asia/Tokyo")  # it is afternoon there
    before = datetime(2026, 10, 31, 12, tzinfo=UTC)
    night = [s for s in calls.free(nightly, PACIFIC, tokyo, before) if s.starts_at < before + timedelta(days=2)]
    assert len(night) == 5


@pytest.mark.parametrize(
    ("zone", "name"),
    [("America/Los_Angeles", "Pacific time"), ("Europe/Berlin", "Berlin time"), ("America/New_York", "Eastern time")],
)
def test_a_zone_is_called_what_people_call_it(zone: str, name: str) -> None:
    assert calls.zone_name(zone) == name
