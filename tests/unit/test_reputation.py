"""The breakers of rules 8.4: its golden values, and what must hold for every count."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dripwell.core.reputation import PAUSE, STOP, Limit, level, lower_bound, most, trips


@pytest.mark.parametrize(
    ("limit", "events", "among"),
    [
        (PAUSE["complaints"], 2, 446),
        (PAUSE["complaints"], 3, 852),
        (PAUSE["complaints"], 5, 1_843),
        (PAUSE["bounces"], 5, 92),
        (PAUSE["bounces"], 10, 245),
        (STOP["complaints"], 3, 284),
        (STOP["complaints"], 5, 615),
        (STOP["bounces"], 10, 99),
    ],
)
def test_a_breaker_trips_up_to_the_printed_number_and_not_one_further(limit: Limit, events: int, among: int) -> None:
    assert trips(limit, events, among)
    assert not trips(limit, events, among + 1)
    assert most(limit, events) == among


@pytest.mark.parametrize("limit", [*PAUSE.values(), *STOP.values()])
def test_nothing_trips_below_its_floor(limit: Limit) -> None:
    assert not trips(limit, limit.floor - 1, limit.floor - 1)
    assert most(limit, limit.floor - 1) == 0
    assert trips(limit, limit.floor, limit.floor)


def test_a_stop_outweighs_a_pause() -> None:
    assert level("complaints", 3, 284) == "stop"
    assert level("complaints", 3, 285) == "pause"
    assert level("complaints", 3, 900) is None
    assert level("blocks", 10, 10) == "pause"  # there is no stop for blocks
    assert level("bounces", 0, 0) is None


@given(st.integers(0, 5_000), st.integers(0, 100_000))
def test_the_range_lies_below_the_rate_itself(events: int, more: int) -> None:
    resolved = events + more
    low = lower_bound(events, resolved)
    assert 0 <= low <= (events / resolved if resolved else 0)


@given(st.integers(1, 2_000), st.integers(1, 50_000))
def test_more_events_weigh_more_and_more_mail_less(events: int, more: int) -> None:
    resolved = events + more
    assert lower_bound(events, resolved) <= lower_bound(events + 1, resolved + 1)
    assert lower_bound(events, resolved + 1) <= lower_bound(events, resolved)


@given(st.sampled_from([*PAUSE.values(), *STOP.values()]), st.integers(0, 3_000))
def test_counting_up_to_the_most_and_one_more_decides(limit: Limit, events: int) -> None:
    edge = most(limit, events)
    if events >= limit.floor:
        assert trips(limit, events, edge)
    assert not trips(limit, events, edge + 1)


@pytest.mark.parametrize("events", [-1, 0])
@pytest.mark.parametrize("resolved", [-1, 0, 5])
def test_counts_that_make_no_sense_trip_nothing(events: int, resolved: int) -> None:
    assert level("complaints", events, resolved) is None


def test_more_events_than_messages_are_as_bad_as_all_of_them() -> None:
    assert lower_bound(9, 3) == lower_bound(3, 3)  # evidence of what is not in the window
    assert level("complaints", 9, 3) == "stop"


def _history(rate: float, a_day: int, days: int, chance: random.Random) -> tuple[bool, bool]:
    """Whether a sender of this true complaint rate is ever paused and ever stopped; looked at ten times a day."""
    hurt, sent = 0, 0
    paused = stopped = False
    for _ in range(days * 10):
        sent += a_day // 10
        hurt += sum(chance.random() < rate for _ in range(a_day // 10))
        found = level("complaints", hurt, sent)
        paused, stopped = paused or found is not None, stopped or found == "stop"
    return paused, stopped


def test_a_healthy_sender_of_size_is_never_stopped_and_a_bad_small_one_always() -> None:
    chance = random.Random(84)
    healthy = [_history(0.0005, 1_000, 30, chance) for _ in range(20)]
    bad = [_history(0.01, 50, 90, chance) for _ in range(20)]
    assert not any(stopped for _, stopped in healthy)
    assert sum(paused for paused, _ in healthy) <= 8
    assert all(paused and stopped for paused, stopped in bad)
