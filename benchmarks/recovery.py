"""Figure (i): how long the whole fleet takes to get back to work after each kill.

What `dripwell run` starts (its supervisor, embedded PostgreSQL and Valkey with fsync, web, beat, two bells with their
Celery workers) with the sandbox in its fast mode and no events. 1,000 messages a second are sent from a lane full of
due messages: so much is asked of the shared limiter, so that the load is steady and no machine is at its limit.

Then one thing after another is killed, each as hard as it can be:
    worker child      kill -9 of the child of Celery's that has a batch under way
    worker parent     kill -9 of the Celery worker; its bell starts it again
    bell              kill -9 of the bell; the supervisor starts it again
    all workers       kill -9 of both bells, every Celery process and beat, at once
    Valkey            kill -9, its files gone: it comes back empty
    Redis emptied     FLUSHALL
    PostgreSQL        SIGQUIT: an immediate stop, then crash recovery
The time is from the kill until the last five seconds in which the sandbox's own ledger took less than half of the rate
of the ten seconds before. The note says when every batch that was open at the kill had its outcome: a call whose answer
was lost is settled by the provider's log, after a grace of five seconds here. In the end no message stands in the
ledger twice.

Bars: 30 s for workers and for PostgreSQL, 15 s for Redis. `--quick`: three of the seven.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import redis
from ground import ROOT, fill, line, machine, within
from sqlalchemy import text
from stand import free_port

from dripwell import bootstrap
from dripwell.bootstrap import Installation
from dripwell.cli import fleet
from dripwell.core.errors import UnavailableError
from dripwell.embedded.lock import hold
from dripwell.embedded.process import Process
from dripwell.embedded.supervisor import Supervisor
from dripwell.settings import Settings

RATE = 1000
PEOPLE = 300_000
QUICK_PEOPLE = 150_000
WINDOW = 5.0
BEFORE = 10.0
STEADY = 10.0
"""Seconds without a bad window after which a fleet is back."""
LONGEST = 90.0
WORKERS, REDIS, POSTGRES = 30.0, 15.0, 30.0


class Ledger:
    """The sandbox's own file, followed: when each message was accepted (Unix seconds, in order), and how often."""

    def __init__(self, path: Path) -> None:
        self.times: list[float] = []
        self.messages: Counter[str] = Counter()
        self._path = path
        self._place = 0

    def read(self) -> None:
        """Take in what was added. A line that is not whole yet waits."""
        with self._path.open("rb") as file:
            file.seek(self._place)
            for row in file:
                if not row.endswith(b"\n"):
                    return
                self._place += len(row)
                entry = json.loads(row)
                self.times.append(entry["t"])
                self.messages[entry["dw_m"]] += 1

    def rate(self, begin: float, seconds: float) -> float:
        """Messages a second that were accepted from `begin` on."""
        return (bisect_left(self.times, begin + seconds) - bisect_left(self.times, begin)) / seconds


@dataclass(frozen=True)
class World:
    """The fleet at work, seen from outside."""

    supervisor: Supervisor
    installation: Installation
    ledger: Ledger
    redis: redis.Redis
    redis_folder: Path


def main() -> None:
    """Kill one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", help="the first word of one kill")
    given = parser.parse_args()
    print(machine())
    kills = KILLS[::3] if given.quick else KILLS
    if given.only:
        kills = tuple(kill for kill in KILLS if kill[0].startswith(given.only))
    with _world(QUICK_PEOPLE if given.quick else PEOPLE) as world:
        for name, limit, kill in kills:
            _measure(world, name, limit, kill)
        world.ledger.read()
        twice = [message for message, times in world.ledger.messages.items() if times > 1]
        assert not twice, f"{len(twice)} messages stand in the provider's ledger twice"
        left = _number(world, "SELECT count(*) FROM message WHERE state = 'PLANNED'")
        assert left, "the messages ran out before the kills did"
    line("(i) messages accepted twice over all kills", len(twice), "messages", within(1.0, 0.0), 1.0,
         f"of {len(world.ledger.times):,}")  # fmt: skip


def _measure(world: World, name: str, limit: float, kill: Callable[[World], None]) -> None:
    usual = _steady(world)
    last = _number(world, "SELECT coalesce(max(id), 0) FROM batch")
    began = time.time()
    kill(world)
    resolved: float | None = None
    bad = began
    while (now := time.time()) - began < LONGEST and (resolved is None or now - WINDOW < bad + STEADY):
        time.sleep(0.25)
        world.ledger.read()
        bad = _last_bad(world.ledger, began, time.time() - WINDOW, usual / 2)
        if resolved is None and _unresolved(world, last) == 0:
            resolved = time.time() - began
    took = bad - began
    back = "was never" if resolved is None else f"after {resolved:.1f} s"
    line(f"(i) {name} killed, to half of {usual:,.0f}/s", took, "s", within(limit, took), 1.0,
         f"at most {limit:.0f} s; batches of before all settled {back}")  # fmt: skip
    assert resolved is not None, f"{name}: a batch of before the kill has no outcome after {LONGEST:.0f} s"


def _last_bad(ledger: Ledger, began: float, until: float, least: float) -> float:
    """The last moment at which a window begins that holds too few; `began` when none does."""
    bad, at = began, began
    while at <= until:
        if ledger.rate(at, WINDOW) < least:
            bad = at
        at += 0.1
    return bad


def _steady(world: World) -> float:
    """Wait until the rate is there and stays; returns it."""
    until = time.monotonic() + LONGEST
    while time.monotonic() < until:
        time.sleep(0.5)
        world.ledger.read()
        now = time.time()
        rates = [world.ledger.rate(now - BEFORE + second, WINDOW) for second in range(int(BEFORE - WINDOW) + 1)]
        if min(rates) > 0.5 * RATE:
            return world.ledger.rate(now - BEFORE, BEFORE)
    raise SystemExit(f"the fleet does not get to half of {RATE} messages a second, so nothing can be measured")


def _unresolved(world: World, last: int) -> int:
    try:
        return _number(world, "SELECT count(*) FROM batch WHERE state <> 'DONE' AND id <= :last", last=last)
    except UnavailableError:
        return -1  # while it is away, nobody knows


def _number(world: World, statement: str, **values: int) -> int:
    with world.installation.database.transaction() as connection:
        found: int = connection.execute(text(statement), values).scalar_one()
    return found


# What is killed


def _kill_child(world: World) -> None:
    until = time.monotonic() + LONGEST
    children = [child for parent in _celery(world) for child in _children(parent)]
    while time.monotonic() < until:
        with world.installation.database.transaction() as connection:
            busy = set(connection.execute(text("SELECT pid FROM batch WHERE state <> 'DONE'")).scalars())
        if found := busy.intersection(children):
            _kill(found.pop())
            return
        time.sleep(0.01)
    raise SystemExit("no child of the worker has a batch")


def _kill_parent(world: World) -> None:
    for pid in _celery(world):
        _kill(pid)


def _kill_bell(world: World) -> None:
    _kill(world.supervisor.pids()["worker"])


def _kill_all(world: World) -> None:
    bells = [pid for name, pid in world.supervisor.pids().items() if name in ("worker", "service", "beat")]
    below = [pid for bell in bells for parent in _children(bell) for pid in (parent, *_children(parent))]
    for pid in (*bells, *below):
        _kill(pid)


def _kill_valkey(world: World) -> None:
    shutil.rmtree(world.redis_folder / "appendonlydir")
    _kill(world.supervisor.pids()["redis"])


def _empty_redis(world: World) -> None:
    world.redis.flushall()


def _kill_postgres(world: World) -> None:
    _kill(world.supervisor.pids()["postgres"], signal.SIGQUIT)


KILLS: tuple[tuple[str, float, Callable[[World], None]], ...] = (
    ("worker child", WORKERS, _kill_child),
    ("worker parent", WORKERS, _kill_parent),
    ("bell", WORKERS, _kill_bell),
    ("all workers at once", WORKERS, _kill_all),
    ("Valkey, back empty,", REDIS, _kill_valkey),
    ("Redis emptied, nobody", REDIS, _empty_redis),
    ("PostgreSQL", POSTGRES, _kill_postgres),
)


def _celery(world: World) -> list[int]:
    """The Celery workers of the bell that serves the marketing lanes; there is one, unless it is just starting."""
    return _children(world.supervisor.pids()["worker"])


def _kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return  # it went with its parent, which was first


def _children(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
            except OSError:
                continue  # ended meanwhile
            if int(stat.rpartition(")")[2].split()[1]) == parent:
                found.append(int(folder.name))
    return sorted(found)


@contextmanager
def _world(people: int) -> Iterator[World]:
    """The fleet of `dripwell run` on a folder full of due messages."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        root, state = folder / "root", folder / "state"
        _write_root(root)
        settings = Settings(state_dir=state, web_port=free_port(), sandbox_port=free_port())
        with bootstrap.opened(settings, root) as installation:
            fill(installation, people)
        with hold(state, lasting=True) as held:
            crew = fleet.assemble(settings, held, root)
            with crew.servers, (folder / "fleet.log").open("w", encoding="utf-8") as log:
                supervisor = Supervisor(state, log, color=False)
                processes = [_fast(process) if process.name == "sandbox" else process for process in crew.processes]
                with supervisor.start(processes):
                    held.announce(crew.addresses)
                    installation = bootstrap.connect(crew.settings(settings), root, crew.database_url, crew.redis_url)
                    ledger = Ledger(state / "sandbox" / "ledger.jsonl")
                    try:
                        yield World(
                            supervisor, installation, ledger, redis.Redis.from_url(crew.redis_url), state / "redis"
                        )
                    except BaseException:
                        log.flush()
                        sys.stderr.write("".join((folder / "fleet.log").read_text().splitlines(keepends=True)[-40:]))
                        raise
                    finally:
                        installation.close()


def _fast(sandbox: Process) -> Process:
    at = sandbox.argv.index("--webhook")
    return replace(sandbox, argv=(*sandbox.argv[:at], *sandbox.argv[at + 2 :], "--fast"))


def _write_root(root: Path) -> None:
    for name in ("campaigns", "config", "templates"):
        shutil.copytree(ROOT / name, root / name)
    with (root / "config" / "site.yaml").open("a", encoding="utf-8") as site:
        site.write(f"\ndelivery:\n  rate: {RATE} per second\n")


if __name__ == "__main__":
    main()
