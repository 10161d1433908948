"""What the record says the provider has accepted, to be held against what the provider says itself (V8)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from dripwell.storage.database import Connection

# accepted: of every campaign.
_ACCEPTED = text("""
SELECT message.public_id, message.subscriber_id, campaign.name AS campaign, message.step_key, message.accepted_at
  FROM message JOIN campaign ON campaign.id = message.campaign_id
 WHERE message.state = 'ACCEPTED'
""")


def accepted(connection: Connection) -> dict[str, Any]:
    """Every accepted message by its public id in hex (`dw_m`): subscriber_id, campaign, step_key, accepted_at."""
    return {row.public_id.hex: row for row in connection.execute(_ACCEPTED)}


# lives: who left has the campaign time of it, and who was ever suppressed the wall time of the first row.
_LIVES = text("""
SELECT enrollment.subscriber_id, subscriber.timezone, enrollment.state, enrollment.ended_reason,
       CASE WHEN enrollment.state = 'exited' THEN enrollment.ended_at END AS left_at,
       (SELECT extract(epoch FROM min(suppression.at))::float8
          FROM suppression
         WHERE suppression.addr_hash = subscriber.addr_hash AND suppression.action = 'suppress') AS suppressed
  FROM enrollment JOIN subscriber ON subscriber.id = enrollment.subscriber_id
 WHERE enrollment.campaign_id = :campaign_id
 ORDER BY subscriber.id
""")


def lives(connection: Connection, campaign_id: int) -> list[Any]:
    """How everybody fared in a campaign: subscriber_id, timezone, state, ended_reason, left_at, suppressed.

    `suppressed` is the wall time, in seconds, at which their first suppression was recorded.
    """
    return list(connection.execute(_LIVES, {"campaign_id": campaign_id}))


# unmailed: service emails that did not reach the provider. Nobody may miss the word about their call.
_UNMAILED = text("""
SELECT campaign.name AS campaign, message.step_key, message.state, message.reason
  FROM message JOIN campaign ON campaign.id = message.campaign_id
 WHERE message.lane IN ('confirm', 'booking') AND message.state <> 'ACCEPTED'
 ORDER BY message.id
""")


def unmailed(connection: Connection) -> list[Any]:
    """Every service email that is not accepted: campaign, step_key, state, reason."""
    return list(connection.execute(_UNMAILED))
