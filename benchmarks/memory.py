"""Figure (g): memory of each sender over a million messages.

One million planned messages, two sender processes, the fast sandbox. Each process's resident memory is read when
100,000 messages are accepted and again at the end. These processes live through all of it: in production a Celery child
is replaced after 500 passes, so this is the stricter case.

Bars: 5 % of growth, 200 MB, and 2,000 messages a second over all of it. `--messages 200000` takes fewer; `--quick`
250,000.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from pathlib import Path

from ground import Ground, Watch, fill, ground, line, machine, within
from sqlalchemy import text

FROM = 100_000
SENDERS = 2
LONGEST = 1500.0


def main() -> None:
    """Send a million and look at the processes on the way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="250,000 messages")
    given = parser.parse_args()
    messages = 250_000 if given.quick else given.messages
    print(machine())
    with ground() as here:
        fill(here.installation, messages)
        senders = [here.start("benchmarks/send.py", "--role", "sender") for _ in range(SENDERS)]
        for sender in senders:
            assert sender.stdout is not None
            assert sender.stdout.readline() == "ready\n"
        (here.folder / "go-0").touch()
        watch = Watch()
        while (accepted := _accepted(here)) < FROM:
            assert watch.seconds() < LONGEST, f"only {accepted:,} were accepted"
            time.sleep(0.1)
        before = after = [_resident(sender) for sender in senders]
        while (accepted := _accepted(here)) < messages:
            assert watch.seconds() < LONGEST, f"only {accepted:,} were accepted"
            after = [_resident(sender) or last for sender, last in zip(senders, after, strict=True)]
            time.sleep(0.5)
        seconds = watch.seconds()
        for sender in senders:
            sender.wait()
    worst = max((last / first - 1) * 100 for first, last in zip(before, after, strict=True))
    line(f"(g) growth, {FROM:,} to {accepted:,} messages", worst, "%", within(5.0, worst), 1.0, "the worse of two")
    line("(g) memory at the end", max(after) / 1024, "MB", within(200.0, max(after) / 1024), 1.0, "the larger of two")
    line("(g) sustained over all of it", accepted / seconds, "messages/s", accepted / seconds / 2000, 1.0)


def _accepted(here: Ground) -> int:
    """Of the batches alone: counting a million messages twice a second would be part of what is measured."""
    with here.installation.database.transaction() as connection:
        found: int = connection.execute(
            text("SELECT coalesce(sum(cardinality(message_ids)), 0) FROM batch WHERE outcome = 'accepted'")
        ).scalar_one()
    return found


def _resident(process: subprocess.Popen[str]) -> int:
    """KB of memory that are really there."""
    for row in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if row.startswith("VmRSS:"):
            return int(row.split()[1])
    return 0  # it has ended


if __name__ == "__main__":
    main()
