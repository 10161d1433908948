"""Counting what mailbox providers think of us. Harm is counted from few events, deliveries from what was accepted.

A message belongs to a window when it was accepted in it: so a release forgets old mail together with what is still said
about it. Everything here is about the marketing lanes; times are campaign time.

Harm and resolved messages are those of the same mail, which is what `Ripe` says; or a bounce that is told before the
deliveries around it, or by a provider that tells of no deliveries at all, would be one of very few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text

from dripwell.storage import arrays
from dripwell.storage.database import Connection

Sinces = Mapping[int, datetime]
"""campaign id -> only messages accepted from then on"""


@dataclass(frozen=True, slots=True)
class Watched:
    """A campaign whose reputation counts."""

    id: int
    name: str
    state: str


@dataclass(frozen=True, slots=True)
class Ripe:
    """The mail that can be judged: accepted until `before`, or in one of these younger `minutes`."""

    before: datetime
    minutes: Sequence[datetime]


# ripe: of each young minute a sample, some people of some calls from first to last: a provider may work along the call.
_HEARD_OF = text("""
SELECT young.minute
  FROM generate_series(date_trunc('minute', CAST(:before AS timestamptz)), :now, interval '1 min') AS young (minute)
 CROSS JOIN LATERAL (SELECT count(*) AS people, count(*) FILTER (WHERE message.delivery <> 'processed') AS heard
                       FROM (SELECT batch.message_ids[place] AS id
                               FROM batch CROSS JOIN LATERAL generate_series(1, people, people / 50 + 1) AS place
                              WHERE batch.accepted_at >= young.minute
                                AND batch.accepted_at < young.minute + interval '1 min'
                                AND batch.accepted_at > :before AND batch.outcome = 'accepted'
                                AND batch.kind = 'messages' AND batch.lane IN ('drip', 'newsletter')
                              LIMIT 500) AS sample
                       JOIN message ON message.id = sample.id) AS known
 WHERE known.people > 0 AND 4 * known.heard >= 3 * known.people
""")


def ripe(connection: Connection, before: datetime, now: datetime) -> Ripe:
    """What can be judged now: mail accepted until `before`, and minutes after it of which most was heard of already."""
    return Ripe(before, connection.execute(_HEARD_OF, {"before": before, "now": now}).scalars().all())


_IS_RIPE = """(message.accepted_at <= :before
        OR date_trunc('minute', message.accepted_at) = ANY(CAST(:minutes AS timestamptz[])))"""


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
_HARM = text(f"""
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
   AND {_IS_RIPE}
 GROUP BY message.campaign_id
""")


def harm(connection: Connection, sinces: Sinces, ripe: Ripe) -> dict[int, dict[str, int]]:
    """campaign id -> {complaints, bounces}: messages that were complained of, and that hit a bad address."""
    if not sinces:
        return {}
    rows = connection.execute(_HARM, {**_arrays(sinces), **_ripe(ripe), "earliest": min(sinces.values())})
    return {row.campaign_id: {"complaints": row.complaints, "bounces": row.bounces} for row in rows}


# Of a call of which less than half was heard, who was accepted counts until something else is told: either its provider
# tells of no deliveries, or they are late. Of any other call silence proves nothing good. A hundred people, spread over
# the call, say which it is.
_CALLS = f"""
  JOIN batch ON batch.accepted_at >= counted.since
   AND {_IS_RIPE.replace("message", "batch")}
   AND batch.kind = 'messages' AND batch.lane IN ('drip', 'newsletter') AND batch.outcome = 'accepted'
 CROSS JOIN LATERAL (SELECT 2 * count(*) FILTER (WHERE message.delivery <> 'processed') < count(*) AS is_silent
                       FROM generate_series(1, batch.people, batch.people / 100 + 1) AS place
                       JOIN message ON message.id = batch.message_ids[place]) AS call
 CROSS JOIN LATERAL unnest(batch.message_ids) AS member (id)"""
_COUNTS = """(message.delivery = ANY(:deliveries)
                OR (call.is_silent AND message.state = 'ACCEPTED'
                    AND coalesce(message.delivery, 'processed') = 'processed'))"""

# resolved: along the batches, message by message (LIMIT 1 keeps the planner from reading both tables whole), so that it
# costs what is counted; who counts for complaints must be able to complain where we hear of it (rules 8.3).
_RESOLVED = text(f"""
SELECT count(*)
  FROM (SELECT 1
          FROM unnest(CAST(:campaign_ids AS bigint[]), CAST(:sinces AS timestamptz[])) AS counted (campaign_id, since)
          {_CALLS}
         CROSS JOIN LATERAL (SELECT 1
                               FROM message JOIN subscriber ON subscriber.id = message.subscriber_id
                              WHERE message.id = member.id AND {_COUNTS}
                                AND coalesce(lower(split_part(subscriber.address, '@', 2))
                                             <> ALL(CAST(:besides AS text[])), true)
                              LIMIT 1) AS counts
         WHERE batch.campaign_id = counted.campaign_id
         LIMIT :limit) AS found
""")


def resolved(
    connection: Connection, sinces: Sinces, ripe: Ripe, *, deliveries: Sequence[str], besides: Sequence[str], limit: int
) -> int:
    """How many messages have come to one of `deliveries`, domains `besides` left out; counted up to `limit`.

    Where nearly nothing is told of a call, everybody it was accepted for counts of whom nothing else is known.
    """
    values = {
        **_arrays(sinces),
        **_ripe(ripe),
        "deliveries": list(deliveries),
        "besides": list(besides),
        "limit": limit,
    }
    found: int = connection.execute(_RESOLVED, values).scalar_one()
    return found


# refusals: by domain; whose mailbox that is, core knows.
_REFUSALS = text(f"""
SELECT lower(split_part(subscriber.address, '@', 2)) AS domain, provider_event.trouble,
       count(DISTINCT message.id) AS messages
  FROM provider_event
  JOIN message ON message.id = provider_event.message_id
  JOIN subscriber ON subscriber.id = message.subscriber_id
 WHERE provider_event.type IN ('bounced', 'complained') AND provider_event.trouble IS NOT NULL
   AND provider_event.campaign_at >= :since AND message.accepted_at >= :since AND message.lane IN ('drip', 'newsletter')
   AND (provider_event.trouble = 'identity' OR {_IS_RIPE})
   AND subscriber.address IS NOT NULL
 GROUP BY domain, provider_event.trouble
""")


def refusals(connection: Connection, since: datetime, ripe: Ripe) -> list[tuple[str, str, int]]:
    """(domain, trouble, messages) that receiving servers turned away because of us; trouble: reputation, identity.

    `identity` is told at once, and `reputation` of what can be judged.
    """
    rows = connection.execute(_REFUSALS, {**_ripe(ripe), "since": since})
    return [(row.domain, row.trouble, row.messages) for row in rows]


# resolved_by_domain: asked only once somebody refuses us.
_RESOLVED_BY_DOMAIN = text(f"""
SELECT lower(split_part(subscriber.address, '@', 2)) AS domain, count(*) AS messages
  FROM (SELECT CAST(:since AS timestamptz) AS since) AS counted
  {_CALLS}
  JOIN message ON message.id = member.id
  JOIN subscriber ON subscriber.id = message.subscriber_id
 WHERE {_COUNTS} AND subscriber.address IS NOT NULL
 GROUP BY domain
""")


def resolved_by_domain(
    connection: Connection, since: datetime, ripe: Ripe, deliveries: Sequence[str]
) -> dict[str, int]:
    """How many messages to each domain have come to one of `deliveries`; silent calls as in `resolved`."""
    values = {**_ripe(ripe), "since": since, "deliveries": list(deliveries)}
    rows = connection.execute(_RESOLVED_BY_DOMAIN, values)
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


def _ripe(ripe: Ripe) -> dict[str, object]:
    return {"before": ripe.before, "minutes": arrays.times(ripe.minutes)}


def _arrays(sinces: Sinces) -> dict[str, object]:
    return {"campaign_ids": list(sinces), "sinces": list(sinces.values())}
