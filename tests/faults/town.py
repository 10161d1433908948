"""A town: many people who live out their histories in one database at once, between and inside the program's passes.

What a person does is drawn from the seed, their number and the turn alone, so that a history can be told again with
fewer people. The judge reads the provider's ledger and what people were told; our tables only give things their names.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import text

from dripwell import bootstrap
from dripwell.core.campaign import Lane
from dripwell.core.errors import UnavailableError
from dripwell.delivery.provider import Accepted, Mailing, Outcome, ProviderEvent, Unknown
from dripwell.services import plan, send, settle
from dripwell.services.sender import Batch, Sender
from dripwell.services.settle import Patience
from dripwell.storage import invariants
from dripwell.storage.batches import Owner
from dripwell.storage.database import Database
from tests.faults import consent, deeds
from tests.faults.consent import Belief, Moment, World
from tests.faults.doors import Answer, Doors, Trouble
from tests.faults.ground import AHEAD, BY_FORM, FORMS, REENTERED, TOPICS, WAVES, Ground
from tests.integration.scripted import Lost, ScriptedProvider

TURN = timedelta(hours=6)
SPREAD = timedelta(minutes=50)
HOME = ZoneInfo("America/Los_Angeles")
PATIENCE = Patience(grace=60.0, grace_service=60.0, round_gap=30.0, window=3 * 86400.0, resend=True, channel=False)
PACE = invariants.Pace(gap=timedelta(hours=1), emails=40, per=timedelta(days=7))
POINTS = ("after_claim", "after_journal", "after_mark", "after_final_check", "after_response", "after_record_commit")
OWN_TIME, IN_HAND = 0.3, 0.03
"""How likely a person acts in a turn, and at each point of a batch that holds them."""
Effect = Callable[[World, Moment], World]


class Killed(BaseException):
    """The process is no more."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One email as its person has it: the words of its links by door (k, p, u)."""

    campaign: str
    step: str
    topic: str
    words: dict[str, str]
    life: int
    mailing: Mailing
    message: UUID


@dataclass(slots=True)
class Person:
    """Somebody, what they have in their inbox, what the judge believes, and their history in words."""

    number: int
    letters: list[Letter] = field(default_factory=list)
    belief: Belief = field(default_factory=Belief)
    story: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        """As it is kept."""
        return f"person{self.number}@example.com"


class Wrong(AssertionError):
    """The program broke a promise to one person."""

    def __init__(self, number: int | None, what: str) -> None:
        super().__init__(what)
        self.number, self.what = number, what


class Post(ScriptedProvider):
    """The provider, which asks the judge about everything it takes."""

    def __init__(self, judge: Callable[[Mailing], None]) -> None:
        super().__init__()
        self._judge = judge

    def call(self, mailing: Mailing) -> Outcome:
        """One attempt."""
        if not self.answers or isinstance(self.answers[0], Accepted | Lost):
            self._judge(mailing)
        return super().call(mailing)


class Town(Ground):
    """One world with these people in it. `actions`: a person does no more than so many things."""

    def __init__(
        self,
        database: Database,
        redis_url: str,
        folder: Path,
        seed: int,
        people: Sequence[int],
        *,
        doors: type[Doors] = Doors,
        actions: int | None = None,
    ) -> None:
        super().__init__(database, redis_url, folder, Post(self._judge), doors)
        self.provider.during = lambda mailing: self._point("call")
        self.seed, self.actions = seed, actions
        self.people = {number: Person(number) for number in people}
        self.done_by: dict[int, int] = defaultdict(int)
        self.turn = 0
        self.resting = False
        self.acting = False
        self.pids = 1
        self.coming: list[tuple[int, list[ProviderEvent], list[tuple[int, Effect]]]] = []
        self.forms, self.ahead, self.home = FORMS, AHEAD, HOME
        self.series_of = {FORMS[form]: name for form, name in BY_FORM.items()}
        self.waves = 0
        self.batch: Batch | None = None
        self.checked: dict[str, frozenset[World]] = {}
        self.checked_at = Moment(0, self.wall, self.wall)
        self.counts: Counter[str] = Counter()

    # A turn

    def live(self, turns: int) -> None:
        """So many turns of everything at once, and then peace until nobody waits for anything."""
        for self.turn in range(turns):
            chance = self._chance("turn")
            for number in chance.sample(sorted(self.people), len(self.people)):
                self._maybe_act(number, "own time", OWN_TIME)
            self._staff(chance)
            self._events_come(chance)
            if chance.random() < 0.15:
                self.doors.lose_redis()
            self._passes(chance)
            self.later(TURN)
        self._rest(turns)

    def _chance(self, *what: object) -> Random:
        return Random("/".join(map(str, (self.seed, self.turn, *what))))  # it is to be repeated

    def may_do(self, number: int) -> bool:
        """Whether this history goes on; one more thing has been done then."""
        if self.resting or (self.actions is not None and self.done_by[number] >= self.actions):
            return False
        self.done_by[number] += 1
        return True

    def _maybe_act(self, number: int, where: str, how_likely: float) -> None:
        chance = self._chance(number, where)
        if self.acting or chance.random() >= how_likely or not self.may_do(number):
            return
        self.acting = True
        try:
            deeds.act(self, self.people[number], chance, where)
        finally:
            self.acting = False

    def _staff(self, chance: Random) -> None:
        if self.turn % 4 == 3 and self.waves < WAVES - len(TOPICS):
            self._wave()
        if chance.random() < 0.4:
            deeds.bring_in(self, chance)

    def _wave(self) -> None:
        """Staff put everybody who agreed into the next campaign: whoever is wrongly open to mail gets some."""
        name = f"wave-{self.waves}"
        self.waves += 1
        at = self.moment()
        assert self.doors.enroll(name, self.topic_of[name]) is Answer.DONE
        for person in self.people.values():
            free = replace(at, now=at.now + timedelta(days=999))  # a pause keeps the place
            if person.belief.certainly(
                lambda world, name=name, free=free: (
                    consent.against(replace(world, weekly=False), name, self.topic_of[name], free, None) is None
                )
            ):
                person.belief.due.add(name)

    def _events_come(self, chance: Random) -> None:
        now = [one for one in self.coming if one[0] <= self.turn]
        self.coming = [one for one in self.coming if one[0] > self.turn]
        chance.shuffle(now)
        for _, told, effects in now:
            self.break_something(self.trouble_of_people, chance, 0.08)
            answer = self.doors.hear(told)
            self.trouble_of_people.clear()
            at = self.moment()
            for number, change in effects:
                belief = self.people[number].belief
                belief.due.clear()
                each = lambda world, change=change, at=at: change(world, at)  # noqa: E731
                (belief.happened if answer is Answer.DONE else belief.may_have_happened)(each)
                self.tell(self.people[number], f"an event about them is heard: {answer.value}")
            if answer is not Answer.DONE:
                self.coming.append((self.turn + 1, told, effects))

    def tell(self, person: Person, what: str) -> None:
        """One more line of this person's history."""
        person.story.append(f"{self.order:>6}  turn {self.turn:>2} ({self.wall + AHEAD:%a %m-%d %H:%M})  {what}")

    def break_something(self, trouble: Trouble, chance: Random, how_likely: float, statements: int = 14) -> bool:
        if chance.random() >= how_likely:
            return False
        match chance.randrange(3):
            case 0:
                trouble.at_commit(1, kept=chance.random() < 0.6)
            case _:
                trouble.at_statement(chance.randint(1, statements))
        return True

    # Passes

    @contextmanager
    def _in_the_middle(self, chance: Random, where: str, statements: int) -> Iterator[None]:
        """Something breaks in this pass, or somebody acts between two of its statements, or neither."""
        trouble = self.trouble_of_passes
        if not self.resting and not self.break_something(trouble, chance, 0.06, statements) and chance.random() < 0.3:
            whom = chance.choice(sorted(self.people))
            trouble.at_statement(
                chance.randint(1, statements), lambda connection: self._maybe_act(whom, f"in {where}", 1.0)
            )
        try:
            yield
        except UnavailableError:
            self.counts["passes that broke off"] += 1
        finally:
            trouble.clear()

    def _passes(self, chance: Random) -> None:
        for number in range(1 if self.resting else 2):
            with self._in_the_middle(chance, "a planner's pass", 40):
                plan.plan(self.database, self.works.versions, out_of_time=lambda: False)
            for lane in (Lane.CONFIRM, Lane.DRIP):
                self._send(chance, lane)
            self._settle(chance)
            if number == 0:
                with self._in_the_middle(chance, "an erasing pass", 20):
                    self.doors.carry_on()
        with self._in_the_middle(chance, "a replay", 1):
            self.doors.replay()

    def _send(self, chance: Random, lane: Lane) -> None:
        for _ in range(60):
            self.pids += 1
            if not self.resting and chance.random() < 0.12:
                self.provider.answers = [chance.choice([Lost(), Lost(), Unknown("500", 500)])]
            dies_at = chance.choice(POINTS) if not self.resting and chance.random() < 0.05 else None
            sender = self._sender(dies_at)
            self.batch = None
            try:
                with self._in_the_middle(chance, "a sender's pass", 30):
                    self.batch = send.claim(sender, lane)
                    if self.batch is None:
                        break
                    send.carry_out(sender, self.batch)
            except Killed:
                self.counts["senders that died"] += 1
            finally:
                self.batch = None
                self.provider.answers = []

    def _sender(self, dies_at: str | None) -> Sender:
        def failpoint(name: str) -> None:
            if name == dies_at:
                raise Killed(name)
            self._point(name)

        return replace(
            bootstrap.sender(self.works),
            database=self.doors.senders_database(self.database),
            owner=Owner("host", "boot", self.pids),
            failpoint=failpoint,
            replay=self._final_check_begins,
        )

    def _point(self, name: str) -> None:
        if self.batch is not None and not self.resting:
            for addressee in self.batch.addressees:
                self._maybe_act(_number(addressee.address), f"at {name} of batch {self.batch.id}", IN_HAND)

    def _final_check_begins(self) -> int:
        assert self.batch is not None
        self.checked_at = self.moment()
        self.checked = {
            addressee.address: self.people[_number(addressee.address)].belief.worlds
            for addressee in self.batch.addressees
        }
        self.trouble_of_passes.holds_still = True  # a replay holds the spool, and somebody who acts may need it
        try:
            return self.doors.replay()
        finally:
            self.trouble_of_passes.holds_still = False

    def _settle(self, chance: Random) -> None:
        with self._in_the_middle(chance, "a settling pass", 30):
            settle.settle(
                self.database,
                self.provider,
                self.works.fast,
                PATIENCE,
                owner=Owner("host", "boot", 1),
                is_alive=lambda pid: False,
                out_of_time=lambda: False,
            )

    # The judge

    def _judge(self, mailing: Mailing) -> None:
        """Everything the provider takes: there must be a world in which it was right when its final check began."""
        assert self.batch is not None
        campaign = self.name_of[mailing.categories[0]]
        service = campaign not in self.topic_of
        for envelope in mailing.envelopes:
            person = self.people[_number(envelope.to)]
            topic = self._topic(campaign, mailing, dict(envelope.substitutions))
            worlds = self.checked[envelope.to]
            last = person.belief.last_mailed
            reasons = {
                world: consent.against_service(world)
                if service
                else consent.against(world, campaign, topic, self.checked_at, last)
                for world in worlds
            }
            self.counts["mails"] += 1
            words = _words(mailing, dict(envelope.substitutions), dict(envelope.headers))
            step = self.batch.step_key
            self.tell(person, f"<- {campaign}/{step} is accepted, batch {mailing.batch}")
            if None not in reasons.values():
                why = " or ".join(sorted(set(map(str, reasons.values()))))
                raise Wrong(person.number, f"{campaign}/{step} was mailed, and must not: {why}")
            life = min(world.lives for world, why in reasons.items() if why is None)
            person.letters.append(Letter(campaign, step, topic, words, life, mailing, envelope.message))
            if not service:
                if (campaign, step) in person.belief.got and campaign != REENTERED:
                    raise Wrong(person.number, f"{campaign}/{step} was mailed twice")
                person.belief.got.append((campaign, step))
                person.belief.last_mailed = self.wall + AHEAD

    def _topic(self, campaign: str, mailing: Mailing, values: dict[str, str]) -> str:
        if campaign in self.topic_of:
            return self.topic_of[campaign]
        said = " ".join([mailing.subject, mailing.text, *values.values()])
        return next((topic for topic, title in TOPICS.items() if title in said), "")

    # The end

    def _rest(self, turns: int) -> None:
        """Nothing breaks any more, and everybody gets what they wait for."""
        self.resting = True
        while self.coming:
            self.turn += 1
            self._events_come(self._chance("rest"))
        for _ in TOPICS:
            self._wave()
        for _ in range(150):
            self.turn += 1
            self._passes(self._chance("rest"))
            ((due, open_still),) = self.query(
                "SELECT (SELECT min(at) - wall() - campaign_offset FROM installation, ("
                " SELECT next_due_at AS at FROM enrollment WHERE state = 'waiting'"
                " UNION ALL SELECT due_at FROM message WHERE state = 'PLANNED') AS coming GROUP BY campaign_offset),"
                " (SELECT count(*) FROM batch WHERE state <> 'DONE')"
            )
            if due is None and not open_still:
                return
            self.later(max(due or TURN, timedelta(minutes=2)) + SPREAD if not open_still else timedelta(hours=2))
        raise Wrong(None, f"it does not come to rest: due {due}, open batches {open_still}")

    def verdict(self) -> None:
        """Nobody was lost, no unsubscribe was, and every sum adds up. Raises Wrong."""
        with self.database.transaction() as connection:
            broken = invariants.broken(connection, PACE)
        if broken:
            raise Wrong(None, f"invariants: {broken}")
        ours = {message for (message,) in self.query("SELECT public_id FROM message WHERE state = 'ACCEPTED'")}
        got = self.provider.got()
        if set(got) != ours or any(copies > 1 for copies in got.values()):
            raise Wrong(None, "the record and the provider's ledger differ")
        standing = set(
            self.query(
                "SELECT encode(addr_hash, 'hex'), scope FROM (SELECT DISTINCT ON (addr_hash, scope) * FROM suppression"
                " ORDER BY addr_hash, scope, seq DESC) AS newest WHERE action = 'suppress'"
            )
        )
        for person in self.people.values():
            mine = {scope for hashed, scope in standing if hashed == self.doors.hash_of(person.address).hex()}
            must = frozenset.intersection(
                *(frozenset(left.scope for left in world.left) for world in person.belief.worlds)
            )
            if must - mine:
                raise Wrong(person.number, f"the ledger has lost that they left: {sorted(must - mine)}")
            for campaign in sorted(person.belief.due):
                self._judge_due(person, campaign)

    def _judge_due(self, person: Person, campaign: str) -> None:
        steps = [step for name, step in person.belief.got if name == campaign]
        if steps == list(self.steps_of[campaign]):
            self.counts["series that were due and came whole"] += 1
            return
        found = self.query(
            "SELECT message.step_key, message.state, message.reason FROM message"
            " JOIN subscriber ON subscriber.id = subscriber_id JOIN campaign ON campaign.id = campaign_id"
            " WHERE address = :address AND campaign.name = :name ORDER BY message.id",
            address=person.address,
            name=campaign,
        )
        if any(reason == "poison" for _, _, reason in found):
            self.counts["given up as poison"] += 1
            return
        raise Wrong(person.number, f"{campaign} was due, and of it came {steps}: {found}")

    def query(self, statement: str, **values: object) -> list[tuple[Any, ...]]:
        """The rows of a query, of names and sums."""
        with self.admin.transaction() as connection:
            return [tuple(row) for row in connection.execute(text(statement), values)]


def _number(address: str) -> int:
    return int(address.lower().removeprefix("person").partition("@")[0])


def _words(mailing: Mailing, values: dict[str, str], headers: dict[str, str]) -> dict[str, str]:
    """The signed words of the links in one email: as its reader sees it, and in its headers."""
    said = mailing.text
    for slot, value in values.items():
        said = said.replace(slot, value)
    said += "\n" + "\n".join(headers.values())
    return dict(re.findall(r"/([kpu])/([A-Za-z0-9_-]{30,})", said))
