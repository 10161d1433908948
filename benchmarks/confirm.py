"""Figure (h): from a request to the provider, for a confirmation, while a newsletter to a million goes out.

A million messages are planned in the newsletter lane and sent by a real worker at full speed through the fast sandbox.
Meanwhile requests for a confirmation are committed, five a second. A request rings its lane by NOTIFY; the service
lanes' own worker mails it. The end of each wait is the time in the sandbox's ledger: nothing of ours says when it was.

Read: p99 in seconds against the bar of 2. `--quick` takes 100,000 messages and 20 seconds.
"""

from __future__ import annotations

import argparse
import json
import time

from ground import CAMPAIGN, Ground, fill, ground, line, machine
from sqlalchemy import text

from dripwell.services import serve
from dripwell.storage import clock

MESSAGES = 1_000_000
SECONDS = 60
EACH = 0.2


def main() -> None:
    """Start the workers, ask for confirmations, read the ledger."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    messages, seconds = (100_000, 20) if given.quick else (MESSAGES, SECONDS)
    print(machine())
    with ground() as here:
        fill(here.installation, messages)
        with here.installation.database.transaction() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("UPDATE message SET lane = 'newsletter'"))
        workers = [
            here.start("-m dripwell.workers.bell", "--queues", queues, "--children", children)
            for queues, children in (("confirm,booking", "1"), ("drip,newsletter,plan,ingest,keep", "2"))
        ]
        try:
            _wait_for_the_newsletter(here)
            asked = _ask(here, seconds)
            waits = _waits(here, asked)
            with here.installation.database.transaction() as connection:
                left = connection.execute(
                    text("SELECT count(*) FROM message WHERE lane = 'newsletter' AND state = 'PLANNED'")
                ).scalar_one()
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.wait()
    assert left, f"the newsletter of {CAMPAIGN} was over before the confirmations were: take more messages"
    waits.sort()
    p50, p99 = waits[len(waits) // 2], waits[min(len(waits) - 1, len(waits) * 99 // 100)]
    line("(h) confirmation during a newsletter, p99", p99, "s", p99 / 2, "bar: below 1.00 (2 s)")
    line("    p50", p50, "s", p50 / 2, "")
    line(
        "    worst", waits[-1], "s", waits[-1] / 2, f"{len(waits)} confirmations, {messages - left:,} of the newsletter"
    )


def _wait_for_the_newsletter(here: Ground) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with here.installation.database.transaction() as connection:
            if connection.execute(text("SELECT count(*) FROM batch WHERE outcome = 'accepted'")).scalar_one() > 2:
                return
        time.sleep(0.2)
    raise SystemExit("the newsletter did not start")


def _ask(here: Ground, seconds: float) -> dict[str, float]:
    """Commit requests; returns the time of each commit by the message's public id."""
    asked = {}
    for number in range(int(seconds / EACH)):
        began = time.monotonic()
        with here.installation.database.transaction() as connection:
            now = clock.read(connection).now
            person = connection.execute(
                text("SELECT id FROM subscriber ORDER BY id LIMIT 1 OFFSET :n"), {"n": number}
            ).scalar_one()
            serve.plan_service(
                connection, campaign="confirm", step_key="confirm", subscriber_id=person, round=1, now=now
            )
            public_id = connection.execute(
                text("SELECT public_id FROM message WHERE subscriber_id = :id AND lane = 'confirm'"), {"id": person}
            ).scalar_one()
        asked[public_id.hex] = time.time()
        time.sleep(max(0.0, EACH - (time.monotonic() - began)))
    return asked


def _waits(here: Ground, asked: dict[str, float]) -> list[float]:
    until = time.monotonic() + 60
    ledger = here.folder / "provider" / "ledger.jsonl"
    found: dict[str, float] = {}
    while len(found) < len(asked) and time.monotonic() < until:
        for row in ledger.read_text().splitlines():
            entry = json.loads(row)
            if entry["dw_m"] in asked:
                found[entry["dw_m"]] = entry["t"]
        time.sleep(1)
    missing = len(asked) - len(found)
    assert not missing, f"{missing} confirmations never reached the provider"
    return [found[one] - asked[one] for one in asked]


if __name__ == "__main__":
    main()
