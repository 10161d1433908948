"""Leaving takes effect in the transaction that records it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from dripwell.core.errors import NotFoundError, UnavailableError
from dripwell.services import leave
from dripwell.storage import clock, consents, suppressions
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection, Database
from tests.integration import rows


def _person(connection: Connection) -> tuple[int, dict[str, int]]:
    """One person in a drip (message planned), a newsletter (waiting) and a service campaign (message planned)."""
    person = rows.subscriber(connection)
    found: dict[str, int] = {}
    for name, kind, topic, state in (
        ("seven-benefits", "drip", "seven-part-series", "mailing"),
        ("clinic-notes", "newsletter", "monthly-notes", "waiting"),
        ("booking", "service", "service", "mailing"),
    ):
        campaign = rows.campaign(connection, name, kind=kind, topic=topic)
        version = rows.version(connection, campaign)
        found[name] = rows.enrollment(connection, person, campaign, version, state=state)
    rows.message(connection, found["seven-benefits"], state="PLANNED")
    rows.message(connection, found["booking"], step_key="booked", lane="booking", state="PLANNED")
    return person, found


def _suppress(connection: Connection, person: int, **changes: Any) -> int:
    values: dict[str, Any] = {
        "scope": "marketing",
        "reason": "unsubscribed",
        "source": leave.PAGE,
        "evidence": "one-click",
        "times": clock.read(connection),
    }
    return leave.suppress(connection, subscriber_id=person, **(values | changes))


def _states(connection: Connection) -> dict[str, tuple[str, str | None]]:
    found = connection.execute(
        text(
            "SELECT c.name, e.state, m.state AS message FROM enrollment e JOIN campaign c ON c.id = e.campaign_id"
            " LEFT JOIN message m ON m.enrollment_id = e.id"
        )
    )
    return {row.name: (row.state, row.message) for row in found}


@pytest.mark.parametrize(
    ("scope", "gone"),
    [
        ("marketing", {"seven-benefits", "clinic-notes"}),
        ("topic:seven-part-series", {"seven-benefits"}),
        ("topic:service", set()),
        ("campaign:clinic-notes", {"clinic-notes"}),
        ("campaign:booking", set()),
        ("all", {"seven-benefits", "clinic-notes", "booking"}),
    ],
)
def test_a_suppression_ends_exactly_what_is_in_its_scope(database: Database, scope: str, gone: set[str]) -> None:
    with database.transaction() as connection:
        person, _ = _person(connection)
        before = _states(connection)
        _suppress(connection, person, scope=scope)
        after = _states(connection)
    ended = {"waiting": ("exited", None), "mailing": ("exited", "SUPPRESSED")}
    assert after == {name: ended[state[0]] if name in gone else state for name, state in before.items()}


def test_saying_it_twice_leaves_one_row_and_the_same_number(database: Database) -> None:
    with database.transaction() as connection:
        person, _ = _person(connection)
        first = _suppress(connection, person)
        second = _suppress(connection, person)
        assert first == second
        assert connection.execute(text("SELECT count(*) FROM suppression")).scalar() == 1
        assert connection.execute(text("SELECT count(*) FROM outbox")).scalar() == 1
        assert connection.execute(text("SELECT state FROM subscriber")).scalar() == "unsubscribed"
        logged = connection.execute(text("SELECT transition, actor, reason FROM message_log")).all()
        assert [tuple(row) for row in logged] == [("T15", "page", "unsubscribed")]


def test_a_message_that_a_batch_holds_is_left_to_that_batch(database: Database) -> None:
    with database.transaction() as connection:
        person = rows.subscriber(connection)
        campaign = rows.campaign(connection)
        enrollment = rows.enrollment(connection, person, campaign, rows.version(connection, campaign), state="mailing")
        rows.message(connection, enrollment, state="IN_BATCH")
        _suppress(connection, person)
        assert _states(connection) == {"seven-benefits": ("exited", "IN_BATCH")}


def test_nobody_is_suppressed_for_a_subscriber_that_does_not_exist(database: Database) -> None:
    with database.transaction() as connection, pytest.raises(NotFoundError):
        _suppress(connection, 4711)


def test_undo_lifts_what_the_page_wrote_and_brings_no_series_back(database: Database) -> None:
    with database.transaction() as connection:
        person, _ = _person(connection)
        _suppress(connection, person)
        times = clock.read(connection)
        assert leave.undo(connection, subscriber_id=person, wording="Keep my emails", times=times)
        assert not leave.undo(connection, subscriber_id=person, wording="Keep my emails", times=times)
        addr_hash, state = suppressions.address_of(connection, person) or (None, "")
        assert addr_hash is not None
        assert state == "active"
        assert suppressions.standing(connection, [addr_hash], ["marketing", "all"]) == set()
        assert _states(connection)["seven-benefits"] == ("exited", "SUPPRESSED")
        newest = consents.ledger(connection, person)[-1]
        assert (newest.source, newest.wording) == ("undo", "Keep my emails")


@pytest.mark.parametrize(
    "other",
    [
        {"reason": "complained", "source": "sendgrid", "scope": "all"},
        {"source": "sendgrid"},
        {"source": "operator"},
    ],
)
def test_undo_lifts_nothing_that_anybody_else_wrote(database: Database, other: dict[str, str]) -> None:
    with database.transaction() as connection:
        person, _ = _person(connection)
        _suppress(connection, person, **other)
        _suppress(connection, person)
        times = clock.read(connection)
        assert not leave.can_undo(connection, subscriber_id=person, times=times)
        assert not leave.undo(connection, subscriber_id=person, wording="x", times=times)


def test_undo_slips_behind_no_word_that_is_being_written(database: Database) -> None:
    with database.transaction() as connection:
        person, _ = _person(connection)
        _suppress(connection, person)
        at = clock.read(connection)
    with database.transaction() as writing:
        _suppress(writing, person, source="operator")
        with pytest.raises(UnavailableError), database.transaction() as connection:
            leave.undo(connection, subscriber_id=person, wording="Keep my emails", times=at)
    with database.transaction() as connection:
        assert not leave.undo(connection, subscriber_id=person, wording="Keep my emails", times=at)


def test_undo_is_over_after_a_day(database: Database) -> None:
    with database.transaction() as connection:
        person, _ = _person(connection)
        _suppress(connection, person)
        times = clock.read(connection)
        later = Times(times.wall_now + timedelta(hours=24, minutes=1), times.now)
        assert leave.can_undo(connection, subscriber_id=person, times=times)
        assert not leave.can_undo(connection, subscriber_id=person, times=later)


def test_taking_it_back_twice_at_once_is_once(database: Database) -> None:
    with database.transaction() as connection:
        person, _ = _person(connection)
        _suppress(connection, person)
        before = len(consents.ledger(connection, person))
    ready = threading.Barrier(4)

    def work(connection: Connection) -> bool:
        times = clock.read(connection)
        return leave.undo(connection, subscriber_id=person, wording="Keep my emails", times=times)

    def at_once() -> bool:
        ready.wait(timeout=10)
        return database.retrying(work)

    with ThreadPoolExecutor(4) as pool:
        undone = [future.result(timeout=60) for future in [pool.submit(at_once) for _ in range(4)]]
    assert sorted(undone) == [False, False, False, True]
    with database.transaction() as connection:
        assert connection.execute(text("SELECT count(*) FROM suppression WHERE action = 'lift'")).scalar() == 1
        assert len(consents.ledger(connection, person)) == before + 1


def test_whoever_waits_behind_somebody_taking_it_back_reads_what_they_did(database: Database) -> None:
    with database.transaction() as connection:
        person, _ = _person(connection)
        _suppress(connection, person)
    with ThreadPoolExecutor(1) as pool, database.transaction() as first:
        times = clock.read(first)
        assert leave.undo(first, subscriber_id=person, wording="Keep", times=times)
        second = pool.submit(
            database.retrying,
            lambda connection: leave.undo(connection, subscriber_id=person, wording="Keep", times=times),
        )
        _until_somebody_waits(database)
        first.commit()
        assert second.result(timeout=60) is False


def _until_somebody_waits(database: Database) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with database.transaction() as connection:
            if connection.execute(text("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)")).scalar():
                return
    raise AssertionError("nobody waits for a lock")


def test_a_lift_does_not_wait_for_whoever_writes_the_ledger_for_long(database: Database) -> None:
    with database.transaction() as connection:
        person, _ = _person(connection)
        _suppress(connection, person, scope="all")
        _suppress(connection, person)
        addr_hash, _ = suppressions.address_of(connection, person) or (None, "")
        assert addr_hash is not None

    def lift(connection: Connection) -> list[tuple[bytes, str]]:
        return leave.lift_all(
            connection, addr_hash=addr_hash, reason="a new mailbox", actor="maria", times=clock.read(connection)
        )

    with database.transaction() as connection:
        _suppress(connection, rows.subscriber(connection, "joe@example.com"))  # an import that goes on
        with pytest.raises(UnavailableError, match="try again in a moment"):
            database.retrying(lift)
    assert database.retrying(lift) == [(addr_hash, "all")]


def test_a_dead_address_is_not_made_to_look_merely_unsubscribed(database: Database) -> None:
    with database.transaction() as connection:
        person, _ = _person(connection)
        _suppress(connection, person, scope="all", reason="undeliverable", source="sendgrid")
        _suppress(connection, person)
        assert connection.execute(text("SELECT state FROM subscriber")).scalar() == "undeliverable"


def test_ending_an_enrollment_skips_its_planned_message_and_suppresses_nobody(database: Database) -> None:
    with database.transaction() as connection:
        _, found = _person(connection)
        ids = [found["seven-benefits"], found["clinic-notes"]]
        times = clock.read(connection)
        assert leave.end(connection, enrollment_ids=ids, reason="goal", times=times, actor="page") == 2
        assert leave.end(connection, enrollment_ids=ids, reason="goal", times=times, actor="page") == 0
        assert _states(connection)["seven-benefits"] == ("exited", "SKIPPED")
        assert connection.execute(text("SELECT count(*) FROM suppression")).scalar() == 0
