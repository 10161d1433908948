"""Everything at once, one step at a time: the real services on a real PostgreSQL, in an order that nobody thought of.

Two senders go from step to step, and between any two somebody unsubscribes, a clock moves, an event comes in, a worker
dies, the provider does what providers do. The oracle is small and outside of the program: what the provider took, and
who had left when a final check began. It and the invariants are asked after every step; at the end everything runs on
until nothing is left to do, and every message must have ended.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, ClassVar
from uuid import UUID

import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import text

from dripwell.core.campaign import Lane
from dripwell.core.errors import RefusedError
from dripwell.core.states import Reason
from dripwell.delivery.provider import Accepted, LogAnswer, Mailing, NotSent, Outcome, Refused, Unknown
from dripwell.services import held, leave, publish, resolve, send, settle
from dripwell.services.send import Batch, Letters, Sender
from dripwell.services.settle import Patience
from dripwell.storage import clock, enrollments, invariants, outcomes
from dripwell.storage.batches import Owner
from dripwell.storage.database import Database
from tests.integration.scripted import TOPIC, House

CAMPAIGNS = ("pair", "other")
PATIENCE = Patience(grace=60.0, grace_service=60.0, round_gap=30.0, window=3600.0, resend=True, channel=False)
LAG = timedelta(seconds=5)
"""So much later than it was accepted, a message is in the provider's log (A2)."""
SPREAD = 2_700.0
"""Emails of one window are spread over so many seconds; who waits for the last of them sees few."""
PEOPLE = 12
FIRST_WORDS = '# First\n\nHello {{{{ first_name or "there" }}}}, in words number {number}.\n'
TAKES_TIME = ("V2 nothing stuck", "V3 nothing due and forgotten")
"""Broken whenever the clock jumps, until the passes that are due have run: asked at the end."""

ANSWERS = (
    *["accepted"] * 6,
    *["accepted, the answer is lost"] * 3,
    *["accepted, but 500"] * 2,
    *["no answer, accepted later"] * 2,
    *["500"] * 2,
    "429",
    "429, and says until when",
    "400 names a row",
    "400 names nobody",
    "413",
    "401",
    "no connection",
)


class Misbehaving:
    """A provider with a ledger, whose next answer somebody else decides. It keeps A1 (whole or not), A2 and A3."""

    def __init__(self, wall: Callable[[], datetime], like: Any) -> None:
        self.name, self.capabilities = like.name, like.capabilities
        self.wall = wall
        self.answer = "accepted"
        self.logs_answer = True
        self.accepted: list[tuple[datetime, Mailing]] = []
        self.late: list[tuple[datetime, Mailing]] = []  # until when each may still be accepted

    def call(self, mailing: Mailing) -> Outcome:
        """One attempt; what comes after it is accepted, unless somebody says otherwise again."""
        answer, self.answer = self.answer, "accepted"
        if answer.startswith("accepted"):
            self.accepted.append((self.wall(), mailing))
        match answer:
            case "accepted":
                return Accepted(f"x{len(self.accepted)}")
            case "accepted, the answer is lost":
                return Unknown("timeout")
            case "accepted, but 500" | "500":
                return Unknown("500", 500)
            case "no answer, accepted later":
                self.late.append((self.wall() + timedelta(seconds=PATIENCE.grace), mailing))
                return Unknown("timeout")
            case "429":
                return NotSent("429", 429, rate_limited=True)
            case "429, and says until when":
                return NotSent("429", 429, timedelta(seconds=30), rate_limited=True)
            case "400 names a row":
                return Refused("bad address", 400, row=len(mailing.envelopes) - 1)
            case "400 names nobody":
                return Refused("bad content", 400)
            case "413":
                return Refused("too large", 413, too_large=True)
            case "401":
                return NotSent("key revoked", 401, account=True)
        assert answer == "no connection"
        return NotSent("no connection")

    def find(self, address: str, message: UUID, since: datetime) -> LogAnswer:
        """Look into the ledger, unless the log is away."""
        seen = [mailing for at, mailing in self.accepted if since <= at <= self.wall() - LAG]
        found = any(envelope.message == message for mailing in seen for envelope in mailing.envelopes)
        return LogAnswer(self.logs_answer, found and self.logs_answer)

    def close(self) -> None:
        """Nothing to drop."""

    def may_have(self, message: UUID) -> bool:
        """Whether this was accepted, or may be yet."""
        mailings = [mailing for _, mailing in (*self.accepted, *self.late)]
        return any(envelope.message == message for mailing in mailings for envelope in mailing.envelopes)

    def got(self) -> list[UUID]:
        """Every copy of a message that somebody got."""
        return [envelope.message for _, mailing in self.accepted for envelope in mailing.envelopes]


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


WHICH = st.integers(0, 1)
WHOM = st.integers(0, PEOPLE - 1)
Steps = list[tuple[int, str]]
STEPS = st.lists(st.tuples(WHICH, st.sampled_from(ANSWERS)), max_size=4)
"""What senders do before something else happens: which of the two goes one step on, and what the provider would say."""


# When a pause that is under a minute ends: of a message, or of the lane.
_SOON = """
SELECT extract(epoch FROM min(at) - wall())
  FROM (SELECT retry_at AS at FROM message WHERE state = 'PLANNED'
         UNION ALL SELECT breaker_until FROM lane_state WHERE lane = 'drip' AND breaker = 'open') AS pauses
 WHERE at BETWEEN wall() AND wall() + interval '1 min'
"""


class Sending(RuleBasedStateMachine):
    """The program and its world. `new_house` makes a fresh one with CAMPAIGNS in it, `ends` gives it back."""

    new_house: ClassVar[Callable[[], House]]
    end_house: ClassVar[Callable[[House], None]]

    def __init__(self) -> None:
        super().__init__()
        self.house = type(self).new_house()
        self.database = self.house.database
        self.provider = self.provide()
        self.pids = 0
        self.workers = []
        self.people: list[tuple[int, str]] = []
        self.left: set[tuple[str, int]] = set()  # (address, campaign) that no later final check may let through
        with self.database.transaction() as connection:
            rows = connection.execute(text("SELECT name, id FROM campaign WHERE kind = 'drip'"))
            self.campaigns = {row.name: row.id for row in rows}

    # What a mutant changes

    def provide(self) -> Misbehaving:
        """The provider."""
        return Misbehaving(lambda: self.house.wall, self.house.provider)

    def final_check(self, sender: Sender, batch: Batch, letters: Letters) -> Mailing | None:
        """Step 7."""
        return send.final_check(sender, batch, letters)

    # The beginning

    @initialize(
        one_host=st.booleans(),
        resend=st.booleans(),
        told=st.booleans(),
        people=st.integers(2, 6),
        max_batch=st.sampled_from((2, 1, 3, 1000)),
    )
    def begin(self, one_host: bool, resend: bool, told: bool, people: int, max_batch: int) -> None:
        """`told`: in the end every event arrives; else the provider's log is all there is."""
        self.provider.capabilities = replace(self.provider.capabilities, max_batch=max_batch)
        self.one_host, self.told = one_host, told
        self.patience = replace(PATIENCE, resend=resend)
        self.workers = [self._new_worker(0), self._new_worker(1)]
        for _ in range(people):
            self._join("pair")
        self.house.plan()

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

    # People

    @precondition(lambda self: len(self.people) < PEOPLE)
    @rule(after=STEPS, campaign=st.sampled_from(CAMPAIGNS), planned=st.booleans())
    def somebody_joins(self, after: Steps, campaign: str, planned: bool) -> None:
        self._senders_go_on(after)
        self._join(campaign)
        if planned:
            self.house.plan()

    @rule(after=STEPS, who=WHOM, campaign=st.sampled_from(CAMPAIGNS))
    def joins_another_series(self, after: Steps, who: int, campaign: str) -> None:
        self._senders_go_on(after)
        self._enroll(who % len(self.people), campaign)

    @rule(after=STEPS, who=WHOM, under_way=st.booleans())
    def unsubscribes(self, after: Steps, who: int, under_way: bool) -> None:
        """Often somebody who is in a sender's hands just now."""
        self._senders_go_on(after)
        person, address = self._somebody(who, under_way)
        with self.database.transaction() as connection:
            leave.suppress(
                connection,
                subscriber_id=person,
                scope="marketing",
                reason="unsubscribed",
                source=leave.PAGE,
                evidence="a test",
                times=clock.read(connection),
            )
        self._has_left(address)

    @rule(after=STEPS, who=WHOM)
    def takes_it_back(self, after: Steps, who: int) -> None:
        self._senders_go_on(after)
        person, address = self._somebody(who, False)
        with self.database.transaction() as connection:
            undone = leave.undo(connection, subscriber_id=person, wording="Undo", times=clock.read(connection))
        if undone:
            self._is_back(address)

    @rule(after=STEPS, who=WHOM, under_way=st.booleans())
    def reaches_the_goal(self, after: Steps, who: int, under_way: bool) -> None:
        self._senders_go_on(after)
        person, address = self._somebody(who, under_way)
        with self.database.transaction() as connection:
            rows = enrollments.under_way(connection, person)
            ids = [row.id for row in rows]
            times = clock.read(connection)
            leave.end(connection, enrollment_ids=ids, reason=Reason.GOAL, times=times, actor="test")
            ended = connection.execute(text("SELECT campaign_id FROM enrollment WHERE id = ANY(:ids)"), {"ids": ids})
            over = ended.scalars().all()
        self.left |= {(address, campaign) for campaign in over}

    def _somebody(self, who: int, under_way: bool) -> tuple[int, str]:
        if under_way:
            batches = [worker.batch for worker in self.workers if worker.batch is not None]
            busy = sorted({(a.subscriber_id, a.address) for batch in batches for a in batch.addressees})
            if busy:
                return busy[who % len(busy)]
        return self.people[who % len(self.people)]

    def _has_left(self, address: str) -> None:
        self.left |= {(address, campaign) for campaign in self.campaigns.values()}

    def _is_back(self, address: str) -> None:
        # What ended stays ended, but the ledger says so no more: only the enrollment does.
        with self.database.transaction() as connection:
            ended = connection.execute(
                text(
                    "SELECT enrollment.campaign_id FROM enrollment JOIN subscriber ON subscriber.id = subscriber_id"
                    " WHERE address = :address AND enrollment.state IN ('exited', 'finished')"
                ),
                {"address": address},
            )
            over = set(ended.scalars().all())
        self.left -= {(address, campaign) for campaign in self.campaigns.values() if campaign not in over}

    # Passes that anybody may run at any time

    @rule(after=STEPS)
    def plan(self, after: Steps) -> None:
        self._senders_go_on(after)
        self.house.plan()

    @rule(after=STEPS)
    def settle(self, after: Steps) -> None:
        self._senders_go_on(after)
        self._settle()

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

    @rule(steps=st.lists(st.tuples(WHICH, st.sampled_from(ANSWERS)), min_size=1, max_size=8))
    def senders_go_on(self, steps: Steps) -> None:
        self._senders_go_on(steps)

    @rule(after=STEPS, which=WHICH, answer=st.sampled_from(ANSWERS))
    def makes_a_pass(self, after: Steps, which: int, answer: str) -> None:
        """To the end of what is in its hands, and through two batches more, the program's own way."""
        self._senders_go_on(after)
        while self.workers[which].at != "idle":
            self._step(which, "accepted")
        self.provider.answer = answer
        left = iter((False, False))
        self.house.plan()
        send.send(self._sender(self.workers[which]), Lane.DRIP, out_of_time=lambda: next(left, True))
        self.provider.answer = "accepted"

    @rule(after=STEPS, which=WHICH)
    def dies(self, after: Steps, which: int) -> None:
        """Whatever it had in its hands; another process takes its place."""
        self._senders_go_on(after)
        self.workers[which] = self._new_worker(which)

    def _sender(self, worker: Worker) -> Sender:
        return self.house.sender(owner=worker.owner, provider=self.provider)

    def _senders_go_on(self, steps: Steps) -> None:
        for which, answer in steps:
            self._step(which, answer)

    def _step(self, which: int, answer: str) -> None:
        worker = self.workers[which]
        step = {
            "idle": self._claim,
            "claimed": self._mark,
            "marked": self._check,
            "checked": partial(self._call, answer),
            "answered": self._record,
        }[worker.at]
        goes_on = step(worker, self._sender(worker))
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
            assert worker.stood > send.START_BUDGET
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

    # The provider, and what it tells

    @precondition(lambda self: self.provider.late)
    @rule(after=STEPS, which=st.integers(0, 9))
    def accepts_late(self, after: Steps, which: int) -> None:
        self._senders_go_on(after)
        _, mailing = self.provider.late.pop(which % len(self.provider.late))
        self.provider.accepted.append((self.house.wall, mailing))

    @precondition(lambda self: self.provider.accepted)
    @rule(
        after=STEPS,
        which=st.integers(0, 9),
        kind=st.sampled_from(("processed", "processed", "delivered", "deferred", "bounced", "complained", "unsubscribed")),
        whom=st.integers(0, 9),
        copies=st.integers(1, 2),
    )
    def tells(self, after: Steps, which: int, kind: str, whom: int, copies: int) -> None:
        """An event about one person, or about everybody in the call backward; some come twice."""
        self._senders_go_on(after)
        _, mailing = self.provider.accepted[which % len(self.provider.accepted)]
        told = self.house.events(kind, mailing, hard=kind == "bounced")[::-1]
        bad = kind in ("bounced", "complained", "unsubscribed")
        if bad or whom < 5:
            told = [told[whom % len(told)]]
        self.house.hear(*(told * copies))
        if bad:
            for event in told:
                assert event.address is not None
                self._has_left(event.address)

    @rule(after=STEPS)
    def loses_its_log_or_finds_it(self, after: Steps) -> None:
        self._senders_go_on(after)
        self.provider.logs_answer = not self.provider.logs_answer

    # Time, operators, machines

    @rule(after=STEPS, seconds=st.sampled_from((1, 8, 20, 35, 65, 65, 95, 700, 4000)))
    def time_passes(self, after: Steps, seconds: float) -> None:
        self._senders_go_on(after)
        self._time_passes(seconds)

    def _time_passes(self, seconds: float) -> None:
        """For both clocks. Nothing is accepted later than G after its call (A3)."""
        self.house.later(seconds=seconds)
        self.provider.late = [(until, mailing) for until, mailing in self.provider.late if until > self.house.wall]
        for worker in self.workers:
            worker.stood += seconds

    @rule(after=STEPS, campaign_clock=st.booleans())
    def it_is_time_for_something(self, after: Steps, campaign_clock: bool) -> None:
        """One clock or both move to when the next email is due."""
        self._senders_go_on(after)
        wait = self._seconds_until_something_is_due()
        if wait is None:
            return
        if not campaign_clock:
            return self._time_passes(wait)
        with self.database.transaction() as connection:
            clock.forward(connection, clock.read(connection).now + timedelta(seconds=wait))

    @rule(after=STEPS, name=st.sampled_from(CAMPAIGNS), what=st.sampled_from(("pause", "resume", "reword", "lose Redis")))
    def somebody_keeps_house(self, after: Steps, name: str, what: str) -> None:
        self._senders_go_on(after)
        running = self._one("SELECT state FROM campaign WHERE name = :name", name=name) == "running"
        if what == "lose Redis":
            with redis.Redis.from_url(self.house._redis_url) as client:
                client.flushdb()
        elif what == "resume" and not running:
            self._resume(name)
        elif what == "pause" and running:
            with self.database.transaction() as connection:
                publish.pause(connection, name, actor="test")
        elif what == "reword" and running:
            # Versions are kept from course to course, so each has the same words in all of them.
            number = int(self._one("SELECT count(*) FROM campaign_version"))
            if number < 5:
                self.house.publish("pair", first=FIRST_WORDS.format(number=number))

    @rule(after=STEPS, skip=st.booleans())
    def somebody_decides_about_held_ones(self, after: Steps, skip: bool) -> None:
        """They release what the provider does not have: whoever releases more takes the risk of a copy (G1)."""
        self._senders_go_on(after)
        with self.database.transaction() as connection:
            rows = outcomes.held(connection)
            ids = [row.id for row in rows]
        public = dict(self._all("SELECT id, public_id FROM message WHERE id = ANY(:ids)", ids=ids))
        for one in ids:
            decide = held.skip if skip or self.provider.may_have(public[one]) else held.release
            try:
                with self.database.transaction() as connection:
                    decide(connection, [one], actor="test", reason="a test")
            except RefusedError:
                continue  # another email for the same person is in work

    # What must hold

    @invariant()
    def holds(self) -> None:
        with self.database.transaction() as connection:
            broken = invariants.broken(connection)
        for name in TAKES_TIME:
            broken.pop(name, None)
        assert broken == {}, f"invariants: {broken}"
        over = self._all(
            "SELECT message.id FROM message JOIN batch ON batch.id = batch_id"
            " WHERE message.state = 'IN_BATCH' AND batch.state = 'DONE'"
        )
        assert over == [], f"messages wait in a batch that is over: {over}"
        got = self.provider.got()
        assert len(got) == len(set(got)), "somebody got an email twice"
        assert self._accepted() <= set(got), "the record says accepted, and the provider never took it"

    def _accepted(self) -> set[UUID]:
        return {row[0] for row in self._all("SELECT public_id FROM message WHERE state = 'ACCEPTED'")}

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None and self.workers:  # else there is something wrong already, and it is told
                self._come_to_rest()
        finally:
            type(self).end_house(self.house)

    def _come_to_rest(self) -> None:
        """The world behaves from now on, nobody helps, and everything must come to its end."""
        self.workers = [self._new_worker(0), self._new_worker(1)]
        self.provider.logs_answer = True
        for name in CAMPAIGNS:
            if self._one("SELECT state FROM campaign WHERE name = :name", name=name) == "paused":
                self._resume(name)
        for _, mailing in self.provider.accepted if self.told else ():
            self.house.hear(*self.house.events("processed", mailing))
        for turn in range(120):
            self.house.plan()
            send.send(self._sender(self.workers[0]), Lane.DRIP, out_of_time=lambda: False)
            self._settle()
            due = self._seconds_until_something_is_due()
            if self._one("SELECT count(*) FROM batch WHERE state <> 'DONE'"):
                self._time_passes((65, 35, 35, 4000)[turn % 4])
            elif due is not None:
                self._time_passes(due + SPREAD)
            else:
                break
        self.holds()
        with self.database.transaction() as connection:
            assert (broken := invariants.broken(connection)) == {}, f"invariants: {broken}"
        open_still = self._all(
            "SELECT message.id, message.state, message.step_key, batch.state FROM message"
            " LEFT JOIN batch ON batch.id = batch_id WHERE message.state IN ('PLANNED', 'IN_BATCH')"
        )
        assert open_still == [], f"messages that never end: {open_still}"
        under_way = self._all(
            "SELECT id, state, waits_for, next_due_at FROM enrollment AS e WHERE state IN ('waiting', 'mailing')"
            " AND NOT EXISTS (SELECT FROM message WHERE enrollment_id = e.id AND state = 'HELD')"
        )
        assert under_way == [], f"people who never reach the end of their series: {under_way}"
        lost = set(self.provider.got()) - self._accepted()
        if lost:
            rows = self._all("SELECT state, reason FROM message WHERE public_id = ANY(:ids)", ids=list(lost))
            assert not self.told, f"the provider took what the record does not call accepted: {rows}"
            assert {row[0] for row in rows} <= {"HELD", "SKIPPED"}, rows

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


__all__ = ["CAMPAIGNS", "TOPIC", "Database", "House", "Misbehaving", "Sending"]
