"""Subscribers and what has happened to them. What they agreed to is in `consents`."""

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
    relationship: str  # prospect, patient or unknown (rules 5.5)


# add: an address belongs to one person.
_ADD = text("""
INSERT INTO subscriber (public_id, address, addr_hash, state, timezone, fields, tags, joined_at, relationship)
VALUES (:public_id, :address, :addr_hash, :state, :timezone, CAST(:fields AS jsonb), :tags, :now, :relationship)
    ON CONFLICT (addr_hash) DO NOTHING
RETURNING id
""")


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
    relationship: str = "prospect",
) -> int | None:
    """Add a subscriber and return the id, or None when the address is known already."""
    values = {
        "public_id": public_id,
        "address": address,
        "addr_hash": addr_hash,
        "state": state,
        "timezone": timezone,
        "fields": json.dumps(dict(fields)),
        "tags": list(tags),
        "now": now,
        "relationship": relationship,
    }
    found: int | None = connection.execute(_ADD, values).scalar()
    return found


# amend: a field that is given again is replaced; tags only grow; what is unknown here takes back nothing known.
_AMEND = text("""
UPDATE subscriber
   SET timezone = coalesce(:timezone, timezone),
       fields = fields || CAST(:fields AS jsonb),
       tags = ARRAY(SELECT DISTINCT unnest(tags || CAST(:tags AS text[])) ORDER BY 1),
       relationship = CASE WHEN :corrects THEN coalesce(CAST(:relationship AS text), relationship)
                           WHEN relationship = 'patient' THEN relationship
                           ELSE coalesce(nullif(CAST(:relationship AS text), 'unknown'), relationship) END
 WHERE id = :id
""")


def amend(
    connection: Connection,
    subscriber_id: int,
    *,
    timezone: str | None,
    fields: Mapping[str, Any],
    tags: Sequence[str],
    relationship: str | None = None,
    corrects: bool = False,
) -> None:
    """Add fields and tags to a known subscriber; what is not given stays as it is.

    A patient stays one unless this `corrects` a mistake about exactly this person.
    """
    values = {
        "id": subscriber_id,
        "timezone": timezone,
        "fields": json.dumps(dict(fields)),
        "tags": list(tags),
        "relationship": relationship,
        "corrects": corrects,
    }
    connection.execute(_AMEND, values)


# by_hash: whoever has this address.
_BY_HASH = text("""
SELECT id, public_id, address, addr_hash, state, timezone, fields, tags, pace, paused_until, joined_at,
       relationship
  FROM subscriber
 WHERE addr_hash = :addr_hash
""")


def by_hash(connection: Connection, addr_hash: bytes) -> Subscriber | None:
    """Find the subscriber with this address."""
    return _subscriber(connection.execute(_BY_HASH, {"addr_hash": addr_hash}).first())


_ONE = """
SELECT id, public_id, address, addr_hash, state, timezone, fields, tags, pace, paused_until, joined_at,
       relationship
  FROM subscriber
 WHERE id = :id
"""
# lock, lock_out: hold one person's row until the transaction ends; a stronger hold also keeps rows that name them away.
_LOCK = text(_ONE + "FOR NO KEY UPDATE")
_LOCK_OUT = text(_ONE + "FOR UPDATE")


def lock(connection: Connection, subscriber_id: int) -> Subscriber | None:
    """Find a subscriber by id and keep others from changing the row until this transaction ends."""
    return _subscriber(connection.execute(_LOCK, {"id": subscriber_id}).first())


def lock_out(connection: Connection, subscriber_id: int) -> Subscriber | None:
    """As `lock`, and nobody can add a row that names this person meanwhile: no consent, enrollment or message."""
    return _subscriber(connection.execute(_LOCK_OUT, {"id": subscriber_id}).first())


def _subscriber(row: Any | None) -> Subscriber | None:
    if row is None:
        return None
    addr_hash = None if row.addr_hash is None else bytes(row.addr_hash)
    return Subscriber(**{**row._mapping, "addr_hash": addr_hash, "tags": tuple(row.tags)})


# known: counted, not shown.
_KNOWN = text("SELECT count(*) FROM subscriber WHERE addr_hash = ANY(:hashes)")


def known(connection: Connection, hashes: Sequence[bytes]) -> int:
    """How many of these addresses a subscriber has."""
    found: int = connection.execute(_KNOWN, {"hashes": list(hashes)}).scalar_one()
    return found


# patients: whom a campaign mails or would take in: people under way in it, and whoever can be mailed on its topic.
_PATIENTS = text("""
SELECT count(*)
  FROM subscriber
 WHERE subscriber.relationship = 'patient' AND subscriber.state = 'active'
   AND (EXISTS (SELECT FROM enrollment
                 WHERE enrollment.subscriber_id = subscriber.id AND enrollment.campaign_id = :campaign_id
                   AND enrollment.state IN ('waiting', 'mailing'))
        OR 'give' = (SELECT consent.action
                       FROM consent
                      WHERE consent.subscriber_id = subscriber.id AND consent.topic = :topic
                      ORDER BY consent.id DESC
                      LIMIT 1))
""")


def patients(connection: Connection, campaign_id: int, topic: str) -> int:
    """How many patients are in this campaign, or agreed to its topic and may join it."""
    found: int = connection.execute(_PATIENTS, {"campaign_id": campaign_id, "topic": topic}).scalar_one()
    return found


# set_state: only from one of the states the caller has in mind.
_SET_STATE = text("""
UPDATE subscriber SET state = :after
 WHERE id = :id AND state = ANY(:before)
""")


def set_state(connection: Connection, subscriber_id: int, before: Sequence[str], after: str) -> bool:
    """Move the person's state; False when it was none of `before`."""
    values = {"id": subscriber_id, "before": list(before), "after": after}
    return connection.execute(_SET_STATE, values).rowcount == 1


# add_happening: one more row; the same event may happen again, but not under the same id of its sender's.
_ADD_HAPPENING = text("""
INSERT INTO happening (subscriber_id, event, at, sender_id)
VALUES (:subscriber_id, :event, :at, :sender_id)
    ON CONFLICT DO NOTHING
""")


def add_happening(
    connection: Connection, subscriber_id: int, event: str, at: datetime, *, sender_id: str | None = None
) -> bool:
    """Record an event that goals, exits and triggers may ask about; False: known under this id of its sender's."""
    values = {"subscriber_id": subscriber_id, "event": event, "at": at, "sender_id": sender_id}
    return connection.execute(_ADD_HAPPENING, values).rowcount == 1
