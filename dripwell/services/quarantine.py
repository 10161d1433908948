"""Quarantine: a database that has gone back in time calls nobody until a person has looked at it.

Witnesses remember how far the record had come: a file of this host, Redis, and the call journal. A record that is
behind one of them, or that runs on another cluster than the one it was written on, was restored. What it forgot is in
the journals (`services.restore`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from dripwell.core.campaign import Lane
from dripwell.core.errors import RefusedError
from dripwell.services import restore
from dripwell.storage import campaigns, clock, journal, restoring, witness
from dripwell.storage.database import Connection, Database
from dripwell.storage.witness import Record, Seen, Witnesses

log = logging.getLogger("dripwell.restore")

BEYOND = 10_000_000
"""How far every number jumps past what is remembered: more than was ever given out between two looks."""
_WATCH = "watch"


def watch(database: Database, witnesses: Witnesses, folder: Path) -> bool:
    """Compare the record with its witnesses, and remember how far it has come. True: quarantine, call nobody.

    Run it before the first pass and at the start of every pass that may call. `folder` is this host's journal. Raises
    UnavailableError when the witness file can be neither read nor written: then nobody may be called either.
    """
    with database.transaction() as connection:
        whose = witness.identity(connection)
    # Witnesses first: whatever they remember was true before the record is read, so the record must know it.
    seen = witnesses.read(whose)
    top = journal.highest(folder)
    with database.transaction() as connection:
        record = witness.read(connection)
    if record.quarantined_at is not None:
        return True
    why = _why(record, seen, top)
    if why is None:
        witnesses.write(_settled(database, record))
        return False
    if _is_new(record, seen):
        lost = restore.count(folder)
        if database.retrying(lambda connection: _begin_anew(connection, seen, lost, folder)):
            return False
        return is_on(database)
    _stop(database, record, seen, top, why)
    return True


def found_out(database: Database, witnesses: Witnesses, folder: Path) -> None:
    """A sender got a number for its batch that this host has journaled before: the record went back, so stop.

    That claim may have been what the record lacked, so `watch` can find nothing any more.
    """
    with database.transaction() as connection:
        seen = witnesses.read(witness.identity(connection))
        record = witness.read(connection)
    why = "A new batch got a number that the journal of this host knows."
    _stop(database, record, seen, journal.highest(folder), why)


def _stop(database: Database, record: Record, seen: Sequence[Seen], top: tuple[int, int], why: str) -> None:
    if database.retrying(lambda connection: _raise(connection, record, seen, top, why)):
        log.critical("QUARANTINE: nobody is called. %s Look at it: dripwell quarantine show", why)


def is_on(database: Database) -> bool:
    """Whether nobody may be called."""
    with database.transaction() as connection:
        return witness.is_quarantined(connection)


def _why(record: Record, seen: Sequence[Seen], top: tuple[int, int]) -> str | None:
    for one in seen:
        if one.identity != record.identity and one.epoch >= record.epoch:
            return "The state directory of this host remembers another database."
        if one.epoch > record.epoch:
            return f"The database is in epoch {record.epoch}; epoch {one.epoch} is remembered."
        if one.epoch == record.epoch and one.batch > record.batch:
            return f"The database ends with batch {record.batch:,}; batch {one.batch:,} is remembered."
    if top > (record.epoch, record.batch) and top[0] >= record.epoch:
        return f"The database ends with batch {record.batch:,}; the journal knows a call for batch {top[1]:,}."
    if record.batch and record.system and record.known_system not in (None, record.system):
        return "The record was written on another cluster of servers: it was copied, or loaded from a dump."
    return None


def _is_new(record: Record, seen: Sequence[Seen]) -> bool:
    """Whether it was never started, or is surely not the one the witnesses speak of; and nobody ever joined it."""
    remembered = {one.identity for one in seen}
    another = bool(remembered) and record.identity not in remembered
    return record.is_empty and (record.identity is None or another)


def _settled(database: Database, record: Record) -> Record:
    """The record with its identity, given at the first start, and with the cluster it runs on."""
    if record.identity is not None and record.system == record.known_system:
        return record
    with database.transaction() as connection:
        witness.identify(connection)
        if record.system is not None:
            witness.know_system(connection, record.system)
        return witness.read(connection)


def _begin_anew(connection: Connection, seen: Sequence[Seen], lost: restore.Numbers, folder: Path) -> bool:
    """A brand-new record in an old state directory. False: it is not, or somebody else was first.

    Nobody ever joined it, so nobody can be mailed twice by their number. But its numbers must not repeat delivered
    ones, and who left must stay away when they are imported again: the ledger knows them by the address.
    """
    quarantined = witness.lock(connection)
    record = witness.read(connection)
    top = (lost.epoch, lost.highest["batch"])
    if quarantined or not record.is_empty or _why(record, seen, top) is None:
        return False
    witness.identify(connection)
    beyond = _beyond(record, seen, top)
    witness.advance(connection, {table: max(beyond[table], lost.highest[table] + BEYOND) for table in witness.TABLES})
    witness.begin_epoch(connection, max([lost.epoch, *(one.epoch for one in seen)]) + 1)
    left = restore.put_back_leaves(connection, folder)
    log.warning(
        "an empty database takes the place of the one this state directory remembers; "
        "%d rows of the suppression ledger are back",
        left,
    )
    return True


def _raise(
    connection: Connection,
    record: Record,
    seen: Sequence[Seen],
    top: tuple[int, int],
    why: str,
    *,
    actor: str = _WATCH,
) -> bool:
    if witness.lock(connection) or not witness.quarantine(connection, why):
        return False
    witness.identify(connection)
    # At once, and not only with the replay: people who join meanwhile must not get the numbers of those who are lost.
    witness.advance(connection, _beyond(record, seen, top))
    witness.begin_epoch(connection, max([top[0], *(one.epoch for one in seen)]) + 1)
    campaigns.add_activity(connection, actor=actor, action="quarantined", about="installation", detail={"reason": why})
    return True


def begin(database: Database, *, actor: str, reason: str) -> bool:
    """Stop every call on the word of a person, who knows of a restore. False: there is a quarantine already."""
    return database.retrying(
        lambda connection: _raise(connection, witness.read(connection), (), (0, 0), reason, actor=actor)
    )


def _beyond(record: Record, seen: Sequence[Seen], top: tuple[int, int]) -> dict[str, int]:
    known = {
        table: max([number, *(one.numbers.get(table, 0) for one in seen)]) for table, number in record.numbers.items()
    }
    known["batch"] = max([known["batch"], top[1], *(one.batch for one in seen)])
    return {table: number + BEYOND for table, number in known.items()}


@dataclass(frozen=True, slots=True)
class Found:
    """What there is to know about a quarantine before somebody lifts it. `lost`: what the journals have to say."""

    since: datetime | None
    reason: str | None
    replayed_at: datetime | None
    lost: restore.Replayed
    unsettled_batches: int
    unsettled_emails: int


def show(database: Database, folders: Sequence[Path]) -> Found:
    """Look, and change nothing. Reads the whole journals."""
    lost = restore.lost_calls(database, folders)
    with database.transaction() as connection:
        record = witness.read(connection)
        batches, emails = restoring.unsettled(connection)
    return Found(record.quarantined_at, record.quarantine_reason, record.replayed_at, lost, batches, emails)


def lift(database: Database, *, actor: str, reason: str, without_replay: bool = False) -> tuple[int, int]:
    """Let calls be made again, on the word of a person. Returns (batches, emails) that evidence has yet to settle.

    Raises RefusedError when there is no quarantine, or when nothing was replayed and `without_replay` does not say
    that this is meant.
    """
    if not reason.strip():
        raise RefusedError("say why: dripwell quarantine lift --reason …")
    restore.renew(database)

    def work(connection: Connection) -> tuple[int, int]:
        if not witness.lock(connection):
            raise RefusedError("there is no quarantine to lift")
        record = witness.read(connection)
        if record.replayed_at is None and not without_replay:
            raise RefusedError(
                "the journals have not been replayed, so everybody who was mailed after the backup would be mailed "
                "again. First: dripwell quarantine replay. If nothing was mailed after it, or the journals are lost: "
                "dripwell quarantine lift --without-replay --reason …"
            )
        witness.lift(connection, record.system)
        detail = {"reason": reason, "was": record.quarantine_reason, "replayed": record.replayed_at is not None}
        campaigns.add_activity(connection, actor=actor, action="quarantine lifted", about="installation", detail=detail)
        for queue in ("plan", *Lane):
            campaigns.ring(connection, str(queue))
        return restoring.unsettled(connection)

    # No witness is told: every one of them remembers an epoch before this one, and learns of it with the next look.
    return database.retrying(work)


def journal_behind(database: Database, folder: Path, host: str, *, seconds: float = 3600.0) -> list[str]:
    """V6: the database knows every journaled batch, and each call of this host within `seconds` has its line.

    Returns what does not hold, in words; empty: all is well. A line stands before its call, so the calls are read
    first and nothing written meanwhile looks like a fault. Costs what `seconds` of the journal cost, not all of it.
    """
    with database.transaction() as connection:
        called = restoring.called_here(connection, host, seconds)
        since = clock.read(connection).wall_now - timedelta(seconds=seconds)
    found = []
    lines = journal.batches_called(folder, host, since)
    top = journal.highest(folder)
    with database.transaction() as connection:
        record = witness.read(connection)
    if top[0] >= record.epoch and top > (record.epoch, record.batch):
        found.append(f"the journal knows batch {top[1]}, the database ends with {record.batch}")
    missing = [batch for batch in called if batch not in lines]
    if missing:
        found.append(f"calls without a line in the journal: batches {', '.join(map(str, missing[:20]))}")
    return found


def forget_old(database: Database, folder: Path, host_now: datetime) -> list[Path]:
    """Remove what is older than `journal.KEEP_DAYS` from this host's journal; returns the files.

    `host_now` is this host's own clock. Nothing goes while the record is in quarantine, which needs all of it, or while
    its clock is in doubt, by which files are named.
    """
    with database.transaction() as connection:
        times = clock.read(connection)
        if times.alarm is not None or witness.is_quarantined(connection):
            return []
    return journal.prune(folder, times.wall_now.date(), host_now)
