"""The journal of one host: every call before it is made, and every unsubscribe that was promised, on disk.

A database that is restored from a backup has forgotten what happened since; the journal has not. Two series of files,
`calls-…` and `leaves-…`, are only ever appended to, by every process of the host. A line is a checksum and one JSON
object; whatever a crash left of a line is reported and passed over. It holds ids and address hashes, never an address.
"""

from __future__ import annotations

import base64
import errno
import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from dripwell.core.errors import UnavailableError
from dripwell.storage.journal_lines import Answer, Broken, Call, Left, Line, Person, checked, parsed, written

__all__ = [
    "FILE_SIZE",
    "KEEP_DAYS",
    "Answer",
    "Broken",
    "Call",
    "Journal",
    "Left",
    "Line",
    "Person",
    "batches_called",
    "folder_in",
    "highest",
    "prune",
    "read_calls",
    "read_leaves",
]

log = logging.getLogger("dripwell.storage")

KEEP_DAYS = 35
"""A journal must be kept longer than the oldest backup anybody would restore."""
FILE_SIZE = 256 * 1024 * 1024
LONGEST = 4 * 1024 * 1024
"""No line is longer; more bytes without an end are what a crash left behind."""
_TAIL = 1024 * 1024
_DISORDER = timedelta(hours=1)
"""Lines stand in the order of their writing, their times are those of the claims: more than any sender dawdles."""
_CALLS, _LEAVES = "calls", "leaves"


def folder_in(state_dir: Path) -> Path:
    """Where the journal of this host is."""
    return state_dir / "journal"


class Journal:
    """One per process, safe between threads; opening it touches nothing."""

    def __init__(self, folder: Path, *, host: str, file_size: int = FILE_SIZE) -> None:
        """`host` is written into every call; a file that has grown to `file_size` bytes is followed by the next."""
        self._folder = folder
        self._host = host
        self._calls = _Series(folder, _CALLS, file_size)
        self._leaves = _Series(folder, _LEAVES, file_size)
        self._highest: int | None = None

    @property
    def highest(self) -> int:
        """The greatest batch id known to be journaled: by this process, or by any of this host at its last `look`.

        A batch that is claimed later and has a smaller id comes from a database that has gone back in time. The first
        use looks, and so may raise UnavailableError.
        """
        return self.look() if self._highest is None else self._highest

    def look(self) -> int:
        """Learn how far the other processes of this host have come, from the end of the newest file; see `highest`.

        Raises UnavailableError when the journal is there and cannot be read.
        """
        try:
            _, batch = highest(self._folder)
        except OSError as error:
            raise UnavailableError(
                f"The journal in {self._folder} cannot be read ({error.strerror or error}): nobody is called while it "
                "is not known how far it goes. Make the folder readable for this user."
            ) from error
        self._highest = max(self._highest or 0, batch)
        return self._highest

    def before(
        self,
        *,
        epoch: int,
        batch: int,
        nonce: UUID,
        provider: str,
        lane: str,
        campaign: UUID,
        campaign_name: str,
        step_key: str,
        version_id: int,
        people: Sequence[Person],
        at: datetime,
    ) -> None:
        """Put a call on disk before it is made, and come back only when it is there.

        Raises UnavailableError when it is not: then nobody may be called.
        """
        value = {
            "k": "call",
            "epoch": epoch,
            "batch": batch,
            "nonce": nonce.hex,
            "host": self._host,
            "provider": provider,
            "lane": lane,
            "campaign": campaign.hex,
            "name": campaign_name,
            "step": step_key,
            "version": version_id,
            "m": [person.message_id for person in people],
            "p": base64.b64encode(b"".join(person.public_id.bytes for person in people)).decode(),
            "s": [person.subscriber_id for person in people],
            "r": [person.round for person in people] if any(person.round != 1 for person in people) else 1,
            "t": at.isoformat(),
        }
        self._append(self._calls, [value], at, "nobody is called without a line in it")
        if self._highest is not None:  # else the first use looks, and finds this line
            self._highest = max(self._highest, batch)

    def after(
        self, *, epoch: int, batch: int, nonce: UUID, outcome: str, at: datetime, left_out: Sequence[UUID] = ()
    ) -> None:
        """Note what became of a call (see `Answer`). Losing this line costs time, not safety, so it never raises.

        `left_out`: public ids of messages that the final check took out of the payload, after the line was written.
        """
        value = {"k": "answer", "epoch": epoch, "batch": batch, "nonce": nonce.hex, "o": outcome, "t": at.isoformat()}
        if left_out:
            value["x"] = base64.b64encode(b"".join(one.bytes for one in left_out)).decode()
        try:
            self._append(self._calls, [value], at, "", durable=False)
        except UnavailableError as error:
            log.error("the answer to batch %d is not in the journal: %s", batch, error)

    def left(self, rows: Sequence[Left]) -> None:
        """Put these rows of the suppression ledger on disk. Raises UnavailableError when they are not there."""
        values = [
            {
                "k": "left",
                "a": row.addr_hash.hex(),
                "scope": row.scope,
                "action": row.action,
                "reason": row.reason,
                "source": row.source,
                "seq": row.seq,
                "t": row.at.isoformat(),
            }
            for row in rows
        ]
        if values:
            self._append(self._leaves, values, rows[-1].at, "an unsubscribe would not outlive a restore")

    def close(self) -> None:
        """Give the files back."""
        self._calls.close()
        self._leaves.close()

    def _append(
        self, series: _Series, values: Sequence[dict[str, Any]], at: datetime, so: str, *, durable: bool = True
    ) -> None:
        try:
            series.append(b"".join(written(value) for value in values), at.date(), durable=durable)
        except OSError as error:
            raise UnavailableError(
                f"The journal in {series.folder} cannot be written ({error.strerror or error}): {so}. "
                "Make room on that disk, or make the folder writable for this user."
            ) from error


class _Series:
    """Files of one kind: `calls-2026-11-02-001.journal`, by day and then by number."""

    def __init__(self, folder: Path, stem: str, file_size: int) -> None:
        self.folder = folder
        self._stem = stem
        self._file_size = file_size
        self._lock = threading.Lock()
        self._day: date | None = None
        self._number = 0
        self._handle = -1

    def append(self, lines: bytes, day: date, *, durable: bool) -> None:
        with self._lock:
            self._turn_to(day)
            while not self._write(lines):
                self._turn_to(day, after=self._number)
            handle = os.dup(self._handle) if durable else -1
        if handle < 0:
            return
        # Outside of both locks: what others wrote meanwhile reaches the disk with ours, and they wait for nothing.
        try:
            os.fdatasync(handle)
        except OSError:
            # What became of the pages is unknown, and a second attempt may succeed without writing them.
            with self._lock:
                self._turn_to(day, after=self._number)
            raise
        finally:
            os.close(handle)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
        self._handle, self._day = -1, None

    def _turn_to(self, day: date, after: int | None = None) -> None:
        if self._handle >= 0 and day == self._day and after is None:
            return
        known = [number for name, number in _files(self.folder, self._stem) if name == day]
        number = max([*known, 1]) if after is None else after + 1
        self.close()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.folder / f"{self._stem}-{day.isoformat()}-{number:03}.journal"
        fresh = not path.exists()
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._day, self._number = day, number
        if fresh:
            for folder in (self.folder, self.folder.parent):
                _sync(folder)

    def _write(self, lines: bytes) -> bool:
        """Append, or leave the file as it was and raise OSError. False: this file is full, or somebody removed it."""
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        try:
            found = os.fstat(self._handle)
            size = found.st_size
            if found.st_nlink == 0 or (size and size + len(lines) > self._file_size):
                return False
            if size and os.pread(self._handle, 1, size - 1) != b"\n":
                lines = b"\n" + lines  # after a line that a crash cut off
            left = memoryview(lines)
            try:
                while left:
                    done = os.write(self._handle, left)
                    if done == 0:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                    left = left[done:]
            except OSError:
                os.ftruncate(self._handle, size)
                raise
            return True
        finally:
            fcntl.flock(self._handle, fcntl.LOCK_UN)


def read_calls(folder: Path, broken: Callable[[Broken], None] | None = None) -> Iterator[Call | Answer]:
    """Every call and answer, oldest first, one line in memory at a time. Lines that cannot be read go to `broken`."""
    for line in _read(folder, _CALLS, broken or _report):
        if isinstance(line, Call | Answer):
            yield line


def read_leaves(folder: Path, broken: Callable[[Broken], None] | None = None) -> Iterator[Left]:
    """Every journaled row of the suppression ledger, oldest first."""
    for line in _read(folder, _LEAVES, broken or _report):
        if isinstance(line, Left):
            yield line


def highest(folder: Path) -> tuple[int, int]:
    """(epoch, batch) of the latest calls, from the end of the newest file: greatest epoch, its greatest batch.

    Cheap, and a lower bound: what several processes wrote at the same time stands in no exact order. (0, 0): no calls.
    """
    paths = [_path(folder, _CALLS, *file) for file in _files(folder, _CALLS)]
    written = max(paths, key=_written_at, default=None)  # after a clock that was ahead, not the newest by its name
    found = (0, 0) if written is None else _highest_in(written)
    for path in reversed(paths):
        found = max(found, _highest_in(path))
        if found != (0, 0):
            break
    return found


def _highest_in(path: Path) -> tuple[int, int]:
    found = (0, 0)
    with suppress(FileNotFoundError), path.open("rb") as handle:  # it was pruned a moment ago
        size = handle.seek(0, os.SEEK_END)
        handle.seek(max(0, size - _TAIL))
        lines = handle.read(_TAIL).split(b"\n")
        for content in lines if size <= _TAIL else lines[1:]:
            value = checked(content)
            if value is not None and value["k"] == "call":
                found = max(found, (value["epoch"], value["batch"]))
    return found


def batches_called(folder: Path, host: str, since: datetime) -> set[int]:
    """The batches `host` has journaled calls for since that wall time, and some before it.

    Read from the ends of the files, so its cost is that of the time since then, however long the journal is.
    """
    since -= _DISORDER
    found = set()
    for day, number in reversed(_files(folder, _CALLS)):
        if day < since.date():
            break
        for content in _from_the_end(_path(folder, _CALLS, day, number)):
            value = checked(content)
            if value is None or value["k"] != "call":
                continue
            if datetime.fromisoformat(value["t"]) < since:
                break  # the file before may be of the same day and of other processes, which turn when they are ready
            if value["host"] == host:
                found.add(value["batch"])
    return found


def _from_the_end(path: Path) -> Iterator[bytes]:
    """The lines of a file, the last one first, a piece in memory at a time."""
    with suppress(FileNotFoundError), path.open("rb") as handle:
        at = handle.seek(0, os.SEEK_END)
        begun = b""
        while at > 0:
            size = min(_TAIL, at)
            at -= size
            handle.seek(at)
            begun, *lines = (handle.read(size) + begun).split(b"\n")
            yield from reversed(lines)
            if len(begun) > LONGEST:
                begun = b""  # no line: its checksum will say so
        yield begun


def prune(folder: Path, today: date, host_now: datetime, keep_days: int = KEEP_DAYS) -> list[Path]:
    """Remove the files of days more than `keep_days` before `today`; returns them.

    Two clocks must agree: `today` is the database's wall time, after which files are named, and a file written to in
    the `keep_days` before `host_now`, by this host's own clock, stays. One clock that is ahead removes nothing.
    """
    oldest, untouched_since = today - timedelta(days=keep_days), (host_now - timedelta(days=keep_days)).timestamp()
    gone = []
    for stem in (_CALLS, _LEAVES):
        for day, number in _files(folder, stem):
            path = _path(folder, stem, day, number)
            if day < oldest and _written_at(path) < untouched_since:
                path.unlink(missing_ok=True)
                gone.append(path)
    return gone


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process prunes as well
        return 0.0


def _files(folder: Path, stem: str) -> list[tuple[date, int]]:
    found = []
    for path in folder.glob(f"{stem}-*.journal"):
        day, _, number = path.stem.removeprefix(f"{stem}-").rpartition("-")
        try:
            found.append((date.fromisoformat(day), int(number)))
        except ValueError:
            log.warning("%s is not a file of the journal", path)
    return sorted(found)


def _path(folder: Path, stem: str, day: date, number: int) -> Path:
    return folder / f"{stem}-{day.isoformat()}-{number:03}.journal"


def _report(broken: Broken) -> None:
    log.error("%s, line %d cannot be read (%s); it is passed over", broken.path, broken.line, broken.why)


def _read(folder: Path, stem: str, broken: Callable[[Broken], None]) -> Iterator[Line]:
    for file in _files(folder, stem):
        path = _path(folder, stem, *file)
        with path.open("rb") as handle:
            number = 0
            while content := handle.readline(LONGEST):
                number += 1
                line = parsed(content.removesuffix(b"\n"))
                whole = content.endswith(b"\n") or line is not None
                while content and not content.endswith(b"\n"):
                    content = handle.readline(LONGEST)  # the rest of what has no end
                if line is not None:
                    yield line
                else:
                    broken(Broken(path, number, "its checksum or its words are wrong" if whole else "it was cut off"))


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
