"""What becomes of a batch: each function is one transaction, or part of one, that moves a batch and its messages.

Lock order: batch, then enrollments by id, then messages. Every change is a compare-and-set: when the batch is no longer
in the state we left it in, somebody else (evidence, the janitor) was first, and we stop.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from dripwell.core.campaign import Lane
from dripwell.core.states import SUPPRESSING, Reason
from dripwell.delivery.provider import Refused
from dripwell.storage import batches, campaigns, clock, enrollments, messages, outcomes
from dripwell.storage.database import Connection, Database

POISON = 3
"""After this many owners died with a message in an OPEN batch, it is rejected."""
MOST_ATTEMPTS = 50
"""So often a mailbox may answer "not now" before its message is rejected."""
_BACKOFF = (5.0, 15.0, 60.0, 300.0, 600.0)
_UNDER_WAY = ("CALLING", "UNKNOWN")
"""Where a definitive answer finds its batch: the janitor may have lost patience with the call before its owner did."""


def accepted(
    database: Database,
    batch_id: int,
    *,
    before: Sequence[str],
    status: int | None = None,
    provider_id: str | None = None,
    evidence: str = "",
) -> bool:
    """T6 by the provider's answer, T10 by `evidence`: everybody in the batch is accepted; their journeys go on."""

    def work(connection: Connection) -> bool:
        return accepted_in(
            connection, batch_id, before=before, status=status, provider_id=provider_id, evidence=evidence
        )

    return database.retrying(work)


def accepted_in(
    connection: Connection,
    batch_id: int,
    *,
    before: Sequence[str],
    status: int | None = None,
    provider_id: str | None = None,
    evidence: str = "",
) -> bool:
    """The same in the caller's transaction. False: the batch was resolved already."""
    if not batches.lock(connection, batch_id, before):
        return False
    now = clock.read(connection).now
    enrollments.lock(connection, messages.enrollments_in(connection, batch_id))
    rows = outcomes.accept(connection, batch_id, now)
    enrollments.move_on(connection, [(row.enrollment_id, row.step_key) for row in rows], now)
    if evidence:
        outcomes.log(connection, [(row.id, evidence) for row in rows], "T10", batch_id, "evidence")
    batches.done(
        connection, batch_id, "accepted", status=status, provider_id=provider_id, detail=evidence, accepted_at=now
    )
    return True


def not_sent(
    database: Database,
    batch_id: int,
    reason: str,
    *,
    seconds: float | None,
    outcome: str = "not_sent",
    status: int | None = None,
    attempted: bool = False,
) -> None:
    """T7: certainly not accepted; everybody is PLANNED again, after `seconds` or a growing pause."""

    def work(connection: Connection) -> None:
        if not batches.lock(connection, batch_id, _UNDER_WAY):
            return
        enrollments.lock(connection, messages.enrollments_in(connection, batch_id))
        pause = seconds if seconds is not None else _pause(outcomes.most_attempts(connection, batch_id))
        ids = outcomes.back_to_planned(
            connection, batch_id, retry_after_seconds=pause, lapsed=False, attempted=attempted
        )
        end_those_who_left(connection, ids)
        outcomes.log(connection, [(identity, reason) for identity in ids], "T7", batch_id, "sender")
        batches.done(connection, batch_id, outcome, status=status, detail=reason)

    database.retrying(work)


def release(database: Database, batch_id: int, reason: str, *, seconds: float) -> None:
    """T4 by the owner: nobody called for this batch and nobody will."""

    def work(connection: Connection) -> None:
        if batches.lock(connection, batch_id, ("OPEN",)):
            enrollments.lock(connection, messages.enrollments_in(connection, batch_id))
            ids = outcomes.back_to_planned(
                connection, batch_id, retry_after_seconds=seconds, lapsed=False, attempted=False
            )
            end_those_who_left(connection, ids)
            batches.done(connection, batch_id, "not_sent", detail=reason)

    database.retrying(work)


def lapse(database: Database, batch_id: int) -> None:
    """T4 by the janitor: the owner is gone and never called. A message that outlived three owners is rejected."""

    def work(connection: Connection) -> None:
        if not batches.lock(connection, batch_id, ("OPEN",)):
            return
        enrollments.lock(connection, messages.enrollments_in(connection, batch_id))
        now = clock.read(connection).now
        poisoned = outcomes.reject(connection, outcomes.poisoned(connection, batch_id, POISON - 1), Reason.POISON)
        enrollments.move_on(connection, [(row.enrollment_id, row.step_key) for row in poisoned], now)
        outcomes.log(connection, [(row.id, "poison") for row in poisoned], "T4", batch_id, "janitor")
        ids = outcomes.back_to_planned(connection, batch_id, retry_after_seconds=0.0, lapsed=True, attempted=False)
        end_those_who_left(connection, ids)
        outcomes.log(connection, [(identity, "lease") for identity in ids], "T4", batch_id, "janitor")
        batches.done(connection, batch_id, "lease")

    database.retrying(work)


def close(database: Database, batch_id: int, outcome: str, *, before: Sequence[str]) -> None:
    """Everybody has left this batch: it is done."""

    def work(connection: Connection) -> None:
        if batches.lock(connection, batch_id, before):
            enrollments.lock(connection, messages.enrollments_in(connection, batch_id))
            ids = outcomes.back_to_planned(connection, batch_id, retry_after_seconds=1.0, lapsed=False, attempted=False)
            end_those_who_left(connection, ids)
            batches.done(connection, batch_id, outcome)

    database.retrying(work)


def unknown(database: Database, batch_id: int, reason: str, status: int | None) -> None:
    """T9: nobody can say whether it was accepted; evidence will."""
    with database.transaction() as connection:
        batches.unknown(connection, batch_id, status=status, detail=reason)


def tried_enough(database: Database, batch_id: int) -> bool:
    """Whether somebody in this batch was tried so often that one more time makes no sense: about a working day."""
    with database.transaction() as connection:
        return outcomes.most_attempts(connection, batch_id) >= MOST_ATTEMPTS


def refused(database: Database, batch_id: int, refusal: Refused, size: int) -> None:
    """T8: the named row, or a batch of one, is REJECTED; the others are PLANNED again.

    When nobody is named, one of these is why, and they are looked through half by half (`services.claim`): a half that
    is accepted leaves the culprit in the other one, so a thousand take twelve calls at most.
    """

    def work(connection: Connection) -> None:
        if not batches.lock(connection, batch_id, _UNDER_WAY):
            return
        enrollments.lock(connection, messages.enrollments_in(connection, batch_id))
        batch = batches.by_id(connection, batch_id)
        assert batch is not None
        ids = batch.message_ids  # in the payload's order
        guilty = [ids[refusal.row]] if refusal.row is not None and refusal.row < len(ids) else []
        guilty = ids if size == 1 else guilty
        reason = Reason.TOO_LARGE if refusal.too_large else Reason.REFUSED
        _reject(connection, batch_id, guilty, reason)
        back = outcomes.back_to_planned(connection, batch_id, retry_after_seconds=0.0, lapsed=False, attempted=True)
        if guilty or not refusal.too_large:
            messages.clear(connection, batch_id if batch.suspects_of is None else batch.suspects_of)
        if not guilty and not refusal.too_large:
            messages.suspect(connection, back, batch_id)
        end_those_who_left(connection, back)
        outcomes.log(connection, [(identity, refusal.reason) for identity in back], "T8", batch_id, "sender")
        row = refusal.row if guilty else None
        batches.done(connection, batch_id, "refused", status=refusal.status, detail=refusal.reason, refused_row=row)

    database.retrying(work)


def reject_rows(
    database: Database, batch_id: int, message_ids: Sequence[int], reason: str, *, before: Sequence[str]
) -> None:
    """T8 before the call: these rows do not render; the others stay in the batch."""

    def work(connection: Connection) -> None:
        if batches.lock(connection, batch_id, before):
            enrollments.lock(connection, messages.enrollments_in(connection, batch_id))
            _reject(connection, batch_id, message_ids, reason)

    database.retrying(work)


def absent(database: Database, batch_id: int) -> None:
    """T11: negative proof says it was never accepted; everybody is PLANNED again."""

    def work(connection: Connection) -> None:
        if batches.lock(connection, batch_id, ("UNKNOWN",)):
            enrollments.lock(connection, messages.enrollments_in(connection, batch_id))
            ids = outcomes.back_to_planned(connection, batch_id, retry_after_seconds=0.0, lapsed=False, attempted=True)
            end_those_who_left(connection, ids)
            outcomes.log(connection, [(identity, "negative proof") for identity in ids], "T11", batch_id, "settle")
            batches.done(connection, batch_id, "absent")

    database.retrying(work)


def held(database: Database, batch_id: int) -> None:
    """T12: no evidence either way; an operator decides."""

    def work(connection: Connection) -> None:
        if batches.lock(connection, batch_id, ("UNKNOWN",)):
            enrollments.lock(connection, messages.enrollments_in(connection, batch_id))
            ids = outcomes.hold(connection, batch_id, Reason.NO_EVIDENCE)
            outcomes.log(connection, [(identity, "no evidence") for identity in ids], "T12", batch_id, "settle")
            batches.done(connection, batch_id, "held")

    database.retrying(work)


def check_out(
    connection: Connection, batch_id: int, scopes: Sequence[str], actor: str, *, before: str, baa: bool
) -> None:
    """T5 in the caller's transaction: who must not be mailed leaves the batch, and the series where that ends it.

    Nothing is locked when nobody leaves, which is nearly always.
    """
    rows = outcomes.leaving(connection, batch_id, scopes, baa=baa)
    if not rows or not batches.lock(connection, batch_id, (before,)):
        return
    enrollments.lock(connection, [row.enrollment_id for row in rows])
    outcomes.take_out(connection, batch_id, rows)
    outcomes.log(connection, [(row.id, row.reason) for row in rows], "T5", batch_id, actor)
    now = clock.read(connection).now
    for reason in sorted({row.reason for row in rows}):
        enrollments.leave(connection, [row.enrollment_id for row in rows if row.reason == reason], reason, now)


def put_back(connection: Connection, batch_id: int, message_ids: Sequence[int], *, seconds: float) -> None:
    """T5, a hit the ledger does not confirm: these wait while the set is built anew; at the second time they are HELD.

    The ledger is right, but a set that is wrong again after it was built anew means that something else is wrong.
    """
    if not batches.lock(connection, batch_id, ("OPEN",)):
        return
    enrollments.lock(connection, messages.enrollments_in(connection, batch_id))
    doubts = outcomes.doubt(connection, message_ids)
    again = sorted(identity for identity, times in doubts.items() if times > 1)
    once = sorted(doubts.keys() - set(again))
    if again:
        outcomes.hold(connection, batch_id, Reason.DOUBTFUL, again)
        outcomes.log(connection, [(identity, Reason.DOUBTFUL) for identity in again], "T5", batch_id, "sender")
    if once:
        outcomes.back_to_planned(
            connection, batch_id, retry_after_seconds=seconds, lapsed=False, attempted=False, only=once
        )
        end_those_who_left(connection, once)
        outcomes.log(connection, [(identity, "doubtful hit") for identity in once], "T5", batch_id, "sender")


def leave_for_later(connection: Connection, batch_id: int, message_ids: Sequence[int], *, seconds: float) -> None:
    """T4 by the owner for a part of an OPEN batch: these are PLANNED again and wait."""
    if batches.lock(connection, batch_id, ("OPEN",)):
        enrollments.lock(connection, messages.enrollments_in(connection, batch_id))
        ids = outcomes.back_to_planned(
            connection, batch_id, retry_after_seconds=seconds, lapsed=False, attempted=False, only=message_ids
        )
        end_those_who_left(connection, ids)


def leave_out(connection: Connection, batch_id: int, message_ids: Collection[int]) -> None:
    """T7 for a part of a CALLING batch, inside its final check: these are not in the payload, so they are PLANNED."""
    if message_ids:
        enrollments.lock(connection, messages.enrollments_in(connection, batch_id))
        ids = outcomes.back_to_planned(
            connection, batch_id, retry_after_seconds=0.0, lapsed=False, attempted=False, only=sorted(message_ids)
        )
        end_those_who_left(connection, ids)
        outcomes.log(connection, [(identity, "changed") for identity in ids], "T7", batch_id, "sender")


def expire(connection: Connection, lane: Lane, now: datetime) -> None:
    """T15: planned messages past their `valid_until` are skipped, and their enrollments go on."""
    rows = messages.expired(connection, lane, now, 1000)
    if rows:
        ids = [row.enrollment_id for row in rows]
        enrollments.lock(connection, ids)
        # Another sender may have claimed one in time while we waited for the lock: that one is in its batch.
        ended = messages.end_planned(connection, ids, "SKIPPED", Reason.EXPIRED, "sender")
        past = [(row.enrollment_id, row.step_key) for row in rows if row.enrollment_id in ended]
        enrollments.move_on(connection, past, now)


def _reject(connection: Connection, batch_id: int, message_ids: Sequence[int], reason: str) -> None:
    rows = outcomes.reject(connection, message_ids, reason)
    enrollments.move_on(connection, [(row.enrollment_id, row.step_key) for row in rows], clock.read(connection).now)
    outcomes.log(connection, [(row.id, reason) for row in rows], "T8", batch_id, "sender")
    if rows:
        campaigns.ring(connection, "plan")


def end_those_who_left(connection: Connection, message_ids: Sequence[int], actor: str = "sender") -> None:
    """T15 for those of these PLANNED messages whose enrollment ended while they were in our hands."""
    for row in messages.of_ended_enrollments(connection, message_ids):
        state = "SUPPRESSED" if row.ended_reason in SUPPRESSING else "SKIPPED"
        messages.end_planned(connection, [row.enrollment_id], state, row.ended_reason, actor)


def _pause(attempts: int) -> float:
    return _BACKOFF[min(attempts, len(_BACKOFF) - 1)]
