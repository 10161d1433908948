"""Batches: one call to the provider each. `message_ids` is kept for ever; only CALLING and UNKNOWN are ambiguous."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from dripwell.storage.database import Connection

BATCH_STEP = 100
"""By how much a batch limit grows that was too large before."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that makes calls: its host, that host's boot and its pid tell the janitor when it is gone."""

    host: str
    boot_id: str
    pid: int


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch that is not done."""

    id: int
    lane: str
    campaign_id: int
    step_key: str
    state: str
    host: str
    boot_id: str
    pid: int
    lease_over: bool
    called_at: datetime | None
    called_seconds: float | None  # wall seconds since the mark
    unknown_seconds: float | None  # wall seconds since a call was certainly over, or came back out of a journal
    asked_seconds: float | None  # wall seconds since the provider's log was asked last
    empty_rounds: int
    message_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LaneRow:
    """A lane's breaker and pace. `shut`: nobody may be called now.

    That is so while the breaker is open, in quarantine, and in marketing lanes while the clock is in doubt.
    """

    lane: str
    breaker: str
    shut: bool
    batch_limit: int
    last_campaign_id: int
    last_step_key: str
    epoch: int


# open_batch (T2): the lease runs from now; nothing has been called.
_OPEN_BATCH = text("""
INSERT INTO batch (provider, lane, campaign_id, step_key, version_id, variant, suspects_of, state, owner_nonce, host,
                   boot_id, pid, lease_until, message_ids)
VALUES (:provider, :lane, :campaign_id, :step_key, :version_id, :variant, :suspects_of, 'OPEN', :nonce, :host,
        :boot_id, :pid, wall() + make_interval(secs => :lease), :message_ids)
RETURNING id
""")


def open_batch(
    connection: Connection,
    *,
    provider: str,
    lane: str,
    campaign_id: int,
    step_key: str,
    version_id: int,
    owner: Owner,
    nonce: UUID,
    lease_seconds: float,
    message_ids: Sequence[int],
    variant: int = 0,
    suspects_of: int | None = None,
) -> int:
    """T2: record a batch that nobody has called for yet; returns its id.

    `suspects_of`: these are part of that refused batch, called for to find who in it is refused.
    """
    values = {
        "provider": provider,
        "lane": lane,
        "campaign_id": campaign_id,
        "step_key": step_key,
        "version_id": version_id,
        "variant": variant,
        "suspects_of": suspects_of,
        "nonce": nonce,
        "host": owner.host,
        "boot_id": owner.boot_id,
        "pid": owner.pid,
        "lease": lease_seconds,
        "message_ids": list(message_ids),
    }
    found: int = connection.execute(_OPEN_BATCH, values).scalar_one()
    return found


# mark_calling (T3): only the owner, only within the lease, only while campaign and lane are open.
_MARK_CALLING = text("""
UPDATE batch SET state = 'CALLING', called_at = wall()
 WHERE id = :id AND state = 'OPEN' AND owner_nonce = :nonce AND lease_until > wall()
   AND EXISTS (SELECT FROM campaign
                WHERE campaign.id = batch.campaign_id AND campaign.state = 'running')
   AND EXISTS (SELECT FROM lane_state
                WHERE lane_state.lane = batch.lane
                  AND (lane_state.breaker <> 'open' OR lane_state.breaker_until <= wall()))
   AND EXISTS (SELECT FROM installation WHERE quarantined_at IS NULL)
""")


def mark_calling(connection: Connection, batch_id: int, nonce: UUID) -> bool:
    """T3: from this commit on the provider may have it. False: lease over, campaign not running, lane closed."""
    return connection.execute(_MARK_CALLING, {"id": batch_id, "nonce": nonce}).rowcount == 1


# state: of a batch that is ours.
_STATE = text("SELECT state FROM batch WHERE id = :id AND owner_nonce = :nonce")


def state(connection: Connection, batch_id: int, nonce: UUID) -> str | None:
    """The state of our own batch, read back after a commit whose answer was lost; None when it is not ours."""
    found: str | None = connection.execute(_STATE, {"id": batch_id, "nonce": nonce}).scalar()
    return found


# opened: a batch whose number its owner never learned.
_OPENED = text("SELECT id FROM batch WHERE state = 'OPEN' AND owner_nonce = :nonce")


def opened(connection: Connection, nonce: UUID) -> int | None:
    """The OPEN batch with this nonce: what is left of a claim whose COMMIT went through without an answer."""
    found: int | None = connection.execute(_OPENED, {"nonce": nonce}).scalar()
    return found


# may_still_call: what `mark_calling` asked, asked again.
_MAY_STILL_CALL = text("""
SELECT batch.state = 'CALLING' AND campaign.state = 'running'
       AND (lane_state.breaker <> 'open' OR lane_state.breaker_until <= wall())
       AND installation.quarantined_at IS NULL
  FROM batch
  JOIN campaign ON campaign.id = batch.campaign_id
  JOIN lane_state ON lane_state.lane = batch.lane
 CROSS JOIN installation
 WHERE batch.id = :id
""")


def may_still_call(connection: Connection, batch_id: int) -> bool:
    """Whether campaign and lane are still open for this CALLING batch: read in the final check."""
    found: bool = connection.execute(_MAY_STILL_CALL, {"id": batch_id}).scalar_one()
    return found


# store_payload: whose suppressions a call obeys is a snapshot, not a time: commits are not in the order of any clock.
_STORE_PAYLOAD = text("""
UPDATE batch
   SET message_ids = :message_ids, payload_sha256 = :sha256,
       checked_at = wall(), checked_snapshot = pg_current_snapshot()
 WHERE id = :id AND state = 'CALLING'
""")


def store_payload(connection: Connection, batch_id: int, message_ids: Sequence[int], sha256: bytes) -> None:
    """Keep exactly who is in the payload, and the snapshot whose suppressions it obeys."""
    connection.execute(_STORE_PAYLOAD, {"id": batch_id, "message_ids": list(message_ids), "sha256": sha256})


# lock: batches come first in the order everybody locks in.
_LOCK = text("""
SELECT id
  FROM batch
 WHERE id = :id AND state = ANY(:before)
   FOR UPDATE
""")


def lock(connection: Connection, batch_id: int, before: Sequence[str]) -> bool:
    """Lock a batch that is in one of these states; False when it no longer is: somebody else was first."""
    return connection.execute(_LOCK, {"id": batch_id, "before": list(before)}).first() is not None


# done: whatever its state was; the lock has asked.
_DONE = text("""
UPDATE batch
   SET state = 'DONE', outcome = :outcome, resolved_at = wall(), accepted_at = :accepted_at, refused_row = :refused_row,
       detail = coalesce(nullif(:detail, ''), detail),
       http_status = coalesce(:status, http_status), x_message_id = coalesce(:provider_id, x_message_id)
 WHERE id = :id
""")


def done(
    connection: Connection,
    batch_id: int,
    outcome: str,
    *,
    status: int | None = None,
    detail: str = "",
    provider_id: str | None = None,
    accepted_at: datetime | None = None,
    refused_row: int | None = None,
) -> None:
    """Close a batch this transaction has locked. `accepted_at` is campaign time."""
    values = {
        "id": batch_id,
        "outcome": outcome,
        "status": status,
        "detail": detail[:500],
        "provider_id": provider_id,
        "accepted_at": accepted_at,
        "refused_row": refused_row,
    }
    connection.execute(_DONE, values)


# unknown (T9): only from CALLING; the janitor may have been first.
_UNKNOWN = text("""
UPDATE batch SET state = 'UNKNOWN', unknown_at = wall(), http_status = :status, detail = :detail
 WHERE id = :id AND state = 'CALLING'
""")


def unknown(connection: Connection, batch_id: int, *, status: int | None, detail: str) -> None:
    """T9: nobody can say; evidence will."""
    connection.execute(_UNKNOWN, {"id": batch_id, "status": status, "detail": detail[:500]})


# disturb: a row that changed makes whoever read it in a snapshot start again (40001).
_DISTURB = text("UPDATE batch SET detail = detail WHERE id = :id AND state <> 'DONE'")


def disturb(connection: Connection, batch_id: int) -> None:
    """Lock a batch so that a final check under way, which cannot see what this transaction does, fails with 40001."""
    connection.execute(_DISTURB, {"id": batch_id})


# accepted_after_all (T13): of a batch that was closed otherwise.
_ACCEPTED_AFTER_ALL = text("""
UPDATE batch SET outcome = 'accepted', resolved_at = wall(), accepted_at = :now, called_at = coalesce(called_at, wall())
 WHERE id = :id AND state = 'DONE'
""")


def accepted_after_all(connection: Connection, batch_id: int, now: datetime) -> None:
    """T13: evidence shows that a batch we had closed otherwise was accepted; `now` is campaign time."""
    connection.execute(_ACCEPTED_AFTER_ALL, {"id": batch_id, "now": now})


# asked: remember when, and whether the answer was empty.
_ASKED = text("""
UPDATE batch SET asked_at = wall(), empty_rounds = empty_rounds + :empty
 WHERE id = :id AND state = 'UNKNOWN'
""")


def asked(connection: Connection, batch_id: int, *, empty: bool) -> None:
    """The provider's log was asked about this batch; an answered and empty round counts toward negative proof."""
    connection.execute(_ASKED, {"id": batch_id, "empty": 1 if empty else 0})


# refusals: since the same words were accepted last.
_REFUSALS = text("""
SELECT cardinality(message_ids) AS people, detail, refused_row IS NOT NULL AS named,
       suspects_of IS NOT NULL AS suspected
  FROM batch
 WHERE campaign_id = :campaign_id AND version_id = :version_id AND step_key = :step_key AND outcome = 'refused'
   AND id > coalesce((SELECT max(id) FROM batch
                       WHERE campaign_id = :campaign_id AND version_id = :version_id AND step_key = :step_key
                         AND outcome = 'accepted'), 0)
 ORDER BY id DESC
 LIMIT :limit
""")


def refusals(connection: Connection, campaign_id: int, version_id: int, step_key: str, limit: int) -> list[Any]:
    """The last refused calls for this email, with none accepted between, newest first.

    Each has people, detail (the provider's words), named (it said who is at fault) and suspected (it was a part of an
    earlier refused call).
    """
    values = {"campaign_id": campaign_id, "version_id": version_id, "step_key": step_key, "limit": limit}
    return list(connection.execute(_REFUSALS, values))


# refused_alone: the newest answer about this email, if nothing was accepted since a whole call of it was refused.
_REFUSED_ALONE = text("""
SELECT newest.outcome = 'refused' AND cardinality(newest.message_ids) = 1 AND newest.refused_row IS NULL
       AND EXISTS (SELECT FROM batch
                    WHERE batch.campaign_id = :campaign_id AND batch.step_key = :step_key AND batch.outcome = 'refused'
                      AND batch.suspects_of IS NULL
                      AND batch.id > coalesce((SELECT max(id) FROM batch
                                                WHERE campaign_id = :campaign_id AND step_key = :step_key
                                                  AND outcome = 'accepted'), 0))
  FROM batch AS newest
 WHERE newest.campaign_id = :campaign_id AND newest.step_key = :step_key AND newest.outcome IN ('accepted', 'refused')
 ORDER BY newest.id DESC
 LIMIT 1
""")


def refused_alone(connection: Connection, campaign_id: int, step_key: str) -> bool:
    """Whether a message was refused alone and nobody was accepted since the call it was in: it may be the words."""
    values = {"campaign_id": campaign_id, "step_key": step_key}
    return bool(connection.execute(_REFUSED_ALONE, values).scalar())


# not_done: for the janitor, and then for settling: a provider's log that hangs must not keep the janitor waiting.
_NOT_DONE = text("""
SELECT id, lane, campaign_id, step_key, state, host, boot_id, pid, lease_until < wall() AS lease_over, called_at,
       extract(epoch FROM wall() - called_at)::float8 AS called_seconds,
       extract(epoch FROM wall() - coalesce(replayed_at, unknown_at, called_at))::float8 AS unknown_seconds,
       extract(epoch FROM wall() - asked_at)::float8 AS asked_seconds,
       empty_rounds, message_ids
  FROM batch
 WHERE state <> 'DONE' AND kind = 'messages'
 ORDER BY state = 'UNKNOWN', asked_at NULLS FIRST, id
""")


def not_done(connection: Connection) -> list[BatchRow]:
    """Every batch that is OPEN or CALLING, then those UNKNOWN, whom nobody asked about for the longest time first."""
    rows = connection.execute(_NOT_DONE)
    return [BatchRow(**{**row._mapping, "message_ids": tuple(row.message_ids)}) for row in rows]


# by_id: a batch of messages, in whatever state; test mails prove nothing.
_BY_ID = text("""
SELECT id, state, outcome, suspects_of, message_ids
  FROM batch
 WHERE id = :id AND kind = 'messages'
""")


def by_id(connection: Connection, batch_id: int) -> Any | None:
    """What evidence is matched against: id, state, outcome, suspects_of, message_ids."""
    return connection.execute(_BY_ID, {"id": batch_id}).first()


# events_after: anything the provider told us about a later batch.
_EVENTS_AFTER = text("SELECT EXISTS (SELECT FROM provider_event WHERE batch_id > :id)")


def events_after(connection: Connection, batch_id: int) -> bool:
    """Whether the event channel is alive: an event of a later batch has arrived."""
    found: bool = connection.execute(_EVENTS_AFTER, {"id": batch_id}).scalar_one()
    return found


# lane: its breaker, its pace and its turn.
_LANE = text("""
SELECT lane_state.lane, lane_state.breaker, lane_state.batch_limit, lane_state.last_campaign_id,
       lane_state.last_step_key, installation.epoch,
       lane_state.breaker = 'open' AND lane_state.breaker_until > wall()
       OR installation.quarantined_at IS NOT NULL
       OR installation.clock_alarm IS NOT NULL AND lane_state.lane IN ('drip', 'newsletter') AS shut
  FROM lane_state CROSS JOIN installation
 WHERE lane_state.lane = :lane
""")


def lane(connection: Connection, name: str) -> LaneRow:
    """Read a lane's breaker, batch limit and the group it served last."""
    return LaneRow(**connection.execute(_LANE, {"lane": name}).one()._mapping)


# served: where the next turn begins.
_SERVED = text("""
UPDATE lane_state SET last_campaign_id = :campaign_id, last_step_key = :step_key
 WHERE lane = :lane
""")


def served(connection: Connection, name: str, campaign_id: int, step_key: str) -> None:
    """Remember the group this lane served last: groups take turns."""
    connection.execute(_SERVED, {"lane": name, "campaign_id": campaign_id, "step_key": step_key})


# went_well: below the threshold the limit doubles, above it grows by a step. A lane at its best is not written.
_WENT_WELL = text("""
UPDATE lane_state
   SET batch_limit = CASE WHEN batch_limit < batch_threshold THEN least(batch_threshold, batch_limit * 2)
                          ELSE least(1000, batch_limit + :step) END,
       batch_threshold = CASE WHEN batch_limit + :step >= 1000 THEN 1000 ELSE batch_threshold END,
       breaker = 'closed', breaker_until = NULL, breaker_reason = NULL, breaker_opened = 0, trial_until = NULL,
       failures = 0, failing_since = NULL
 WHERE lane = :lane AND (batch_limit < 1000 OR breaker <> 'closed' OR failures > 0)
""")


def went_well(connection: Connection, name: str) -> None:
    """An accepted batch: the limit doubles, or grows by a step once it was too large before; the breaker closes."""
    connection.execute(_WENT_WELL, {"lane": name, "step": BATCH_STEP})


# shrink: half of what was tried, never less than one; growing is careful from there on.
_SHRINK = text("""
UPDATE lane_state
   SET batch_limit = greatest(1, least(batch_limit, :size) / 2),
       batch_threshold = greatest(1, least(batch_limit, :size) / 2)
 WHERE lane = :lane
""")


def shrink(connection: Connection, name: str, size: int) -> None:
    """A batch of this size ended badly: the next ones are half as large."""
    connection.execute(_SHRINK, {"lane": name, "size": size})


# try_once: while the breaker is not closed, one call at a time; a sender that died with the trial blocks nobody long.
_TRY_ONCE = text("""
UPDATE lane_state SET trial_until = wall() + interval '60 s'
 WHERE lane = :lane AND (trial_until IS NULL OR trial_until <= wall())
""")


def try_once(connection: Connection, name: str) -> bool:
    """Take the one trial of a lane whose breaker is half open; False when somebody else tries just now."""
    return connection.execute(_TRY_ONCE, {"lane": name}).rowcount == 1


# trial_over: whoever held the trial did not call.
_TRIAL_OVER = text("UPDATE lane_state SET trial_until = NULL WHERE lane = :lane AND trial_until IS NOT NULL")


def trial_over(connection: Connection, name: str) -> None:
    """The trial of this lane told nothing about the provider: the next one may try."""
    connection.execute(_TRIAL_OVER, {"lane": name})


# count_failure: failures within 30 s of the first belong together.
_COUNT_FAILURE = text("""
UPDATE lane_state
   SET failures = CASE WHEN failing_since > wall() - interval '30 s' THEN failures + 1 ELSE 1 END,
       failing_since = CASE WHEN failing_since > wall() - interval '30 s' THEN failing_since ELSE wall() END
 WHERE lane = :lane
""")

# open_breaker: of this lane after five failures, or when the one message that tried failed too, or of every lane at
# once; for longer each time. What was under way when it opened does not make it longer.
_OPEN_BREAKER = text("""
UPDATE lane_state
   SET breaker = 'open', breaker_reason = :reason, breaker_opened = breaker_opened + 1, trial_until = NULL,
       breaker_until = wall() + least(interval '10 min', interval '30 s' * power(2, least(breaker_opened, 5)))
 WHERE :at_once AND (breaker <> 'open' OR breaker_until <= wall())
    OR lane = :lane AND (failures >= 5 AND breaker <> 'open' OR breaker = 'open' AND breaker_until <= wall())
""")


def went_badly(connection: Connection, name: str, reason: str, *, at_once: bool) -> None:
    """Count a failure. Five within 30 s open this lane's breaker; one that concerns the account opens every lane's.

    It stays open for 30 s first, doubling to 10 minutes; then one real message tries.
    """
    connection.execute(_COUNT_FAILURE, {"lane": name})
    connection.execute(_OPEN_BREAKER, {"lane": name, "reason": reason[:200], "at_once": at_once})
