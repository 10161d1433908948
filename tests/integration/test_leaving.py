"""Leaving in one statement does what leaving statement by statement does, to everybody it may happen to."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from dripwell.services import leave
from dripwell.storage import clock, leaving, suppressions
from dripwell.storage.database import Connection, Database
from tests.integration import rows

SCOPES = ("all", "marketing", "topic:seven-part-series", "topic:another", "campaign:seven-benefits")
STATES = {"undeliverable": "undeliverable", "complained": "unsubscribed", "unsubscribed": "unsubscribed"}


def life(connection: Connection, address: str, campaigns: dict[str, tuple[int, int]]) -> int:
    """Somebody with an email planned, a series that waits, one that is over, and a service email planned."""
    person = rows.subscriber(connection, address)
    for name, state, message, lane in (
        ("seven-benefits", "mailing", "PLANNED", "newsletter"),
        ("under-way", "waiting", None, "drip"),
        ("over", "finished", "ACCEPTED", "drip"),
        ("notice", "mailing", "PLANNED", "booking"),
    ):
        passage = rows.enrollment(connection, person, *campaigns[name], state=state)
        if message is not None:
            rows.message(connection, passage, state=message, lane=lane)
    return person


def told(connection: Connection, person: int) -> list[object]:
    """Everything that leaving may change, without ids and times that must differ."""
    statements = (
        "SELECT state FROM subscriber WHERE id = :id",
        "SELECT c.name, e.state, e.ended_reason, e.ended_at, e.waits_for FROM enrollment e"
        " JOIN campaign c ON c.id = e.campaign_id WHERE e.subscriber_id = :id ORDER BY c.name",
        "SELECT c.name, m.state, m.reason, m.batch_id IS NULL FROM message m JOIN campaign c ON c.id = m.campaign_id"
        " WHERE m.subscriber_id = :id ORDER BY c.name",
        "SELECT l.transition, l.actor, l.reason FROM message_log l JOIN message m ON m.id = l.message_id"
        " WHERE m.subscriber_id = :id ORDER BY l.id",
        "SELECT x.scope, x.action, x.reason, x.source, x.evidence FROM suppression x"
        " JOIN subscriber s ON s.addr_hash = x.addr_hash WHERE s.id = :id ORDER BY x.seq",
        "SELECT o.kind, o.detail ->> 'scope' FROM outbox o JOIN subscriber s"
        " ON encode(s.addr_hash, 'hex') = o.detail ->> 'addr_hash' WHERE s.id = :id ORDER BY o.id",
    )
    return [[tuple(row) for row in connection.execute(text(one), {"id": person})] for one in statements]


def before(connection: Connection, person: int, scope: str, how: str) -> None:
    """What the ledger knew already."""
    found = suppressions.address_of(connection, person)
    assert found is not None
    assert found[0] is not None
    for action, source in {
        "nothing": (),
        "the same": (("suppress", "provider"),),
        "another source": (("suppress", "page"),),
        "lifted": (("suppress", "provider"), ("lift", "page")),
    }.get(how, ()):
        suppressions.append(
            connection, addr_hash=found[0], scope=scope, action=action, reason="complained", source=source, evidence=""
        )
    if how == "undeliverable":
        connection.execute(text("UPDATE subscriber SET state = 'undeliverable' WHERE id = :id"), {"id": person})


@pytest.mark.parametrize("how", ["nothing", "the same", "another source", "lifted", "undeliverable"])
def test_both_ways_of_leaving_end_alike(database: Database, how: str) -> None:
    with database.transaction() as connection:
        campaigns = {}
        for name, kind in (
            ("seven-benefits", "newsletter"),
            ("under-way", "drip"),
            ("over", "drip"),
            ("notice", "service"),
        ):
            campaign = rows.campaign(connection, name, kind=kind)
            campaigns[name] = (campaign, rows.version(connection, campaign))
        times = clock.read(connection)
        for scope in SCOPES:
            for reason, state in STATES.items():
                one, other = (life(connection, f"{who}.{reason}.{scope[-5:]}@example.com", campaigns) for who in "ab")
                for person in (one, other):
                    before(connection, person, scope, how)
                first = leave.suppress(
                    connection,
                    subscriber_id=one,
                    scope=scope,
                    reason=reason,
                    source="provider",
                    evidence="x" * 600,
                    times=times,
                )
                row = leaving.Leaving(other, scope, reason, "provider", "x" * 600, state)
                (second,) = leaving.suppress(connection, [row], now=times.now)
                assert told(connection, one) == told(connection, other), (scope, reason)
                assert first > 0
                assert second is not None
                assert second > 0
                assert leaving.suppress(connection, [row], now=times.now) == [second]  # once more changes nothing
                assert told(connection, one) == told(connection, other)


def test_nobody_is_none_and_an_erased_person_has_no_row(database: Database) -> None:
    with database.transaction() as connection:
        now = clock.read(connection).now
        gone = rows.subscriber(connection, "gone@example.com")
        connection.execute(
            text("UPDATE subscriber SET state = 'erased', address = NULL, addr_hash = NULL WHERE id = :id"),
            {"id": gone},
        )
        asked = [leaving.Leaving(who, "all", "complained", "provider", "", "unsubscribed") for who in (gone, 999_999)]
        assert leaving.suppress(connection, asked, now=now) == [0, None]
        assert leaving.suppress(connection, [], now=now) == []
        assert connection.execute(text("SELECT count(*) FROM suppression")).scalar() == 0
        assert connection.execute(text("SELECT state FROM subscriber")).scalar() == "erased"
