"""Figures (a) and (b): due to accepted, against what PostgreSQL alone can record and against a plain Celery design.

(a) The seven benefits' first email, personalized, to 60,000 people in batches of 1,000 through the sandbox in its fast
mode (it checks every call and fsyncs its ledger before it answers). Two sender processes, final check, journal and
limiter on, everything on this machine.
    ceiling   the same statements and commits in the same order, by two processes that render nothing and call nobody
    plain     a Celery task per email with a countdown, one call each with the provider's package, no ledger: what
              anybody would write first
(b) The same, one message a call.

Read: the first number of each line is the ratio. Bars: 0.60 of the ceiling and 10 times the plain design; the aim is
10,000 messages a second. `--quick` takes a tenth of the people.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from ground import Ground, Watch, count, fill, ground, line, machine
from sqlalchemy import text

from dripwell import bootstrap
from dripwell.core.campaign import Lane
from dripwell.services import resolve, send
from dripwell.settings import Settings
from dripwell.storage import batches, messages
from dripwell.storage.limiter import Limiter

PEOPLE = 60_000
SINGLE = 4_000
PLAIN = 1_500
SENDERS = 2
THIS = "benchmarks/send.py"


def main() -> None:
    """Measure (a), its ceiling, its baseline, and (b)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--role", choices=("sender", "ceiling"))
    parser.add_argument("--limit", type=int, default=1000)
    given = parser.parse_args()
    if given.role:
        return _work(given.role, given.limit)
    share = 10 if given.quick else 1
    print(machine())
    plain = _plain(PLAIN // share)
    ceiling, ours = _both(PEOPLE // share, 1000)
    line("(a) due to accepted / PostgreSQL alone", ours, "messages/s", ours / ceiling, "bar 0.60")
    line("(a) due to accepted / plain Celery", ours, "messages/s", ours / plain, "bar 10")
    line("(a) due to accepted / the aim", ours, "messages/s", ours / 10_000, "aim 1.00 (10,000/s)")
    line("    ceiling: the same writes, nothing else", ceiling, "messages/s", 1.0, "")
    line("    baseline: plain Celery, a task an email", plain, "messages/s", plain / ceiling, "")
    ceiling, ours = _both(SINGLE // share, 1)
    line("(b) one message a call / PostgreSQL alone", ours, "messages/s", ours / ceiling, "")
    line("    ceiling: the same writes, nothing else", ceiling, "messages/s", 1.0, "")
    return None


def _both(people: int, limit: int) -> tuple[float, float]:
    with ground() as here:
        fill(here.installation, people)
        ceiling = _measure(here, "ceiling", people // 2, limit)
        with here.installation.database.transaction() as connection:
            # Back to what they were, so that both measure the same work on the same rows.
            connection.execute(text("SET LOCAL statement_timeout = 0"))
        ours = _measure(here, "sender", people, limit)
    return ceiling, ours


def _measure(here: Ground, role: str, until: int, limit: int) -> float:
    before = count(here.installation, "ACCEPTED")
    workers = [here.start(THIS, "--role", role, "--limit", str(limit)) for _ in range(SENDERS)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    watch = Watch()
    (here.folder / f"go-{role}").touch()
    while (accepted := count(here.installation, "ACCEPTED")) < until and watch.seconds() < 600:
        time.sleep(0.02)
    rate = (accepted - before) / watch.seconds()
    (here.folder / f"stop-{role}").touch()
    for worker in workers:
        worker.wait()
    return rate


def _work(role: str, limit: int) -> None:
    """One process of either kind: until nothing is due, or somebody says stop."""
    settings = Settings.read()
    database_url, redis_url = bootstrap.urls(settings, None)
    installation = bootstrap.connect(settings, Path.cwd(), database_url, redis_url)
    bootstrap.settle_in()
    fast = Limiter(redis_url, ceiling=1e6)  # asked as always, and never in the way
    sender = replace(bootstrap.sender(installation), limiter=fast)
    narrow = replace(installation.provider.capabilities, max_batch=limit)
    installation.provider.capabilities = narrow
    print("ready", flush=True)
    folder = settings.state_dir
    while not (folder / f"go-{role}").exists():
        time.sleep(0.001)

    def stop() -> bool:
        return (folder / f"stop-{role}").exists()

    if role == "sender":
        while not stop():
            if not send.send(sender, Lane.DRIP, out_of_time=stop):
                break
    else:
        while not stop() and _only_the_record(sender, limit):
            pass
    installation.close()


def _only_the_record(sender: send.Sender, limit: int) -> bool:
    """Every statement and every commit of one batch, in order; nothing rendered, nobody called."""
    nonce = uuid4()
    batch = send.claim(sender, Lane.DRIP)
    if batch is None:
        return False
    with sender.database.transaction() as connection:
        batches.mark_calling(connection, batch.id, batch.nonce)
    with sender.database.snapshot() as connection:
        batches.may_still_call(connection, batch.id)
        resolve.check_out(connection, batch.id, batch.scopes, "bench", before="CALLING", baa=False)
        left = messages.still_in(connection, batch.id)
        batches.store_payload(connection, batch.id, sorted(left), nonce.bytes)
    resolve.accepted(sender.database, batch.id, before=("CALLING",), status=202, provider_id="none")
    return True


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


if __name__ == "__main__":
    main()
