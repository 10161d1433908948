"""Putting back what a restored database has forgotten: batches and their messages.

Only for a record in quarantine. Lock order as everywhere: batch, enrollments by id, messages by id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from dripwell.storage.database import Connection

# known: of these batches, those the database has. `lapsed` ones were given up in this quarantine, on a wrong guess.
_KNOWN = text("""
SELECT batch.id, batch.owner_nonce AS nonce, batch.state, batch.outcome,
       batch.called_at IS NULL AND batch.resolved_at >= installation.quarantined_at AS lapsed
  FROM batch, installation
 WHERE batch.id = ANY(:ids)
""")


def known(connection: Connection, batch_ids: Sequence[int]) -> dict[int, Any]:
    """These batches as the database has them, by id: nonce, state, outcome, lapsed."""
    return {row.id: row for row in connection.execute(_KNOWN, {"ids": list(batch_ids)})}


@dataclass(frozen=True, slots=True)
class LostCampaign:
    """The campaign of a call that the database lost, and the version its email came from."""

    id: int
    version_id: int


# campaign: by the id that outlives any database, with the version that was mailed if it is still known.
_CAMPAIGN = text("""
SELECT campaign.id,
       coalesce((SELECT campaign_version.id
                   FROM campaign_version
                  WHERE campaign_version.campaign_id = campaign.id AND campaign_version.id = :version_id),
                campaign.version_id) AS version_id
  FROM campaign
 WHERE campaign.public_id = :public_id
""")


def campaign(connection: Connection, public_id: UUID, version_id: int) -> LostCampaign | None:
    """The campaign of a journaled call, on its newest version when that one is gone; None: younger than the backup."""
    row = connection.execute(_CAMPAIGN, {"public_id": public_id, "version_id": version_id}).first()
    return None if row is None or row.version_id is None else LostCampaign(row.id, row.version_id)


# add_batch: with its old number, so that the provider's events and log still mean it.
_ADD_BATCH = text("""
INSERT INTO batch (id, provider, lane, campaign_id, step_key, version_id, state, owner_nonce, host, boot_id, pid,
                   lease_until, called_at, replayed_at, detail, message_ids)
OVERRIDING SYSTEM VALUE
VALUES (coalesce(:id, nextval('batch_id_seq')), :provider, :lane, :campaign_id, :step_key, :version_id, 'UNKNOWN',
        :nonce, :host, 'journal', 0, :at, :at, wall(), 'out of the journal', '{}')
RETURNING id
""")


def add_batch(
    connection: Connection,
    *,
    batch_id: int | None,
    provider: str,
    lane: str,
    campaign_id: int,
    step_key: str,
    version_id: int,
    nonce: UUID,
    host: str,
    at: datetime,
) -> int:
    """A batch UNKNOWN out of the journal, called `at` (wall time). `batch_id` None: its number is somebody else's."""
    values = {
        "id": batch_id,
        "provider": provider,
        "lane": lane,
        "campaign_id": campaign_id,
        "step_key": step_key,
        "version_id": version_id,
        "nonce": nonce,
        "host": host,
        "at": at,
    }
    found: int = connection.execute(_ADD_BATCH, values).scalar_one()
    return found


# revive_batch: the backup has it from before its call.
_REVIVE_BATCH = text("""
UPDATE batch
   SET state = 'UNKNOWN', outcome = NULL, resolved_at = NULL, called_at = coalesce(called_at, :at),
       replayed_at = wall(), detail = 'out of the journal'
 WHERE id = :id AND (state <> 'DONE' OR called_at IS NULL)
""")


def revive_batch(connection: Connection, batch_id: int, at: datetime) -> None:
    """The database knows this batch from a time before its call, which the journal says was made `at`: UNKNOWN."""
    connection.execute(_REVIVE_BATCH, {"id": batch_id, "at": at})


@dataclass(frozen=True, slots=True)
class Place:
    """Where somebody of a journaled call stands now. Without enrollment or message, the backup is older than that."""

    subscriber_id: int
    public_id: UUID
    addr_hash: bytes | None
    enrollment_id: int | None
    message_id: int | None
    state: str | None
    batch_id: int | None


# places: everybody of a call who exists, each with the enrollment and the message of this step if there are any.
_PLACES = text("""
SELECT called.place, subscriber.id AS subscriber_id, subscriber.public_id, subscriber.addr_hash,
       enrollment.id AS enrollment_id, message.id AS message_id, message.state, message.batch_id
  FROM unnest(CAST(:subscriber_ids AS bigint[]), CAST(:rounds AS bigint[]))
       WITH ORDINALITY AS called (subscriber_id, round, place)
  JOIN subscriber ON subscriber.id = called.subscriber_id
  LEFT JOIN enrollment ON enrollment.subscriber_id = subscriber.id AND enrollment.campaign_id = :campaign_id
                      AND enrollment.round = called.round
  LEFT JOIN message ON message.enrollment_id = enrollment.id AND message.step_key = :step_key
""")


def places(
    connection: Connection, subscriber_ids: Sequence[int], rounds: Sequence[int], campaign_id: int, step_key: str
) -> dict[int, Place]:
    """Everybody of a call whose subscriber id exists, by their place in it, from 0.

    A number may be somebody else's by now: `public_id` tells.
    """
    values = {
        "subscriber_ids": list(subscriber_ids),
        "rounds": list(rounds),
        "campaign_id": campaign_id,
        "step_key": step_key,
    }
    found = {}
    for row in connection.execute(_PLACES, values):
        addr_hash = None if row.addr_hash is None else bytes(row.addr_hash)
        found[row.place - 1] = Place(
            row.subscriber_id, row.public_id, addr_hash, row.enrollment_id, row.message_id, row.state, row.batch_id
        )
    return found


# add_enrollment: somebody who was enrolled after the backup.
_ADD_ENROLLMENT = text("""
INSERT INTO enrollment (subscriber_id, campaign_id, round, version_id, state, joined_at, anchor_at, next_due_at,
                        repeats)
SELECT :subscriber_id, :campaign_id, :round, :version_id, 'mailing', :at, :at, :at, campaign.kind = 'service'
  FROM campaign
 WHERE campaign.id = :campaign_id
RETURNING id
""")


# end_earlier: a new round began after the backup, so the one before it was over by then.
_END_EARLIER = text("""
UPDATE enrollment SET state = 'finished', ended_at = :at, waits_for = NULL
 WHERE subscriber_id = :subscriber_id AND campaign_id = :campaign_id AND round < :round
   AND state IN ('waiting', 'mailing') AND NOT repeats
""")


def add_enrollment(
    connection: Connection, *, subscriber_id: int, campaign_id: int, round: int, version_id: int, at: datetime
) -> int:
    """An enrollment that is younger than the backup. `at` is campaign time."""
    values = {
        "subscriber_id": subscriber_id,
        "campaign_id": campaign_id,
        "round": round,
        "version_id": version_id,
        "at": at,
    }
    connection.execute(_END_EARLIER, values)
    found: int = connection.execute(_ADD_ENROLLMENT, values).scalar_one()
    return found


# add_message (T1, T2): with its old number while that is free, so that the links in the email still name it. Should it
# come back to PLANNED, it is stale at once and decided again.
_ADD_MESSAGE = text("""
INSERT INTO message (id, public_id, enrollment_id, subscriber_id, campaign_id, step_key, lane, state, batch_id, due_at,
                     fresh_until, addr_hash)
OVERRIDING SYSTEM VALUE
VALUES (CASE WHEN EXISTS (SELECT FROM message WHERE id = :id) THEN nextval('message_id_seq') ELSE :id END, :public_id,
        :enrollment_id, :subscriber_id, :campaign_id, :step_key, :lane, 'IN_BATCH', :batch_id, :at,
        CASE WHEN :lane IN ('drip', 'newsletter') THEN CAST(:at AS timestamptz) ELSE 'infinity' END, :addr_hash)
RETURNING id
""")


def add_message(
    connection: Connection,
    *,
    message_id: int,
    public_id: UUID,
    enrollment_id: int,
    subscriber_id: int,
    campaign_id: int,
    step_key: str,
    lane: str,
    batch_id: int,
    addr_hash: bytes | None,
    at: datetime,
) -> int:
    """T1 and T2 for an email that was planned after the backup; returns its number. `at` is campaign time."""
    values = {
        "id": message_id,
        "public_id": public_id,
        "enrollment_id": enrollment_id,
        "subscriber_id": subscriber_id,
        "campaign_id": campaign_id,
        "step_key": step_key,
        "lane": lane,
        "batch_id": batch_id,
        "addr_hash": addr_hash,
        "at": at,
    }
    found: int = connection.execute(_ADD_MESSAGE, values).scalar_one()
    return found


# in_the_way: what of these people or their enrollments is open, apart from this step.
_IN_THE_WAY = text("""
SELECT message.id, message.enrollment_id, message.step_key
  FROM message
 WHERE message.subscriber_id = ANY(:subscriber_ids)
   AND NOT (message.campaign_id = :campaign_id AND message.step_key = :step_key)
   AND (message.state IN ('PLANNED', 'IN_BATCH') AND message.lane IN ('drip', 'newsletter') AND :marketing
        OR message.state IN ('PLANNED', 'IN_BATCH', 'HELD') AND message.enrollment_id = ANY(:enrollment_ids))
 ORDER BY message.id
   FOR UPDATE
""")

# skip: they are not mailed again; late evidence may still call them accepted (T13).
_SKIP = text("""
UPDATE message SET state = 'SKIPPED', reason = :reason, batch_id = NULL, updated_at = wall()
 WHERE id = ANY(:ids)
""")


def in_the_way(
    connection: Connection,
    *,
    subscriber_ids: Sequence[int],
    enrollment_ids: Sequence[int],
    campaign_id: int,
    step_key: str,
    marketing: bool,
) -> list[Any]:
    """Open messages of these people that must have ended before this call: id, enrollment_id, step_key. Locks them."""
    values = {
        "subscriber_ids": list(subscriber_ids),
        "enrollment_ids": list(enrollment_ids),
        "campaign_id": campaign_id,
        "step_key": step_key,
        "marketing": marketing,
    }
    return list(connection.execute(_IN_THE_WAY, values))


def skip(connection: Connection, message_ids: Sequence[int], reason: str) -> None:
    """End these messages, which `in_the_way` holds."""
    connection.execute(_SKIP, {"ids": list(message_ids), "reason": reason})


# narrow: a call that was repeated had not been accepted, so these are in the later one only.
_NARROW = text("""
UPDATE batch
   SET message_ids = ARRAY(SELECT one FROM unnest(message_ids) AS one WHERE one <> ALL(CAST(:ids AS bigint[])))
 WHERE id = :id
""")

# left_out: whom the payload of a call did not name, although the line before it did.
_LEFT_OUT = text("""
SELECT message.id
  FROM message JOIN batch ON message.id = ANY(batch.message_ids)
 WHERE batch.id = :id AND message.public_id = ANY(CAST(:public_ids AS uuid[]))
 ORDER BY message.id
""")

# to_accept: those of a batch that is done, but not as accepted, who are not accepted either.
_TO_ACCEPT = text("""
SELECT count(message.id) AS people
  FROM batch LEFT JOIN message ON message.id = ANY(batch.message_ids) AND message.state <> 'ACCEPTED'
 WHERE batch.id = :id AND batch.state = 'DONE' AND batch.outcome <> 'accepted'
 GROUP BY batch.id
""")

# take (T2): from whatever open state they are in.
_TAKE = text("""
UPDATE message SET state = 'IN_BATCH', reason = NULL, batch_id = :batch_id, updated_at = wall()
 WHERE id = ANY(:ids) AND state IN ('PLANNED', 'IN_BATCH', 'HELD')
""")

# fill: who was in the payload, in its order.
_FILL = text("UPDATE batch SET message_ids = :message_ids WHERE id = :id")


def take(connection: Connection, batch_id: int, message_ids: Sequence[int]) -> None:
    """These open messages are in this batch now."""
    connection.execute(_TAKE, {"batch_id": batch_id, "ids": sorted(message_ids)})


def narrow(connection: Connection, batch_id: int, message_ids: Sequence[int]) -> None:
    """Take these out of the list of an earlier batch."""
    connection.execute(_NARROW, {"id": batch_id, "ids": list(message_ids)})


def left_out(connection: Connection, batch_id: int, public_ids: Sequence[UUID]) -> list[int]:
    """The messages with these ids among those the batch says it called for."""
    values = {"id": batch_id, "public_ids": [str(one) for one in public_ids]}
    return list(connection.execute(_LEFT_OUT, values).scalars())


def to_accept(connection: Connection, batch_id: int) -> int | None:
    """How many of this batch are to be ACCEPTED after all (T13); None when it was not closed otherwise."""
    found: int | None = connection.execute(_TO_ACCEPT, {"id": batch_id}).scalar()
    return found


def fill(connection: Connection, batch_id: int, message_ids: Sequence[int]) -> None:
    """Say who was in this batch."""
    connection.execute(_FILL, {"id": batch_id, "message_ids": list(message_ids)})


# renew_ledger: rows of another cluster's transactions become rows of this one, which everybody can see from now on.
_RENEW_LEDGER = text("""
UPDATE suppression SET xid = pg_current_xact_id()
 WHERE seq > :after AND seq <= (SELECT max(seq) FROM (SELECT seq FROM suppression WHERE seq > :after
                                                       ORDER BY seq LIMIT :limit) AS piece)
RETURNING seq
""")

# clear_snapshots: they say which transactions of another cluster were seen.
_CLEAR_SNAPSHOTS = text("UPDATE batch SET checked_snapshot = NULL WHERE checked_snapshot IS NOT NULL")


def renew_ledger(connection: Connection, after: int, limit: int) -> int | None:
    """Give up to `limit` rows after number `after` this transaction's id; returns the last one, None at the end."""
    return max(connection.execute(_RENEW_LEDGER, {"after": after, "limit": limit}).scalars(), default=None)


def clear_snapshots(connection: Connection) -> None:
    """Forget which transactions each final check saw: they were another cluster's."""
    connection.execute(_CLEAR_SNAPSHOTS)


# unsettled: what evidence still has to say.
_UNSETTLED = text("""
SELECT count(*) AS batches, coalesce(sum(cardinality(message_ids)), 0) AS people
  FROM batch
 WHERE state IN ('CALLING', 'UNKNOWN')
""")


def unsettled(connection: Connection) -> tuple[int, int]:
    """(batches, messages) whose outcome nobody knows yet."""
    row = connection.execute(_UNSETTLED).one()
    return row.batches, int(row.people)


# called_here: the calls of one host in this epoch, by number.
_CALLED_HERE = text("""
SELECT batch.id
  FROM batch, installation
 WHERE batch.host = :host AND batch.kind = 'messages' AND batch.id > installation.epoch_batch
   AND batch.called_at > wall() - make_interval(secs => :seconds)
 ORDER BY batch.id
""")


def called_here(connection: Connection, host: str, seconds: float) -> list[int]:
    """The batches this host has called for in this epoch, within the last `seconds` of wall time."""
    return list(connection.execute(_CALLED_HERE, {"host": host, "seconds": seconds}).scalars())


# hold_planned: everything that may have been called for by a host whose journal is gone.
_HOLD_PLANNED = text("""
UPDATE message SET state = 'HELD', reason = :reason, updated_at = wall()
 WHERE id IN (SELECT message.id
                FROM message JOIN enrollment ON enrollment.id = message.enrollment_id
               WHERE message.state = 'PLANNED' AND enrollment.state = 'mailing' AND message.due_at >= :since
               ORDER BY message.id
                 FOR UPDATE OF message)
RETURNING id
""")


def hold_planned(connection: Connection, since: datetime, reason: str) -> list[int]:
    """Hold every PLANNED message due at or after `since` (campaign time); returns their ids."""
    return list(connection.execute(_HOLD_PLANNED, {"since": since, "reason": reason}).scalars())
