"""Figure (g): memory of each sender over a million messages.

One million planned messages, two sender processes, the fast sandbox. Each process's resident memory is read when
100,000 messages are accepted and again at the end. These processes live through all of it: in production a Celery child
is replaced after 500 passes, so this is the stricter case.

Read: growth in percent; the bar is 5. `--messages 200000` takes fewer.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from pathlib import Path

from ground import Watch, count, fill, ground, line, machine

FROM = 100_000
SENDERS = 2


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
        (here.folder / "go-sender").touch()
        watch = Watch()
        while count(here.installation, "ACCEPTED") < FROM:
            time.sleep(0.1)
        before = [_resident(sender) for sender in senders]
        while (accepted := count(here.installation, "ACCEPTED")) < messages and watch.seconds() < 1200:
            after = [_resident(sender) for sender in senders]
            time.sleep(0.5)
        seconds = watch.seconds()
        for sender in senders:
            sender.wait()
    for number, (first, last) in enumerate(zip(before, after, strict=True), 1):
        growth = (last / first - 1) * 100
        line(
            f"(g) growth of sender {number}, {FROM:,} to {accepted:,}", growth, "%", growth / 5, "bar: below 1.00 (5 %)"
        )
        line("    its memory at the end", last / 1024, "MB", last / 1024 / 200, "bar: below 1.00 (200 MB)")
    line(
        "    sustained over all of it",
        accepted / seconds,
        "messages/s",
        accepted / seconds / 2000,
        "bar 1.00 (2,000/s)",
    )


def _resident(process: subprocess.Popen[str]) -> int:
    """KB of memory that are really there."""
    for text in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if text.startswith("VmRSS:"):
            return int(text.split()[1])
    return 0  # it has ended


if __name__ == "__main__":
    main()
