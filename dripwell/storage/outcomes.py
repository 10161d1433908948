"""What becomes of the messages of a batch: accepted, planned again, or ended with a reason.

Every change is a compare-and-set on the old state; nobody repairs a lost race.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text

from dripwell.storage.database import Connection


@dataclass(frozen=True, slots=True)
class HeldRow:
    """A HELD message with what is known about its call. `updated_at` is since when, wall time.

    `empty_rounds`: how often the provider's log was asked, answered, and did not have it. `channel_alive`: events of
    later batches came.
    """

    id: int
    lane: str
    step_key: str
    reason: str
    updated_at: datetime
    enrollment_id: int
    campaign: str
    batch_id: int | None
    called_at: datetime | None
    http_status: int | None
    detail: str | None
    empty_rounds: int | None
    channel_alive: bool


# leaving: who in this batch must not be mailed; a suppression's reason wins.
_LEAVING = text("""
SELECT message.id, message.enrollment_id,
       CASE WHEN standing.reason IS NOT NULL OR subscriber.state = 'erased' THEN 'SUPPRESSED'
            ELSE 'SKIPPED' END AS state,
       coalesce(standing.reason, CASE WHEN subscriber.state = 'erased' THEN 'erased' END,
                CASE WHEN enrollment.state IN ('exited', 'finished') THEN coalesce(enrollment.ended_reason, 'exit') END,
                'no_baa') AS reason
  FROM message
  JOIN subscriber ON subscriber.id = message.subscriber_id
  JOIN enrollment ON enrollment.id = message.enrollment_id
  LEFT JOIN LATERAL (SELECT suppression.reason
                       FROM suppression
                      WHERE suppression.addr_hash = subscriber.addr_hash
                        AND suppression.scope = ANY(:scopes) AND suppression.action = 'suppress'
                        AND NOT EXISTS (SELECT FROM suppression AS lift
                                         WHERE lift.addr_hash = suppression.addr_hash
                                           AND lift.scope = suppression.scope
                                           AND lift.action = 'lift' AND lift.seq > suppression.seq)
                      ORDER BY suppression.seq DESC
                      LIMIT 1) AS standing ON true
 WHERE message.batch_id = :batch_id AND message.state = 'IN_BATCH'
   AND (standing.reason IS NOT NULL OR subscriber.state = 'erased' OR enrollment.state IN ('exited', 'finished')
        OR (subscriber.relationship = 'patient' AND NOT :baa))
 ORDER BY message.id
""")


def leaving(connection: Connection, batch_id: int, scopes: Sequence[str], *, baa: bool) -> list[Any]:
    """T5, the final word: who in this batch must not be mailed: id, enrollment_id, state, reason.

    `scopes` are those that bind this lane. An ended enrollment leaves too, and so does a patient when the provider has
    signed no agreement for health data (`baa`, rules 5.7).
    """
    return list(connection.execute(_LEAVING, {"batch_id": batch_id, "scopes": list(scopes), "baa": baa}))


# take_out (T5): from this batch only.
_TAKE_OUT = text("""
UPDATE message SET state = leaving.state, reason = leaving.reason, batch_id = NULL, updated_at = wall()
  FROM unnest(CAST(:ids AS bigint[]), CAST(:states AS text[]), CAST(:reasons AS text[])) AS leaving (id, state, reason)
 WHERE message.id = leaving.id AND message.batch_id = :batch_id AND message.state = 'IN_BATCH'
""")


def take_out(connection: Connection, batch_id: int, rows: Sequence[Any]) -> None:
    """T5: these of `leaving` leave the batch."""
    values = {
        "batch_id": batch_id,
        "ids": [row.id for row in rows],
        "states": [row.state for row in rows],
        "reasons": [row.reason for row in rows],
    }
    connection.execute(_TAKE_OUT, values)


# doubt: counts how often the fast set was contradicted by the ledger about this message.
_DOUBT = text("""
UPDATE message SET doubts = doubts + 1
 WHERE id = ANY(:ids) AND state = 'IN_BATCH'
RETURNING id, doubts
""")


def doubt(connection: Connection, message_ids: Sequence[int]) -> dict[int, int]:
    """The fast set says suppressed, the ledger does not: how often that happened, by message id."""
    return {row.id: row.doubts for row in connection.execute(_DOUBT, {"ids": list(message_ids)})}


# accept (T6, T10): the whole batch.
_ACCEPT = text("""
UPDATE message SET state = 'ACCEPTED', accepted_at = :now, updated_at = wall()
 WHERE batch_id = :batch_id AND state = 'IN_BATCH'
RETURNING id, enrollment_id, step_key
""")


def accept(connection: Connection, batch_id: int, now: datetime) -> list[Any]:
    """T6, T10: everybody in this batch is accepted. Returns id, enrollment_id, step_key."""
    return list(connection.execute(_ACCEPT, {"batch_id": batch_id, "now": now}))


# accept_late (T13): from any other state, and in the batch that the evidence names.
_ACCEPT_LATE = text("""
UPDATE message SET state = 'ACCEPTED', reason = NULL, batch_id = :batch_id, accepted_at = :now, updated_at = wall()
 WHERE id = :id AND state <> 'ACCEPTED'
RETURNING enrollment_id, step_key
""")


def accept_late(connection: Connection, message_id: int, batch_id: int, now: datetime) -> Any | None:
    """T13: evidence of an earlier batch wins over whatever we believed. Returns enrollment_id, step_key or None."""
    return connection.execute(_ACCEPT_LATE, {"id": message_id, "batch_id": batch_id, "now": now}).first()


# back_to_planned (T4, T7, T8, T11): out of the batch, claimable later. A lapse counts toward poison, an attempt
# toward the pause before the next.
_BACK_TO_PLANNED = text("""
UPDATE message
   SET state = 'PLANNED', batch_id = NULL, updated_at = wall(),
       retry_at = wall() + make_interval(secs => :seconds),
       lapses = lapses + CASE WHEN :lapsed THEN 1 ELSE 0 END,
       attempts = attempts + CASE WHEN :attempted THEN 1 ELSE 0 END
 WHERE batch_id = :batch_id AND state = 'IN_BATCH'
   AND (CAST(:only AS bigint[]) IS NULL OR id = ANY(CAST(:only AS bigint[])))
RETURNING id
""")


def back_to_planned(
    connection: Connection,
    batch_id: int,
    *,
    retry_after_seconds: float,
    lapsed: bool,
    attempted: bool,
    only: Sequence[int] | None = None,
) -> list[int]:
    """T4, T7, T8, T11: these of the batch (all, or `only`) are PLANNED again; returns their ids.

    They can be claimed once `retry_after_seconds` of wall time have passed.
    """
    values = {
        "batch_id": batch_id,
        "seconds": retry_after_seconds,
        "lapsed": lapsed,
        "attempted": attempted,
        "only": None if only is None else list(only),
    }
    return list(connection.execute(_BACK_TO_PLANNED, values).scalars())


# poisoned: messages whose owners keep dying.
_POISONED = text("""
SELECT id
  FROM message
 WHERE batch_id = :batch_id AND state = 'IN_BATCH' AND lapses >= :lapses
""")


def poisoned(connection: Connection, batch_id: int, lapses: int) -> list[int]:
    """The ids in this batch whose owners died `lapses` times or more."""
    return list(connection.execute(_POISONED, {"batch_id": batch_id, "lapses": lapses}).scalars())


# most_attempts: zero for an empty batch.
_MOST_ATTEMPTS = text("""
SELECT coalesce(max(attempts), 0)
  FROM message
 WHERE batch_id = :batch_id AND state = 'IN_BATCH'
""")


def most_attempts(connection: Connection, batch_id: int) -> int:
    """How often the most tried message of this batch was called for and not accepted."""
    found: int = connection.execute(_MOST_ATTEMPTS, {"batch_id": batch_id}).scalar_one()
    return found


# reject (T4, T8): they stay in the batch that failed, for the record.
_REJECT = text("""
UPDATE message SET state = 'REJECTED', reason = :reason, updated_at = wall()
 WHERE id = ANY(:ids) AND state = 'IN_BATCH'
RETURNING id, enrollment_id, step_key
""")


def reject(connection: Connection, message_ids: Sequence[int], reason: str) -> list[Any]:
    """T4, T8: these will never be accepted. Returns id, enrollment_id, step_key."""
    return list(connection.execute(_REJECT, {"ids": list(message_ids), "reason": reason}))


# hold (T5, T12): the whole batch, or some of it.
_HOLD = text("""
UPDATE message SET state = 'HELD', reason = :reason, updated_at = wall()
 WHERE batch_id = :batch_id AND state = 'IN_BATCH'
   AND (CAST(:only AS bigint[]) IS NULL OR id = ANY(CAST(:only AS bigint[])))
RETURNING id
""")


def hold(connection: Connection, batch_id: int, reason: str, only: Sequence[int] | None = None) -> list[int]:
    """T5, T12: nobody knows; an operator decides. Returns the ids."""
    values = {"batch_id": batch_id, "reason": reason, "only": None if only is None else list(only)}
    return list(connection.execute(_HOLD, values).scalars())


# held: everything that waits for a person, the longest first.
_HELD = text("""
SELECT message.id, message.lane, message.step_key, message.reason, message.updated_at, message.enrollment_id,
       campaign.name AS campaign, batch.id AS batch_id, batch.called_at, batch.http_status,
       batch.detail, batch.empty_rounds,
       EXISTS (SELECT FROM provider_event WHERE provider_event.batch_id > batch.id) AS channel_alive
  FROM message
  JOIN campaign ON campaign.id = message.campaign_id
  LEFT JOIN batch ON batch.id = message.batch_id
 WHERE message.state = 'HELD' AND (CAST(:ids AS bigint[]) IS NULL OR message.id = ANY(CAST(:ids AS bigint[])))
   AND (CAST(:batch_id AS bigint) IS NULL OR message.batch_id = :batch_id)
 ORDER BY message.updated_at, message.id
 LIMIT :limit
""")


def held(
    connection: Connection, *, ids: Sequence[int] | None = None, batch_id: int | None = None, limit: int = 1000
) -> list[HeldRow]:
    """At most `limit` HELD messages, the longest first: all, these ids, or those of one batch."""
    values = {"ids": None if ids is None else list(ids), "batch_id": batch_id, "limit": limit}
    return [HeldRow(**row._mapping) for row in connection.execute(_HELD, values)]


# decide_held (T14): it goes again, unless the person's one open message is another, or it never does.
_DECIDE_HELD = text("""
UPDATE message
   SET state = :state, reason = CASE WHEN :state = 'PLANNED' THEN NULL ELSE :reason END,
       batch_id = CASE WHEN :state = 'PLANNED' THEN NULL ELSE batch_id END, retry_at = '-infinity', doubts = 0,
       fresh_until = CASE WHEN :state = 'PLANNED' AND lane IN ('drip', 'newsletter') THEN CAST(:now AS timestamptz)
                          ELSE fresh_until END,
       updated_at = wall()
 WHERE id = :id AND state = 'HELD'
   AND (:state <> 'PLANNED' OR lane NOT IN ('drip', 'newsletter')
        OR NOT EXISTS (SELECT FROM message AS other
                        WHERE other.subscriber_id = message.subscriber_id AND other.state IN ('PLANNED', 'IN_BATCH')
                          AND other.lane IN ('drip', 'newsletter')))
""")


def decide_held(connection: Connection, message_id: int, state: str, reason: str, now: datetime) -> bool:
    """T14: a HELD message is PLANNED (and decided again before it goes, in its window) or SKIPPED with a reason.

    False: it is not HELD any more, or another marketing email for the person is in work.
    """
    values = {"id": message_id, "state": state, "reason": reason, "now": now}
    return connection.execute(_DECIDE_HELD, values).rowcount == 1


# set_delivery: events arrive late and out of order, so only from what may come before.
_SET_DELIVERY = text("""
UPDATE message SET delivery = :after, updated_at = wall()
 WHERE id = :id AND (delivery IS NULL OR delivery = ANY(:before))
""")


def set_delivery(connection: Connection, message_id: int, before: Sequence[str], after: str) -> None:
    """Move `delivery` forward: only from nothing or from one of `before`."""
    connection.execute(_SET_DELIVERY, {"id": message_id, "before": list(before), "after": after})


# log: one line a message.
_LOG = text("""
INSERT INTO message_log (message_id, transition, batch_id, actor, reason)
SELECT changed.id, :transition, :batch_id, :actor, changed.reason
  FROM unnest(CAST(:ids AS bigint[]), CAST(:reasons AS text[])) AS changed (id, reason)
""")


def log(
    connection: Connection, rows: Sequence[tuple[int, str]], transition: str, batch_id: int | None, actor: str
) -> None:
    """Write a line for each (message id, reason): every change but the ordinary T1, T2, T3, T6."""
    if rows:
        values = {
            "ids": [row[0] for row in rows],
            "reasons": [row[1] for row in rows],
            "transition": transition,
            "batch_id": batch_id,
            "actor": actor,
        }
        connection.execute(_LOG, values)


# went_again: whether negative proof has sent any of these out a second time already.
_WENT_AGAIN = text("""
SELECT EXISTS (SELECT FROM message JOIN message_log ON message_log.message_id = message.id
                WHERE message.batch_id = :batch_id AND message.state = 'IN_BATCH' AND message_log.transition = 'T11')
""")


def went_again(connection: Connection, batch_id: int) -> bool:
    """Whether a message of this batch was planned again by negative proof before (T11)."""
    found: bool = connection.execute(_WENT_AGAIN, {"batch_id": batch_id}).scalar_one()
    return found


# control: somebody of the newest accepted call that is old enough to be in the provider's log.
_CONTROL = text("""
SELECT batch.id AS batch_id, batch.called_at, message.public_id, subscriber.address
  FROM batch
  JOIN message ON message.id = batch.message_ids[1] AND message.state = 'ACCEPTED' AND message.batch_id = batch.id
  JOIN subscriber ON subscriber.id = message.subscriber_id AND subscriber.address IS NOT NULL
 WHERE batch.accepted_at IS NOT NULL AND batch.http_status IS NOT NULL
   AND batch.called_at BETWEEN wall() - make_interval(secs => :oldest) AND wall() - make_interval(secs => :newest)
 ORDER BY batch.accepted_at DESC
 LIMIT 1
""")


def control(connection: Connection, newest: float, oldest: float) -> Any | None:
    """One message the provider certainly accepted, called for between so many wall seconds ago: batch_id, called_at,
    public_id, address."""
    return connection.execute(_CONTROL, {"newest": newest, "oldest": oldest}).first()
