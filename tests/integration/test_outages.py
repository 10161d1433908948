"""PostgreSQL goes away under a sender, a version cannot be read, or two parts want the same rows at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from dripwell.core.campaign import Lane
from dripwell.core.errors import UnavailableError
from dripwell.services import leave, publish, resolve, send, serve
from dripwell.storage import batches, enrollments, messages, spool, workers
from dripwell.storage.batches import Owner
from dripwell.storage.database import Connection, Database, is_usable
from tests.integration.scripted import House

MARIA, JOE = "maria@example.com", "joe@example.com"


@pytest.fixture
def house(database: Database, redis_url: str) -> Iterator[House]:
    """A house whose every test ends with the judge."""
    made = House(database, redis_url)
    yield made
    made.check()
    made.close()


def planned(house: House, *addresses: str) -> list[int]:
    """These people, enrolled, their first email planned."""
    people = [house.person(address) for address in addresses or (MARIA,)]
    house.enroll(house.publish(), *people)
    assert house.plan() == len(people)
    return people


def test_a_session_that_died_takes_no_other_statement_and_is_not_asked_for_one(database: Database) -> None:
    def die() -> None:
        with database.transaction() as connection:
            try:
                connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
            except DBAPIError:
                assert not is_usable(connection)
                raise

    with pytest.raises(UnavailableError):
        die()


class Away:
    """Shuts the door of one database, and opens it again after a while."""

    def __init__(self, admin: Database, database: Database) -> None:
        self._admin, self._name = admin, database.engine.url.database

    def goes(self, seconds: float) -> None:
        """Nobody gets in for so long, and whoever is in is thrown out."""
        self._do(f"ALTER DATABASE {self._name} ALLOW_CONNECTIONS false")
        self._do(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self._name}'")
        threading.Timer(seconds, self._do, [f"ALTER DATABASE {self._name} ALLOW_CONNECTIONS true"]).start()

    def _do(self, statement: str) -> None:
        with self._admin.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(statement))


@pytest.fixture
def away(template: Database, database: Database) -> Away:
    """The door to the house's database."""
    return Away(template, database)


@pytest.mark.parametrize("moment", ["after_claim", "after_mark"])
def test_a_database_that_goes_away_before_the_call_costs_neither_a_lapse_nor_a_doubt(
    house: House, away: Away, moment: str
) -> None:
    planned(house, MARIA, JOE)
    sender = house.sender(lambda name: away.goes(1.0) if name == moment else None)
    with pytest.raises(UnavailableError):
        send.send(sender, Lane.DRIP, out_of_time=lambda: False)
    assert house.provider.mailings == []
    assert house.states() == ["PLANNED", "PLANNED"]
    assert house.query("SELECT DISTINCT lapses FROM message") == [(0,)]
    house.send()
    assert sorted(house.provider.addresses()) == [JOE, MARIA]


def test_an_unsubscribe_answered_during_an_outage_binds_the_next_final_check(house: House, tmp_path: Path) -> None:
    planned(house, MARIA, JOE)
    path = spool.path_in(tmp_path)

    def answer(name: str) -> None:
        if name == "after_mark":  # PostgreSQL was away for a moment and is back: this sender never noticed
            spool.append(path, house.query("SELECT min(id) FROM message")[0][0])  # type: ignore[arg-type]

    sender = house.sender(answer, replay=lambda: leave.replay(house.database, path))
    send.send(sender, Lane.DRIP, out_of_time=lambda: False)
    assert house.provider.addresses() == [JOE]
    assert house.messages()[MARIA, "1-first"] == ("SUPPRESSED", "unsubscribed")


def test_a_session_that_the_server_ended_for_standing_still_is_an_outage(database: Database) -> None:
    with pytest.raises(UnavailableError), database.transaction() as connection:  # noqa: PT012
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = '10ms'"))
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        _until(database, f"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})")
        connection.execute(text("SELECT 1"))


def _until(database: Database, claim: str) -> None:
    end = time.monotonic() + 10
    while True:
        with database.transaction() as connection:
            if connection.execute(text(claim)).scalar_one():
                return
        assert time.monotonic() < end, claim


@contextmanager
def at_once(work: Callable[[], None]) -> Iterator[threading.Thread]:
    """Do this in a thread of its own meanwhile."""
    thread = threading.Thread(target=work)
    thread.start()
    yield thread
    thread.join(10)
    assert not thread.is_alive()


def test_stopping_a_campaign_while_it_is_planned_blocks_nobody_for_good(house: House) -> None:
    campaign = house.publish()
    house.enroll(campaign, house.person())
    errors: list[Exception] = []

    def stop() -> None:
        try:
            with house.database.transaction() as connection:
                publish.stop(connection, "pair", actor="test")
        except Exception as error:
            errors.append(error)

    with house.database.transaction() as planner:
        (due,) = enrollments.claim_due(planner, house.wall, 10)
        with at_once(stop) as stopping:
            _wait_for_a_lock(house.database)
            _add_first(planner, due, house)
            planner.commit()
            stopping.join(10)
    assert errors == []
    assert house.states() == ["SKIPPED"]


def _wait_for_a_lock(database: Database) -> None:
    waiting = "FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    _until(database, f"SELECT EXISTS (SELECT {waiting})")


def _add_first(connection: Connection, due: enrollments.Due, house: House) -> None:
    new = messages.NewMessage(
        public_id=house.new_id(),
        enrollment_id=due.id,
        subscriber_id=due.subscriber_id,
        campaign_id=due.campaign.id,
        step_key="1-first",
        lane="drip",
        due_at=house.wall,
    )
    messages.add_planned(connection, [new])
    enrollments.to_mailing(connection, [due.id])


def test_a_message_claimed_in_its_last_moment_is_not_expired_under_its_sender(house: House) -> None:
    house.publish_service()
    person = house.person()
    with house.database.transaction() as connection:
        serve.plan_service(
            connection,
            campaign="booking",
            step_key="booked",
            subscriber_id=person,
            round=1001,
            now=house.wall,
            valid_until=house.wall,
        )
    with house.database.transaction() as claiming:
        # A sender that read the clock just before has the message in its hands, and commits while another expires it.
        (message_id,) = claiming.execute(text("SELECT id FROM message FOR UPDATE")).scalars()

        def expire() -> None:
            with house.database.transaction() as connection:
                resolve.expire(connection, Lane.BOOKING, house.wall)

        with at_once(expire):
            _wait_for_a_lock(house.database)
            row = claiming.execute(text("SELECT campaign_id, version_id FROM enrollment")).one()
            batch_id = batches.open_batch(
                claiming,
                provider="scripted",
                lane="booking",
                campaign_id=row.campaign_id,
                step_key="booked",
                version_id=row.version_id,
                owner=house.owner,
                nonce=house.new_id(),
                lease_seconds=60,
                message_ids=[message_id],
            )
            messages.to_batch(claiming, [message_id], batch_id)
            claiming.commit()
    assert house.states() == ["IN_BATCH"]
    assert house.enrolled()[0][0] == "mailing"


def test_a_version_that_cannot_be_read_keeps_no_other_campaign_waiting(house: House) -> None:
    planned(house)
    other = house.publish("other")
    house.enroll(other, house.person(JOE))
    house.plan()
    with house.database.transaction() as connection:
        connection.execute(text("ALTER TABLE campaign_version DISABLE TRIGGER immutable"))
        connection.execute(
            text(
                "UPDATE campaign_version SET definition = definition - 'campaigns/pair/1-first.md'"
                " WHERE definition ? 'campaigns/pair/1-first.md'"
            )
        )
        connection.execute(text("ALTER TABLE campaign_version ENABLE TRIGGER immutable"))
    house.versions = type(house.versions)()
    house.send()
    assert house.provider.addresses() == [JOE]


def test_a_pass_of_the_bell_itself_is_no_sign_that_its_worker_hears(database: Database) -> None:
    bell, child = Owner("host", "boot", 1), Owner("host", "boot", 2)
    with database.transaction() as connection:
        workers.passed(connection, "drip", bell, progress=True)
        assert workers.silent_for(connection, "drip") < 60
        assert workers.silent_for(connection, "drip", "plan", besides=bell) == float("inf")
        workers.passed(connection, "plan", child, progress=False)
        assert workers.silent_for(connection, "drip", "plan", besides=bell) < 60
