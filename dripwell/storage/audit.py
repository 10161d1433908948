"""What the auditor asks beyond the invariants: silence (V12), the fast set (V7), a second count (V13). Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import text

from dripwell.storage import suppressions
from dripwell.storage.database import Connection
from dripwell.storage.fast import MARK

UNREAD_SECONDS = 600.0
"""A webhook that nobody has read for so long is an alarm."""
_MOST = 20
_BATCHES = 200
_PIECE = 2_000

# oldest_unread: the first in line.
_OLDEST_UNREAD = text("""
SELECT extract(epoch FROM wall() - received_at)::float8
  FROM webhook_inbox
 WHERE state = 'new'
 ORDER BY id
 LIMIT 1
""")


def oldest_unread(connection: Connection) -> float | None:
    """For how many seconds of wall time the oldest unread webhook has waited; None when all are read."""
    found: float | None = connection.execute(_OLDEST_UNREAD).scalar()
    return found


# accepted_in_silence: by the time of the call, because events can overtake its answer but not the call.
_ACCEPTED_IN_SILENCE = text("""
SELECT extract(epoch FROM wall() - min(called_at))::float8
  FROM batch
 WHERE outcome = 'accepted' AND kind = 'messages' AND provider = :provider
   AND called_at > greatest(wall() - interval '1 day',
                            coalesce((SELECT received_at FROM webhook_inbox ORDER BY id DESC LIMIT 1), '-infinity'))
HAVING min(called_at) < wall() - interval '15 min'
""")


def accepted_in_silence(connection: Connection, provider: str) -> float | None:
    """For how many seconds we have heard nothing although calls of this provider were accepted; None below 15 min."""
    found: float | None = connection.execute(_ACCEPTED_IN_SILENCE, {"provider": provider}).scalar()
    return found


# without_event: of calls a day old; of very many, the latest.
_WITHOUT_EVENT = text("""
SELECT message.id
  FROM (SELECT id, message_ids
          FROM batch
         WHERE outcome = 'accepted' AND kind = 'messages' AND provider = :provider
           AND called_at BETWEEN wall() - interval '25 h' AND wall() - interval '24 h'
         ORDER BY called_at DESC
         LIMIT :batches) AS old
 CROSS JOIN LATERAL unnest(old.message_ids) AS called (message_id)
  JOIN message ON message.id = called.message_id
 WHERE message.state = 'ACCEPTED' AND message.batch_id = old.id AND message.delivery IS NULL
   AND NOT EXISTS (SELECT FROM provider_event WHERE provider_event.message_id = message.id)
 ORDER BY message.id
 LIMIT :most
""")


def without_event(connection: Connection, provider: str) -> list[int]:
    """Up to 20 messages this provider accepted 24 to 25 hours ago and never said a word about."""
    values = {"provider": provider, "batches": _BATCHES, "most": _MOST}
    return list(connection.execute(_WITHOUT_EVENT, values).scalars())


@dataclass(frozen=True, slots=True)
class Differences:
    """How the fast set differs from the ledger: `missing` from it, `lifted` and still in it, unknown to the ledger."""

    missing: int
    lifted: int
    strangers: int


# newest: what the ledger says of each address and scope, and whether the follower has been told of it.
_NEWEST = text("""
SELECT DISTINCT ON (addr_hash, scope) addr_hash, scope, action = 'suppress' AS stands,
       xid >= CAST(CAST(:reached AS text) AS xid8) AS young
  FROM suppression
 ORDER BY addr_hash, scope, seq DESC
""").execution_options(yield_per=_PIECE)


def fast_set(connection: Connection, redis_url: str) -> Differences | None:
    """Compare the set in Redis with the ledger, member by member. None: Redis is silent, or its set is not valid.

    What was written after the follower looked last counts neither way. Give it a READ COMMITTED transaction: the set is
    read first, and what is in it was committed before. The layout of the set (SENDING section 9) is spelled out here
    once more, so that a mistake in `fast` cannot hide itself.
    """
    client = redis.Redis.from_url(
        redis_url, socket_connect_timeout=1.0, socket_timeout=5.0, retry=Retry(NoBackoff(), 0), protocol=2
    )
    try:
        return _compare(connection, client)
    except (redis.RedisError, OSError):
        return None
    finally:
        client.close()


def _compare(connection: Connection, client: Any) -> Differences | None:
    epoch, generation = suppressions.marks(connection)
    mark = client.hgetall(MARK)
    if (mark.get(b"epoch"), mark.get(b"generation")) != (b"%d" % epoch, b"%d" % generation) or b"xmin" not in mark:
        return None
    key = b"dw:supp:%d:%d" % (epoch, generation)
    size = client.scard(key)
    missing = lifted = known = 0
    with connection.execute(_NEWEST, {"reached": int(mark[b"xmin"])}) as rows:
        while piece := list(islice(rows, _PIECE)):
            answers = client.smismember(key, [bytes(row.addr_hash)[:16] + row.scope.encode() for row in piece])
            for row, is_in in zip(piece, answers, strict=True):
                known += is_in
                missing += row.stands and not row.young and not is_in
                lifted += not row.stands and not row.young and is_in
    size = min(size, client.scard(key)) - 1  # one member says that the set is there
    after = client.hgetall(MARK)
    if (after.get(b"epoch"), after.get(b"generation")) != (mark[b"epoch"], mark[b"generation"]):
        return None  # built anew while we looked
    return Differences(missing, lifted, max(0, size - known))


@dataclass(frozen=True, slots=True)
class Recount:
    """A campaign counted another way. By step key: accepted, delivered, bounced."""

    joined: int
    open: int
    finished: int
    exited: int
    planned: int
    steps: dict[str, tuple[int, int, int]]
    clicked: int


# recount: the enrollments and messages, without the groups a report makes of them.
_RECOUNT = text("""
SELECT count(*) AS joined,
       count(*) FILTER (WHERE ended_at IS NULL) AS open,
       count(*) FILTER (WHERE ended_at IS NOT NULL AND ended_reason IS NULL) AS finished,
       count(*) FILTER (WHERE ended_reason IS NOT NULL) AS exited,
       (SELECT count(*)
          FROM message JOIN enrollment AS passage ON passage.id = message.enrollment_id
         WHERE passage.campaign_id = :campaign_id) AS planned,
       (SELECT count(DISTINCT message.subscriber_id)
          FROM click JOIN message ON message.id = click.message_id
         WHERE message.campaign_id = :campaign_id) AS clicked
  FROM enrollment
 WHERE campaign_id = :campaign_id
""")

# recount_steps: accepted is what stands in accepted calls; delivered and bounced is what the furthest event says.
_RECOUNT_STEPS = text("""
SELECT mailed.step_key, count(*) AS accepted,
       count(*) FILTER (WHERE furthest.type IN ('delivered', 'complained')) AS delivered,
       count(*) FILTER (WHERE furthest.type = 'bounced') AS bounced
  FROM (SELECT DISTINCT batch.step_key, called.message_id
          FROM batch CROSS JOIN LATERAL unnest(batch.message_ids) AS called (message_id)
         WHERE batch.campaign_id = :campaign_id AND batch.kind = 'messages' AND batch.outcome = 'accepted') AS mailed
  LEFT JOIN LATERAL (SELECT provider_event.type
                       FROM provider_event
                      WHERE provider_event.message_id = mailed.message_id
                        AND provider_event.type = ANY(CAST(:precedence AS text[]))
                      ORDER BY array_position(CAST(:precedence AS text[]), provider_event.type) DESC
                      LIMIT 1) AS furthest ON true
 GROUP BY mailed.step_key
""")


def recount(connection: Connection, campaign_id: int, precedence: Sequence[str]) -> Recount:
    """Count a campaign from calls and events, where a report counts states. Every row is read: for a quiet hour."""
    values = {"campaign_id": campaign_id}
    row = connection.execute(_RECOUNT, values).one()
    steps = connection.execute(_RECOUNT_STEPS, {**values, "precedence": list(precedence)})
    return Recount(
        joined=row.joined,
        open=row.open,
        finished=row.finished,
        exited=row.exited,
        planned=row.planned,
        steps={step.step_key: (step.accepted, step.delivered, step.bounced) for step in steps},
        clicked=row.clicked,
    )
