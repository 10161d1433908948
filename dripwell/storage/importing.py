"""Imports in sets: a slice of a file is copied into a table of its own, and a few statements take all of it in.

What each person becomes is what `services.enroll.add` would have made of the row: the statements here say it for ten
thousand people at once. Whoever calls holds the run's row, so that two processes never take in one file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import psycopg
from sqlalchemy import text

from dripwell.core.errors import UnavailableError
from dripwell.storage import arrays, consents, erasing
from dripwell.storage.database import Connection
from dripwell.storage.import_runs import Run, source_of
from dripwell.storage.leaving import Unwanted

_TRIES = 5


class Staged(NamedTuple):
    """A slice as text for COPY, made while the slice before it is taken in."""

    rows: int
    people: bytes
    consents: bytes
    wordings: frozenset[str]
    leaving: Sequence[tuple[int, Unwanted]]
    refused: Sequence[tuple[int, str]]
    tags: frozenset[str]


# Text for COPY. Values hold no tab, line break or NUL: whoever judged the rows saw to it.


def person_line(
    line: int, addr_hash: bytes, address: str, public_id: UUID, timezone: str | None, fields: Mapping[str, str],
    tags: Sequence[str], relationship: str, stated: bool,
) -> str:  # fmt: skip
    """One person of a slice. `stated`: their consents are those stated for the whole file."""
    written = _json(fields) if fields else "{}"
    return (
        f"{line}\t\\\\x{addr_hash.hex()}\t{_escaped(address)}\t{public_id.hex}\t{timezone or _NULL}\t"
        f"{_escaped(written)}\t{_array(tags) if tags else '{}'}\t{relationship}\t{'t' if stated else 'f'}\n"
    )


def consent_line(line: int, topic: str, source: str, version: str | None, at: datetime) -> str:
    """One consent of the person in this line of the file; `version` is that of its wording."""
    return f"{line}\t{_escaped(topic)}\t{_escaped(source)}\t{version or _NULL}\t{at.isoformat()}\n"


_NULL = "\\N"
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\") if "\\" in value else value


def _array(values: Sequence[str]) -> str:
    quoted = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    return _escaped("{" + ",".join(f'"{value}"' for value in quoted) + "}")


# The tables of one slice; they end with its transaction. `matched` is `staged` with whose row of the record it is.
_TABLES = text("""
CREATE TEMPORARY TABLE IF NOT EXISTS staged (
  line bigint NOT NULL, addr_hash bytea NOT NULL, address text NOT NULL, public_id uuid NOT NULL, timezone text,
  fields jsonb NOT NULL, tags text[] NOT NULL, relationship text NOT NULL, stated boolean NOT NULL
) ON COMMIT DROP;
CREATE TEMPORARY TABLE IF NOT EXISTS matched (
  LIKE staged, subscriber_id bigint NOT NULL, is_new boolean NOT NULL, PRIMARY KEY (line)
) ON COMMIT DROP;
CREATE TEMPORARY TABLE IF NOT EXISTS staged_consent (
  line bigint NOT NULL, topic text NOT NULL, source text NOT NULL, version text, given_at timestamptz NOT NULL
) ON COMMIT DROP;
TRUNCATE staged, matched, staged_consent;
-- A slice is small and the record is large: reading all of the record for each slice is never right, whatever is known
-- of tables that were made a moment ago.
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_mergejoin = off;
SET LOCAL jit = off;
""")


def stage(connection: Connection, slice_: Staged) -> None:
    """Copy the slice into tables that end with this transaction."""
    connection.execute(_TABLES)
    session = connection.connection.dbapi_connection
    assert isinstance(session, psycopg.Connection)
    for table, lines in (("staged", slice_.people), ("staged_consent", slice_.consents)):
        if lines:
            with session.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                copy.write(lines)


# drop_duplicates: of an address that stands twice in the slice, the first row counts.
_DROP_DUPLICATES = text("""
DELETE FROM staged
 WHERE ctid = ANY(ARRAY(SELECT told.place
                          FROM (SELECT ctid AS place, row_number() OVER (PARTITION BY addr_hash ORDER BY line) AS turn
                                  FROM staged) AS told
                         WHERE told.turn > 1))
RETURNING line
""")

# drop_seen: and the first row of the file counts, which an earlier slice of this run took in.
_DROP_SEEN = text("""
DELETE FROM staged
 WHERE (SELECT subscriber.import_id FROM subscriber WHERE subscriber.addr_hash = staged.addr_hash) = :run_id
RETURNING line
""")


def drop_duplicates(connection: Connection, run_id: int) -> list[int]:
    """Take out of the slice whom the file names in an earlier row; returns the lines."""
    lines = list(connection.execute(_DROP_DUPLICATES).scalars())
    return [*lines, *connection.execute(_DROP_SEEN, {"run_id": run_id}).scalars()]


# add: in the order of the key on which two imports can collide, so that they wait instead of deadlocking.
_ADD = text("""
INSERT INTO subscriber (public_id, address, addr_hash, state, timezone, fields, tags, joined_at, relationship,
                        import_id)
SELECT public_id, address, addr_hash, 'active', timezone, fields, tags, :now, relationship, :run_id
  FROM staged
 ORDER BY addr_hash
    ON CONFLICT (addr_hash) DO NOTHING
""")

# match: whose row is whose. A row of the record with the id we just made is new.
_MATCH = text("""
INSERT INTO matched
SELECT staged.*, found.id, found.public_id = staged.public_id
  FROM staged
 CROSS JOIN LATERAL (SELECT id, public_id FROM subscriber WHERE addr_hash = staged.addr_hash OFFSET 0) AS found
""")

# lock_known: before they change, in the same order; then whoever was erased while we waited is nobody we know.
_LOCK_KNOWN = text("""
SELECT subscriber.id
  FROM matched JOIN subscriber ON subscriber.id = matched.subscriber_id
 WHERE NOT matched.is_new
 ORDER BY subscriber.addr_hash
   FOR NO KEY UPDATE OF subscriber
""")
_DROP_GONE = text("""
DELETE FROM matched USING subscriber
 WHERE subscriber.id = matched.subscriber_id AND NOT matched.is_new
   AND subscriber.addr_hash IS DISTINCT FROM matched.addr_hash
""")
_HOW_MANY = text("""
SELECT (SELECT count(*) FROM staged) AS staged, count(*) FILTER (WHERE is_new) AS new,
       count(*) FILTER (WHERE NOT is_new) AS known
  FROM matched
""")

# amend: as subscribers.amend and set_state do: fields are replaced, tags only grow, a patient stays one.
_AMEND = text("""
UPDATE subscriber
   SET timezone = coalesce(matched.timezone, subscriber.timezone),
       fields = subscriber.fields || matched.fields,
       tags = ARRAY(SELECT DISTINCT unnest(subscriber.tags || matched.tags) ORDER BY 1),
       relationship = CASE WHEN subscriber.relationship = 'patient' THEN subscriber.relationship
                           ELSE coalesce(nullif(matched.relationship, 'unknown'), subscriber.relationship) END,
       state = CASE subscriber.state WHEN 'unconfirmed' THEN 'active' ELSE subscriber.state END,
       import_id = :run_id
  FROM matched
 WHERE subscriber.id = matched.subscriber_id AND NOT matched.is_new
""")


def add_or_amend(connection: Connection, run_id: int, now: datetime) -> tuple[int, int]:
    """Add whoever is new and amend whoever is known, the slice's duplicates being gone. Returns (new, known).

    Raises UnavailableError when people of the slice are erased again and again while it looks at them.
    """
    for _ in range(_TRIES):
        connection.execute(_ADD, {"run_id": run_id, "now": now})
        connection.execute(_MATCH)
        counted = connection.execute(_HOW_MANY).one()
        if counted.known:
            connection.execute(_LOCK_KNOWN).all()
            connection.execute(_DROP_GONE)
            counted = connection.execute(_HOW_MANY).one()
        if counted.new + counted.known == counted.staged:
            if counted.known:
                connection.execute(_AMEND, {"run_id": run_id})
            return counted.new, counted.known
        connection.execute(text("TRUNCATE matched"))
    raise UnavailableError("people of this file are being erased right now: import it again in a moment")


# give_stated, give_own: to a topic that the person never said a word about. A file is no fresh opt-in: whoever withdrew
# a topic stays without it, and consent that stands keeps its proof.
_GIVE_STATED = text("""
INSERT INTO consent (subscriber_id, topic, action, source, wording_version, given_at)
SELECT matched.subscriber_id, told.topic, 'give', :source, :version, CAST(:given_at AS timestamptz)
  FROM matched CROSS JOIN unnest(CAST(:topics AS text[])) WITH ORDINALITY AS told (topic, place)
 WHERE matched.stated
   AND (matched.is_new OR NOT EXISTS (SELECT FROM consent AS said
                                       WHERE said.subscriber_id = matched.subscriber_id AND said.topic = told.topic))
 ORDER BY matched.subscriber_id, told.place
""")
_GIVE_OWN = text("""
INSERT INTO consent (subscriber_id, topic, action, source, wording_version, given_at)
SELECT matched.subscriber_id, told.topic, 'give',
       CASE told.source WHEN '' THEN CAST(:source AS text) ELSE CAST(:source AS text) || ': ' || told.source END,
       told.version, told.given_at
  FROM staged_consent AS told JOIN matched ON matched.line = told.line
 WHERE matched.is_new OR NOT EXISTS (SELECT FROM consent AS said
                                      WHERE said.subscriber_id = matched.subscriber_id AND said.topic = told.topic)
 ORDER BY matched.subscriber_id
""")


def give(connection: Connection, run: Run, slice_: Staged) -> None:
    """Write the consents of everybody in the slice, from `import:<id>`: as stated for the file, or by the row."""
    source = source_of(run.id)
    for words in sorted(slice_.wordings):
        consents.keep_words(connection, words)
    if run.topics and run.given_at is not None:
        version = consents.keep_words(connection, run.wording)
        values = {"topics": list(run.topics), "source": source, "version": version, "given_at": run.given_at}
        connection.execute(_GIVE_STATED, values)
    if slice_.consents:
        connection.execute(_GIVE_OWN, {"source": source})


# everybody, tagged: whom the slice has brought; whom it gives this tag.
_EVERYBODY = text("SELECT subscriber_id FROM matched ORDER BY subscriber_id")
_TAGGED = text("SELECT subscriber_id FROM matched WHERE :tag = ANY(tags) ORDER BY subscriber_id")


def brought(connection: Connection, tag: str | None = None) -> list[int]:
    """Everybody in the slice, or everybody whom it gives this tag."""
    found = connection.execute(_EVERYBODY) if tag is None else connection.execute(_TAGGED, {"tag": tag})
    return list(found.scalars())


# perhaps_erased: few, if any; what the ledger says of them last is asked of `erasing`.
_PERHAPS_ERASED = text("""
SELECT DISTINCT addr_hash
  FROM staged
 WHERE (SELECT true FROM suppression
         WHERE suppression.addr_hash = staged.addr_hash AND suppression.reason = 'erased' LIMIT 1)
""")
_DROP = text("DELETE FROM staged WHERE addr_hash = ANY(CAST(:hashes AS bytea[])) RETURNING line")


def drop_erased(connection: Connection) -> list[int]:
    """Take out of the slice whoever was erased and has not come back by themselves; returns the lines."""
    perhaps = [bytes(one) for one in connection.execute(_PERHAPS_ERASED).scalars()]
    gone = erasing.erased(connection, perhaps) if perhaps else set()
    return list(connection.execute(_DROP, {"hashes": arrays.hashes(gone)}).scalars()) if gone else []


# suppressed: of the people of the slice, those whom the ledger keeps from all marketing.
_SUPPRESSED = text("""
SELECT count(*)
  FROM staged
 WHERE (SELECT bool_or(newest.action = 'suppress')
          FROM (SELECT DISTINCT ON (suppression.scope) suppression.action
                  FROM suppression
                 WHERE suppression.addr_hash = staged.addr_hash AND suppression.scope IN ('all', 'marketing')
                 ORDER BY suppression.scope, suppression.seq DESC) AS newest)
""")


def suppressed(connection: Connection) -> int:
    """How many people of the slice are suppressed, and stay so."""
    found: int = connection.execute(_SUPPRESSED).scalar_one()
    return found


# unsaid: of the people of the slice, those whose row leaves open what they are to the clinic.
_UNSAID = text("SELECT count(*) FROM staged WHERE relationship = 'unknown'")


def unsaid(connection: Connection) -> int:
    """How many people of the slice are taken in without a word whether they are patients."""
    found: int = connection.execute(_UNSAID).scalar_one()
    return found


# A rehearsal keeps in tables of its session what a run keeps in the record; there `import_refusal` hides the real one.
_REHEARSE = text("""
CREATE TEMPORARY TABLE seen (addr_hash bytea, scope text, PRIMARY KEY (addr_hash, scope)) ON COMMIT DROP;
CREATE TEMPORARY TABLE import_refusal (run_id bigint, line bigint, reason text) ON COMMIT DROP;
""")
_DROP_REHEARSED = text("""
DELETE FROM staged
 WHERE (SELECT true FROM seen WHERE seen.addr_hash = staged.addr_hash AND seen.scope = '')
RETURNING line
""")
_SEE = text("INSERT INTO seen SELECT addr_hash, '' FROM staged")
_SEE_LEFT = text("""
INSERT INTO seen
SELECT DISTINCT * FROM unnest(CAST(:hashes AS bytea[]), CAST(:scopes AS text[])) AS told (addr_hash, scope)
    ON CONFLICT DO NOTHING
RETURNING addr_hash, scope
""")
_KNOWN = text("""
SELECT (SELECT count(*) FROM staged),
       (SELECT count(*) FROM staged
         WHERE (SELECT true FROM subscriber WHERE subscriber.addr_hash = staged.addr_hash))
""")


def begin_rehearsal(connection: Connection) -> None:
    """Make the tables that `rehearse` and the refusals of run 0 need; they end with this transaction."""
    connection.execute(_REHEARSE)


def rehearse(connection: Connection) -> tuple[int, int, list[int], list[int]]:
    """What would become of the people of the slice: (new, known, lines of duplicates, of erased people)."""
    doubled = list(connection.execute(_DROP_DUPLICATES).scalars())
    doubled += connection.execute(_DROP_REHEARSED).scalars()
    erased = drop_erased(connection)
    connection.execute(_SEE)
    people, known = connection.execute(_KNOWN).one()
    return people - known, known, doubled, erased


def rehearse_leaving(connection: Connection, rows: Sequence[Unwanted]) -> set[tuple[bytes, str]]:
    """Which addresses and scopes of these no slice before has named."""
    values = {"hashes": arrays.hashes(row.addr_hash for row in rows), "scopes": [row.scope for row in rows]}
    return {(bytes(row.addr_hash), row.scope) for row in connection.execute(_SEE_LEFT, values)}
