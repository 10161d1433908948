"""Figure (h): from a request to the provider, for a confirmation, while a newsletter to a million goes out.

A million messages are planned in the newsletter lane and sent by the real fleet (beat, the service lanes' worker, the
other lanes' worker with two children) at the installation's own rate, 2,000 a second, through the fast sandbox.
Meanwhile somebody new asks for a confirmation five times a second: what a form does is called, and a wait begins before
its transaction does. The commit rings the lane by NOTIFY. The end of each wait is the time in the sandbox's ledger, on
the same clock: nothing of ours says when it was. Every one of them must have arrived.

Bar: p99 below 2 s. `--quick` takes 100,000 messages and 20 seconds.
"""

from __future__ import annotations

import argparse
import json
import time

from ground import Ground, fill, ground, line, machine, within
from sqlalchemy import text

from dripwell import bootstrap
from dripwell.cli.fleet import BEAT
from dripwell.services import enroll
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
        fill(here.installation, messages, lane="newsletter")
        queues = [(",".join(bootstrap.QUEUES["service"]), "1"), (",".join(bootstrap.QUEUES["rest"]), "2")]
        fleet = [here.start("-m dripwell.workers.bell", "--queues", *each, "--children", n) for *each, n in queues]
        fleet.append(here.start("-m", *BEAT))
        try:
            _wait_for_the_newsletter(here)
            before, began = _mailed(here), time.monotonic()
            asked = _ask(here, seconds)
            rate = (_mailed(here) - before) / (time.monotonic() - began)
            waits = _waits(here, asked)
        finally:
            for process in fleet:
                process.terminate()
            for process in fleet:
                process.wait()
        assert _mailed(here) < messages, "the newsletter was over before the confirmations were: take more messages"
    waits.sort()
    p50, p99 = waits[len(waits) // 2], waits[min(len(waits) - 1, len(waits) * 99 // 100)]
    line("(h) confirmation during a newsletter, p99", p99, "s", within(2.0, p99), 1.0, f"{len(waits)} confirmations")
    line("(h) the same, p50", p50, "s", within(2.0, p50))
    line("(h) the same, the slowest", waits[-1], "s", within(2.0, waits[-1]))
    line("(h) the newsletter meanwhile, of its rate", rate, "messages/s", rate / here.installation.site.delivery.rate)


def _mailed(here: Ground) -> int:
    with here.installation.database.transaction() as connection:
        found: int = connection.execute(
            text(
                "SELECT coalesce(sum(cardinality(message_ids)), 0) FROM batch"
                " WHERE outcome = 'accepted' AND lane = 'newsletter'"
            )
        ).scalar_one()
    return found


def _wait_for_the_newsletter(here: Ground) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if _mailed(here) > 2_000:
            return
        time.sleep(0.2)
    raise SystemExit("the newsletter did not start")


def _ask(here: Ground, seconds: float) -> dict[str, float]:
    """Ask for confirmations; returns when each was asked for (Unix seconds) by the message's public id."""
    installation = here.installation
    asked = {}
    for number in range(int(seconds / EACH)):
        began, at = time.monotonic(), time.time()
        with installation.database.transaction() as connection:
            person = enroll.ask_to_confirm(
                connection,
                address=f"new.{number}@example.com",
                form=installation.site.forms[0].name,
                pepper=installation.pepper,
                new_id=installation.new_id,
                times=clock.read(connection),
            )
            public_id = connection.execute(
                text("SELECT public_id FROM message WHERE subscriber_id = :id AND lane = 'confirm'"), {"id": person}
            ).scalar_one()
        asked[public_id.hex] = at
        time.sleep(max(0.0, EACH - (time.monotonic() - began)))
    return asked


def _waits(here: Ground, asked: dict[str, float]) -> list[float]:
    """Read the ledger on and on until everybody who asked stands in it."""
    until = time.monotonic() + 60
    found: dict[str, float] = {}
    with (here.folder / "provider" / "ledger.jsonl").open("rb") as ledger:
        rest = b""
        while len(found) < len(asked) and time.monotonic() < until:
            *rows, rest = (rest + ledger.read()).split(b"\n")
            for entry in map(json.loads, rows):
                if entry["dw_m"] in asked:
                    found[entry["dw_m"]] = entry["t"]
            time.sleep(0.1)
    missing = len(asked) - len(found)
    assert not missing, f"{missing} of {len(asked)} confirmations never reached the provider"
    return [found[one] - began for one, began in asked.items()]


if __name__ == "__main__":
    main()
