"""Two senders that go from step to step, and stop between any two: the hands of the machine of `machine.py`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine
from sqlalchemy import text

from dripwell.core.campaign import Lane
from dripwell.delivery.provider import Mailing, Outcome
from dripwell.services import publish, resolve, send, settle
from dripwell.services.send import Batch, Letters, Sender
from dripwell.storage import clock, enrollments
from dripwell.storage.batches import Owner
from tests.integration.misbehaving import PATIENCE, Misbehaving
from tests.integration.scripted import House

CAMPAIGNS = ("pair", "other")
PEOPLE = 12
Steps = list[tuple[int, str]]
"""Which of the two goes one step on, and what the provider would say if that were the call."""


@dataclass
class Worker:
    """A sender between two steps. `stood`: seconds since its mark; `left`: who had left when its final check began."""

    owner: Owner
    at: str = "idle"
    batch: Batch | None = None
    letters: Letters | None = None
    mailing: Mailing | None = None
    outcome: Outcome | None = None
    stood: float = 0.0
    left: frozenset[tuple[str, int]] = field(default_factory=frozenset)


# When a pause that is under a minute ends: of a message, or of the lane.
_SOON = """
SELECT extract(epoch FROM min(at) - wall())
  FROM (SELECT retry_at AS at FROM message WHERE state = 'PLANNED'
         UNION ALL SELECT breaker_until FROM lane_state WHERE lane = 'drip' AND breaker = 'open') AS pauses
 WHERE at BETWEEN wall() AND wall() + interval '1 min'
"""


class Senders(RuleBasedStateMachine):
    """The program and its world: a fresh house with CAMPAIGNS in it, which whoever inherits from this provides."""

    def __init__(self) -> None:
        super().__init__()
        self.house = self.move_in()
        self.database = self.house.database
        self.provider = self.provide()
        self.one_host = True
        self.patience = PATIENCE
        self.pids = 0
        self.workers: list[Worker] = []
        self.people: list[tuple[int, str]] = []
        self.left: set[tuple[str, int]] = set()  # (address, campaign) that no later final check may let through
        with self.database.transaction() as connection:
            rows = connection.execute(text("SELECT name, id FROM campaign WHERE kind = 'drip'"))
            self.campaigns = {row.name: row.id for row in rows}

    def move_in(self) -> House:
        """A house of its own."""
        raise NotImplementedError

    def move_out(self) -> None:
        """Give it back."""
        raise NotImplementedError

    # What a mutant changes

    def provide(self) -> Misbehaving:
        """The provider."""
        return Misbehaving(lambda: self.house.wall, self.house.provider)

    def final_check(self, sender: Sender, batch: Batch, letters: Letters) -> Mailing | None:
        """Step 7."""
        return send.final_check(sender, batch, letters)

    def _new_worker(self, number: int) -> Worker:
        self.pids += 1
        return Worker(Owner("host" if self.one_host else f"host{number}", "boot", self.pids))

    def _join(self, campaign: str) -> None:
        address = f"p{len(self.people)}@example.com"
        self.people.append((self.house.person(address), address))
        self._enroll(len(self.people) - 1, campaign)

    def _enroll(self, person: int, campaign: str) -> None:
        with self.database.transaction() as connection:
            version_id = connection.execute(
                text("SELECT version_id FROM campaign WHERE name = :name"), {"name": campaign}
            ).scalar_one()
            enrollments.add(
                connection,
                subscriber_ids=[self.people[person][0]],
                campaign_id=self.campaigns[campaign],
                version_id=version_id,
                now=clock.read(connection).now,
            )

    def _settle(self) -> None:
        alive = {worker.owner.pid for worker in self.workers}
        settle.settle(
            self.database,
            self.provider,
            self.house.fast,
            self.patience,
            owner=Owner("host", "boot", 0),
            is_alive=lambda pid: pid in alive,
            out_of_time=lambda: False,
        )

    # A sender, step by step

    def _sender(self, worker: Worker) -> Sender:
        return self.house.sender(owner=worker.owner, provider=self.provider)

    def _senders_go_on(self, steps: Steps) -> None:
        for which, answer in steps:
            self._step(which, answer)

    def _step(self, which: int, answer: str) -> None:
        worker = self.workers[which]
        steps: dict[str, Callable[[Worker, Sender], bool]] = {
            "idle": self._claim,
            "claimed": self._mark,
            "marked": self._check,
            "checked": partial(self._call, answer),
            "answered": self._record,
        }
        goes_on = steps[worker.at](worker, self._sender(worker))
        if not goes_on:
            self.workers[which] = Worker(worker.owner)

    def _claim(self, worker: Worker, sender: Sender) -> bool:
        """Step 1. Who finds nothing may find something a little later: or nearly every course would be idle."""
        batch = send.claim(sender, Lane.DRIP)
        if batch is None:
            self.house.plan()
            batch = send.claim(sender, Lane.DRIP)
        if batch is None and all(other.at not in ("marked", "checked") for other in self.workers):
            self._find_work()
            batch = send.claim(sender, Lane.DRIP)
        worker.at, worker.batch = "claimed", batch
        return batch is not None

    def _find_work(self) -> None:
        pause = self._one(_SOON)
        if pause is not None:
            self._time_passes(float(pause) + 1)
        elif len(self.people) < PEOPLE:
            self._join(CAMPAIGNS[len(self.people) % 2])
        elif not self._one("SELECT count(*) FROM batch WHERE state <> 'DONE'"):
            self._time_passes(self._seconds_until_something_is_due() or 65)
        self.house.plan()

    def _mark(self, worker: Worker, sender: Sender) -> bool:
        """Steps 2 to 6."""
        assert worker.batch is not None
        batch = send.pace_groups(sender, send.pre_filter(sender, worker.batch))
        letters = send.render(sender, batch)
        if letters is None:
            resolve.close(self.database, batch.id, "empty", before=("OPEN",))
            return False
        assert send.agrees(sender, batch, letters)
        if not send.take_tokens(sender, batch, len(letters.envelopes)):
            return False
        send.journal(sender, batch)
        marked = send.mark(sender, batch)
        worker.at, worker.batch, worker.letters, worker.stood = "marked", marked, letters, 0.0
        return marked is not None

    def _check(self, worker: Worker, sender: Sender) -> bool:
        """Step 7."""
        assert worker.batch is not None
        assert worker.letters is not None
        worker.left = frozenset(self.left)
        worker.mailing = self.final_check(sender, worker.batch, worker.letters)
        worker.at = "checked"
        return worker.mailing is not None

    def _call(self, answer: str, worker: Worker, sender: Sender) -> bool:
        """Steps 8 and 9."""
        assert worker.batch is not None
        assert worker.mailing is not None
        self.provider.answer = answer
        # Its own clock has run as far as the wall's.
        batch = replace(worker.batch, calling_since=time.monotonic() - worker.stood)
        worker.outcome = send.call(sender, batch, worker.mailing)
        self.provider.answer = "accepted"
        if worker.outcome is None:
            assert worker.stood >= send.START_BUDGET, "who did not stand still must call"
            return False
        assert worker.stood <= send.START_BUDGET, "who stood still that long must not call"
        named = {(envelope.to, worker.batch.campaign_id) for envelope in worker.mailing.envelopes}
        assert not named & worker.left, "a call names somebody who had left before its final check began"
        worker.at = "answered"
        return True

    def _record(self, worker: Worker, sender: Sender) -> bool:
        """Step 10."""
        assert worker.batch is not None
        assert worker.mailing is not None
        assert worker.outcome is not None
        send.record(sender, worker.batch, worker.mailing, worker.outcome)
        return False

    # Time

    def _time_passes(self, seconds: float) -> None:
        """For both clocks. Nothing is accepted later than G after its call (A3)."""
        self.house.later(seconds=seconds)
        self.provider.late = [(until, mailing) for until, mailing in self.provider.late if until > self.house.wall]
        for worker in self.workers:
            worker.stood += seconds

    def _seconds_until_something_is_due(self) -> float | None:
        """None: nobody waits for anything."""
        moment = self._one(
            "SELECT min(at) - wall() - campaign_offset FROM installation, ("
            "SELECT next_due_at AS at FROM enrollment WHERE state = 'waiting'"
            " UNION ALL SELECT due_at FROM message WHERE state = 'PLANNED') AS coming GROUP BY campaign_offset"
        )
        if moment is None:
            return None
        return max(65.0, float(moment.total_seconds()))

    # Small things

    def _resume(self, name: str) -> None:
        with self.database.transaction() as connection:
            publish.resume(connection, name, actor="test", versions=self.house.versions)

    def _one(self, statement: str, **values: object) -> Any:
        (found,) = self._all(statement, **values) or [(None,)]
        return found[0]

    def _all(self, statement: str, **values: object) -> list[tuple[Any, ...]]:
        return self.house.query(statement, **values)
