"""People come in: added, imported, enrolled, taken out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from dripwell.content.subscribers_csv import BadRow, GoodRow
from dripwell.core.address import address_hash, check
from dripwell.core.errors import NotFoundError, RefusedError
from dripwell.core.states import Reason
from dripwell.core.tokens import LIFETIME, Purpose
from dripwell.services import happen, leave, publish, serve
from dripwell.services.versions import Versions
from dripwell.storage import campaigns, clock, consents, enrollments, subscribers
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection, Database
from dripwell.storage.subscribers import Subscriber

SLICE = 500


@dataclass(frozen=True, slots=True)
class Consent:
    """How we know that people agreed: to which topic, where, in which words, when (aware; None: now)."""

    topic: str
    source: str
    wording: str = ""
    given_at: datetime | None = None


@dataclass(slots=True)
class Imported:
    """What became of an import. Every row is in exactly one place."""

    added: int = 0
    known: int = 0
    unsaid: int = 0  # of these, good rows that do not say whether the person is a patient
    bad: list[BadRow] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many rows the file had."""
        return self.added + self.known + len(self.bad)


def add(
    connection: Connection,
    *,
    address: str,
    consent: Consent | None,
    pepper: bytes,
    new_id: Callable[[], UUID],
    times: Times,
    timezone: str | None = None,
    fields: Mapping[str, str] | None = None,
    tags: Sequence[str] = (),
    relationship: str | None = None,
    corrects: bool = False,
    actor: str = "command line",
) -> tuple[int, bool]:
    """Add one person, or add to the one with this address. Returns (id, whether new).

    With `consent` the person is active; without, unconfirmed. Consent here lifts no suppression: somebody who
    unsubscribed stays unsubscribed until they opt in themselves. `relationship` is prospect, patient or unknown; a new
    person of whom nothing is said is a prospect, and a patient stays one unless this `corrects` it (rules 5.5), which
    is noted as done by `actor`.
    """
    hashed = address_hash(pepper, address)
    state = "active" if consent is not None else "unconfirmed"
    new = subscribers.add(
        connection,
        public_id=new_id(),
        address=address,
        addr_hash=hashed,
        state=state,
        timezone=timezone,
        fields=fields or {},
        tags=tags,
        now=times.now,
        relationship=relationship or "prospect",
    )
    if new is not None:
        subscriber_id = new
    else:
        known = subscribers.by_hash(connection, hashed)
        assert known is not None
        subscriber_id = known.id
        subscribers.amend(
            connection,
            subscriber_id,
            timezone=timezone,
            fields=fields or {},
            tags=tags,
            relationship=relationship,
            corrects=corrects,
        )
        if corrects and relationship is not None and relationship != known.relationship:
            detail = {"subscriber": subscriber_id, "from": known.relationship, "to": relationship}
            campaigns.add_activity(
                connection, actor=actor, action="relationship corrected", about="subscriber", detail=detail
            )
        if consent is not None:
            subscribers.set_state(connection, subscriber_id, ("unconfirmed",), "active")
    if consent is not None:
        agreed = consents.topics(connection, [subscriber_id]).get(subscriber_id, frozenset())
        if consent.topic not in agreed:
            consents.add(
                connection,
                subscriber_id,
                consent.topic,
                give=True,
                source=consent.source,
                wording=consent.wording,
                at=consent.given_at or times.now,
            )
    return subscriber_id, new is not None


def correct(
    connection: Connection,
    *,
    address: str,
    pepper: bytes,
    new_id: Callable[[], UUID],
    times: Times,
    relationship: str,
    actor: str,
) -> str:
    """Correct what somebody known is to the clinic, and nothing else. Returns what was kept before.

    Raises NotFoundError for an address nobody has: a person is added with how we know that they agreed.
    """
    known = subscribers.by_hash(connection, address_hash(pepper, address))
    if known is None:
        raise NotFoundError(
            f"no subscriber has the address {address}, so there is nothing to correct. To add them, say how they "
            f"agreed: dripwell subscribers add {address} --topic TOPIC --source WORDS --relationship {relationship}"
        )
    add(
        connection,
        address=address,
        consent=None,
        pepper=pepper,
        new_id=new_id,
        times=times,
        relationship=relationship,
        corrects=True,
        actor=actor,
    )
    return known.relationship


def relationship_of(connection: Connection, address: str, pepper: bytes) -> str | None:
    """What the person with this address is to the clinic; None: nobody has it."""
    known = subscribers.by_hash(connection, address_hash(pepper, address))
    return None if known is None else known.relationship


def ask_to_confirm(
    connection: Connection,
    *,
    address: str,
    form: str,
    pepper: bytes,
    new_id: Callable[[], UUID],
    times: Times,
    timezone: str | None = None,
    fields: Mapping[str, str] | None = None,
    relationship: str | None = None,
    actor: str = "command line",
) -> int:
    """Add a person who asked through `form` and mail them the confirmation.

    Nothing else is mailed until they press its button. A `relationship` corrects what is kept, as done by `actor`.
    """
    subscriber_id, _ = add(
        connection,
        address=address,
        consent=None,
        pepper=pepper,
        new_id=new_id,
        times=times,
        timezone=timezone,
        fields={**(fields or {}), "form": form},
        relationship=relationship,
        corrects=relationship is not None,
        actor=actor,
    )
    day = int(times.wall_now.timestamp() // 86400)  # one confirmation an address a day: a form is a mail cannon
    serve.plan_service(
        connection,
        campaign="confirm",
        step_key="confirm",
        subscriber_id=subscriber_id,
        round=day,
        now=times.now,
        valid_until=times.now + LIFETIME[Purpose.CONFIRM],
    )
    return subscriber_id


def take_in(
    database: Database,
    rows: Iterable[GoodRow | BadRow],
    *,
    consent: Consent,
    pepper: bytes,
    versions: Versions,
    new_id: Callable[[], UUID],
    tick: Callable[[int], None] = lambda _: None,
) -> Imported:
    """Import every good row, 500 to a transaction; bad rows are listed. Running it again adds nobody twice.

    A tag in a row starts the running campaigns that it triggers; whoever was ever in one does not join it again.
    `tick` is told how many rows have been read, for a progress bar.
    """
    result = Imported()
    part: list[GoodRow] = []
    for row in rows:
        if isinstance(row, BadRow):
            result.bad.append(row)
        else:
            result.unsaid += row.relationship == "unknown"
            part.append(row)
        if len(part) == SLICE:
            _take_in_part(database, part, consent, pepper, versions, new_id, result)
            part = []
        tick(result.rows + len(part))
    _take_in_part(database, part, consent, pepper, versions, new_id, result)
    tick(result.rows)
    return result


def rehearse(
    database: Database, rows: Iterable[GoodRow | BadRow], *, pepper: bytes, tick: Callable[[int], None] = lambda _: None
) -> Imported:
    """Say what `take_in` would do with these rows. Changes nothing."""
    result = Imported()
    part: list[bytes] = []

    def look_up() -> None:
        with database.snapshot() as connection:
            known = subscribers.known(connection, part)
        result.known += known
        result.added += len(part) - known
        part.clear()

    for row in rows:
        if isinstance(row, BadRow):
            result.bad.append(row)
        else:
            result.unsaid += row.relationship == "unknown"
            part.append(address_hash(pepper, row.address))
        if len(part) == SLICE:
            look_up()
        tick(result.rows + len(part))
    look_up()
    return result


def _take_in_part(
    database: Database,
    part: Sequence[GoodRow],
    consent: Consent,
    pepper: bytes,
    versions: Versions,
    new_id: Callable[[], UUID],
    result: Imported,
) -> None:
    # In address order, the key they can collide on: two imports at once then wait instead of deadlocking.
    ordered = sorted(part, key=lambda row: address_hash(pepper, row.address))

    def work(connection: Connection) -> int:
        times = clock.read(connection)
        added = 0
        for row in ordered:
            subscriber_id, is_new = add(
                connection,
                address=row.address,
                consent=consent,
                pepper=pepper,
                new_id=new_id,
                times=times,
                timezone=row.timezone,
                fields=row.fields,
                tags=row.tags,
                relationship=row.relationship,
            )
            for name in row.tags:
                happen.trigger(connection, versions, subscriber_id, "tag", name, times)
            added += is_new
        return added

    added = database.retrying(work)
    result.added += added
    result.known += len(part) - added


def find(connection: Connection, address: str, pepper: bytes) -> Subscriber:
    """The subscriber with this address. Raises NotFoundError, or ValueError when it is no address."""
    found = subscribers.by_hash(connection, address_hash(pepper, check(address)))
    if found is None:
        raise NotFoundError(f"no subscriber has the address {address}: dripwell subscribers add {address}")
    return found


def enroll(connection: Connection, name: str, subscriber_ids: Sequence[int], *, actor: str) -> int:
    """Enroll these people in a running campaign. Returns how many joined; who was ever in it is left as they are."""
    row = publish.existing(connection, name, lock=True)
    if row.state != "running" or row.version_id is None:
        raise RefusedError(f"{name} is {row.state}, so nobody can join: dripwell start {name}")
    new = enrollments.add(
        connection,
        subscriber_ids=subscriber_ids,
        campaign_id=row.id,
        version_id=row.version_id,
        now=clock.read(connection).now,
    )
    campaigns.add_activity(connection, actor=actor, action="enrolled", about=name, detail={"people": len(new)})
    campaigns.ring(connection, "plan")
    return len(new)


def refuse_unwilling(connection: Connection, people: Sequence[Subscriber], topic: str) -> None:
    """Raise RefusedError when one of these people would not be mailed about `topic`.

    Enrolled all the same they would leave at once, and could never join by the form they have yet to confirm.
    """
    agreed = consents.topics(connection, [person.id for person in people])
    for person in people:
        if person.state == "unconfirmed" or (person.state == "active" and topic not in agreed.get(person.id, ())):
            raise RefusedError(
                f"{person.address} has not agreed to {topic}. When they have: "
                f"dripwell subscribers add {person.address} --topic {topic} --source WORDS"
            )
        if person.state != "active":
            raise RefusedError(
                f"{person.address} is {person.state} and gets no campaign. "
                f"Why: dripwell subscribers show {person.address}"
            )


def everybody(connection: Connection, topic: str) -> list[int]:
    """The ids of everybody active who agreed to this topic."""
    return consents.with_topic(connection, topic)


def take_out(connection: Connection, name: str, subscriber_id: int, *, actor: str) -> int:
    """Take one person out of a campaign. Returns 1, or 0 when they were not in it."""
    row = publish.existing(connection, name)
    ids = [e.id for e in enrollments.under_way(connection, subscriber_id, row.id)]
    ended = leave.end(
        connection, enrollment_ids=ids, reason=Reason.TAKEN_OUT, times=clock.read(connection), actor=actor
    )
    campaigns.add_activity(connection, actor=actor, action="took out", about=name, detail={"subscriber": subscriber_id})
    return ended
