"""One child process: what it is, how it is started so that it cannot outlive us, how it is ended."""

from __future__ import annotations

import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dripwell.embedded.leash import STAY

LEASH = str(Path(__file__).with_name("leash.py"))


@dataclass(frozen=True, slots=True)
class Account:
    """The user a child runs as when we are root."""

    uid: int
    gid: int


NOBODY = Account(65534, 65534)


@dataclass(frozen=True, slots=True)
class Process:
    """A named program to run."""

    name: str
    argv: tuple[str, ...]  # argv[0] may be a name that is on PATH
    env: Mapping[str, str] | None = None  # None: ours
    stop_signal: signal.Signals = signal.SIGTERM
    grace: float = 10.0  # seconds from the stop signal to SIGKILL
    ready: Callable[[], bool] | None = None  # asked ten times a second, so quick; None: ready once started
    restart: bool = True
    wait: bool = False  # the processes after it start only when it is ready
    ready_within: float = 60.0  # seconds
    show: bool = True  # False: its lines go to the log file only
    death_signal: signal.Signals = signal.SIGKILL  # what it gets when we are killed
    cwd: Path | None = None
    account: Account | None = None
    keep_fds: tuple[int, ...] = ()


_orders: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]] | None = None
_orders_lock = threading.Lock()


def _forget_orders() -> None:
    global _orders
    _orders = None  # a fork of this process has not got the thread


os.register_at_fork(after_in_child=_forget_orders)


def _take_orders(
    orders: queue.SimpleQueue[tuple[Callable[[], subprocess.Popen[bytes]], Future[subprocess.Popen[bytes]]]],
) -> None:
    while True:
        begin, answer = orders.get()
        try:
            answer.set_result(begin())
        except BaseException as problem:
            answer.set_exception(problem)


def spawn(
    process: Process,
    *,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.STDOUT,
) -> subprocess.Popen[bytes]:
    """Start it, leashed to this process, in a session of its own so that Ctrl-C on the terminal reaches only us."""
    # The kernel ties the death signal to the *thread* that forked, not to the process. So one thread, which lives as
    # long as the process does, starts all children, whoever asks.
    global _orders
    with _orders_lock:
        if _orders is None:
            _orders = queue.SimpleQueue()
            threading.Thread(target=_take_orders, args=(_orders,), name="spawn", daemon=True).start()
    program = shutil.which(process.argv[0]) or process.argv[0]
    who = (STAY, STAY) if process.account is None else (str(process.account.uid), str(process.account.gid))
    leash = (sys.executable, "-I", "-S", LEASH, str(os.getpid()), str(int(process.death_signal)), *who, "--")

    def begin() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*leash, program, *process.argv[1:]],
            env=None if process.env is None else dict(process.env),
            cwd=process.cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=process.keep_fds,
            start_new_session=True,
        )

    answer: Future[subprocess.Popen[bytes]] = Future()
    _orders.put((begin, answer))
    return answer.result()


def has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended. Leaves it unreaped where the system allows, so that its group cannot be reused yet."""
    if child.returncode is not None:
        return True
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return child.poll() is not None
    try:
        return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return child.poll() is not None


def signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Signal what the child started itself and left behind. Call it after `has_ended` and before `reap`."""
    if child.returncode is None:
        try:
            os.killpg(child.pid, number)
        except (ProcessLookupError, PermissionError):
            return  # nobody left; macOS answers EPERM for a group of one zombie


def reap(child: subprocess.Popen[bytes]) -> int:
    """The exit code of a child that has ended; negative: the signal that ended it."""
    return child.wait()


def end(
    process: Process,
    child: subprocess.Popen[bytes],
    *,
    hurry: Callable[[], bool] = lambda: False,
    told: bool = False,
) -> int:
    """Stop it: its stop signal, SIGKILL after its grace (or as soon as `hurry` says so), then what it left behind.

    `told`: it has had its stop signal already; a second one may mean "at once" to it.
    """
    if not has_ended(child):
        if not told:
            child.send_signal(process.stop_signal)
        limit = time.monotonic() + process.grace
        pause = 0.005
        while not has_ended(child):
            if time.monotonic() > limit or hurry():
                child.kill()
            time.sleep(pause)
            pause = min(0.1, pause * 1.5)
    signal_group(child, signal.SIGKILL)
    return reap(child)


def describe_exit(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"
