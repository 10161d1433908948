"""Erasures: who is to be erased, how far that is, and what a pass forgets besides. The rows themselves: `wiping`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from dripwell.storage import arrays
from dripwell.storage.database import Connection

SWEEP_AFTER = 120.0
"""Seconds after which nothing that ran beside an erasure can still write: no transaction stands still for longer."""


@dataclass(frozen=True, slots=True)
class Row:
    """One erasure. `sealed` is the address in a form only this installation reads (`core.seal`)."""

    id: int
    subscriber_id: int
    public_id: UUID
    state: str
    sealed: bytes | None
    tries: int


# begin: one open erasure a person.
_BEGIN = text("""
INSERT INTO erasure (subscriber_id, actor)
VALUES (:subscriber_id, :actor)
    ON CONFLICT (subscriber_id) WHERE state <> 'done' DO NOTHING
RETURNING id
""")
# latest_of: what there is of this person.
_LATEST_OF = text("SELECT id, state FROM erasure WHERE subscriber_id = :subscriber_id ORDER BY id DESC LIMIT 1")


def begin(connection: Connection, subscriber_id: int, actor: str) -> int | None:
    """Write down that this person is to be erased, and return the number; None: somebody else has."""
    found: int | None = connection.execute(_BEGIN, {"subscriber_id": subscriber_id, "actor": actor}).scalar()
    return found


def latest_of(connection: Connection, subscriber_id: int) -> tuple[int, str] | None:
    """The newest erasure of this person: its number and its state."""
    row = connection.execute(_LATEST_OF, {"subscriber_id": subscriber_id}).one_or_none()
    return None if row is None else (row.id, row.state)


_ANSWER_OF = text("SELECT answer, job_id <> '' AS taken FROM erasure WHERE id = :id")


@dataclass(frozen=True, slots=True)
class Answered:
    """What the provider said last, and whether it took the request: an SMTP relay has none."""

    words: str
    taken: bool


def answer_of(connection: Connection, erasure_id: int) -> Answered:
    """What is known of the provider's part of this erasure."""
    row = connection.execute(_ANSWER_OF, {"id": erasure_id}).one()
    return Answered(row.answer, row.taken)


# under_way: messages that a batch holds, whoever has it.
_UNDER_WAY = text("""
SELECT EXISTS (SELECT
                 FROM enrollment JOIN message ON message.enrollment_id = enrollment.id
                WHERE enrollment.subscriber_id = :subscriber_id AND message.state = 'IN_BATCH')
""")


def is_under_way(connection: Connection, subscriber_id: int) -> bool:
    """Whether a batch holds a message for this person: its evidence is asked for by the address."""
    found: bool = connection.execute(_UNDER_WAY, {"subscriber_id": subscriber_id}).scalar_one()
    return found


# open_enrollments, held: what an erasure ends. By id, as everybody locks.
_OPEN = text("""
SELECT id FROM enrollment
 WHERE subscriber_id = :subscriber_id AND state IN ('waiting', 'mailing')
 ORDER BY id
   FOR UPDATE
""")
_HELD = text("""
SELECT message.id, message.batch_id
  FROM enrollment JOIN message ON message.enrollment_id = enrollment.id
 WHERE enrollment.subscriber_id = :subscriber_id AND message.state = 'HELD'
 ORDER BY message.id
   FOR UPDATE OF message
""")


def open_enrollments(connection: Connection, subscriber_id: int) -> list[int]:
    """Lock this person's open enrollments, of every kind of campaign, and return their ids."""
    return list(connection.execute(_OPEN, {"subscriber_id": subscriber_id}).scalars())


def held(connection: Connection, subscriber_id: int) -> list[Any]:
    """Lock this person's held messages: id, batch_id."""
    return list(connection.execute(_HELD, {"subscriber_id": subscriber_id}))


# forget_read: whatever a webhook told is in the tables by then.
_FORGET_READ = text("""
UPDATE webhook_inbox SET raw = ''
 WHERE id IN (SELECT id FROM webhook_inbox WHERE state = 'done' AND raw <> '' ORDER BY id LIMIT :limit)
   AND state = 'done'
""")
# forget_pushed: notes for the fast set that it has had; they hold hashes.
_FORGET_PUSHED = text("""
DELETE FROM outbox
 WHERE id IN (SELECT id FROM outbox WHERE kind = 'suppression' AND done_at IS NOT NULL ORDER BY id LIMIT :limit)
""")


def forget_read(connection: Connection, limit: int) -> int:
    """Empty the bodies of webhooks that were read, oldest first; returns how many."""
    return connection.execute(_FORGET_READ, {"limit": limit}).rowcount


def forget_pushed(connection: Connection, limit: int) -> int:
    """Remove notes that the fast set has had; returns how many."""
    return connection.execute(_FORGET_PUSHED, {"limit": limit}).rowcount


# forget_quoted: nobody can tell whose row a refused line was, so every cell goes that is quoted anywhere. Which line it
# was, and what was wrong with it, stays.
_FORGET_QUOTED = text("""
UPDATE import_refusal SET reason = regexp_replace(reason, '`.*`', 'what it says') WHERE reason LIKE '%`%'
""")


def forget_quoted(connection: Connection) -> int:
    """Take what refused rows of files said out of the reasons that quote them; returns how many reasons that were."""
    return connection.execute(_FORGET_QUOTED).rowcount


# wiped: the record is clean; the provider comes next.
_WIPED = text("""
UPDATE erasure SET state = 'asking', erased_at = wall(), sealed = :sealed, tries = 0, retry_at = '-infinity'
 WHERE id = :id AND state = 'begun'
""")
# told: the provider has taken it, or there is nobody to ask.
_TOLD = text("""
UPDATE erasure
   SET state = 'asked', sealed = NULL, provider = :provider, job_id = :job_id, answer = :answer, tries = tries + 1
 WHERE id = :id AND state = 'asking'
""")
# not_told: later once more.
_NOT_TOLD = text("""
UPDATE erasure
   SET provider = :provider, answer = :answer, tries = tries + 1, retry_at = wall() + make_interval(secs => :seconds)
 WHERE id = :id AND state = 'asking'
""")
# put_off: a call that names the person is under way; whoever else waits must not wait behind them.
_PUT_OFF = text("""
UPDATE erasure SET tries = tries + 1, retry_at = wall() + make_interval(secs => :seconds)
 WHERE id = :id AND state = 'begun'
""")
_DONE = text("UPDATE erasure SET state = 'done', done_at = wall() WHERE id = :id AND state = 'asked'")


def wiped(connection: Connection, erasure_id: int, sealed: bytes) -> None:
    """The record is clean; `sealed` waits for the provider."""
    connection.execute(_WIPED, {"id": erasure_id, "sealed": sealed})


def put_off(connection: Connection, erasure_id: int, seconds: float) -> None:
    """The record cannot be cleaned yet; look again after so many seconds of wall time."""
    connection.execute(_PUT_OFF, {"id": erasure_id, "seconds": seconds})


def told(connection: Connection, erasure_id: int, *, provider: str, job_id: str, answer: str) -> bool:
    """The provider has taken the request, or there is none to ask: the sealed address is gone. False: it was before."""
    values = {"id": erasure_id, "provider": provider, "job_id": job_id, "answer": answer}
    return connection.execute(_TOLD, values).rowcount == 1


def not_told(connection: Connection, erasure_id: int, *, provider: str, answer: str, seconds: float) -> None:
    """The provider did not take it; ask again after so many seconds of wall time."""
    values = {"id": erasure_id, "provider": provider, "answer": answer, "seconds": seconds}
    connection.execute(_NOT_TOLD, values)


def done(connection: Connection, erasure_id: int) -> bool:
    """Nothing is left anywhere."""
    return connection.execute(_DONE, {"id": erasure_id}).rowcount == 1


# due: of one state, whose time has come; other passes skip them.
_DUE = text("""
SELECT erasure.id, erasure.subscriber_id, subscriber.public_id, erasure.state, erasure.sealed, erasure.tries
  FROM erasure JOIN subscriber ON subscriber.id = erasure.subscriber_id
 WHERE erasure.state = :state AND erasure.retry_at <= wall()
   AND coalesce(erasure.erased_at, '-infinity') <= wall() - make_interval(secs => :since)
   AND (CAST(:only AS bigint) IS NULL OR erasure.id = :only)
 ORDER BY erasure.id
 LIMIT :limit
""")


def due(connection: Connection, state: str, *, limit: int, since: float = 0.0, only: int | None = None) -> list[Row]:
    """Erasures in this state whose time has come, oldest first. `since`: seconds since the record was clean."""
    values = {"state": state, "limit": limit, "since": since, "only": only}
    return [
        Row(**{**row._mapping, "sealed": None if row.sealed is None else bytes(row.sealed)})
        for row in connection.execute(_DUE, values)
    ]


# listed: for an operator.
_LISTED = text("""
SELECT erasure.id, erasure.subscriber_id, subscriber.public_id, erasure.state, erasure.actor, erasure.begun_at,
       erasure.erased_at, erasure.done_at, erasure.provider, erasure.tries,
       nullif(erasure.retry_at, '-infinity') AS retry_at, erasure.answer, erasure.job_id, erasure.sealed
  FROM erasure JOIN subscriber ON subscriber.id = erasure.subscriber_id
 WHERE :everything OR erasure.state <> 'done'
 ORDER BY erasure.id DESC
 LIMIT :limit
""")


def listed(connection: Connection, *, everything: bool, limit: int) -> list[Any]:
    """Erasures that are not done, or all, the newest first. `retry_at` None: nothing waited."""
    return list(connection.execute(_LISTED, {"everything": everything, "limit": limit}))


# erased: the newest row that binds marketing says so.
_ERASED = text("""
SELECT DISTINCT newest.addr_hash
  FROM unnest(CAST(:hashes AS bytea[])) AS asked (addr_hash)
 CROSS JOIN LATERAL (SELECT suppression.addr_hash, suppression.action, suppression.seq
                       FROM suppression
                      WHERE suppression.addr_hash = asked.addr_hash AND suppression.reason = 'erased'
                      ORDER BY suppression.seq DESC
                      LIMIT 1) AS newest
 WHERE NOT EXISTS (SELECT FROM suppression AS lift
                    WHERE lift.addr_hash = newest.addr_hash AND lift.scope = 'marketing' AND lift.action = 'lift'
                      AND lift.seq > newest.seq)
""")


def erased(connection: Connection, hashes: Sequence[bytes]) -> set[bytes]:
    """Which of these addresses were erased and have not opted in again: an import must not bring them back."""
    return {bytes(found) for found in connection.execute(_ERASED, {"hashes": arrays.hashes(hashes)}).scalars()}


# came_back: erased by the ledger, which outlives a restore, and here all the same, from before that. Whoever has come
# anew since has asked, for no file and no program brings an erased address back.
_CAME_BACK = text("""
SELECT subscriber.id
  FROM suppression JOIN subscriber ON subscriber.addr_hash = suppression.addr_hash
 WHERE suppression.reason = 'erased' AND suppression.action = 'suppress'
   AND (EXISTS (SELECT FROM consent
                 WHERE consent.subscriber_id = subscriber.id AND consent.recorded_at < suppression.at)
        OR NOT EXISTS (SELECT FROM consent WHERE consent.subscriber_id = subscriber.id)
           AND NOT EXISTS (SELECT FROM signup
                            WHERE signup.subscriber_id = subscriber.id AND signup.asked_wall > suppression.at))
   AND NOT EXISTS (SELECT FROM erasure WHERE erasure.subscriber_id = subscriber.id AND erasure.state <> 'done')
   AND NOT EXISTS (SELECT FROM suppression AS lift
                    WHERE lift.addr_hash = suppression.addr_hash AND lift.scope = 'marketing' AND lift.action = 'lift'
                      AND lift.seq > suppression.seq)
 ORDER BY subscriber.id
 LIMIT :limit
""")


def came_back(connection: Connection, limit: int) -> list[int]:
    """People whom a restored backup brought back after they were erased."""
    return list(connection.execute(_CAME_BACK, {"limit": limit}).scalars())


def minute_of(now: datetime) -> int:
    """Minutes since 1970, as bookings count."""
    return int(now.timestamp() // 60)
