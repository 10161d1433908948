"""What another program tells us of a person: that there is one, what they agreed to, and what happened to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from uuid import UUID

from dripwell.core.address import address_hash
from dripwell.core.errors import NotFoundError, RefusedError
from dripwell.services import enroll, happen
from dripwell.services.enroll import Consent
from dripwell.services.versions import Versions
from dripwell.storage import consents, enrollments, subscribers, suppressions
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection
from dripwell.storage.subscribers import Subscriber


@dataclass(frozen=True, slots=True)
class Person:
    """A person as another program gives them. `address` is checked; `form`: mail them that form's confirmation."""

    address: str
    timezone: str | None = None
    fields: Mapping[str, str] = field(default_factory=dict)
    tags: Sequence[str] = ()
    relationship: str | None = None
    consent: Consent | None = None
    form: str | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What became of it. `consent`: recorded, known before, withdrawn later by the person; None: none was given."""

    subscriber_id: int
    public_id: UUID
    added: bool
    state: str
    consent: Literal["recorded", "known", "withdrawn_since"] | None
    confirming: bool
    joined: tuple[str, ...]
    suppressed: Mapping[str, str]  # scope of the ledger -> why


@dataclass(frozen=True, slots=True)
class Found:
    """What is kept of one person, for a program that already knows their address."""

    person: Subscriber
    topics: tuple[str, ...]
    suppressed: Mapping[str, str]


def subscriber(
    connection: Connection,
    person: Person,
    *,
    versions: Versions,
    pepper: bytes,
    new_id: Callable[[], UUID],
    times: Times,
    actor: str,
) -> Told:
    """Add this person, or add to the one with this address, in the caller's transaction.

    Without consent somebody new is unconfirmed and is mailed nothing, but for the confirmation if a form is named.
    Consent here lifts no suppression and does not undo what the person said later. Tags start the campaigns they
    trigger. Raises RefusedError for somebody who had themselves erased, unless a form asks them first, and for consent
    from the future.
    """
    hashed = address_hash(pepper, person.address)
    consent = person.consent
    if consent is not None and consent.given_at is not None and consent.given_at > times.now:
        raise RefusedError("consent.given_at is in the future, and nobody can have agreed yet: send when they agreed")
    if person.form is None and enroll.was_erased(connection, hashed):
        raise RefusedError(
            "the person with this address had everything about them erased, so nothing is kept of them again: "
            "when they ask to come back, send `confirm` with the name of a sign-up form"
        )
    known = subscribers.by_hash(connection, hashed)
    said = _what_of(connection, known, consent)
    if person.form is not None:
        subscriber_id = enroll.ask_to_confirm(
            connection,
            address=person.address,
            form=person.form,
            pepper=pepper,
            new_id=new_id,
            times=times,
            timezone=person.timezone,
            fields=person.fields,
            actor=actor,
        )
        added = known is None
    else:
        added = False
    if person.form is None or person.tags or person.relationship:
        subscriber_id, new = enroll.add(
            connection,
            address=person.address,
            consent=None if said == "withdrawn_since" else consent,
            pepper=pepper,
            new_id=new_id,
            times=times,
            timezone=person.timezone,
            fields=person.fields,
            tags=person.tags,
            relationship=person.relationship,
            actor=actor,
        )
        added = added or new
    joined = [
        name
        for tag in dict.fromkeys(person.tags)
        for name in happen.trigger(connection, versions, subscriber_id, "tag", tag, times)
    ]
    after = subscribers.by_hash(connection, hashed)
    assert after is not None
    return Told(
        subscriber_id=after.id,
        public_id=after.public_id,
        added=added,
        state=after.state,
        consent=said,
        confirming=person.form is not None,
        joined=tuple(sorted(set(joined))),
        suppressed=_suppressed(connection, hashed),
    )


def event(
    connection: Connection,
    *,
    address: str,
    name: str,
    versions: Versions,
    pepper: bytes,
    times: Times,
    at: datetime | None = None,
    sender_id: str | None = None,
) -> tuple[Subscriber, bool]:
    """Record that `name` happened to whoever has this address, `at` campaign time if not now; with all that follows.

    Returns the person, and whether this was news: False for an event told before under the same `sender_id`. Raises
    NotFoundError for an address nobody has, RefusedError for an event from the future.
    """
    if at is not None and at > times.now:
        raise RefusedError(
            "occurred_at is in the future, and nothing can have happened yet: send it once it has, or without a time"
        )
    person = locked(connection, address, pepper)
    news = happen.record(connection, versions, person.id, name, times, at=at, sender_id=sender_id)
    return person, news


def find(connection: Connection, address: str, pepper: bytes) -> Found:
    """What is kept of whoever has this address. Raises NotFoundError."""
    hashed = address_hash(pepper, address)
    person = subscribers.by_hash(connection, hashed)
    if person is None:
        raise NotFoundError("no subscriber has this address: add them first, with POST /subscribers")
    return Found(person, tuple(consents.given(connection, person.id)), _suppressed(connection, hashed))


def locked(connection: Connection, address: str, pepper: bytes) -> Subscriber:
    """Whoever has this address, held until the transaction ends. Raises NotFoundError."""
    known = subscribers.by_hash(connection, address_hash(pepper, address))
    if known is not None:
        # Before the person, as everybody locks: what follows may end series of theirs.
        suppressions.lock_in_scope(connection, known.id, suppressions.ALL)
    person = None if known is None else subscribers.lock(connection, known.id)
    if person is None or person.address is None:
        raise NotFoundError("no subscriber has this address: add them first, with POST /subscribers")
    return person


def _what_of(
    connection: Connection, known: Subscriber | None, consent: Consent | None
) -> Literal["recorded", "known", "withdrawn_since"] | None:
    if consent is None:
        return None
    if known is None:
        return "recorded"
    subscribers.lock(connection, known.id)
    newest = enrollments.newest_word(connection, known.id, consent.topic)
    if newest is None:
        return "recorded"
    gave, at = newest
    if gave:
        return "known"
    return "withdrawn_since" if consent.given_at is not None and consent.given_at <= at else "recorded"


def _suppressed(connection: Connection, addr_hash: bytes) -> dict[str, str]:
    return {scope: reason for (_, scope), reason in sorted(suppressions.reasons(connection, [addr_hash]).items())}
