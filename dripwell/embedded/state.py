"""The state directory: made, checked and written so that a crash leaves either the old file or the new one."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from dripwell.core.errors import ConfigurationError

T = TypeVar("T")

MEGABYTE = 1024 * 1024
ROOM_TO_BEGIN = 150 * MEGABYTE  # a new database takes 40 MB and its first log segments 80 MB more
ROOM_TO_GO_ON = 32 * MEGABYTE
LOG_SIZE = 5 * MEGABYTE
LOG_COPIES = 3

# Below the range the kernel takes ports of outgoing connections from (32768 and up on Linux), so that a remembered port
# is rarely taken when a server comes back to it.
FIRST_PORT, PORTS = 20000, 12000


def prepare_folder(state_dir: Path) -> Path:
    """Make the state directory if need be; its resolved path. ConfigurationError if it cannot hold a database."""
    folder = state_dir.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
        folder = folder.resolve()
        probe = folder / f".probe-{os.getpid()}"
        try:
            with probe.open("wb") as file:
                file.write(b"\0" * 65536)
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
        (folder / "logs").mkdir(exist_ok=True, mode=0o700)
        free = shutil.disk_usage(folder).free
    except OSError as problem:
        raise cannot_write(folder, problem) from problem
    need = ROOM_TO_GO_ON if (folder / "pg").exists() else ROOM_TO_BEGIN
    if free < need:
        raise ConfigurationError(
            f"The disk of {folder} is full: {free // MEGABYTE} MB are free, {need // MEGABYTE} MB are needed. "
            "Make room, or set DRIPWELL_STATE_DIR to a folder on another disk."
        )
    return folder


def cannot_write(path: Path, problem: OSError) -> ConfigurationError:
    """The error for a file or folder of the state directory that cannot be written."""
    return ConfigurationError(
        f"Dripwell cannot write in {path}: {problem.strerror or problem}. "
        "Make the folder writable for this user, or set DRIPWELL_STATE_DIR to a folder that is."
    )


def write_private(path: Path, text: str) -> None:
    """Replace the file as a whole, readable by its owner only."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as problem:
        raise cannot_write(path.parent, problem) from problem


def remembered(path: Path, make: Callable[[], T]) -> T:
    """What the JSON file holds; where there is none, what `make` returns, kept there (mode 0600) from now on.

    Two processes that come first at the same time get the same value.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _alone(path.with_name(f".{path.name}.lock")):
            if path.exists():
                return _read(path)  # type: ignore[no-any-return]
            made = make()
            write_private(path, json.dumps(made, indent=2) + "\n")
            return made
    except OSError as problem:
        raise cannot_write(path.parent, problem) from problem


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise ConfigurationError(
            f"{path} is damaged ({problem}). Put the file back from a backup; without one, remove it and a new one is "
            "made."
        ) from problem


def is_free(port: int) -> bool:
    """Whether a server could listen on the loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


_claims: set[int] = set()


def _claim(port: int) -> bool:
    """Keep the port from every other Dripwell of this machine until this process ends; False: another one has it.

    Between choosing a port and the server's listening there Dripwells that start together would choose the same one,
    and one of them would talk to the servers of the other. An abstract socket leaves no file and ends with its owner.
    """
    if port in _claims or not sys.platform.startswith("linux"):
        return True
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0dripwell-port-{port}")
    except OSError:
        claim.close()
        return False
    claim.detach()  # open for as long as this process lives, and closed by its end
    _claims.add(port)
    return True


def free_port(state_dir: Path, name: str, *, wish: int | None = None) -> int:
    """A loopback port for the named server: the one of last time, or else `wish`, or else any, whichever is free first.

    The choice is remembered in `ports.json`, and no other process is given the port while this one lives. Only whoever
    holds the state directory may call this.
    """
    path = state_dir / "ports.json"
    known: dict[str, int] = _read(path) if path.exists() else {}
    begin = zlib.crc32(f"{state_dir}\n{name}".encode())  # spreads several state directories over the range
    guesses = (FIRST_PORT + (begin + i) % PORTS for i in range(PORTS))
    taken = {port for other, port in known.items() if other != name}
    for port in (known.get(name), wish, *guesses):
        if port is not None and port not in taken and is_free(port) and _claim(port):
            if known.get(name) != port:
                write_private(path, json.dumps({**known, name: port}, indent=2) + "\n")
            return port
    raise ConfigurationError(f"No port between {FIRST_PORT} and {FIRST_PORT + PORTS} is free on 127.0.0.1.")


def rotate(log: Path) -> None:
    """Move a log that has grown large aside: `name.log` to `name.log.1`, and so on; the oldest goes."""
    if not log.exists() or log.stat().st_size < LOG_SIZE:
        return
    for number in range(LOG_COPIES, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        newer = log if number == 1 else log.with_name(f"{log.name}.{number - 1}")
        if newer.exists():
            newer.replace(older)


def log_path(state_dir: Path, name: str) -> Path:
    """Where the lines of the named process are kept."""
    return state_dir / "logs" / f"{name}.log"


def last_lines(log: Path, count: int = 8) -> str:
    """The end of a log, indented, for an error text."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4000))
            text = file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        text = ""
    lines = [line for line in text.splitlines() if line.strip()][-count:]
    return "\n".join(f"  {line[:300]}" for line in lines) or "  (it wrote nothing)"
