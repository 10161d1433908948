"""One bad row, one bad version or one planner that stands still keeps nobody else waiting."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import text

from dripwell.core.errors import UnavailableError
from dripwell.services import plan
from dripwell.storage import enrollments
from dripwell.storage.database import Database
from tests.integration import rows
from tests.integration.scripted import House


@pytest.fixture
def house(database: Database, redis_url: str) -> Iterator[House]:
    made = House(database, redis_url)
    yield made
    made.check()
    made.close()


def spoil(house: House, campaign: int) -> int:
    """Give the campaign a newest version that no Dripwell can read; returns its id."""
    with house.database.transaction() as connection:
        return rows.version(connection, campaign, number=99, definition={"campaigns/x/campaign.yaml": "type: tomorrow"})


def newest(house: House, campaign: int) -> int:
    ((found,),) = house.query("SELECT version_id FROM campaign WHERE id = :id", id=campaign)
    return int(str(found))


@pytest.mark.parametrize("whose", ["settings", "steps"])
def test_a_version_that_cannot_be_read_keeps_only_its_own_people_waiting(
    house: House, caplog: pytest.LogCaptureFixture, whose: str
) -> None:
    broken, sound = house.publish("broken"), house.publish("sound")
    maria, joe = house.person("maria@example.com"), house.person("joe@example.com")
    if whose == "settings":
        house.enroll(broken, maria)
        spoil(house, broken)
    else:
        spoil(house, broken)
        house.enroll(broken, maria)
        house.publish("broken")
    house.later(seconds=1)
    house.enroll(sound, joe)
    with caplog.at_level(logging.CRITICAL, "dripwell.plan"):
        assert house.plan() == 2
    assert [r.levelname for r in caplog.records] == ["CRITICAL"]
    assert list(house.messages()) == [("joe@example.com", "1-first")]
    (waiting,) = house.query("SELECT waits_for, next_due_at FROM enrollment WHERE state = 'waiting'")
    assert waiting == ("unreadable_version", house.wall + plan.ASIDE)
    house.send()

    house.publish("broken")
    house.query(
        "UPDATE enrollment SET version_id = :version WHERE campaign_id = :id RETURNING id",
        version=newest(house, broken),
        id=broken,
    )
    house.later(minutes=15)
    house.plan()
    house.send()
    assert sorted(house.provider.addresses()) == ["joe@example.com", "maria@example.com"]


def test_a_stale_email_of_a_version_that_cannot_be_read_waits_and_the_others_are_decided_again(house: House) -> None:
    broken, sound = house.publish("broken"), house.publish("sound")
    maria, joe = house.person("maria@example.com"), house.person("joe@example.com")
    house.enroll(broken, maria)
    house.enroll(sound, joe)
    assert house.plan() == 2
    spoil(house, broken)
    house.later(minutes=20)
    assert house.plan() == 2
    house.send()
    assert house.provider.addresses() == ["joe@example.com"]
    assert house.plan() == 1, "what comes after Joe's"
    assert house.plan() == 0, "the email that waits is not looked at again and again"
    house.publish("broken")
    house.later(minutes=16)
    house.plan()
    house.send()
    assert house.provider.addresses() == ["joe@example.com", "maria@example.com"]


@pytest.mark.parametrize(
    "poison",
    [
        "UPDATE subscriber SET tags = '{{a},{b}}' WHERE id = :id RETURNING id",
        "UPDATE subscriber SET paused_until = 'infinity' WHERE id = :id RETURNING id",
        "UPDATE enrollment SET anchor_at = '9999-12-30', cursor_key = '1-first' WHERE subscriber_id = :id RETURNING id",
    ],
    ids=["tags in tags", "a pause for ever", "a wait past the end of time"],
)
def test_one_person_about_whom_nothing_can_be_decided_stops_nobody_else(
    house: House, caplog: pytest.LogCaptureFixture, poison: str
) -> None:
    campaign = house.publish()
    people = house.people(25)
    house.enroll(campaign, *people)
    house.query(poison, id=people[7])
    with caplog.at_level(logging.ERROR, "dripwell.plan"):
        assert house.plan() == 25
    assert house.states() == ["PLANNED"] * 24
    assert len(caplog.records) == 1
    assert "@" not in caplog.text
    ((who, waits_for, until),) = house.query(
        "SELECT subscriber_id, waits_for, next_due_at FROM enrollment WHERE state = 'waiting'"
    )
    assert (who, waits_for, until) == (people[7], "undecided", house.wall + plan.ASIDE)
    assert house.plan() == 0
    house.send()
    assert len(house.provider.got()) == 24


def test_a_planner_that_stands_still_is_ended_by_the_server_and_nobody_is_planned_twice(house: House) -> None:
    campaign = house.publish()
    people = house.people(30)
    house.enroll(campaign, *people)
    url = house.database.engine.url.render_as_string(hide_password=False)
    frozen = Database(url, pool=1, idle_in_transaction=0.5)
    holding, over = threading.Event(), threading.Event()
    ended: list[BaseException] = []

    def stand_still() -> None:
        try:
            with frozen.transaction() as connection:
                assert plan.plan_slice(connection, house.versions, 20) == 20
                holding.set()
                over.wait(30)
                plan.plan_slice(connection, house.versions, 20)
        except BaseException as error:
            ended.append(error)

    standing = threading.Thread(target=stand_still)
    standing.start()
    try:
        assert holding.wait(30)
        assert house.plan() == 10, "the other planner goes on with those nobody holds"
        deadline = time.monotonic() + 30
        left = 0
        while left < 20 and time.monotonic() < deadline:
            left += house.plan()
            time.sleep(0.05)
    finally:
        over.set()
        standing.join(30)
        frozen.close()
    assert left == 20
    assert [type(error) for error in ended] == [UnavailableError]
    assert house.states() == ["PLANNED"] * 30
    house.send()
    assert len(house.provider.got()) == 30


def test_a_statement_that_takes_too_long_is_ended_by_the_server(house: House) -> None:
    campaign = house.publish()
    people = house.people(3)
    house.enroll(campaign, *people)
    url = house.database.engine.url.render_as_string(hide_password=False)
    impatient = Database(url, pool=1, statement=0.3)
    try:
        with house.database.transaction() as holding:
            enrollments.lock(holding, [row[0] for row in house.query("SELECT id FROM enrollment")])  # type: ignore[misc]
            with pytest.raises(UnavailableError), impatient.transaction() as waiting:
                enrollments.lock(waiting, [row[0] for row in house.query("SELECT id FROM enrollment")])  # type: ignore[misc]
    finally:
        impatient.close()
    assert house.plan() == 3


def test_the_server_is_told_how_long_a_statement_and_a_silence_may_last(database: Database) -> None:
    with database.transaction() as connection:
        statement = connection.execute(text("SHOW statement_timeout")).scalar_one()
        silence = connection.execute(text("SHOW idle_in_transaction_session_timeout")).scalar_one()
    assert (statement, silence) == ("30s", "1min")


def test_the_night_between_two_looks_is_not_skipped_by_a_pass_that_goes_on(house: House) -> None:
    campaign = house.publish()
    early, late = house.people(2)
    house.enroll(campaign, late)
    house.plan()
    with house.database.transaction() as connection:  # somebody falls due before everybody the pass has seen
        version = newest(house, campaign)
        rows.enrollment(connection, early, campaign, version, at=house.wall - timedelta(hours=2))
    house.plan()
    assert house.states() == ["PLANNED"] * 2
    house.send()
