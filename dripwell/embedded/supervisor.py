"""Runs named processes as one: starts them in order, starts again what died, stops them in reverse order.

    with hold(state_dir, lasting=True) as held, prepare(held) as servers:
        web = Process("web", (sys.executable, "-m", …), env={…servers.database_url…}, ready=…)
        held.announce({"postgres": servers.database_url, "redis": servers.redis_url, "web": "http://127.0.0.1:8000"})
        Supervisor(held.folder, sys.stdout).run([*servers.processes, web], on_ready=…)

If we are killed, the kernel ends every child (see `leash.py`).
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType

from dripwell.embedded.lines import Lines, Writer
from dripwell.embedded.process import Process, describe_exit, end, has_ended, reap, signal_group, spawn
from dripwell.embedded.servers import did_not_run
from dripwell.embedded.state import cannot_write, log_path, prepare_folder

LOOK_EVERY = 0.1
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
STEADY_AFTER = 10.0  # seconds of being ready after which earlier deaths are forgotten
STILL_STARTING = 10.0
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(slots=True)
class _Place:
    """A process and its present child."""

    process: Process
    child: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    ready_since: float | None = None
    starts_again: float | None = None
    deaths: int = 0  # since it was last steady
    said_starting: float = 0.0
    over: bool = False  # ended, and not to be started again


class Supervisor:
    """Use it once: `run`, or `start` and `stop` (or a `with` around them)."""

    def __init__(self, state_dir: Path, out: Writer, *, color: bool | None = None) -> None:
        """`color` None: when `out` is a terminal."""
        self._folder = prepare_folder(state_dir)
        self._out = out
        isatty = getattr(out, "isatty", None)
        self._color = bool(isatty is not None and isatty()) if color is None else color
        self._places: list[_Place] = []
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._hurry = False
        self._all_ready = threading.Event()
        self._ended = threading.Event()
        self._problem: BaseException | None = None

    def run(self, processes: Sequence[Process], on_ready: Callable[[], None] | None = None) -> signal.Signals | None:
        """Run until SIGINT, SIGTERM or SIGHUP (a second one: at once) or `stop`; returns the signal.

        From the main thread. ConfigurationError if a process does not become ready in the first place.
        """
        with _caught(STOP_SIGNALS) as caught:
            self._begin(processes)
            try:
                while not self._ended.wait(LOOK_EVERY):
                    self._stopping = self._stopping or bool(caught)
                    self._hurry = len(caught) > 1
                    if on_ready is not None and self._all_ready.is_set() and not self._stopping:
                        on_ready()
                        on_ready = None
            finally:
                self.stop()
            return caught[0] if caught else None

    def start(self, processes: Sequence[Process], on_ready: Callable[[], None] | None = None) -> Supervisor:
        """Return when all are ready; from then on a thread looks after them until `stop`."""
        self._begin(processes)
        try:
            while not self._all_ready.wait(LOOK_EVERY) and not self._ended.is_set():
                pass
            if not self._all_ready.is_set():
                self.stop()  # raises the reason, unless somebody else said stop
            elif on_ready is not None:
                on_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop all in reverse order. May be called more than once; raises what went wrong in the thread, once."""
        self._stopping = True
        if self._thread is not None:
            self._thread.join()
        problem, self._problem = self._problem, None
        if problem is not None:
            raise problem

    def pids(self) -> dict[str, int]:
        """The process of each name that is alive now."""
        alive = ((place.process.name, place.child) for place in self._places)
        return {name: child.pid for name, child in alive if child is not None and not has_ended(child)}

    def is_ready(self, name: str) -> bool:
        """Whether the named process is alive and has become ready since it was last started."""
        ready = {place.process.name for place in self._places if place.ready_since is not None}
        return name in ready and name in self.pids()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _begin(self, processes: Sequence[Process]) -> None:
        names = [process.name for process in processes]
        if self._thread is not None or len(set(names)) != len(names):
            raise ValueError("a supervisor runs once, and its processes have different names")
        self._places = [_Place(process) for process in processes]
        try:
            lines = Lines(self._folder, self._out, names, color=self._color)
        except OSError as problem:
            raise cannot_write(self._folder / "logs", problem) from problem
        self._thread = threading.Thread(target=self._supervise, args=(lines,), name="supervise", daemon=True)
        self._thread.start()

    # What follows runs in the supervising thread, the only one that changes a place.

    def _supervise(self, lines: Lines) -> None:
        try:
            for place in self._places:
                _launch(place, lines)
                while place.process.wait and place.ready_since is None and not (place.over or self._stopping):
                    self._look(lines)
                if self._stopping:
                    break
            while not self._stopping:
                self._look(lines)
                if all(place.ready_since is not None or place.over for place in self._places):
                    self._all_ready.set()
        except BaseException as problem:
            self._problem = problem
        finally:
            try:
                self._end_all(lines)
            except BaseException as problem:
                self._problem = self._problem or problem
            finally:
                lines.close()
                self._ended.set()

    def _look(self, lines: Lines) -> None:
        for place in self._places:
            now = time.monotonic()
            if place.child is not None and has_ended(place.child):
                self._bury(place, place.child, lines, now)
            elif place.child is not None and place.ready_since is None:
                self._ask(place, lines, now)
            elif place.starts_again is not None and now >= place.starts_again:
                _launch_again(place, lines, now)
            elif place.deaths and place.ready_since is not None and now - place.ready_since > STEADY_AFTER:
                place.deaths = 0
        time.sleep(LOOK_EVERY)

    def _bury(self, place: _Place, child: subprocess.Popen[bytes], lines: Lines, now: float) -> None:
        process = place.process
        signal_group(child, process.stop_signal)  # what it had started must not work on beside its successor
        how = describe_exit(code := reap(child))
        was_ready, place.ready_since = place.ready_since is not None, None
        place.child = None
        if not process.restart:
            place.over = True
            lines.say(process.name, f"ended ({how}); it is not started again")
            if code == 0 or was_ready or self._all_ready.is_set():
                return
        if not was_ready and not self._all_ready.is_set() and place.deaths == 0:
            raise did_not_run(process, log_path(self._folder, process.name), how)
        _wait_to_start_again(place, lines, now, f"died ({how})")

    def _ask(self, place: _Place, lines: Lines, now: float) -> None:
        process = place.process
        if _is_ready(process):
            place.ready_since = now
            again = " again" if place.deaths else ""
            lines.say(process.name, f"ready{again} after {now - place.started:.1f} s")
        elif now - place.started > process.ready_within and not self._all_ready.is_set():
            how = f"not ready after {process.ready_within:.0f} s"
            raise did_not_run(process, log_path(self._folder, process.name), how)
        elif now - place.said_starting > STILL_STARTING:
            place.said_starting = now
            lines.say(process.name, f"still starting, for {now - place.started:.0f} s now")

    def _end_all(self, lines: Lines) -> None:
        told = self._tell_those_nobody_waits_for()
        for place in reversed(self._places):
            if place.child is None:
                continue
            lines.say(place.process.name, "stopping")
            began = time.monotonic()
            code = end(place.process, place.child, hurry=lambda: self._hurry, told=place.process.name in told)
            place.ready_since = None
            took = time.monotonic() - began
            lines.say(place.process.name, f"stopped after {took:.1f} s ({describe_exit(code)})")

    def _tell_those_nobody_waits_for(self) -> set[str]:
        # The last ones that nobody waited for do not need each other either: they end at the same time.
        told = set()
        for place in reversed(self._places):
            if place.process.wait:
                break
            if place.child is not None and not has_ended(place.child):
                place.child.send_signal(place.process.stop_signal)
                told.add(place.process.name)
        return told


def _launch(place: _Place, lines: Lines) -> None:
    child = spawn(place.process, stdout=subprocess.PIPE)
    if child.stdout is not None:
        lines.follow(place.process.name, child.stdout, show=place.process.show)
    place.child = child
    place.started = place.said_starting = time.monotonic()
    place.starts_again = None


def _launch_again(place: _Place, lines: Lines, now: float) -> None:
    try:
        _launch(place, lines)
    except OSError as problem:  # no memory, no file descriptors: both pass
        _wait_to_start_again(place, lines, now, f"could not be started ({problem.strerror})")


def _wait_to_start_again(place: _Place, lines: Lines, now: float, why: str) -> None:
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(place.deaths, 10))
    place.deaths += 1
    place.starts_again = now + pause
    lines.say(place.process.name, f"{why}; starting it again in {pause:.1f} s")


def _is_ready(process: Process) -> bool:
    try:
        return process.ready is None or process.ready()
    except OSError:  # nobody listens yet
        return False


@contextmanager
def _caught(signals: Sequence[signal.Signals]) -> Iterator[list[signal.Signals]]:
    caught: list[signal.Signals] = []

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(signal.Signals(number))

    before = {number: signal.signal(number, note) for number in signals}
    try:
        yield caught
    finally:
        for number, action in before.items():
            signal.signal(number, action)
