"""Ingest: read the inbox of webhooks, one transaction each. Evidence first, then delivery, then suppressions."""

from __future__ import annotations

import logging
from collections.abc import Callable

from dripwell.core.campaign import Lane
from dripwell.core.errors import UnavailableError
from dripwell.core.states import DELIVERY_PRECEDENCE, MessageState, delivery_after
from dripwell.delivery.provider import EventDoor, ProviderEvent
from dripwell.services import leave, resolve
from dripwell.storage import batches, campaigns, clock, enrollments, events, messages, outcomes
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection, Database, lost_race

log = logging.getLogger("dripwell.ingest")

_SUPPRESSES = {"complained": ("all", "complained"), "unsubscribed": ("marketing", "unsubscribed")}
_OPEN = frozenset({MessageState.PLANNED, MessageState.IN_BATCH, MessageState.HELD})
"""States of a message that its enrollment waits for."""


def ingest(database: Database, door: EventDoor, *, out_of_time: Callable[[], bool]) -> int:
    """Read webhooks until none is left, or time is up; returns how many. A broken one never stops the rest."""
    read = 0
    while not out_of_time():
        inbox_id: int | None = None
        try:
            with database.transaction() as connection:
                claimed = events.claim_inbox(connection)
                if claimed is None:
                    break
                inbox_id, raw = claimed
                take_in(connection, door.events(raw))
                events.inbox_done(connection, inbox_id)
        except UnavailableError:
            raise
        except Exception as error:  # a webhook holds what strangers wrote: none may stop those behind it
            if inbox_id is None:
                raise
            if lost_race(error):
                continue
            log.error("webhook %d could not be read: %s", inbox_id, type(error).__name__)
            with database.transaction() as connection:
                events.inbox_failed(connection, inbox_id, f"{type(error).__name__}: {error}")
        read += 1
    return read


def take_in(connection: Connection, arrived: list[ProviderEvent]) -> None:
    """Record these events and everything that follows from them, in the caller's transaction."""
    times = clock.read(connection)
    by_batch: dict[int, list[ProviderEvent]] = {}
    for event in arrived:
        if event.batch is not None:
            by_batch.setdefault(event.batch, []).append(event)
        elif _record(connection, event, None, None, times) and event.kind == "account":
            _account(connection, event)
    for batch_id in sorted(by_batch):
        _take_in_batch(connection, batch_id, by_batch[batch_id], times)


def _take_in_batch(connection: Connection, batch_id: int, arrived: list[ProviderEvent], times: Times) -> None:
    batch = batches.by_id(connection, batch_id)
    if batch is None:
        for event in arrived:
            _record(connection, event, None, None, times)
        return
    known = {row.public_id: row for row in messages.of_batch(connection, batch.message_ids)}
    fresh = []
    for event in arrived:
        row = known.get(event.message) if event.message is not None else None
        if _record(connection, event, row.id if row else None, batch_id, times) and row is not None:
            fresh.append((event, row))
    if not fresh:
        return
    if not resolve.accepted_in(
        connection, batch_id, before=("CALLING", "UNKNOWN"), evidence=f"event {fresh[0][0].kind}"
    ):
        # Read again: somebody may have resolved it while we waited for its lock.
        batch = batches.by_id(connection, batch_id)
        assert batch is not None
        if batch.state == "OPEN":
            log.error("an event speaks of batch %d, for which nobody has called yet", batch_id)
        elif batch.state == "DONE" and batch.outcome != "accepted":
            _late(connection, batch_id, times)
    delivery: dict[int, str | None] = {}
    for event, row in fresh:
        delivery[row.id] = delivery_after(delivery.get(row.id, row.delivery), event.kind)
    for message_id in sorted(delivery):
        after = delivery[message_id]
        if after is not None:
            before = DELIVERY_PRECEDENCE[: DELIVERY_PRECEDENCE.index(after)]
            outcomes.set_delivery(connection, message_id, before, after)
    for event, row in sorted(fresh, key=lambda pair: int(pair[1].subscriber_id)):
        _suppress(connection, event, row.subscriber_id, times)


def _record(
    connection: Connection, event: ProviderEvent, message_id: int | None, batch_id: int | None, times: Times
) -> bool:
    return events.add(
        connection,
        dedupe=event.dedupe,
        event_id=event.event_id,
        message_id=message_id,
        batch_id=batch_id,
        kind=event.kind,
        at=event.at,
        campaign_at=times.now,
        detail=event.detail,
    )


def _late(connection: Connection, batch_id: int, times: Times) -> None:
    """T13: the record follows the evidence, whatever we concluded. A call is accepted whole (A1), so all in it are."""
    log.warning("late evidence: batch %d was accepted after all", batch_id)
    batches.lock(connection, batch_id, ("DONE",))
    batches.accepted_after_all(connection, batch_id)
    batch = batches.by_id(connection, batch_id)
    assert batch is not None
    rows = messages.of_batch(connection, batch.message_ids)
    for other in sorted({row.batch_id for row in rows if row.batch_id is not None and row.state == "IN_BATCH"}):
        batches.lock(connection, other, ("OPEN", "CALLING", "UNKNOWN"))
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


def _suppress(connection: Connection, event: ProviderEvent, subscriber_id: int, times: Times) -> None:
    if event.kind == "bounced" and event.hard:
        scope, reason = "all", "undeliverable"
    elif event.kind in _SUPPRESSES:
        scope, reason = _SUPPRESSES[event.kind]
    else:
        return
    leave.suppress(
        connection,
        subscriber_id=subscriber_id,
        scope=scope,
        reason=reason,
        source="provider",
        evidence=event.event_id or event.dedupe,
        times=times,
    )
