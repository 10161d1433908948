"""Holding back: a host is lost with its journal, so nobody knows whom it has mailed since the backup.

Whoever may have been mailed is HELD, and a person or the provider's log decides. That is everything the backup has as
planned, and everything the planner must have planned since: the same `decide` is asked about the moments that passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from dripwell.core.errors import RefusedError
from dripwell.core.journey import PlanMessage, WaitUntil, decide, moved, tagged
from dripwell.core.keys import message_id
from dripwell.core.states import Reason
from dripwell.services import people
from dripwell.services.versions import Published, Versions
from dripwell.storage import clock, enrollments, messages, outcomes, restoring, witness
from dripwell.storage.database import Connection, Database
from dripwell.storage.enrollments import Due, Reached
from dripwell.storage.messages import NewMessage

ACTOR = "restore"
_SLICE = 1000
_LOOKS = 2000
"""How often a planner may have looked at one person; more is a circle. Waits for conditions take a look an hour."""


def hold(database: Database, versions: Versions, days: int) -> int:
    """T12-like: hold every email that is planned, or must have been planned, in the last `days`. Returns how many.

    Raises RefusedError out of quarantine. Service emails that the backup does not have are unknown and stay so.
    """
    with database.transaction() as connection:
        if not witness.is_quarantined(connection):
            raise RefusedError("the record is not in quarantine, so nothing is held")
        now = clock.read(connection).now
    since = now - timedelta(days=days)
    reached: Reached = {}
    while database.retrying(lambda connection: _plan_as_then(connection, versions, since, now, reached)):
        pass

    def work(connection: Connection) -> int:
        ids = restoring.hold_planned(connection, since, Reason.RESTORED)
        outcomes.log(connection, [(identity, Reason.RESTORED) for identity in ids], "T12", None, ACTOR)
        return len(ids)

    return database.retrying(work)


def _plan_as_then(connection: Connection, versions: Versions, since: datetime, now: datetime, reached: Reached) -> int:
    """T1 for a slice of people who were due meanwhile. Returns how many were looked at."""
    dues = enrollments.claim_due(connection, now, _SLICE, reached)
    if not dues:
        return 0
    ids = {due.version_id for due in dues} | {due.campaign.newest_version_id for due in dues}
    published = {version_id: versions.published(connection, version_id) for version_id in sorted(ids)}
    newest = {due.campaign.id: published[due.campaign.newest_version_id] for due in dues}
    around = people.read(connection, dues, newest, now, steps=[one.campaign for one in published.values()])
    new = [found for due in dues if (found := _as_then(due, published, around[due.id], since, now)) is not None]
    enrollments.to_mailing(connection, sorted(messages.add_planned(connection, new)))
    reached.update((due.campaign.id, (due.next_due_at, due.id)) for due in dues)
    return len(dues)


def _as_then(
    due: Due, published: Mapping[int, Published], around: people.Surrounded, since: datetime, now: datetime
) -> NewMessage | None:
    campaign, settings = published[due.version_id].campaign, published[due.campaign.newest_version_id]
    at = max(due.next_due_at, since)
    passage, person = around.passage, around.person
    for _ in range(_LOOKS):
        decision = decide(campaign, settings.campaign, settings.site, passage, person, at)
        passage = moved(passage, decision)
        for passed in decision.passed:
            person = tagged(person, passed)
        if isinstance(decision, PlanMessage):
            return NewMessage(
                public_id=message_id(due.campaign.public_id, around.someone.public_id, decision.key, due.round),
                enrollment_id=due.id,
                subscriber_id=due.subscriber_id,
                campaign_id=due.campaign.id,
                step_key=decision.key,
                lane="drip",
                due_at=at,
                fresh_until=at,  # should a person release it, it is decided again
                addr_hash=around.someone.addr_hash,
            )
        if not isinstance(decision, WaitUntil) or not at < decision.at <= now:
            return None
        at = decision.at
    return None
