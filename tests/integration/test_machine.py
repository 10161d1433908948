"""The machine finds nothing in the program, and finds what a broken one does."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import event, text

from dripwell.delivery.provider import LogAnswer, Mailing, NotSent, Outcome, Unknown
from dripwell.embedded.servers import Servers
from dripwell.services import send
from dripwell.services.send import Batch, Letters, Sender
from dripwell.services.versions import Versions
from dripwell.storage.database import Connection, Database
from tests.integration.machine import Sending
from tests.integration.misbehaving import Misbehaving
from tests.integration.scripted import House
from tests.integration.senders import CAMPAIGNS

SEED = 20_261_102
SLICE = 15
MANY = 200
ENOUGH = 60
"""Of so many courses with a mutant at least one must go wrong."""
COURSE = settings(
    deadline=None,
    database=None,
    print_blob=True,
    stateful_step_count=30,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    phases=[Phase.generate, Phase.shrink],
)


@pytest.fixture
def houses(servers: Servers, template: Database, redis_url: str) -> Iterator[type[Sending]]:
    """The machine, each course of which begins in a fresh house with the same campaigns."""
    numbers = itertools.count()
    versions = Versions()

    def run(statement: str) -> None:
        with template.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(statement))

    def copy(name: str, of: str) -> Database:
        run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        run(f"CREATE DATABASE {name} TEMPLATE {of} STRATEGY file_copy")
        return Database(servers.database_url.rpartition("/")[0] + "/" + name, pool=4)

    def furnish(database: Database) -> House:
        house = House(database, redis_url)
        house.versions = versions
        return house

    furnished = furnish(copy("furnished", "template_of_tests"))
    for name in CAMPAIGNS:
        furnished.publish(name)
    furnished.close()
    furnished.database.close()

    class Here(Sending):
        def move_in(self) -> House:
            return furnish(copy(f"course{next(numbers)}", "furnished"))

        def move_out(self) -> None:
            name = self.database.engine.url.database
            self.house.close()
            self.database.close()
            run(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    yield Here
    run("DROP DATABASE IF EXISTS furnished WITH (FORCE)")


def _seed(request: pytest.FixtureRequest) -> int:
    given = request.config.getoption("--hypothesis-seed", None)
    return SEED if given is None else int(given)


def test_whatever_happens_in_whatever_order_nobody_is_mailed_twice_or_lost(
    houses: type[Sending], request: pytest.FixtureRequest
) -> None:
    run_state_machine_as_test(seed(_seed(request))(houses), settings=settings(COURSE, max_examples=SLICE))


@pytest.mark.matrix
def test_the_same_in_many_more_orders(houses: type[Sending], request: pytest.FixtureRequest) -> None:
    course = settings(COURSE, max_examples=MANY)
    run_state_machine_as_test(seed(_seed(request) + 1)(houses), settings=course)


class Losing(Misbehaving):
    """It loses the answer to every second call that it accepts."""

    def call(self, mailing: Mailing) -> Outcome:
        if len(self.accepted) % 2 == 0:
            self.answer = "accepted, the answer is lost"
        return super().call(mailing)


class BlindRetry(Losing):
    """A sender that takes every unclear answer for a refusal, as its provider's adapter tells it."""

    def call(self, mailing: Mailing) -> Outcome:
        outcome = super().call(mailing)
        return NotSent("timeout") if isinstance(outcome, Unknown) else outcome


class Mute(Losing):
    """A log that never shows anything (A2 does not hold), so that negative proof proves nothing."""

    def find(self, address: str, message: UUID, since: datetime) -> LogAnswer:
        return LogAnswer(answered=True, found=False)


class Forgetful(Database):
    """A database that answers the final check's question with nobody."""

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        def nobody(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> tuple[str, Any]:
            asks = "FROM suppression" in statement and statement.lstrip().startswith("SELECT")
            return (f"SELECT * FROM ({statement}) AS leaving WHERE false" if asks else statement), values

        with super().snapshot() as connection:
            event.listen(connection, "before_cursor_execute", nobody, retval=True)
            yield connection


def _finds(machine: type[Sending], words: str) -> None:
    course = settings(COURSE, max_examples=ENOUGH, phases=[Phase.generate], print_blob=False)
    with pytest.raises(AssertionError, match=words):
        run_state_machine_as_test(seed(SEED)(machine), settings=course)


def test_a_sender_that_retries_blindly_is_found(houses: type[Sending]) -> None:
    class Mutant(houses):  # type: ignore[valid-type, misc]
        def provide(self) -> Misbehaving:
            return BlindRetry(lambda: self.house.wall, self.house.provider)

    _finds(Mutant, "somebody got an email twice")


def test_negative_proof_from_a_log_that_shows_nothing_is_found(houses: type[Sending]) -> None:
    class Mutant(houses):  # type: ignore[valid-type, misc]
        def provide(self) -> Misbehaving:
            return Mute(lambda: self.house.wall, self.house.provider)

    _finds(Mutant, "somebody got an email twice")


def test_a_sender_without_the_final_look_at_suppressions_is_found(houses: type[Sending]) -> None:
    class Mutant(houses):  # type: ignore[valid-type, misc]
        def final_check(self, sender: Sender, batch: Batch, letters: Letters) -> Mailing | None:
            forgetful = Forgetful(sender.database.dsn, pool=1)
            try:
                return send.final_check(replace(sender, database=forgetful), batch, letters)
            finally:
                forgetful.close()

    _finds(Mutant, "a call names somebody who had left before its final check began|nobody after an unsubscribe")
