"""The provider Protocol: takes one batch in one attempt. What became of it is a value; nothing is raised for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from dripwell.core.campaign import Mailbox


@dataclass(frozen=True, slots=True)
class Envelope:
    """One person's part of a call."""

    to: str  # the address alone: never a name (rules 1.7)
    message: UUID  # message.public_id; travels as custom arg `dw_m`
    headers: Mapping[str, str]  # per person, literal: List-Unsubscribe, List-Unsubscribe-Post
    substitutions: Mapping[str, str]  # slot word -> value, already escaped for its place


@dataclass(frozen=True, slots=True)
class Mailing:
    """One call: what is the same for everybody, and one envelope a person, in the order the JSON will have."""

    batch: int  # batch.id; travels as custom arg `dw_b` in each personalization
    sender: Mailbox
    reply_to: str
    subject: str
    text: str
    html: str
    headers: Mapping[str, str]  # the same for everybody: List-ID, Feedback-ID, Auto-Submitted
    categories: Sequence[str]  # at most 2 opaque codes
    envelopes: Sequence[Envelope]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider took the whole batch (202; by SMTP 250)."""

    provider_id: str  # X-Message-Id; by SMTP the queue's id
    status: int = 202


@dataclass(frozen=True, slots=True)
class NotSent:
    """Certainly not accepted: connection never made, 429, SMTP 4xx, or the account was refused (401, 403 …)."""

    reason: str  # short, no address, no key
    status: int | None = None
    retry_after: timedelta | None = None  # from Retry-After or X-RateLimit-Reset
    rate_limited: bool = False  # 429
    person: bool = False  # said of this person's mailbox: it tells nothing about the provider
    account: bool = False  # 401, 403, 404, 405, 406, 451; by SMTP 5xx to AUTH or MAIL: opens the breaker at once


@dataclass(frozen=True, slots=True)
class Refused:
    """Certainly not accepted, because of what was in it (400, 413; by SMTP 5xx to RCPT or DATA)."""

    reason: str  # short, no address, no key
    status: int  # 0: refused on this side, no call was made
    row: int | None = None  # index into Mailing.envelopes when one is at fault
    too_large: bool = False  # 413, too many bytes or too many envelopes: halve
    hard: bool = False  # the address of that row does not exist (rules 2.6)


@dataclass(frozen=True, slots=True)
class Unknown:
    """May have been accepted: timeout after the first byte, 5xx, broken answer. Evidence will settle it."""

    reason: str  # short, no address, no key
    status: int | None = None


Outcome = Accepted | NotSent | Refused | Unknown


@dataclass(frozen=True, slots=True)
class ProviderEvent:
    """One event in our words. `kind` is one of processed, delivered, deferred, bounced, dropped, complained,
    unsubscribed, account, unknown. `detail` is the provider's own object, capped, hostile text: escape it."""

    kind: str
    at: datetime  # the provider's clock, aware UTC; 1970-01-01 when the event has no usable time
    dedupe: str  # hex SHA-256 of (message, type, event time, link or reason): rules 2.3
    message: UUID | None = None  # dw_m
    batch: int | None = None  # dw_b
    address: str | None = None
    hard: bool = False  # bounced: the address itself is bad (rules 2.6, Invalid Address)
    reason: str = ""
    event_id: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogAnswer:
    """What the provider's message log says about one message: found, not found, or no answer (429, outage).

    `batches` are those of ours whose calls it was accepted in, as far as the log tells: a message that was called for
    twice proves nothing about the other call.
    """

    answered: bool
    found: bool = False
    batches: frozenset[int] = field(default=frozenset(), compare=False)


@dataclass(frozen=True, slots=True)
class Erasing:
    """What a provider said to a request to erase people from what it keeps. `reason` is short, without address or key.

    `at_fault`: an address in it was refused, and with it all the others.
    """

    accepted: bool
    job_id: str = ""
    reason: str = ""
    retry_after: timedelta | None = None
    at_fault: bool = False


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this provider can do.

    `max_batch`: envelopes in one call. `events`: it tells what became of each message. `logs`: it can be asked whether
    it accepted one. `baa`: a business associate agreement is signed, so patients may be mailed through it (rules 5.7).
    `idempotency`: a repeated call with the same key is taken once.
    """

    max_batch: int
    events: bool
    logs: bool
    baa: bool = False
    idempotency: bool = False


class Provider(Protocol):
    """One attempt, no retry anywhere below it. Thread-confined: one per worker process, opened after the fork."""

    name: str
    capabilities: Capabilities

    def call(self, mailing: Mailing) -> Outcome:
        """Make one attempt with deadlines (connect 5 s, 30 s in all)."""
        ...

    def find(self, address: str, message: UUID, since: datetime) -> LogAnswer:
        """Ask the provider's log whether it accepted this message after `since`."""
        ...

    def close(self) -> None:
        """Drop the connection."""
        ...


class Eraser(Protocol):
    """A provider that can be asked to erase people. One that cannot, such as an SMTP relay, is no `Eraser`."""

    most_erasures: int

    def erase(self, addresses: Sequence[str]) -> Erasing:
        """Ask once, with deadlines, to erase these `most_erasures` addresses at most. Twice is harmless."""
        ...


class EventDoor(Protocol):
    """What the provider tells us: `is_genuine` runs at the webhook on raw bytes, `events` later, on the stored row."""

    def is_genuine(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Check the signature; False, never an exception."""
        ...

    def events(self, body: bytes) -> list[ProviderEvent]:
        """Translate to our words. An unknown type becomes `unknown`; one broken event never costs the others.

        Raises ValueError when the body is nothing of the kind: no JSON array, no mail.
        """
        ...
