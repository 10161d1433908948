"""Ingest: read the inbox of webhooks, one transaction each. Evidence first, then delivery, then suppressions."""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError

from dripwell.core.states import DELIVERY_PRECEDENCE, delivery_after
from dripwell.delivery.provider import EventDoor, ProviderEvent
from dripwell.services import leave, resolve
from dripwell.storage import batches, campaigns, clock, enrollments, events, messages
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection, Database

log = logging.getLogger("dripwell.ingest")

_SUPPRESSES = {"complained": ("all", "complained"), "unsubscribed": ("marketing", "unsubscribed")}


def ingest(database: Database, door: EventDoor, *, out_of_time: Callable[[], bool]) -> int:
    """Read webhooks until none is left, or time is up. Returns how many were read. A broken one never stops the rest."""
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
        except (ValueError, DBAPIError) as error:
            if inbox_id is None:
                raise
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
        else:
            _record(connection, event, None, None, times)
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
    if batch.state in ("CALLING", "UNKNOWN"):
        resolve.accepted_in(connection, batch_id, before=("CALLING", "UNKNOWN"), evidence=f"event {fresh[0][0].kind}")
    elif batch.outcome != "accepted":
        _late(connection, batch_id, [row.id for _, row in fresh], times)
    delivery: dict[int, str | None] = {}
    for event, row in fresh:
        delivery[row.id] = delivery_after(delivery.get(row.id, row.delivery), event.kind)
    for message_id in sorted(delivery):
        after = delivery[message_id]
        if after is not None:
            before = DELIVERY_PRECEDENCE[: DELIVERY_PRECEDENCE.index(after)]
            messages.set_delivery(connection, message_id, before, after)
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


def _late(connection: Connection, batch_id: int, message_ids: list[int], times: Times) -> None:
    """T13: the record follows the evidence, whatever we had concluded."""
    log.warning("late evidence: batch %d was accepted after all", batch_id)
    batches.lock(connection, batch_id, ("DONE",))
    batches.accepted_after_all(connection, batch_id)
    rows = {row.id: row for row in messages.of_batch(connection, message_ids)}
    present = sorted({row.batch_id for row in rows.values() if row.batch_id is not None and row.state == "IN_BATCH"})
    for other in present:
        batches.lock(connection, other, ("OPEN", "CALLING", "UNKNOWN"))
    enrollments.lock(connection, [row.enrollment_id for row in rows.values()])
    for message_id in sorted(rows):
        row = messages.accept_late(connection, message_id, batch_id, times.now)
        if row is not None:
            enrollments.move_on(connection, [(row.enrollment_id, row.step_key)], times.now)
            messages.log(connection, [(message_id, "late evidence")], "T13", batch_id, "evidence")
    campaigns.ring(connection, "plan")


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
