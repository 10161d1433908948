"""Reading everybody out: in pieces, from one snapshot, so that a million people need no more memory than a thousand."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from dripwell.storage import arrays
from dripwell.storage.database import Connection

PIECE = 1_000
_IMPORTED = re.compile(r"import:(\d+)(?:: (.*))?\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who agreed to something. Of `consents` each has topic, source, wording and at (ISO 8601)."""

    address: str
    timezone: str | None
    tags: tuple[str, ...]
    relationship: str
    fields: Mapping[str, Any]
    consents: tuple[Mapping[str, str], ...]


# take_time: whoever reads the file may be slow, a pipe into a pager may stand still.
_TAKE_TIME = text("SET LOCAL idle_in_transaction_session_timeout = 0")


def take_time(connection: Connection) -> None:
    """Let this transaction stand still for as long as its reader likes. It only reads."""
    connection.execute(_TAKE_TIME)


# everybody: by id, with a cursor in the server.
_EVERYBODY = text("SELECT id FROM subscriber WHERE state = 'active' ORDER BY id").execution_options(
    stream_results=True, yield_per=PIECE
)


def everybody(connection: Connection) -> Iterator[int]:
    """Everybody active."""
    with connection.execute(_EVERYBODY) as rows:
        yield from rows.scalars()


# field_names: every name that a field of somebody active has.
_FIELD_NAMES = text("""
SELECT DISTINCT name
  FROM subscriber CROSS JOIN LATERAL jsonb_object_keys(subscriber.fields) AS name
 WHERE subscriber.state = 'active'
""")


def field_names(connection: Connection) -> list[str]:
    """The names of all fields that anybody active has."""
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    return list(connection.execute(_FIELD_NAMES).scalars())


# people: of these, whoever some email may reach, with what they agreed to and is not suppressed.
_PEOPLE = text("""
SELECT subscriber.address, subscriber.timezone, subscriber.tags, subscriber.relationship, subscriber.fields,
       said.consents
  FROM subscriber
 CROSS JOIN LATERAL (
   SELECT jsonb_agg(jsonb_build_object('topic', newest.topic, 'source', newest.source, 'wording', newest.words,
                                       'at', newest.given_at) ORDER BY newest.id) AS consents
     FROM (SELECT DISTINCT ON (consent.topic) consent.id, consent.topic, consent.action, consent.source,
                  coalesce(wording.words, consent.wording) AS words, consent.given_at
             FROM consent LEFT JOIN wording ON wording.version = consent.wording_version
            WHERE consent.subscriber_id = subscriber.id
            ORDER BY consent.topic, consent.id DESC) AS newest
    WHERE newest.action = 'give'
      AND NOT EXISTS (SELECT FROM (SELECT suppression.action FROM suppression
                                    WHERE suppression.addr_hash = subscriber.addr_hash
                                      AND suppression.scope = 'topic:' || newest.topic
                                    ORDER BY suppression.seq DESC LIMIT 1) AS last
                       WHERE last.action = 'suppress')) AS said
 WHERE subscriber.id = ANY(CAST(:ids AS bigint[])) AND subscriber.state = 'active' AND said.consents IS NOT NULL
   AND NOT EXISTS (SELECT FROM (SELECT DISTINCT ON (suppression.scope) suppression.action FROM suppression
                                 WHERE suppression.addr_hash = subscriber.addr_hash
                                   AND suppression.scope IN ('all', 'marketing')
                                 ORDER BY suppression.scope, suppression.seq DESC) AS last
                    WHERE last.action = 'suppress')
 ORDER BY subscriber.id
""")
_RUNS = text("SELECT id, source FROM import_run WHERE id = ANY(CAST(:ids AS bigint[]))")


def people(connection: Connection, ids: Sequence[int]) -> list[Person]:
    """Those of these people whom some email may reach, by id. What an import stated stands where its number did."""
    rows = connection.execute(_PEOPLE, {"ids": arrays.numbers(ids)}).all()
    found = {int(match[1]) for row in rows for one in row.consents if (match := _IMPORTED.match(one["source"]))}
    stated = {}
    if found:
        stated = {row.id: row.source for row in connection.execute(_RUNS, {"ids": arrays.numbers(sorted(found))})}
    return [
        Person(
            row.address, row.timezone, tuple(row.tags), row.relationship, row.fields,
            tuple({**one, "source": _told(one["source"], stated)} for one in row.consents),
        )
        for row in rows
    ]  # fmt: skip


def _told(source: str, stated: Mapping[int, str]) -> str:
    match = _IMPORTED.match(source)
    if match is None:
        return source
    return match[2] or stated.get(int(match[1])) or source


# suppressions: what stands now, by the hash.
_SUPPRESSIONS = text("""
SELECT addr_hash, scope, reason, source, at
  FROM (SELECT DISTINCT ON (addr_hash, scope) addr_hash, scope, action, reason, source, at
          FROM suppression
         ORDER BY addr_hash, scope, seq DESC) AS newest
 WHERE action = 'suppress'
 ORDER BY addr_hash, scope
""").execution_options(stream_results=True, yield_per=PIECE)


def suppressions(connection: Connection) -> Iterator[Any]:
    """Every standing suppression: addr_hash, scope, reason, source, at (wall time)."""
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    with connection.execute(_SUPPRESSIONS) as rows:
        yield from rows
