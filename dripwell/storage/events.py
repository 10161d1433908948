"""What the provider told us: the inbox of raw webhooks and the events read out of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import text

from dripwell.storage.database import Connection

# put_inbox: byte for byte.
_PUT_INBOX = text("INSERT INTO webhook_inbox (raw) VALUES (:raw) RETURNING id")


def put_inbox(connection: Connection, raw: bytes) -> int:
    """Keep one webhook exactly as it came; it is read later."""
    found: int = connection.execute(_PUT_INBOX, {"raw": raw}).scalar_one()
    return found


# claim_inbox: hold the oldest unread webhook; other readers skip it.
_CLAIM_INBOX = text("""
SELECT id, raw
  FROM webhook_inbox
 WHERE state = 'new'
 ORDER BY id
 LIMIT 1
   FOR UPDATE SKIP LOCKED
""")


def claim_inbox(connection: Connection) -> tuple[int, bytes] | None:
    """Take the oldest unread webhook; other readers skip it until this transaction ends."""
    row = connection.execute(_CLAIM_INBOX).first()
    return None if row is None else (row.id, bytes(row.raw))


# inbox_done: from new only.
_INBOX_DONE = text("UPDATE webhook_inbox SET state = 'done' WHERE id = :id AND state = 'new'")


def inbox_done(connection: Connection, inbox_id: int) -> None:
    """Every event of this webhook is recorded."""
    connection.execute(_INBOX_DONE, {"id": inbox_id})


# inbox_failed: the third failure sets it aside.
_INBOX_FAILED = text("""
UPDATE webhook_inbox
   SET tries = tries + 1, error = :error,
       state = CASE WHEN tries >= 2 THEN 'quarantined' ELSE 'new' END
 WHERE id = :id AND state = 'new'
""")


def inbox_failed(connection: Connection, inbox_id: int, error: str) -> None:
    """Reading failed: after three tries the row is set aside and shown to an operator."""
    connection.execute(_INBOX_FAILED, {"id": inbox_id, "error": error[:500]})


# add: the provider repeats itself when we answer late, so an event we hold already is left alone.
_ADD = text("""
INSERT INTO provider_event (dedupe, sg_event_id, message_id, batch_id, type, at, campaign_at, detail)
VALUES (:dedupe, :event_id, :message_id, :batch_id, :kind, :at, :campaign_at, CAST(:detail AS jsonb))
    ON CONFLICT (dedupe) DO NOTHING
RETURNING id
""")


def add(
    connection: Connection,
    *,
    dedupe: str,
    event_id: str,
    message_id: int | None,
    batch_id: int | None,
    kind: str,
    at: datetime,
    campaign_at: datetime,
    detail: Mapping[str, Any],
) -> bool:
    """Record one event; False when we hold it already, which is a success."""
    values = {
        "dedupe": dedupe,
        "event_id": event_id or None,
        "message_id": message_id,
        "batch_id": batch_id,
        "kind": kind,
        "at": at,
        "campaign_at": campaign_at,
        # jsonb cannot hold U+0000, and a provider's words may.
        "detail": json.dumps(dict(detail), default=str).replace("\\u0000", ""),
    }
    return connection.execute(_ADD, values).first() is not None
