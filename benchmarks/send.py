"""Decisions and messages a second, on embedded servers, with a provider that answers at once.

Prints the ratio to the bars: 10,000 enrollments/s for the planner, 2,000 messages/s for the sender, claim to record.
One process does both, fsync on, batches of 1,000, rendering and the final check on. Nothing is random but ids.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import text

from dripwell import bootstrap
from dripwell.bootstrap import Installation
from dripwell.core.campaign import Lane
from dripwell.core.states import MessageState
from dripwell.delivery.provider import Accepted, Capabilities, LogAnswer, Mailing
from dripwell.services import enroll, plan, publish, send
from dripwell.settings import Settings
from dripwell.storage import clock

CAMPAIGN = "seven-benefits"
PEOPLE = 3000


class Instant:
    """A provider that takes everything at once."""

    name = "instant"
    capabilities = Capabilities(max_batch=1000, events=False, logs=False)

    def call(self, mailing: Mailing) -> Accepted:
        """Accept."""
        return Accepted(f"instant-{mailing.batch}")

    def find(self, address: str, message: UUID, since: Any) -> LogAnswer:
        """Know nothing."""
        return LogAnswer(answered=False)

    def close(self) -> None:
        """Hold nothing."""


def main() -> None:
    """Measure one pass of the planner and one of the sender."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with bootstrap.opened(Settings(state_dir=Path(folder)), Path.cwd()) as installation:
            _join(installation)
            began = time.perf_counter()
            plan.plan(installation.database, installation.versions, out_of_time=lambda: False)
            planned = time.perf_counter() - began
            sender = replace(bootstrap.sender(installation), provider=Instant(), rate=1e9)
            began = time.perf_counter()
            send.send(sender, Lane.DRIP, out_of_time=lambda: False)
            whole = time.perf_counter() - began
            with installation.database.transaction() as connection:
                accepted = connection.execute(
                    text("SELECT count(*) FROM message WHERE state = :state"), {"state": MessageState.ACCEPTED}
                ).scalar_one()
            assert accepted == PEOPLE, accepted
    print(f"plan  {PEOPLE / planned:8,.0f} enrollments/s   {PEOPLE / planned / 10_000:.2f} of the bar of 10,000/s")
    print(f"send  {PEOPLE / whole:8,.0f} messages/s      {PEOPLE / whole / 2_000:.2f} of the bar of 2,000/s")
    print("one sender, rendering and final check on, provider at 0 ms; 1.00 and above is good")


def _join(installation: Installation) -> None:
    with installation.database.transaction() as connection:
        now = clock.read(connection).now
        monday = (now + timedelta(days=(7 - now.weekday()) % 7 or 7)).replace(hour=18, minute=30)
        times = clock.forward(connection, monday)
        publish.apply(
            connection,
            installation.sources(CAMPAIGN),
            CAMPAIGN,
            actor="bench",
            live=False,
            versions=installation.versions,
            new_id=installation.new_id,
        )
        publish.approve(connection, CAMPAIGN, actor="clinical-review@kcla.example", versions=installation.versions)
        publish.start(connection, CAMPAIGN, actor="bench", live=False, versions=installation.versions)
        consent = enroll.Consent("seven-part-series", "benchmark")
        people = [
            enroll.add(
                connection,
                address=f"somebody.{number}@example.com",
                consent=consent,
                pepper=installation.pepper,
                new_id=installation.new_id,
                times=times,
                fields={"first_name": "Maria"},
            )[0]
            for number in range(PEOPLE)
        ]
        connection.execute(text("UPDATE lane_state SET batch_limit = 1000"))
        enroll.enroll(connection, CAMPAIGN, people, actor="bench")


if __name__ == "__main__":
    main()
