"""How long a one-click unsubscribe takes while a sender works at full speed, and whether it holds at once.

The real web process gets 200 one-click POSTs a second for 30 s, on kept connections, at their times whatever is still
unanswered. A process of its own sends to 240,000 people at the same time, with a provider that accepts at once; it
writes down who was in each call and when that call's final check began. Whoever leaves stands just in front of the
sender: one of the next 3,000 to be mailed.

- `unsubscribe p50`, `unsubscribe p99`: from the time a POST was due to its whole answer. Bar: p99 below 50 ms.
- `unsubscribes`: answered with 2xx, a second. `in time`: of them, how many kept an email from being sent.
- `accepted after 2xx`: messages in a call whose final check began after their unsubscribe was answered. Must be 0; the
  script fails otherwise.
- `sent meanwhile`: messages a second that the sender accepted while the POSTs came in.

A ratio of 1 and above is good. `--quick`: 5 s. Both processes, PostgreSQL (fsync on), Valkey and this client share the
machine. Nothing is random but ids and who leaves (a seed).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import struct
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import stand

from dripwell import bootstrap
from dripwell.core.campaign import Lane
from dripwell.core.tokens import Purpose, sign
from dripwell.delivery.provider import Accepted, Capabilities, LogAnswer, Mailing
from dripwell.services import send
from dripwell.settings import Settings
from dripwell.storage import invariants
from dripwell.storage.limiter import Limiter

RATE, SECONDS, PEOPLE = 200, 30, 240_000
BAR_P99 = 0.050
AHEAD = 3_000
SEED = 20261102
NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class Instant:
    """A provider that takes everything at once and writes down whom, and when the final check before it began."""

    name = "sendgrid"
    capabilities = Capabilities(max_batch=1000, events=False, logs=False)

    def __init__(self, ledger: Path, place: Path) -> None:
        self.checked_at = 0.0
        self._ledger = ledger.open("a", encoding="ascii")
        self._place = os.open(place, os.O_WRONLY)
        self._taken = 0

    def passed(self, failpoint: str) -> None:
        """The sender has come to this point of a batch."""
        if failpoint == "after_mark":
            self.checked_at = time.monotonic()

    def call(self, mailing: Mailing) -> Accepted:
        """Accept, on record."""
        line = {"checked": self.checked_at, "messages": [envelope.message.hex for envelope in mailing.envelopes]}
        self._ledger.write(json.dumps(line) + "\n")
        self._ledger.flush()
        self._taken += len(mailing.envelopes)
        os.pwrite(self._place, struct.pack(">Q", self._taken), 0)
        return Accepted(f"instant-{mailing.batch}")

    def find(self, address: str, message: UUID, since: Any) -> LogAnswer:
        """Know nothing."""
        return LogAnswer(answered=False)

    def close(self) -> None:
        """Hold nothing that matters."""
        self._ledger.close()


def send_everything(folder: Path) -> None:
    """The sender, in a process of its own: one pass after another until everybody is mailed."""
    settings = Settings.read()
    database_url, redis_url = bootstrap.urls(settings, None)
    installation = bootstrap.connect(settings, Path.cwd(), database_url, redis_url)
    provider = Instant(folder / "bench.ledger", folder / "bench.place")
    sender = replace(
        bootstrap.sender(installation),
        provider=provider,
        failpoint=provider.passed,
        limiter=Limiter(redis_url, ceiling=1e6),  # asked as always, and never in the way
    )
    print("ready", flush=True)
    try:
        while True:
            if send.send(sender, Lane.DRIP, out_of_time=lambda: False) == 0:
                time.sleep(0.05)
    finally:
        provider.close()
        installation.close()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--send", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.send is not None:
        send_everything(given.send)
        return
    seconds = 5 if given.quick else SECONDS
    with stand.opened() as installation:
        mails = stand.fill(installation, PEOPLE * seconds // SECONDS, accepted=False)
        folder = installation.settings.state_dir
        (folder / "bench.ledger").touch()
        (folder / "bench.place").write_bytes(struct.pack(">Q", 0))
        place = os.open(folder / "bench.place", os.O_RDONLY)
        chance, leaving = random.Random(SEED), dict[int, stand.Mail]()
        left: set[int] = set()

        def request(number: int) -> bytes:
            reached = struct.unpack(">Q", os.pread(place, 8, 0))[0]
            who = min(reached + chance.randint(1, AHEAD), len(mails) - 1)
            while who in left:
                who = (who + 1) % len(mails)
            left.add(who)
            leaving[number] = mails[who]
            word = sign(installation.keys, Purpose.UNSUBSCRIBE, mails[who].id, NEVER)
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            return stand.post(f"/u/{word}", b"List-Unsubscribe=One-Click", form)

        command = [sys.executable, __file__, "--send", str(folder)]
        with stand.web(installation) as port:
            stand.ask(port, 50, lambda number: b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            with stand.process(command, stand.environment(installation), ready=True):
                answers = stand.ask(port, RATE * seconds, request, connections=64, rate=RATE)
                mailed = struct.unpack(">Q", os.pread(place, 8, 0))[0]
        os.close(place)
        assert set(answers.statuses) == {200}, answers.statuses
        calls = [json.loads(line) for line in (folder / "bench.ledger").read_text(encoding="ascii").splitlines()]
        checked = {message: call["checked"] for call in calls for message in call["messages"]}
        late = [n for n, at in answers.done_at.items() if checked.get(leaving[n].message, -1.0) > at]
        in_time = sum(leaving[number].message not in checked for number in answers.done_at)
        with installation.database.snapshot() as connection:
            broken = invariants.broken(connection)
    print(f"{seconds} s, {len(mails):,} people, {stand.cores()} cores, seed {SEED}")
    stand.say("unsubscribe p50", answers.quantile(0.5) * 1000, "ms", None)
    stand.say("unsubscribe p99", answers.quantile(0.99) * 1000, "ms", BAR_P99 / answers.quantile(0.99))
    rate = len(answers.done_at) / answers.took
    stand.say("unsubscribes", rate, "a second", rate / RATE)
    stand.say("in time", in_time, "people", None)
    stand.say("accepted after 2xx", len(late), "messages", 1.0 if not late else 0.0)
    stand.say("sent meanwhile", mailed / answers.took, "messages/s", None)
    if mailed >= len(mails) - len(left):
        print("the sender ran out of people before the POSTs ended: give it more")
    assert not late, late
    broken.pop("V2 nothing stuck", None)  # the sender was stopped in the middle of a batch
    assert broken == {}, broken


if __name__ == "__main__":
    main()
