"""What processes write: into a log file each, and together on one screen, `web | …`, without ever making them wait."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol

from dripwell.embedded.state import LOG_SIZE, log_path, rotate

COLORS = ("\x1b[36m", "\x1b[33m", "\x1b[32m", "\x1b[35m", "\x1b[34m", "\x1b[96m")
PLAIN = "\x1b[0m"
LONGEST_LINE = 64 * 1024
LINES_IN_HAND = 10_000
# What a process logs may come from a stranger; it must not move the cursor or rename the terminal.
CONTROLS = dict.fromkeys((*range(0x09), *range(0x0A, 0x20), *range(0x7F, 0xA0)), "")


class Writer(Protocol):
    """Where lines are shown, such as `sys.stdout`."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...


class _Log:
    def __init__(self, path: Path) -> None:
        rotate(path)
        self._path = path
        self._lock = threading.Lock()
        self._file = path.open("ab", buffering=0)

    def write(self, line: bytes) -> None:
        with self._lock:
            if self._file.tell() > LOG_SIZE:
                self._file.close()
                rotate(self._path)
                self._file = self._path.open("ab", buffering=0)
            self._file.write(line)

    def close(self) -> None:
        with self._lock:
            self._file.close()


class Lines:
    """Collects the lines of processes. `close` it after they have ended."""

    def __init__(self, state_dir: Path, out: Writer, names: Sequence[str], *, color: bool) -> None:
        width = max((len(name) for name in names), default=0)
        self._prefixes = {}
        for number, name in enumerate(names):
            prefix = f"{name:<{width}} | "
            self._prefixes[name] = f"{COLORS[number % len(COLORS)]}{prefix}{PLAIN}" if color else prefix
        self._logs = {name: _Log(log_path(state_dir, name)) for name in names}
        self._unlogged = False
        self._out = out
        # Full when the screen stands still (Ctrl-S, a pager): then lines are counted, not shown. The logs have all.
        self._waiting: queue.Queue[str | None] = queue.Queue(LINES_IN_HAND)
        self._not_shown = 0
        self._readers: list[threading.Thread] = []
        self._printer = threading.Thread(target=self._print, name="print", daemon=True)
        self._printer.start()

    def say(self, name: str, text: str) -> None:
        """A line of our own about a process."""
        self._log(name, f"-- {text}\n".encode())
        self._show(name, text)

    def follow(self, name: str, pipe: IO[bytes], *, show: bool) -> None:
        """Read the pipe in a thread of its own until nobody can write to it any more."""
        reader = threading.Thread(target=self._read, args=(name, pipe, show), name=f"read {name}", daemon=True)
        self._readers = [other for other in self._readers if other.is_alive()]
        self._readers.append(reader)
        reader.start()

    def close(self) -> None:
        """Show what is left, unless the screen stands still."""
        limit = time.monotonic() + 2.0
        for reader in self._readers:
            reader.join(max(0.0, limit - time.monotonic()))
        try:
            self._waiting.put(None, timeout=1.0)
            self._printer.join(2.0)
        except queue.Full:
            pass  # nobody has read the screen for 10,000 lines; the logs have them
        for log in self._logs.values():
            log.close()

    def _read(self, name: str, pipe: IO[bytes], show: bool) -> None:
        with pipe:
            while line := pipe.readline(LONGEST_LINE):
                self._log(name, line if line.endswith(b"\n") else line + b"\n")
                if show:
                    self._show(name, line.decode("utf-8", "replace"))

    def _log(self, name: str, line: bytes) -> None:
        try:
            self._logs[name].write(line)
        except (OSError, ValueError) as problem:  # the disk is full, or we are closed and a stray grandchild writes on
            if not self._unlogged:
                self._unlogged = True
                self._show(name, f"its log cannot be written any more: {problem}")

    def _show(self, name: str, text: str) -> None:
        try:
            self._waiting.put_nowait(self._prefixes[name] + text.translate(CONTROLS) + "\n")
        except queue.Full:
            self._not_shown += 1

    def _print(self) -> None:
        gone = False
        while (line := self._waiting.get()) is not None:
            missed, self._not_shown = self._not_shown, 0
            if missed:
                line += f"({missed} lines were not shown; the logs have them)\n"
            if gone:
                continue
            try:
                self._out.write(line)
                if self._waiting.empty():
                    self._out.flush()
            except (OSError, ValueError):
                gone = (
                    True  # the reader of our output left (`dripwell run | head`); the processes go on, and their logs
                )
