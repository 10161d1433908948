"""The provider's suppression lists as rows: what it must be told, whom it lists, and where each pull stands.

Hashes only. All times are wall time. The ledger decides; nothing here ever lifts anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import text

from dripwell.storage import arrays
from dripwell.storage.database import Connection

LEASE = timedelta(seconds=90)
"""For so long a note or a page belongs to the process that took it: longer than a request may take."""
KEPT = timedelta(days=90)
"""Done notes are kept for so long."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """Until when the provider is left alone about its lists, and why. `failures` in a row."""

    until: datetime | None
    reason: str
    failures: int
    is_on: bool


@dataclass(frozen=True, slots=True)
class Note:
    """One address that the provider must be told about, with what the ledger says at this moment.

    `address` is None when nobody here has it (any more). `all_stands`, `marketing_stands`: suppressed in that scope;
    `all_lifted`, `marketing_lifted`: it was, and the newest row is a lift. `listed`: the lists that had it.
    """

    ids: tuple[int, ...]
    addr_hash: bytes
    asked: bool
    address: str | None
    all_stands: bool
    marketing_stands: bool
    all_lifted: bool
    marketing_lifted: bool
    listed: frozenset[str]


# quiet: whether the provider is left alone.
_QUIET = text(
    "SELECT nullif(until, '-infinity') AS until, reason, failures, until > wall() AS is_on FROM provider_quiet"
)

# hush: leave the provider alone for a while.
_HUSH = text("""
UPDATE provider_quiet
   SET until = greatest(until, wall() + make_interval(secs => :seconds)), reason = :reason, failures = failures + 1,
       since = coalesce(since, wall())
""")

# heard: it answered as it should.
_HEARD = text("""
UPDATE provider_quiet SET until = '-infinity', reason = '', failures = 0, since = NULL WHERE failures > 0
""")


def quiet(connection: Connection) -> Quiet:
    """Until when the provider is left alone about its lists."""
    row = connection.execute(_QUIET).one()
    return Quiet(row.until, row.reason, row.failures, row.is_on)


def hush(connection: Connection, reason: str, seconds: float) -> None:
    """Leave the provider alone for so long; `reason` holds no address and no key."""
    connection.execute(_HUSH, {"reason": reason, "seconds": seconds})


def heard(connection: Connection) -> None:
    """It answered as it should: nothing is wrong any more."""
    connection.execute(_HEARD)


# note: make the provider's lists agree with the ledger about this address.
_NOTE = text("""
INSERT INTO provider_note (addr_hash, kind)
SELECT told.addr_hash, :kind
  FROM unnest(CAST(:hashes AS bytea[])) AS told (addr_hash)
 WHERE NOT EXISTS (SELECT FROM provider_note AS waiting
                    WHERE waiting.done_at IS NULL AND waiting.tries = 0
                      AND waiting.addr_hash = told.addr_hash AND waiting.kind = :kind)
""")


def note(connection: Connection, hashes: Sequence[bytes], kind: str = "ledger") -> int:
    """Leave a note for each of these, unless one waits that nobody has taken yet. Returns how many are new."""
    if not hashes:
        return 0
    return connection.execute(_NOTE, {"hashes": arrays.hashes(hashes), "kind": kind}).rowcount


# ask_again: only where our ledger holds an unsubscribe. What the provider alone knows is read first: whoever typed this
# address into a form may be anybody.
_ASK_AGAIN = text("""
INSERT INTO provider_note (addr_hash, kind)
SELECT :addr_hash, 'asked'
 WHERE 'suppress' = (SELECT action FROM suppression
                      WHERE addr_hash = :addr_hash AND scope = 'marketing'
                      ORDER BY seq DESC
                      LIMIT 1)
   AND NOT EXISTS (SELECT FROM provider_note AS waiting
                    WHERE waiting.done_at IS NULL AND waiting.tries = 0
                      AND waiting.addr_hash = :addr_hash AND waiting.kind = 'asked')
""")


def ask_again(connection: Connection, addr_hash: bytes) -> None:
    """This person asks for our mail: an old unsubscribe on the provider's list must not swallow the confirmation.

    Say it in the transaction that plans the confirmation. Our ledger stays as it is and goes on binding; an unsubscribe
    that it does not hold yet stays on the provider's list until it does.
    """
    connection.execute(_ASK_AGAIN, {"addr_hash": addr_hash})


# forget: an erased person is a hash in the ledger and nowhere else.
_FORGET = (
    text("DELETE FROM provider_note WHERE addr_hash = :addr_hash"),
    text("DELETE FROM provider_entry WHERE addr_hash = :addr_hash"),
)


def forget(connection: Connection, addr_hash: bytes) -> None:
    """Remove every trace of this address but the ledger's."""
    for statement in _FORGET:
        connection.execute(statement, {"addr_hash": addr_hash})


# claim_notes: the oldest that are due; they come back by themselves when whoever took them dies.
_CLAIM_NOTES = text("""
UPDATE provider_note SET due_at = wall() + :lease, tries = tries + 1
 WHERE id IN (SELECT id FROM provider_note
               WHERE done_at IS NULL AND due_at <= wall()
               ORDER BY due_at, id
               LIMIT :limit
                 FOR UPDATE SKIP LOCKED)
RETURNING id, addr_hash, kind
""")

# judge: what the ledger says about these addresses now, in one moment.
_JUDGE = text("""
WITH asked AS (SELECT addr_hash FROM unnest(CAST(:hashes AS bytea[])) AS asked (addr_hash)),
     newest AS (SELECT DISTINCT ON (row.addr_hash, row.scope) row.addr_hash, row.scope, row.action
                  FROM suppression AS row JOIN asked USING (addr_hash)
                 WHERE row.scope IN ('all', 'marketing')
                 ORDER BY row.addr_hash, row.scope, row.seq DESC)
SELECT asked.addr_hash, subscriber.address,
       EXISTS (SELECT FROM newest WHERE newest.addr_hash = asked.addr_hash AND scope = 'all' AND action = 'suppress')
         AS all_stands,
       EXISTS (SELECT FROM newest WHERE newest.addr_hash = asked.addr_hash AND scope = 'marketing'
                AND action = 'suppress') AS marketing_stands,
       EXISTS (SELECT FROM newest WHERE newest.addr_hash = asked.addr_hash AND scope = 'all' AND action = 'lift')
         AS all_lifted,
       EXISTS (SELECT FROM newest WHERE newest.addr_hash = asked.addr_hash AND scope = 'marketing'
                AND action = 'lift') AS marketing_lifted,
       ARRAY(SELECT entry.list FROM provider_entry AS entry WHERE entry.addr_hash = asked.addr_hash) AS listed
  FROM asked LEFT JOIN subscriber ON subscriber.addr_hash = asked.addr_hash
""")


def claim(connection: Connection, limit: int) -> list[Note]:
    """Take up to `limit` due notes, those about one address as one. They are due again when the lease is over."""
    taken = connection.execute(_CLAIM_NOTES, {"limit": limit, "lease": LEASE}).all()
    if not taken:
        return []
    ids: dict[bytes, list[int]] = {}
    asked: set[bytes] = set()
    for row in sorted(taken, key=lambda row: int(row.id)):
        ids.setdefault(bytes(row.addr_hash), []).append(row.id)
        if row.kind == "asked":
            asked.add(bytes(row.addr_hash))
    judged = connection.execute(_JUDGE, {"hashes": arrays.hashes(ids)})
    return [
        Note(
            tuple(ids[bytes(row.addr_hash)]),
            bytes(row.addr_hash),
            bytes(row.addr_hash) in asked,
            row.address,
            row.all_stands,
            row.marketing_stands,
            row.all_lifted,
            row.marketing_lifted,
            frozenset(row.listed),
        )
        for row in judged
    ]


# done: with what became of it.
_DONE = text("UPDATE provider_note SET done_at = wall(), result = :result WHERE id = ANY(:ids) AND done_at IS NULL")

# again: later, since the provider would not hear us now.
_AGAIN = text("""
UPDATE provider_note SET due_at = wall() + make_interval(secs => :seconds) WHERE id = ANY(:ids) AND done_at IS NULL
""")

# done_some: where the provider has no lists, nobody need be told.
_DONE_SOME = text("""
UPDATE provider_note SET done_at = wall(), result = :result
 WHERE id IN (SELECT id FROM provider_note
               WHERE done_at IS NULL
               ORDER BY due_at, id
               LIMIT :limit
                 FOR UPDATE SKIP LOCKED)
""")
_FORGET_DONE = text("""
DELETE FROM provider_note
 WHERE id IN (SELECT id FROM provider_note
               WHERE done_at < wall() - CAST(:kept AS interval)
               ORDER BY done_at
               LIMIT :limit
                 FOR UPDATE SKIP LOCKED)
""")


def done(connection: Connection, ids: Sequence[int], result: str) -> None:
    """These notes have been acted on."""
    connection.execute(_DONE, {"ids": list(ids), "result": result})


def again(connection: Connection, ids: Sequence[int], seconds: float) -> None:
    """These notes wait so long."""
    connection.execute(_AGAIN, {"ids": list(ids), "seconds": seconds})


def done_some(connection: Connection, result: str, limit: int) -> int:
    """Nobody need be told of what waits, up to so many notes. Returns how many that were."""
    return connection.execute(_DONE_SOME, {"result": result, "limit": limit}).rowcount


def forget_done(connection: Connection, limit: int) -> int:
    """Drop notes that were acted on long ago, up to so many. Returns how many that were."""
    return connection.execute(_FORGET_DONE, {"kept": KEPT, "limit": limit}).rowcount


# mark_pushed: we put these on the provider's list of unsubscribes ourselves.
_MARK_PUSHED = text("""
INSERT INTO provider_entry (list, addr_hash, pushed_at)
SELECT 'unsubscribes', addr_hash, wall() FROM unnest(CAST(:hashes AS bytea[])) AS told (addr_hash)
    ON CONFLICT (list, addr_hash) DO UPDATE SET pushed_at = wall()
""")

# mark_removed: they are on this list no more.
_MARK_REMOVED = text("DELETE FROM provider_entry WHERE list = :list AND addr_hash = :addr_hash")


def mark_pushed(connection: Connection, hashes: Sequence[bytes]) -> None:
    """The provider has taken these."""
    connection.execute(_MARK_PUSHED, {"hashes": arrays.hashes(sorted(set(hashes)))})


def mark_removed(connection: Connection, name: str, addr_hash: bytes) -> None:
    """The provider has taken this one off that list."""
    connection.execute(_MARK_REMOVED, {"list": name, "addr_hash": addr_hash})
