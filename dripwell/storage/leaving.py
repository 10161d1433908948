"""Leaving in one statement: the ledger row, the end of every series in its scope, the note for the fast set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from dripwell.storage.database import Connection


@dataclass(frozen=True, slots=True)
class Leaving:
    """Somebody must not be mailed any more in `scope`. `state` is what the person's row shows afterwards.

    `evidence` says what proves it, without an address.
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

    Returns each ledger row's number: the standing row's when the same source said the same before, 0 for an erased
    person, None where there is no such subscriber. Locks each person's enrollments by id, then their planned messages.
    """
    if not rows:
        return []
    values = {
        "who": [row.subscriber_id for row in rows],
        "scopes": [row.scope for row in rows],
        "reasons": [row.reason for row in rows],
        "sources": [row.source for row in rows],
        "evidence": [row.evidence[:500] for row in rows],
        "states": [row.state for row in rows],
        "now": now,
    }
    return list(connection.execute(_SUPPRESS, values).scalars())
