"""Warm-up curves as rules 8 print them, and whose mailbox an address is in."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dripwell.core import pace

FIRST = date(2026, 10, 6)
DAYS = st.integers(-400, 4_000)
PRESETS = st.sampled_from(pace.PRESETS)

PRINTED = {
    "new-domain": (50, 75, 112, 169, 253, 380, 570, 854, 1281, 1922, 2883, 4325, 6487, 9731),
    "ghost-42": (200, 237, 280),
    "sendgrid-2017-daily": (
        *(50, 100, 500, 1_000, 5_000, 10_000, 20_000, 40_000, 70_000, 100_000, 150_000, 250_000, 400_000, 600_000),
        *(1_000_000, 2_000_000, 4_000_000, 8_000_000, 16_000_000),
    ),
    "sendgrid-hourly": (
        *(20, 28, 39, 55, 77, 108, 151, 211, 295, 413, 579, 810, 1_000, 1_587, 2_222, 3_111, 4_356, 6_098, 8_583),
        *(11_953, 16_734, 23_427, 32_798, 45_917, 64_284, 89_998, 125_997, 176_395, 246_953, 345_735, 484_029),
        *(677_640, 948_696, 1_328_175, 1_859_444, 2_603_222),
    ),
}


@pytest.mark.parametrize("preset", pace.PRESETS)
def test_a_curve_starts_as_it_is_printed(preset: str) -> None:
    assert [pace.cap(preset, day) for day in range(len(PRINTED[preset]))] == list(PRINTED[preset])


def test_the_tails_of_the_curves() -> None:
    assert pace.cap("new-domain", 14) == 14_596  # 9,731 × 1.5
    assert pace.cap("ghost-42", 41) == 200_000
    assert pace.cap("sendgrid-hourly", 36) == pace.cap("sendgrid-hourly", 3_000) == 2_603_222


@pytest.mark.parametrize(("preset", "days"), list(zip(pace.PRESETS, (14, 42, 17, 36), strict=True)))
def test_a_ramp_is_as_long_as_its_table(preset: str, days: int) -> None:
    assert [pace.is_ramp(preset, day) for day in (-1, 0, days - 1, days)] == [False, True, True, False]


@pytest.mark.parametrize("group", pace.GROUPS)
def test_every_domain_of_a_group_is_in_it(group: str) -> None:
    assert {pace.group_of(f"a@{domain}") for domain in pace.domains_of(group)} <= {group}


def test_an_unknown_preset_is_an_error() -> None:
    with pytest.raises(KeyError):
        pace.cap("fast", 0)


@given(PRESETS, DAYS)
def test_a_cap_never_shrinks_and_is_nothing_before_the_first_day(preset: str, day: int) -> None:
    assert pace.cap(preset, day) <= pace.cap(preset, day + 1)
    assert (pace.cap(preset, day) == 0) == (day < 0)


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("maria@gmail.com", "gmail"),
        ("maria@GoogleMail.com", "gmail"),
        ("maria@gmail.com.", "gmail"),
        ("maria@hotmail.co.uk", "outlook"),
        ("maria@live.fr", "outlook"),
        ("maria@outlook.com.br", "outlook"),
        ("maria@msn.com", "outlook"),
        ("maria@yahoo.co.jp", "yahoo"),
        ("maria@aol.com", "yahoo"),
        ("maria@me.com", "icloud"),
        ("maria@clinic.example", "other"),
        ("maria@mygmail.com", "other"),
        ("maria@gmail.com.evil.example", "other"),
        ("maria@mail.yahoo.com", "other"),
        ("maria@live.evil.uk", "other"),
        ("maria@yahoo", "other"),
        ("maria", "other"),
        ("", "other"),
        ("@", "other"),
        ("a@yahoo.", "other"),
        ("a@yahoo..fr", "other"),
    ],
)
def test_a_mailbox_group_is_read_off_the_domain(address: str, group: str) -> None:
    assert pace.group_of(address) == group


@given(st.text())
def test_every_text_has_a_group(address: str) -> None:
    assert pace.group_of(address) in pace.GROUPS


def test_thirty_idle_days_keep_the_curve_and_thirty_one_begin_it_anew() -> None:
    def start(mailed: list[int], today: int) -> int:
        found = pace.start_of(FIRST, [FIRST + timedelta(day) for day in mailed], FIRST + timedelta(today))
        return (found - FIRST).days

    assert start([], 0) == start([], 30) == 0
    assert start([], 31) == 31  # nothing was ever mailed, so today is day 0
    assert start([0, 1, 2], 32) == 0
    assert start([0, 1, 2], 33) == 33
    assert start([0, 40], 41) == 40
    assert start([40, 0, 41], 60) == 40  # in any order
    assert start([-5], 3) == 0  # before the first day is no part of it
    assert start([], -3) == 0


@given(st.lists(st.integers(0, 300)), st.integers(0, 400))
def test_a_start_is_never_after_today_and_never_before_the_first_day(mailed: list[int], today: int) -> None:
    found = pace.start_of(FIRST, [FIRST + timedelta(day) for day in mailed], FIRST + timedelta(today))
    assert FIRST <= found <= FIRST + timedelta(today)
    again = pace.start_of(FIRST, [*(FIRST + timedelta(day) for day in mailed)] * 2, FIRST + timedelta(today))
    assert found == again


def test_a_frozen_day_does_not_count() -> None:
    def number(today: int, *frozen: tuple[int, int]) -> int:
        spans = [(FIRST + timedelta(a), FIRST + timedelta(b)) for a, b in frozen]
        return pace.day_number(FIRST, FIRST + timedelta(today), spans)

    assert number(5) == 5
    assert number(-2) == -2
    assert number(3, (3, 9)) == 3  # the day on which it freezes keeps its own cap
    assert number(6, (3, 9)) == 3
    assert number(10, (3, 6)) == 7
    assert number(10, (3, 6), (4, 6)) == 7
    assert number(10, (-20, -10)) == 10


@given(st.integers(0, 60), st.lists(st.tuples(st.integers(-10, 70), st.integers(-10, 70)), max_size=4))
def test_a_curve_never_runs_backwards_and_grows_by_a_day_at_most(today: int, frozen: list[tuple[int, int]]) -> None:
    spans = [(FIRST + timedelta(a), FIRST + timedelta(b)) for a, b in frozen]
    now = pace.day_number(FIRST, FIRST + timedelta(today), spans)
    assert pace.day_number(FIRST, FIRST + timedelta(today + 1), spans) - now in (0, 1)
