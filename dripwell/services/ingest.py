"""Ingest: read the inbox of webhooks, many in one transaction. Evidence first, then delivery, then suppressions.

What a webhook says was written by strangers: one that cannot be read never costs those beside it, and no transaction
is ever half done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dripwell.core.campaign import Lane
from dripwell.core.errors import RefusedError, UnavailableError
from dripwell.core.states import DELIVERY_PRECEDENCE, MessageState, delivery_after
from dripwell.delivery.provider import EventDoor, ProviderEvent
from dripwell.services import heard, resolve
from dripwell.services.heard import About
from dripwell.storage import (
    audit,
    batches,
    campaigns,
    clock,
    enrollments,
    events,
    leaving,
    messages,
    outcomes,
)
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection, Database, lost_race

log = logging.getLogger("dripwell.ingest")

HashOf = Callable[[str], bytes]
"""From an address to what the ledger knows it by. Raises ValueError for what is no address."""

WEBHOOKS, BYTES = 500, 1_500_000
"""How much is read in one transaction: about 3,000 events, well under a second of locks."""

_BY_ADDRESS = frozenset({"bounced", "dropped", "complained", "unsubscribed"})
"""What counts even when it carries no ids of ours: asynchronous bounces come without any (rules 2.5)."""
_OPEN = frozenset({MessageState.PLANNED, MessageState.IN_BATCH, MessageState.HELD})
"""States of a message that its enrollment waits for."""


def ingest(
    database: Database, door: EventDoor, *, hash_of: HashOf | None = None, out_of_time: Callable[[], bool]
) -> int:
    """Read webhooks until none is left, or time is up; returns how many. A broken one never stops the rest.

    With `hash_of`, bounces, complaints and unsubscribes that carry no ids of ours are matched by their address.
    """
    read = 0
    while not out_of_time():
        claimed: list[tuple[int, bytes]] = []
        try:
            with database.transaction() as connection:
                claimed = events.claim_inbox(connection, limit=WEBHOOKS, size=BYTES)
                _read(connection, door, hash_of, claimed)
            moved = len(claimed)
        except UnavailableError:
            raise
        except Exception:  # a webhook holds what strangers wrote: none may stop those beside it
            if not claimed:
                raise
            moved = sum(_read_alone(database, door, hash_of, inbox_id) for inbox_id, _ in claimed)
        if moved == 0:
            break
        read += moved
    return read


def _read_alone(database: Database, door: EventDoor, hash_of: HashOf | None, inbox_id: int) -> bool:
    """Read one webhook of a set that failed as a whole. False: it is left for another pass, and no try is counted."""

    def work(connection: Connection) -> bool:
        raw = events.claim_one(connection, inbox_id)
        if raw is None:
            return False
        _read(connection, door, hash_of, [(inbox_id, raw)])
        return True

    try:
        return database.retrying(work)
    except UnavailableError:
        raise
    except Exception as error:
        if lost_race(error):
            return False
        with database.transaction() as connection:
            _failed(connection, inbox_id, error)
        return True


def _read(
    connection: Connection, door: EventDoor, hash_of: HashOf | None, claimed: Sequence[tuple[int, bytes]]
) -> None:
    """Take in all of these; those that are no list of events are counted as failed, which no statement has seen."""
    arrived: list[ProviderEvent] = []
    good = []
    for inbox_id, raw in claimed:
        try:
            arrived += door.events(raw)
            good.append(inbox_id)
        except Exception as error:
            _failed(connection, inbox_id, error)
    take_in(connection, arrived, hash_of)
    events.inbox_done(connection, good)


def _failed(connection: Connection, inbox_id: int, error: Exception) -> None:
    log.error("webhook %d could not be read: %s", inbox_id, type(error).__name__)
    events.inbox_failed(connection, inbox_id, _why(error))


def _why(error: Exception) -> str:
    """For an operator's eyes, without a word of the webhook: it holds addresses. A ValueError's text is our own."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    if isinstance(error, ValueError):
        return str(error)
    return f"{type(error).__name__}{f' ({state})' if state else ''}"


def take_in(connection: Connection, arrived: Sequence[ProviderEvent], hash_of: HashOf | None = None) -> None:
    """Record these events and everything that follows from them, in the caller's transaction.

    All that may change is locked before the first change: batches, then enrollments, by id.
    """
    if not arrived:
        return
    times = clock.read(connection)
    batches_known = events.batches_told(connection, sorted({event.batch for event in arrived if event.batch}))
    told = _about(connection, arrived, batches_known, hash_of)
    proven = {one.batch_id for one in told if one.proves and one.batch_id is not None}
    named = sorted({one.addr_hash for one in told if one.addr_hash is not None and one.says is not None})
    unresolved = sorted(id for id in proven if batches_known[id].outcome != "accepted")
    events.hold(
        connection,
        batch_ids=unresolved,
        late=[id for id in unresolved if batches_known[id].state == "DONE"],
        subscriber_ids=sorted(
            {one.subscriber_id for one in told if (one.suppresses or one.shut) and one.subscriber_id is not None}
            | set(leaving.people_of(connection, named).values() if named else ())
        ),
    )
    for batch_id in unresolved:
        evidence = next(one.event.kind for one in told if one.proves and one.batch_id == batch_id)
        _prove(connection, batch_id, evidence, times)
    fresh = _record(connection, told, times)
    after: dict[int, str] = {}
    for one in fresh:
        if one.message_id is not None:
            moved = delivery_after(after.get(one.message_id), one.event.kind)
            if moved is not None:
                after[one.message_id] = moved
    events.move_delivery(connection, after, DELIVERY_PRECEDENCE)
    heard.suppress(connection, fresh, times)
    heard.suppress_shut(connection, fresh, times)
    heard.suppress_erased(connection, fresh, times)
    for one in fresh:
        if one.event.kind == "account":
            _account(connection, one.event)


def _about(
    connection: Connection, arrived: Sequence[ProviderEvent], known: Mapping[int, Any], hash_of: HashOf | None
) -> list[About]:
    """Whom each event is about: by the ids it carries, else by its address.

    What suppresses keeps the hash of the address it names: its person may be erased, and the hash is all there is.
    """
    pairs = [(event.batch, event.message) for event in arrived if event.batch is not None and event.message is not None]
    matched = events.messages_told(connection, (pair for pair in pairs if pair[0] in known))
    found: list[About] = []
    strangers: list[tuple[int, bytes]] = []
    hashes: dict[str, bytes | None] = {}
    for event in arrived:
        addr_hash = None
        if hash_of is not None and event.address and event.kind in _BY_ADDRESS:
            if event.address not in hashes:
                hashes[event.address] = _hashed(hash_of, event.address)
            addr_hash = hashes[event.address]
        row = None if event.batch is None or event.message is None else matched.get((event.batch, event.message))
        if row is not None:
            found.append(About(event, event.batch, row.id, row.subscriber_id, proves=True, addr_hash=addr_hash))
            continue
        if addr_hash is not None:
            strangers.append((len(found), addr_hash))
        found.append(About(event, event.batch if event.batch in known else None, addr_hash=addr_hash))
    people = events.people_told(connection, ((addr_hash, found[place].event.at) for place, addr_hash in strangers))
    for place, addr_hash in strangers:
        event = found[place].event
        person = people.get((addr_hash, event.at))
        if person is None:
            continue
        if event.batch is None and event.message is None:
            found[place] = About(event, person.batch_id, person.message_id, person.subscriber_id)
        else:
            # Somebody else's ids, or those of a timeline we have lost: it says nothing about an email of ours, but
            # whoever complains or is gone must not be mailed.
            found[place] = About(event, found[place].batch_id, None, person.subscriber_id)
    return found


def _hashed(hash_of: HashOf, address: str) -> bytes | None:
    try:
        return hash_of(address)
    except ValueError:  # UnicodeError among them: a domain that cannot be one
        return None


def _record(connection: Connection, told: Iterable[About], times: Times) -> list[About]:
    """Keep every event; returns those we did not hold. Of two alike, the one we know more about is kept."""
    alike: dict[str, About] = {}
    for one in told:
        kept = alike.get(one.event.dedupe)
        if kept is None or (kept.message_id is None and one.message_id is not None):
            alike[one.event.dedupe] = one
    new = [
        events.NewEvent(
            dedupe=one.event.dedupe,
            event_id=one.event.event_id,
            message_id=one.message_id,
            batch_id=one.batch_id,
            kind=one.event.kind,
            at=one.event.at,
            detail=one.event.detail,
        )
        for one in alike.values()
    ]
    fresh = events.add(connection, new, campaign_at=times.now)
    return [one for dedupe, one in alike.items() if dedupe in fresh]


def _prove(connection: Connection, batch_id: int, evidence: str, times: Times) -> None:
    """An event names a message of this batch, so the provider took it whole (A1): T10, or T13 when we thought not."""
    if resolve.accepted_in(connection, batch_id, before=("CALLING", "UNKNOWN"), evidence=f"event {evidence}"):
        return
    # Read again: somebody may have resolved it while we waited for its lock.
    batch = events.batches_told(connection, [batch_id])[batch_id]
    if batch.state == "OPEN":
        log.error("an event speaks of batch %d, for which nobody has called yet", batch_id)
    elif batch.outcome != "accepted":
        late(connection, batch_id, times)


def prove(connection: Connection, batch_id: int) -> None:
    """The provider's log shows that this batch was accepted: T10 while it was unclear, T13 if we thought otherwise."""
    times = clock.read(connection)
    if resolve.accepted_in(connection, batch_id, before=("CALLING", "UNKNOWN"), evidence="provider log"):
        return
    batch = batches.by_id(connection, batch_id)
    if batch is not None and batch.state == "DONE" and batch.outcome != "accepted":
        late(connection, batch_id, times)


def late(connection: Connection, batch_id: int, times: Times) -> None:
    """T13: the record follows the evidence, whatever we concluded. A call is accepted whole (A1), so all in it are."""
    log.warning("late evidence: batch %d was accepted after all", batch_id)
    batches.lock(connection, batch_id, ("DONE",))
    batches.accepted_after_all(connection, batch_id, times.now)
    batch = batches.by_id(connection, batch_id)
    assert batch is not None
    rows = messages.of_batch(connection, batch.message_ids)
    for other in sorted({row.batch_id for row in rows if row.batch_id is not None and row.state == "IN_BATCH"}):
        # Written, not only locked: a final check that has read this message already must not go on with it.
        batches.disturb(connection, other)
    enrollments.lock(connection, [row.enrollment_id for row in rows])
    # Read again, now that nobody can move them. An enrollment that went on without this message stays where it is.
    for row in sorted(messages.of_batch(connection, batch.message_ids), key=lambda row: int(row.id)):
        accepted = outcomes.accept_late(connection, row.id, batch_id, times.now)
        if accepted is not None:
            if row.state in _OPEN:
                enrollments.move_on(connection, [(accepted.enrollment_id, accepted.step_key)], times.now)
            outcomes.log(connection, [(row.id, "late evidence")], "T13", batch_id, "evidence")
    campaigns.ring(connection, "plan")


def _account(connection: Connection, event: ProviderEvent) -> None:
    """The provider shut our account: every lane closes at once, and tries a single message later (rules 2.8)."""
    if event.reason != "reactivate":
        log.critical("the provider changed the state of the account: %s", event.reason)
        batches.went_badly(connection, Lane.DRIP, f"account: {event.reason}", at_once=True)


def retry(connection: Connection, inbox_id: int | None, *, actor: str, reason: str) -> list[int]:
    """Let a webhook that was set aside be read again, or all of them (None); who asked and why is kept.

    Returns which. Raises RefusedError for a webhook that is not set aside.
    """
    again = events.retry(connection, inbox_id)
    if inbox_id is not None and not again:
        raise RefusedError(f"no webhook {inbox_id} is set aside. The ones that are: dripwell events list --quarantined")
    if again:
        about = "all webhooks" if inbox_id is None else f"webhook {inbox_id}"
        detail = {"webhooks": again[:1000], "reason": reason}
        campaigns.add_activity(connection, actor=actor, action="read again", about=about, detail=detail)
        campaigns.ring(connection, "ingest")
    return again


def silent(connection: Connection, *, provider: str) -> list[str]:
    """V12: what we should have heard of this provider by now and have not, one sentence an alarm. Empty: all is well.

    Wall time throughout. Reads only; for the auditor, every few minutes.
    """
    found = []
    unread = audit.oldest_unread(connection)
    if unread is not None and unread > audit.UNREAD_SECONDS:
        found.append(f"webhooks are not read: the oldest waits for {unread / 60:.0f} minutes")
    mute = audit.accepted_in_silence(connection, provider)
    if mute is not None:
        found.append(
            f"no event for {mute / 60:.0f} minutes although {provider} accepted messages: is the event webhook on, and "
            "does its address lead here?"
        )
    gap = audit.without_event(connection, provider)
    if gap:
        found.append(
            "webhook gap: no event, 24 hours after they were accepted, about messages " + ", ".join(map(str, gap))
        )
    aside = events.waiting(connection)["quarantined"]
    if aside:
        found.append(f"{aside} webhooks are set aside unread: dripwell events list --quarantined")
    return found
