"""What surrounds enrollments when the planner decides: one statement a kind of fact, for a whole set of people.

Service mail counts nowhere: a confirmation uses up no weekly limit and holds no series back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text

from dripwell.core.clicks import MOST, Click
from dripwell.storage import arrays
from dripwell.storage.database import Connection


class Someone(NamedTuple):
    """One subscriber's own row. `addr_hash` is None once erased."""

    id: int
    public_id: UUID
    addr_hash: bytes | None
    state: str
    timezone: str | None
    fields: Mapping[str, Any]
    tags: Sequence[str]
    pace: str
    paused_until: datetime | None


class Acceptances(NamedTuple):
    """When marketing messages of one person were accepted, newest last, and whether the newest is deferred still."""

    at: tuple[datetime, ...]
    newest_deferred: bool


# someone: their own rows. The fields come as text: psycopg would guess the encoding of each.
_SOMEONE = text("""
SELECT id, public_id, addr_hash, state, timezone, CAST(fields AS text), tags, pace, paused_until
  FROM subscriber
 WHERE id = ANY(CAST(:ids AS bigint[]))
""")


def someone(connection: Connection, subscriber_ids: Sequence[int]) -> dict[int, Someone]:
    """These people's own rows, by id."""
    rows = connection.execute(_SOMEONE, {"ids": arrays.numbers(subscriber_ids)}).all()
    return {
        row[0]: Someone(row[0], row[1], row[2], row[3], row[4], json.loads(row[5]), row[6], row[7], row[8])
        for row in rows
    }


# acceptances: over all campaigns.
_ACCEPTANCES = text("""
SELECT subscriber_id, accepted_at, delivery = 'deferred' AS deferred
  FROM message
 WHERE subscriber_id = ANY(CAST(:ids AS bigint[])) AND accepted_at > :since AND lane IN ('drip', 'newsletter')
 ORDER BY subscriber_id, accepted_at
""")


def acceptances(connection: Connection, subscriber_ids: Sequence[int], since: datetime) -> dict[int, Acceptances]:
    """What was accepted for each of these people after `since` (campaign time). Who got nothing is missing."""
    rows = connection.execute(_ACCEPTANCES, {"ids": arrays.numbers(subscriber_ids), "since": since}).all()
    found = {}
    for subscriber_id, theirs in groupby(rows, itemgetter(0)):
        _, times, deferred = zip(*theirs, strict=True)
        found[subscriber_id] = Acceptances(times, bool(deferred[-1]))
    return found


# open_messages: the one each person may have. Asked for person by person: how many are open changes faster than the
# statistics, and a plan that reads all of them is wrong as soon as there are many.
_OPEN_MESSAGES = text("""
SELECT who.id, open.id
  FROM unnest(CAST(:ids AS bigint[])) AS who (id)
 CROSS JOIN LATERAL (SELECT message.id
                       FROM message
                      WHERE message.subscriber_id = who.id AND message.state IN ('PLANNED', 'IN_BATCH')
                        AND message.lane IN ('drip', 'newsletter')
                      LIMIT 1) AS open
""")


def open_messages(connection: Connection, subscriber_ids: Sequence[int]) -> dict[int, int]:
    """The open marketing message of each of these people, by subscriber. Who has none is missing."""
    rows = connection.execute(_OPEN_MESSAGES, {"ids": arrays.numbers(subscriber_ids)}).all()
    return {row[0]: row[1] for row in rows}


# events: of each the last time.
_EVENTS = text("""
SELECT subscriber_id, event, max(at)
  FROM happening
 WHERE subscriber_id = ANY(CAST(:ids AS bigint[]))
 GROUP BY subscriber_id, event
""")


def events(connection: Connection, subscriber_ids: Sequence[int]) -> dict[int, dict[str, datetime]]:
    """When each event last happened to each of these people, in campaign time. To whom nothing did is missing."""
    found: dict[int, dict[str, datetime]] = {}
    for subscriber_id, event, at in connection.execute(_EVENTS, {"ids": arrays.numbers(subscriber_ids)}).all():
        found.setdefault(subscriber_id, {})[event] = at
    return found


# joined: read only when a rule asks for it.
_JOINED = text("SELECT id, joined_at FROM subscriber WHERE id = ANY(CAST(:ids AS bigint[]))")


def joined(connection: Connection, subscriber_ids: Sequence[int]) -> dict[int, datetime]:
    """When each of these people became a subscriber, in campaign time."""
    return {row[0]: row[1] for row in connection.execute(_JOINED, {"ids": arrays.numbers(subscriber_ids)}).all()}


class Followed(NamedTuple):
    """The clicks on one message; of one that was followed too often, one more than a person makes."""

    subscriber_id: int
    campaign: str
    step_key: str
    clicks: Sequence[Click]


# clicks: of every message of theirs, but of none more than the rule needs to call it a machine's.
_CLICKS = text("""
SELECT enrollment.subscriber_id, campaign.name, message.step_key, message.id, one.number, one.wall_at, one.at
  FROM enrollment
  JOIN campaign ON campaign.id = enrollment.campaign_id
  JOIN message ON message.enrollment_id = enrollment.id
 CROSS JOIN LATERAL (SELECT click.number, click.wall_at, click.at
                       FROM click
                      WHERE click.message_id = message.id
                      LIMIT :most) AS one
 WHERE enrollment.subscriber_id = ANY(CAST(:ids AS bigint[]))
 ORDER BY message.id
""")


def clicks(connection: Connection, subscriber_ids: Sequence[int]) -> list[Followed]:
    """What was followed in the emails of these people, by whomever; a message nobody followed a link of is missing."""
    rows = connection.execute(_CLICKS, {"ids": arrays.numbers(subscriber_ids), "most": MOST + 1}).all()
    return [
        Followed(who, campaign, step_key, [Click(*row[4:]) for row in theirs])
        for (who, campaign, step_key, _), theirs in groupby(rows, itemgetter(0, 1, 2, 3))
    ]


# active_in: who only waits for the goal's time to end is not kept from another series.
_ACTIVE_IN = text("""
SELECT enrollment.subscriber_id, campaign.name
  FROM enrollment JOIN campaign ON campaign.id = enrollment.campaign_id
 WHERE enrollment.subscriber_id = ANY(CAST(:ids AS bigint[])) AND enrollment.state IN ('waiting', 'mailing')
   AND campaign.kind <> 'service' AND enrollment.waits_for IS DISTINCT FROM 'goal'
""")


def active_in(connection: Connection, subscriber_ids: Sequence[int]) -> dict[int, set[str]]:
    """The names of the campaigns each of these people is in the middle of."""
    found: dict[int, set[str]] = {}
    for subscriber_id, name in connection.execute(_ACTIVE_IN, {"ids": arrays.numbers(subscriber_ids)}).all():
        found.setdefault(subscriber_id, set()).add(name)
    return found
