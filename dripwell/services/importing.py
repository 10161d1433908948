"""Files of people come in: by the slice, each in one transaction, so that a run that is killed goes on where it was.

Two cores work at once: a thread reads, judges and writes down the next slice while PostgreSQL takes in this one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from uuid import UUID

from dripwell.content.importing.judge import judged, laid_out
from dripwell.content.importing.records import Layout, count, digest
from dripwell.content.importing.values import BadRow, Reading, Rules, Statement
from dripwell.core.errors import RefusedError
from dripwell.services import happen, leave
from dripwell.services.slices import ahead, parts, staged
from dripwell.services.versions import Versions
from dripwell.storage import campaigns, clock, import_runs, importing, leaving
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection, Database
from dripwell.storage.import_runs import Counts, Run
from dripwell.storage.importing import Staged
from dripwell.storage.leaving import Unwanted

SLICE = 10_000
AGAIN = "the same address stands in an earlier row"
ERASED = "this person was erased: only they can come back, by confirming a form"
Tick = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Opened:
    """A file that can be read to its end, and how. `rows` is how many it has; `settings` what decides its meaning."""

    path: Path
    layout: Layout
    reading: Reading
    sha256: bytes
    rows: int


@dataclass(slots=True)
class Imported:
    """What became of an import. `bad` holds the first refused rows only; `counts` says how many there are."""

    counts: Counts
    bad: list[BadRow] = field(default_factory=list)
    run: int | None = None
    resumed_at: int = 0  # rows that an earlier, broken run had taken in
    finished_before: bool = False

    @property
    def added(self) -> int:
        """How many people are new."""
        return self.counts.added

    @property
    def known(self) -> int:
        """How many people were known."""
        return self.counts.known

    @property
    def unsaid(self) -> int:
        """How many people were taken in by rows that do not say whether they are patients."""
        return self.counts.unsaid

    @property
    def rows(self) -> int:
        """How many rows the file has."""
        return self.counts.rows


def opened(path: Path, reading: Reading) -> Opened:
    """Read the file to its end, so that one that breaks off is refused as a whole. Raises ContentError."""
    laid = laid_out(path, reading)
    return Opened(path, laid, reading, digest(path), count(path, laid))


def begin(
    database: Database, file: Opened, statement: Statement, *, told: Mapping[str, str], actor: str, again: bool = False
) -> tuple[Run, bool]:
    """Find the run of this file that was begun before, or begin one. Returns (run, whether it was finished before).

    `told` is what the operator said in their own words: the same file with other words is another run. A finished run
    is not begun again unless `again`.
    """
    settings = {
        "columns": dict(sorted(file.reading.columns.items())),
        "ignored": sorted(file.reading.ignored),
        "delimiter": file.reading.delimiter,
        "vendor": file.reading.vendor,
        "kind": file.reading.kind,
        **told,
    }
    mark = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).digest()

    def work(connection: Connection) -> tuple[Run, bool]:
        before = import_runs.newest(connection, file.sha256, mark)
        if before is not None and (before.finished_at is None or not again):
            return before, before.finished_at is not None
        run = import_runs.begin(
            connection,
            file=file.path.name,
            sha256=file.sha256,
            settings_sha256=mark,
            settings=settings,
            topics=statement.topics,
            source=statement.source,
            wording=statement.wording,
            given_at=statement.given_at,
            actor=actor,
        )
        detail = {"run": run.id, "file": file.path.name, "rows": file.rows}
        campaigns.add_activity(connection, actor=actor, action="began import", about="subscriber", detail=detail)
        return run, False

    return database.retrying(work)


def take_in(
    database: Database,
    file: Opened,
    run: Run,
    rules: Rules,
    *,
    pepper: bytes,
    versions: Versions,
    new_id: Callable[[], UUID],
    tick: Tick = lambda _: None,
    size: int = SLICE,
) -> Imported:
    """Take in what this run has not taken in yet, a slice to a transaction. Whoever is suppressed stays so.

    `rules` must hold the run's own statement. A tag in a row starts the running campaigns that it triggers; whoever was
    ever in one does not join it again. `tick` is told how many rows are done. Raises RefusedError when another process
    is importing the same file.
    """
    stated = run_statement(run)
    rules = replace(rules, statement=stated)
    rows = judged(file.path, file.layout, file.reading, rules, skip=run.rows_read)
    place = run.rows_read
    tick(place)
    for slice_ in ahead(staged(part, pepper=pepper, new_id=new_id) for part in parts(rows, size)):

        def work(connection: Connection, slice_: Staged = slice_, place: int = place) -> None:
            _take_in_slice(connection, run, place, slice_, versions)

        database.retrying(work)
        place += slice_.rows
        tick(place)

    def end(connection: Connection) -> Imported:
        if import_runs.finish(connection, run.id):
            campaigns.add_activity(
                connection, actor=run.actor, action="imported", about="subscriber",
                detail={"run": run.id, "file": run.file, **asdict(import_runs.by_id(connection, run.id).counts)},
            )  # fmt: skip
        found = finished(connection, run.id)
        found.resumed_at = run.rows_read
        return found

    return database.retrying(end)


def bring_in(
    database: Database,
    path: Path,
    rules: Rules,
    *,
    pepper: bytes,
    versions: Versions,
    new_id: Callable[[], UUID],
    actor: str,
    reading: Reading | None = None,
    size: int = SLICE,
) -> Imported:
    """Open a file and take all of it in, again if it must be: for whoever has no questions to ask between."""
    file = opened(path, reading or Reading())
    run, _ = begin(database, file, rules.statement, told={}, actor=actor, again=True)
    return take_in(database, file, run, rules, pepper=pepper, versions=versions, new_id=new_id, size=size)


def explained(connection: Connection, sources: Iterable[str]) -> dict[str, str]:
    """What stands behind each of these sources that is an import: the file, who imported it, what they stated."""
    runs = {source: run_id for source in sources if (run_id := import_runs.run_of(source)) is not None}
    stated = import_runs.statements(connection, sorted(set(runs.values())))
    found = {}
    for source, run_id in runs.items():
        row = stated.get(run_id)
        if row is not None:
            words = f", stated for the whole file: {row.source}" if row.source else ""
            found[source] = f"file {row.file}, imported {row.begun_at:%Y-%m-%d} by {row.actor}{words}"
    return found


def campaigns_for(connection: Connection, topics: Sequence[str]) -> list[str]:
    """The campaigns that people who agreed to one of these topics can be let into: those that run."""
    rows = campaigns.all_of_kind(connection, ["drip"])
    return [row.name for row in rows if row.state == "running" and row.topic in topics]


def run_statement(run: Run) -> Statement:
    """What was stated for the whole file when the run began: a resumed run does not ask again."""
    return Statement(run.topics, run.source, run.wording, run.given_at)


MOST_LISTED = 1_000
"""Refused rows that are handed back; the record keeps all."""


def finished(connection: Connection, run_id: int) -> Imported:
    """What became of a run so far."""
    bad = [BadRow(*row) for row in islice(import_runs.refusals(connection, run_id), MOST_LISTED)]
    return Imported(import_runs.by_id(connection, run_id).counts, bad, run_id)


def _take_in_slice(connection: Connection, run: Run, place: int, slice_: Staged, versions: Versions) -> None:
    held = import_runs.by_id(connection, run.id, lock=True)
    if held.rows_read != place:
        raise RefusedError(
            f"another process is importing {run.file}: its run {run.id} has moved on. Wait for it, or stop it"
        )
    times = clock.read(connection)
    if slice_.leaving:
        # Before any person, as everybody locks: enrollments, messages, people.
        leavers = leaving.people_of(connection, [row.addr_hash for _, row in slice_.leaving])
        leaving.lock_open(connection, list(leavers.values()))
    importing.stage(connection, slice_)
    doubled = importing.drop_duplicates(connection, run.id)
    erased = importing.drop_erased(connection)
    added, known = importing.add_or_amend(connection, run.id, times.now)
    importing.give(connection, run, slice_)
    _trigger(connection, slice_.tags, versions, times)
    suppressed = importing.suppressed(connection)
    left = _leave(connection, run, slice_.leaving, times)
    doubled += left
    refused = [*slice_.refused, *((line, AGAIN) for line in doubled), *((line, ERASED) for line in erased)]
    import_runs.refuse(connection, run.id, refused)
    unsaid = importing.unsaid(connection)
    counts = Counts(added, known, len(slice_.leaving) - len(left), len(refused), len(doubled), suppressed, unsaid)
    import_runs.advance(connection, run.id, counts)


def _leave(connection: Connection, run: Run, rows: Sequence[tuple[int, Unwanted]], times: Times) -> list[int]:
    """Suppress whoever left the other system, known or not. Returns the lines that say what an earlier one said."""
    if not rows:
        return []
    source = import_runs.source_of(run.id)
    first = _first(rows)
    fresh = set(leaving.unsaid(connection, list(first.values()), source))
    leave.suppress_addresses(connection, list(first.values()), source=source, times=times)
    return [line for line, row in rows if line not in first or row not in fresh]


def _first(rows: Sequence[tuple[int, Unwanted]]) -> dict[int, Unwanted]:
    """Of each address and scope the first row, by line."""
    seen: set[tuple[bytes, str]] = set()
    found = {}
    for line, row in rows:
        if (row.addr_hash, row.scope) not in seen:
            seen.add((row.addr_hash, row.scope))
            found[line] = row
    return found


def _trigger(connection: Connection, tags: frozenset[str], versions: Versions, times: Times) -> None:
    """Enroll the people of the slice in every running campaign that starts with an import or one of their tags."""
    told = {
        (one.kind, one.name if one.kind == "tag" else "")
        for row in campaigns.all_of_kind(connection, ["drip"])
        if row.state == "running" and row.version_id is not None
        for one in versions.published(connection, row.version_id).campaign.triggers
    }
    if ("import", "") in told:
        happen.trigger_many(connection, versions, importing.brought(connection), "import", "", times)
    for tag in sorted(tags):
        if ("tag", tag) in told:
            happen.trigger_many(connection, versions, importing.brought(connection, tag), "tag", tag, times)


def rehearse(
    database: Database,
    file: Opened,
    rules: Rules,
    *,
    pepper: bytes,
    new_id: Callable[[], UUID],
    tick: Tick = lambda _: None,
    refused: Callable[[Iterator[tuple[int, str]]], None] = lambda _: None,
) -> Imported:
    """Say what `take_in` would do with this file from its beginning. Changes nothing.

    `refused` is given every refused row by line, while they are known.
    """
    counts = Counts()
    done = 0
    rows = judged(file.path, file.layout, file.reading, rules)
    with database.snapshot() as connection:
        importing.begin_rehearsal(connection)
        for slice_ in ahead(staged(part, pepper=pepper, new_id=new_id) for part in parts(rows, SLICE)):
            importing.stage(connection, slice_)
            added, known, doubled, erased = importing.rehearse(connection)
            suppressed = importing.suppressed(connection)
            unsaid = importing.unsaid(connection)
            first = _first(slice_.leaving)
            fresh = importing.rehearse_leaving(connection, list(first.values())) if first else set()
            doubled += [
                line for line, row in slice_.leaving if line not in first or (row.addr_hash, row.scope) not in fresh
            ]
            bad = [*slice_.refused, *((line, AGAIN) for line in doubled), *((line, ERASED) for line in erased)]
            import_runs.refuse(connection, 0, bad)
            left = slice_.rows - added - known - len(bad)
            more = Counts(added, known, left, len(bad), len(doubled), suppressed, unsaid)
            counts = Counts(*(a + b for a, b in zip(asdict(counts).values(), asdict(more).values(), strict=True)))
            done += slice_.rows
            tick(done)
        listed = [BadRow(*row) for row in islice(import_runs.refusals(connection, 0), MOST_LISTED)]
        refused(import_runs.refusals(connection, 0))
    return Imported(counts, listed)
