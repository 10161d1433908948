"""Leaving in one statement: the ledger row, the end of every series in its scope, the note for the fast set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from dripwell.core.address import without_addresses
from dripwell.storage import arrays
from dripwell.storage.database import Connection


@dataclass(frozen=True, slots=True)
class Leaving:
    """Somebody must not be mailed any more in `scope`. `state` is what the person's row shows afterwards.

    `evidence` says what proves it; what looks like an address in it is not kept.
    """

    subscriber_id: int
    scope: str
    reason: str
    source: str
    evidence: str
    state: str


# suppress: one after the other, in the order handed in.
_SUPPRESS = text("""
SELECT suppress_person(told.who, told.scope, told.reason, told.source, told.evidence, told.state, :now) AS seq
  FROM (SELECT *
          FROM unnest(CAST(:who AS bigint[]), CAST(:scopes AS text[]), CAST(:reasons AS text[]),
                      CAST(:sources AS text[]), CAST(:evidence AS text[]), CAST(:states AS text[]))
          WITH ORDINALITY AS told (who, scope, reason, source, evidence, state, place)
         ORDER BY place) AS told
""")


def suppress(connection: Connection, rows: Sequence[Leaving], *, now: datetime) -> list[int | None]:
    """Stop everything in their scope for these people, in the caller's transaction; `now` is campaign time.

    Returns each ledger row's number: the standing row's when the same source said the same before and nothing was asked
    for since, 0 for an erased person, None where there is no such subscriber. Locks each person's enrollments by id,
    then their planned messages.
    """
    if not rows:
        return []
    values = {
        "who": [row.subscriber_id for row in rows],
        "scopes": [row.scope for row in rows],
        "reasons": [row.reason for row in rows],
        "sources": [row.source for row in rows],
        "evidence": [without_addresses(row.evidence)[:500] for row in rows],
        "states": [row.state for row in rows],
        "now": now,
    }
    return list(connection.execute(_SUPPRESS, values).scalars())


@dataclass(frozen=True, slots=True)
class Unwanted:
    """An address that must not be mailed in `scope`, whether or not anybody here has it.

    `reason` is unsubscribed, undeliverable or complained; `evidence` says what proves it, and of
    what looks like an address in it nothing is kept.
    """

    addr_hash: bytes
    scope: str
    reason: str
    evidence: str = ""


# people_of: who has these addresses, in the order everybody locks in.
_PEOPLE_OF = text("""
SELECT id, addr_hash FROM subscriber
 WHERE addr_hash = ANY(CAST(:hashes AS bytea[]))
 ORDER BY id
""")

# lock_open: every open passage of these people before the first change, by id, whoever is suppressed first.
_LOCK_OPEN = text("""
SELECT id FROM enrollment
 WHERE subscriber_id = ANY(CAST(:ids AS bigint[])) AND state IN ('waiting', 'mailing')
 ORDER BY id
   FOR UPDATE
""")

# unsaid: of these, what the same source has not said for the same reason since the last lift. A reply and an operator's
# word are new each time: said again after a request that waits for its confirmation, they count against that request.
_UNSAID = text("""
SELECT told.place
  FROM unnest(CAST(:hashes AS bytea[]), CAST(:scopes AS text[]), CAST(:reasons AS text[]))
       WITH ORDINALITY AS told (addr_hash, scope, reason, place)
 WHERE NOT EXISTS (SELECT FROM suppression AS row
                    WHERE row.addr_hash = told.addr_hash AND row.scope = told.scope AND row.action = 'suppress'
                      AND row.reason = told.reason AND row.source = :source
                      AND row.seq > coalesce((SELECT max(lift.seq) FROM suppression AS lift
                                               WHERE lift.addr_hash = told.addr_hash AND lift.scope = told.scope
                                                 AND lift.action = 'lift'), 0)
                      AND NOT (:source IN ('reply', 'staff')
                               AND EXISTS (SELECT FROM signup JOIN subscriber ON subscriber.id = signup.subscriber_id
                                            WHERE subscriber.addr_hash = told.addr_hash AND signup.confirmed_at IS NULL
                                              AND signup.asked_wall > row.at)))
 ORDER BY told.place
""")

# write: rows about addresses that nobody here has, each with the note for the fast set.
_WRITE = text("""
WITH written AS (
  INSERT INTO suppression (addr_hash, scope, action, reason, source, evidence)
  SELECT told.addr_hash, told.scope, 'suppress', told.reason, :source, told.evidence
    FROM unnest(CAST(:hashes AS bytea[]), CAST(:scopes AS text[]), CAST(:reasons AS text[]),
                CAST(:evidence AS text[])) AS told (addr_hash, scope, reason, evidence)
  RETURNING addr_hash, scope
)
INSERT INTO outbox (kind, detail)
SELECT 'suppression', jsonb_build_object('addr_hash', encode(addr_hash, 'hex'), 'scope', scope) FROM written
""")


def people_of(connection: Connection, hashes: Sequence[bytes]) -> dict[bytes, int]:
    """The subscribers who have these addresses."""
    return {bytes(row.addr_hash): row.id for row in connection.execute(_PEOPLE_OF, {"hashes": arrays.hashes(hashes)})}


def lock_open(connection: Connection, people: Sequence[int]) -> None:
    """Lock every open passage of these people, by id."""
    connection.execute(_LOCK_OPEN, {"ids": arrays.numbers(sorted(people))})


def unsaid(connection: Connection, rows: Sequence[Unwanted], source: str) -> list[Unwanted]:
    """Of these, what `source` has not said for the same reason since the scope was last lifted."""
    if not rows:
        return []
    found = connection.execute(_UNSAID, {**_columns(rows), "source": source}).scalars()
    return [rows[place - 1] for place in found]


def write(connection: Connection, rows: Sequence[Unwanted], source: str) -> None:
    """Append these rows, with a note for the fast set each."""
    if rows:
        evidence = [without_addresses(row.evidence)[:500] for row in rows]
        connection.execute(_WRITE, {**_columns(rows), "evidence": evidence, "source": source})


def _columns(rows: Sequence[Unwanted]) -> dict[str, object]:
    return {
        "hashes": arrays.hashes(row.addr_hash for row in rows),
        "scopes": [row.scope for row in rows],
        "reasons": [row.reason for row in rows],
    }
