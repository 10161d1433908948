"""Every way into the program that a history uses: public pages over HTTP, and the services behind commands and events.

Each returns what the person or the operator was told. What a mutant breaks, it breaks here (`careless`).
"""

from __future__ import annotations

import html
import itertools
import json
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import redis
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from dripwell.bootstrap import Installation
from dripwell.content.importing.values import Rules, Statement
from dripwell.core.address import address_hash, check
from dripwell.core.errors import NotFoundError, RefusedError, UnavailableError
from dripwell.delivery.provider import ProviderEvent
from dripwell.services import enroll, erase, importing, ingest, leave, signup
from dripwell.services.enroll import Consent
from dripwell.storage import clock, spool, subscribers
from dripwell.storage.database import Connection, Database
from tests.integration import rows

NOWHERE = "postgresql://nobody@127.0.0.1:1/nowhere"
"""Where PostgreSQL is while it is away."""
STAFF = "staff"


class Answer(Enum):
    """What whoever asked was told."""

    DONE = "done"
    REFUSED = "refused"
    NONE = "no answer"


class Trouble:
    """Breaks a connection at its n-th statement, before its n-th commit, or right after it; or lets others act there.

    Listens on one engine. `at` counts down statements, `commit` commits; at zero `then` is called, once.
    """

    def __init__(self, database: Database, admin: Callable[[str], None]) -> None:
        self._admin = admin
        self.clear()
        self.holds_still = False
        event.listen(database.engine, "before_cursor_execute", self._statement)
        event.listen(database.engine, "commit", self._commit)

    def clear(self) -> None:
        """Nothing more is going to happen."""
        self.statement = self.commit = 0
        self.then: Callable[[Any], None] = lambda connection: None

    def at_statement(self, number: int, then: Callable[[Any], None] | None = None) -> None:
        """Before the n-th statement from here the server ends the session, or else `then` happens."""
        self.statement, self.then = number, then or self.kill

    def at_commit(self, number: int, *, kept: bool) -> None:
        """The n-th commit from here gets no answer; `kept`: it went through all the same."""
        self.commit, self.then = number, self._lose_answer if kept else self.kill

    def kill(self, connection: Any) -> None:
        """The server ends this session."""
        pid = connection.connection.dbapi_connection.info.backend_pid
        self._admin(f"SELECT pg_terminate_backend({pid}, 5000)")

    def _lose_answer(self, connection: Any) -> None:
        connection.connection.dbapi_connection.commit()
        raise OperationalError("COMMIT", {}, psycopg.OperationalError("the server closed the connection"))

    def _statement(self, connection: Any, *_: Any) -> None:
        if self.statement and not self.holds_still:
            self.statement -= 1
            if not self.statement:
                self.then(connection)

    def _commit(self, connection: Any) -> None:
        if self.commit and not self.holds_still:
            self.commit -= 1
            if not self.commit:
                self.then(connection)


class Doors:
    """The program as people and operators meet it. `is_away`: PostgreSQL is, for whoever comes in meanwhile."""

    def __init__(
        self, installation: Installation, *, pages: Callable[[Installation], TestClient], wall: Callable[[], datetime]
    ) -> None:
        self.installation, self.wall = installation, wall
        self.database = installation.database
        self.works = installation  # the same as workers have it
        self.is_away = False
        self._nowhere = Database(NOWHERE, pool=1)
        self._here = pages(installation)
        self._away = pages(replace(installation, database=self._nowhere))
        self._numbers = itertools.count(1)

    def close(self) -> None:
        """Give the connections back."""
        self._nowhere.close()

    def new_id(self) -> UUID:
        """The next id."""
        return rows.uuid_of("door", next(self._numbers))

    # Pages

    def _post(self, path: str, headers: Mapping[str, str] | None = None, **fields: Any) -> tuple[int, str]:
        client = self._away if self.is_away else self._here
        answer = client.post(path, data=fields, headers=headers)
        return answer.status_code, html.unescape(answer.text)

    def _done(self, answer: tuple[int, str], words: str) -> Answer:
        status, page = answer
        if status >= 500:
            return Answer.NONE
        return Answer.DONE if status == 200 and words in page else Answer.REFUSED

    def ask(self, address: str, form: str) -> Answer:
        """Type an address into a form that was shown a minute ago, and agree. Each address has a network of its own."""
        shown = signup.shown_at(self.installation.keys, self.wall() - timedelta(minutes=1))
        number = zlib.crc32(address.lower().encode())
        headers = {"X-Forwarded-For": f"10.{number >> 8 & 255}.{number & 255}.1"}
        fields = {"email": address, "dw-agree": "yes", "dw-shown": shown}
        return self._done(self._post(f"/s/{form}", headers, **fields), "Check your email")

    def press(self, word: str) -> Answer:
        """The button of a confirmation."""
        return self._done(self._post(f"/k/{word}"), "confirmed")

    def one_click(self, word: str) -> Answer:
        """The mail program's unsubscribe."""
        return self._done(self._post(f"/u/{word}", **{"List-Unsubscribe": "One-Click"}), "unsubscribed")

    def unsubscribe(self, word: str) -> Answer:
        """The page's button."""
        return self._done(self._post(f"/u/{word}"), "You are unsubscribed")

    def leave(self, word: str) -> Answer:
        """Unsubscribe from everything, on the preferences page."""
        return self._done(self._post(f"/p/{word}", do="leave"), "You are unsubscribed")

    def undo(self, word: str) -> Answer:
        """That was a mistake."""
        return self._done(self._post(f"/u/{word}", do="undo"), "You get our emails again")

    def choose(self, word: str, topics: Sequence[str], pace: str, until: date | None) -> Answer:
        """Save preferences."""
        more = {} if until is None else {"until": until.isoformat()}
        return self._done(self._post(f"/p/{word}", do="save", topic=list(topics), pace=pace, **more), "Saved.")

    def resume(self, word: str) -> Answer:
        """End a pause."""
        return self._done(self._post(f"/p/{word}", do="resume"), "The pause is over")

    def stop(self, word: str, enrollment_id: int) -> Answer:
        """One series less."""
        return self._done(self._post(f"/p/{word}", stop=str(enrollment_id)), "This series has stopped")

    def erase_page(self, word: str) -> Answer:
        """Erase my data, with the button of the page."""
        return self._done(self._post(f"/p/{word}/erase", do="erase"), "Your data is erased")

    # Commands, the form, events

    def _do(self, work: Callable[[Connection], Any]) -> Answer:
        try:
            found = (self._nowhere if self.is_away else self.database).retrying(work)
        except UnavailableError:
            return Answer.NONE
        except (NotFoundError, RefusedError):
            return Answer.REFUSED
        return Answer.REFUSED if found is False else Answer.DONE

    def add(self, address: str, topic: str) -> Answer:
        """Staff add one person and say how they agreed."""

        def work(connection: Connection) -> None:
            enroll.add(
                connection,
                address=check(address),
                consent=Consent(topic, "by phone"),
                pepper=self.installation.pepper,
                new_id=self.new_id,
                times=clock.read(connection),
            )

        return self._do(work)

    def bring_in(self, addresses: Sequence[str], topic: str, given_at: datetime | None) -> Answer:
        """Import a file of people who agreed to a topic."""
        database = self._nowhere if self.is_away else self.database
        lines = [json.dumps({"email": address, "relationship": "prospect"}) + "\n" for address in addresses]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "people.jsonl"
            path.write_text("".join(lines), encoding="utf-8")
            try:
                with database.transaction() as connection:
                    now = clock.read(connection).now
                importing.bring_in(
                    database,
                    path,
                    Rules(Statement((topic,), "a list", "", given_at or now), frozenset({topic}), now, UTC),
                    pepper=self.installation.pepper,
                    versions=self.installation.versions,
                    new_id=self.new_id,
                    actor=STAFF,
                )
            except UnavailableError:
                return Answer.NONE
        return Answer.DONE

    def enroll(self, campaign: str, topic: str) -> Answer:
        """Staff put everybody who agreed to the topic into a campaign."""

        def work(connection: Connection) -> None:
            enroll.enroll(connection, campaign, enroll.everybody(connection, topic), actor=STAFF)

        return self._do(work)

    def suppress(self, address: str) -> Answer:
        """Staff: this person must not be mailed."""

        def work(connection: Connection) -> bool:
            person = self._id(connection, address)
            if person is None:
                return False
            leave.suppress(
                connection,
                subscriber_id=person,
                scope="all",
                reason="unsubscribed",
                source=STAFF,
                evidence="a call",
                times=clock.read(connection),
            )
            return True

        return self._do(work)

    def erase(self, address: str) -> Answer:
        """Staff erase somebody who asked for it."""
        database = self._nowhere if self.is_away else self.database
        try:
            with database.transaction() as connection:
                person = self._id(connection, address)
            if person is None:
                return Answer.REFUSED
            erase.erase(database, person, pepper=self.installation.pepper, actor=STAFF)
        except UnavailableError:
            return Answer.NONE
        except NotFoundError:
            return Answer.REFUSED
        return Answer.DONE

    def hear(self, told: Sequence[ProviderEvent]) -> Answer:
        """Events of the provider come in and are read."""
        pepper = self.installation.pepper
        return self._do(
            lambda connection: ingest.take_in(connection, list(told), lambda address: address_hash(pepper, address))
        )

    def _id(self, connection: Connection, address: str) -> int | None:
        found = subscribers.by_hash(connection, address_hash(self.installation.pepper, address))
        return None if found is None else found.id

    # What a sender is given

    def senders_database(self, database: Database) -> Database:
        """Where a sender reads and writes."""
        return database

    def replay(self) -> int:
        """Carry out what was spooled."""
        return leave.replay(self.works.database, spool.path_in(self.installation.settings.state_dir))

    def carry_on(self) -> None:
        """The pass that goes on with erasures."""
        erase.carry_on(
            self.works.database,
            eraser=None,
            provider="scripted",
            pepper=self.installation.pepper,
            out_of_time=lambda: False,
        )

    def hash_of(self, address: str) -> bytes:
        """How the ledger knows an address."""
        return address_hash(self.installation.pepper, address)

    def lose_redis(self) -> None:
        """Whatever Redis held is gone."""
        with redis.Redis.from_url(self.installation.redis_url) as client:
            client.flushdb()
