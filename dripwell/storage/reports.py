"""Numbers that add up: every enrollment in exactly one group, every message in exactly one state."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import text

from dripwell.storage.database import Connection

# positions: people under way, by the last step behind them.
_POSITIONS = text("""
SELECT cursor_key, count(*) AS people
  FROM enrollment
 WHERE campaign_id = :campaign_id AND state IN ('waiting', 'mailing')
 GROUP BY cursor_key
""")


def positions(connection: Connection, campaign_id: int) -> dict[str | None, int]:
    """How many people under way stand behind each step; None: before the first."""
    rows = connection.execute(_POSITIONS, {"campaign_id": campaign_id})
    return {row.cursor_key: row.people for row in rows}


# overdue: due, and not looked at yet.
_OVERDUE = text("""
SELECT count(*)
  FROM enrollment
 WHERE campaign_id = :campaign_id AND state = 'waiting' AND next_due_at <= :now
""")


def overdue(connection: Connection, campaign_id: int, now: datetime) -> int:
    """How many people wait for something whose time has come."""
    found: int = connection.execute(_OVERDUE, {"campaign_id": campaign_id, "now": now}).scalar_one()
    return found


# people: one group each, so that the groups add up to everybody.
_PEOPLE = text("""
SELECT CASE WHEN state IN ('waiting', 'mailing') THEN 'in_progress'
            WHEN state = 'finished' THEN 'finished'
            ELSE ended_reason END AS place,
       count(*) AS people
  FROM enrollment
 WHERE campaign_id = :campaign_id
 GROUP BY place
""")


def people(connection: Connection, campaign_id: int) -> dict[str, int]:
    """Everybody who joined, in exactly one group: in_progress, finished, or the reason they left."""
    rows = connection.execute(_PEOPLE, {"campaign_id": campaign_id})
    return {row.place: row.people for row in rows}


# messages: one state each, so that the states add up to every message.
_MESSAGES = text("""
SELECT state, count(*) AS messages
  FROM message
 WHERE campaign_id = :campaign_id
 GROUP BY state
""")


def messages(connection: Connection, campaign_id: int) -> dict[str, int]:
    """Every message of the campaign, by state."""
    rows = connection.execute(_MESSAGES, {"campaign_id": campaign_id})
    return {row.state: row.messages for row in rows}


# totals: no grouping here, or the check would only check itself.
_TOTALS = text("""
SELECT (SELECT count(*) FROM enrollment WHERE campaign_id = :campaign_id) AS joined,
       (SELECT count(*) FROM message WHERE campaign_id = :campaign_id) AS planned
""")


def totals(connection: Connection, campaign_id: int) -> tuple[int, int]:
    """(everybody who joined, every message planned): counted apart from the groups they must add up to."""
    row = connection.execute(_TOTALS, {"campaign_id": campaign_id}).one()
    return row.joined, row.planned


# by_step: what became of the messages of each step; a person who clicked twice counts once.
_BY_STEP = text("""
SELECT message.step_key, count(*) AS planned,
       count(*) FILTER (WHERE message.state = 'ACCEPTED') AS accepted,
       count(*) FILTER (WHERE message.delivery IN ('delivered', 'complained')) AS delivered,
       count(*) FILTER (WHERE message.delivery = 'bounced') AS bounced,
       count(*) FILTER (WHERE EXISTS (SELECT FROM click WHERE click.message_id = message.id)) AS clicked
  FROM message
 WHERE message.campaign_id = :campaign_id
 GROUP BY message.step_key
""")

# left_after: those who left on their own or booked, by the last email accepted before that.
_LEFT_AFTER = text("""
SELECT latest.step_key,
       count(*) FILTER (WHERE enrollment.ended_reason IN ('unsubscribed', 'complained')) AS unsubscribed,
       count(*) FILTER (WHERE enrollment.ended_reason = 'goal') AS booked
  FROM enrollment,
       LATERAL (SELECT message.step_key
                  FROM message
                 WHERE message.enrollment_id = enrollment.id AND message.accepted_at IS NOT NULL
                   AND message.accepted_at <= enrollment.ended_at
                 ORDER BY message.accepted_at DESC
                 LIMIT 1) AS latest
 WHERE enrollment.campaign_id = :campaign_id AND enrollment.state = 'exited'
 GROUP BY latest.step_key
""")


def by_step(connection: Connection, campaign_id: int) -> Mapping[str, Any]:
    """Per step key: planned, accepted, delivered, bounced (hard), clicked (people), unsubscribed, booked after.

    Unsubscribed and booked are credited to the last email accepted before.
    """
    values = {"campaign_id": campaign_id}
    found: dict[str, dict[str, int]] = {row.step_key: {**row._mapping} for row in connection.execute(_BY_STEP, values)}
    for row in connection.execute(_LEFT_AFTER, values):
        found.setdefault(row.step_key, {}).update(unsubscribed=row.unsubscribed, booked=row.booked)
    return found


# clicked: people, not clicks.
_CLICKED = text("""
SELECT count(DISTINCT message.subscriber_id)
  FROM message JOIN click ON click.message_id = message.id
 WHERE message.campaign_id = :campaign_id
""")


def clicked(connection: Connection, campaign_id: int) -> int:
    """How many different people clicked in any email of the campaign."""
    found: int = connection.execute(_CLICKED, {"campaign_id": campaign_id}).scalar_one()
    return found


# unsettled: whatever some pass would move; a campaign that is not running moves nothing.
_UNSETTLED = text("""
SELECT (SELECT count(*)
          FROM enrollment JOIN campaign ON campaign.id = enrollment.campaign_id
         WHERE campaign.state = 'running' AND enrollment.state = 'waiting'
           AND enrollment.next_due_at <= :now) AS due,
       (SELECT count(*)
          FROM message JOIN campaign ON campaign.id = message.campaign_id
         WHERE campaign.state = 'running' AND message.state = 'PLANNED'
           AND message.due_at <= :now) AS planned,
       (SELECT count(*) FROM message WHERE state = 'IN_BATCH') AS in_batch,
       (SELECT count(*) FROM batch WHERE state <> 'DONE') AS batches,
       (SELECT count(*) FROM webhook_inbox WHERE state = 'new') AS webhooks
""")


def unsettled(connection: Connection, now: datetime) -> dict[str, int]:
    """What is still under way at this moment, everywhere: zero in every place means quiet."""
    return {**connection.execute(_UNSETTLED, {"now": now}).one()._mapping}


# being_checked: calls of which nobody knows yet whether the provider took them.
_BEING_CHECKED = text("SELECT count(*) FROM batch WHERE state = 'UNKNOWN'")


def being_checked(connection: Connection) -> int:
    """How many calls wait for evidence of what became of them."""
    found: int = connection.execute(_BEING_CHECKED).scalar_one()
    return found


# stopped: why nobody at all is called, and why nothing that follows the calendar is.
_STOPPED = text("""
SELECT quarantined_at, quarantine_reason, clock_alarm
  FROM installation
""")


def stopped(connection: Connection) -> Any:
    """What a person has to decide before mail goes out again: quarantined_at, quarantine_reason, clock_alarm."""
    return connection.execute(_STOPPED).one()


# next_due: of a person who waits or a message that is planned, whichever comes first.
_NEXT_DUE = text("""
SELECT least((SELECT min(enrollment.next_due_at)
                FROM enrollment JOIN campaign ON campaign.id = enrollment.campaign_id
               WHERE campaign.state = 'running' AND enrollment.state = 'waiting'),
             (SELECT min(message.due_at)
                FROM message JOIN campaign ON campaign.id = message.campaign_id
               WHERE campaign.state = 'running' AND message.state = 'PLANNED'))
""")


def next_due(connection: Connection) -> datetime | None:
    """The campaign time at which somebody in a running campaign is due next."""
    found: datetime | None = connection.execute(_NEXT_DUE).scalar()
    return found


# timeline: enrollments and emails in one list; of two at one time, joining comes before the email.
_TIMELINE = text("""
SELECT enrollment.joined_at AS at, 'joined' AS what, campaign.name AS campaign, NULL AS step_key, enrollment.state,
       coalesce(enrollment.ended_reason, enrollment.waits_for) AS reason, enrollment.next_due_at AS until,
       enrollment.id AS enrollment_id
  FROM enrollment JOIN campaign ON campaign.id = enrollment.campaign_id
 WHERE enrollment.subscriber_id = :subscriber_id
 UNION ALL
SELECT coalesce(message.accepted_at, message.due_at), 'email', campaign.name, message.step_key, message.state,
       coalesce(message.reason, message.delivery), NULL,
       message.enrollment_id
  FROM message JOIN campaign ON campaign.id = message.campaign_id
 WHERE message.subscriber_id = :subscriber_id
 ORDER BY at, what DESC
""")


def timeline(connection: Connection, subscriber_id: int) -> list[Any]:
    """Every enrollment and message of one person, oldest first.

    Each has at, what (joined or email), campaign, step_key, state, reason, until, enrollment_id.
    """
    return list(connection.execute(_TIMELINE, {"subscriber_id": subscriber_id}))


# lanes: every lane, with nothing to do or not.
_LANES = text("""
SELECT lane_state.lane, lane_state.breaker, lane_state.breaker_reason,
       count(message.id) FILTER (WHERE message.state = 'PLANNED' AND message.due_at <= :now) AS due,
       count(message.id) FILTER (WHERE message.state = 'IN_BATCH') AS in_batch,
       count(message.id) FILTER (WHERE message.state = 'HELD') AS held,
       min(message.due_at) FILTER (WHERE message.state = 'PLANNED' AND message.due_at <= :now) AS oldest_due
  FROM lane_state
  LEFT JOIN message ON message.lane = lane_state.lane AND message.state IN ('PLANNED', 'IN_BATCH', 'HELD')
 GROUP BY lane_state.lane, lane_state.breaker, lane_state.breaker_reason
 ORDER BY lane_state.lane
""")


def lanes(connection: Connection, now: datetime) -> list[Any]:
    """Every lane by name: lane, breaker, breaker_reason, due (planned and due), in_batch, held, oldest_due."""
    return list(connection.execute(_LANES, {"now": now}))
