"""What a link in an email leads to: the message it names, its person, and the stored target of a click."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from dripwell.storage.database import Connection


@dataclass(frozen=True, slots=True)
class Origin:
    """A mailed message seen from its links. `address` and `addr_hash` are None once the person is erased."""

    message_id: int
    message_public_id: UUID
    step_key: str
    enrollment_id: int
    enrollment_state: str
    enrollment_joined_at: datetime
    round: int
    campaign_id: int
    campaign_name: str
    campaign_kind: str
    topic: str
    version_id: int
    subscriber_id: int
    address: str | None
    addr_hash: bytes | None
    subscriber_state: str
    timezone: str | None
    fields: Mapping[str, Any]
    pace: str
    paused_until: datetime | None


# read_only: whatever the rest of this transaction tries, PostgreSQL refuses to change anything.
_READ_ONLY = text("SET TRANSACTION READ ONLY")


def read_only(connection: Connection) -> None:
    """Make this transaction unable to write. Call it first."""
    connection.execute(_READ_ONLY)


# origin: the message a link names. Its version is the one it was mailed in; a message whose batch was given back is
# read in the version its person is in.
_ORIGIN = text("""
SELECT message.id AS message_id, message.public_id AS message_public_id, message.step_key,
       enrollment.id AS enrollment_id,
       enrollment.state AS enrollment_state, enrollment.joined_at AS enrollment_joined_at, enrollment.round,
       campaign.id AS campaign_id, campaign.name AS campaign_name, campaign.kind AS campaign_kind, campaign.topic,
       coalesce(batch.version_id, enrollment.version_id) AS version_id,
       subscriber.id AS subscriber_id, subscriber.address, subscriber.addr_hash, subscriber.state AS subscriber_state,
       subscriber.timezone, subscriber.fields, subscriber.pace, subscriber.paused_until
  FROM message
  JOIN enrollment ON enrollment.id = message.enrollment_id
  JOIN campaign ON campaign.id = message.campaign_id
  JOIN subscriber ON subscriber.id = message.subscriber_id
  LEFT JOIN batch ON batch.id = message.batch_id
 WHERE message.id = :message_id
""")


def origin(connection: Connection, message_id: int) -> Origin | None:
    """The message a signed word names, with its person and campaign; None when there is none any more."""
    if message_id >= 2**63:
        return None
    row = connection.execute(_ORIGIN, {"message_id": message_id}).one_or_none()
    if row is None:
        return None
    values = dict(row._mapping)
    values["addr_hash"] = None if row.addr_hash is None else bytes(row.addr_hash)
    return Origin(**values)


_TARGET = text("""
SELECT target FROM link WHERE version_id = :version_id AND step_key = :step_key AND number = :number
""")


def target(connection: Connection, version_id: int, step_key: str, number: int) -> str | None:
    """The stored target of link `number` of this email: an http or https URL, `book`, or None."""
    found: str | None = connection.execute(
        _TARGET, {"version_id": version_id, "step_key": step_key, "number": number}
    ).scalar()
    return found


_ADD = text("INSERT INTO click (message_id, number, at) VALUES (:message_id, :number, :at)")


def add(connection: Connection, message_id: int, number: int, at: datetime) -> None:
    """Note that this link was followed, at campaign time `at`."""
    connection.execute(_ADD, {"message_id": message_id, "number": number, "at": at})


# series: the open series of one person, for the preferences page.
_SERIES = text("""
SELECT enrollment.id, campaign.id AS campaign_id, campaign.name, campaign.topic, enrollment.version_id,
       campaign.version_id AS newest_version_id,
       (SELECT count(*) FROM message
         WHERE message.enrollment_id = enrollment.id AND message.state = 'ACCEPTED') AS accepted
  FROM enrollment JOIN campaign ON campaign.id = enrollment.campaign_id
 WHERE enrollment.subscriber_id = :subscriber_id AND enrollment.state IN ('waiting', 'mailing')
   AND campaign.kind IN ('drip', 'newsletter')
 ORDER BY enrollment.id
""")


@dataclass(frozen=True, slots=True)
class Series:
    """A series somebody is in. `accepted` emails of it have gone out."""

    id: int
    campaign_id: int
    name: str
    topic: str
    version_id: int
    newest_version_id: int
    accepted: int


def series(connection: Connection, subscriber_id: int) -> list[Series]:
    """The series this person is in, oldest first."""
    return [Series(**row._mapping) for row in connection.execute(_SERIES, {"subscriber_id": subscriber_id})]


# set_pace: nobody's who was erased.
_SET_PACE = text("""
UPDATE subscriber SET pace = :pace, paused_until = :paused_until
 WHERE id = :subscriber_id AND state <> 'erased'
""")


def set_pace(connection: Connection, subscriber_id: int, pace: str, paused_until: datetime | None) -> bool:
    """How often the person wants to hear from us, and until when not at all (campaign time). False: they are erased."""
    values = {"subscriber_id": subscriber_id, "pace": pace, "paused_until": paused_until}
    return connection.execute(_SET_PACE, values).rowcount == 1


# end_pause: of somebody who is paused still.
_END_PAUSE = text("""
UPDATE subscriber SET paused_until = NULL
 WHERE id = :subscriber_id AND state <> 'erased' AND paused_until > :now
""")


def end_pause(connection: Connection, subscriber_id: int, now: datetime) -> bool:
    """End a pause before its day; False when there is none at `now` (campaign time)."""
    return connection.execute(_END_PAUSE, {"subscriber_id": subscriber_id, "now": now}).rowcount == 1


# wake_waiting, wake_planned: everything this person waits for is decided anew; a planned message stays where it is, but
# it is stale from now on, so that no sender takes it before the planner has looked (T16). What a batch holds is stale
# for ever: its final check leaves it out (T7), and should the batch come back, it is decided again as well.
_WAKE_WAITING = text("""
UPDATE enrollment SET next_due_at = :now
 WHERE id IN (SELECT id FROM enrollment
               WHERE subscriber_id = :subscriber_id AND state = 'waiting' AND next_due_at > :now
               ORDER BY id FOR UPDATE)
""")
_WAKE_PLANNED = text("""
UPDATE message
   SET fresh_until = CASE WHEN state = 'PLANNED' THEN CAST(:now AS timestamptz) ELSE '-infinity' END,
       updated_at = wall()
 WHERE id IN (SELECT id FROM message
               WHERE subscriber_id = :subscriber_id AND state IN ('PLANNED', 'IN_BATCH')
                 AND lane IN ('drip', 'newsletter') AND fresh_until > :now
               ORDER BY id FOR UPDATE)
""")


def look_again(connection: Connection, subscriber_id: int, now: datetime) -> None:
    """Let the planner decide anew, now, about every series of this person: a wish about pace counts at once."""
    connection.execute(_WAKE_WAITING, {"subscriber_id": subscriber_id, "now": now})
    connection.execute(_WAKE_PLANNED, {"subscriber_id": subscriber_id, "now": now})


# confirming: the request a confirmation link names, and its person.
_CONFIRMING = text("""
SELECT enrollment.id, enrollment.subscriber_id, subscriber.state, subscriber.address, subscriber.fields
  FROM enrollment
  JOIN campaign ON campaign.id = enrollment.campaign_id
  JOIN subscriber ON subscriber.id = enrollment.subscriber_id
 WHERE enrollment.id = :enrollment_id AND campaign.name = 'confirm' AND campaign.kind = 'service'
""")


@dataclass(frozen=True, slots=True)
class Confirming:
    """A request that waits for its button to be pressed."""

    id: int
    subscriber_id: int
    state: str
    address: str | None
    fields: Mapping[str, Any]


def confirming(connection: Connection, enrollment_id: int) -> Confirming | None:
    """The confirmation request with this enrollment id, or None."""
    if enrollment_id >= 2**63:
        return None
    row = connection.execute(_CONFIRMING, {"enrollment_id": enrollment_id}).one_or_none()
    return None if row is None else Confirming(**row._mapping)


# note_reason: why somebody left, for a person to read; once a message.
_NOTE_REASON = text("""
INSERT INTO activity (actor, action, about, detail)
SELECT 'subscriber', 'unsubscribe.reason', :about,
       jsonb_build_object('why', CAST(:why AS text), 'message', CAST(:message_id AS bigint))
 WHERE NOT EXISTS (SELECT FROM activity
                    WHERE action = 'unsubscribe.reason' AND detail ->> 'message' = CAST(:message_id AS text))
""")


def note_reason(connection: Connection, message_id: int, campaign: str, why: str) -> None:
    """Keep the reason somebody gave for leaving after this message; a second one is ignored."""
    connection.execute(_NOTE_REASON, {"message_id": message_id, "about": campaign, "why": why})
