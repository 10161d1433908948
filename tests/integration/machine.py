"""Everything at once, one step at a time: the real services on a real PostgreSQL, in an order that nobody thought of.

Two senders go from step to step, and between any two somebody unsubscribes, a clock moves, an event comes in, a worker
dies, the provider does what providers do. The oracle is small and outside of the program: what the provider took, and
who had left when a final check began. It and the invariants are asked after every step; at the end everything runs on
until nothing is left to do, and every message must have ended.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import redis
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from sqlalchemy import text

from dripwell.core.campaign import Lane
from dripwell.core.errors import RefusedError
from dripwell.core.states import Reason
from dripwell.services import held, leave, publish, send
from dripwell.storage import clock, enrollments, invariants, outcomes
from tests.integration.misbehaving import ANSWERS, PATIENCE
from tests.integration.senders import CAMPAIGNS, PEOPLE, Senders, Steps

SPREAD = 2_700.0
"""Emails of one window are spread over so many seconds; who waits for the last of them sees few."""
FIRST_WORDS = '# First\n\nHello {{{{ first_name or "there" }}}}, in words number {number}.\n'
TAKES_TIME = ("V2 nothing stuck", "V3 nothing due and forgotten")
"""Broken whenever the clock jumps, until the passes that are due have run: asked at the end."""


KINDS = ("processed", "processed", "delivered", "deferred", "bounced", "complained", "unsubscribed")
CHORES = ("pause", "resume", "reword", "lose Redis")
WHICH = st.integers(0, 1)
WHOM = st.integers(0, PEOPLE - 1)
STEPS = st.lists(st.tuples(WHICH, st.sampled_from(ANSWERS)), max_size=4)
"""What senders do before something else happens."""


class Sending(Senders):
    """Everything that can happen, and what must hold whatever does."""

    told = True

    # The beginning

    @initialize(
        one_host=st.booleans(),
        resend=st.booleans(),
        told=st.booleans(),
        people=st.integers(2, 6),
        max_batch=st.sampled_from((2, 1, 3, 1000)),
    )
    def begin(self, one_host: bool, resend: bool, told: bool, people: int, max_batch: int) -> None:
        """`told`: in the end the log is silent, and every event arrives, late; else there is the log alone."""
        self.provider.capabilities = replace(self.provider.capabilities, max_batch=max_batch)
        self.one_host, self.told = one_host, told
        self.patience = replace(PATIENCE, resend=resend)
        self.workers = [self._new_worker(0), self._new_worker(1)]
        for _ in range(people):
            self._join("pair")
        self.house.plan()

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
        kind=st.sampled_from(KINDS),
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

    @rule(after=STEPS, seconds=st.sampled_from((1, 8, 20, 35, 65, 65, 95, 700, 4000)), settled=st.booleans())
    def time_passes(self, after: Steps, seconds: float, settled: bool) -> None:
        self._senders_go_on(after)
        self._time_passes(seconds)
        if settled:
            self._settle()

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

    @rule(after=STEPS, name=st.sampled_from(CAMPAIGNS), what=st.sampled_from(CHORES))
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
            self.move_out()

    def _come_to_rest(self) -> None:
        """The world behaves from now on, nobody helps, and everything must come to its end."""
        self.workers = [self._new_worker(0), self._new_worker(1)]
        self.provider.logs_answer = not self.told
        for name in CAMPAIGNS:
            if self._one("SELECT state FROM campaign WHERE name = :name", name=name) == "paused":
                self._resume(name)
        self._until_quiet()
        if self.told:
            # Days later than anybody waits for it; whatever was concluded meanwhile, the record follows (T13).
            for _, mailing in self.provider.accepted:
                self.house.hear(*self.house.events("processed", mailing))
            self._until_quiet()
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

    def _until_quiet(self) -> None:
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
                return
