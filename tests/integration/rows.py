"""Rows a test starts from, one function a table. Each returns the new row's id and fills in what a test leaves out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from dripwell.core.address import address_hash
from dripwell.storage.database import Connection

PEPPER = b"pepper of the tests, 32 bytes ok"
START = datetime(2026, 11, 2, 17, 0, tzinfo=UTC)
"""A Monday, 9 in the morning in Los Angeles."""


def uuid_of(*parts: object) -> UUID:
    """The same UUID for the same parts, so that no test needs chance."""
    return UUID(bytes=hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:16], version=4)


def subscriber(
    connection: Connection,
    address: str = "maria@example.com",
    *,
    state: str = "active",
    timezone: str | None = "America/Los_Angeles",
    fields: Mapping[str, str] | None = None,
    tags: Sequence[str] = (),
    topics: Sequence[str] = ("seven-part-series",),
    joined_at: datetime = START,
    pepper: bytes = PEPPER,
) -> int:
    """A person, with consent to `topics`."""
    identity: int = connection.execute(
        text(
            "INSERT INTO subscriber (public_id, address, addr_hash, state, timezone, fields, tags, joined_at)"
            " VALUES (:public_id, :address, :addr_hash, :state, :timezone, CAST(:fields AS jsonb), :tags, :joined_at)"
            " RETURNING id"
        ),
        {
            "public_id": uuid_of("subscriber", address),
            "address": address,
            "addr_hash": address_hash(pepper, address),
            "state": state,
            "timezone": timezone,
            "fields": json.dumps({"first_name": "Maria"} if fields is None else dict(fields)),
            "tags": list(tags),
            "joined_at": joined_at,
        },
    ).scalar_one()
    for topic in topics:
        connection.execute(
            text(
                "INSERT INTO consent (subscriber_id, topic, action, source, wording, given_at)"
                " VALUES (:id, :topic, 'give', 'test', 'Email me.', :at)"
            ),
            {"id": identity, "topic": topic, "at": joined_at},
        )
    return identity


def campaign(
    connection: Connection,
    name: str = "seven-benefits",
    *,
    kind: str = "drip",
    state: str = "running",
    topic: str = "seven-part-series",
) -> int:
    """A campaign without a version."""
    identity: int = connection.execute(
        text(
            "INSERT INTO campaign (public_id, name, kind, state, topic)"
            " VALUES (:public_id, :name, :kind, :state, :topic) RETURNING id"
        ),
        {"public_id": uuid_of("campaign", name), "name": name, "kind": kind, "state": state, "topic": topic},
    ).scalar_one()
    return identity


def version(
    connection: Connection,
    campaign_id: int,
    *,
    number: int = 1,
    definition: Mapping[str, Any] | None = None,
    links: Mapping[str, Sequence[str]] | None = None,
) -> int:
    """A version, made the current one. `links`: step key -> targets, numbered from 0."""
    identity: int = connection.execute(
        text(
            "INSERT INTO campaign_version (campaign_id, number, definition, structure_hash, content_hash, applied_by)"
            " VALUES (:campaign_id, :number, CAST(:definition AS jsonb), 's', 'c', 'test') RETURNING id"
        ),
        {"campaign_id": campaign_id, "number": number, "definition": json.dumps(dict(definition or {}))},
    ).scalar_one()
    connection.execute(
        text("UPDATE campaign SET version_id = :version WHERE id = :id"), {"version": identity, "id": campaign_id}
    )
    for step_key, targets in (links or {}).items():
        for index, target in enumerate(targets):
            connection.execute(
                text(
                    "INSERT INTO link (version_id, step_key, number, target) VALUES (:version, :step, :number, :target)"
                ),
                {"version": identity, "step": step_key, "number": index, "target": target},
            )
    return identity


def enrollment(
    connection: Connection,
    subscriber_id: int,
    campaign_id: int,
    version_id: int,
    *,
    round: int = 1,
    state: str = "waiting",
    cursor_key: str | None = None,
    at: datetime = START,
    ended_reason: str | None = None,
) -> int:
    """One person's passage through one campaign."""
    over = state in ("finished", "exited")
    identity: int = connection.execute(
        text(
            "INSERT INTO enrollment (subscriber_id, campaign_id, round, version_id, state, cursor_key,"
            " joined_at, anchor_at, next_due_at, ended_reason, ended_at)"
            " VALUES (:subscriber, :campaign, :round, :version, :state, :cursor, :at, :at, :at, :reason, :ended)"
            " RETURNING id"
        ),
        {
            "subscriber": subscriber_id,
            "campaign": campaign_id,
            "round": round,
            "version": version_id,
            "state": state,
            "cursor": cursor_key,
            "at": at,
            "reason": ended_reason,
            "ended": at if over else None,
        },
    ).scalar_one()
    return identity


def batch(
    connection: Connection,
    campaign_id: int,
    version_id: int,
    *,
    step_key: str = "adaptability",
    lane: str = "drip",
    state: str = "DONE",
    outcome: str | None = "accepted",
    message_ids: Sequence[int] = (),
    at: datetime = START,
) -> int:
    """One call to the provider; an accepted one unless the test says otherwise."""
    identity: int = connection.execute(
        text(
            "INSERT INTO batch (provider, lane, campaign_id, step_key, version_id, state, outcome, owner_nonce, host,"
            " boot_id, pid, lease_until, called_at, message_ids)"
            " VALUES ('sandbox', :lane, :campaign, :step, :version, :state, :outcome, :nonce, 'host', 'boot', 1,"
            " :lease, :called, :ids) RETURNING id"
        ),
        {
            "lane": lane,
            "campaign": campaign_id,
            "step": step_key,
            "version": version_id,
            "state": state,
            "outcome": outcome,
            "nonce": uuid_of("batch", campaign_id, step_key, *message_ids),
            "lease": at + timedelta(minutes=1),
            "called": None if state == "OPEN" else at,
            "ids": list(message_ids),
        },
    ).scalar_one()
    return identity


def message(
    connection: Connection,
    enrollment_id: int,
    *,
    step_key: str = "adaptability",
    lane: str = "drip",
    state: str = "ACCEPTED",
    batch_id: int | None = None,
    reason: str | None = None,
    at: datetime = START,
) -> int:
    """One message. An ACCEPTED or IN_BATCH one gets a batch of its own if none is given."""
    row = connection.execute(
        text(
            "SELECT e.subscriber_id, e.campaign_id, e.version_id, s.addr_hash FROM enrollment e"
            " JOIN subscriber s ON s.id = e.subscriber_id WHERE e.id = :id"
        ),
        {"id": enrollment_id},
    ).one()
    makes_batch = batch_id is None and state in ("ACCEPTED", "IN_BATCH")
    if makes_batch:
        calling = state == "IN_BATCH"
        batch_id = batch(
            connection,
            row.campaign_id,
            row.version_id,
            step_key=step_key,
            lane=lane,
            state="CALLING" if calling else "DONE",
            outcome=None if calling else "accepted",
            at=at,
        )
    identity: int = connection.execute(
        text(
            "INSERT INTO message (public_id, enrollment_id, subscriber_id, campaign_id, step_key, lane, state, reason,"
            " batch_id, due_at, addr_hash, accepted_at)"
            " VALUES (:public_id, :enrollment, :subscriber, :campaign, :step, :lane, :state, :reason, :batch, :at,"
            " :addr_hash, :accepted) RETURNING id"
        ),
        {
            "public_id": uuid_of("message", enrollment_id, step_key),
            "enrollment": enrollment_id,
            "subscriber": row.subscriber_id,
            "campaign": row.campaign_id,
            "step": step_key,
            "lane": lane,
            "state": state,
            "reason": reason or (state.lower() if state in ("REJECTED", "SUPPRESSED", "SKIPPED", "HELD") else None),
            "batch": batch_id,
            "at": at,
            "addr_hash": row.addr_hash,
            "accepted": at if state == "ACCEPTED" else None,
        },
    ).scalar_one()
    if makes_batch:
        connection.execute(
            text("UPDATE batch SET message_ids = ARRAY[CAST(:message AS bigint)] WHERE id = :id"),
            {"message": identity, "id": batch_id},
        )
    return identity


def everything(connection: Connection) -> dict[str, list[str]]:
    """Every row of every table, so that a test can show that nothing changed."""
    tables = connection.execute(
        text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
    ).scalars()
    return {
        table: sorted(connection.exec_driver_sql(f'SELECT CAST(to_jsonb(one) AS text) FROM "{table}" AS one').scalars())
        for table in list(tables)
    }
