"""The database's clock jumps: nobody is mailed early, nobody twice, and nobody for ever."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta

import pytest

from dripwell.core.errors import RefusedError
from dripwell.services import clockwatch
from dripwell.services.clockwatch import ClockWatch, Look, judge, jump
from dripwell.storage import clock
from dripwell.storage.database import Database
from dripwell.storage.fast import Fast
from tests.integration import rows
from tests.integration.scripted import House

HOUR, YEAR = timedelta(hours=1), timedelta(days=365)


class Watched(House):
    """A house whose planner looks at the clock before each pass, and where time can be lived through or just jump."""

    def __init__(self, database: Database, redis_url: str) -> None:
        super().__init__(database, redis_url)
        self.lived = 1000.0
        self.watch = ClockWatch(lambda: self.lived)

    def live(self, **span: float) -> None:
        """So much time goes by, for every clock."""
        self.lived += timedelta(**span).total_seconds()
        self.later(**span)

    def looked_and_planned(self) -> tuple[bool, int]:
        """One pass, as a worker makes it."""
        trusted = self.watch.look(self.database)
        return trusted, self.plan()

    def hours(self, count: int) -> None:
        """So many hours go by, with a pass in each."""
        for _ in range(count):
            self.live(hours=1)
            assert self.looked_and_planned()[0] is True
            self.send()


@pytest.fixture
def house(database: Database, redis_url: str) -> Iterator[Watched]:
    made = Watched(database, redis_url)
    yield made
    made.check()
    made.close()


def accept(house: House, reason: str = "the server's clock was set right") -> str:
    with house.database.transaction() as connection:
        return clockwatch.accept(connection, actor="ana", reason=reason, redis_now=None)


def first_sent(house: Watched) -> None:
    """Three people, of whom each got the first of two emails; the second is two days away."""
    house.enroll(house.publish(), *house.people(3))
    assert house.looked_and_planned() == (True, 3)
    house.send()
    house.plan()
    assert len(house.provider.got()) == 3


@pytest.mark.parametrize("ahead", [2 * HOUR, YEAR], ids=["two hours", "a year"])
def test_a_clock_that_jumps_ahead_stops_planning_and_mails_nobody(
    house: Watched, caplog: pytest.LogCaptureFixture, ahead: timedelta
) -> None:
    first_sent(house)
    house.live(hours=47)
    before = house.wall
    house.enroll(house.publish("other"), *[house.person("late@example.com")])
    house.until(house.wall + ahead)
    with caplog.at_level(logging.ERROR, "dripwell.clock"):
        assert house.looked_and_planned() == (False, 0)
        assert house.looked_and_planned() == (False, 0)
    assert len(caplog.records) == 1, "one alarm, not one a pass"
    assert house.states() == ["ACCEPTED"] * 3

    # Somebody sets the clock back, and says so: everybody gets what they would have got, once.
    house.until(before)
    assert house.watch.look(house.database) is False, "it does not go on by itself"
    assert "jumped ahead" in accept(house)
    assert house.looked_and_planned() == (True, 1)
    house.hours(30)
    assert len(house.provider.got()) == 7
    ((action, actor),) = house.query("SELECT action, actor FROM activity WHERE about = 'clock'")
    assert (action, actor) == ("clock accepted", "ana")


def test_a_year_that_a_person_finds_right_brings_everybody_one_email(house: Watched) -> None:
    first_sent(house)
    house.until(house.wall + YEAR)
    assert house.looked_and_planned() == (False, 0)
    accept(house, "the server had been a year slow")
    assert house.looked_and_planned()[0] is True
    house.live(hours=24)
    house.looked_and_planned()
    house.send()
    house.looked_and_planned()
    house.send()
    assert len(house.provider.got()) == 6


def test_a_clock_that_goes_back_makes_nothing_due_and_nobody_twice(
    house: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    first_sent(house)
    house.live(hours=1)
    house.looked_and_planned()
    house.until(house.wall - 2 * HOUR)
    with caplog.at_level(logging.ERROR, "dripwell.clock"):
        assert house.looked_and_planned() == (True, 0)
    assert ["went back" in record.message for record in caplog.records] == [True]
    house.send()
    assert len(house.provider.got()) == 3
    house.hours(60)
    assert len(house.provider.got()) == 6


def test_downtime_is_no_jump_for_the_process_that_starts_after_it(
    house: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    first_sent(house)
    house.later(days=3)
    house.watch = ClockWatch(lambda: 5.0)
    with caplog.at_level(logging.ERROR, "dripwell.clock"):
        trusted, moved = house.looked_and_planned()
    assert (trusted, moved, caplog.records) == (True, 3, [])
    house.send()
    assert len(house.provider.got()) == 6


def test_a_process_that_starts_finds_a_clock_that_went_back_while_it_was_down(
    house: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    first_sent(house)
    house.later(hours=-3)
    house.watch = ClockWatch(lambda: 5.0)
    with caplog.at_level(logging.ERROR, "dripwell.clock"):
        assert house.looked_and_planned() == (True, 0)
    assert len(caplog.records) == 1


def test_redis_that_says_it_is_earlier_stops_a_first_look_too_and_a_person_decides_once(house: Watched) -> None:
    house.enroll(house.publish(), *house.people(2))
    behind = house.wall - HOUR
    assert house.watch.look(house.database, behind) is False
    assert house.plan() == 0
    with house.database.transaction() as connection:
        clockwatch.accept(connection, actor="ana", reason="Redis is an hour slow", redis_now=behind)
    assert house.watch.look(house.database, behind) is True
    assert house.watch.look(house.database, None) is True
    assert house.plan() == 2
    house.send()


def test_redis_tells_the_time_and_nothing_when_it_is_away(house: Watched, redis_url: str) -> None:
    first, second = house.fast.now(), house.fast.now()
    assert first is not None
    assert second is not None
    assert timedelta() <= second - first < timedelta(minutes=1)
    away = Fast(redis_url.rpartition(":")[0] + ":1")
    assert away.now() is None
    away.close()


def test_redis_that_says_it_is_later_stops_nobody(house: Watched) -> None:
    assert house.watch.look(house.database, house.wall + HOUR) is True


def test_an_alarm_of_one_process_stops_every_other(house: Watched) -> None:
    first_sent(house)
    other = ClockWatch(lambda: house.lived)
    assert other.look(house.database) is True
    with house.database.transaction() as connection:
        assert clock.raise_alarm(connection, "somebody else saw it")
        assert clock.raise_alarm(connection, "and a third") is False
    assert other.look(house.database) is False
    assert house.plan() == 0
    assert accept(house) == "somebody else saw it"


def test_there_is_nothing_to_accept_while_nobody_doubts(house: Watched) -> None:
    with pytest.raises(RefusedError):
        accept(house)


@pytest.mark.parametrize(
    ("minutes", "lived", "stops"),
    [(10, 600, False), (14.9, 600, False), (15.1, 600, True), (-60, 600, False), (600, 36_000, False), (5.1, 0, True)],
)
def test_only_time_that_nobody_lived_through_is_a_jump(minutes: float, lived: float, stops: bool) -> None:
    before = Look(rows.START, 50.0)
    after = Look(rows.START + timedelta(minutes=minutes), 50.0 + lived)
    assert (judge(jump(before, after), None, timedelta()) is not None) is stops
    assert judge(jump(None, after), None, timedelta()) is None


@pytest.mark.parametrize(
    ("ahead", "accepted", "stops"), [(4, 0, False), (6, 0, True), (-600, 0, False), (64, 60, False), (66, 60, True)]
)
def test_redis_may_be_five_minutes_behind_what_was_accepted(ahead: int, accepted: int, stops: bool) -> None:
    reason = judge(timedelta(), timedelta(minutes=ahead), timedelta(minutes=accepted))
    assert (reason is not None) is stops
