"""Lengths of time: `2 days` keeps the local time of day over every clock change, and a month ends where it ends."""

# ruff: noqa: DTZ001  (local times are naive here on purpose: what they mean in a zone is what is tested)

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dripwell.core.duration import UNITS, Duration, Unit, resolve

LOS_ANGELES, NEW_YORK, BERLIN = ZoneInfo("America/Los_Angeles"), ZoneInfo("America/New_York"), ZoneInfo("Europe/Berlin")
LORD_HOWE, APIA = ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Pacific/Apia")
ZONES = (LOS_ANGELES, NEW_YORK, BERLIN, LORD_HOWE, APIA, ZoneInfo("Asia/Kolkata"), ZoneInfo("UTC"))

zones = st.sampled_from(ZONES)
moments = st.datetimes(datetime(2005, 1, 1), datetime(2040, 12, 31)).map(lambda moment: moment.replace(tzinfo=UTC))
calendar_lengths = st.builds(Duration, st.integers(1, 400), st.sampled_from(["day", "week"]))


@given(moment=moments, length=calendar_lengths, zone=zones)
def test_days_and_weeks_keep_the_local_time_of_day(moment: datetime, length: Duration, zone: ZoneInfo) -> None:
    local = moment.astimezone(zone).replace(tzinfo=None, fold=0)
    wanted = local + length.at_most()
    found = length.after(moment, zone).astimezone(zone)
    exists = wanted.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None, fold=0) == wanted
    if exists:
        assert found.replace(tzinfo=None, fold=0) == wanted
        assert found.fold == 0  # of a doubled hour, the first
    else:
        assert wanted < found.replace(tzinfo=None) <= wanted + timedelta(days=1)


@given(moment=moments, zone=zones, amount=st.integers(1, 9999), unit=st.sampled_from(["minute", "hour"]))
def test_minutes_and_hours_are_exact(moment: datetime, zone: ZoneInfo, amount: int, unit: Unit) -> None:
    length = Duration(amount, unit)
    assert length.after(moment, zone) - moment == timedelta(minutes=amount * (60 if unit == "hour" else 1))


@given(moment=moments, zone=zones, amount=st.integers(1, 60))
def test_a_month_ends_on_the_same_day_or_the_last_one(moment: datetime, zone: ZoneInfo, amount: int) -> None:
    start = moment.astimezone(zone)
    found = Duration(amount, "month").after(moment, zone).astimezone(zone)
    if zone is APIA and found.date() == date(2011, 12, 31):
        return  # may stand for the day that Apia lost
    assert (found.year * 12 + found.month) - (start.year * 12 + start.month) == amount
    assert found.day == start.day or (found.day < start.day and (found + timedelta(days=1)).day == 1)


@given(moment=moments, zone=zones, amount=st.integers(1, 60), unit=st.sampled_from(UNITS))
def test_time_always_goes_forward(moment: datetime, zone: ZoneInfo, amount: int, unit: Unit) -> None:
    found = Duration(amount, unit).after(moment, zone)
    assert found > moment
    assert found.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("zone", "local", "utc"),
    [
        (LOS_ANGELES, datetime(2026, 3, 8, 2, 30), datetime(2026, 3, 8, 10, 30)),  # missing: 3:30 daylight time
        (LOS_ANGELES, datetime(2026, 11, 1, 1, 30), datetime(2026, 11, 1, 8, 30)),  # doubled: the first, daylight time
        (NEW_YORK, datetime(2026, 3, 8, 2, 0), datetime(2026, 3, 8, 7, 0)),
        (NEW_YORK, datetime(2026, 11, 1, 1, 59), datetime(2026, 11, 1, 5, 59)),
        (BERLIN, datetime(2026, 3, 29, 2, 15), datetime(2026, 3, 29, 1, 15)),
        (BERLIN, datetime(2026, 10, 25, 2, 15), datetime(2026, 10, 25, 0, 15)),
        (LORD_HOWE, datetime(2026, 10, 4, 2, 15), datetime(2026, 10, 3, 15, 45)),  # a gap of 30 minutes: 2:45
        (LORD_HOWE, datetime(2026, 4, 5, 1, 45), datetime(2026, 4, 4, 14, 45)),  # doubled: the first
        (APIA, datetime(2011, 12, 30, 9, 0), datetime(2011, 12, 30, 19, 0)),  # a lost day: the same time on the 31st
    ],
)
def test_a_missing_time_moves_by_the_gap_and_of_a_doubled_one_the_first_counts(
    zone: ZoneInfo, local: datetime, utc: datetime
) -> None:
    assert resolve(local, zone) == utc.replace(tzinfo=UTC)


def test_a_day_over_the_spring_change_is_23_hours_and_over_the_autumn_change_25() -> None:
    spring = datetime(2026, 3, 7, 17, 0, tzinfo=UTC)  # 9 in the morning
    assert Duration(1, "day").after(spring, LOS_ANGELES) - spring == timedelta(hours=23)
    autumn = datetime(2026, 10, 31, 16, 0, tzinfo=UTC)
    assert Duration(1, "day").after(autumn, LOS_ANGELES) - autumn == timedelta(hours=25)


def test_a_day_into_the_one_apia_lost_lands_on_the_day_after_at_the_same_time() -> None:
    before = resolve(datetime(2011, 12, 29, 9, 0), APIA)
    assert Duration(1, "day").after(before, APIA).astimezone(APIA).replace(tzinfo=None) == datetime(2011, 12, 31, 9, 0)


@pytest.mark.parametrize(
    ("day", "months", "lands"),
    [
        (date(2026, 1, 31), 1, date(2026, 2, 28)),
        (date(2028, 1, 31), 1, date(2028, 2, 29)),
        (date(2026, 1, 31), 2, date(2026, 3, 31)),
        (date(2026, 12, 31), 2, date(2027, 2, 28)),
        (date(2026, 11, 30), 12, date(2027, 11, 30)),
        (date(2026, 12, 15), 12, date(2027, 12, 15)),
    ],
)
def test_the_last_days_of_a_month_are_clamped(day: date, months: int, lands: date) -> None:
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=LOS_ANGELES).astimezone(UTC)
    found = Duration(months, "month").after(noon, LOS_ANGELES).astimezone(LOS_ANGELES)
    assert (found.date(), found.hour) == (lands, 12)


@given(amount=st.integers(0, 9999), unit=st.sampled_from(UNITS))
def test_what_is_written_is_read_back(amount: int, unit: Unit) -> None:
    assert Duration.parse(str(Duration(amount, unit))) == Duration(amount, unit)


@pytest.mark.parametrize(
    "text", ["", "2", "days", "two days", "2days", "-1 days", "1.5 days", "2 days 3 hours", "2 Days"]
)
def test_what_is_no_length_of_time_is_none(text: str) -> None:
    assert Duration.parse(text) is None
