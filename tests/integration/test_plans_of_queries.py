"""The statements that run all day read an index and no more of it than they need, however much lies around it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, text

from dripwell.storage import enrollments, messages
from dripwell.storage.database import Connection, Database
from tests.integration import rows

PEOPLE = 20_000
NOW = rows.START
INDEXES = ("enrollment_due", "message_claim", "message_stale")
_PEOPLE = text("""
INSERT INTO subscriber (public_id, address, addr_hash, state, timezone, joined_at)
SELECT CAST(md5(n::text) AS uuid), n || '@example.com', sha256(CAST(n::text AS bytea)), 'active', 'UTC', :now
  FROM generate_series(1, :people) AS n
""")
_ENROLLMENTS = text("""
INSERT INTO enrollment (subscriber_id, campaign_id, version_id, state, joined_at, anchor_at, next_due_at, ended_at)
SELECT n, :campaign, :version, :state, :now, :now, :due,
       CASE WHEN :state = 'finished' THEN CAST(:now AS timestamptz) END
  FROM generate_series(1, :people) AS n
""")
_MESSAGES = text("""
INSERT INTO message (public_id, enrollment_id, subscriber_id, campaign_id, step_key, lane, state, reason, due_at,
                     fresh_until)
SELECT CAST(md5(id || :key) AS uuid), id, subscriber_id, campaign_id, :key, 'drip', :state,
       CASE WHEN :state = 'SKIPPED' THEN 'render' END, :due, :fresh
  FROM enrollment WHERE campaign_id = :campaign
""")


@pytest.fixture
def record(database: Database) -> Iterator[Connection]:
    """A record with 20,000 people in it; everything happens in one transaction."""
    with database.transaction() as connection:
        connection.execute(_PEOPLE, {"people": PEOPLE, "now": NOW})
        yield connection


def campaign(connection: Connection, name: str, *, paused: bool = False) -> dict[str, int]:
    identity = rows.campaign(connection, name, state="paused" if paused else "running")
    return {"campaign": identity, "version": rows.version(connection, identity)}


def enroll(
    connection: Connection, where: dict[str, int], *, state: str = "waiting", people: int = PEOPLE, hours: int = -1
) -> None:
    """So many people in this campaign, due that many hours from now."""
    due = NOW + timedelta(hours=hours)
    connection.execute(_ENROLLMENTS, {**where, "state": state, "people": people, "now": NOW, "due": due})


def message(connection: Connection, where: dict[str, int], *, state: str, key: str = "first", hours: int = -1) -> None:
    """An email for everybody in this campaign, due an hour ago and fresh for that many hours."""
    due, fresh = NOW - timedelta(hours=1), NOW + timedelta(hours=hours)
    connection.execute(_MESSAGES, {**where, "state": state, "key": key, "due": due, "fresh": fresh})


def explained(connection: Connection, work: Callable[[], object]) -> tuple[set[str], set[str], int]:
    """(tables read from end to end, indexes used, pages touched) by every statement that `work` runs."""
    connection.execute(text("ANALYZE"))
    statements: list[tuple[str, Any]] = []

    def listen(_: object, __: object, statement: str, parameters: Any, *___: object) -> None:
        statements.append((statement, parameters))

    event.listen(connection.engine, "before_cursor_execute", listen)
    try:
        work()
    finally:
        event.remove(connection.engine, "before_cursor_execute", listen)
    assert statements, "nothing was asked"
    whole: set[str] = set()
    used: set[str] = set()
    pages = 0
    session = connection.connection.dbapi_connection
    assert session is not None
    for statement, parameters in statements:
        cursor = session.cursor()
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters)
        (answer,) = cursor.fetchone() or ((),)
        plan = (json.loads(answer) if isinstance(answer, str) else answer)[0]["Plan"]
        pages += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
        for node in _nodes(plan):
            used |= {node["Index Name"]} if "Index Name" in node else set()
            whole |= {node["Relation Name"]} if node["Node Type"] == "Seq Scan" else set()
    return whole - {"campaign"}, used, pages


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def test_a_pick_walks_along_the_index_of_who_is_due(record: Connection) -> None:
    where = campaign(record, "pair")
    enroll(record, where)
    whole, used, pages = explained(record, lambda: enrollments.claim_due(record, NOW, 100))
    assert whole == set()
    assert used == {"enrollment_due"}
    assert pages < 1000
    assert len(enrollments.claim_due(record, NOW, 100)) == 100


def test_people_due_in_a_paused_campaign_are_never_read_past(record: Connection) -> None:
    enroll(record, campaign(record, "asleep", paused=True), hours=-48)
    where = campaign(record, "pair")
    enroll(record, where, people=1)
    whole, used, pages = explained(record, lambda: enrollments.claim_due(record, NOW, 1000))
    assert (whole, used) == (set(), {"enrollment_due"})
    assert pages < 40
    assert [due.campaign.name for due in enrollments.claim_due(record, NOW, 1000)] == ["pair"]


def test_the_campaign_whose_people_have_waited_longest_is_picked_first_and_the_slice_is_filled(
    record: Connection,
) -> None:
    enroll(record, campaign(record, "late"), people=30, hours=-2)
    enroll(record, campaign(record, "later"), people=30, hours=-3)
    enroll(record, campaign(record, "future"), people=30, hours=3)
    names = [due.campaign.name for due in enrollments.claim_due(record, NOW, 50)]
    assert names == ["later"] * 30 + ["late"] * 20


def test_a_pass_goes_on_where_its_last_slice_ended(record: Connection) -> None:
    where = campaign(record, "pair")
    enroll(record, where, people=50)
    first = enrollments.claim_due(record, NOW, 20)
    reached = {where["campaign"]: (first[-1].next_due_at, first[-1].id)}
    rest = enrollments.claim_due(record, NOW, 1000, reached)
    assert sorted(due.id for due in (*first, *rest)) == sorted(
        {due.id for due in enrollments.claim_due(record, NOW, 99)}
    )
    assert len(rest) == 30


def test_dead_rows_behind_a_pass_are_not_read_again(record: Connection) -> None:
    where = campaign(record, "pair")
    enroll(record, where, people=5000)
    gone = enrollments.claim_due(record, NOW, 4000)
    enrollments.to_mailing(record, [due.id for due in gone])
    reached = {where["campaign"]: (gone[-1].next_due_at, gone[-1].id)}
    _, _, anew = explained(record, lambda: enrollments.claim_due(record, NOW, 10))
    whole, used, onward = explained(record, lambda: enrollments.claim_due(record, NOW, 10, reached))
    assert (whole, used) == (set(), {"enrollment_due"})
    assert 3 * onward < anew


def test_stale_emails_are_found_by_an_index_and_those_of_a_paused_campaign_are_not_read_past(
    record: Connection,
) -> None:
    asleep, where = campaign(record, "asleep", paused=True), campaign(record, "pair")
    enroll(record, asleep, state="mailing", people=10_000)
    message(record, asleep, state="PLANNED")
    enroll(record, where, state="mailing")
    record.execute(text("DELETE FROM enrollment WHERE campaign_id = :campaign AND subscriber_id <= 10000"), where)
    message(record, where, state="PLANNED", hours=1)
    newest = text("UPDATE message SET fresh_until = :now WHERE id = (SELECT max(id) FROM message)")
    record.execute(newest, {"now": NOW})
    whole, used, pages = explained(record, lambda: enrollments.claim_stale(record, NOW, 1000))
    assert whole == set()
    assert used == {"message_stale", "enrollment_pkey"}
    assert pages < 40
    assert [due.campaign.name for due in enrollments.claim_stale(record, NOW, 1000)] == ["pair"]


def test_a_sender_finds_its_groups_and_its_rows_by_the_index_of_what_is_planned(record: Connection) -> None:
    where = campaign(record, "pair")
    past = campaign(record, "past")
    enroll(record, past, state="finished")
    message(record, past, state="SKIPPED")
    enroll(record, where, state="mailing")
    message(record, where, state="PLANNED", hours=1)
    whole, used, pages = explained(record, lambda: messages.groups_due(record, "drip", NOW))
    assert whole == set()
    assert used <= {"message_claim", "message_stale", "campaign_pkey"}
    assert "message_claim" in used
    assert pages < 60
    values = {"lane": "drip", "campaign_id": where["campaign"], "step_key": "first"}
    whole, used, pages = explained(record, lambda: messages.claim(record, **values, now=NOW, limit=100))  # type: ignore[arg-type]
    assert whole == set()
    assert "message_claim" in used
    assert pages < 2000


def test_those_who_came_too_late_are_found_without_reading_all_that_is_planned(record: Connection) -> None:
    where = campaign(record, "pair")
    enroll(record, where, state="mailing")
    message(record, where, state="PLANNED", hours=1)
    whole, used, pages = explained(record, lambda: messages.expired(record, "drip", NOW, 1000))
    assert (whole, used) == (set(), {"message_expiring"})
    assert pages < 5
    record.execute(
        text("UPDATE message SET valid_until = :now WHERE id IN (SELECT id FROM message LIMIT 2)"), {"now": NOW}
    )
    record.execute(
        text("UPDATE message SET valid_until = :now WHERE id = (SELECT max(id) FROM message)"),
        {"now": NOW + timedelta(seconds=1)},
    )
    whole, used, pages = explained(record, lambda: messages.expired(record, "drip", NOW, 1000))
    assert (whole, used) == (set(), {"message_expiring"})
    assert pages < 10
    assert len(messages.expired(record, "drip", NOW, 1000)) == 2
    assert messages.expired(record, "newsletter", NOW + timedelta(seconds=1), 1000) == []
