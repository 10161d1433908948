"""Subscribers, their consent and what has happened to them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from dripwell.storage.database import Connection


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A person with one address. `address` is None once erased."""

    id: int
    public_id: UUID
    address: str | None
    addr_hash: bytes | None
    state: str
    timezone: str | None
    fields: Mapping[str, Any]
    tags: tuple[str, ...]
    pace: str
    paused_until: datetime | None
    joined_at: datetime


_COLUMNS = "id, public_id, address, addr_hash, state, timezone, fields, tags, pace, paused_until, joined_at"


def _row(row: Any) -> Subscriber:
    return Subscriber(**{**row._mapping, "addr_hash": row.addr_hash and bytes(row.addr_hash), "tags": tuple(row.tags)})


def add(
    connection: Connection,
    *,
    public_id: UUID,
    address: str,
    addr_hash: bytes,
    state: str,
    timezone: str | None,
    fields: Mapping[str, Any],
    tags: Sequence[str],
    now: datetime,
) -> int | None:
    """Add a subscriber and return the id, or None when the address is known already."""
    found: int | None = connection.execute(
        text(
            "INSERT INTO subscriber (public_id, address, addr_hash, state, timezone, fields, tags, joined_at)"
            " VALUES (:public_id, :address, :addr_hash, :state, :timezone, CAST(:fields AS jsonb), :tags, :now)"
            " ON CONFLICT (addr_hash) DO NOTHING RETURNING id"
        ),
        {
            "public_id": public_id,
            "address": address,
            "addr_hash": addr_hash,
            "state": state,
            "timezone": timezone,
            "fields": json.dumps(dict(fields)),
            "tags": list(tags),
            "now": now,
        },
    ).scalar()
    return found


def amend(
    connection: Connection, subscriber_id: int, *, timezone: str | None, fields: Mapping[str, Any], tags: Sequence[str]
) -> None:
    """Add fields and tags to a known subscriber; what is not given stays as it is."""
    connection.execute(
        text(
            "UPDATE subscriber SET timezone = coalesce(:timezone, timezone), fields = fields || CAST(:fields AS jsonb),"
            " tags = ARRAY(SELECT DISTINCT unnest(tags || CAST(:tags AS text[])) ORDER BY 1) WHERE id = :id"
        ),
        {"id": subscriber_id, "timezone": timezone, "fields": json.dumps(dict(fields)), "tags": list(tags)},
    )


def by_hash(connection: Connection, addr_hash: bytes) -> Subscriber | None:
    """Find the subscriber with this address."""
    row = connection.execute(
        text(f"SELECT {_COLUMNS} FROM subscriber WHERE addr_hash = :hash"), {"hash": addr_hash}
    ).first()
    return _row(row) if row else None


def known(connection: Connection, hashes: Sequence[bytes]) -> int:
    """How many of these addresses a subscriber has."""
    found: int = connection.execute(
        text("SELECT count(*) FROM subscriber WHERE addr_hash = ANY (:hashes)"), {"hashes": list(hashes)}
    ).scalar_one()
    return found


def by_id(connection: Connection, subscriber_id: int) -> Subscriber | None:
    """Find a subscriber by id."""
    row = connection.execute(text(f"SELECT {_COLUMNS} FROM subscriber WHERE id = :id"), {"id": subscriber_id}).first()
    return _row(row) if row else None


def lock(connection: Connection, subscriber_id: int) -> Subscriber | None:
    """Find a subscriber by id and keep others from changing the row until this transaction ends."""
    row = connection.execute(
        text(f"SELECT {_COLUMNS} FROM subscriber WHERE id = :id FOR UPDATE"), {"id": subscriber_id}
    ).first()
    return _row(row) if row else None


def set_state(connection: Connection, subscriber_id: int, before: Sequence[str], after: str) -> bool:
    """Move the person's state; False when it was none of `before`."""
    changed = connection.execute(
        text("UPDATE subscriber SET state = :after WHERE id = :id AND state = ANY (:before)"),
        {"id": subscriber_id, "before": list(before), "after": after},
    )
    return changed.rowcount == 1


def topics(connection: Connection, subscriber_ids: Sequence[int]) -> dict[int, frozenset[str]]:
    """The topics each of these people agrees to now: the newest row of a topic counts."""
    found: dict[int, set[str]] = {}
    rows = connection.execute(
        text(
            "SELECT DISTINCT ON (subscriber_id, topic) subscriber_id, topic, action FROM consent"
            " WHERE subscriber_id = ANY (:ids) ORDER BY subscriber_id, topic, id DESC"
        ),
        {"ids": list(subscriber_ids)},
    )
    for row in rows:
        if row.action == "give":
            found.setdefault(row.subscriber_id, set()).add(row.topic)
    return {subscriber: frozenset(names) for subscriber, names in found.items()}


def with_topic(connection: Connection, topic: str) -> list[int]:
    """The ids of everybody active whose newest word on this topic is yes."""
    rows = connection.execute(
        text(
            "SELECT s.id FROM subscriber s WHERE s.state = 'active' AND 'give' = (SELECT c.action FROM consent c"
            " WHERE c.subscriber_id = s.id AND c.topic = :topic ORDER BY c.id DESC LIMIT 1) ORDER BY s.id"
        ),
        {"topic": topic},
    )
    return [row.id for row in rows]


def consents(connection: Connection, subscriber_id: int) -> list[Any]:
    """Every consent row of one person, oldest first: topic, action, source, wording, given_at."""
    return list(
        connection.execute(
            text("SELECT topic, action, source, wording, given_at FROM consent WHERE subscriber_id = :id ORDER BY id"),
            {"id": subscriber_id},
        )
    )


def add_happening(connection: Connection, subscriber_id: int, event: str, at: datetime) -> None:
    """Record an event that goals, exits and triggers may ask about."""
    connection.execute(
        text("INSERT INTO happening (subscriber_id, event, at) VALUES (:id, :event, :at)"),
        {"id": subscriber_id, "event": event, "at": at},
    )
