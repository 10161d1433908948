"""The bell: the small parent of a Celery worker. It listens to PostgreSQL and rings; when nothing has run for 15
seconds it runs a pass itself, so work goes on, slower, even while Redis is away."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

from kombu.exceptions import OperationalError

from dripwell import bootstrap
from dripwell.bootstrap import Installation
from dripwell.core.errors import DripwellError, UnavailableError
from dripwell.embedded.process import Process, end, has_ended, spawn
from dripwell.storage import workers

from . import tasks
from .app import app, installation, log_plainly
from .schedule import EXPIRES

log = logging.getLogger("dripwell.bell")

QUIET = 0.05
"""At most one ring per queue in this many seconds; a ring that comes sooner is kept for the end of it."""
SILENCE = 15.0
"""Seconds without any pass of a queue after which the bell runs one itself."""
DEAF = 120.0
"""Seconds that Celery may be silent while we ring: up, but deaf (celery #10205, #10302), so it is started anew. Longer
than the longest pass, which has 12 s, waits 20 s for the limiter and 30 s for the provider."""
_KEEPING = ("settle", "erase", "retain", "sync")
"""What the queue `keep` must not do without while nobody rings; the audit waits for better times."""
_RINGABLE = dict.fromkeys(("settle", "audit", "erase", "retain", "sync"), "keep")


class Bell:
    """One worker's bell. `queues` are those its Celery worker serves; it rings no others."""

    def __init__(self, queues: Sequence[str], children: int) -> None:
        self._queues = tuple(queues)
        self._process = Process(
            name="celery",
            argv=(
                sys.executable, "-m", "celery", "-A", "dripwell.workers", "worker", "-Q", ",".join(queues),
                "-c", str(children), "--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING",
                "-n", f"{queues[0]}-{os.getpid()}@%h",
            ),
            stop_signal=signal.SIGTERM,
            death_signal=signal.SIGTERM,
            grace=50.0,
        )  # fmt: skip
        self._stopping = threading.Event()
        self._due: dict[str, float] = {}
        self._rang: dict[str, float] = {}
        self._lock = threading.Condition()
        self._tried: dict[str, float] = {}
        self._started = time.monotonic()
        self._could_hear_since = self._started  # Celery, Redis and PostgreSQL were all there
        self._deaf = threading.Event()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; then let Celery finish the call it is making."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        child = spawn(self._process)
        threads = [
            threading.Thread(target=self._listen, name="listen", daemon=True),
            threading.Thread(target=self._ring_what_is_due, name="ring", daemon=True),
            threading.Thread(target=self._watch, name="watch", daemon=True),
        ]
        for thread in threads:
            thread.start()
        while not self._stopping.wait(0.2):
            if has_ended(child):
                log.warning("the Celery worker ended; starting it again")
                self._stopping.wait(0.5)
                child = spawn(self._process)
                self._could_hear_since = time.monotonic()
            elif self._deaf.is_set():
                log.warning("the Celery worker is up but deaf; starting it again")
                end(self._process, child)
                child = spawn(self._process)
                self._could_hear_since = time.monotonic()
                self._deaf.clear()
        end(self._process, child)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping.set()

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                for payload in installation().database.listen("dripwell", timeout=5.0):
                    if payload:
                        self.note(payload)
                    if self._stopping.is_set():
                        return
            except DripwellError as error:
                log.info("listening again soon: %s", error)
                self._stopping.wait(0.5)

    def note(self, name: str) -> None:
        """Somebody committed work for this queue: ring it now, or at the end of the quiet time."""
        if _RINGABLE.get(name, name) not in self._queues:
            return
        with self._lock:
            self._due.setdefault(name, max(time.monotonic(), self._rang.get(name, 0.0) + QUIET))
            self._lock.notify()

    def _ring_what_is_due(self) -> None:
        while not self._stopping.is_set():
            with self._lock:
                now = time.monotonic()
                ready = [name for name, at in self._due.items() if at <= now]
                if not ready:
                    wait = min(self._due.values(), default=now + 1.0) - now
                    self._lock.wait(wait)
                    continue
                for name in ready:
                    del self._due[name]
                    self._rang[name] = now
            for name in ready:
                ring(name)

    def _watch(self) -> None:
        while not self._stopping.wait(1.0):
            try:
                self._fall_back()
            except UnavailableError as error:
                self._could_hear_since = time.monotonic()  # no worker can finish a pass now
                log.info("no pass of our own: %s", error)
            except Exception:
                log.exception("could not look whether anything runs")  # this thread is the last that may end

    def _fall_back(self) -> None:
        here = installation()
        now = time.monotonic()
        with here.database.transaction() as connection:
            silent = [q for q in self._queues if min(now - self._started, workers.silent_for(connection, q)) > SILENCE]
            heard = workers.silent_for(connection, *self._queues, besides=here.owner)
        if not here.fast.is_there():
            self._could_hear_since = now
        if min(heard, now - self._could_hear_since) > DEAF:
            self._deaf.set()
        for queue in silent:
            if now - self._tried.get(queue, 0.0) > SILENCE:
                self._tried[queue] = now
                for name in _KEEPING if queue == "keep" else (queue,):
                    self._run(here, name)

    def _run(self, here: Installation, name: str) -> None:
        log.warning("nothing has run for %s in %d s: running a pass here", name, SILENCE)
        self.note(name)  # perhaps only beat is gone: whoever can hear takes over, and is not taken for deaf
        try:
            bootstrap.run_pass(here, name)
        except UnavailableError:
            raise
        except Exception:
            log.exception("a pass of our own failed")  # the other queues still get theirs


def ring(name: str) -> None:
    """Publish one doorbell in 250 ms at most. A broker that is away costs nothing: beat and fallback go on."""
    queue = _RINGABLE.get(name, name)
    task, args = (tasks.send, (name,)) if name in ("confirm", "booking", "drip", "newsletter") else (_TASKS[name], ())
    try:
        with app.connection_for_write(
            transport_options={"socket_timeout": 0.25, "socket_connect_timeout": 0.25, "max_retries": 0}
        ) as connection:
            task.apply_async(args, queue=queue, connection=connection, retry=False, expires=EXPIRES)
    except (OperationalError, OSError) as error:
        log.info("could not ring %s: %s", name, type(error).__name__)


_TASKS = {
    "plan": tasks.plan,
    "ingest": tasks.ingest,
    "settle": tasks.settle,
    "audit": tasks.audit,
    "erase": tasks.erase,
    "retain": tasks.retain,
    "sync": tasks.sync,
}


def main() -> None:
    """Run a worker for some queues until it is told to stop: `python -m dripwell.workers.bell --queues drip,plan`."""
    parser = argparse.ArgumentParser(prog="dripwell worker")
    parser.add_argument("--queues", required=True)
    parser.add_argument("--children", type=int, default=2)
    given = parser.parse_args()
    log_plainly()
    try:
        bootstrap.prepare(installation())
        Bell(given.queues.split(","), given.children).run()
    except DripwellError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
