"""The planner: decides for each due enrollment, in one transaction a thousand, and writes what was decided."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from dripwell.core.journey import Decision, Finish, Leave, PlanMessage, WaitUntil, decide
from dripwell.core.keys import message_id
from dripwell.core.states import SUPPRESSING, Reason
from dripwell.services import people
from dripwell.services.versions import Published, Versions
from dripwell.storage import campaigns, clock, enrollments, messages
from dripwell.storage.database import Connection, Database
from dripwell.storage.enrollments import Due
from dripwell.storage.messages import NewMessage

SLICE = 1000
_LANE = "drip"


def plan(database: Database, versions: Versions, *, out_of_time: Callable[[], bool]) -> int:
    """Decide for everybody who is due until nobody is, or time is up. Returns how many decisions were made."""
    made = 0
    while not out_of_time():
        moved = database.retrying(lambda connection: plan_slice(connection, versions, SLICE))
        made += moved
        if moved < SLICE:
            break
    return made


def plan_slice(connection: Connection, versions: Versions, limit: int) -> int:
    """Decide once for at most `limit` due enrollments and as many stale messages, in the caller's transaction."""
    now = clock.read(connection).now
    return _plan_due(connection, versions, now, limit) + _decide_again(connection, versions, now, limit)


def _plan_due(connection: Connection, versions: Versions, now: datetime, limit: int) -> int:
    dues = enrollments.claim_due(connection, now, limit)
    if not dues:
        return 0
    decided = _decide_all(connection, versions, dues, now)
    new = [_message(due, decided[due.id][1], decision, now) for due, decision in _planned(dues, decided)]
    planned = messages.add_planned(connection, new)
    enrollments.to_mailing(connection, sorted(planned))
    _give_way(connection, [message for message in new if message.enrollment_id not in planned], now)
    waits = [(due.id, d.at, d.waits_for) for due in dues if isinstance(d := decided[due.id][0], WaitUntil)]
    enrollments.wait(connection, waits)
    enrollments.finish(connection, [due.id for due in dues if isinstance(decided[due.id][0], Finish)], now)
    _leave(connection, dues, decided, now)
    if planned:
        campaigns.ring(connection, _LANE)
    return len(dues)


def _decide_again(connection: Connection, versions: Versions, now: datetime, limit: int) -> int:
    """T16: planned messages that did not leave in time are decided again; nobody is mailed at night for an outage."""
    stale = enrollments.claim_stale(connection, now, limit)
    if not stale:
        return 0
    decided = _decide_all(connection, versions, stale, now)
    again: list[tuple[int, datetime, datetime]] = []
    for due in stale:
        decision = decided[due.id][0]
        assert due.message_id is not None
        if isinstance(decision, PlanMessage):
            again.append((due.message_id, now, decision.fresh_until))
        elif isinstance(decision, WaitUntil):
            again.append((due.message_id, decision.at, decision.at))  # stale at that moment: decided then
    messages.replan(connection, again)
    _leave(connection, stale, decided, now)
    campaigns.ring(connection, _LANE)
    return len(stale)


Decided = dict[int, tuple[Decision, people.Circumstances]]


def _decide_all(connection: Connection, versions: Versions, dues: Sequence[Due], now: datetime) -> Decided:
    newest_of: dict[int, Published] = {
        due.campaign_id: versions.published(connection, due.newest_version_id) for due in dues
    }
    topics = {campaign_id: newest.campaign.topic for campaign_id, newest in newest_of.items()}
    around = people.read(connection, dues, topics, now)
    decided: Decided = {}
    for due in dues:
        on: Published = versions.published(connection, due.version_id)
        newest = newest_of[due.campaign_id]
        passage, person, about = around[due.id]
        decided[due.id] = (decide(on.campaign, newest.campaign, newest.site, passage, person, now), about)
    return decided


def _planned(dues: Sequence[Due], decided: Decided) -> list[tuple[Due, PlanMessage]]:
    return [(due, decision) for due in dues if isinstance(decision := decided[due.id][0], PlanMessage)]


def _message(due: Due, about: people.Circumstances, decision: PlanMessage, now: datetime) -> NewMessage:
    return NewMessage(
        public_id=message_id(due.campaign_public_id, about.public_id, decision.key, due.round),
        enrollment_id=due.id,
        subscriber_id=due.subscriber_id,
        campaign_id=due.campaign_id,
        step_key=decision.key,
        lane=_LANE,
        due_at=now,
        fresh_until=decision.fresh_until,
        addr_hash=about.addr_hash,
    )


def _give_way(connection: Connection, beaten: Sequence[NewMessage], now: datetime) -> None:
    """A key was taken: the step is used up (go on behind it), or another campaign mails this person first (wait)."""
    if not beaten:
        return
    used = messages.used_keys(connection, [message.enrollment_id for message in beaten])
    for message in beaten:
        if (message.enrollment_id, message.step_key) in used:
            enrollments.skip_to(connection, message.enrollment_id, message.step_key, now)
        else:
            enrollments.wait(connection, [(message.enrollment_id, now + people.GIVE_WAY, "another_email")])


def _leave(connection: Connection, dues: Sequence[Due], decided: Decided, now: datetime) -> None:
    leaving: dict[Reason, list[int]] = {}
    for due in dues:
        decision = decided[due.id][0]
        if isinstance(decision, Leave):
            leaving.setdefault(decision.reason, []).append(due.id)
    for reason, ids in leaving.items():
        state = "SUPPRESSED" if reason in SUPPRESSING else "SKIPPED"
        messages.end_planned(connection, sorted(ids), state, reason, "planner")
        enrollments.leave(connection, sorted(ids), reason, now)
