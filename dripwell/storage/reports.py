"""Numbers that add up: every enrollment in exactly one group, every message in exactly one state."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import text

from dripwell.storage.database import Connection


def positions(connection: Connection, campaign_id: int) -> dict[str | None, int]:
    """How many people under way stand behind each step; None: before the first."""
    rows = connection.execute(
        text(
            "SELECT cursor_key, count(*) AS people FROM enrollment"
            " WHERE campaign_id = :id AND state IN ('waiting', 'mailing') GROUP BY cursor_key"
        ),
        {"id": campaign_id},
    )
    return {row.cursor_key: row.people for row in rows}


def overdue(connection: Connection, campaign_id: int, now: datetime) -> int:
    """How many people wait for something whose time has come."""
    found: int = connection.execute(
        text("SELECT count(*) FROM enrollment WHERE campaign_id = :id AND state = 'waiting' AND next_due_at <= :now"),
        {"id": campaign_id, "now": now},
    ).scalar_one()
    return found


def people(connection: Connection, campaign_id: int) -> dict[str, int]:
    """Everybody who joined, in exactly one group: in_progress, finished, or the reason they left."""
    rows = connection.execute(
        text(
            "SELECT CASE WHEN state IN ('waiting', 'mailing') THEN 'in_progress' WHEN state = 'finished' THEN 'finished'"
            " ELSE ended_reason END AS place, count(*) AS people FROM enrollment WHERE campaign_id = :id GROUP BY 1"
        ),
        {"id": campaign_id},
    )
    return {row.place: row.people for row in rows}


def messages(connection: Connection, campaign_id: int) -> dict[str, int]:
    """Every message of the campaign, by state."""
    rows = connection.execute(
        text("SELECT state, count(*) AS messages FROM message WHERE campaign_id = :id GROUP BY state"),
        {"id": campaign_id},
    )
    return {row.state: row.messages for row in rows}


def totals(connection: Connection, campaign_id: int) -> tuple[int, int]:
    """(everybody who joined, every message planned): counted apart from the groups they must add up to."""
    row = connection.execute(
        text(
            "SELECT (SELECT count(*) FROM enrollment WHERE campaign_id = :id) AS joined,"
            " (SELECT count(*) FROM message WHERE campaign_id = :id) AS planned"
        ),
        {"id": campaign_id},
    ).one()
    return row.joined, row.planned


def by_step(connection: Connection, campaign_id: int) -> Mapping[str, Any]:
    """Per step key: planned, accepted, delivered, bounced (hard), clicked (people), unsubscribed, booked after.

    Unsubscribed and booked are credited to the last email accepted before.
    """
    rows = connection.execute(
        text(
            "SELECT m.step_key, count(*) AS planned, count(*) FILTER (WHERE m.state = 'ACCEPTED') AS accepted,"
            " count(*) FILTER (WHERE m.delivery IN ('delivered', 'complained')) AS delivered,"
            " count(*) FILTER (WHERE m.delivery = 'bounced') AS bounced,"
            " count(*) FILTER (WHERE EXISTS (SELECT FROM click c WHERE c.message_id = m.id)) AS clicked"
            " FROM message m WHERE m.campaign_id = :id GROUP BY m.step_key"
        ),
        {"id": campaign_id},
    )
    found: dict[str, dict[str, int]] = {row.step_key: {**row._mapping} for row in rows}
    left = connection.execute(
        text(
            "SELECT l.step_key, count(*) FILTER (WHERE e.ended_reason IN ('unsubscribed', 'complained')) AS unsubscribed,"
            " count(*) FILTER (WHERE e.ended_reason = 'goal') AS booked"
            " FROM enrollment e, LATERAL (SELECT m.step_key FROM message m WHERE m.enrollment_id = e.id"
            "   AND m.accepted_at IS NOT NULL AND m.accepted_at <= e.ended_at ORDER BY m.accepted_at DESC LIMIT 1) AS l"
            " WHERE e.campaign_id = :id AND e.state = 'exited' GROUP BY l.step_key"
        ),
        {"id": campaign_id},
    )
    for row in left:
        found.setdefault(row.step_key, {}).update(unsubscribed=row.unsubscribed, booked=row.booked)
    return found


def clicked(connection: Connection, campaign_id: int) -> int:
    """How many different people clicked in any email of the campaign."""
    found: int = connection.execute(
        text(
            "SELECT count(DISTINCT m.subscriber_id) FROM message m JOIN click c ON c.message_id = m.id"
            " WHERE m.campaign_id = :id"
        ),
        {"id": campaign_id},
    ).scalar_one()
    return found


def unsettled(connection: Connection, now: datetime) -> dict[str, int]:
    """What is still under way at this moment, everywhere: zero in every place means quiet."""
    row = connection.execute(
        text(
            "SELECT (SELECT count(*) FROM enrollment e JOIN campaign c ON c.id = e.campaign_id AND c.state = 'running'"
            "         WHERE e.state = 'waiting' AND e.next_due_at <= :now) AS due,"
            " (SELECT count(*) FROM message m JOIN campaign c ON c.id = m.campaign_id AND c.state = 'running'"
            "         WHERE m.state = 'PLANNED' AND m.due_at <= :now) AS planned,"
            " (SELECT count(*) FROM message WHERE state = 'IN_BATCH') AS in_batch,"
            " (SELECT count(*) FROM batch WHERE state <> 'DONE') AS batches,"
            " (SELECT count(*) FROM webhook_inbox WHERE state = 'new') AS webhooks"
        ),
        {"now": now},
    ).one()
    return {**row._mapping}


def next_due(connection: Connection) -> datetime | None:
    """The campaign time at which somebody in a running campaign is due next."""
    found: datetime | None = connection.execute(
        text(
            "SELECT least((SELECT min(e.next_due_at) FROM enrollment e JOIN campaign c ON c.id = e.campaign_id"
            "   AND c.state = 'running' WHERE e.state = 'waiting'),"
            " (SELECT min(m.due_at) FROM message m JOIN campaign c ON c.id = m.campaign_id AND c.state = 'running'"
            "   WHERE m.state = 'PLANNED'))"
        )
    ).scalar()
    return found


def timeline(connection: Connection, subscriber_id: int) -> list[Any]:
    """Every enrollment and message of one person, oldest first: at, what, campaign, step_key, state, reason, until."""
    return list(
        connection.execute(
            text(
                "SELECT e.joined_at AS at, 'joined' AS what, c.name AS campaign, NULL AS step_key, e.state,"
                "   coalesce(e.ended_reason, e.waits_for) AS reason, e.next_due_at AS until, e.id AS enrollment_id"
                " FROM enrollment e JOIN campaign c ON c.id = e.campaign_id WHERE e.subscriber_id = :id"
                " UNION ALL SELECT coalesce(m.accepted_at, m.due_at), 'email', c.name, m.step_key, m.state,"
                "   coalesce(m.reason, m.delivery), NULL, m.enrollment_id"
                " FROM message m JOIN campaign c ON c.id = m.campaign_id WHERE m.subscriber_id = :id"
                " ORDER BY 1, 2 DESC"
            ),
            {"id": subscriber_id},
        )
    )


def lanes(connection: Connection, now: datetime) -> list[Any]:
    """Per lane: planned and due, in batch, held, oldest due, breaker."""
    return list(
        connection.execute(
            text(
                "SELECT l.lane, l.breaker, l.breaker_reason,"
                " count(m.id) FILTER (WHERE m.state = 'PLANNED' AND m.due_at <= :now) AS due,"
                " count(m.id) FILTER (WHERE m.state = 'IN_BATCH') AS in_batch,"
                " count(m.id) FILTER (WHERE m.state = 'HELD') AS held,"
                " min(m.due_at) FILTER (WHERE m.state = 'PLANNED' AND m.due_at <= :now) AS oldest_due"
                " FROM lane_state l LEFT JOIN message m ON m.lane = l.lane AND m.state IN ('PLANNED', 'IN_BATCH', 'HELD')"
                " GROUP BY l.lane, l.breaker, l.breaker_reason ORDER BY l.lane"
            ),
            {"now": now},
        )
    )
