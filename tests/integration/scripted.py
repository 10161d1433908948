"""A provider that answers from a list and keeps its own ledger, and a house around it with a clock that tests move.

The judge reads the provider's ledger, never our tables alone: what it took is what people got.
"""

from __future__ import annotations

import itertools
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from uuid import UUID

import redis
from sqlalchemy import text

from dripwell.content.files import read_sources
from dripwell.content.load import load, load_site
from dripwell.content.render import step_links
from dripwell.core.campaign import Lane
from dripwell.core.tokens import Keys
from dripwell.delivery.provider import (
    Accepted,
    Capabilities,
    LogAnswer,
    Mailing,
    Outcome,
    ProviderEvent,
    Unknown,
)
from dripwell.services import ingest, plan, publish, send, settle
from dripwell.services.send import Sender
from dripwell.services.settle import Patience
from dripwell.services.versions import Versions
from dripwell.storage import campaigns, enrollments, invariants, limiter
from dripwell.storage.batches import Owner
from dripwell.storage.database import Connection, Database
from dripwell.storage.fast import Fast
from dripwell.storage.journal import Journal
from dripwell.storage.limiter import Limiter
from tests.integration import rows

ROOT = Path(__file__).parents[2]
TOPIC = "seven-part-series"
PATIENCE = Patience(grace=60.0, grace_service=60.0, round_gap=30.0, window=3600.0, resend=True, channel=False)
"""Two rounds of asking a minute after the call; held an hour after it."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The provider took the batch, and its answer never came back."""

    outcome: Unknown = field(default=Unknown("timeout"))


class ScriptedProvider:
    """Answers in order from `answers`, then Accepted for ever. `taken` is its ledger: (batch, message) as accepted."""

    def __init__(self, answers: Iterable[Outcome | Lost] = (), *, max_batch: int = 1000, logs: bool = True) -> None:
        self.name = "scripted"
        self.capabilities = Capabilities(max_batch=max_batch, events=True, logs=logs)
        self.answers = list(answers)
        self.mailings: list[Mailing] = []
        self.taken: list[tuple[int, UUID]] = []
        self.logs_answer = True
        self.asked = 0
        self.during: Callable[[Mailing], None] = lambda mailing: None
        self._lock = threading.Lock()
        self._ids = itertools.count(1)

    def call(self, mailing: Mailing) -> Outcome:
        """One attempt. Whatever `during` does happens while the call is under way."""
        with self._lock:
            self.mailings.append(mailing)
            answer = self.answers.pop(0) if self.answers else Accepted(f"x{next(self._ids)}")
            if isinstance(answer, Accepted | Lost):
                self.taken += [(mailing.batch, envelope.message) for envelope in mailing.envelopes]
        self.during(mailing)
        return answer.outcome if isinstance(answer, Lost) else answer

    def find(self, address: str, message: UUID, since: datetime) -> LogAnswer:
        """Look into the ledger, unless the log is away."""
        self.asked += 1
        if not self.logs_answer:
            return LogAnswer(answered=False)
        batches = frozenset(batch for batch, taken in self.taken if taken == message)
        return LogAnswer(answered=True, found=bool(batches), batches=batches)

    def close(self) -> None:
        """Nothing to drop."""

    def got(self) -> Counter[UUID]:
        """How many copies of each message people got."""
        return Counter(message for _, message in self.taken)

    def addresses(self) -> list[str]:
        """Everybody that any call named, in the order of the calls."""
        return [envelope.to for mailing in self.mailings for envelope in mailing.envelopes]


CAMPAIGN = """\
type: drip
name: {title}
description: A short series for tests.
topic: {topic}
trigger: {{manual: true}}
steps:
  - email: 1-first
    subject: The first part
    preheader: What this is about.
  - wait: {wait}
  - email: 2-second
    subject: The second part
    preheader: What comes next.
"""


@cache
def _site_and_theme() -> dict[str, str]:
    found = read_sources(ROOT, "seven-benefits")
    return {path: content for path, content in found.items() if not path.startswith("campaigns/")}


class House:
    """Everything a pass needs, on one database. Wall time stands still until a test moves it; campaign time with it."""

    def __init__(self, database: Database, redis_url: str, answers: Iterable[Outcome | Lost] = ()) -> None:
        with redis.Redis.from_url(redis_url) as client:
            client.flushdb()
        self.database = database
        self._redis_url = redis_url
        self.fast = Fast(redis_url)
        self.limiter = Limiter(redis_url, ceiling=1e9)
        self._scratch = mkdtemp()
        self.journal = Journal(Path(self._scratch), host="host")
        self.provider = ScriptedProvider(answers)
        self.keys = Keys(links=(b"a key for links",), unsubscribe=(b"a key for leaving",))
        self.versions = Versions()
        self.owner = Owner("host", "boot", 1)
        self.wall = rows.START
        self._ids = itertools.count(1)
        self._base = _site_and_theme()
        site = load_site(self._base)[0]
        assert site is not None
        self.site = site
        self._set_clock()
        with database.transaction() as connection:
            self.fast.rebuild(connection)

    def close(self) -> None:
        """Give everything back."""
        self.fast.close()
        self.limiter.close()
        self.journal.close()
        shutil.rmtree(self._scratch)

    # Time

    def later(self, **span: float) -> None:
        """Let time pass, for the shared rate as well, which lives by Redis's own clock."""
        self.wall += timedelta(**span)
        self._set_clock()
        with redis.Redis.from_url(self._redis_url) as client:
            client.delete(limiter.KEY)

    def until(self, moment: datetime) -> None:
        """Let time pass until then."""
        self.wall = moment
        self._set_clock()

    def _set_clock(self) -> None:
        name = self.database.engine.url.database
        with self.database.transaction() as connection:
            connection.execute(text(f"ALTER DATABASE {name} SET dripwell.wall = '{self.wall.isoformat()}'"))
        self.database.engine.dispose()  # the setting is read when a connection opens

    # People and campaigns

    def new_id(self) -> UUID:
        """The next id."""
        return rows.uuid_of("id", next(self._ids))

    def publish(self, name: str = "pair", *, wait: str = "2 days", topic: str = TOPIC, first: str | None = None) -> int:
        """Store a running campaign of two emails, or its next version; returns its id."""
        sources = self._base | {
            f"campaigns/{name}/campaign.yaml": CAMPAIGN.format(title=name.title(), topic=topic, wait=wait),
            f"campaigns/{name}/1-first.md": first
            or '# First\n\nHello {{ first_name or "there" }}.\n\n[Read more](https://kcla.example/read)\n',
            f"campaigns/{name}/2-second.md": "# Second\n\nHello again, {{ first_name or 'friend' }}.\n",
        }
        loaded = load(sources, name)
        assert loaded.site is not None
        assert loaded.campaign is not None, loaded.problems
        with self.database.transaction() as connection:
            row = campaigns.add(
                connection, public_id=rows.uuid_of(name), name=name, kind="drip", state="running", topic=topic
            )
            number = 1 if row.version_id is None else campaigns.version(connection, row.version_id).number + 1
            structure, content = publish.hashes(sources, loaded.campaign)
            campaigns.add_version(
                connection,
                campaign_id=row.id,
                number=number,
                sources=sources,
                structure_hash=structure,
                content_hash=content,
                applied_by="test",
                links={e.key: step_links(sources, loaded.site, loaded.campaign, e.key) for e in loaded.campaign.emails},
                topic=topic,
            )
        return row.id

    def publish_service(self) -> None:
        """Store the confirmation, booking and notice emails."""
        with self.database.transaction() as connection:
            assert load_site(self._base)[0] is not None
            publish.apply_service(connection, self._base, new_id=self.new_id)

    def person(self, address: str = "maria@example.com", **changes: object) -> int:
        """Somebody who agreed to the topic."""
        with self.database.transaction() as connection:
            return rows.subscriber(connection, address, **changes)  # type: ignore[arg-type]

    def people(self, count: int) -> list[int]:
        """So many of them: p0@example.com, p1@example.com …"""
        return [self.person(f"p{number}@example.com") for number in range(count)]

    def enroll(self, campaign_id: int, *people: int) -> None:
        """Put them into the campaign, now."""
        with self.database.transaction() as connection:
            version_id = campaigns.by_id(connection, campaign_id).version_id
            assert version_id is not None
            enrollments.add(
                connection, subscriber_ids=people, campaign_id=campaign_id, version_id=version_id, now=self.wall
            )

    # Passes

    def sender(self, failpoint: Callable[[str], None] = lambda name: None, **changes: object) -> Sender:
        """What a send pass needs."""
        made = Sender(
            database=self.database,
            fast=self.fast,
            provider=self.provider,
            versions=self.versions,
            keys=self.keys,
            owner=self.owner,
            new_id=self.new_id,
            failpoint=failpoint,
            replay=lambda: 0,
            journal=self.journal,
            doubt=lambda: None,
            site=self.site,
            limiter=self.limiter,
        )
        return replace(made, **changes)  # type: ignore[arg-type]

    def plan(self) -> int:
        """One pass of the planner."""
        return plan.plan(self.database, self.versions, out_of_time=lambda: False)

    def send(self, lane: Lane = Lane.DRIP, batches: int | None = None) -> int:
        """One pass of a sender, of at most so many batches."""
        left = itertools.count()
        return send.send(self.sender(), lane, out_of_time=lambda: batches is not None and next(left) >= batches)

    def settle(self, patience: Patience = PATIENCE, *, alive: bool = False) -> int:
        """One pass of the janitor, to whom every owner is gone unless `alive`."""
        return settle.settle(
            self.database,
            self.provider,
            self.fast,
            patience,
            owner=self.owner,
            is_alive=lambda pid: alive,
            out_of_time=lambda: False,
        )

    def hear(self, *arrived: ProviderEvent) -> None:
        """These events come in, in one webhook."""
        with self.database.transaction() as connection:
            ingest.take_in(connection, list(arrived))

    def events(self, kind: str = "processed", mailing: Mailing | None = None, **changes: object) -> list[ProviderEvent]:
        """What the provider would tell about each person of a mailing: the last one unless given."""
        mailing = mailing or self.provider.mailings[-1]
        return [
            replace(
                ProviderEvent(
                    kind=kind,
                    at=self.wall,
                    dedupe=f"{kind}/{envelope.message}/{mailing.batch}",
                    message=envelope.message,
                    batch=mailing.batch,
                    address=envelope.to,
                ),
                **changes,  # type: ignore[arg-type]
            )
            for envelope in mailing.envelopes
        ]

    # Looking

    def query(self, statement: str, **values: object) -> list[tuple[object, ...]]:
        """The rows of a query."""
        with self.database.transaction() as connection:
            return [tuple(row) for row in connection.execute(text(statement), values)]

    def messages(self) -> dict[tuple[str, str], tuple[str, str | None]]:
        """(address, step key) -> (state, reason)."""
        found = self.query(
            "SELECT s.address, m.step_key, m.state, m.reason FROM message m JOIN subscriber s ON s.id = m.subscriber_id"
        )
        return {(str(address), str(key)): (str(state), reason) for address, key, state, reason in found}  # type: ignore[misc]

    def states(self) -> list[str]:
        """The states of all messages, sorted."""
        return [str(state) for (state,) in self.query("SELECT state FROM message ORDER BY state")]

    def next_due(self) -> datetime | None:
        """When the next enrollment is due."""
        ((found,),) = self.query("SELECT min(next_due_at) FROM enrollment WHERE state = 'waiting'")
        return found  # type: ignore[return-value]

    def batches(self) -> list[tuple[object, ...]]:
        """(state, outcome) of every batch, oldest first."""
        return self.query("SELECT state, outcome FROM batch ORDER BY id")

    def enrolled(self) -> list[tuple[object, ...]]:
        """(state, ended_reason, cursor_key, waits_for) of every enrollment, oldest first."""
        return self.query("SELECT state, ended_reason, cursor_key, waits_for FROM enrollment ORDER BY id")

    def log(self) -> list[tuple[object, ...]]:
        """(transition, reason) of every logged change, oldest first."""
        return self.query("SELECT transition, reason FROM message_log ORDER BY id")

    def check(self) -> None:
        """Every invariant holds, and what we say was accepted is what the provider took: each message once."""
        with self.database.transaction() as connection:
            assert invariants.broken(connection) == {}
            ours = set(accepted(connection))
        got = self.provider.got()
        assert all(copies == 1 for copies in got.values()), "somebody got an email twice"
        assert ours == set(got), "the record and the provider's ledger differ"


def accepted(connection: Connection) -> Sequence[UUID]:
    """The public ids of every message we call ACCEPTED."""
    return connection.execute(text("SELECT public_id FROM message WHERE state = 'ACCEPTED'")).scalars().all()
