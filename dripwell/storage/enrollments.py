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


# add: round 1 for everybody who never was in this campaign, due at once.
_ADD = text("""
INSERT INTO enrollment (subscriber_id, campaign_id, version_id, joined_at, anchor_at, next_due_at)
SELECT id, :campaign_id, :version_id, :now, :now, :now
  FROM unnest(CAST(:subscriber_ids AS bigint[])) AS id
 ORDER BY id
    ON CONFLICT (subscriber_id, campaign_id, round) DO NOTHING
RETURNING id
""")


def add(
    connection: Connection, *, subscriber_ids: Sequence[int], campaign_id: int, version_id: int, now: datetime
) -> list[int]:
    """Enroll these people in round 1 unless they ever were; returns the new enrollments' ids. Idempotent by key."""
    values = {
        "subscriber_ids": list(subscriber_ids),
        "campaign_id": campaign_id,
        "version_id": version_id,
        "now": now,
    }
    return list(connection.execute(_ADD, values).scalars())


# add_service: a service email is planned together with its enrollment, so this starts as mailing.
_ADD_SERVICE = text("""
INSERT INTO enrollment (subscriber_id, campaign_id, version_id, round, state, joined_at, anchor_at, next_due_at)
VALUES (:subscriber_id, :campaign_id, :version_id, :round, 'mailing', :now, :now, :now)
    ON CONFLICT (subscriber_id, campaign_id, round) DO NOTHING
""")

# service: the one that was just added, or that was there before.
_SERVICE = text("""
SELECT enrollment.id, subscriber.public_id, subscriber.addr_hash
  FROM enrollment JOIN subscriber ON subscriber.id = enrollment.subscriber_id
 WHERE enrollment.subscriber_id = :subscriber_id AND enrollment.campaign_id = :campaign_id
   AND enrollment.round = :round
""")


def add_service(
    connection: Connection, *, subscriber_id: int, campaign_id: int, version_id: int, round: int, now: datetime
) -> tuple[int, UUID, bytes | None]:
    """Enroll one person in a service campaign for this round, already mailing, or find the enrollment that is there.

    Returns (enrollment id, the subscriber's public id, address hash).
    """
    key = {"subscriber_id": subscriber_id, "campaign_id": campaign_id, "round": round}
    connection.execute(_ADD_SERVICE, {**key, "version_id": version_id, "now": now})
    row = connection.execute(_SERVICE, key).one()
    return row.id, row.public_id, None if row.addr_hash is None else bytes(row.addr_hash)


# claim_due: hold due enrollments, those who have waited longest first; other planners skip them.
_CLAIM_DUE = text("""
SELECT enrollment.id, enrollment.subscriber_id, enrollment.campaign_id, campaign.name AS campaign_name,
       campaign.public_id AS campaign_public_id, campaign.version_id AS newest_version_id, enrollment.version_id,
       enrollment.round, enrollment.cursor_key, enrollment.joined_at, enrollment.anchor_at
  FROM enrollment JOIN campaign ON campaign.id = enrollment.campaign_id
 WHERE enrollment.state = 'waiting' AND enrollment.next_due_at <= :now AND campaign.state = 'running'
 ORDER BY enrollment.next_due_at, enrollment.id
 LIMIT :limit
   FOR UPDATE OF enrollment SKIP LOCKED
""")


def claim_due(connection: Connection, now: datetime, limit: int) -> list[Due]:
    """Hand at most `limit` due enrollments of running campaigns to this planner; other planners skip them."""
    return [Due(**row._mapping) for row in connection.execute(_CLAIM_DUE, {"now": now, "limit": limit})]


# claim_stale (T16): hold enrollments whose planned email was decided too long ago to be sent on that word.
_CLAIM_STALE = text("""
SELECT enrollment.id, enrollment.subscriber_id, enrollment.campaign_id, campaign.name AS campaign_name,
       campaign.public_id AS campaign_public_id, campaign.version_id AS newest_version_id, enrollment.version_id,
       enrollment.round, enrollment.cursor_key, enrollment.joined_at, enrollment.anchor_at,
       message.id AS message_id
  FROM message
  JOIN enrollment ON enrollment.id = message.enrollment_id
  JOIN campaign ON campaign.id = enrollment.campaign_id
 WHERE message.state = 'PLANNED' AND message.lane IN ('drip', 'newsletter') AND message.fresh_until <= :now
   AND campaign.state = 'running' AND enrollment.state = 'mailing'
 ORDER BY enrollment.id
 LIMIT :limit
   FOR UPDATE OF enrollment SKIP LOCKED
""")


def claim_stale(connection: Connection, now: datetime, limit: int) -> list[Due]:
    """Hand over enrollments whose planned marketing message is no longer fresh, to be decided again (T16)."""
    return [Due(**row._mapping) for row in connection.execute(_CLAIM_STALE, {"now": now, "limit": limit})]


# circumstances: in this order, what was accepted lately, the one open message, when the last one was accepted if it
# is deferred still, the last time of each event, and the campaigns each person is in. Service mail counts nowhere.
_CIRCUMSTANCES = text("""
SELECT subscriber.id, subscriber.public_id, subscriber.addr_hash, subscriber.state, subscriber.timezone,
       subscriber.fields, subscriber.tags, subscriber.pace, subscriber.paused_until,
       ARRAY(SELECT message.accepted_at
               FROM message
              WHERE message.subscriber_id = subscriber.id AND message.accepted_at > :since
                AND message.lane IN ('drip', 'newsletter')
              ORDER BY message.accepted_at) AS accepted,
       (SELECT message.id
          FROM message
         WHERE message.subscriber_id = subscriber.id AND message.state IN ('PLANNED', 'IN_BATCH')
           AND message.lane IN ('drip', 'newsletter')
         LIMIT 1) AS open_message_id,
       (SELECT CASE WHEN latest.delivery = 'deferred' THEN latest.accepted_at END
          FROM (SELECT message.delivery, message.accepted_at
                  FROM message
                 WHERE message.subscriber_id = subscriber.id AND message.accepted_at IS NOT NULL
                   AND message.lane IN ('drip', 'newsletter')
                 ORDER BY message.accepted_at DESC
                 LIMIT 1) AS latest) AS deferred_at,
       (SELECT coalesce(jsonb_object_agg(latest.event, latest.at), '{}')
          FROM (SELECT event, max(at) AS at
                  FROM happening
                 WHERE subscriber_id = subscriber.id
                 GROUP BY event) AS latest) AS events,
       ARRAY(SELECT campaign.name
               FROM enrollment JOIN campaign ON campaign.id = enrollment.campaign_id
              WHERE enrollment.subscriber_id = subscriber.id AND enrollment.state IN ('waiting', 'mailing')
                AND campaign.kind <> 'service'
                AND enrollment.waits_for IS DISTINCT FROM 'goal') AS active_in
  FROM subscriber
 WHERE subscriber.id = ANY(:ids)
""")


def circumstances(connection: Connection, subscriber_ids: Sequence[int], since: datetime) -> dict[int, Circumstances]:
    """Read what surrounds these people, in one set: acceptances back to `since`, events ever (campaign time)."""
    rows = connection.execute(_CIRCUMSTANCES, {"ids": list(subscriber_ids), "since": since})
    return {row.id: _circumstances(row) for row in rows}


def _circumstances(row: Any) -> Circumstances:
    return Circumstances(
        public_id=row.public_id,
        addr_hash=None if row.addr_hash is None else bytes(row.addr_hash),
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


# lock: hold these in the one order everybody locks in.
_LOCK = text("""
SELECT id
  FROM enrollment
 WHERE id = ANY(:ids)
 ORDER BY id
   FOR UPDATE
""")


def lock(connection: Connection, enrollment_ids: Iterable[int]) -> None:
    """Lock these enrollments in the order everybody uses: by id, after the batch, before messages."""
    connection.execute(_LOCK, {"ids": sorted(set(enrollment_ids))})


# wait: when the planner looks again, and what for.
_WAIT = text("""
UPDATE enrollment
   SET next_due_at = waiting.until, waits_for = waiting.reason
  FROM unnest(CAST(:ids AS bigint[]), CAST(:untils AS timestamptz[]), CAST(:reasons AS text[]))
       AS waiting (id, until, reason)
 WHERE enrollment.id = waiting.id AND enrollment.state = 'waiting'
""")


def wait(connection: Connection, rows: Sequence[tuple[int, datetime, str]]) -> None:
    """Let each (id, until, reason) wait; an enrollment that ended meanwhile is left alone."""
    if rows:
        values = {
            "ids": [row[0] for row in rows],
            "untils": [row[1] for row in rows],
            "reasons": [row[2] for row in rows],
        }
        connection.execute(_WAIT, values)


# to_mailing: from waiting only.
_TO_MAILING = text("""
UPDATE enrollment SET state = 'mailing', waits_for = NULL
 WHERE id = ANY(:ids) AND state = 'waiting'
""")


def to_mailing(connection: Connection, enrollment_ids: Sequence[int]) -> None:
    """These have a planned message now."""
    connection.execute(_TO_MAILING, {"ids": list(enrollment_ids)})


# skip_to: the planner looks at what comes after this step, at once.
_SKIP_TO = text("""
UPDATE enrollment SET cursor_key = :step_key, anchor_at = :now, next_due_at = :now
 WHERE id = :id AND state = 'waiting'
""")


def skip_to(connection: Connection, enrollment_id: int, step_key: str, now: datetime) -> None:
    """Put an enrollment behind a step whose key is used up already."""
    connection.execute(_SKIP_TO, {"id": enrollment_id, "step_key": step_key, "now": now})


# finish: from any state that has not ended.
_FINISH = text("""
UPDATE enrollment SET state = 'finished', ended_at = :now, waits_for = NULL
 WHERE id = ANY(:ids) AND state IN ('waiting', 'mailing')
""")


def finish(connection: Connection, enrollment_ids: Sequence[int], now: datetime) -> None:
    """Every step is behind these."""
    connection.execute(_FINISH, {"ids": list(enrollment_ids), "now": now})


# leave: from any state that has not ended.
_LEAVE = text("""
UPDATE enrollment SET state = 'exited', ended_reason = :reason, ended_at = :now, waits_for = NULL
 WHERE id = ANY(:ids) AND state IN ('waiting', 'mailing')
""")


def leave(connection: Connection, enrollment_ids: Sequence[int], reason: str, now: datetime) -> int:
    """End these with a reason; returns how many were still under way. Their messages are the caller's business."""
    return connection.execute(_LEAVE, {"ids": list(enrollment_ids), "reason": reason, "now": now}).rowcount


# move_on: behind this step, counted from now. A service campaign is one email, so its enrollment is over.
_MOVE_ON = text("""
UPDATE enrollment
   SET cursor_key = past.step_key, anchor_at = :now, next_due_at = :now, waits_for = NULL,
       state = CASE WHEN campaign.kind = 'service' THEN 'finished' ELSE 'waiting' END,
       ended_at = CASE WHEN campaign.kind = 'service' THEN CAST(:now AS timestamptz) END
  FROM unnest(CAST(:ids AS bigint[]), CAST(:step_keys AS text[])) AS past (id, step_key), campaign
 WHERE enrollment.id = past.id AND enrollment.state = 'mailing' AND campaign.id = enrollment.campaign_id
""")


def move_on(connection: Connection, rows: Sequence[tuple[int, str]], now: datetime) -> None:
    """A message of each (enrollment id, step key) is terminal: the planner looks next. Service enrollments finish."""
    if rows:
        values = {"ids": [row[0] for row in rows], "step_keys": [row[1] for row in rows], "now": now}
        connection.execute(_MOVE_ON, values)


# under_way: of one person, in every campaign or in one.
_UNDER_WAY = text("""
SELECT enrollment.id, enrollment.campaign_id, campaign.name AS campaign_name,
       campaign.version_id AS newest_version_id, enrollment.version_id, enrollment.joined_at, enrollment.state
  FROM enrollment JOIN campaign ON campaign.id = enrollment.campaign_id
 WHERE enrollment.subscriber_id = :subscriber_id AND enrollment.state IN ('waiting', 'mailing')
   AND campaign.kind <> 'service'
   AND (CAST(:campaign_id AS bigint) IS NULL OR enrollment.campaign_id = :campaign_id)
 ORDER BY enrollment.id
""")


def under_way(connection: Connection, subscriber_id: int, campaign_id: int | None = None) -> list[Any]:
    """The marketing enrollments of one person that have not ended, in all campaigns or in `campaign_id`.

    Each has id, campaign_id, campaign_name, newest_version_id, version_id, joined_at, state.
    """
    return list(connection.execute(_UNDER_WAY, {"subscriber_id": subscriber_id, "campaign_id": campaign_id}))


# ids_under_way: of everybody in a campaign.
_IDS_UNDER_WAY = text("""
SELECT id
  FROM enrollment
 WHERE campaign_id = :campaign_id AND state IN ('waiting', 'mailing')
 ORDER BY id
""")


def ids_under_way(connection: Connection, campaign_id: int) -> list[int]:
    """Every enrollment of a campaign that has not ended, by id."""
    return list(connection.execute(_IDS_UNDER_WAY, {"campaign_id": campaign_id}).scalars())
