"""Whatever happens in whatever order, only a fresh opt-in lifts, and of scope `all` only an operator.

Real services on a real record; judged by a model that knows nothing but who said what, in a set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from dripwell.core.address import address_hash
from dripwell.core.errors import RefusedError
from dripwell.delivery.lists import LISTS, Done, Later, Listed, ListName, NotTaken, Page
from dripwell.delivery.provider import ProviderEvent
from dripwell.services import ingest, leave, sync
from dripwell.storage import clock, suppressions
from dripwell.storage.database import Connection, Database
from dripwell.storage.fast import Fast
from tests.integration import rows
from tests.integration.test_sync import ScriptedLists

KNOWN, STRANGER = "maria@example.com", "nobody@example.com"
PEOPLE = (KNOWN, STRANGER)
HASH = partial(address_hash, rows.PEPPER)
SCOPES = ("all", "marketing", "topic:seven-part-series", "campaign:seven-benefits")
SAID_BY_EVENT = {"complained": ("all", "complained"), "gone": ("all", "undeliverable"), "left": ("marketing", "left")}
ON_LIST = {"bounces": "all", "invalid_emails": "all", "spam_reports": "all", "unsubscribes": "marketing"}

person = st.sampled_from(PEOPLE)
steps = st.one_of(
    st.tuples(st.sampled_from(("page", "reply", "import", "staff")), person, st.sampled_from(SCOPES)),
    st.tuples(st.just("event"), person, st.sampled_from(("complained", "gone", "left"))),
    st.tuples(st.just("noise"), person, st.sampled_from(("delivered", "opened", "unknown", "deferred", "clicked"))),
    st.tuples(st.just("listed"), person, st.sampled_from(LISTS)),
    st.tuples(st.just("cleared"), person, st.sampled_from(LISTS)),
    st.tuples(st.just("sync"), person, st.just("")),
    st.tuples(st.just("confirmed"), person, st.just("")),
    st.tuples(st.just("operator"), person, st.just("")),
    st.tuples(st.just("follow"), person, st.just("")),
)


@dataclass
class Model:
    """What must stand: nothing is taken out of it but where this file says so."""

    stands: set[tuple[str, str]] = field(default_factory=set)
    complained: set[str] = field(default_factory=set)

    def suppress(self, address: str, scope: str, *, complaint: bool = False) -> None:
        self.stands.add((address, scope))
        if complaint:
            self.complained.add(address)

    def opt_in(self, address: str) -> None:
        self.stands -= {(address, "marketing"), (address, "topic:seven-part-series")}

    def operator(self, address: str) -> bool:
        """False: refused."""
        if (address, "all") not in self.stands:
            return True
        if address in self.complained:
            return False
        self.stands.remove((address, "all"))
        self.stands.add((address, "marketing"))
        return True


class Remembering(ScriptedLists):
    """A provider that takes off its lists whom it is told to, and remembers what it showed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[tuple[str, str]] = []

    def page(self, name: ListName, *, since: datetime | None, offset: int) -> Page | Later:
        page = super().page(name, since=since, offset=offset)
        assert isinstance(page, Page)
        self.shown += [(name, one.address) for one in page.entries]
        return page

    def remove(self, name: ListName, address: str) -> Done | Later | NotTaken:
        self.found[name] = [one for one in self.found.get(name, ()) if one.address != address]
        return super().remove(name, address)


class Town:
    """The real services, on one record, with a provider in memory."""

    def __init__(self, database: Database, fast: Fast) -> None:
        self.database, self.fast, self.lists = database, fast, Remembering()
        self.number = 0

    def within(self, work: Callable[[Connection], object]) -> None:
        self.number += 1
        self.database.retrying(work)

    def suppress(self, address: str, scope: str, source: str) -> None:
        row = leave.Unwanted(HASH(address), scope, "unsubscribed", source)
        self.within(
            lambda connection: leave.suppress_addresses(connection, [row], source=source, times=clock.read(connection))
        )

    def hear(self, address: str, kind: str, *, hard: bool = False) -> None:
        event = ProviderEvent(kind=kind, at=rows.START, dedupe=f"{self.number}", address=address, hard=hard)
        self.within(lambda connection: ingest.take_in(connection, [event], HASH))

    def sync(self) -> None:
        self.within(
            lambda connection: connection.execute(
                text("UPDATE provider_list SET due_at = '-infinity', whole_at = NULL WHERE began_at IS NULL")
            )
        )
        sync.sync(self.database, self.lists, self.fast, hash_of=HASH, out_of_time=lambda: False)

    def confirmed(self, address: str) -> None:
        """What the button of a fresh confirmation writes."""

        def work(connection: Connection) -> None:
            for scope in ("marketing", "topic:seven-part-series"):
                if suppressions.since_last_lift(connection, HASH(address), scope):
                    suppressions.append(
                        connection, addr_hash=HASH(address), scope=scope, action="lift", reason="confirmed",
                        source="confirm", evidence="",
                    )  # fmt: skip

        self.within(work)

    def operator(self, address: str) -> bool:
        try:
            self.within(
                lambda connection: leave.lift_all(
                    connection, addr_hash=HASH(address), reason="works", actor="ana", times=clock.read(connection)
                )
            )
        except RefusedError:
            return False
        return True

    def stands(self) -> set[tuple[str, str]]:
        names = {HASH(address): address for address in PEOPLE}
        with self.database.transaction() as connection:
            return {(names[one], scope) for one, scope in suppressions.standing(connection, list(names), list(SCOPES))}


def take(town: Town, model: Model, what: str, address: str, about: str) -> None:
    """One step, in the town and in the model."""
    match what:
        case "page" | "reply" | "import" | "staff":
            town.suppress(address, about, what)
            model.suppress(address, about)
        case "event":
            kind = {"complained": "complained", "gone": "bounced", "left": "unsubscribed"}[about]
            town.hear(address, kind, hard=about == "gone")
            if address == KNOWN:  # of a stranger we never mailed, an event says nothing
                model.suppress(address, SAID_BY_EVENT[about][0], complaint=about == "complained")
        case "noise":
            town.hear(address, about)
        case "listed":
            town.lists.found.setdefault(about, []).append(Listed(address, None))
        case "cleared":
            town.lists.found[about] = [one for one in town.lists.found.get(about, ()) if one.address != address]
        case "sync":
            town.lists.shown.clear()
            town.sync()
            for name, one in town.lists.shown:
                if name == "spam_reports" or not {(one, "all"), (one, ON_LIST[name])} & model.stands:
                    model.suppress(one, ON_LIST[name], complaint=name == "spam_reports")
        case "confirmed":
            town.confirmed(address)
            model.opt_in(address)
        case "operator":
            assert town.operator(address) == model.operator(address)
        case "follow":
            with town.database.transaction() as connection:
                town.fast.follow(connection)


@given(st.lists(steps, min_size=1, max_size=25))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_only_a_fresh_opt_in_or_an_operator_ever_lifts(
    database: Database, redis_url: str, course: list[tuple[str, str, str]]
) -> None:
    with database.transaction() as connection:
        for table in ("suppression", "provider_note", "provider_entry", "provider_event", "outbox"):
            connection.execute(text(f"TRUNCATE {table} RESTART IDENTITY CASCADE"))
        connection.execute(
            text("UPDATE provider_list SET began_at = NULL, next_offset = 0, looked_at = NULL, look = 0")
        )
        connection.execute(text("UPDATE subscriber SET state = 'active'"))
        if not connection.execute(text("SELECT 1 FROM subscriber")).scalar():
            rows.subscriber(connection, KNOWN)
    fast = Fast(redis_url)
    try:
        judge(Town(database, fast), course)
    finally:
        fast.close()


def judge(town: Town, course: list[tuple[str, str, str]]) -> None:
    """After every step, what stands is what must, and the fast set knows it after it has followed."""
    model = Model()
    with town.database.transaction() as connection:
        town.fast.rebuild(connection)
    for what, address, about in course:
        take(town, model, what, address, about)
        assert town.stands() == model.stands, (what, address, about)
    with town.database.transaction() as connection:
        assert town.fast.follow(connection)
    for scope in SCOPES:
        hits = town.fast.hits([HASH(one) for one in PEOPLE], (scope,))
        assert hits == {HASH(one) for one, in_scope in model.stands if in_scope == scope}
