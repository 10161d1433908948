"""Unsubscribes taken while PostgreSQL is away: one line a message id, on disk before anybody is told "done"."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_NAME = "unsubscribes.spool"
_LONGEST = 256 * 1024
_BEYOND = re.compile(r"\{(\[\d{1,19},\d{1,19}\)(,\[\d{1,19},\d{1,19}\))*)?\}")


@dataclass(frozen=True, slots=True)
class LedgerPlace:
    """How much of the suppression ledger is in the journal: in this epoch, rows of transactions before `horizon`.

    Of later ones those whose `seq` is in `beyond`, an int8multirange as PostgreSQL writes it.
    """

    epoch: int
    horizon: int
    beyond: str = "{}"


def path_in(state_dir: Path) -> Path:
    """Where the spool of this host is."""
    return state_dir / _NAME


def append(path: Path, message_id: int) -> None:
    """Put one message id on disk, and come back only when it is there. Raises OSError when it is not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _opened(path) as handle:
        _write(handle, b"%d\n" % message_id)


def holds_any(path: Path) -> bool:
    """Whether something waits in the spool."""
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


def read_place(path: Path) -> LedgerPlace | None:
    """How much of the suppression ledger is in the journal; None when nobody knows."""
    try:
        epoch, horizon, *beyond = path.read_text(encoding="ascii").split()
        place = LedgerPlace(int(epoch), int(horizon), *beyond)
        return place if _BEYOND.fullmatch(place.beyond) else None
    except (FileNotFoundError, ValueError, TypeError):
        return None  # what is journaled twice does no harm


def write_place(path: Path, place: LedgerPlace) -> None:
    """Remember that place. It may be lost, or its rows be too scattered to keep: then some are journaled again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    beyond = place.beyond if len(place.beyond) <= _LONGEST else "{}"
    fresh.write_text(f"{place.epoch} {place.horizon} {beyond}\n", encoding="ascii")
    fresh.replace(path)


@contextmanager
def draining(path: Path) -> Iterator[list[int]]:
    """Hand out the ids in the spool and empty it if the block ends well; others who append wait meanwhile."""
    if not path.exists():
        yield []
        return
    with _opened(path) as handle:
        size = os.fstat(handle).st_size
        lines = os.pread(handle, size, 0).split(b"\n")
        # A line without its end was cut off by a crash, before anybody was told that it was kept.
        yield [int(line) for line in lines[:-1] if line.isdigit()]
        os.ftruncate(handle, 0)
        os.fsync(handle)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def _write(handle: int, line: bytes) -> None:
    size = os.fstat(handle).st_size
    if size and os.pread(handle, 1, size - 1) != b"\n":
        line = b"\n" + line  # after a line that a crash cut off
    try:
        written = os.write(handle, line)
        if written != len(line):
            raise OSError("the spool could not be written whole")
        os.fsync(handle)
    except OSError:
        os.ftruncate(handle, size)
        raise
