"""PostgreSQL and Redis for a machine that has none, in the state directory."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from dripwell.core.errors import ConfigurationError
from dripwell.embedded import postgres, valkey
from dripwell.embedded.lock import Held, hold, running
from dripwell.embedded.process import Process, describe_exit, end, has_ended, spawn
from dripwell.embedded.state import cannot_write, is_free, last_lines, log_path, rotate

LEFTOVERS_END_WITHIN = 60.0


def _new_password() -> str:
    # Not one of the values `bootstrap` hands down: it is made once per data folder and nothing that Dripwell decides or
    # shows depends on it.
    return os.urandom(24).hex()


@dataclass(frozen=True, slots=True)
class Prepared:
    """Data folders that are ready and the processes to run on them, none started yet. Close after they have ended."""

    folder: Path
    processes: tuple[Process, ...]
    database_url: str | None
    redis_url: str | None
    _lock: int

    def close(self) -> None:
        """Give up the data folders."""
        os.close(self._lock)

    def __enter__(self) -> Prepared:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def prepare(
    held: Held,
    *,
    database: bool = True,
    redis: bool = True,
    fast: bool = False,
    new_secret: Callable[[], str] = _new_password,
) -> Prepared:
    """Get the data folders ready, for a supervisor to run `processes`.

    `fast` is for tests: a crash of the machine may lose everything.
    """
    lock = _lock_data(held.folder)
    try:
        found = []
        database_url = redis_url = None
        if database:
            process, database_url = postgres.prepare(held.folder, new_secret, fast=fast, keep_fds=(lock,))
            found.append(process)
        if redis:
            process, redis_url = valkey.prepare(held.folder, fast=fast, keep_fds=(lock,))
            found.append(process)
    except OSError as problem:
        os.close(lock)
        raise cannot_write(held.folder, problem) from problem
    except BaseException:
        os.close(lock)
        raise
    return Prepared(held.folder, tuple(found), database_url, redis_url, lock)


def _lock_data(folder: Path) -> int:
    # The servers inherit this lock, so it is free only when the last of them has gone: those of a run that was killed
    # may still be writing while we already hold the folder.
    try:
        descriptor = os.open(folder / "servers.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as problem:
        raise cannot_write(folder, problem) from problem
    limit = time.monotonic() + LEFTOVERS_END_WITHIN
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError as problem:
            if time.monotonic() > limit:
                os.close(descriptor)
                raise ConfigurationError(
                    f"Servers of an earlier run are still using {folder} and do not end. "
                    f"Find them with `fuser {folder / 'servers.lock'}`, end them with `kill`, and start again."
                ) from problem
            time.sleep(0.02)


class Servers:
    """The embedded servers, running. A context manager; `stop` may be called more than once."""

    def __init__(self, database_url: str | None, redis_url: str | None, prepared: Prepared | None = None) -> None:
        self._database_url = database_url
        self._redis_url = redis_url
        self._held: Held | None = None
        self._prepared = prepared
        self._children: list[tuple[Process, subprocess.Popen[bytes]]] = []

    @property
    def database_url(self) -> str:
        """`postgresql://…`, with the password."""
        if self._database_url is None:
            raise ConfigurationError("The embedded PostgreSQL was not asked for. Set DATABASE_URL.")
        return self._database_url

    @property
    def redis_url(self) -> str:
        """`redis://…`."""
        if self._redis_url is None:
            raise ConfigurationError("The embedded Redis was not asked for. Set REDIS_URL.")
        return self._redis_url

    def pids(self) -> dict[str, int]:
        """The process of each server that we started and that has not ended."""
        return {process.name: child.pid for process, child in self._children if not has_ended(child)}

    def check(self) -> None:
        """ConfigurationError if a server has ended; it holds the last lines of its log."""
        for process, child in self._children:
            if has_ended(child):
                raise did_not_run(process, self._log(process), describe_exit(child.wait()))

    def stop(self) -> None:
        """End the servers, last started first, and give up the state directory."""
        while self._children:
            process, child = self._children.pop()
            end(process, child)
        if self._prepared is not None:
            self._prepared.close()
            self._prepared = None
        if self._held is not None:
            self._held.release()
            self._held = None

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _log(self, process: Process) -> Path:
        if self._prepared is None:
            raise ConfigurationError("The embedded servers have been stopped.")
        return log_path(self._prepared.folder, process.name)

    def _start(self, process: Process) -> None:
        log = self._log(process)
        rotate(log)
        with log.open("ab") as output:
            child = spawn(process, stdout=output)
        self._children.append((process, child))
        await_ready(process, child, log)


def await_ready(process: Process, child: subprocess.Popen[bytes], log: Path) -> None:
    """Return when it is ready; ConfigurationError, with the end of its log, if it ends instead or takes too long."""
    limit = time.monotonic() + process.ready_within
    pause = 0.01
    while True:
        if has_ended(child):
            raise did_not_run(process, log, describe_exit(child.wait()))
        if process.ready is None or process.ready():
            return
        if time.monotonic() > limit:
            raise did_not_run(process, log, f"not ready after {process.ready_within:.0f} s")
        time.sleep(pause)
        pause = min(0.1, pause * 1.5)


OTHER_WAYS = {
    "postgres": " or set DATABASE_URL to a PostgreSQL of your own,",
    "redis": " or set REDIS_URL to a Redis of your own,",
}


def did_not_run(process: Process, log: Path, how: str) -> ConfigurationError:
    """The error for a process that ended, or never became ready, in `how` words."""
    return ConfigurationError(
        f"{process.name} did not run ({how}). Its log {log} ends with\n{last_lines(log)}\n"
        f"Mend that,{OTHER_WAYS.get(process.name, '')} and start again."
    )


def start(
    state_dir: Path,
    *,
    database: bool = True,
    redis: bool = True,
    fast: bool = False,
    new_secret: Callable[[], str] = _new_password,
    patience: float = 0.5,
) -> Servers:
    """Start the servers on the data of the state directory, made if need be; returns when they take connections.

    RefusedError if somebody else holds the directory and does not let go within `patience` seconds.
    """
    held = hold(state_dir, patience=patience)
    try:
        servers = _start(held, database=database, redis=redis, fast=fast, new_secret=new_secret)
        urls = {"postgres": servers._database_url, "redis": servers._redis_url}
        held.announce({name: url for name, url in urls.items() if url is not None})
    except BaseException:
        held.release()
        raise
    servers._held = held
    return servers


def running_or_started(state_dir: Path, *, patience: float = 30.0) -> Servers:
    """For a command in another terminal: the servers of the `dripwell run` that holds the directory, or else our own.

    `stop` ends only what we started. Another short command that holds the directory is waited for.
    """
    limit = time.monotonic() + patience
    while (info := running(state_dir)) is not None and time.monotonic() < limit:
        if info.lasting and "postgres" in info.addresses and "redis" in info.addresses:
            return Servers(info.addresses["postgres"], info.addresses["redis"])
        time.sleep(0.05)
    return start(state_dir)


def _start(held: Held, *, database: bool, redis: bool, fast: bool, new_secret: Callable[[], str]) -> Servers:
    tries = 3
    while True:
        tries -= 1
        prepared = prepare(held, database=database, redis=redis, fast=fast, new_secret=new_secret)
        servers = Servers(prepared.database_url, prepared.redis_url, prepared)
        try:
            for process in prepared.processes:
                servers._start(process)
            return servers
        except ConfigurationError:
            servers.stop()
            # Somebody may have taken a port between our look and the server's: then another is chosen.
            ports = [urlsplit(url).port for url in (prepared.database_url, prepared.redis_url) if url is not None]
            if not tries or all(port is not None and is_free(port) for port in ports):
                raise
        except BaseException:
            servers.stop()
            raise
