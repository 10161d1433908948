"""Whom the ledger suppresses now, for an operator's eyes: counts, and the newest rows.

Of one address and scope the newest row decides, and says which source and reason are shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from dripwell.storage.database import Connection


@dataclass(frozen=True, slots=True)
class Count:
    """So many addresses are suppressed in this scope, by the last word of this source."""

    scope: str
    source: str
    addresses: int


@dataclass(frozen=True, slots=True)
class Suppressed:
    """One address in one scope. `address` is None when no subscriber has it. `at` is wall time."""

    addr_hash: bytes
    address: str | None
    scope: str
    reason: str
    source: str
    at: datetime


# counted: who is suppressed now, by scope and source of the newest row.
_COUNTED = text("""
SELECT scope, source, count(*) AS addresses
  FROM (SELECT DISTINCT ON (addr_hash, scope) scope, source, action
          FROM suppression
         ORDER BY addr_hash, scope, seq DESC) AS newest
 WHERE action = 'suppress'
   AND (CAST(:scope AS text) IS NULL OR scope = :scope) AND (CAST(:source AS text) IS NULL OR source = :source)
 GROUP BY scope, source
 ORDER BY scope, source
""")

# newest: the same people, the latest first.
_NEWEST = text("""
SELECT row.addr_hash, subscriber.address, row.scope, row.reason, row.source, row.at
  FROM suppression AS row LEFT JOIN subscriber USING (addr_hash)
 WHERE row.action = 'suppress'
   AND (CAST(:scope AS text) IS NULL OR row.scope = :scope)
   AND (CAST(:source AS text) IS NULL OR row.source = :source)
   AND NOT EXISTS (SELECT FROM suppression AS later
                    WHERE later.addr_hash = row.addr_hash AND later.scope = row.scope AND later.seq > row.seq)
 ORDER BY row.seq DESC
 LIMIT :limit
""")


def counted(connection: Connection, *, scope: str | None = None, source: str | None = None) -> list[Count]:
    """How many addresses are suppressed now; None asks for every scope or source."""
    rows = connection.execute(_COUNTED, {"scope": scope, "source": source})
    return [Count(row.scope, row.source, row.addresses) for row in rows]


def newest(
    connection: Connection, *, limit: int, scope: str | None = None, source: str | None = None
) -> list[Suppressed]:
    """Up to `limit` of them, those last suppressed first."""
    rows = connection.execute(_NEWEST, {"scope": scope, "source": source, "limit": limit})
    return [Suppressed(bytes(row.addr_hash), row.address, row.scope, row.reason, row.source, row.at) for row in rows]
