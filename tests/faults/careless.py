"""Programs that break one rule each, by what is put between a history and the program. A judge that lets one pass is
blind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date, datetime
from typing import Any

from sqlalchemy import event, text

from dripwell.core.tokens import Purpose, verify
from dripwell.delivery.provider import ProviderEvent
from dripwell.services import leave
from dripwell.services.leave import UNDO_WITHIN
from dripwell.storage import clock, suppressions
from dripwell.storage.database import Connection, Database
from tests.faults.doors import Answer, Doors
from tests.integration import rows


class NoFinalCheck(Doors):
    """Who left after the claim is mailed all the same."""

    def senders_database(self, database: Database) -> Database:
        """One that answers the final check's question with nobody."""
        return _Forgetful(database)


class _Forgetful(Database):
    def __init__(self, real: Database) -> None:
        self._real, self.dsn, self.engine = real, real.dsn, real.engine

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """What reads who is leaving finds nobody."""

        def nobody(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> tuple[str, Any]:
            asks = "FROM suppression" in statement and statement.lstrip().startswith("SELECT")
            return (f"SELECT * FROM ({statement}) AS leaving WHERE false" if asks else statement), values

        with self._real.snapshot() as connection:
            event.listen(connection, "before_cursor_execute", nobody, retval=True)
            yield connection


class _Lifting(Doors):
    def lift(self, connection: Connection, addr_hash: bytes) -> None:
        """They get marketing again, whatever they said."""
        if suppressions.since_last_lift(connection, addr_hash, suppressions.MARKETING):
            suppressions.append(
                connection,
                addr_hash=addr_hash,
                scope=suppressions.MARKETING,
                action="lift",
                reason="careless",
                source="test",
                evidence="",
            )
        connection.execute(
            text("UPDATE subscriber SET state = 'active' WHERE addr_hash = :addr_hash AND state = 'unsubscribed'"),
            {"addr_hash": addr_hash},
        )


class LiftingImport(_Lifting):
    """An import takes back what the people in it said."""

    def bring_in(self, addresses: Sequence[str], topic: str, given_at: datetime | None) -> Answer:
        """Import, and lift."""
        answer = super().bring_in(addresses, topic, given_at)
        if answer is Answer.DONE:
            with self.works.database.transaction() as connection:
                for address in addresses:
                    self.lift(connection, self.hash_of(address))
        return answer


class OldWord(_Lifting):
    """A confirmation that was pressed before counts as a fresh opt-in when it is pressed again."""

    def press(self, word: str) -> Answer:
        """Press, and lift."""
        answer = super().press(word)
        if answer is Answer.DONE:
            enrollment_id = verify(self.installation.keys, Purpose.CONFIRM, word, rows.START)
            with self.works.database.transaction() as connection:
                addr_hash = connection.execute(
                    text(
                        "SELECT addr_hash FROM subscriber JOIN enrollment ON subscriber_id = subscriber.id"
                        " WHERE enrollment.id = :id"
                    ),
                    {"id": enrollment_id},
                ).scalar_one()
                self.lift(connection, bytes(addr_hash))
        return answer


class EndlessUndo(Doors):
    """An unsubscribe can be undone for ever."""

    def undo(self, word: str) -> Answer:
        """Undo as if it were long ago."""
        answer = super().undo(word)
        if answer is not Answer.REFUSED:
            return answer
        message_id = verify(self.installation.keys, Purpose.UNSUBSCRIBE, word, rows.START)
        with self.works.database.transaction() as connection:
            times = clock.read(connection)
            early = replace(times, wall_now=times.wall_now - 1000 * UNDO_WITHIN)
            person = _person_of(connection, message_id)
            undone = leave.undo(connection, subscriber_id=person, wording="Undo", times=early)
        return Answer.DONE if undone else Answer.REFUSED


class DeafToPauses(Doors):
    """A pause counts for what is planned from now on, not for what is planned or claimed already."""

    def choose(self, word: str, topics: Sequence[str], pace: str, until: date | None) -> Answer:
        """Save, and leave what is planned as fresh as it was."""
        answer = super().choose(word, topics, pace, until)
        if answer is Answer.DONE and pace == "pause":
            message_id = verify(self.installation.keys, Purpose.PREFERENCES, word, rows.START)
            with self.works.database.transaction() as connection:
                connection.execute(
                    text(
                        "UPDATE message SET fresh_until = 'infinity' WHERE subscriber_id = :person"
                        " AND state IN ('PLANNED', 'IN_BATCH') AND lane = 'drip'"
                    ),
                    {"person": _person_of(connection, message_id)},
                )
        return answer


class ForgottenSpool(Doors):
    """What was spooled while PostgreSQL was away is never carried out."""

    def replay(self) -> int:
        """Nothing."""
        return 0


class DeafToComplaints(Doors):
    """Complaints that the provider tells of are answered, and dropped."""

    def hear(self, told: Sequence[ProviderEvent]) -> Answer:
        """Everything else is heard."""
        return super().hear([one for one in told if one.kind not in ("complained", "unsubscribed")])


def _person_of(connection: Connection, message_id: int) -> int:
    found: int = connection.execute(
        text("SELECT subscriber_id FROM message WHERE id = :id"), {"id": message_id}
    ).scalar_one()
    return found


CARELESS: Mapping[str, type[Doors]] = {
    "no_final_check": NoFinalCheck,
    "lifting_import": LiftingImport,
    "old_word": OldWord,
    "endless_undo": EndlessUndo,
    "deaf_to_pauses": DeafToPauses,
    "forgotten_spool": ForgottenSpool,
    "deaf_to_complaints": DeafToComplaints,
}
