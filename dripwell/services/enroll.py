"""People come in: added, imported, enrolled, taken out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from dripwell.core.address import address_hash, check
from dripwell.core.agreement import bought
from dripwell.core.errors import NotFoundError, RefusedError
from dripwell.core.states import Reason
from dripwell.services import leave, publish, signup
from dripwell.services.joining import Joining, let_in
from dripwell.services.versions import Versions
from dripwell.storage import campaigns, clock, consents, enrollments, erasing, subscribers
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection
from dripwell.storage.subscribers import Subscriber


@dataclass(frozen=True, slots=True)
class Consent:
    """How we know that people agreed: to which topic, where, in which words, when (aware; None: now)."""

    topic: str
    source: str
    wording: str = ""
    given_at: datetime | None = None


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
    is noted as done by `actor`. Raises RefusedError for consent in the name of somebody who was erased, and for a
    source that says the address was bought or collected elsewhere (rules 1.21).
    """
    hashed = address_hash(pepper, address)
    if consent is not None and (word := bought(consent.source)):
        raise RefusedError(
            f"the source says “{word}”: who was bought, rented or collected elsewhere has not asked to be mailed. "
            f"They can ask themselves: dripwell subscribers add {address} --confirm-by-email --form NAME"
        )
    if consent is not None and was_erased(connection, hashed):
        raise RefusedError(
            f"{address} was erased, so only they themselves can come back, by confirming a form. When they ask to: "
            f"dripwell subscribers add {address} --confirm-by-email --form NAME"
        )
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
        if was_erased(connection, address_hash(pepper, address)):
            raise NotFoundError(_gone(address))
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
        fields=fields,
        relationship=relationship,
        corrects=relationship is not None,
        actor=actor,
    )
    signup.request(connection, subscriber_id, form=form, source=f"form {form}, asked by {actor}", times=times)
    return subscriber_id


def find(connection: Connection, address: str, pepper: bytes, *, to_join: str | None = None) -> Subscriber:
    """The subscriber with this address. Raises NotFoundError, or ValueError when it is no address.

    With `to_join`, the topic of a campaign they are to join, it says how to add them; else nobody asked for that.
    """
    hashed = address_hash(pepper, check(address))
    found = subscribers.by_hash(connection, hashed)
    if found is not None:
        return found
    if was_erased(connection, hashed):
        raise NotFoundError(_gone(address))
    if to_join is not None:
        raise NotFoundError(
            f"no subscriber has the address {address}. To add them, say how they agreed: "
            f"dripwell subscribers add {address} --topic {to_join} --source WORDS"
        )
    raise NotFoundError(
        f"no subscriber has the address {address}. Whether it must not be mailed: dripwell suppressions show {address}"
    )


def was_erased(connection: Connection, addr_hash: bytes) -> bool:
    """Whether the person with this hash was erased and has not opted in again since."""
    return bool(erasing.erased(connection, [addr_hash]))


def _gone(address: str) -> str:
    return f"{address} was erased; what is kept: dripwell suppressions show {address}"


def enroll(connection: Connection, name: str, subscriber_ids: Sequence[int], *, actor: str) -> int:
    """Enroll these people in a running campaign. Returns how many joined; see `enroll_each`."""
    return len(enroll_each(connection, Versions(), name, subscriber_ids, actor=actor).joined)


def enroll_each(
    connection: Connection, versions: Versions, name: str, subscriber_ids: Sequence[int], *, actor: str
) -> Joining:
    """Enroll those of these people in a running campaign who may join, and say of the others why not.

    Nobody joins whom its audience leaves out, or who was in it before, unless its `reenter` lets them in again. Raises
    NotFoundError when there is no such campaign, RefusedError when it does not run.
    """
    row = publish.existing(connection, name, lock=True)
    if row.state != "running" or row.version_id is None:
        raise RefusedError(f"{name} is {row.state}, so nobody can join: dripwell start {name}")
    joining = let_in(connection, versions.published(connection, row.version_id), subscriber_ids, clock.read(connection))
    people = {"people": len(joining.joined)}
    campaigns.add_activity(connection, actor=actor, action="enrolled", about=name, detail=people)
    campaigns.ring(connection, "plan")
    return joining


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
