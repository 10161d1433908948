"""Rows of the suppression ledger on their way into the journal, and out of it again after a restore."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import text

from dripwell.storage.database import Connection
from dripwell.storage.journal import Left

# newest_row: what the ledger says last about an address in one scope.
_NEWEST_ROW = text("""
SELECT addr_hash, scope, action, reason, source, seq, at
  FROM suppression
 WHERE addr_hash = :addr_hash AND scope = :scope
 ORDER BY seq DESC
 LIMIT 1
""")

# rows_from: what was written by transactions that were not over at a horizon; `seq` is not commit order.
_ROWS_FROM = text("""
SELECT addr_hash, scope, action, reason, source, seq, at
  FROM suppression
 WHERE xid >= CAST(CAST(:horizon AS text) AS xid8) AND NOT seq <@ CAST(:beyond AS int8multirange)
 ORDER BY seq
""")

# beyond: which rows of transactions that were not over at a horizon can be seen already.
_BEYOND = text("""
SELECT CAST(coalesce(range_agg(int8range(seq, seq, '[]')), '{}') AS text)
  FROM suppression
 WHERE xid >= CAST(CAST(:horizon AS text) AS xid8)
""")

# rows_since: the same by time, where no horizon of this epoch is known yet.
_ROWS_SINCE = text("""
SELECT addr_hash, scope, action, reason, source, seq, at
  FROM suppression
 WHERE at >= wall() - make_interval(days => :days)
 ORDER BY seq
""")


def newest_row(connection: Connection, addr_hash: bytes, scope: str) -> Left | None:
    """The newest row of the ledger about this address and scope, as the journal keeps it."""
    row = connection.execute(_NEWEST_ROW, {"addr_hash": addr_hash, "scope": scope}).first()
    return None if row is None else _left(row)


def rows_from(connection: Connection, horizon: int, beyond: str) -> list[Left]:
    """Rows of the ledger that may have become visible since that horizon was read, without `beyond`, oldest first."""
    return [_left(row) for row in connection.execute(_ROWS_FROM, {"horizon": horizon, "beyond": beyond})]


def beyond(connection: Connection, horizon: int) -> str:
    """The numbers of the rows of the ledger that stand beyond that horizon, as an int8multirange."""
    found: str = connection.execute(_BEYOND, {"horizon": horizon}).scalar_one()
    return found


def rows_since(connection: Connection, days: int) -> list[Left]:
    """Rows of the ledger of the last `days` of wall time, oldest first."""
    return [_left(row) for row in connection.execute(_ROWS_SINCE, {"days": days})]


def _left(row: Any) -> Left:
    return Left(bytes(row.addr_hash), row.scope, row.action, row.reason, row.source, row.seq, row.at)


# newer: whether the ledger knows this row, or one after it.
_NEWER = text("""
SELECT EXISTS (SELECT FROM suppression
                WHERE addr_hash = :addr_hash AND scope = :scope AND (at, seq) >= (CAST(:at AS timestamptz), :seq))
""")

# append: a row that was lost, with the time it had.
_APPEND = text("""
INSERT INTO suppression (addr_hash, scope, action, reason, source, evidence, at)
VALUES (:addr_hash, :scope, :action, :reason, :source, 'journal', :at)
""")

# subscriber_of: who has this address now.
_SUBSCRIBER_OF = text("SELECT id FROM subscriber WHERE addr_hash = :addr_hash")


def append_lost(
    connection: Connection,
    *,
    addr_hash: bytes,
    scope: str,
    action: str,
    reason: str,
    source: str,
    seq: int,
    at: datetime,
) -> bool:
    """Put a row back into the suppression ledger, whose number was `seq`. False: it is there, or a newer one is."""
    key = {"addr_hash": addr_hash, "scope": scope, "at": at}
    if connection.execute(_NEWER, {**key, "seq": seq}).scalar_one():
        return False
    connection.execute(_APPEND, {**key, "action": action, "reason": reason, "source": source})
    return True


# append_all: into the ledger of a record that has nobody yet. A journal may hold a row more than once.
_APPEND_ALL = text("""
INSERT INTO suppression (addr_hash, scope, action, reason, source, evidence, at)
SELECT one.addr_hash, one.scope, one.action, one.reason, one.source, 'journal', one.at
  FROM unnest(CAST(:hashes AS bytea[]), CAST(:scopes AS text[]), CAST(:actions AS text[]), CAST(:reasons AS text[]),
              CAST(:sources AS text[]), CAST(:seqs AS bigint[]), CAST(:times AS timestamptz[]))
       AS one (addr_hash, scope, action, reason, source, seq, at)
 WHERE NOT EXISTS (SELECT FROM suppression
                    WHERE suppression.addr_hash = one.addr_hash AND suppression.scope = one.scope
                      AND (suppression.at, suppression.seq) >= (one.at, one.seq))
 ORDER BY one.at, one.seq
""")


def append_all(connection: Connection, rows: Sequence[Left]) -> int:
    """Put these rows into the ledger, each once, unless it knows them or newer ones; returns how many it did not.

    The numbers that new rows get must be greater than theirs: call `witness.advance` first.
    """
    found = {(row.addr_hash, row.scope, row.at, row.seq): row for row in rows}.values()
    values = {
        "hashes": [row.addr_hash for row in found],
        "scopes": [row.scope for row in found],
        "actions": [row.action for row in found],
        "reasons": [row.reason for row in found],
        "sources": [row.source for row in found],
        "seqs": [row.seq for row in found],
        "times": [row.at for row in found],
    }
    return connection.execute(_APPEND_ALL, values).rowcount


def subscriber_of(connection: Connection, addr_hash: bytes) -> int | None:
    """The subscriber with this address, if there is one."""
    found: int | None = connection.execute(_SUBSCRIBER_OF, {"addr_hash": addr_hash}).scalar()
    return found
