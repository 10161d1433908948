"""How much the marketing lanes have sent: sums over batches, which are a thousandth of the messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import text

from dripwell.storage.database import Connection

# used_since: what was accepted, by the index alone, and what may still be, however long ago it began. One statement
# sees one moment: a batch that is accepted between two of them would be in neither sum.
_USED_SINCE = text("""
SELECT coalesce((SELECT sum(people)
                   FROM batch
                  WHERE accepted_at >= :since AND kind = 'messages' AND lane IN ('drip', 'newsletter')), 0)
     + coalesce((SELECT sum(people)
                   FROM batch
                  WHERE state <> 'DONE' AND kind = 'messages' AND lane IN ('drip', 'newsletter')), 0)
""")


def used_since(connection: Connection, since: datetime) -> int:
    """Marketing messages accepted since this campaign time, and all that are in a batch that is not done."""
    return int(connection.execute(_USED_SINCE, {"since": since}).scalar_one())


# take_turns: one claim after the other, until this transaction ends.
_TAKE_TURNS = text("SELECT pg_advisory_xact_lock(hashtext('dripwell.pace'))")


def take_turns(connection: Connection) -> None:
    """Wait until nobody else counts what may still go out: two claims must not both take the last place."""
    connection.execute(_TAKE_TURNS)


# mailed_days: from a day with mail to the last one within `idle` days of it, or else to the next one, however far: a
# few looks along the index, for who wants to know of the pauses only.
_MAILED_DAYS = text("""
WITH RECURSIVE mailed AS (
  (SELECT (accepted_at AT TIME ZONE :zone)::date AS day
     FROM batch
    WHERE accepted_at >= :since AND kind = 'messages' AND lane IN ('drip', 'newsletter')
    ORDER BY accepted_at
    LIMIT 1)
  UNION ALL
  SELECT (following.at AT TIME ZONE :zone)::date
    FROM mailed
    LEFT JOIN LATERAL (SELECT accepted_at AS at
                         FROM batch
                        WHERE accepted_at >= (mailed.day + 1)::timestamp AT TIME ZONE :zone
                          AND accepted_at < (mailed.day + 1 + :idle)::timestamp AT TIME ZONE :zone
                          AND kind = 'messages' AND lane IN ('drip', 'newsletter')
                        ORDER BY accepted_at DESC
                        LIMIT 1) AS soon ON true
   CROSS JOIN LATERAL (SELECT coalesce(soon.at, (SELECT min(accepted_at)
                                                   FROM batch
                                                  WHERE accepted_at >= (mailed.day + 1)::timestamp AT TIME ZONE :zone
                                                    AND kind = 'messages' AND lane IN ('drip', 'newsletter'))) AS at
                      ) AS following
   WHERE following.at IS NOT NULL
)
SELECT day FROM mailed
""")


def mailed_days(connection: Connection, since: datetime, zone: str, idle: int) -> list[date]:
    """Days in `zone`, from `since` on, on which a marketing message was accepted: enough to see every pause.

    Days between two that lie at most `idle` days apart may be missing; the first, the last and both ends of each longer
    pause are there.
    """
    values = {"since": since, "zone": zone, "idle": idle}
    return list(connection.execute(_MAILED_DAYS, values).scalars())


# busiest_hour: the most that a whole hour accepted.
_BUSIEST_HOUR = text("""
SELECT coalesce(max(hourly.people), 0)
  FROM (SELECT sum(people) AS people
          FROM batch
         WHERE accepted_at >= :since AND accepted_at < :before AND kind = 'messages' AND lane IN ('drip', 'newsletter')
         GROUP BY date_trunc('hour', accepted_at)) AS hourly
""")


def busiest_hour(connection: Connection, since: datetime, before: datetime) -> int:
    """The most marketing messages that one hour between these campaign times accepted."""
    return int(connection.execute(_BUSIEST_HOUR, {"since": since, "before": before}).scalar_one())


@dataclass(frozen=True, slots=True)
class Silence:
    """How long nobody was at work, in wall time."""

    seconds: float
    since: datetime


# seen: the row is locked, so that only one of two passes after a silence hears of it.
_SEEN = text("""
UPDATE pace_state SET seen_at = wall()
  FROM (SELECT seen_at FROM pace_state FOR UPDATE) AS before
RETURNING extract(epoch FROM wall() - before.seen_at)::float8 AS seconds, before.seen_at AS since
""")


def seen(connection: Connection) -> Silence:
    """Somebody is at work now; returns how long nobody was."""
    return Silence(**connection.execute(_SEEN).one()._mapping)


# catch_up: a second silence in the middle of catching up does not make what was caught up with the usual.
_CATCH_UP = text("""
UPDATE pace_state
   SET silent_since = CASE WHEN catch_up_until > wall() THEN silent_since ELSE :since END,
       catch_up_until = greatest(coalesce(catch_up_until, '-infinity'), wall() + make_interval(secs => :seconds))
""")


def catch_up(connection: Connection, since: datetime, seconds: float) -> None:
    """Catch up on a silence that began at `since`, for so many wall seconds from now on."""
    connection.execute(_CATCH_UP, {"since": since, "seconds": seconds})


# caught_up_on: read by every claim of a marketing lane.
_CAUGHT_UP_ON = text("""
SELECT silent_since
  FROM pace_state, installation
 WHERE catch_up_until > wall() AND campaign_offset = '0'
""")


def caught_up_on(connection: Connection) -> datetime | None:
    """When the silence began that is being caught up on; None: none is.

    Nor while campaign time is ahead of wall time: there hours pass in seconds.
    """
    found: datetime | None = connection.execute(_CAUGHT_UP_ON).scalar()
    return found


# overdue: running campaigns, people who wait and messages that are planned; counting stops at the limit.
_OVERDUE = text("""
SELECT count(*)
  FROM ((SELECT 1
           FROM campaign CROSS JOIN LATERAL (SELECT 1
                                               FROM enrollment
                                              WHERE enrollment.campaign_id = campaign.id
                                                AND enrollment.state = 'waiting' AND enrollment.next_due_at <= :now
                                              LIMIT :limit) AS waiting
          WHERE campaign.state = 'running' AND campaign.kind <> 'service'
          LIMIT :limit)
        UNION ALL
        (SELECT 1
           FROM message JOIN campaign ON campaign.id = message.campaign_id
          WHERE message.state = 'PLANNED' AND message.lane = ANY(:lanes) AND campaign.state = 'running'
          LIMIT :limit)) AS overdue
""")


def overdue(connection: Connection, lanes: Sequence[str], now: datetime, limit: int) -> int:
    """How many are due in running campaigns, planned or not yet; counted up to about `limit`."""
    values = {"now": now, "lanes": list(lanes), "limit": limit}
    found: int = connection.execute(_OVERDUE, values).scalar_one()
    return found


# may_watch: for everybody together, once in so many seconds.
_MAY_WATCH = text("""
UPDATE pace_state SET watched_at = wall()
 WHERE watched_at <= wall() - make_interval(secs => :seconds) OR watched_at > wall() + interval '1 min'
""")


def may_watch(connection: Connection, seconds: float) -> bool:
    """Whether nobody has counted reputation for so many seconds; then it is this caller's turn."""
    return connection.execute(_MAY_WATCH, {"seconds": seconds}).rowcount == 1


# alive: a process has a row for each of its queues.
_ALIVE = text("""
SELECT count(DISTINCT (host, pid))
  FROM worker
 WHERE last_pass > wall() - make_interval(secs => :seconds)
""")


def alive(connection: Connection, seconds: float = 60.0) -> int:
    """How many worker processes share the rate: those that finished a pass in the last so many wall seconds."""
    found: int = connection.execute(_ALIVE, {"seconds": seconds}).scalar_one()
    return found
