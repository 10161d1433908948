"""One door to PostgreSQL: transactions, snapshots, retries of lost races, and one error when it is away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import psycopg
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from dripwell.core.errors import ConfigurationError, UnavailableError

__all__ = ["Connection", "Database"]

log = logging.getLogger("dripwell.storage")
T = TypeVar("T")
_LOST_RACE = ("40001", "40P01")


class Database:
    """A small pool of connections to the record. Open it after a fork, never before."""

    def __init__(
        self, url: str, *, pool: int = 5, session: str = "", statement: float = 30.0, idle_in_transaction: float = 60.0
    ) -> None:
        """`url` is what DATABASE_URL holds; `session` is extra libpq options, for tests.

        The server ends a statement that takes longer than `statement` seconds, and a transaction in which nothing is
        said for `idle_in_transaction` seconds: a process that stands still lets go of what it locked. PgBouncer hands
        neither on (`ignore_startup_parameters = options`); there they are set once, with ALTER ROLE … SET.
        """
        if not url.startswith(("postgresql://", "postgres://", "postgresql+psycopg://")):
            raise ConfigurationError("DATABASE_URL must start with postgresql://")
        plain = url.replace("postgres://", "postgresql://", 1).replace("postgresql+psycopg://", "postgresql://", 1)
        self.dsn = plain
        timeouts = {"statement_timeout": statement, "idle_in_transaction_session_timeout": idle_in_transaction}
        limits = " ".join(f"-c {name}={seconds * 1000:.0f}" for name, seconds in timeouts.items())
        options = f"-c timezone=UTC {limits} {session}"
        try:
            self.engine = create_engine(
                plain.replace("postgresql://", "postgresql+psycopg://", 1),
                pool_size=pool,
                max_overflow=pool,
                pool_pre_ping=True,
                hide_parameters=True,  # they hold addresses and phone numbers, and errors end up in logs
                pool_timeout=10,
                # No server-side prepared statements: PgBouncer before 1.21 cannot carry them.
                connect_args={"options": options, "connect_timeout": 5, "prepare_threshold": None},
            )
        except Exception as error:  # a malformed URL raises many things
            raise ConfigurationError(f"DATABASE_URL cannot be read: {type(error).__name__}") from error

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One READ COMMITTED transaction. Raises UnavailableError when PostgreSQL does not answer."""
        with _away(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """One REPEATABLE READ transaction: everything in it sees the same moment."""
        with (
            _away(),
            self.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection,
            connection.begin(),
        ):
            yield connection

    def retrying(self, work: Callable[[Connection], T], tries: int = 3) -> T:
        """Run `work` in a transaction, again when it lost a race (40001, 40P01), `tries` times in all."""
        for attempt in range(1, tries + 1):
            try:
                with self.transaction() as connection:
                    return work(connection)
            except DBAPIError as error:
                if not lost_race(error) or attempt == tries:
                    raise
                time.sleep(0.01 * attempt)
        raise AssertionError("unreachable")

    def listen(self, channel: str, timeout: float) -> Iterator[str | None]:
        """Yield each notification's payload, and None whenever `timeout` seconds pass in silence.

        Uses a connection of its own. Raises UnavailableError when PostgreSQL goes away.
        """
        try:
            with psycopg.connect(self.dsn, autocommit=True, connect_timeout=5) as connection:
                connection.execute(psycopg.sql.SQL("LISTEN {}").format(psycopg.sql.Identifier(channel)))
                while True:
                    heard = False
                    for note in connection.notifies(timeout=timeout, stop_after=1):
                        heard = True
                        yield note.payload
                    if not heard:
                        yield None
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise UnavailableError("PostgreSQL does not answer") from error

    def close(self) -> None:
        """Give every connection back."""
        self.engine.dispose()


def lost_race(error: Exception) -> bool:
    """Say whether PostgreSQL chose this transaction as the one to try again (40001, 40P01)."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _LOST_RACE


def is_usable(connection: Connection) -> bool:
    """Say whether this transaction takes another statement: what failed in it, failed outside PostgreSQL."""
    if connection.invalidated:
        return False  # the session died; to ask for it would raise something else
    session = connection.connection.dbapi_connection
    return isinstance(session, psycopg.Connection) and session.info.transaction_status in (
        psycopg.pq.TransactionStatus.IDLE,
        psycopg.pq.TransactionStatus.INTRANS,
    )


def violated(error: DBAPIError) -> str | None:
    """Return the name of the constraint this statement ran into, or None."""
    diagnosis = getattr(error.orig, "diag", None)
    name = getattr(diagnosis, "constraint_name", None)
    return str(name) if name else None


def _refusal(error: Exception) -> str | None:
    """The SQLSTATE of a refused connection. libpq keeps it to itself, so it is read from the server's words."""
    words = str(getattr(error, "orig", ""))
    if "authentication failed" in words or "no password supplied" in words:
        return "28P01"
    if "FATAL" in words and 'database "' in words and "does not exist" in words:
        return "3D000"
    return getattr(getattr(error, "orig", None), "sqlstate", None)


def _is_away(error: DBAPIError) -> bool:
    # A session that the server ended for standing still is an InternalError, and so is a standby that takes no writes.
    read_only = getattr(error.orig, "sqlstate", None) == "25006"
    return isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated or read_only


@contextmanager
def _away() -> Iterator[None]:
    try:
        yield
    except (DBAPIError, PoolTimeout) as error:
        if isinstance(error, DBAPIError) and (lost_race(error) or not _is_away(error)):
            raise
        state = _refusal(error)
        if state == "28P01":
            raise ConfigurationError("DATABASE_URL is refused: wrong user or password") from error
        if state == "3D000":
            raise ConfigurationError("DATABASE_URL names a database that does not exist: create it first") from error
        raise UnavailableError(
            "PostgreSQL does not answer: is DATABASE_URL right, and is the server running? Nothing was changed."
        ) from error
