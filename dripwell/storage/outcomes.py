"""What becomes of the messages of a batch: accepted, planned again, or ended with a reason.

Every change is a compare-and-set on the old state; nobody repairs a lost race.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import text

from dripwell.storage.database import Connection

# check_out (T5): whoever is suppressed, erased or no longer enrolled leaves the batch; a suppression's reason wins.
_CHECK_OUT = text("""
UPDATE message
   SET state = leaving.state, reason = leaving.reason, batch_id = NULL, updated_at = wall()
  FROM (SELECT message.id,
               CASE WHEN standing.reason IS NOT NULL OR subscriber.state = 'erased' THEN 'SUPPRESSED'
                    ELSE 'SKIPPED' END AS state,
               coalesce(standing.reason, CASE WHEN subscriber.state = 'erased' THEN 'erased' END,
                        enrollment.ended_reason, 'exit') AS reason
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
           AND (standing.reason IS NOT NULL OR subscriber.state = 'erased'
                OR enrollment.state IN ('exited', 'finished'))) AS leaving
 WHERE message.id = leaving.id AND message.state = 'IN_BATCH'
RETURNING message.id, message.enrollment_id, message.step_key, message.reason
""")


def check_out(connection: Connection, batch_id: int, scopes: Sequence[str]) -> list[Any]:
    """T5, the final word: who in this batch must not be mailed leaves it: id, enrollment_id, step_key, reason.

    `scopes` are those that bind this lane. An ended enrollment leaves too.
    """
    return list(connection.execute(_CHECK_OUT, {"batch_id": batch_id, "scopes": list(scopes)}))


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


# hold (T12): the whole batch.
_HOLD = text("""
UPDATE message SET state = 'HELD', reason = :reason, updated_at = wall()
 WHERE batch_id = :batch_id AND state = 'IN_BATCH'
RETURNING id
""")


def hold(connection: Connection, batch_id: int, reason: str) -> list[int]:
    """T12: nobody knows; an operator decides. Returns the ids."""
    return list(connection.execute(_HOLD, {"batch_id": batch_id, "reason": reason}).scalars())


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
