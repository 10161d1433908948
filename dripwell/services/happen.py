"""Something happened to a person: goals and exits take effect, and triggers enroll, in the same transaction."""

from __future__ import annotations

from dripwell.core.campaign import Campaign
from dripwell.core.journey import Passage, reached
from dripwell.core.states import Reason
from dripwell.services import leave
from dripwell.services.versions import Versions
from dripwell.storage import campaigns, enrollments, subscribers
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection

BOOKED = "consultation.booked"
CANCELED = "consultation.canceled"
EVENTS = (BOOKED, CANCELED)
"""Every event that Dripwell itself can tell of; goals, exits and triggers may name them."""


def record(connection: Connection, versions: Versions, subscriber_id: int, event: str, times: Times) -> None:
    """Write that `event` happened now; end every series whose goal or exit it is, and start those it triggers."""
    subscribers.add_happening(connection, subscriber_id, event, times.now)
    ends: dict[Reason, list[int]] = {}
    for row in enrollments.under_way(connection, subscriber_id):
        settings = versions.published(connection, row.newest_version_id).campaign
        reason = _ended_by(settings, Passage(row.id, row.joined_at, row.joined_at), event, times)
        if reason is not None:
            ends.setdefault(reason, []).append(row.id)
    for reason in sorted(ends):
        leave.end(connection, enrollment_ids=ends[reason], reason=reason, times=times, actor=event)
    trigger(connection, versions, subscriber_id, "event", event, times)


def trigger(
    connection: Connection, versions: Versions, subscriber_id: int, kind: str, name: str, times: Times
) -> list[str]:
    """Enroll this person in every running campaign that starts with this form, tag or event. Returns their names."""
    joined = []
    for row in campaigns.all_of_kind(connection, ["drip"]):
        if row.state != "running" or row.version_id is None:
            continue
        campaign = versions.published(connection, row.version_id).campaign
        if any(t.kind == kind and t.name == name for t in campaign.triggers):
            new = enrollments.add(
                connection, subscriber_ids=[subscriber_id], campaign_id=row.id, version_id=row.version_id, now=times.now
            )
            if new:
                joined.append(row.name)
    if joined:
        campaigns.ring(connection, "plan")
    return joined


def _ended_by(settings: Campaign, passage: Passage, event: str, times: Times) -> Reason | None:
    goal = settings.goal
    if goal is not None and goal.exits and goal.event == event and reached(goal.within, passage, times.now):
        return Reason.GOAL
    if any(rule.kind == "event" and rule.value == event for rule in settings.exits):
        return Reason.EXIT
    return None
