"""Settling: the janitor for batches whose owner is gone, and evidence or negative proof for those nobody can judge."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

from dripwell.delivery.provider import Provider
from dripwell.services import ingest, leave, resolve
from dripwell.storage import batches, clock, messages, outcomes, witness
from dripwell.storage.batches import BatchRow, Owner
from dripwell.storage.database import Database
from dripwell.storage.fast import Fast

log = logging.getLogger("dripwell.settle")

OVERDUE = 90.0
"""Wall seconds after which a CALLING batch is UNKNOWN, whatever its owner is doing."""
ASKED = 5
"""Messages of a batch the provider's log is asked about: a call is accepted whole or not at all (A1)."""
ROUNDS = 2
"""So often the log must have been asked, answered, and not have had it."""
BEFORE = timedelta(minutes=2)
"""How long before the call the log is searched from: the provider's clock is not ours."""
SERVICE_LANES = ("confirm", "booking")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long we wait for evidence, in wall seconds (SENDING sections 7 and 17).

    `grace` (G): no accepted message is missing from the provider's log after it. `round_gap`: between two rounds of
    asking. `window`: without evidence either way, HELD at its end. `resend`: what negative proof allows in the
    marketing lanes. `channel`: negative proof also needs a sign of life from the event channel.
    """

    grace: float = 3600.0
    grace_service: float = 600.0
    round_gap: float = 600.0
    window: float = 24 * 3600.0
    resend: bool = False
    channel: bool = True


SANDBOX = Patience(grace=5.0, grace_service=5.0, round_gap=1.0, window=60.0, resend=True, channel=False)
"""The sandbox answers from its own fsynced ledger, without lag, so seconds are proof enough there."""


def settle(
    database: Database,
    provider: Provider,
    fast: Fast,
    patience: Patience,
    *,
    owner: Owner,
    is_alive: Callable[[int], bool],
    out_of_time: Callable[[], bool],
) -> int:
    """Resolve what can be resolved now. Returns how many batches moved. `is_alive` knows the pids of this host."""
    with database.transaction() as connection:
        waiting = batches.not_done(connection)
        quarantined = witness.is_quarantined(connection)
    current = cache(lambda: _log_is_current(database, provider, patience))  # asked once a pass at most
    moved = 0
    for batch in waiting:
        if out_of_time():
            break
        if batch.state == "UNKNOWN":
            moved += _settle_unknown(database, provider, patience, batch, current)
        elif not (quarantined and batch.state == "OPEN"):  # the journal may know that it was called for after all
            moved += _give_up(database, batch, owner, is_alive)
    with database.transaction() as connection:
        leave.push(connection, fast)
        fast.follow(connection)
    return moved


def _give_up(database: Database, batch: BatchRow, owner: Owner, is_alive: Callable[[int], bool]) -> int:
    """The janitor: T4 or T9 for a batch whose owner is gone, or took too long."""
    gone = batch.host == owner.host and (batch.boot_id != owner.boot_id or not is_alive(batch.pid))
    if batch.state == "OPEN" and (gone or batch.lease_over):
        resolve.lapse(database, batch.id)
        return 1
    if batch.state == "CALLING" and (gone or (batch.called_seconds or 0.0) > OVERDUE):
        resolve.unknown(database, batch.id, "owner gone" if gone else "overdue", None)
        return 1
    return 0


def _settle_unknown(
    database: Database, provider: Provider, patience: Patience, batch: BatchRow, current: Callable[[], bool]
) -> int:
    # Not since the mark: a sender may stand still between mark and call, and the provider has G from the call on (A3).
    age = batch.unknown_seconds or 0.0
    service = batch.lane in SERVICE_LANES
    grace = patience.grace_service if service else patience.grace
    rounds = batch.empty_rounds
    may_ask = batch.asked_seconds is None or batch.asked_seconds >= patience.round_gap
    can = provider.capabilities
    if can.logs and age >= grace and rounds < ROUNDS and may_ask:
        found = _ask(database, provider, batch)
        if found:
            return int(resolve.accepted(database, batch.id, before=("UNKNOWN",), evidence="provider log"))
        rounds += found is not None
        with database.transaction() as connection:
            batches.asked(connection, batch.id, empty=found is not None)
    if age >= grace and _may_go_again(database, provider, patience, batch, rounds, current, service=service):
        resolve.absent(database, batch.id)
        log.warning("batch %d was never accepted: its messages are planned again", batch.id)
        return 1
    # Without events and logs no evidence can come, so a person need not wait for it.
    if age >= (patience.window if can.logs or can.events else grace):
        resolve.held(database, batch.id)
        log.error("batch %d is held: no evidence either way. An operator decides: dripwell held list", batch.id)
        return 1
    return 0


def _may_go_again(
    database: Database,
    provider: Provider,
    patience: Patience,
    batch: BatchRow,
    rounds: int,
    current: Callable[[], bool],
    *,
    service: bool,
) -> bool:
    """Negative proof, and a policy that acts on it. Service lanes go again once: one copy too many beats none."""
    if service:
        with database.transaction() as connection:
            if outcomes.went_again(connection, batch.id):
                return False
    elif not patience.resend:
        return False
    if provider.capabilities.logs:
        if rounds < ROUNDS or not current():
            return False
    elif not service or not provider.capabilities.events:
        return False
    with database.transaction() as connection:
        alive = batches.events_after(connection, batch.id)
    # Where there are no logs, only the silence of a channel that lives says anything.
    return alive or (provider.capabilities.logs and not patience.channel)


def _ask(database: Database, provider: Provider, batch: BatchRow) -> bool | None:
    """True: accepted. False: answered, and not there. None: no answer."""
    with database.transaction() as connection:
        people = messages.in_batch(connection, batch.id)[:ASKED]
        since = (batch.called_at or clock.read(connection).wall_now) - BEFORE
    for person in people:
        answer = provider.find(person.address, person.public_id, since)
        if not answer.answered:
            return None
        if answer.found and (not answer.batches or batch.id in answer.batches):
            return True
        if answer.found:
            # It proves an earlier call for this person, and nothing about this one (T13). Nobody else here was in that.
            with database.transaction() as connection:
                for other in sorted(answer.batches):
                    ingest.prove(connection, other)
            return None
    return False


def _log_is_current(database: Database, provider: Provider, patience: Patience) -> bool:
    """Whether the log shows what was accepted a tenth of the grace period ago. One that lags proves nothing (A2).

    Asked about one message of the newest accepted call that is old enough; with none to compare, the log is believed.
    """
    with database.transaction() as connection:
        control = outcomes.control(connection, patience.grace / 10, patience.window)
    if control is None:
        return True
    answer = provider.find(control.address, control.public_id, control.called_at - BEFORE)
    if answer.answered and not answer.found:
        log.error("the provider's log does not show an email of batch %d that it accepted: it lags", control.batch_id)
    return answer.answered and answer.found
