"""The suppression ledger: append-only rows that say who must not be mailed, in which scope, and why.

A scope is `all` (binds every lane), `marketing`, `topic:<name>` or `campaign:<name>` (bind the drip and newsletter
lanes). Of one address and scope the newest row counts; a lift says nothing about any other scope.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from dripwell.core.errors import UnavailableError
from dripwell.storage import arrays
from dripwell.storage.database import Connection

ALL = "all"
MARKETING = "marketing"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the ledger. `at` is wall time."""

    seq: int
    action: str
    reason: str
    source: str
    evidence: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Ended:
    """What `end_enrollments` did: the enrollments that left, and how many planned messages went with them."""

    enrollment_ids: tuple[int, ...]
    messages: int


def binding_scopes(*, marketing: bool, topic: str, campaign: str) -> tuple[str, ...]:
    """The scopes that forbid a message of this campaign: only `all` binds the service lanes."""
    if not marketing:
        return (ALL,)
    return (ALL, MARKETING, f"topic:{topic}", f"campaign:{campaign}")


# append: one more row; the number it got says when it was written, not when it was committed.
_APPEND = text("""
INSERT INTO suppression (addr_hash, scope, action, reason, source, evidence)
VALUES (:addr_hash, :scope, :action, :reason, :source, :evidence)
RETURNING seq
""")


def append(
    connection: Connection, *, addr_hash: bytes, scope: str, action: str, reason: str, source: str, evidence: str
) -> int:
    """Add one row (`action` is suppress or lift) and return its number."""
    values = {
        "addr_hash": addr_hash,
        "scope": scope,
        "action": action,
        "reason": reason,
        "source": source,
        "evidence": evidence,
    }
    seq: int = connection.execute(_APPEND, values).scalar_one()
    return seq


# hold_ledger: nobody adds a row until this transaction is over, and whoever was adding one is done. Without this, a
# lift could take a higher number than a word that nobody sees yet, and so take it back unread. Whoever waits for the
# table makes every unsubscribe wait behind them, so nobody waits for long: not for it, and not while holding it.
_PATIENCE = text("SET LOCAL lock_timeout = '200ms'")
_HOLD_LEDGER = text("LOCK TABLE suppression IN SHARE ROW EXCLUSIVE MODE")


def hold_ledger(connection: Connection) -> None:
    """Let nobody write until the commit, and wait for who is writing: for a lift that no row may slip behind.

    Keep the rest of the transaction short, in which no lock is waited for longer than 200 ms either: two who wait for
    each other are over with that. Raises UnavailableError when somebody is writing for longer, an import perhaps.
    """
    connection.execute(_PATIENCE)
    try:
        connection.execute(_HOLD_LEDGER)
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != "55P03":
            raise
        raise UnavailableError(
            "the suppression ledger is being written, by an import perhaps. Nothing was changed: try again in a moment"
        ) from error


# since_last_lift: the rows that now make this scope suppressed, oldest first; none = not suppressed.
_SINCE_LAST_LIFT = text("""
SELECT seq, action, reason, source, evidence, at
  FROM suppression
 WHERE addr_hash = :addr_hash AND scope = :scope
   AND seq > coalesce((SELECT max(seq) FROM suppression
                        WHERE addr_hash = :addr_hash AND scope = :scope AND action = 'lift'), 0)
 ORDER BY seq
""")


def since_last_lift(connection: Connection, addr_hash: bytes, scope: str) -> list[Entry]:
    """The rows that suppress this scope now, oldest first. Empty: it is not suppressed."""
    rows = connection.execute(_SINCE_LAST_LIFT, {"addr_hash": addr_hash, "scope": scope})
    return [Entry(*row) for row in rows]


# standing: of these addresses, each (address, scope) whose newest row suppresses. This is the check that binds.
_STANDING = text("""
SELECT addr_hash, scope
  FROM (SELECT DISTINCT ON (addr_hash, scope) addr_hash, scope, action
          FROM suppression
         WHERE addr_hash = ANY(:hashes) AND scope = ANY(:scopes)
         ORDER BY addr_hash, scope, seq DESC) AS newest
 WHERE action = 'suppress'
""")


def standing(connection: Connection, hashes: Sequence[bytes], scopes: Sequence[str]) -> set[tuple[bytes, str]]:
    """Which of these addresses are suppressed, and in which of these scopes. The last word (ARCHITECTURE, rule 5)."""
    rows = connection.execute(_STANDING, {"hashes": list(hashes), "scopes": list(scopes)})
    return {(bytes(row.addr_hash), row.scope) for row in rows}


# reasons: of these addresses, each (address, scope) that is suppressed, with the reason of the newest row.
_REASONS = text("""
SELECT addr_hash, scope, reason
  FROM (SELECT DISTINCT ON (addr_hash, scope) addr_hash, scope, action, reason
          FROM suppression
         WHERE addr_hash = ANY(CAST(:hashes AS bytea[]))
         ORDER BY addr_hash, scope, seq DESC) AS newest
 WHERE action = 'suppress'
""")


def reasons(connection: Connection, hashes: Sequence[bytes]) -> dict[tuple[bytes, str], str]:
    """Why each of these addresses is suppressed, by (address hash, scope). Who is not suppressed is missing."""
    rows = connection.execute(_REASONS, {"hashes": arrays.hashes(hashes)})
    return {(bytes(row.addr_hash), row.scope): row.reason for row in rows}


# all_standing: everybody who is suppressed now, for rebuilding the fast set.
_ALL_STANDING = text("""
SELECT addr_hash, scope
  FROM (SELECT DISTINCT ON (addr_hash, scope) addr_hash, scope, action
          FROM suppression
         ORDER BY addr_hash, scope, seq DESC) AS newest
 WHERE action = 'suppress'
""").execution_options(yield_per=5_000)


def all_standing(connection: Connection) -> Iterator[tuple[bytes, str]]:
    """Everybody who is suppressed now, in no order; fetched in pieces, so that a large ledger fits in memory."""
    with connection.execute(_ALL_STANDING) as rows:
        for row in rows:
            yield bytes(row.addr_hash), row.scope


# horizon: every transaction before it is over, so rows of later ones are all that can still appear.
_HORIZON = text("SELECT CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)")

# changed_from: rows of transactions that were not over at a horizon. `seq` is not commit order; `xid` bounds it.
_CHANGED_FROM = text("""
SELECT DISTINCT addr_hash, scope FROM suppression
 WHERE xid >= CAST(CAST(:horizon AS text) AS xid8)
""")


def horizon(connection: Connection) -> int:
    """The oldest transaction still running, as a number. Read it before the rows it is to bound."""
    value: int = connection.execute(_HORIZON).scalar_one()
    return value


def changed_from(connection: Connection, horizon: int) -> list[tuple[bytes, str]]:
    """What may have been suppressed or lifted since that horizon was read; some of it may be known already."""
    rows = connection.execute(_CHANGED_FROM, {"horizon": horizon})
    return [(bytes(row.addr_hash), row.scope) for row in rows]


# marks: which timeline this record is, and which build of the fast set belongs to it.
_MARKS = text("SELECT epoch, suppression_generation FROM installation")


def marks(connection: Connection) -> tuple[int, int]:
    """The epoch and the generation that a valid fast set carries."""
    row = connection.execute(_MARKS).one()
    return row.epoch, row.suppression_generation


# lock_in_scope: hold the open enrollments a suppression of this scope ends, in the one order everybody locks in.
_LOCK_IN_SCOPE = text("""
SELECT enrollment.id
  FROM enrollment JOIN campaign ON campaign.id = enrollment.campaign_id
 WHERE enrollment.subscriber_id = :subscriber_id
   AND enrollment.state IN ('waiting', 'mailing')
   AND (:scope = 'all'
        OR campaign.kind IN ('drip', 'newsletter')
           AND (:scope = 'marketing' OR :scope = 'topic:' || campaign.topic OR :scope = 'campaign:' || campaign.name))
 ORDER BY enrollment.id
   FOR UPDATE OF enrollment
""")


def lock_in_scope(connection: Connection, subscriber_id: int, scope: str) -> list[int]:
    """Lock this person's open enrollments in `scope`, by id, and return them."""
    return list(connection.execute(_LOCK_IN_SCOPE, {"subscriber_id": subscriber_id, "scope": scope}).scalars())


# lock_open: hold those of these enrollments that are still open, in the one order everybody locks in.
_LOCK_OPEN = text("""
SELECT id FROM enrollment
 WHERE id = ANY(:ids) AND state IN ('waiting', 'mailing')
 ORDER BY id
   FOR UPDATE
""")

# lock_planned: hold the messages that end with these enrollments, in the one order everybody locks in.
_LOCK_PLANNED = text("""
SELECT id FROM message
 WHERE enrollment_id = ANY(:ids) AND state = 'PLANNED'
 ORDER BY id
   FOR UPDATE
""")

# stop_planned (T15): they will not be mailed; each change is logged.
_STOP_PLANNED = text("""
WITH stopped AS (
  UPDATE message SET state = :state, reason = :reason, updated_at = wall()
   WHERE id = ANY(:ids) AND state = 'PLANNED'
  RETURNING id
)
INSERT INTO message_log (message_id, transition, actor, reason)
SELECT id, 'T15', :actor, :reason FROM stopped ORDER BY id
""")

# leave: these enrollments are over.
_LEAVE = text("""
UPDATE enrollment SET state = 'exited', ended_reason = :reason, ended_at = :now, waits_for = NULL
 WHERE id = ANY(:ids) AND state IN ('waiting', 'mailing')
RETURNING id
""")


def end_enrollments(
    connection: Connection, enrollment_ids: Sequence[int], *, state: str, reason: str, now: datetime, actor: str
) -> Ended:
    """Stop the planned messages of these enrollments (T15, to `state`), then end the enrollments.

    Locks enrollments before messages, each by id. A message that a batch already holds is left to that batch: its
    final check sees the ended enrollment. Enrollments that ended before are left as they are.
    """
    ids = list(connection.execute(_LOCK_OPEN, {"ids": list(enrollment_ids)}).scalars())
    if not ids:
        return Ended((), 0)
    planned = list(connection.execute(_LOCK_PLANNED, {"ids": ids}).scalars())
    if planned:
        connection.execute(_STOP_PLANNED, {"ids": planned, "state": state, "reason": reason, "actor": actor})
    left = connection.execute(_LEAVE, {"ids": ids, "reason": reason, "now": now}).scalars()
    return Ended(tuple(sorted(left)), len(planned))


# subscriber_hash: the hash and the state of a person; the hash is NULL once erased.
_SUBSCRIBER = text("SELECT addr_hash, state FROM subscriber WHERE id = :subscriber_id")


def address_of(connection: Connection, subscriber_id: int) -> tuple[bytes | None, str] | None:
    """The address hash (None once erased) and the state of a subscriber; None when there is no such subscriber."""
    row = connection.execute(_SUBSCRIBER, {"subscriber_id": subscriber_id}).one_or_none()
    return None if row is None else (None if row.addr_hash is None else bytes(row.addr_hash), row.state)


# mark_subscriber: show on the person what the ledger says; an erased person stays erased.
_MARK_SUBSCRIBER = text("""
UPDATE subscriber SET state = :state
 WHERE id = :subscriber_id AND state <> :state AND state <> 'erased'
   AND (state <> 'undeliverable' OR :state = 'active')
""")


def mark_subscriber(connection: Connection, subscriber_id: int, state: str) -> None:
    """Set the state that pages and segments show. The ledger decides; this only reflects it.

    An erased person stays erased; a dead address is not made to look merely unsubscribed.
    """
    connection.execute(_MARK_SUBSCRIBER, {"subscriber_id": subscriber_id, "state": state})


# note_push: remember to tell the fast set; telling it twice is harmless.
_NOTE_PUSH = text("""
INSERT INTO outbox (kind, detail)
VALUES ('suppression', jsonb_build_object('addr_hash', encode(:addr_hash, 'hex'), 'scope', CAST(:scope AS text)))
""")


def note_push(connection: Connection, addr_hash: bytes, scope: str) -> None:
    """Leave a note that this suppression must reach the fast set."""
    connection.execute(_NOTE_PUSH, {"addr_hash": addr_hash, "scope": scope})


# claim_pushes: the oldest open notes; other pushers skip them.
_CLAIM_PUSHES = text("""
SELECT id, decode(detail ->> 'addr_hash', 'hex') AS addr_hash, detail ->> 'scope' AS scope
  FROM outbox
 WHERE kind = 'suppression' AND done_at IS NULL
 ORDER BY id
 LIMIT :limit
   FOR UPDATE SKIP LOCKED
""")
_DONE_PUSHES = text("UPDATE outbox SET done_at = wall() WHERE id = ANY(:ids)")


def claim_pushes(connection: Connection, limit: int) -> list[tuple[int, bytes, str]]:
    """Up to `limit` open notes as (id, address hash, scope), oldest first."""
    rows = connection.execute(_CLAIM_PUSHES, {"limit": limit})
    return [(row.id, bytes(row.addr_hash), row.scope) for row in rows]


def done_pushes(connection: Connection, ids: Sequence[int]) -> None:
    """These notes have been acted on."""
    connection.execute(_DONE_PUSHES, {"ids": list(ids)})
