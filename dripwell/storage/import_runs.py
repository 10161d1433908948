"""Runs: one file that is taken in with one statement, how far that is, and the rows that could not be taken."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text

from dripwell.storage.database import Connection


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of rows. Each is in exactly one of added, known, leaving and refused; the others count some again."""

    added: int = 0
    known: int = 0
    leaving: int = 0
    refused: int = 0
    duplicates: int = 0  # of the refused, those whose address stands in an earlier row
    suppressed: int = 0  # of the added and the known, those who stay suppressed
    unsaid: int = 0  # of the good rows, those that do not say whether the person is a patient

    @property
    def rows(self) -> int:
        """How many rows that is."""
        return self.added + self.known + self.leaving + self.refused


@dataclass(frozen=True, slots=True)
class Run:
    """One file that is being, or has been, taken in."""

    id: int
    file: str
    topics: tuple[str, ...]
    source: str
    wording: str
    given_at: datetime | None
    actor: str
    begun_at: datetime
    finished_at: datetime | None
    rows_read: int
    counts: Counts


# begin: a new run.
_BEGIN = text("""
INSERT INTO import_run (file, sha256, settings_sha256, settings, topics, source, wording, given_at, actor)
VALUES (:file, :sha256, :settings_sha256, CAST(:settings AS jsonb), :topics, :source, :wording, :given_at, :actor)
RETURNING id
""")


def begin(
    connection: Connection,
    *,
    file: str,
    sha256: bytes,
    settings_sha256: bytes,
    settings: Mapping[str, Any],
    topics: Sequence[str],
    source: str,
    wording: str,
    given_at: datetime | None,
    actor: str,
) -> Run:
    """Record a new run with what its operator stated, before its first row."""
    values = {
        "file": file,
        "sha256": sha256,
        "settings_sha256": settings_sha256,
        "settings": json.dumps(dict(settings)),
        "topics": list(topics),
        "source": source,
        "wording": wording,
        "given_at": given_at,
        "actor": actor,
    }
    return by_id(connection, connection.execute(_BEGIN, values).scalar_one())


_COLUMNS = """id, file, topics, source, wording, given_at, actor, begun_at, finished_at, rows_read, added, known,
       leaving, refused, duplicates, suppressed, unsaid"""
# by_id, newest: a run; the newest run of a file that was read with the same words.
_BY_ID = text(f"SELECT {_COLUMNS} FROM import_run WHERE id = :id")
_LOCK = text(f"SELECT {_COLUMNS} FROM import_run WHERE id = :id FOR UPDATE")
_NEWEST = text(f"""
SELECT {_COLUMNS}
  FROM import_run
 WHERE sha256 = :sha256 AND settings_sha256 = :settings_sha256
 ORDER BY id DESC
 LIMIT 1
""")


def by_id(connection: Connection, run_id: int, *, lock: bool = False) -> Run:
    """The run with this id, which is known to exist; `lock` keeps others from moving it until this transaction ends."""
    return _run(connection.execute(_LOCK if lock else _BY_ID, {"id": run_id}).one())


def newest(connection: Connection, sha256: bytes, settings_sha256: bytes) -> Run | None:
    """The newest run of this file with these settings."""
    row = connection.execute(_NEWEST, {"sha256": sha256, "settings_sha256": settings_sha256}).one_or_none()
    return None if row is None else _run(row)


def _run(row: Any) -> Run:
    counts = Counts(row.added, row.known, row.leaving, row.refused, row.duplicates, row.suppressed, row.unsaid)
    return Run(
        row.id, row.file, tuple(row.topics), row.source, row.wording, row.given_at, row.actor, row.begun_at,
        row.finished_at, row.rows_read, counts,
    )  # fmt: skip


# statements: of each of these runs, what was stated for the whole file.
_STATEMENTS = text("SELECT id, file, source, actor, begun_at FROM import_run WHERE id = ANY(:ids)")


def statements(connection: Connection, run_ids: Sequence[int]) -> dict[int, Any]:
    """What was stated for the whole file, by run: rows of id, file, source, actor, begun_at."""
    return {row.id: row for row in connection.execute(_STATEMENTS, {"ids": list(run_ids)})}


# advance: these rows are done with; the caller holds the row.
_ADVANCE = text("""
UPDATE import_run
   SET rows_read = rows_read + :rows, added = added + :added, known = known + :known, leaving = leaving + :leaving,
       refused = refused + :refused, duplicates = duplicates + :duplicates, suppressed = suppressed + :suppressed,
       unsaid = unsaid + :unsaid
 WHERE id = :id
""")
_FINISH = text("UPDATE import_run SET finished_at = wall() WHERE id = :id AND finished_at IS NULL")


def advance(connection: Connection, run_id: int, counts: Counts) -> None:
    """Note that these rows are done with."""
    names = ("rows", "added", "known", "leaving", "refused", "duplicates", "suppressed", "unsaid")
    connection.execute(_ADVANCE, {"id": run_id, **{name: getattr(counts, name) for name in names}})


def finish(connection: Connection, run_id: int) -> bool:
    """Note that the file is done with; False when it was before."""
    return connection.execute(_FINISH, {"id": run_id}).rowcount == 1


def source_of(run_id: int) -> str:
    """The source of whatever this run writes into a ledger."""
    return f"import:{run_id}"


_SOURCE = re.compile(r"import:(\d{1,18})(?:: .*)?\Z", re.DOTALL)


def run_of(source: str) -> int | None:
    """The run that wrote a row of this source; None: no run did."""
    match = _SOURCE.match(source)
    return None if match is None else int(match[1])


# refuse: the rows of the slice that could not be taken.
_REFUSE = text("""
INSERT INTO import_refusal (run_id, line, reason)
SELECT :run_id, told.line, told.reason
  FROM unnest(CAST(:lines AS bigint[]), CAST(:reasons AS text[])) AS told (line, reason)
""")
_REFUSALS = text("SELECT line, reason FROM import_refusal WHERE run_id = :run_id ORDER BY line").execution_options(
    yield_per=5_000
)


def refuse(connection: Connection, run_id: int, refused: Sequence[tuple[int, str]]) -> None:
    """Keep which rows were refused, and why."""
    if refused:
        values = {"run_id": run_id, "lines": [line for line, _ in refused], "reasons": [why for _, why in refused]}
        connection.execute(_REFUSE, values)


def refusals(connection: Connection, run_id: int) -> Iterator[tuple[int, str]]:
    """Every refused row of a run, by line; fetched in pieces."""
    with connection.execute(_REFUSALS, {"run_id": run_id}) as rows:
        for row in rows:
            yield row.line, row.reason
