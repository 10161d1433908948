"""Warm-up and catching up on real rows: how many marketing messages may still go out."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import event, text

from dripwell.content.load import SEGMENTS_PATH, SITE_PATH, load_site
from dripwell.core.campaign import Site, WarmUp
from dripwell.services import pace
from dripwell.storage import brakes, clock, workers
from dripwell.storage import pace as storage
from dripwell.storage.batches import Owner
from dripwell.storage.database import Connection, Database
from tests.integration import rows
from tests.integration.rows import START

ROOT = Path(__file__).parent.parent.parent
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
FIRST = date(2026, 11, 2)  # the day of START, in Los Angeles


@pytest.fixture
def site() -> Site:
    """The site of the repository, on day 0 of the curve for new domains."""
    read, problems = load_site({path: (ROOT / path).read_text(encoding="utf-8") for path in (SITE_PATH, SEGMENTS_PATH)})
    assert problems == ()
    assert read is not None
    return replace(read, warm_up=WarmUp("new-domain", FIRST))


@pytest.fixture
def drip(database: Database) -> tuple[int, int]:
    """A campaign and its version."""
    with database.transaction() as connection:
        campaign = rows.campaign(connection)
        return campaign, rows.version(connection, campaign)


def mailed(
    connection: Connection,
    drip: tuple[int, int],
    people: int,
    at: datetime,
    *,
    lane: str = "drip",
    state: str = "DONE",
    outcome: str | None = "accepted",
) -> int:
    """One call for so many people; an accepted one unless the test says otherwise."""
    count = connection.execute(text("SELECT coalesce(max(id), 0) FROM batch")).scalar_one()
    ids = range(count * 10_000 + 1, count * 10_000 + 1 + people)
    batch = rows.batch(connection, *drip, lane=lane, state=state, outcome=outcome, message_ids=ids, at=at)
    if outcome == "accepted":
        connection.execute(text("UPDATE batch SET accepted_at = :at WHERE id = :id"), {"at": at, "id": batch})
    return int(batch)


def left(database: Database, site: Site, now: datetime, lane: str = "drip") -> int | None:
    with database.transaction() as connection:
        return pace.allowance(connection, site, lane, now)


def test_without_a_warm_up_nothing_is_capped(database: Database, site: Site) -> None:
    assert left(database, replace(site, warm_up=None), START) is None


@pytest.mark.parametrize("lane", ["confirm", "booking"])
def test_a_service_lane_is_never_capped(database: Database, site: Site, drip: tuple[int, int], lane: str) -> None:
    with database.transaction() as connection:
        mailed(connection, drip, 50, START)
    assert left(database, site, START) == 0
    assert left(database, site, START, lane) is None


def test_a_day_carries_its_number_and_the_next_day_more(database: Database, site: Site, drip: tuple[int, int]) -> None:
    with database.transaction() as connection:
        mailed(connection, drip, 30, START)
        mailed(connection, drip, 8, START, lane="newsletter")
        mailed(connection, drip, 500, START, lane="confirm")  # counted by nobody
        mailed(connection, drip, 500, START, outcome="refused")
    assert left(database, site, START + HOUR) == 12
    assert left(database, site, START + HOUR, "newsletter") == 12
    midnight = datetime(2026, 11, 3, 8, 0, tzinfo=UTC)  # in Los Angeles
    assert left(database, site, midnight - timedelta(seconds=1)) == 12
    assert left(database, site, midnight) == 75


@pytest.mark.parametrize(("state", "counts"), [("OPEN", 20), ("CALLING", 20), ("UNKNOWN", 20)])
def test_what_is_under_way_takes_its_place_however_old_it_is(
    database: Database, site: Site, drip: tuple[int, int], state: str, counts: int
) -> None:
    with database.transaction() as connection:
        mailed(connection, drip, counts, START - 3 * DAY, state=state, outcome=None)
    assert left(database, site, START) == 50 - counts


def test_nothing_goes_out_before_the_first_day(database: Database, site: Site) -> None:
    later = replace(site, warm_up=WarmUp("new-domain", FIRST + 3 * DAY))
    assert left(database, later, START) == 0
    with database.transaction() as connection:
        found = pace.standing(connection, later, START)
    assert found is not None
    assert (found.day, found.cap) == (-3, 0)


def test_an_hourly_curve_counts_hours(database: Database, site: Site, drip: tuple[int, int]) -> None:
    hourly = replace(site, warm_up=WarmUp("sendgrid-hourly", FIRST))
    with database.transaction() as connection:
        mailed(connection, drip, 15, START + timedelta(minutes=50))
    assert left(database, hourly, START + timedelta(minutes=59)) == 5
    assert left(database, hourly, START + HOUR) == 20
    assert left(database, hourly, START + DAY) == 28


def test_a_clock_change_makes_a_day_of_25_hours_and_not_two(
    database: Database, site: Site, drip: tuple[int, int]
) -> None:
    fall = replace(site, warm_up=WarmUp("new-domain", date(2026, 11, 1)))  # clocks go back at 2 am
    begins, ends = datetime(2026, 11, 1, 7, 0, tzinfo=UTC), datetime(2026, 11, 2, 8, 0, tzinfo=UTC)
    with database.transaction() as connection:
        mailed(connection, drip, 1, begins - timedelta(seconds=1))
        mailed(connection, drip, 2, begins)
        mailed(connection, drip, 4, ends - timedelta(seconds=1))
    assert left(database, fall, ends - timedelta(seconds=1)) == 50 - 6
    assert left(database, fall, ends) == 75


def test_thirty_idle_days_begin_the_curve_anew(database: Database, site: Site, drip: tuple[int, int]) -> None:
    with database.transaction() as connection:
        for day in range(10):
            mailed(connection, drip, 1, START + day * DAY)
    assert left(database, site, START + 39 * DAY) == pytest.approx(9731 * 1.5**26, rel=0.01)
    assert left(database, site, START + 40 * DAY) == 50
    with database.transaction() as connection:
        mailed(connection, drip, 50, START + 40 * DAY)
    assert left(database, site, START + 40 * DAY) == 0
    assert left(database, site, START + 42 * DAY) == 112


def test_a_frozen_curve_keeps_its_cap_and_goes_on_from_there(database: Database, site: Site) -> None:
    with database.transaction() as connection:
        brakes.pull(connection, brakes.RAMP, "blocked", {}, START + 2 * DAY)
    assert left(database, site, START + 2 * DAY) == 112
    assert left(database, site, START + 9 * DAY) == 112
    with database.transaction() as connection:
        found = pace.standing(connection, site, START + 9 * DAY)
        assert found is not None
        assert (found.frozen, found.day) == (True, 2)
        assert brakes.release(connection, brakes.RAMP, "maria", "fixed", START + 9 * DAY)
    assert left(database, site, START + 9 * DAY) == 112
    assert left(database, site, START + 10 * DAY) == 169


def test_two_senders_never_both_take_the_last_place(database: Database, site: Site, drip: tuple[int, int]) -> None:
    taken: list[int] = []

    def claim() -> None:
        with database.transaction() as connection:
            places = pace.allowance(connection, site, "drip", START)
            assert places is not None
            size = min(places, 30)
            if size:
                taken.append(size)
                mailed(connection, drip, size, START, state="OPEN", outcome=None)

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 50
    assert left(database, site, START) == 0


def test_a_call_that_is_accepted_while_places_are_counted_is_counted(database: Database, drip: tuple[int, int]) -> None:
    with database.transaction() as connection:
        batch = mailed(connection, drip, 30, START, state="CALLING", outcome=None)

    def accept(*_: object) -> None:  # once the first statement has been answered
        with database.transaction() as other:
            other.execute(
                text(
                    "UPDATE batch SET state = 'DONE', outcome = 'accepted', accepted_at = :at"
                    " WHERE id = :id AND state <> 'DONE'"
                ),
                {"at": START, "id": batch},
            )

    with database.transaction() as connection:
        clock.read(connection)
        event.listen(connection, "after_cursor_execute", accept)
        assert storage.used_since(connection, START - HOUR) == 30
    with database.transaction() as connection:
        assert connection.execute(text("SELECT state FROM batch")).scalar_one() == "DONE"
        assert storage.used_since(connection, START - HOUR) == 30


def test_processes_are_counted_once_and_only_while_they_work(database: Database) -> None:
    with database.transaction() as connection:
        assert storage.alive(connection) == 0
        for queue, pid in (("drip", 1), ("plan", 1), ("confirm", 2), ("newsletter", 3)):
            workers.passed(connection, queue, Owner("one", "boot", pid), progress=False)
        workers.passed(connection, "drip", Owner("two", "boot", 1), progress=False)
        assert storage.alive(connection) == 4
        connection.execute(text("UPDATE worker SET last_pass = wall() - interval '61 s' WHERE pid = 3"))
        assert storage.alive(connection) == 3


def test_the_day_on_which_the_last_of_many_goes_out(database: Database, site: Site) -> None:
    with database.transaction() as connection:
        assert pace.forecast(connection, site, 50, START) is None
        assert pace.forecast(connection, site, 51, START) == FIRST + DAY
        assert pace.forecast(connection, site, 50 + 75 + 112 + 1, START) == FIRST + 3 * DAY
        assert pace.forecast(connection, replace(site, warm_up=None), 10**9, START) is None


# -- catching up ------------------------------------------------------------------------------------------------------


def silent(connection: Connection, hours: float) -> None:
    connection.execute(
        text("UPDATE pace_state SET seen_at = wall() - make_interval(secs => :seconds)"), {"seconds": hours * 3600}
    )


def waiting(connection: Connection, drip: tuple[int, int], people: int) -> None:
    """So many people who are due since two hours."""
    connection.execute(
        text(
            "WITH people AS (INSERT INTO subscriber (public_id, address, addr_hash, state, joined_at)"
            " SELECT gen_random_uuid(), 'p' || n || '@example.com', sha256(convert_to('p' || n, 'UTF8')), 'active', :at"
            " FROM generate_series(1, :people) AS n RETURNING id)"
            " INSERT INTO enrollment (subscriber_id, campaign_id, version_id, joined_at, anchor_at, next_due_at)"
            " SELECT id, :campaign, :version, :at, :at, :at FROM people"
        ),
        {
            "people": people,
            "campaign": drip[0],
            "version": drip[1],
            "at": clock.read(connection).now - 2 * HOUR,
        },
    )


def looked(database: Database) -> int | None:
    """What a settle pass does, and the rate an hour that follows."""
    with database.transaction() as connection:
        pace.look(connection)
    with database.transaction() as connection:
        return pace.catch_up_rate(connection)


def test_after_a_long_silence_an_hour_carries_twice_the_busiest_of_the_week_before(
    database: Database, site: Site, drip: tuple[int, int]
) -> None:
    with database.transaction() as connection:
        now = clock.read(connection).now
        waiting(connection, drip, pace.FLOOR + 1)
        silent(connection, 72)
        hour = (now - 5 * DAY).replace(minute=0)
        mailed(connection, drip, 400, hour)
        mailed(connection, drip, 300, hour + timedelta(minutes=59))
        mailed(connection, drip, 600, hour + timedelta(hours=5))
        mailed(connection, drip, 5_000, now - 12 * DAY)  # longer ago than a week before the silence
    assert looked(database) == 1_400
    warm = replace(site, warm_up=None)
    with database.transaction() as connection:
        this_hour = clock.read(connection).now.replace(minute=0, second=0, microsecond=0)
        mailed(connection, drip, 1_000, this_hour)
    assert left(database, warm, this_hour + timedelta(minutes=30)) == 400
    assert left(database, warm, this_hour + HOUR) == 1_400
    assert left(database, warm, this_hour, "confirm") is None
    strict = replace(site, warm_up=WarmUp("new-domain", this_hour.astimezone(ZoneInfo(site.clinic.timezone)).date()))
    assert left(database, strict, this_hour) == 0  # the stricter of both holds


def test_what_is_caught_up_does_not_become_the_usual(database: Database, drip: tuple[int, int]) -> None:
    with database.transaction() as connection:
        waiting(connection, drip, pace.FLOOR + 1)
        silent(connection, 5)
    assert looked(database) == pace.FLOOR
    with database.transaction() as connection:
        mailed(connection, drip, 90, clock.read(connection).now)
        silent(connection, 2)  # and silent once more
    assert looked(database) == pace.FLOOR


def test_a_short_silence_or_few_people_are_no_reason(database: Database, drip: tuple[int, int]) -> None:
    with database.transaction() as connection:
        waiting(connection, drip, pace.FLOOR)
        silent(connection, 5)
    assert looked(database) is None  # few people
    with database.transaction() as connection:
        person = rows.subscriber(connection, "one-more@example.com", topics=())
        rows.enrollment(connection, person, *drip, at=clock.read(connection).now - 2 * HOUR)
        silent(connection, 0.9)
    assert looked(database) is None  # a short silence
    with database.transaction() as connection:
        connection.execute(text("UPDATE campaign SET state = 'paused'"))
        silent(connection, 5)
    assert looked(database) is None  # a campaign that mails nobody
    with database.transaction() as connection:
        connection.execute(text("UPDATE campaign SET state = 'running'"))
        silent(connection, 5)
    assert looked(database) == pace.FLOOR


def test_catching_up_ends_after_as_long_as_it_was_silent(database: Database, drip: tuple[int, int]) -> None:
    with database.transaction() as connection:
        waiting(connection, drip, pace.FLOOR + 1)
        silent(connection, 5)
    assert looked(database) == pace.FLOOR
    with database.transaction() as connection:
        hours = connection.execute(
            text("SELECT extract(epoch FROM catch_up_until - wall()) / 3600 FROM pace_state")
        ).scalar_one()
        # from the first look on, so a moment more or less than the silence made above
        assert hours == pytest.approx(5, abs=0.1)
        connection.execute(text("UPDATE pace_state SET catch_up_until = wall()"))
        assert pace.catch_up_rate(connection) is None


def test_nothing_is_caught_up_on_while_campaign_time_is_ahead(database: Database, drip: tuple[int, int]) -> None:
    with database.transaction() as connection:
        waiting(connection, drip, pace.FLOOR + 1)
        silent(connection, 5)
    assert looked(database) == pace.FLOOR
    with database.transaction() as connection:
        clock.forward(connection, clock.read(connection).now + DAY)
    assert looked(database) is None
