"""Something happened to a person: goals and exits take effect, and triggers enroll, in the same transaction."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from dripwell.core.campaign import Campaign, Trigger
from dripwell.core.journey import Passage, reached
from dripwell.core.states import Reason
from dripwell.services import joining, leave
from dripwell.services.versions import Versions
from dripwell.storage import campaigns, enrollments, subscribers, suppressions
from dripwell.storage.clock import Times
from dripwell.storage.database import Connection

BOOKED = "consultation.booked"
CANCELED = "consultation.canceled"


def record(
    connection: Connection,
    versions: Versions,
    subscriber_id: int,
    event: str,
    times: Times,
    *,
    at: datetime | None = None,
    sender_id: str | None = None,
) -> bool:
    """Write that `event` happened; end every series whose goal or exit it is, and start those it triggers.

    `at`: when it happened, in campaign time, if not now; what happened before somebody joined ends no series of theirs.
    False: its sender told it before under this id of theirs, and nothing happens again.
    """
    happened_at = at or times.now
    suppressions.lock_in_scope(connection, subscriber_id, suppressions.ALL)  # all at once, by id, whatever their end
    if not subscribers.add_happening(connection, subscriber_id, event, happened_at, sender_id=sender_id):
        return False
    ends: dict[Reason, list[int]] = {}
    for row in enrollments.under_way(connection, subscriber_id):
        if happened_at < row.joined_at:
            continue
        settings = versions.published(connection, row.newest_version_id).campaign
        reason = _ended_by(settings, Passage(row.id, row.joined_at, row.joined_at), event, happened_at)
        if reason is not None:
            ends.setdefault(reason, []).append(row.id)
    for reason in sorted(ends):
        leave.end(connection, enrollment_ids=ends[reason], reason=reason, times=times, actor=event)
    trigger(connection, versions, subscriber_id, "event", event, times)
    return True


def trigger(
    connection: Connection, versions: Versions, subscriber_id: int, kind: str, name: str, times: Times
) -> list[str]:
    """Enroll this person in every running campaign that starts with this form, tag or event. Returns their names."""
    return list(trigger_many(connection, versions, [subscriber_id], kind, name, times))


def trigger_many(
    connection: Connection,
    versions: Versions,
    subscriber_ids: Sequence[int],
    kind: str,
    name: str,
    times: Times,
    *,
    actor: str | None = None,
) -> dict[str, list[int]]:
    """Enroll these people in every running campaign that starts with this. Returns who joined, by campaign.

    `kind` is form, tag, event or import, `name` the form, tag or event (of an import it is not looked at). Call it
    after consent and tags are written: only people who may be mailed on the campaign's topic, and whom its audience
    and its re-entry rule admit, join. With an `actor` the activity says so.
    """
    joined: dict[str, list[int]] = {}
    for row in campaigns.all_of_kind(connection, ["drip"]) if subscriber_ids else ():
        if row.state != "running" or row.version_id is None:
            continue
        published = versions.published(connection, row.version_id)
        if not any(_is(one, kind, name) for one in published.campaign.triggers):
            continue
        new = joining.let_in(connection, published, subscriber_ids, times).joined
        if new:
            joined[row.name] = list(new)
            if actor is not None:
                detail = {"people": len(new), "by": kind}
                campaigns.add_activity(connection, actor=actor, action="enrolled", about=row.name, detail=detail)
    if joined:
        campaigns.ring(connection, "plan")
    return joined


def _is(trigger: Trigger, kind: str, name: str) -> bool:
    return trigger.kind == kind and (kind == "import" or trigger.name == name)


def _ended_by(settings: Campaign, passage: Passage, event: str, at: datetime) -> Reason | None:
    goal = settings.goal
    if goal is not None and goal.exits and goal.event == event and reached(goal.within, passage, at):
        return Reason.GOAL
    if any(rule.kind == "event" and rule.value == event for rule in settings.exits):
        return Reason.EXIT
    return None
