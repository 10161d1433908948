"""Messages: the ledger rows. Every change is a compare-and-set on the old state; nobody repairs a lost race."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

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


def add_planned(connection: Connection, new: Sequence[NewMessage]) -> set[int]:
    """T1: plan these; returns the enrollment ids that got theirs. Ordered by subscriber, or two planners deadlock.

    A missing one ran into a key: this step is used up, or another campaign has an open message for the person.
    """
    if not new:
        return set()
    ordered = sorted(new, key=lambda message: message.subscriber_id)
    rows = connection.execute(
        text(
            "INSERT INTO message (public_id, enrollment_id, subscriber_id, campaign_id, step_key, lane, state,"
            "  due_at, fresh_until, valid_until, addr_hash)"
            " SELECT v.public_id, v.enrollment_id, v.subscriber_id, v.campaign_id, v.step_key, v.lane, 'PLANNED',"
            "  v.due_at, coalesce(v.fresh_until, 'infinity'), coalesce(v.valid_until, 'infinity'), v.addr_hash"
            " FROM unnest(CAST(:public_ids AS uuid[]), CAST(:enrollments AS bigint[]), CAST(:subscribers AS bigint[]),"
            "  CAST(:campaigns AS bigint[]), CAST(:keys AS text[]), CAST(:lanes AS text[]), CAST(:dues AS timestamptz[]),"
            "  CAST(:freshes AS timestamptz[]), CAST(:valids AS timestamptz[]), CAST(:hashes AS bytea[]))"
            "  WITH ORDINALITY AS v(public_id, enrollment_id, subscriber_id, campaign_id, step_key, lane, due_at,"
            "  fresh_until, valid_until, addr_hash, n) ORDER BY v.n ON CONFLICT DO NOTHING RETURNING enrollment_id"
        ),
        {
            "public_ids": [m.public_id for m in ordered],
            "enrollments": [m.enrollment_id for m in ordered],
            "subscribers": [m.subscriber_id for m in ordered],
            "campaigns": [m.campaign_id for m in ordered],
            "keys": [m.step_key for m in ordered],
            "lanes": [m.lane for m in ordered],
            "dues": [m.due_at for m in ordered],
            "freshes": [m.fresh_until for m in ordered],
            "valids": [m.valid_until for m in ordered],
            "hashes": [m.addr_hash for m in ordered],
        },
    )
    return {row.enrollment_id for row in rows}


def used_keys(connection: Connection, enrollment_ids: Sequence[int]) -> set[tuple[int, str]]:
    """Every (enrollment id, step key) of these that has a message already."""
    rows = connection.execute(
        text("SELECT enrollment_id, step_key FROM message WHERE enrollment_id = ANY (:ids)"),
        {"ids": list(enrollment_ids)},
    )
    return {(row.enrollment_id, row.step_key) for row in rows}


def replan(connection: Connection, rows: Sequence[tuple[int, datetime, datetime]]) -> None:
    """T16: give each (message id, due, fresh until) still PLANNED its new times."""
    if rows:
        connection.execute(
            text(
                "UPDATE message m SET due_at = v.due, fresh_until = v.fresh, updated_at = wall()"
                " FROM unnest(CAST(:ids AS bigint[]), CAST(:dues AS timestamptz[]), CAST(:freshes AS timestamptz[]))"
                "  AS v(id, due, fresh) WHERE m.id = v.id AND m.state = 'PLANNED'"
            ),
            {"ids": [r[0] for r in rows], "dues": [r[1] for r in rows], "freshes": [r[2] for r in rows]},
        )


def end_planned(connection: Connection, enrollment_ids: Sequence[int], state: str, reason: str, actor: str) -> int:
    """T15: PLANNED messages of these enrollments become SUPPRESSED or SKIPPED with a reason; each is logged."""
    changed = connection.execute(
        text(
            "WITH ended AS (UPDATE message SET state = :state, reason = :reason, updated_at = wall()"
            "   WHERE enrollment_id = ANY (:ids) AND state = 'PLANNED' RETURNING id)"
            " INSERT INTO message_log (message_id, transition, actor, reason) SELECT id, 'T15', :actor, :reason FROM ended"
        ),
        {"ids": list(enrollment_ids), "state": state, "reason": reason, "actor": actor},
    )
    return int(changed.rowcount)


def expired(connection: Connection, lane: str, now: datetime, limit: int) -> list[Any]:
    """PLANNED messages past their `valid_until`: id, enrollment_id, step_key."""
    return list(
        connection.execute(
            text(
                "SELECT id, enrollment_id, step_key FROM message WHERE state = 'PLANNED' AND lane = :lane"
                " AND valid_until <= :now ORDER BY enrollment_id LIMIT :limit"
            ),
            {"lane": lane, "now": now, "limit": limit},
        )
    )


def groups_due(connection: Connection, lane: str, now: datetime) -> list[Any]:
    """The (campaign_id, step_key) groups of a lane that have a message to claim, found by skipping along the index."""
    return list(
        connection.execute(
            text(
                "WITH RECURSIVE step AS ("
                " (SELECT campaign_id, step_key FROM message WHERE state = 'PLANNED' AND lane = :lane"
                "   ORDER BY campaign_id, step_key LIMIT 1)"
                " UNION ALL SELECT n.campaign_id, n.step_key FROM step, LATERAL ("
                "   SELECT campaign_id, step_key FROM message WHERE state = 'PLANNED' AND lane = :lane"
                "   AND (campaign_id, step_key) > (step.campaign_id, step.step_key)"
                "   ORDER BY campaign_id, step_key LIMIT 1) AS n)"
                " SELECT s.campaign_id, s.step_key FROM step s JOIN campaign c ON c.id = s.campaign_id"
                " WHERE c.state = 'running' AND EXISTS (SELECT FROM message m WHERE m.state = 'PLANNED' AND m.lane = :lane"
                "   AND m.campaign_id = s.campaign_id AND m.step_key = s.step_key AND m.due_at <= :now"
                "   AND least(m.fresh_until, m.valid_until) > :now AND m.retry_at <= wall())"
                " ORDER BY s.campaign_id, s.step_key"
            ),
            {"lane": lane, "now": now},
        )
    )


def claim(
    connection: Connection, *, lane: str, campaign_id: int, step_key: str, now: datetime, limit: int
) -> list[Any]:
    """Lock at most `limit` claimable messages of one group, oldest first: id, enrollment_id, lapses (T2's first half)."""
    return list(
        connection.execute(
            text(
                "SELECT id, enrollment_id, lapses FROM message WHERE state = 'PLANNED' AND lane = :lane"
                " AND campaign_id = :campaign AND step_key = :key AND due_at <= :now"
                " AND least(fresh_until, valid_until) > :now AND retry_at <= wall()"
                " ORDER BY due_at, id LIMIT :limit FOR UPDATE SKIP LOCKED"
            ),
            {"lane": lane, "campaign": campaign_id, "key": step_key, "now": now, "limit": limit},
        )
    )


def to_batch(connection: Connection, message_ids: Sequence[int], batch_id: int) -> None:
    """T2: these locked messages are in this batch now."""
    connection.execute(
        text("UPDATE message SET state = 'IN_BATCH', batch_id = :batch, updated_at = wall() WHERE id = ANY (:ids)"),
        {"batch": batch_id, "ids": list(message_ids)},
    )


@dataclass(frozen=True, slots=True)
class Addressee:
    """One message in a batch with what rendering needs of its subscriber. `joined_at` is the enrollment's."""

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


def in_batch(connection: Connection, batch_id: int) -> list[Addressee]:
    """Everybody still in this batch who has an address, in the order of the payload."""
    rows = connection.execute(
        text(
            "SELECT m.id, m.public_id, m.enrollment_id, m.subscriber_id, e.round, s.address, s.addr_hash, s.fields,"
            "  s.timezone, e.joined_at"
            " FROM message m JOIN subscriber s ON s.id = m.subscriber_id JOIN enrollment e ON e.id = m.enrollment_id"
            " WHERE m.batch_id = :batch AND m.state = 'IN_BATCH' AND s.address IS NOT NULL ORDER BY m.id"
        ),
        {"batch": batch_id},
    )
    return [Addressee(**{**row._mapping, "addr_hash": bytes(row.addr_hash)}) for row in rows]


def check_out(connection: Connection, batch_id: int, scopes: Sequence[str]) -> list[Any]:
    """T5, the final word: who in this batch must not be mailed leaves it now. Returns id, enrollment_id, reason.

    `scopes` are those that bind this lane. An ended enrollment leaves too.
    """
    return list(
        connection.execute(
            text(
                "UPDATE message m SET state = v.state, reason = v.reason, batch_id = NULL, updated_at = wall() FROM ("
                "  SELECT m.id, CASE WHEN x.reason IS NOT NULL OR s.state = 'erased' THEN 'SUPPRESSED' ELSE 'SKIPPED' END AS state,"
                "    coalesce(x.reason, CASE WHEN s.state = 'erased' THEN 'erased' END, e.ended_reason, 'exit') AS reason"
                "  FROM message m JOIN subscriber s ON s.id = m.subscriber_id JOIN enrollment e ON e.id = m.enrollment_id"
                "  LEFT JOIN LATERAL (SELECT x.reason FROM suppression x WHERE x.addr_hash = s.addr_hash"
                "    AND x.scope = ANY (:scopes) AND x.action = 'suppress' AND NOT EXISTS (SELECT FROM suppression l"
                "      WHERE l.addr_hash = x.addr_hash AND l.scope = x.scope AND l.action = 'lift' AND l.seq > x.seq)"
                "    ORDER BY x.seq DESC LIMIT 1) AS x ON true"
                "  WHERE m.batch_id = :batch AND m.state = 'IN_BATCH'"
                "    AND (x.reason IS NOT NULL OR s.state = 'erased' OR e.state IN ('exited', 'finished'))) AS v"
                " WHERE m.id = v.id AND m.state = 'IN_BATCH' RETURNING m.id, m.enrollment_id, m.step_key, m.reason"
            ),
            {"batch": batch_id, "scopes": list(scopes)},
        )
    )


def log(
    connection: Connection, rows: Sequence[tuple[int, str]], transition: str, batch_id: int | None, actor: str
) -> None:
    """Write a line for each (message id, reason): every change but the ordinary T1, T2, T3, T6."""
    if rows:
        connection.execute(
            text(
                "INSERT INTO message_log (message_id, transition, batch_id, actor, reason)"
                " SELECT v.id, :transition, :batch, :actor, v.reason"
                " FROM unnest(CAST(:ids AS bigint[]), CAST(:reasons AS text[])) AS v(id, reason)"
            ),
            {
                "ids": [row[0] for row in rows],
                "reasons": [row[1] for row in rows],
                "transition": transition,
                "batch": batch_id,
                "actor": actor,
            },
        )


def enrollments_in(connection: Connection, batch_id: int) -> list[int]:
    """The enrollments of everybody in this batch."""
    rows = connection.execute(
        text("SELECT enrollment_id FROM message WHERE batch_id = :batch AND state = 'IN_BATCH' ORDER BY 1"),
        {"batch": batch_id},
    )
    return [row.enrollment_id for row in rows]


def accept(connection: Connection, batch_id: int, now: datetime) -> list[Any]:
    """T6, T10: everybody in this batch is accepted. Returns id, enrollment_id, step_key."""
    return list(
        connection.execute(
            text(
                "UPDATE message SET state = 'ACCEPTED', accepted_at = :now, updated_at = wall()"
                " WHERE batch_id = :batch AND state = 'IN_BATCH' RETURNING id, enrollment_id, step_key"
            ),
            {"batch": batch_id, "now": now},
        )
    )


def accept_late(connection: Connection, message_id: int, batch_id: int, now: datetime) -> Any | None:
    """T13: evidence of an earlier batch wins over whatever we believed. Returns enrollment_id, step_key or None."""
    return connection.execute(
        text(
            "UPDATE message SET state = 'ACCEPTED', reason = NULL, batch_id = :batch, accepted_at = :now, updated_at = wall()"
            " WHERE id = :id AND state <> 'ACCEPTED' RETURNING enrollment_id, step_key"
        ),
        {"id": message_id, "batch": batch_id, "now": now},
    ).first()


def back_to_planned(
    connection: Connection,
    batch_id: int,
    *,
    retry_after_seconds: float,
    lapsed: bool,
    attempted: bool,
    only: Sequence[int] | None = None,
) -> list[int]:
    """T4, T7, T8, T11: these of the batch (all, or `only`) are PLANNED again, claimable after the given wall seconds."""
    rows = connection.execute(
        text(
            "UPDATE message SET state = 'PLANNED', batch_id = NULL, updated_at = wall(),"
            "  retry_at = wall() + make_interval(secs => :seconds),"
            "  lapses = lapses + CASE WHEN :lapsed THEN 1 ELSE 0 END,"
            "  attempts = attempts + CASE WHEN :attempted THEN 1 ELSE 0 END"
            " WHERE batch_id = :batch AND state = 'IN_BATCH'"
            "   AND (CAST(:only AS bigint[]) IS NULL OR id = ANY (CAST(:only AS bigint[]))) RETURNING id"
        ),
        {
            "batch": batch_id,
            "seconds": retry_after_seconds,
            "lapsed": lapsed,
            "attempted": attempted,
            "only": list(only) if only is not None else None,
        },
    )
    return [row.id for row in rows]


def reject(connection: Connection, message_ids: Sequence[int], reason: str) -> list[Any]:
    """T4, T8: these will never be accepted. Returns id, enrollment_id, step_key."""
    return list(
        connection.execute(
            text(
                "UPDATE message SET state = 'REJECTED', reason = :reason, updated_at = wall()"
                " WHERE id = ANY (:ids) AND state = 'IN_BATCH' RETURNING id, enrollment_id, step_key"
            ),
            {"ids": list(message_ids), "reason": reason},
        )
    )


def hold(connection: Connection, batch_id: int, reason: str) -> list[int]:
    """T12: nobody knows; an operator decides."""
    rows = connection.execute(
        text(
            "UPDATE message SET state = 'HELD', reason = :reason, updated_at = wall()"
            " WHERE batch_id = :batch AND state = 'IN_BATCH' RETURNING id"
        ),
        {"batch": batch_id, "reason": reason},
    )
    return [row.id for row in rows]


def poisoned(connection: Connection, batch_id: int, lapses: int) -> list[int]:
    """The ids in this batch whose owners died `lapses` times or more."""
    rows = connection.execute(
        text("SELECT id FROM message WHERE batch_id = :batch AND state = 'IN_BATCH' AND lapses >= :lapses"),
        {"batch": batch_id, "lapses": lapses},
    )
    return [row.id for row in rows]


def set_delivery(connection: Connection, message_id: int, before: Sequence[str], after: str) -> None:
    """Move `delivery` forward: only from nothing or from one of `before`."""
    connection.execute(
        text(
            "UPDATE message SET delivery = :after, updated_at = wall()"
            " WHERE id = :id AND (delivery IS NULL OR delivery = ANY (:before))"
        ),
        {"id": message_id, "before": list(before), "after": after},
    )


def of_batch(connection: Connection, message_ids: Sequence[int]) -> list[Any]:
    """What evidence is matched against: id, public_id, state, batch_id, subscriber_id, enrollment_id, lane."""
    return list(
        connection.execute(
            text(
                "SELECT id, public_id, state, batch_id, subscriber_id, enrollment_id, lane, delivery"
                " FROM message WHERE id = ANY (:ids)"
            ),
            {"ids": list(message_ids)},
        )
    )


def most_attempts(connection: Connection, batch_id: int) -> int:
    """How often the most tried message of this batch was called for and not accepted."""
    found: int = connection.execute(
        text("SELECT coalesce(max(attempts), 0) FROM message WHERE batch_id = :batch AND state = 'IN_BATCH'"),
        {"batch": batch_id},
    ).scalar_one()
    return found


def of_ended_enrollments(connection: Connection, message_ids: Sequence[int]) -> list[Any]:
    """Those of these PLANNED messages whose enrollment has ended: enrollment_id, ended_reason."""
    return list(
        connection.execute(
            text(
                "SELECT m.enrollment_id, coalesce(e.ended_reason, 'exit') AS ended_reason"
                " FROM message m JOIN enrollment e ON e.id = m.enrollment_id"
                " WHERE m.id = ANY (:ids) AND m.state = 'PLANNED' AND e.state IN ('finished', 'exited') ORDER BY 1"
            ),
            {"ids": list(message_ids)},
        )
    )
