"""Counting what mailbox providers think of us. Harm is counted from few events, deliveries from what was accepted.

A message belongs to a window when it was accepted in it: so a release forgets old mail together with what is still said
about it. Everything here is about the marketing lanes; times are campaign time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from dripwell.storage.database import Connection

Sinces = Mapping[int, datetime]
"""campaign id -> only messages accepted from then on"""


@dataclass(frozen=True, slots=True)
class Watched:
    """A campaign whose reputation counts."""

    id: int
    name: str
    state: str


# watched: stopped and archived ones mail nobody.
_WATCHED = text("""
SELECT id, name, state
  FROM campaign
 WHERE kind IN ('drip', 'newsletter') AND state IN ('running', 'paused')
 ORDER BY id
""")


def watched(connection: Connection) -> list[Watched]:
    """The campaigns that mail or might go on to."""
    return [Watched(**row._mapping) for row in connection.execute(_WATCHED)]


# harm: a person is undeliverable when the provider called the address itself bad (rules 2.6).
_HARM = text("""
SELECT message.campaign_id,
       count(DISTINCT message.id) FILTER (WHERE provider_event.type = 'complained') AS complaints,
       count(DISTINCT message.id) FILTER (WHERE provider_event.type = 'bounced'
                                            AND subscriber.state = 'undeliverable') AS bounces
  FROM provider_event
  JOIN message ON message.id = provider_event.message_id
  JOIN unnest(CAST(:campaign_ids AS bigint[]), CAST(:sinces AS timestamptz[])) AS counted (campaign_id, since)
    ON counted.campaign_id = message.campaign_id
  JOIN subscriber ON subscriber.id = message.subscriber_id
 WHERE provider_event.type IN ('bounced', 'complained') AND provider_event.campaign_at >= :earliest
   AND message.accepted_at >= counted.since AND message.lane IN ('drip', 'newsletter')
 GROUP BY message.campaign_id
""")


def harm(connection: Connection, sinces: Sinces) -> dict[int, dict[str, int]]:
    """campaign id -> {complaints, bounces}: messages that were complained of, and that hit a bad address."""
    if not sinces:
        return {}
    rows = connection.execute(_HARM, {**_arrays(sinces), "earliest": min(sinces.values())})
    return {row.campaign_id: {"complaints": row.complaints, "bounces": row.bounces} for row in rows}


# resolved: along the batches, message by message (LIMIT 1 keeps the planner from reading both tables whole), so that it
# costs what is counted; who counts for complaints must be able to complain where we hear of it (rules 8.3).
_RESOLVED = text("""
SELECT count(*)
  FROM (SELECT 1
          FROM unnest(CAST(:campaign_ids AS bigint[]), CAST(:sinces AS timestamptz[])) AS counted (campaign_id, since)
          JOIN batch ON batch.campaign_id = counted.campaign_id AND batch.accepted_at >= counted.since
         CROSS JOIN LATERAL unnest(batch.message_ids) AS member (id)
         CROSS JOIN LATERAL (SELECT 1
                               FROM message JOIN subscriber ON subscriber.id = message.subscriber_id
                              WHERE message.id = member.id AND message.delivery = ANY(:deliveries)
                                AND coalesce(lower(split_part(subscriber.address, '@', 2))
                                             <> ALL(CAST(:besides AS text[])), true)
                              LIMIT 1) AS counts
         WHERE batch.kind = 'messages' AND batch.lane IN ('drip', 'newsletter') AND batch.outcome = 'accepted'
         LIMIT :limit) AS found
""")


def resolved(
    connection: Connection, sinces: Sinces, *, deliveries: Sequence[str], besides: Sequence[str], limit: int
) -> int:
    """How many messages have come to one of `deliveries`, domains `besides` left out; counted up to `limit`."""
    values = {**_arrays(sinces), "deliveries": list(deliveries), "besides": list(besides), "limit": limit}
    found: int = connection.execute(_RESOLVED, values).scalar_one()
    return found


# refusals: by domain; whose mailbox that is, core knows.
_REFUSALS = text("""
SELECT lower(split_part(subscriber.address, '@', 2)) AS domain, provider_event.trouble,
       count(DISTINCT message.id) AS messages
  FROM provider_event
  JOIN message ON message.id = provider_event.message_id
  JOIN subscriber ON subscriber.id = message.subscriber_id
 WHERE provider_event.type IN ('bounced', 'complained') AND provider_event.trouble IS NOT NULL
   AND provider_event.campaign_at >= :since AND message.accepted_at >= :since AND message.lane IN ('drip', 'newsletter')
   AND subscriber.address IS NOT NULL
 GROUP BY domain, provider_event.trouble
""")


def refusals(connection: Connection, since: datetime) -> list[tuple[str, str, int]]:
    """(domain, trouble, messages) that receiving servers turned away because of us; trouble: reputation, identity."""
    rows = connection.execute(_REFUSALS, {"since": since})
    return [(row.domain, row.trouble, row.messages) for row in rows]


# resolved_by_domain: asked only once somebody refuses us.
_RESOLVED_BY_DOMAIN = text("""
SELECT lower(split_part(subscriber.address, '@', 2)) AS domain, count(*) AS messages
  FROM batch
 CROSS JOIN LATERAL unnest(batch.message_ids) AS member (id)
  JOIN message ON message.id = member.id
  JOIN subscriber ON subscriber.id = message.subscriber_id
 WHERE batch.accepted_at >= :since AND batch.kind = 'messages' AND batch.lane IN ('drip', 'newsletter')
   AND batch.outcome = 'accepted' AND message.delivery = ANY(:deliveries) AND subscriber.address IS NOT NULL
 GROUP BY domain
""")


def resolved_by_domain(connection: Connection, since: datetime, deliveries: Sequence[str]) -> dict[str, int]:
    """How many messages to each domain have come to one of `deliveries`."""
    rows = connection.execute(_RESOLVED_BY_DOMAIN, {"since": since, "deliveries": list(deliveries)})
    return {row.domain: row.messages for row in rows}


# last_refusal: for our reputation, by whomever.
_LAST_REFUSAL = text("""
SELECT max(campaign_at)
  FROM provider_event
 WHERE type IN ('bounced', 'complained') AND trouble = 'reputation' AND campaign_at >= :since
""")


def refused_since(connection: Connection, since: datetime) -> bool:
    """Whether anybody turned a message away for our reputation since then."""
    return connection.execute(_LAST_REFUSAL, {"since": since}).scalar() is not None


def _arrays(sinces: Sinces) -> dict[str, object]:
    return {"campaign_ids": list(sinces), "sinces": list(sinces.values())}
