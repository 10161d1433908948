"""Step 10 of sending (TX3): what became of a call is written down, and the lane learns from it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from dripwell.core.errors import UnavailableError
from dripwell.delivery.provider import Accepted, Mailing, NotSent, Outcome, Refused, Unknown
from dripwell.services import leave, resolve
from dripwell.services.sender import Batch, Sender
from dripwell.storage import batches, campaigns, clock, suppressions
from dripwell.storage.database import Connection

log = logging.getLogger("dripwell.send")

REFUSALS = 12
"""So many rows in a row that the provider names, and more than a share of the calls they were in, pause a campaign."""
BAD_ROWS = 0.05
"""That share. Below it a bad row costs itself alone."""
MANY = 40
"""So many refused calls without one that is accepted pause a campaign, whatever they say."""
_WORDS = {Accepted: "accepted", NotSent: "not_sent", Refused: "refused", Unknown: "unknown"}
RECORD_FOR = 60.0
"""How long what only this process knows is offered to a database that is away; then evidence settles the batch."""


def record(sender: Sender, batch: Batch, mailing: Mailing, outcome: Outcome) -> None:
    """Write down what became of the call; offered for a minute to a database that is away."""
    # The line before the call named everybody who was claimed; the final check may have left some of them out.
    left_out = {a.public_id for a in batch.addressees} - {envelope.message for envelope in mailing.envelopes}
    sender.journal.after(
        epoch=batch.epoch,
        batch=batch.id,
        nonce=batch.nonce,
        outcome=_WORDS[type(outcome)],
        at=batch.claimed_at,
        left_out=sorted(left_out),
    )
    keep_trying(batch, lambda: _record(sender, batch, mailing, outcome))


def keep_trying(batch: Batch, write: Callable[[], None]) -> None:
    """Offer what only this process knows, for a minute. Each `write` must be safe to run twice."""
    until = time.monotonic() + RECORD_FOR
    while True:
        try:
            return write()
        except UnavailableError:
            if time.monotonic() > until:
                log.error("batch %d: what became of it could not be recorded; evidence will settle it", batch.id)
                return None
            time.sleep(0.5)


def _record(sender: Sender, batch: Batch, mailing: Mailing, outcome: Outcome) -> None:
    database, size = sender.database, len(mailing.envelopes)
    sender.failpoint("before_record_commit")
    match outcome:
        case Accepted(provider_id=provider_id, status=status):
            resolve.accepted(database, batch.id, before=("CALLING", "UNKNOWN"), status=status, provider_id=provider_id)
        case NotSent(person=True) as refusal if resolve.tried_enough(database, batch.id):
            resolve.refused(database, batch.id, Refused(refusal.reason, refusal.status or 0), size)
        case NotSent() as refusal:
            seconds = refusal.retry_after.total_seconds() if refusal.retry_after else None
            resolve.not_sent(database, batch.id, refusal.reason, seconds=seconds, status=refusal.status, attempted=True)
        case Refused() as refusal:
            resolve.refused(database, batch.id, refusal, size)
            if refusal.hard:
                _nobody_there(sender, batch, mailing, refusal)
        case Unknown(reason=reason, status=status):
            resolve.unknown(database, batch.id, reason, status)
    with database.transaction() as connection:
        _learn(connection, batch, outcome, size)
    if isinstance(outcome, NotSent) and outcome.rate_limited:
        sender.limiter.throttled(outcome.retry_after.total_seconds() if outcome.retry_after else None)


def _nobody_there(sender: Sender, batch: Batch, mailing: Mailing, refusal: Refused) -> None:
    """The address does not exist, said in the answer itself: nothing goes there any more, in no lane (rules 2.6)."""
    message = mailing.envelopes[refusal.row or 0].message
    addressee = next(a for a in batch.addressees if a.public_id == message)

    def work(connection: Connection) -> None:
        leave.suppress(
            connection,
            subscriber_id=addressee.subscriber_id,
            scope=suppressions.ALL,
            reason="undeliverable",
            source="relay",
            evidence=f"batch {batch.id}",
            times=clock.read(connection),
        )

    sender.database.retrying(work)
    sender.fast.add([(addressee.addr_hash, suppressions.ALL)])


def _learn(connection: Connection, batch: Batch, outcome: Outcome, size: int) -> None:
    match outcome:
        case Accepted():
            batches.went_well(connection, batch.lane)
        case NotSent(person=True):
            batches.trial_over(connection, batch.lane)
        case NotSent(rate_limited=False, reason=reason, account=account):
            batches.went_badly(connection, batch.lane, reason, at_once=account)
        case Refused() as refusal:
            if refusal.too_large and size > 1:
                batches.shrink(connection, batch.lane, size)
            if batch.marketing:  # a service email of one person must not stop everybody's
                _pause_if_refused(connection, batch, refusal, size)
        case Unknown(reason=reason):
            batches.shrink(connection, batch.lane, size)
            batches.went_badly(connection, batch.lane, reason, at_once=False)


def _pause_if_refused(connection: Connection, batch: Batch, refusal: Refused, size: int) -> None:
    # When it is the words that are refused and not one row, going on would reject the whole campaign, person by person.
    refusals = batches.refusals(connection, batch.campaign_id, batch.published.version_id, batch.step_key, MANY)
    unnamed = [row for row in refusals if not row.named]
    named = [row.people for row in refusals if row.named]
    # Somebody was refused alone, and then somebody else alone who was tried to tell the words from the people.
    alone = [row for row in unnamed if row.people == 1]
    is_the_words = len(alone) > 1 and alone[0] is unnamed[0] and not alone[0].suspected
    too_many = len(named) >= REFUSALS and len(named) > max(named) * BAD_ROWS
    if (refusal.too_large and size == 1) or is_the_words or too_many or len(unnamed) >= MANY:
        pause(connection, batch, refusal.reason)


def pause(connection: Connection, batch: Batch, reason: str) -> None:
    """Pause the campaign of this batch, on the sender's word: nobody loses their place."""
    if campaigns.set_state(connection, batch.campaign_id, ("running",), "paused"):
        log.critical("campaign %d is paused because of its email %s: %s", batch.campaign_id, batch.step_key, reason)
        name = batch.published.campaign.name
        detail = {"email": batch.step_key, "reason": reason}
        campaigns.add_activity(connection, actor="sender", action="paused", about=name, detail=detail)
