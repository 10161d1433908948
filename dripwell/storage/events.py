"""What the provider told us: the inbox of raw webhooks and the events read out of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import text

from dripwell.storage.database import Connection


def put_inbox(connection: Connection, raw: bytes) -> int:
    """Keep one webhook exactly as it came; it is read later."""
    found: int = connection.execute(
        text("INSERT INTO webhook_inbox (raw) VALUES (:raw) RETURNING id"), {"raw": raw}
    ).scalar_one()
    return found


def claim_inbox(connection: Connection) -> tuple[int, bytes] | None:
    """Take the oldest unread webhook; other readers skip it until this transaction ends."""
    row = connection.execute(
        text("SELECT id, raw FROM webhook_inbox WHERE state = 'new' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED")
    ).first()
    return (row.id, bytes(row.raw)) if row else None


def inbox_done(connection: Connection, inbox_id: int) -> None:
    """Every event of this webhook is recorded."""
    connection.execute(
        text("UPDATE webhook_inbox SET state = 'done' WHERE id = :id AND state = 'new'"), {"id": inbox_id}
    )


def inbox_failed(connection: Connection, inbox_id: int, error: str) -> None:
    """Reading failed: after three tries the row is set aside and shown to an operator."""
    connection.execute(
        text(
            "UPDATE webhook_inbox SET tries = tries + 1, error = :error,"
            " state = CASE WHEN tries >= 2 THEN 'quarantined' ELSE 'new' END WHERE id = :id AND state = 'new'"
        ),
        {"id": inbox_id, "error": error[:500]},
    )


def unread(connection: Connection) -> int:
    """How many webhooks wait to be read."""
    found: int = connection.execute(text("SELECT count(*) FROM webhook_inbox WHERE state = 'new'")).scalar_one()
    return found


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
    row = connection.execute(
        text(
            "INSERT INTO provider_event (dedupe, sg_event_id, message_id, batch_id, type, at, campaign_at, detail)"
            " VALUES (:dedupe, :event, :message, :batch, :type, :at, :campaign_at, CAST(:detail AS jsonb))"
            " ON CONFLICT (dedupe) DO NOTHING RETURNING id"
        ),
        {
            "dedupe": dedupe,
            "event": event_id or None,
            "message": message_id,
            "batch": batch_id,
            "type": kind,
            "at": at,
            "campaign_at": campaign_at,
            "detail": json.dumps(dict(detail), default=str).replace("\\u0000", ""),
        },
    ).first()
    return row is not None
