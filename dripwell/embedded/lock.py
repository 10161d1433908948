"""One holder per state directory: who runs, since when, and where."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from dripwell.core.errors import RefusedError
from dripwell.embedded.state import cannot_write, prepare_folder, write_private

# A reader takes the lock for an instant to learn that nobody has it; a holder must not mistake that for a rival.
READERS_PASS_WITHIN = 0.5


@dataclass(frozen=True, slots=True)
class RunInfo:
    """Who holds a state directory.

    `addresses` is empty while it is still starting; it holds the database's password.
    """

    pid: int
    since: datetime
    lasting: bool  # a `dripwell run` whose servers others may use, not a command that ends in a moment
    addresses: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> str:
        """One line for a person, without passwords."""
        places = "".join(f", {name} at {without_password(url)}" for name, url in self.addresses.items())
        return f"process {self.pid}, since {self.since:%Y-%m-%d %H:%M} UTC{places}"


def without_password(url: str) -> str:
    """The address as it may be shown."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return parts._replace(netloc=f"{parts.hostname}:{parts.port}" if parts.port else f"{parts.hostname}").geturl()


class Held:
    """A state directory that is ours until `release`, or until this process ends, however it ends."""

    def __init__(self, folder: Path, descriptor: int, *, lasting: bool) -> None:
        self.folder = folder
        self._descriptor: int | None = descriptor
        self._lasting = lasting

    def announce(self, addresses: Mapping[str, str]) -> None:
        """Tell commands in other terminals where our servers are."""
        content = {"pid": os.getpid(), "lasting": self._lasting, "addresses": dict(addresses)}
        write_private(self.folder / "run.json", json.dumps(content, indent=2) + "\n")

    def release(self) -> None:
        """Let the next one have it."""
        if self._descriptor is not None:
            (self.folder / "run.json").unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Held:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def hold(state_dir: Path, *, lasting: bool = False, patience: float = READERS_PASS_WITHIN) -> Held:
    """Take the state directory, made and checked, for this process; wait `patience` seconds for another holder to go.

    RefusedError says who has it. `lasting` is for `dripwell run`, whose servers other commands may use.
    """
    folder = prepare_folder(state_dir)
    try:
        descriptor = os.open(folder / "run.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as problem:
        raise cannot_write(folder, problem) from problem
    limit = time.monotonic() + max(patience, READERS_PASS_WITHIN)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as problem:
            if time.monotonic() > limit:
                os.close(descriptor)
                raise _in_use(folder) from problem
            time.sleep(0.02)
    try:
        (folder / "run.json").unlink(missing_ok=True)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)  # its time of change is when we began
        held = Held(folder, descriptor, lasting=lasting)
        held.announce({})
    except OSError as problem:
        os.close(descriptor)
        raise cannot_write(folder, problem) from problem
    return held


def _in_use(folder: Path) -> RefusedError:
    info = running(folder)
    if info is None:
        return RefusedError(f"{folder} was in use until just now. Try again.")
    stop = f"Stop it first (Ctrl-C in its terminal, or `kill {info.pid}`)"
    return RefusedError(
        f"Dripwell already runs in {folder}: {info.describe()}. {stop}, or set DRIPWELL_STATE_DIR to another folder."
    )


def running(state_dir: Path) -> RunInfo | None:
    """Who holds the state directory now, asked of the lock, so files left by a killed process do not count."""
    try:
        descriptor = os.open(state_dir / "run.lock", os.O_RDWR)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as problem:
        raise cannot_write(state_dir, problem) from problem
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            first = os.pread(descriptor, 32, 0).split()
            since = datetime.fromtimestamp(os.fstat(descriptor).st_mtime, UTC)
            return _who(state_dir, int(first[0]) if first else 0, since)
        return None
    finally:
        os.close(descriptor)


def _who(state_dir: Path, pid: int, since: datetime) -> RunInfo:
    try:
        content = json.loads((state_dir / "run.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # about to be written
        return RunInfo(pid, since, lasting=False)
    if content["pid"] != pid:  # of one before
        return RunInfo(pid, since, lasting=False)
    return RunInfo(pid, since, bool(content["lasting"]), content["addresses"])
