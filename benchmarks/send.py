"""Figures (a) and (b): due to accepted, against what PostgreSQL alone can record and against a plain Celery design.

(a) The seven benefits' first email, personalized, in batches of 1,000 through the sandbox in its fast mode (it checks
every call and fsyncs its ledger before it answers). Two sender processes, final check, journal and limiter on,
everything on this machine.
    ceiling   the same statements and commits in the same order, by two processes that render nothing and call nobody
    plain     a Celery task per email with a countdown, one call each with the provider's package, no ledger: what
              anybody would write first; a warm worker with two children
(b) The same, one message a call.

Ceiling and ours take turns on one database (ceiling, ours, ours, ceiling, ceiling, ours): on rows that nobody has
touched, after VACUUM, ANALYZE and a checkpoint, for as many seconds each, every process having sent one batch before
the clock starts. The medians are compared. A process's rate is what it got accepted until the end of its last batch;
the two are added. Nothing else runs on the database meanwhile, not even a look at how far they are. The due messages
that are left over are part of it: a claim has to find its own among them.

Bars: 0.60 of the ceiling and 10 times the plain design; the aim is 10,000 messages a second. `--quick`: shorter turns
on fewer rows. `--profile` prints what one process spends its time on, instead.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from uuid import uuid4

from ground import Ground, fill, ground, line, machine, settle_down

from dripwell import bootstrap
from dripwell.bootstrap import Installation
from dripwell.core.campaign import Lane
from dripwell.services import resolve, send
from dripwell.settings import Settings
from dripwell.storage import batches, messages
from dripwell.storage.limiter import Limiter

TURNS = ("ceiling", "sender", "sender", "ceiling", "ceiling", "sender")
SENDERS = 2
PEOPLE = {1000: 800_000, 1: 60_000}
SECONDS = 6.0
PLAIN = 3_000
THIS = "benchmarks/send.py"


def main() -> None:
    """Measure (a), its ceiling, its baseline, and (b)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--role", choices=("sender", "ceiling"), help=argparse.SUPPRESS)
    parser.add_argument("--turn", default="0", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=3600.0, help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=int, default=1000, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role:
        _work(given.role, given.turn, given.seconds, given.limit)
        return
    if given.profile:
        _profile()
        return
    share = 4 if given.quick else 1
    print(machine())
    plain = _plain(PLAIN // share)
    ceiling, ours = _both(1000, share)
    line("(a) due to accepted, of PostgreSQL alone", ours, "messages/s", ours / ceiling, 0.6)
    line("(a) due to accepted, of plain Celery", ours, "messages/s", ours / plain, 10.0)
    line("(a) due to accepted, of the aim", ours, "messages/s", ours / 10_000, note="aim: 10,000/s")
    line("(a) ceiling: the same statements, nothing else", ceiling, "messages/s", None)
    line("(a) baseline: plain Celery, a task an email", plain, "messages/s", None)
    ceiling, ours = _both(1, share)
    line("(b) one message a call, of PostgreSQL alone", ours, "messages/s", ours / ceiling)
    line("(b) ceiling: the same statements, nothing else", ceiling, "messages/s", None)


def _both(limit: int, share: int) -> tuple[float, float]:
    rates: dict[str, list[float]] = {"ceiling": [], "sender": []}
    with ground() as here:
        fill(here.installation, PEOPLE[limit] // share)
        for number, role in enumerate(TURNS):
            settle_down(here.installation)
            rates[role].append(_turn(here, role, f"{number}", SECONDS / share, limit))
    return median(rates["ceiling"]), median(rates["sender"])


def _turn(here: Ground, role: str, turn: str, seconds: float, limit: int) -> float:
    """Two processes of a kind work for so long; returns their messages a second."""
    asked = ("--role", role, "--turn", turn, "--seconds", str(seconds), "--limit", str(limit))
    workers = [here.start(THIS, *asked) for _ in range(SENDERS)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    (here.folder / f"go-{turn}").touch()
    rates = []
    for worker in workers:
        assert worker.stdout is not None
        accepted, took = worker.stdout.readline().split()
        rates.append(int(accepted) / float(took))
        assert worker.wait() == 0
    return sum(rates)


def _work(role: str, turn: str, seconds: float, limit: int) -> None:
    """One process of either kind: a batch to get warm, then until time is up or nothing is due."""
    settings = Settings.read()
    database_url, redis_url = bootstrap.urls(settings, None)
    installation = bootstrap.connect(settings, Path.cwd(), database_url, redis_url)
    bootstrap.settle_in()
    one_batch = _batches(installation, redis_url, role, limit)
    assert one_batch(), "nothing is due"
    print("ready", flush=True)
    while not (settings.state_dir / f"go-{turn}").exists():
        time.sleep(0.001)
    accepted = 0
    began = now = time.monotonic()
    while now - began < seconds and (people := one_batch()):
        accepted += people
        now = time.monotonic()
    print(accepted, now - began, flush=True)
    installation.close()


def _batches(installation: Installation, redis_url: str, role: str, limit: int) -> Callable[[], int]:
    """What carries out one batch of this kind and says how many people were in it."""
    installation.provider.capabilities = replace(installation.provider.capabilities, max_batch=limit)
    # The limiter is asked as always, and never in the way.
    sender = replace(bootstrap.sender(installation), limiter=Limiter(redis_url, ceiling=1e6))

    def ours() -> int:
        batch = send.claim(sender, Lane.DRIP)
        if batch is None:
            return 0
        send.carry_out(sender, batch)
        return len(batch.addressees)

    return ours if role == "sender" else lambda: _only_the_record(sender)


def _only_the_record(sender: send.Sender) -> int:
    """Every statement and every commit of one batch, in order; nothing rendered, nobody called."""
    nonce = uuid4()
    batch = send.claim(sender, Lane.DRIP)
    if batch is None:
        return 0
    with sender.database.transaction() as connection:
        sender.fast.expect(connection)
    with sender.database.transaction() as connection:
        batches.mark_calling(connection, batch.id, batch.nonce)
    with sender.database.snapshot() as connection:
        batches.may_still_call(connection, batch.id)
        resolve.check_out(connection, batch.id, batch.scopes, "bench", before="CALLING", baa=False)
        left = messages.still_in(connection, batch.id)
        batches.store_payload(connection, batch.id, sorted(left), nonce.bytes)
    resolve.accepted(sender.database, batch.id, before=("CALLING",), status=202, provider_id="none")
    return len(batch.addressees)


def _plain(emails: int) -> float:
    """The design anybody would write first: see benchmarks/plain.py."""
    with ground() as here:
        worker = here.start("-m celery", "-A", "benchmarks.plain", "worker", "-c", "2", "-l", "ERROR")
        watch = here.start("benchmarks/plain.py", str(emails))
        assert watch.stdout is not None
        seconds = float(watch.stdout.read())
        watch.wait()
        worker.terminate()
        worker.wait()
    return emails / seconds


def _profile() -> None:
    with ground() as here:
        fill(here.installation, 40_000)
        one_batch = _batches(here.installation, here.environment["REDIS_URL"], "sender", 1000)
        one_batch()
        watch = cProfile.Profile()
        for _ in range(20):
            watch.runcall(one_batch)
        pstats.Stats(watch).sort_stats("tottime").print_stats(30)


if __name__ == "__main__":
    main()
