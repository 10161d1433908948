"""Witnesses: what a file of this host and Redis remember about the record, so that one that went back is found out.

A batch is never deleted, so the greatest batch id only grows. Whoever remembers a greater one than the database has
remembers a time that the database has forgotten.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from dripwell.core.errors import UnavailableError
from dripwell.storage.database import Connection

log = logging.getLogger("dripwell.storage")

TABLES = ("batch", "message", "enrollment", "subscriber", "suppression")
"""Whose numbers leave the house, in links and in journals: none of them may ever mean somebody else."""
_SEQUENCES = {table: "seq" if table == "suppression" else "id" for table in TABLES}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a witness remembers. `identity`: of the installation. `numbers`: the last one given out, by table."""

    identity: UUID | None = None
    system: str | None = None
    epoch: int = 0
    batch: int = 0
    numbers: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """The record as it stands. `system` is the cluster it runs on, `known_system` the one it was written on.

    `is_empty`: nobody ever joined and nobody ever left, so there is nobody it could have forgotten a mail to.
    """

    identity: UUID | None
    system: str | None
    known_system: str | None
    epoch: int
    epoch_batch: int
    batch: int
    numbers: dict[str, int]
    quarantined_at: Any
    quarantine_reason: str | None
    replayed_at: Any
    is_empty: bool


class Witnesses:
    """The file in the state directory and the key in Redis. A silent Redis is no witness, and no error."""

    def __init__(self, state_dir: Path, redis_url: str) -> None:
        self._path = state_dir / "witness.json"
        self._redis = redis.Redis.from_url(
            redis_url,
            socket_connect_timeout=0.1,
            socket_timeout=0.25,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            driver_info=None,
            decode_responses=True,
        )

    def read(self, identity: UUID | None) -> list[Seen]:
        """What the file says, and what Redis says about this installation. Read them before the database.

        Raises UnavailableError when the file is there and cannot be read.
        """
        found = []
        try:
            value = json.loads(self._path.read_text(encoding="utf-8"))
            found.append(
                Seen(UUID(value["identity"]), value["system"], value["epoch"], value["batch"], value["numbers"])
            )
        except FileNotFoundError:
            log.debug("no witness in %s yet", self._path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UnavailableError(
                f"{self._path} cannot be read ({error}). It says how far the database had come. "
                "If it is damaged, remove it; Redis and the journal are witnesses too."
            ) from error
        if identity is not None:
            with contextlib.suppress(redis.RedisError, OSError, ValueError):  # one witness fewer
                kept: dict[str, str] = self._redis.hgetall(_key(identity))  # type: ignore[assignment]
                if kept:
                    found.append(Seen(identity, kept.get("system"), int(kept["epoch"]), int(kept["batch"])))
        return found

    def write(self, record: Record) -> None:
        """Remember the record as it stands now. Raises UnavailableError when the file cannot be written."""
        if record.identity is None:
            return
        value = {
            "identity": str(record.identity),
            "system": record.system,
            "epoch": record.epoch,
            "batch": record.batch,
            "numbers": record.numbers,
        }
        fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(value, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self._path)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise UnavailableError(
                f"{self._path} cannot be written ({error.strerror or error}). Make room on that disk: without this "
                "file a database that is restored from a backup may not be recognized."
            ) from error
        mapping: dict[Any, Any] = {"system": record.system or "", "epoch": record.epoch, "batch": record.batch}
        with contextlib.suppress(redis.RedisError, OSError):  # one witness fewer
            self._redis.hset(_key(record.identity), mapping=mapping)

    def close(self) -> None:
        """Drop the connection."""
        self._redis.close()


def _key(identity: UUID) -> str:
    return f"dw:witness:{identity}"


# identify: the first start gives an installation its identity; templates and copies of templates have none.
_IDENTIFY = text("""
UPDATE installation SET identity = gen_random_uuid()
 WHERE identity IS NULL
""")
_IDENTITY = text("SELECT identity FROM installation")


def identity(connection: Connection) -> UUID | None:
    """Whose record this is; None before its first start."""
    found: UUID | None = connection.execute(_IDENTITY).scalar()
    return found


def identify(connection: Connection) -> None:
    """Give an installation that has no identity one."""
    connection.execute(_IDENTIFY)


_NUMBERS = ", ".join(
    f"(SELECT last_value FROM {table}_{column}_seq) AS {table}_number" for table, column in _SEQUENCES.items()
)

# read: `last_value` of a sequence nobody used yet is its first number, which does no harm here.
_READ = text(f"""
SELECT identity, system_identifier AS known_system, epoch, epoch_batch, quarantined_at, quarantine_reason, replayed_at,
       coalesce((SELECT max(id) FROM batch), 0) AS batch,
       NOT EXISTS (SELECT FROM subscriber) AND NOT EXISTS (SELECT FROM suppression)
         AND NOT EXISTS (SELECT FROM enrollment) AND NOT EXISTS (SELECT FROM batch) AS is_empty,
       {_NUMBERS}
  FROM installation
""")


def read(connection: Connection) -> Record:
    """The record's own numbers, in one statement."""
    row = connection.execute(_READ).one()
    return Record(
        identity=row.identity,
        system=_system(connection),
        known_system=row.known_system,
        epoch=row.epoch,
        epoch_batch=row.epoch_batch,
        batch=row.batch,
        numbers={table: getattr(row, f"{table}_number") for table in TABLES},
        quarantined_at=row.quarantined_at,
        quarantine_reason=row.quarantine_reason,
        replayed_at=row.replayed_at,
        is_empty=row.is_empty,
    )


# system: which cluster this is. Everybody may ask, unless somebody took that away.
_SYSTEM = text("SELECT CAST(system_identifier AS text) FROM pg_control_system()")


def _system(connection: Connection) -> str | None:
    try:
        with connection.begin_nested():
            found: str = connection.execute(_SYSTEM).scalar_one()
            return found
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != "42501":
            raise
        log.warning("this database user may not read pg_control_system(): a change of servers goes unnoticed")
        return None


# know_system: from now on transaction ids in the record are this cluster's.
_KNOW_SYSTEM = text("UPDATE installation SET system_identifier = :system")


def know_system(connection: Connection, system: str | None) -> None:
    """Remember the cluster whose transaction ids the record holds."""
    connection.execute(_KNOW_SYSTEM, {"system": system})


# quarantine: only the first one who finds out.
_QUARANTINE = text("""
UPDATE installation
   SET quarantined_at = wall(), quarantine_reason = :reason, replayed_at = NULL
 WHERE quarantined_at IS NULL
""")


def quarantine(connection: Connection, reason: str) -> bool:
    """From this commit on nobody is called. False: it was so already."""
    return connection.execute(_QUARANTINE, {"reason": reason}).rowcount == 1


# advance: numbers only grow, whoever else has moved them meanwhile.
_ADVANCE = {
    table: text(
        f"SELECT setval('{table}_{column}_seq', greatest((SELECT last_value FROM {table}_{column}_seq), :beyond))"
    )
    for table, column in _SEQUENCES.items()
}


def advance(connection: Connection, beyond: dict[str, int]) -> None:
    """Let the next number of each table be greater than this one."""
    for table, number in beyond.items():
        connection.execute(_ADVANCE[table], {"beyond": number})


# begin_epoch: whatever was numbered by then belongs to the epochs before.
_BEGIN_EPOCH = text("""
UPDATE installation SET epoch = greatest(epoch + 1, :epoch), epoch_batch = (SELECT last_value FROM batch_id_seq)
""")


def begin_epoch(connection: Connection, epoch: int) -> None:
    """Begin a timeline: the next epoch, or `epoch` if that is later. Call it after `advance`.

    The fast set of suppressions becomes invalid with it.
    """
    connection.execute(_BEGIN_EPOCH, {"epoch": epoch})


# replayed: the journals have been read.
_REPLAYED = text("UPDATE installation SET replayed_at = wall() WHERE quarantined_at IS NOT NULL")

# lift: the record is trusted again.
_LIFT = text("""
UPDATE installation SET quarantined_at = NULL, quarantine_reason = NULL, system_identifier = :system
 WHERE quarantined_at IS NOT NULL
""")


def replayed(connection: Connection) -> None:
    """The journals have been replayed."""
    connection.execute(_REPLAYED)


def lift(connection: Connection, system: str | None) -> bool:
    """Calls may be made again. False: there was no quarantine."""
    return connection.execute(_LIFT, {"system": system}).rowcount == 1


# lock: everybody who judges or changes the timeline does it one after the other.
_LOCK = text("SELECT quarantined_at FROM installation FOR UPDATE")


def lock(connection: Connection) -> bool:
    """Hold the installation's row; returns whether there is a quarantine."""
    return connection.execute(_LOCK).scalar_one() is not None


# is_quarantined: asked wherever somebody would be called.
_IS_QUARANTINED = text("SELECT quarantined_at IS NOT NULL FROM installation")


def is_quarantined(connection: Connection) -> bool:
    """Whether nobody may be called."""
    found: bool = connection.execute(_IS_QUARANTINED).scalar_one()
    return found
