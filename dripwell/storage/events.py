"""What the provider told us: the inbox of raw webhooks, and the events read out of it, in sets.

Every statement here takes thousands of rows at once: an event costs a place in an array, not a question of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from dripwell.storage.database import Connection

QUARANTINE = 3
"""A webhook that could not be read so many times is set aside."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """One event about to be recorded. `detail` is the provider's own object, made fit for jsonb."""

    dedupe: str
    event_id: str
    message_id: int | None
    batch_id: int | None
    kind: str
    at: datetime
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Webhook:
    """One webhook in the inbox, without what it says. `size` is bytes; `received_at` is wall time."""

    id: int
    state: str
    tries: int
    size: int
    received_at: datetime
    error: str | None


# put_inbox: byte for byte.
_PUT_INBOX = text("INSERT INTO webhook_inbox (raw) VALUES (:raw) RETURNING id")


def put_inbox(connection: Connection, raw: bytes) -> int:
    """Keep one webhook exactly as it came; it is read later."""
    found: int = connection.execute(_PUT_INBOX, {"raw": raw}).scalar_one()
    return found


# claim_inbox: hold the oldest unread webhooks; other readers skip them.
_CLAIM_INBOX = text("""
SELECT id, octet_length(raw) AS size
  FROM webhook_inbox
 WHERE state = 'new'
 ORDER BY id
 LIMIT :limit
   FOR UPDATE SKIP LOCKED
""")
_RAW = text("SELECT id, raw FROM webhook_inbox WHERE id = ANY(:ids) ORDER BY id")


def claim_inbox(connection: Connection, *, limit: int, size: int) -> list[tuple[int, bytes]]:
    """Take the oldest unread webhooks, at least one and together not much over `size` bytes: (id, raw).

    Other readers skip them, and those behind them up to `limit`, until this transaction ends.
    """
    taken: list[int] = []
    for row in connection.execute(_CLAIM_INBOX, {"limit": limit}):
        size -= row.size
        if taken and size < 0:
            break
        taken.append(row.id)
    return [(row.id, bytes(row.raw)) for row in connection.execute(_RAW, {"ids": taken})] if taken else []


# claim_one: one that this reader knows of, if nobody else has it.
_CLAIM_ONE = text("SELECT raw FROM webhook_inbox WHERE id = :id AND state = 'new' FOR UPDATE SKIP LOCKED")


def claim_one(connection: Connection, inbox_id: int) -> bytes | None:
    """Take this webhook; None when it was read meanwhile or somebody else reads it just now."""
    found: bytes | None = connection.execute(_CLAIM_ONE, {"id": inbox_id}).scalar()
    return None if found is None else bytes(found)


# inbox_done: from new only.
_INBOX_DONE = text("UPDATE webhook_inbox SET state = 'done', error = NULL WHERE id = ANY(:ids) AND state = 'new'")


def inbox_done(connection: Connection, inbox_ids: Sequence[int]) -> None:
    """Every event of these webhooks is recorded."""
    connection.execute(_INBOX_DONE, {"ids": list(inbox_ids)})


# inbox_failed: the third failure sets it aside.
_INBOX_FAILED = text("""
UPDATE webhook_inbox
   SET tries = tries + 1, error = :error,
       state = CASE WHEN tries + 1 >= :most THEN 'quarantined' ELSE 'new' END
 WHERE id = :id AND state = 'new'
""")


def inbox_failed(connection: Connection, inbox_id: int, error: str) -> None:
    """Reading failed: after three tries the row is set aside and shown to an operator."""
    connection.execute(_INBOX_FAILED, {"id": inbox_id, "error": error[:500], "most": QUARANTINE})


# batches_told: what events speak of; test mails prove nothing.
_BATCHES_TOLD = text("SELECT id, state, outcome FROM batch WHERE id = ANY(:ids) AND kind = 'messages'")


def batches_told(connection: Connection, batch_ids: Sequence[int]) -> dict[int, Any]:
    """Those of these batches that we know, by id: id, state, outcome."""
    return {row.id: row for row in connection.execute(_BATCHES_TOLD, {"ids": list(batch_ids)})}


# messages_told: public ids are not indexed, so a message is found through the batch that an event names.
_MESSAGES_TOLD = text("""
SELECT batch.id AS batch_id, message.id, message.public_id, message.subscriber_id
  FROM batch
 CROSS JOIN LATERAL unnest(batch.message_ids) AS called (message_id)
  JOIN message ON message.id = called.message_id
 WHERE batch.id = ANY(:batch_ids) AND batch.kind = 'messages' AND message.public_id = ANY(:public_ids)
""")


def messages_told(connection: Connection, pairs: Iterable[tuple[int, UUID]]) -> dict[tuple[int, UUID], Any]:
    """Of these (batch id, message's public id), those that belong together: id, subscriber_id."""
    wanted = set(pairs)
    if not wanted:
        return {}
    values = {"batch_ids": list({batch for batch, _ in wanted}), "public_ids": list({public for _, public in wanted})}
    rows = connection.execute(_MESSAGES_TOLD, values)
    return {key: row for row in rows if (key := (row.batch_id, row.public_id)) in wanted}


# people_told: without our ids an event is about the last email this address got before it. The provider's clock is not
# ours, so five minutes are granted.
_PEOPLE_TOLD = text("""
SELECT told.addr_hash, told.at, subscriber.id AS subscriber_id, latest.id AS message_id, latest.batch_id
  FROM unnest(CAST(:hashes AS bytea[]), CAST(:ats AS timestamptz[])) AS told (addr_hash, at)
  JOIN subscriber ON subscriber.addr_hash = told.addr_hash
  LEFT JOIN LATERAL (SELECT message.id, message.batch_id
                       FROM message JOIN batch ON batch.id = message.batch_id
                      WHERE message.subscriber_id = subscriber.id AND message.accepted_at IS NOT NULL
                        AND (told.at = 'epoch' OR batch.called_at <= told.at + interval '5 min')
                      ORDER BY message.accepted_at DESC
                      LIMIT 1) AS latest ON true
""")


def people_told(connection: Connection, told: Iterable[tuple[bytes, datetime]]) -> dict[tuple[bytes, datetime], Any]:
    """Whose addresses these are, each with the provider's time (1970: unknown).

    Each has subscriber_id and, of the last email accepted before that time, message_id and batch_id (None: there is
    none). Addresses that nobody has are missing.
    """
    wanted = sorted(set(told))
    if not wanted:
        return {}
    values = {"hashes": [one for one, _ in wanted], "ats": [at for _, at in wanted]}
    return {(bytes(row.addr_hash), row.at): row for row in connection.execute(_PEOPLE_TOLD, values)}


# erased: who of these is a row without a person.
_ERASED = text("SELECT id FROM subscriber WHERE id = ANY(:ids) AND addr_hash IS NULL")


def erased(connection: Connection, subscriber_ids: Sequence[int]) -> set[int]:
    """Which of these people are erased: an event about them finds no hash on their row."""
    if not subscriber_ids:
        return set()
    return set(connection.execute(_ERASED, {"ids": list(subscriber_ids)}).scalars())


# hold_batches: these, and where the messages of the late ones wait now.
_HOLD_BATCHES = text("""
SELECT id
  FROM batch
 WHERE id = ANY(:ids)
    OR id IN (SELECT message.batch_id
                FROM batch AS late
               CROSS JOIN LATERAL unnest(late.message_ids) AS called (message_id)
                JOIN message ON message.id = called.message_id
               WHERE late.id = ANY(:late) AND message.state = 'IN_BATCH')
 ORDER BY id
   FOR UPDATE
""")

# hold_enrollments: of everybody in these batches, and the open ones of these people.
_HOLD_ENROLLMENTS = text("""
SELECT id
  FROM enrollment
 WHERE id IN (SELECT message.enrollment_id
                FROM batch
               CROSS JOIN LATERAL unnest(batch.message_ids) AS called (message_id)
                JOIN message ON message.id = called.message_id
               WHERE batch.id = ANY(:batch_ids)
               UNION ALL
              SELECT passage.id
                FROM enrollment AS passage
               WHERE passage.subscriber_id = ANY(:subscriber_ids) AND passage.state IN ('waiting', 'mailing'))
 ORDER BY id
   FOR UPDATE
""")


def hold(
    connection: Connection, *, batch_ids: Sequence[int], late: Sequence[int], subscriber_ids: Sequence[int]
) -> None:
    """Lock all that this transaction may change, in the one order everybody locks in: batches, then enrollments, by id.

    `late` are those of the batches that are over: where their messages wait now is locked as well.
    """
    if batch_ids:
        connection.execute(_HOLD_BATCHES, {"ids": list(batch_ids), "late": list(late)})
    if batch_ids or subscriber_ids:
        values = {"batch_ids": list(batch_ids), "subscriber_ids": list(subscriber_ids)}
        connection.execute(_HOLD_ENROLLMENTS, values)


# add: the provider repeats itself when we answer late, so an event we hold already is left alone. In the order of the
# key they can collide on, or two readers deadlock. As one document, because arrays of documents are slow to write.
_ADD = text("""
INSERT INTO provider_event (dedupe, sg_event_id, message_id, batch_id, type, at, campaign_at, detail)
SELECT told.dedupe, nullif(told.event_id, ''), told.message_id, told.batch_id, told.kind, told.at, :campaign_at,
       told.detail
  FROM json_to_recordset(CAST(:events AS json))
       AS told (dedupe text, event_id text, message_id bigint, batch_id bigint, kind text, at timestamptz, detail jsonb)
 ORDER BY told.dedupe
    ON CONFLICT (dedupe) DO NOTHING
RETURNING dedupe
""")
_PIECE = 5_000


def add(connection: Connection, new: Sequence[NewEvent], *, campaign_at: datetime) -> set[str]:
    """Record these events; returns the `dedupe` of those we did not hold already.

    PostgreSQL refuses a text with U+0000 or half a surrogate pair, and with it everything in this transaction.
    """
    fresh: set[str] = set()
    ordered = sorted(new, key=lambda event: event.dedupe)
    for place in range(0, len(ordered), _PIECE):
        piece = [
            {
                "dedupe": event.dedupe,
                "event_id": event.event_id,
                "message_id": event.message_id,
                "batch_id": event.batch_id,
                "kind": event.kind,
                "at": event.at.isoformat(),
                "detail": event.detail,
            }
            for event in ordered[place : place + _PIECE]
        ]
        values = {"events": json.dumps(piece, default=str), "campaign_at": campaign_at}
        fresh.update(connection.execute(_ADD, values).scalars())
    return fresh


# move_delivery: only to the right of where it stands. `updated_at` is not touched: it stands in an index of states, and
# a row whose indexed columns stay as they are is changed in place.
_HOLD_MESSAGES = text("SELECT id FROM message WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE")
_MOVE_DELIVERY = text("""
UPDATE message SET delivery = told.after
  FROM unnest(CAST(:ids AS bigint[]), CAST(:afters AS text[])) AS told (id, after)
 WHERE message.id = told.id
   AND (message.delivery IS NULL
        OR array_position(CAST(:precedence AS text[]), message.delivery)
           < array_position(CAST(:precedence AS text[]), told.after))
""")


def move_delivery(connection: Connection, after: Mapping[int, str], precedence: Sequence[str]) -> None:
    """Move `delivery` of each message id forward in `precedence`, never back: events are late and out of order."""
    if after:
        ids = sorted(after)
        connection.execute(_HOLD_MESSAGES, {"ids": ids})
        values = {"ids": ids, "afters": [after[id] for id in ids], "precedence": list(precedence)}
        connection.execute(_MOVE_DELIVERY, values)


# inbox: what waits and what was set aside, oldest first.
_INBOX = text("""
SELECT id, state, tries, octet_length(raw) AS size, received_at, error
  FROM webhook_inbox
 WHERE state = ANY(:states)
 ORDER BY id
 LIMIT :limit
""")


def inbox(connection: Connection, states: Sequence[str], limit: int) -> list[Webhook]:
    """Webhooks in these states, oldest first, `limit` at most."""
    rows = connection.execute(_INBOX, {"states": list(states), "limit": limit})
    return [Webhook(**row._mapping) for row in rows]


# waiting: of all that are not done.
_WAITING = text("SELECT state, count(*) AS webhooks FROM webhook_inbox WHERE state <> 'done' GROUP BY state")


def waiting(connection: Connection) -> dict[str, int]:
    """How many webhooks are unread (`new`) and how many were set aside (`quarantined`)."""
    return {"new": 0, "quarantined": 0} | {row.state: row.webhooks for row in connection.execute(_WAITING)}


# retry: three new tries.
_RETRY = text("""
UPDATE webhook_inbox SET state = 'new', tries = 0
 WHERE state = 'quarantined' AND (CAST(:id AS bigint) IS NULL OR id = :id)
RETURNING id
""")


def retry(connection: Connection, inbox_id: int | None) -> list[int]:
    """Let this webhook that was set aside be read again, or all of them (None); returns which."""
    return sorted(connection.execute(_RETRY, {"id": inbox_id}).scalars())
