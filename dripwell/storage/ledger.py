"""What the record says the provider has accepted, to be held against what the provider says itself (V8)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from dripwell.storage.database import Connection


def accepted(connection: Connection) -> dict[str, Any]:
    """Every accepted message by its public id in hex (`dw_m`): subscriber_id, campaign, step_key, accepted_at."""
    rows = connection.execute(
        text(
            "SELECT m.public_id, m.subscriber_id, c.name AS campaign, m.step_key, m.accepted_at"
            " FROM message m JOIN campaign c ON c.id = m.campaign_id WHERE m.state = 'ACCEPTED'"
        )
    )
    return {row.public_id.hex: row for row in rows}


def lives(connection: Connection, campaign_id: int) -> list[Any]:
    """How everybody fared in a campaign: subscriber_id, timezone, state, ended_reason, ended_at, and the wall time in
    seconds at which their first suppression was recorded."""
    return list(
        connection.execute(
            text(
                "SELECT e.subscriber_id, s.timezone, e.state, e.ended_reason,"
                " CASE WHEN e.state = 'exited' THEN e.ended_at END AS left_at,"
                " (SELECT extract(epoch FROM min(x.at))::float8 FROM suppression x WHERE x.addr_hash = s.addr_hash"
                "   AND x.action = 'suppress') AS suppressed"
                " FROM enrollment e JOIN subscriber s ON s.id = e.subscriber_id WHERE e.campaign_id = :id ORDER BY s.id"
            ),
            {"id": campaign_id},
        )
    )
