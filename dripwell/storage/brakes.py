"""What a breaker closed until a named person opens it again. Times are campaign time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import text

from dripwell.storage.database import Connection

RAMP = "ramp"
"""The scope of a warm-up that stands still."""


@dataclass(frozen=True, slots=True)
class Brake:
    """One thing that is, or was, closed. `scope`: lane:drip, group:gmail, campaign:7 or ramp."""

    id: int
    scope: str
    reason: str
    detail: Mapping[str, Any]
    since: datetime
    released_at: datetime | None


# closed: by the unique index.
_CLOSED = text("SELECT reason FROM brake WHERE scope = :scope AND released_at IS NULL")


def closed(connection: Connection, lane: str) -> str | None:
    """Why this lane may not claim now; None when it may. Service lanes are never closed here."""
    found: str | None = connection.execute(_CLOSED, {"scope": f"lane:{lane}"}).scalar()
    return found


# paused_groups: there are five at most.
_PAUSED_GROUPS = text("SELECT scope FROM brake WHERE scope LIKE 'group:%' AND released_at IS NULL")


def paused_groups(connection: Connection) -> set[str]:
    """The mailbox groups to which no marketing message may go now, as `core.pace.group_of` names them."""
    return {scope.removeprefix("group:") for scope in connection.execute(_PAUSED_GROUPS).scalars()}


# pull: a second reason does not replace the first.
_PULL = text("""
INSERT INTO brake (scope, reason, detail, since)
VALUES (:scope, :reason, CAST(:detail AS jsonb), :now)
    ON CONFLICT (scope) WHERE released_at IS NULL DO NOTHING
RETURNING id
""")


def pull(connection: Connection, scope: str, reason: str, detail: Mapping[str, Any], now: datetime) -> bool:
    """Close this scope; False when it is closed already."""
    values = {"scope": scope, "reason": reason, "detail": json.dumps(dict(detail), default=str), "now": now}
    return connection.execute(_PULL, values).first() is not None


# release: only what is closed.
_RELEASE = text("""
UPDATE brake SET released_at = :now, released_by = :actor, released_reason = :reason
 WHERE scope = :scope AND released_at IS NULL
""")


def release(connection: Connection, scope: str, actor: str, reason: str, now: datetime) -> bool:
    """Open this scope again; False when it is not closed. The windows of its breaker begin anew at `now`."""
    values = {"scope": scope, "actor": actor, "reason": reason, "now": now}
    return connection.execute(_RELEASE, values).rowcount == 1


# standing: oldest first.
_STANDING = text("""
SELECT id, scope, reason, detail, since, released_at
  FROM brake
 WHERE released_at IS NULL
 ORDER BY id
""")


def standing(connection: Connection) -> list[Brake]:
    """Everything that is closed now, oldest first."""
    return [Brake(**row._mapping) for row in connection.execute(_STANDING)]


# released: of each scope the newest.
_RELEASED = text("""
SELECT scope, max(released_at) AS released_at
  FROM brake
 WHERE released_at IS NOT NULL
 GROUP BY scope
""")


def released(connection: Connection) -> dict[str, datetime]:
    """When each scope that was ever closed was opened last."""
    return {row.scope: row.released_at for row in connection.execute(_RELEASED)}


# spans: of one scope, since a time.
_SPANS = text("""
SELECT since, released_at
  FROM brake
 WHERE scope = :scope AND coalesce(released_at, 'infinity') >= :since
 ORDER BY id
""")


def spans(connection: Connection, scope: str, since: datetime) -> list[tuple[datetime, datetime | None]]:
    """When this scope was closed and opened, as far back as `since`; None: it is closed now."""
    return [(row.since, row.released_at) for row in connection.execute(_SPANS, {"scope": scope, "since": since})]


# resumed: the campaigns whose brake a person has released by going on, and when. `activity` keeps wall time.
_RESUMED = text("""
SELECT brake.scope, campaign.name, coalesce(went_on.actor, 'somebody') AS actor,
       greatest(brake.since, coalesce(went_on.at + installation.campaign_offset, :now)) AS at
  FROM brake
  JOIN campaign ON brake.scope = 'campaign:' || campaign.id
 CROSS JOIN installation
  LEFT JOIN LATERAL (SELECT actor, at
                       FROM activity
                      WHERE activity.about = campaign.name AND activity.action IN ('resumed', 'started')
                      ORDER BY activity.id DESC
                      LIMIT 1) AS went_on ON true
 WHERE brake.released_at IS NULL AND campaign.state <> 'paused'
 ORDER BY campaign.id
""")


def resumed(connection: Connection, now: datetime) -> list[Any]:
    """Campaigns a breaker paused that are not paused any more: scope, name, actor, at (campaign time)."""
    return list(connection.execute(_RESUMED, {"now": now}))
