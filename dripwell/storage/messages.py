"""Messages on their way to a batch: planning, claiming, reading. What becomes of them there is in `outcomes`.

Every change is a compare-and-set on the old state; nobody repairs a lost race.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text

from dripwell.storage import arrays
from dripwell.storage.database import Connection


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message about to be planned. Times are campaign time."""

    public_id: UUID
    enrollment_id: int
    subscriber_id: int
    campaign_id: int
    step_key: str
    lane: str
    due_at: datetime
    fresh_until: datetime | None = None
    valid_until: datetime | None = None
    addr_hash: bytes | None = None


class Addressee(NamedTuple):
    """One message in a batch with what rendering needs of its subscriber. `joined_at` is the enrollment's.

    The address of somebody who was erased meanwhile is empty.
    """

    id: int
    public_id: UUID
    enrollment_id: int
    subscriber_id: int
    round: int
    address: str
    addr_hash: bytes
    fields: dict[str, Any]
    timezone: str | None
    joined_at: datetime
    lapses: int = 0  # owners that died with it in an OPEN batch


# In the order of the fields of Addressee: a thousand of them are made for each call.
_ADDRESSEE = """message.id, message.public_id, message.enrollment_id, message.subscriber_id, enrollment.round,
       coalesce(subscriber.address, ''), coalesce(subscriber.addr_hash, ''), subscriber.fields, subscriber.timezone,
       enrollment.joined_at, message.lapses"""


# add_planned (T1): one row each, in the order handed in; what runs into a key is left out.
_ADD_PLANNED = text("""
INSERT INTO message (public_id, enrollment_id, subscriber_id, campaign_id, step_key, lane, state,
                     due_at, fresh_until, valid_until, addr_hash)
SELECT planned.public_id, planned.enrollment_id, planned.subscriber_id, planned.campaign_id, planned.step_key,
       planned.lane, 'PLANNED', planned.due_at, coalesce(planned.fresh_until, 'infinity'),
       coalesce(planned.valid_until, 'infinity'), planned.addr_hash
  FROM unnest(CAST(:public_ids AS uuid[]), CAST(:enrollment_ids AS bigint[]), CAST(:subscriber_ids AS bigint[]),
              CAST(:campaign_ids AS bigint[]), CAST(:step_keys AS text[]), CAST(:lanes AS text[]),
              CAST(:dues AS timestamptz[]), CAST(:freshes AS timestamptz[]), CAST(:valids AS timestamptz[]),
              CAST(:hashes AS bytea[]))
  WITH ORDINALITY AS planned (public_id, enrollment_id, subscriber_id, campaign_id, step_key, lane,
                              due_at, fresh_until, valid_until, addr_hash, place)
 ORDER BY planned.place
    ON CONFLICT DO NOTHING
RETURNING enrollment_id
""")


def add_planned(connection: Connection, new: Sequence[NewMessage]) -> set[int]:
    """T1: plan these; returns the enrollment ids that got theirs. Ordered by subscriber, or two planners deadlock.

    A missing one ran into a key: this step is used up, or another campaign has an open message for the person.
    """
    if not new:
        return set()
    ordered = sorted(new, key=lambda message: message.subscriber_id)
    values = {
        "public_ids": arrays.ids(message.public_id for message in ordered),
        "enrollment_ids": arrays.numbers(message.enrollment_id for message in ordered),
        "subscriber_ids": arrays.numbers(message.subscriber_id for message in ordered),
        "campaign_ids": arrays.numbers(message.campaign_id for message in ordered),
        "step_keys": [message.step_key for message in ordered],
        "lanes": [message.lane for message in ordered],
        "dues": arrays.times(message.due_at for message in ordered),
        "freshes": arrays.times(message.fresh_until for message in ordered),
        "valids": arrays.times(message.valid_until for message in ordered),
        "hashes": arrays.hashes(message.addr_hash for message in ordered),
    }
    return set(connection.execute(_ADD_PLANNED, values).scalars())


# used_keys: the steps of these enrollments that have a message, in whatever state.
_USED_KEYS = text("""
SELECT enrollment_id, step_key
  FROM message
 WHERE enrollment_id = ANY(:enrollment_ids)
""")


def used_keys(connection: Connection, enrollment_ids: Sequence[int]) -> set[tuple[int, str]]:
    """Every (enrollment id, step key) of these that has a message already."""
    rows = connection.execute(_USED_KEYS, {"enrollment_ids": list(enrollment_ids)})
    return {(row.enrollment_id, row.step_key) for row in rows}


# replan (T16): new times for what is still planned.
_REPLAN = text("""
UPDATE message
   SET due_at = again.due_at, fresh_until = again.fresh_until, updated_at = wall()
  FROM unnest(CAST(:ids AS bigint[]), CAST(:dues AS timestamptz[]), CAST(:freshes AS timestamptz[]))
       AS again (id, due_at, fresh_until)
 WHERE message.id = again.id AND message.state = 'PLANNED'
""")


def replan(connection: Connection, rows: Sequence[tuple[int, datetime, datetime]]) -> None:
    """T16: give each (message id, due, fresh until) still PLANNED its new times."""
    if rows:
        values = {
            "ids": [row[0] for row in rows],
            "dues": [row[1] for row in rows],
            "freshes": [row[2] for row in rows],
        }
        connection.execute(_REPLAN, values)


# end_planned (T15): they will not be mailed; each change is logged.
_END_PLANNED = text("""
WITH ended AS (
  UPDATE message SET state = :state, reason = :reason, updated_at = wall()
   WHERE enrollment_id = ANY(:enrollment_ids) AND state = 'PLANNED'
  RETURNING id, enrollment_id
), logged AS (
  INSERT INTO message_log (message_id, transition, actor, reason)
  SELECT id, 'T15', :actor, :reason FROM ended
)
SELECT enrollment_id FROM ended
""")


def end_planned(connection: Connection, enrollment_ids: Sequence[int], state: str, reason: str, actor: str) -> set[int]:
    """T15: PLANNED messages of these enrollments become SUPPRESSED or SKIPPED with a reason; returns whose did."""
    values = {"enrollment_ids": list(enrollment_ids), "state": state, "reason": reason, "actor": actor}
    return set(connection.execute(_END_PLANNED, values).scalars())


# expired: planned messages of a lane that came too late to be of any use. Every claim asks: the last condition is that
# of the index `message_expiring`, in which nearly nobody is.
_EXPIRED = text("""
SELECT id, enrollment_id, step_key
  FROM message
 WHERE state = 'PLANNED' AND lane = :lane AND valid_until <= :now AND valid_until < 'infinity'
 ORDER BY enrollment_id
 LIMIT :limit
""")


def expired(connection: Connection, lane: str, now: datetime, limit: int) -> list[Any]:
    """PLANNED messages past their `valid_until`: id, enrollment_id, step_key."""
    return list(connection.execute(_EXPIRED, {"lane": lane, "now": now, "limit": limit}))


# of_ended_enrollments: what is planned although its enrollment is over.
_OF_ENDED_ENROLLMENTS = text("""
SELECT message.enrollment_id, coalesce(enrollment.ended_reason, 'exit') AS ended_reason
  FROM message JOIN enrollment ON enrollment.id = message.enrollment_id
 WHERE message.id = ANY(:ids) AND message.state = 'PLANNED' AND enrollment.state IN ('finished', 'exited')
 ORDER BY message.enrollment_id
""")


def of_ended_enrollments(connection: Connection, message_ids: Sequence[int]) -> list[Any]:
    """Those of these PLANNED messages whose enrollment has ended: enrollment_id, ended_reason."""
    return list(connection.execute(_OF_ENDED_ENROLLMENTS, {"ids": list(message_ids)}))


# groups_due: walk from one (campaign, step) of the lane to the next along `message_claim`, and keep those with
# something to claim. Reading every planned message to find a handful of groups would cost a pass its time.
_GROUPS_DUE = text("""
WITH RECURSIVE step AS (
  (SELECT campaign_id, step_key
     FROM message
    WHERE state = 'PLANNED' AND lane = :lane
    ORDER BY campaign_id, step_key
    LIMIT 1)
  UNION ALL
  SELECT following.campaign_id, following.step_key
    FROM step, LATERAL (SELECT campaign_id, step_key
                          FROM message
                         WHERE state = 'PLANNED' AND lane = :lane
                           AND (campaign_id, step_key) > (step.campaign_id, step.step_key)
                         ORDER BY campaign_id, step_key
                         LIMIT 1) AS following
)
SELECT step.campaign_id, step.step_key
  FROM step JOIN campaign ON campaign.id = step.campaign_id
 CROSS JOIN LATERAL (SELECT message.id
                       FROM message
                      WHERE message.state = 'PLANNED' AND message.lane = :lane
                        AND message.campaign_id = step.campaign_id AND message.step_key = step.step_key
                        AND message.due_at <= :now AND least(message.fresh_until, message.valid_until) > :now
                        AND message.retry_at <= wall() AND message.suspect_of IS NULL
                      ORDER BY message.due_at, message.id
                      LIMIT 1) AS oldest
 WHERE campaign.state = 'running'
 ORDER BY step.campaign_id, step.step_key
""")


def groups_due(connection: Connection, lane: str, now: datetime) -> list[Any]:
    """The (campaign_id, step_key) groups of a lane that have a message to claim."""
    return list(connection.execute(_GROUPS_DUE, {"lane": lane, "now": now}))


# claim: claimable messages of one group, oldest first.
_CLAIMABLE = f"""
SELECT {_ADDRESSEE}
  FROM message
  JOIN subscriber ON subscriber.id = message.subscriber_id
  JOIN enrollment ON enrollment.id = message.enrollment_id
 WHERE message.state = 'PLANNED' AND message.lane = :lane AND message.campaign_id = :campaign_id
   AND message.step_key = :step_key AND message.due_at <= :now
   AND least(message.fresh_until, message.valid_until) > :now AND message.retry_at <= wall()
   AND message.suspect_of IS NULL
   AND (CAST(:among AS bigint[]) IS NULL OR message.id = ANY(CAST(:among AS bigint[])))
 ORDER BY message.due_at, message.id
 LIMIT :limit
"""
_HELD = "   FOR UPDATE OF message SKIP LOCKED"  # other senders skip them
# Said apart for suspects: one condition for both would hide from PostgreSQL that nearly nobody is one.
_SUSPECTED = _CLAIMABLE.replace("suspect_of IS NULL", "suspect_of = :suspect_of")
_CLAIMS = {
    (False, False): text(_CLAIMABLE),
    (False, True): text(_CLAIMABLE + _HELD),
    (True, False): text(_SUSPECTED),
    (True, True): text(_SUSPECTED + _HELD),
}


def claim(
    connection: Connection,
    *,
    lane: str,
    campaign_id: int,
    step_key: str,
    now: datetime,
    limit: int,
    suspect_of: int | None = None,
    among: Sequence[int] | None = None,
    hold: bool = True,
) -> list[Addressee]:
    """Lock at most `limit` claimable messages of one group (T2, first half), oldest first.

    `suspect_of` asks for the suspects of that refused batch; None for those who are nobody's suspects. `among` asks for
    these alone. Without `hold` nothing is locked: only to look. The address of somebody who was erased is empty.
    """
    values = {
        "lane": lane,
        "campaign_id": campaign_id,
        "step_key": step_key,
        "now": now,
        "limit": limit,
        "among": None if among is None else list(among),
    }
    if suspect_of is not None:
        values["suspect_of"] = suspect_of
    return [Addressee(*row) for row in connection.execute(_CLAIMS[suspect_of is not None, hold], values)]


# postpone: what is PLANNED is looked at again later.
_POSTPONE = text("""
UPDATE message SET retry_at = wall() + make_interval(secs => :seconds)
 WHERE id = ANY(:ids) AND state = 'PLANNED'
""")


def postpone(connection: Connection, message_ids: Sequence[int], seconds: float) -> None:
    """Nobody claims these PLANNED messages for so many wall seconds."""
    if message_ids:
        connection.execute(_POSTPONE, {"ids": list(message_ids), "seconds": seconds})


@dataclass(frozen=True, slots=True)
class Suspects:
    """Messages of which at least one is refused by the provider, but nobody knows which."""

    suspect_of: int
    campaign_id: int
    step_key: str
    people: int


# suspects: the oldest group of which nothing is under way; of two halves one answer says enough about both.
_SUSPECTS = text("""
SELECT message.suspect_of, message.campaign_id, message.step_key,
       count(*) FILTER (WHERE message.due_at <= :now AND least(message.fresh_until, message.valid_until) > :now
                          AND message.retry_at <= wall()) AS people
  FROM message JOIN campaign ON campaign.id = message.campaign_id
 WHERE message.lane = :lane AND message.suspect_of IS NOT NULL AND message.state IN ('PLANNED', 'IN_BATCH')
   AND campaign.state = 'running'
 GROUP BY message.suspect_of, message.campaign_id, message.step_key
HAVING bool_and(message.state = 'PLANNED')
   AND bool_or(message.due_at <= :now AND least(message.fresh_until, message.valid_until) > :now
               AND message.retry_at <= wall())
 ORDER BY message.suspect_of
 LIMIT 1
""")


def suspects(connection: Connection, lane: str, now: datetime) -> Suspects | None:
    """A group to look into next: how many of its messages can be claimed now. None: there is no such group."""
    row = connection.execute(_SUSPECTS, {"lane": lane, "now": now}).first()
    return None if row is None else Suspects(**row._mapping)


# clear: nobody in what is left of this group is suspected any more.
_CLEAR = text("""
UPDATE message SET suspect_of = NULL
 WHERE suspect_of = :suspect_of AND state = 'PLANNED'
""")


def clear(connection: Connection, suspect_of: int) -> None:
    """The culprit of this refused batch was found, or is known to be elsewhere: the rest goes with everybody."""
    connection.execute(_CLEAR, {"suspect_of": suspect_of})


# suspect: one of these is refused.
_SUSPECT = text("""
UPDATE message SET suspect_of = :suspect_of
 WHERE id = ANY(:ids) AND state = 'PLANNED'
""")


def suspect(connection: Connection, message_ids: Sequence[int], suspect_of: int) -> None:
    """The provider refused a call with these and named none of them: one or more is why."""
    connection.execute(_SUSPECT, {"ids": list(message_ids), "suspect_of": suspect_of})


# to_batch (T2): the messages that `claim` holds are in this batch now.
_TO_BATCH = text("""
UPDATE message SET state = 'IN_BATCH', batch_id = :batch_id, updated_at = wall()
 WHERE id = ANY(:ids)
""")


def to_batch(connection: Connection, message_ids: Sequence[int], batch_id: int) -> None:
    """T2: these locked messages are in this batch now."""
    connection.execute(_TO_BATCH, {"batch_id": batch_id, "ids": list(message_ids)})


# in_batch: who is still in this batch and can be reached, in the order of the payload.
_IN_BATCH = text(f"""
SELECT {_ADDRESSEE}
  FROM message
  JOIN subscriber ON subscriber.id = message.subscriber_id
  JOIN enrollment ON enrollment.id = message.enrollment_id
 WHERE message.batch_id = :batch_id AND message.state = 'IN_BATCH' AND subscriber.address IS NOT NULL
 ORDER BY message.id
""")


def in_batch(connection: Connection, batch_id: int) -> list[Addressee]:
    """Everybody still in this batch who has an address, in the order of the payload."""
    rows = connection.execute(_IN_BATCH, {"batch_id": batch_id})
    return [Addressee(*row) for row in rows]


# still_in: the payload's last check of who is there, and under which address. Who changed their pace since this was
# planned (`clicks.look_again`) has none in it: what was decided for them counts no longer.
_STILL_IN = text("""
SELECT message.id, CASE WHEN message.fresh_until > '-infinity' THEN subscriber.address END AS address
  FROM message JOIN subscriber ON subscriber.id = message.subscriber_id
 WHERE message.batch_id = :batch_id AND message.state = 'IN_BATCH'
""")


def still_in(connection: Connection, batch_id: int) -> dict[int, str | None]:
    """Every message id still in this batch, with its person's address; None once erased, or to be decided again."""
    return {row.id: row.address for row in connection.execute(_STILL_IN, {"batch_id": batch_id})}


# enrollments_in: what must be locked before the messages of this batch are.
_ENROLLMENTS_IN = text("""
SELECT enrollment_id
  FROM message
 WHERE batch_id = :batch_id AND state = 'IN_BATCH'
 ORDER BY enrollment_id
""")


def enrollments_in(connection: Connection, batch_id: int) -> list[int]:
    """The enrollments of everybody in this batch."""
    return list(connection.execute(_ENROLLMENTS_IN, {"batch_id": batch_id}).scalars())


# of_batch: these messages as they are now, wherever they went since.
_OF_BATCH = text("""
SELECT id, public_id, state, batch_id, subscriber_id, enrollment_id, lane, delivery
  FROM message
 WHERE id = ANY(:ids)
""")


def of_batch(connection: Connection, message_ids: Sequence[int]) -> list[Any]:
    """What evidence is matched against.

    Each has id, public_id, state, batch_id, subscriber_id, enrollment_id, lane, delivery.
    """
    return list(connection.execute(_OF_BATCH, {"ids": list(message_ids)}))
