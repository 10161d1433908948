"""Enrollments: one subscriber's passage through one campaign."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from dripwell.storage.database import Connection


@dataclass(frozen=True, slots=True)
class Due:
    """One enrollment the planner has claimed, with what a decision needs of its own row."""

    id: int
    subscriber_id: int
    campaign_id: int
    campaign_name: str
    campaign_public_id: UUID
    newest_version_id: int
    version_id: int
    round: int
    cursor_key: str | None
    joined_at: datetime
    anchor_at: datetime
    message_id: int | None = None  # T16: the planned message that is decided again


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a decision needs of everything around an enrollment."""

    public_id: UUID
    addr_hash: bytes | None
    state: str
    timezone: str | None
    fields: Mapping[str, Any]
    tags: tuple[str, ...]
    pace: str
    paused_until: datetime | None
    accepted: tuple[datetime, ...]
    open_message_id: int | None
    deferred_at: datetime | None
    events: tuple[tuple[str, datetime], ...]
    active_in: tuple[str, ...]


_DUE = (
    "e.id, e.subscriber_id, e.campaign_id, c.name AS campaign_name, c.public_id AS campaign_public_id,"
    " c.version_id AS newest_version_id, e.version_id, e.round, e.cursor_key, e.joined_at, e.anchor_at"
)


def add(
    connection: Connection, *, subscriber_ids: Sequence[int], campaign_id: int, version_id: int, now: datetime
) -> list[int]:
    """Enroll these people in round 1 unless they ever were; returns the new enrollments' ids. Idempotent by key."""
    rows = connection.execute(
        text(
            "INSERT INTO enrollment (subscriber_id, campaign_id, version_id, joined_at, anchor_at, next_due_at)"
            " SELECT id, :campaign, :version, :now, :now, :now FROM unnest(CAST(:ids AS bigint[])) AS id ORDER BY id"
            " ON CONFLICT (subscriber_id, campaign_id, round) DO NOTHING RETURNING id"
        ),
        {"ids": list(subscriber_ids), "campaign": campaign_id, "version": version_id, "now": now},
    )
    return [row.id for row in rows]


def add_service(
    connection: Connection, *, subscriber_id: int, campaign_id: int, version_id: int, round: int, now: datetime
) -> tuple[int, UUID, bytes | None]:
    """Enroll one person in a service campaign for this round, already mailing, or find the enrollment that is there.

    Returns (enrollment id, the subscriber's public id, address hash).
    """
    values = {"subscriber": subscriber_id, "campaign": campaign_id, "version": version_id, "round": round, "now": now}
    connection.execute(
        text(
            "INSERT INTO enrollment (subscriber_id, campaign_id, version_id, round, state, joined_at, anchor_at, next_due_at)"
            " VALUES (:subscriber, :campaign, :version, :round, 'mailing', :now, :now, :now)"
            " ON CONFLICT (subscriber_id, campaign_id, round) DO NOTHING"
        ),
        values,
    )
    row = connection.execute(
        text(
            "SELECT e.id, s.public_id, s.addr_hash FROM enrollment e JOIN subscriber s ON s.id = e.subscriber_id"
            " WHERE e.subscriber_id = :subscriber AND e.campaign_id = :campaign AND e.round = :round"
        ),
        values,
    ).one()
    return row.id, row.public_id, bytes(row.addr_hash) if row.addr_hash is not None else None


def claim_due(connection: Connection, now: datetime, limit: int) -> list[Due]:
    """Hand at most `limit` due enrollments of running campaigns to this planner; other planners skip them."""
    rows = connection.execute(
        text(
            f"SELECT {_DUE} FROM enrollment e JOIN campaign c ON c.id = e.campaign_id"
            " WHERE e.state = 'waiting' AND e.next_due_at <= :now AND c.state = 'running'"
            " ORDER BY e.next_due_at, e.id LIMIT :limit FOR UPDATE OF e SKIP LOCKED"
        ),
        {"now": now, "limit": limit},
    )
    return [Due(**row._mapping) for row in rows]


def claim_stale(connection: Connection, now: datetime, limit: int) -> list[Due]:
    """Hand over enrollments whose planned marketing message is no longer fresh, to be decided again (T16)."""
    rows = connection.execute(
        text(
            f"SELECT {_DUE}, m.id AS message_id FROM message m"
            " JOIN enrollment e ON e.id = m.enrollment_id JOIN campaign c ON c.id = e.campaign_id"
            " WHERE m.state = 'PLANNED' AND m.lane IN ('drip', 'newsletter') AND m.fresh_until <= :now"
            "   AND c.state = 'running' AND e.state = 'mailing'"
            " ORDER BY e.id LIMIT :limit FOR UPDATE OF e SKIP LOCKED"
        ),
        {"now": now, "limit": limit},
    )
    return [Due(**row._mapping) for row in rows]


def circumstances(connection: Connection, subscriber_ids: Sequence[int], since: datetime) -> dict[int, Circumstances]:
    """Read what surrounds these people, in one set: acceptances and events back to `since` (campaign time)."""
    rows = connection.execute(
        text(
            "SELECT s.id, s.public_id, s.addr_hash, s.state, s.timezone, s.fields, s.tags, s.pace, s.paused_until,"
            "  ARRAY(SELECT m.accepted_at FROM message m WHERE m.subscriber_id = s.id AND m.accepted_at > :since"
            "        AND m.lane IN ('drip', 'newsletter') ORDER BY m.accepted_at) AS accepted,"
            "  (SELECT m.id FROM message m WHERE m.subscriber_id = s.id AND m.state IN ('PLANNED', 'IN_BATCH')"
            "        AND m.lane IN ('drip', 'newsletter') LIMIT 1) AS open_message_id,"
            "  (SELECT CASE WHEN l.delivery = 'deferred' THEN l.accepted_at END FROM"
            "        (SELECT m.delivery, m.accepted_at FROM message m WHERE m.subscriber_id = s.id"
            "         AND m.accepted_at IS NOT NULL AND m.lane IN ('drip', 'newsletter')"
            "         ORDER BY m.accepted_at DESC LIMIT 1) AS l) AS deferred_at,"
            "  (SELECT coalesce(jsonb_object_agg(h.event, h.last), '{}') FROM (SELECT event, max(at) AS last FROM happening"
            "        WHERE subscriber_id = s.id GROUP BY event) AS h) AS events,"
            "  ARRAY(SELECT c.name FROM enrollment e JOIN campaign c ON c.id = e.campaign_id"
            "        WHERE e.subscriber_id = s.id AND e.state IN ('waiting', 'mailing') AND c.kind <> 'service') AS active_in"
            " FROM subscriber s WHERE s.id = ANY (:ids)"
        ),
        {"ids": list(subscriber_ids), "since": since},
    )
    return {
        row.id: Circumstances(
            public_id=row.public_id,
            addr_hash=bytes(row.addr_hash) if row.addr_hash is not None else None,
            state=row.state,
            timezone=row.timezone,
            fields=row.fields,
            tags=tuple(row.tags),
            pace=row.pace,
            paused_until=row.paused_until,
            accepted=tuple(row.accepted),
            open_message_id=row.open_message_id,
            deferred_at=row.deferred_at,
            events=tuple((event, datetime.fromisoformat(at)) for event, at in row.events.items()),
            active_in=tuple(row.active_in),
        )
        for row in rows
    }


def lock(connection: Connection, enrollment_ids: Iterable[int]) -> None:
    """Lock these enrollments in the order everybody uses: by id, after the batch, before messages."""
    connection.execute(
        text("SELECT id FROM enrollment WHERE id = ANY (:ids) ORDER BY id FOR UPDATE"),
        {"ids": sorted(set(enrollment_ids))},
    )


def wait(connection: Connection, rows: Sequence[tuple[int, datetime, str]]) -> None:
    """Let each (id, until, reason) wait; an enrollment that ended meanwhile is left alone."""
    if rows:
        connection.execute(
            text(
                "UPDATE enrollment e SET next_due_at = v.at, waits_for = v.reason"
                " FROM unnest(CAST(:ids AS bigint[]), CAST(:ats AS timestamptz[]), CAST(:reasons AS text[])) AS v(id, at, reason)"
                " WHERE e.id = v.id AND e.state = 'waiting'"
            ),
            {"ids": [row[0] for row in rows], "ats": [row[1] for row in rows], "reasons": [row[2] for row in rows]},
        )


def to_mailing(connection: Connection, enrollment_ids: Sequence[int]) -> None:
    """These have a planned message now."""
    connection.execute(
        text("UPDATE enrollment SET state = 'mailing', waits_for = NULL WHERE id = ANY (:ids) AND state = 'waiting'"),
        {"ids": list(enrollment_ids)},
    )


def skip_to(connection: Connection, enrollment_id: int, step_key: str, now: datetime) -> None:
    """Put an enrollment behind a step whose key is used up already."""
    connection.execute(
        text(
            "UPDATE enrollment SET cursor_key = :key, anchor_at = :now, next_due_at = :now"
            " WHERE id = :id AND state = 'waiting'"
        ),
        {"id": enrollment_id, "key": step_key, "now": now},
    )


def finish(connection: Connection, enrollment_ids: Sequence[int], now: datetime) -> None:
    """Every step is behind these."""
    connection.execute(
        text(
            "UPDATE enrollment SET state = 'finished', ended_at = :now, waits_for = NULL"
            " WHERE id = ANY (:ids) AND state IN ('waiting', 'mailing')"
        ),
        {"ids": list(enrollment_ids), "now": now},
    )


def leave(connection: Connection, enrollment_ids: Sequence[int], reason: str, now: datetime) -> int:
    """End these with a reason; returns how many were still under way. Their messages are the caller's business."""
    changed = connection.execute(
        text(
            "UPDATE enrollment SET state = 'exited', ended_reason = :reason, ended_at = :now, waits_for = NULL"
            " WHERE id = ANY (:ids) AND state IN ('waiting', 'mailing')"
        ),
        {"ids": list(enrollment_ids), "reason": reason, "now": now},
    )
    return int(changed.rowcount)


def move_on(connection: Connection, rows: Sequence[tuple[int, str]], now: datetime) -> None:
    """A message of each (enrollment id, step key) is terminal: the planner looks next. Service enrollments finish."""
    if not rows:
        return
    parameters = {"ids": [row[0] for row in rows], "keys": [row[1] for row in rows], "now": now}
    connection.execute(
        text(
            "UPDATE enrollment e SET cursor_key = v.key, anchor_at = :now, waits_for = NULL,"
            "  state = CASE WHEN c.kind = 'service' THEN 'finished' ELSE 'waiting' END,"
            "  ended_at = CASE WHEN c.kind = 'service' THEN CAST(:now AS timestamptz) END,"
            "  next_due_at = :now"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:keys AS text[])) AS v(id, key), campaign c"
            " WHERE e.id = v.id AND e.state = 'mailing' AND c.id = e.campaign_id"
        ),
        parameters,
    )


def under_way(connection: Connection, subscriber_id: int, campaign_id: int | None = None) -> list[Any]:
    """The marketing enrollments of one person that have not ended: id, campaign_id, campaign_name, version ids, joined_at."""
    return list(
        connection.execute(
            text(
                "SELECT e.id, e.campaign_id, c.name AS campaign_name, c.version_id AS newest_version_id, e.version_id,"
                "  e.joined_at, e.state FROM enrollment e JOIN campaign c ON c.id = e.campaign_id"
                " WHERE e.subscriber_id = :subscriber AND e.state IN ('waiting', 'mailing') AND c.kind <> 'service'"
                "   AND (CAST(:campaign AS bigint) IS NULL OR e.campaign_id = :campaign) ORDER BY e.id"
            ),
            {"subscriber": subscriber_id, "campaign": campaign_id},
        )
    )


def ids_under_way(connection: Connection, campaign_id: int) -> list[int]:
    """Every enrollment of a campaign that has not ended, by id."""
    rows = connection.execute(
        text("SELECT id FROM enrollment WHERE campaign_id = :id AND state IN ('waiting', 'mailing') ORDER BY id"),
        {"id": campaign_id},
    )
    return [row.id for row in rows]
